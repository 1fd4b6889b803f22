//! A table becomes a hypertable, or is restored, while rows go into it.

use jetcopy::testbed::{TestPostgres, connect};

use super::in_state;
use super::shape::change_under_a_batch;
use crate::support::{Daemon, EVENTS, Load, World};

/// The table of [`EVENTS`] with a time, which the messages do not have.
const TABLE: &str = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text, \
    time timestamptz NOT NULL)";

/// The same pipeline, whose rows have the stream's time.
fn pipeline() -> String {
    EVENTS.replace("sequence = \"$sequence\"", "sequence = \"$sequence\"\ntime = \"$timestamp\"")
}

/// A world with TimescaleDB in its database and the table of these tests.
async fn world() -> Option<World> {
    let _offers = TestPostgres::shared_timescaledb().unwrap()?;
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    Some(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_becomes_a_hypertable_with_its_rows_under_load_keeps_none_of_them_out_of_sight() {
    let Some(world) = world().await else { return };
    let daemon = Daemon::start(&world.config(&pipeline()));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    // Once as it comes, while batches wait for the lock or do not.
    world
        .database
        .batch_execute("SELECT create_hypertable('events', 'time', migrate_data => true)")
        .await
        .unwrap();
    world.commits(&daemon).await;
    world.commits(&daemon).await;
    assert_eq!(
        world.count("SELECT count(*) FROM ONLY events").await,
        0,
        "rows that no query of the table sees"
    );
    // And back to an ordinary one, and once more with a batch that waits.
    let plain = format!(
        "ALTER TABLE events RENAME TO hyper; {TABLE}; INSERT INTO events SELECT sequence, id, note, time \
         FROM hyper; DROP TABLE hyper"
    );
    change_under_a_batch(&world, &plain).await;
    world.commits(&daemon).await;
    change_under_a_batch(&world, "SELECT create_hypertable('events', 'time', migrate_data => true)").await;
    world.commits(&daemon).await;
    world.judge(&daemon, load).await;
    assert_eq!(
        world.count("SELECT count(*) FROM ONLY events").await,
        0,
        "rows that no query of the table sees"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_dump_is_restored_the_pipeline_pauses_and_writes_nothing_past_the_chunks() {
    let Some(world) = world().await else { return };
    world.database.batch_execute("SELECT create_hypertable('events', 'time')").await.unwrap();
    let daemon = Daemon::start(&world.config(&pipeline()));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    world.database.batch_execute("SELECT timescaledb_pre_restore()").await.unwrap();
    let status = in_state(&daemon, "paused", "timescaledb.restoring is on").await;
    assert!(status["remedy"].as_str().unwrap().contains("timescaledb_post_restore()"), "{status}");
    let session = connect(&world.own_url).await.unwrap();
    let count = async |sql: &str| -> i64 { session.query_one(sql, &[]).await.unwrap().get(0) };
    assert_eq!(count("SELECT count(*) FROM ONLY events").await, 0, "rows that no query of the table sees");
    world.database.batch_execute("SELECT timescaledb_post_restore()").await.unwrap();
    world.commits(&daemon).await;

    // A session that is told so by its role's settings.
    let mut world = world;
    drop(daemon);
    world.database_url = format!("{}?options=-c%20timescaledb.restoring%3Don", world.own_url);
    let daemon = Daemon::start(&world.config(&pipeline()));
    daemon.says("http=").await;
    in_state(&daemon, "paused", "timescaledb.restoring is on").await;
    drop(daemon);
    world.database_url.clone_from(&world.own_url);
    let daemon = Daemon::start(&world.config(&pipeline()));
    daemon.says("pipeline is running").await;
    world.judge(&daemon, load).await;
    assert_eq!(
        world.count("SELECT count(*) FROM ONLY events").await,
        0,
        "rows that no query of the table sees"
    );
}
