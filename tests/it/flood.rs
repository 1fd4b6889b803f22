//! A flood of dead letters pauses a pipeline, says what it is about, and goes on by as many messages as are
//! accepted.

use std::path::Path;

use serde_json::json;

use crate::support::{Daemon, World, eventually, oracle};

/// More than ten bad messages are a flood. What a test publishes at first is one batch, however slowly it
/// comes.
fn pipeline(limits: &str) -> String {
    format!(
        "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\nformat = \"json\"\npoison = {{ {limits} }}\n\
         batch = {{ max_rows = 35, max_age = \"1s\" }}\n[[pipeline.table]]\nname = \"events\"\n\
         [pipeline.table.columns]\nsequence = \"$sequence\"\n"
    )
}

const LIMITS: &str = "max_per_batch = 10";

const TABLE: &str =
    "CREATE TABLE events (sequence bigint NOT NULL, id integer NOT NULL CONSTRAINT small CHECK (id < 1000))";

fn good() -> Vec<u8> {
    json!({"id": 1}).to_string().into()
}

/// A message that the decoder refuses, or the server.
fn bad(by_server: bool) -> String {
    if by_server { json!({"id": 5_000}) } else { json!({"id": "secret"}) }.to_string()
}

async fn letters(world: &World) -> i64 {
    world.count("SELECT count(*) FROM jetcopy.dead_letters").await
}

async fn accept(world: &World, config: &Path, letters: u32) -> String {
    let letters = letters.to_string();
    world.run(config, &["dead-letters", "accept", &letters, "--pipeline", "events"]).await.well()
}

/// The pipeline is paused with the message at `sequence` as the first that cannot be stored.
async fn paused_at(daemon: &Daemon, sequence: u64) {
    daemon.says("pipeline is paused").await;
    eventually(&format!("a flood from sequence {sequence}"), || async {
        let status = daemon.status();
        status["state"] == "paused" && status["flood"][0]["sequence"] == sequence
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_shows_its_first_messages_and_goes_on_by_exactly_what_is_accepted() {
    for by_server in [false, true] {
        let world = World::new().await;
        world.database.batch_execute(TABLE).await.unwrap();
        world.publish("a", (0..5).map(|_| good())).await;
        world.publish("a", (0..30).map(|_| bad(by_server))).await;
        let config = world.config(&pipeline(LIMITS));
        let daemon = Daemon::start(&config);
        paused_at(&daemon, 6).await;
        assert_eq!((world.checkpoint("events").await, letters(&world).await), (0, 0));

        // The state, the log and the table say which messages, and the table alone what is in them.
        let (reason, first) = if by_server {
            (
                "more than 10 messages of one batch cannot be stored; the first is at sequence 6: refused by \
                 the server: check_violation (23514)",
                bad(true),
            )
        } else {
            (
                "more than 10 messages of one batch cannot be stored; \
                 the first is at sequence 6: the value has the wrong type for the column",
                bad(false),
            )
        };
        let shown = daemon.status();
        assert_eq!(shown["reason"], reason);
        assert_eq!(shown["flood"].as_array().unwrap().len(), 10);
        assert!(!shown.to_string().contains("secret"), "{shown}");
        daemon.says("among the messages that cannot be stored").await;
        assert!(!daemon.log().contains("secret"), "{}", daemon.log());
        let sql = "SELECT count(*), min(sequence), min(convert_from(payload, 'UTF8')), \
            bool_and(message <> '') \
                   FROM jetcopy.flood_samples WHERE pipeline = 'events'";
        let row = world.database.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (10, 6));
        assert_eq!((row.get::<_, String>(2), row.get::<_, bool>(3)), (first, true));

        // To resume it makes it try again, and alone is no remedy.
        let said = world.run(&config, &["resume", "events"]).await.well();
        assert!(
            said.contains("had stopped it, and will stop it again unless the cause is fixed: more than 10"),
            "{said}"
        );
        assert!(said.contains("jetcopy dead-letters accept N --pipeline events"), "{said}");
        let samples = "SELECT count(*) FROM jetcopy.flood_samples";
        eventually("the flood to be met again", || async { world.count(samples).await == 10 }).await;
        assert_eq!((world.checkpoint("events").await, letters(&world).await), (0, 0));

        // Four of thirty, then the rest.
        assert!(accept(&world, &config, 4).await.starts_with("the next 4 messages of pipeline events may"));
        paused_at(&daemon, 10).await;
        assert_eq!((world.checkpoint("events").await, letters(&world).await), (9, 4));
        accept(&world, &config, 26).await;
        oracle(&world, &daemon, "events", "events", good()).await;
        assert_eq!(letters(&world).await, 30);
        assert_eq!(world.count("SELECT accepted_letters FROM jetcopy.checkpoints").await, 0);
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.flood_samples").await, 0);
        assert_eq!(daemon.status()["flood"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_without_a_daemon_holds_over_restarts_and_once() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(&pipeline(LIMITS));
    let never = world.run(&config, &["dead-letters", "accept", "9", "--pipeline", "events"]).await;
    assert!(never.err.contains("pipeline events has never run"), "{never:?}");

    world.publish("a", (0..30).map(|_| bad(false))).await;
    let daemon = Daemon::start(&config);
    paused_at(&daemon, 1).await;
    daemon.kill();
    let status = world.run(&config, &["status"]).await.well();
    assert!(status.contains("stopped by a flood of dead letters: more than 10 messages"), "{status}");
    assert!(status.contains("in the flood: sequence 1 events id: the value has the wrong type"), "{status}");
    accept(&world, &config, 9).await;
    let said = accept(&world, &config, 30).await;
    assert!(said.contains("this replaces 9 that were accepted before and not used"), "{said}");
    // A daemon that only starts and stops uses none of them.
    let idle = Daemon::start(
        &world.config_file("other", &pipeline(LIMITS).replace("\"events\"\nstream", "\"idle\"\nstream")),
    );
    idle.says("pipeline is running").await;
    idle.kill();
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", good()).await;

    world.publish("a", (0..11).map(|_| bad(false))).await;
    paused_at(&daemon, 32).await;
    assert_eq!(letters(&world).await, 30);
    accept(&world, &config, 11).await;
    oracle(&world, &daemon, "events", "events", good()).await;
}

#[cfg(feature = "kill-points")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_is_used_up_once_also_where_the_daemon_dies_around_the_commit() {
    for point in ["before_commit", "after_commit"] {
        let world = World::new().await;
        world.database.batch_execute(TABLE).await.unwrap();
        world.publish("a", (0..30).map(|_| bad(false))).await;
        let config = world.config(&pipeline(LIMITS));
        let daemon = Daemon::start(&config);
        paused_at(&daemon, 1).await;
        daemon.kill();
        accept(&world, &config, 20).await;
        let armed = format!("{point}:1:SIGKILL");
        let daemon = Daemon::start_with(&config, &[("JETCOPY_KILL_POINT", &armed)]);
        daemon.ended().await;
        let daemon = Daemon::start(&config);
        // Twenty that are accepted, and ten that are normal.
        oracle(&world, &daemon, "events", "events", good()).await;
        assert_eq!(letters(&world).await, 30);
        assert_eq!(world.count("SELECT accepted_letters FROM jetcopy.checkpoints").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_dead_letters_are_bounded_and_one_large_message_alone_passes() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let large = json!({"id": "x".repeat(20_000)}).to_string();
    world.publish("a", [large.clone()]).await;
    let config = world.config(&pipeline("max_bytes_per_minute = \"10kB\""));
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", good()).await;
    assert_eq!(letters(&world).await, 1);

    world.publish("a", [large]).await;
    paused_at(&daemon, 3).await;
    let reason = daemon.status()["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("messages of more than 9.8 KiB cannot be stored within a minute"), "{reason}");
    assert_eq!(
        world.count("SELECT count(*) FROM jetcopy.flood_samples WHERE payload_bytes > 20000").await,
        1
    );
    accept(&world, &config, 1).await;
    oracle(&world, &daemon, "events", "events", good()).await;
    assert_eq!(letters(&world).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_ends_by_itself_once_the_table_takes_the_messages() {
    let low = "CREATE DOMAIN low AS integer CONSTRAINT low CHECK (VALUE < 100); \
               ALTER TABLE events ALTER COLUMN id TYPE low";
    let rule = "CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
                CREATE TRIGGER rule BEFORE INSERT ON events FOR EACH ROW WHEN (new.id > 100) \
                EXECUTE FUNCTION rule()";
    let lenient =
        "CREATE OR REPLACE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$";
    let high = json!({"id": 500}).to_string();
    for (rule, message, mend) in [
        ("", bad(true), "ALTER TABLE events DROP CONSTRAINT small"),
        ("", bad(false), "ALTER TABLE events DROP CONSTRAINT small, ALTER COLUMN id TYPE text"),
        (low, high.clone(), "ALTER DOMAIN low DROP CONSTRAINT low"),
        (rule, high, lenient),
    ] {
        let world = World::new().await;
        world.database.batch_execute(TABLE).await.unwrap();
        world.database.batch_execute(rule).await.unwrap();
        world.publish("a", (0..5).map(|_| good())).await;
        world.publish("a", (0..30).map(|_| message.clone())).await;
        let daemon = Daemon::start(&world.config(&pipeline(LIMITS)));
        paused_at(&daemon, 6).await;
        world.database.batch_execute(mend).await.unwrap();
        oracle(&world, &daemon, "events", "events", good()).await;
        assert_eq!(letters(&world).await, 0, "{mend}");
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.flood_samples").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_ends_by_a_resume_where_what_was_mended_is_no_rule_of_the_table() {
    let world = World::new().await;
    let tables = "CREATE TABLE known (id integer PRIMARY KEY); INSERT INTO known VALUES (1);
        CREATE TABLE events (sequence bigint NOT NULL, id integer NOT NULL REFERENCES known)";
    world.database.batch_execute(tables).await.unwrap();
    world.publish("a", (0..5).map(|_| good())).await;
    world.publish("a", (0..30).map(|_| bad(true))).await;
    let config = world.config(&pipeline(LIMITS));
    let daemon = Daemon::start(&config);
    paused_at(&daemon, 6).await;
    assert!(daemon.status()["remedy"].as_str().unwrap().contains("then `jetcopy resume events`"));
    world.database.batch_execute("INSERT INTO known VALUES (5000)").await.unwrap();
    world.run(&config, &["resume", "events"]).await.well();
    oracle(&world, &daemon, "events", "events", good()).await;
    assert_eq!(letters(&world).await, 0);
}
