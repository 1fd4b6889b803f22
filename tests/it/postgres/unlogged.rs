//! Tables that a crash of the server empties, although the checkpoint stays.

use super::in_state;
use crate::support::{Daemon, EVENTS, TABLE, World, event};

/// The pipeline, with what it does about unlogged tables.
fn at_most_once() -> String {
    EVENTS.replace(
        "name = \"events\"\n[pipeline.table.columns]",
        "name = \"events\"\nunlogged = \"at-most-once\"\n[pipeline.table.columns]",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlogged_table_is_refused_at_start_and_by_check_unless_at_most_once_will_do() {
    let world = World::new().await;
    world.database.batch_execute(&TABLE.replace("CREATE TABLE", "CREATE UNLOGGED TABLE")).await.unwrap();
    world.publish("a", (1..=100).map(event)).await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    daemon.says("http=").await;
    let status = in_state(&daemon, "paused", "is unlogged").await;
    let remedy = status["remedy"].as_str().unwrap();
    assert!(remedy.contains("SET LOGGED") && remedy.contains("unlogged = \"at-most-once\""), "{status}");
    let checked = world.run(&config, &["check"]).await;
    assert!(checked.out.contains("error pipeline events, table events: events is unlogged"), "{checked:?}");
    assert_eq!(world.count("SELECT count(*) FROM events").await, 0);
    drop(daemon);

    let config = world.config(&at_most_once());
    let checked = world.run(&config, &["check"]).await;
    assert!(!checked.out.contains("error pipeline"), "{checked:?}");
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_becomes_unlogged_under_load_pauses_until_it_is_logged_again() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    world.database.batch_execute("ALTER TABLE events SET UNLOGGED").await.unwrap();
    world.publish("a", (101..=200).map(event)).await;
    in_state(&daemon, "paused", "is unlogged").await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
    world.database.batch_execute("ALTER TABLE events SET LOGGED").await.unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM (SELECT DISTINCT id FROM events) AS ids").await, 200);
    assert_eq!(world.count("SELECT count(*) FROM events").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlogged_partition_is_as_an_unlogged_table() {
    let world = World::plain().await;
    let partitioned = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text) \
        PARTITION BY RANGE (id);
                       CREATE TABLE low PARTITION OF events FOR VALUES FROM (0) TO (1000);
                       CREATE UNLOGGED TABLE high PARTITION OF events FOR VALUES FROM (1000) TO (2000)";
    world.database.batch_execute(partitioned).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    in_state(&daemon, "paused", "high is unlogged").await;
    world.database.batch_execute("ALTER TABLE high SET LOGGED").await.unwrap();
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
}
