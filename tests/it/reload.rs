//! SIGHUP: new settings restart only the pipelines that they change, and nothing is lost over it.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// A second pipeline, `others`, over the same stream.
fn others(table: &str) -> String {
    format!(
        "\n[[pipeline]]\nname = \"others\"\nstream = \"STREAM\"\nformat = \"msgpack\"\n\
         [[pipeline.table]]\nname = \"{table}\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n"
    )
}

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
        .database
        .batch_execute("CREATE TABLE others (LIKE events); CREATE TABLE thirds (LIKE events)")
        .await
        .unwrap();
    world
}

/// What `/status` says of a pipeline.
fn status(daemon: &Daemon, name: &str) -> Option<Value> {
    let body: Value = serde_json::from_str(&daemon.get("/status").1).unwrap();
    body["pipelines"].as_array().unwrap().iter().find(|pipeline| pipeline["pipeline"] == name).cloned()
}

async fn runs(daemon: &Daemon, name: &str) {
    daemon.says("http=").await;
    eventually(&format!("{name} to run"), || async {
        status(daemon, name).is_some_and(|status| status["state"] == "running")
    })
    .await;
}

/// The series of a metric that name a pipeline.
fn series(daemon: &Daemon, name: &str) -> usize {
    daemon.get("/metrics").1.matches(&format!("pipeline=\"{name}\"")).count()
}

async fn reload(daemon: &Daemon, times: usize) {
    daemon.signal(Signal::SIGHUP);
    eventually("the configuration to be reloaded", || async {
        daemon.log().matches("configuration reloaded").count() == times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_are_added_changed_and_removed_under_load_and_the_others_go_on_undisturbed() {
    let world = world().await;
    let config = world.config(EVENTS);
    let load = Load::start(&world);
    let daemon = Daemon::start(&config);
    runs(&daemon, "events").await;

    world.config(&format!("{EVENTS}{}", others("others")));
    reload(&daemon, 1).await;
    daemon.says("added=1 restarted=0 removed=0 unchanged=1").await;
    runs(&daemon, "others").await;
    eventually("the added pipeline to commit", || async { world.checkpoint("others").await > 0 }).await;
    let since = status(&daemon, "events").unwrap()["since"].clone();

    // Changed: another table from here on.
    world.config(&format!("{EVENTS}{}", others("thirds")));
    reload(&daemon, 2).await;
    daemon.says("added=0 restarted=1 removed=0 unchanged=1").await;
    eventually("rows in the other table", || async { world.count("SELECT count(*) FROM thirds").await > 0 })
        .await;
    assert!(daemon.get("/metrics").1.contains("table=\"thirds\""));
    assert!(!daemon.get("/metrics").1.contains("table=\"others\""));
    let both = "SELECT count(*) - count(DISTINCT sequence) FROM \
                (SELECT sequence FROM others UNION ALL SELECT sequence FROM thirds) AS rows";
    assert_eq!(world.count(both).await, 0);

    world.config(EVENTS);
    reload(&daemon, 3).await;
    daemon.says("added=0 restarted=0 removed=1 unchanged=1").await;
    eventually("the removed pipeline to end", || async { status(&daemon, "others").is_none() }).await;
    assert_eq!(series(&daemon, "others"), 0);
    let carried = u64::try_from(
        world.count("SELECT count(*) FROM (TABLE others UNION ALL TABLE thirds) AS rows").await,
    );
    assert_eq!(carried.unwrap(), world.checkpoint("others").await);

    assert_eq!(status(&daemon, "events").unwrap()["since"], since, "it was not restarted");
    assert_eq!(status(&daemon, "events").unwrap()["resyncs"], 1);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_batch_restarts_the_pipeline_and_each_message_is_there_once() {
    let world = world().await;
    let config = world.config(EVENTS);
    let load = Load::start(&world);
    let daemon = Daemon::start(&config);
    runs(&daemon, "events").await;
    for times in 1..=5 {
        world.config(&EVENTS.replace("200", &format!("{}", 200 + times)));
        reload(&daemon, times).await;
        // A commit may be the last one of the pipeline that stops, and two changes may be one restart.
        daemon.says_times("pipeline has stopped", times).await;
        world.commits(&daemon).await;
    }
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_changes_nothing_and_is_said_in_one_line_with_its_place() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    runs(&daemon, "events").await;
    let line = {
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}\n[lgo]\nlevel = \"info\"\n")).unwrap();
        text.lines().count() + 2
    };
    daemon.signal(Signal::SIGHUP);
    daemon.says("invalid configuration rejected").await;
    let log = daemon.log();
    let said = log.lines().find(|line| line.contains("invalid configuration rejected")).unwrap();
    assert!(said.contains(&format!("jetcopy.toml:{line}: lgo: unknown key `lgo`")), "{said}");
    assert_eq!(status(&daemon, "events").unwrap()["resyncs"], 1);
    oracle(&world, &daemon, "events", "events", event(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_restart_can_change_is_named() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    runs(&daemon, "events").await;
    replace(&config, "[[pipeline]]", "[log]\nlevel = \"debug\"\n[[pipeline]]");
    reload(&daemon, 1).await;
    daemon.says("section=\"log\"").await;
    daemon.says("restarted=0 removed=0 unchanged=1").await;
    assert_eq!(status(&daemon, "events").unwrap()["resyncs"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_restarts_every_pipeline() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    runs(&daemon, "events").await;
    replace(&config, "[http]", "step_timeout = \"30s\"\n[http]");
    reload(&daemon, 1).await;
    daemon.says("restarted=1 removed=0 unchanged=0").await;
    daemon.says("pipeline has stopped").await;
    oracle(&world, &daemon, "events", "events", event(1)).await;
}

fn replace(config: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    assert!(text.contains(from));
    std::fs::write(config, text.replacen(from, to, 1)).unwrap();
}
