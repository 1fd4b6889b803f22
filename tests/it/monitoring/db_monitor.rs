//! `db-monitor` over a short run with outages.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use jetcopy::testbed::{PostgresOptions, Stop, TestPostgres, connect};

use super::own;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually};

/// The script with its own directory; it is stopped when this is dropped.
struct Monitor {
    directory: PathBuf,
    database: String,
}

impl Monitor {
    fn call(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(own("scripts/db-maintenance/db-monitor"))
            .args(arguments)
            .args(["--slow", "0.2", "--directory"])
            .arg(&self.directory)
            .env("DATABASE_URL", &self.database)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    fn says(&self, arguments: &[&str]) -> String {
        let (success, text) = self.call(arguments);
        assert!(success, "{arguments:?}: {text}");
        text
    }

    /// The values of a column of the samples, by its number from 0.
    fn column(&self, index: usize) -> Vec<String> {
        let samples = std::fs::read_to_string(self.directory.join("samples.csv")).unwrap();
        // The last line may be on its way.
        let lines = samples.lines().skip(1).filter(|line| line.matches(',').count() == 17);
        lines.map(|line| line.split(',').nth(index).unwrap().to_owned()).collect()
    }

    async fn sees(&self, index: usize, value: &str) {
        eventually(&format!("column {index} to become {value}"), || async {
            self.column(index).last().is_some_and(|last| last == value)
        })
        .await;
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.call(&["stop"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn db_monitor_asks_a_daemon_with_its_token_and_takes_a_standby_for_well() {
    const DAEMON_UP: usize = 7;
    const WAITING: usize = 17;
    let postgres = TestPostgres::shared_plain().unwrap();
    let world = World::with_postgres(&postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let token = world.directory.path().join("token");
    std::fs::write(&token, "a-token-of-some-length\n").unwrap();
    let config = world.config(&format!("token_file = \"{}\"\n{EVENTS}", token.display()));
    let owner = Daemon::start(&world.config_file("owner.toml", EVENTS));
    world.publish("a", [event(1)]).await;
    world.drained("events", &owner).await;
    let standby = Daemon::start(&config);
    standby.says("http=").await;
    let monitor =
        Monitor { directory: world.directory.path().join("monitor"), database: world.own_url.clone() };
    let http = format!("http://{}", standby.http_address());
    monitor.says(&["start", "--interval", "0.2", "--http", &http]);
    monitor.sees(DAEMON_UP, "0").await;
    monitor.says(&["stop"]);
    let with_token = ["start", "--fresh", "--interval", "0.2", "--http", &http, "--token-file"];
    monitor.says(&[&with_token[..], &[token.to_str().unwrap()]].concat());
    monitor.sees(DAEMON_UP, "1").await;
    monitor.sees(WAITING, "1").await;
    let pid = std::fs::read_to_string(monitor.directory.join("pid")).unwrap();
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap();
    assert!(arguments.contains("token") && !arguments.contains("a-token-of-some-length"), "{arguments}");
    let report = monitor.says(&["report"]);
    assert!(report.contains("it was a standby"), "{report}");
    monitor.says(&["stop"]);

    // Of a directory that others may write to, nothing is read and nothing is written there.
    std::fs::set_permissions(&monitor.directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (started, refusal) = monitor.call(&["start"]);
    assert!(!started && refusal.contains("can be changed by others"), "{refusal}");
    std::fs::set_permissions(&monitor.directory, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn db_monitor_reports_outages_drops_lag_and_slow_statements_of_a_run() {
    const DATABASE_UP: usize = 1;
    const DAEMON_UP: usize = 7;
    let options = PostgresOptions::plain();
    let mut postgres = TestPostgres::start(&options).unwrap();
    let mut world = World::with_postgres(&postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let monitor =
        Monitor { directory: world.directory.path().join("monitor"), database: world.own_url.clone() };

    assert!(!monitor.call(&["report"]).0, "there is nothing to report yet");
    let http = format!("http://{}", daemon.http_address());
    let started = monitor.says(&["start", "--interval", "0.2", "--http", &http]);
    assert!(started.contains("samples every 0.2 s"), "{started}");
    let (again, refusal) = monitor.call(&["start", "--interval", "0.2"]);
    assert!(!again && refusal.contains("already running"), "{refusal}");
    monitor.sees(DATABASE_UP, "1").await;
    monitor.sees(DAEMON_UP, "1").await;

    world.publish("bad", ["not MessagePack"]).await;
    eventually("the slow statement to be met", || async {
        let client = connect(&world.own_url).await.unwrap();
        client.batch_execute("SELECT pg_sleep(0.8) AS slow_one").await.unwrap();
        std::fs::read_to_string(monitor.directory.join("slow.tsv")).unwrap().contains("slow_one")
    })
    .await;
    postgres.stop(Stop::Fast);
    monitor.sees(DATABASE_UP, "0").await;
    postgres.start_again().unwrap();
    monitor.sees(DATABASE_UP, "1").await;
    world.reconnect().await;
    world.commits(&daemon).await;
    load.stop().await;
    world.drained("events", &daemon).await;
    let samples = monitor.column(DAEMON_UP).len();
    eventually("a sample more", || async { monitor.column(DAEMON_UP).len() > samples + 1 }).await;
    daemon.kill();
    monitor.sees(DAEMON_UP, "0").await;

    let report = monitor.says(&["report"]);
    let line = |name: &str| {
        let line = report.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{report}")).to_owned()
    };
    assert!(line("database answered").ends_with("outages 1, restarts 1"), "{report}");
    assert!(line("daemon answered").ends_with("outages 1, restarts 0"), "{report}");
    assert!(line("dead letters").ends_with(" 1"), "{report}");
    assert!(line("messages dropped").ends_with("0 in 0 losses"), "{report}");
    assert!(!line("rows written").contains(" 0,"), "{report}");
    assert!(!line("behind, most").contains(" 0.0 s"), "{report}");
    assert!(report.contains("SELECT pg_sleep(0.8) AS slow_one"), "{report}");
    assert!(monitor.says(&["stop"]).contains("stopped"));
    assert!(!monitor.call(&["stop"]).0, "it has ended");
}
