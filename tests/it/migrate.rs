//! `jetcopy migrate` as a process that dies in the middle.

use std::path::Path;
use std::process::Stdio;

use jetcopy::testbed::{TestPostgres, connect, spawn_tied};
use nix::sys::signal::Signal;

use crate::support::eventually;

/// Has whoever migrates wait in the middle, when there is a registry, for a lock that this session holds.
const HOLD: &str = "CREATE SCHEMA held;
    CREATE FUNCTION held.wait() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF to_regclass('projects') IS NOT NULL THEN PERFORM pg_advisory_xact_lock(1); END IF;
    END $$;
    CREATE EVENT TRIGGER held_wait ON ddl_command_end EXECUTE FUNCTION held.wait();
    SELECT pg_advisory_lock(1)";

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'jetcopy migrate' AND wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_migrator_was_killed_in_the_middle_the_next_one_applies_everything_once() {
    for server in [TestPostgres::shared_plain().unwrap(), TestPostgres::shared().unwrap()] {
        let url = server.create_database().await.unwrap();
        let client = connect(&url).await.unwrap();
        client.batch_execute(HOLD).await.unwrap();
        let migrate = || {
            let program = Path::new(env!("CARGO_BIN_EXE_jetcopy"));
            let child = spawn_tied(program, None, Signal::SIGKILL, |command| {
                command.args(["migrate", "--postgres-url", &url]).env_remove("JETCOPY_CONFIG");
                command.env("JETCOPY_STORE__TABLES", "[registry]");
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            });
            child.unwrap()
        };
        let waiting = async || client.query_one(WAITING, &[]).await.unwrap().get::<_, i64>(0);

        let mut first = migrate();
        eventually("the first to be in the middle", async || waiting().await == 1).await;
        first.kill().unwrap();
        first.wait().unwrap();
        // Its backend has not noticed, and holds what it has locked.
        let second = migrate();
        eventually("the second to wait for it", async || waiting().await == 2).await;
        client.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
        let output = tokio::task::spawn_blocking(move || second.wait_with_output().unwrap()).await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{said}");
        let applied: i64 =
            client.query_one("SELECT count(*) FROM jetcopy.schema_history", &[]).await.unwrap().get(0);
        assert!(applied > 0, "{said}");
        assert_eq!(said.matches(": applied ").count(), usize::try_from(applied).unwrap(), "{said}");
    }
}
