//! What jetcopy has read of a table changes under it: each batch is written for the table as it is.
//!
//! The changes come while a batch waits for their lock, since that is when a batch meets another table than
//! it was encoded for.

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use jetcopy::testbed::{TestPgBouncer, connect};

use super::own_server;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// Makes changes in one transaction while a batch waits for the table `events`; returns the last sequence
/// that was committed before.
pub(super) async fn change_under_a_batch(world: &World, sql: &str) -> u64 {
    let session = connect(&world.own_url).await.unwrap();
    session.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    waited_for(&session).await;
    session.batch_execute(sql).await.unwrap();
    let checkpoint = "SELECT last_sequence FROM jetcopy.checkpoints WHERE shard = 'events'";
    let checkpoint: i64 = session.query_one(checkpoint, &[]).await.unwrap().get(0);
    session.batch_execute("COMMIT").await.unwrap();
    u64::try_from(checkpoint).unwrap()
}

/// Waits until another session waits for a lock of `session`.
pub(super) async fn waited_for(session: &Client) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    eventually("a batch that waits for the lock", || async {
        session.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
}

/// Ends the load at the oracle, and checks that each of its ids is there once, with the value that was
/// published.
async fn judge_values(world: &World, daemon: &Daemon, load: Load) {
    world.judge(daemon, load).await;
    let wrong = "SELECT count(*) FROM (SELECT id::numeric AS id, count(*) OVER (PARTITION BY id::numeric) \
        AS times,
                 count(*) OVER () AS rows FROM events) AS e WHERE times <> 1 OR id <> trunc(id) \
                     OR id NOT BETWEEN 1 AND rows";
    assert_eq!(world.count(wrong).await, 0, "values that nobody published");
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let resyncs = daemon.metric("jetcopy_resyncs_total", "cause=\"table\"");
    assert!(resyncs > 0, "the daemon has read the table anew");
}

async fn types_change_under_load(world: &World) {
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(world);
    world.commits(&daemon).await;
    // Of the same width and of others, to and fro.
    for ty in ["double precision", "bigint", "real", "integer", "real", "numeric(12,2)", "text", "bigint"] {
        let sql = format!("ALTER TABLE events ALTER COLUMN id TYPE {ty} USING id::numeric::{ty}");
        change_under_a_batch(world, &sql).await;
        world.commits(&daemon).await;
    }
    judge_values(world, &daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_its_type_under_load_holds_the_values_that_were_published() {
    types_change_under_load(&World::plain().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_through_a_pooler_in_transaction_mode() {
    let (postgres, mut world) = own_server(&[]).await;
    let Some(bouncer) = TestPgBouncer::start_or_skip(&postgres).unwrap() else { return };
    world.database.batch_execute("DROP TABLE events").await.unwrap();
    world.database_url = bouncer.url(&world.own_url);
    types_change_under_load(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_never_written_into_a_column_that_became_one_of_times() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    let sql = "ALTER TABLE events ALTER COLUMN id TYPE timestamptz USING to_timestamp(id)";
    world.database.batch_execute(sql).await.unwrap();
    // Of a number without a unit no time is made.
    world.publish("a", [event(101)]).await;
    world.drained("events", &daemon).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM jetcopy.dead_letters WHERE sequence = 101 AND column_name = 'id'")
            .await,
        1
    );
    let back = "ALTER TABLE events ALTER COLUMN id TYPE bigint USING extract(epoch FROM id)";
    world.database.batch_execute(back).await.unwrap();
    oracle(&world, &daemon, "events", "events", event(102)).await;
    assert_eq!(world.count("SELECT sum(id)::int8 FROM events").await, 5_050 + 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_exchanged_for_one_of_other_types_in_another_order_gets_each_value_right() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    for columns in [
        "id double precision NOT NULL, note text, sequence bigint NOT NULL",
        "note varchar(20), sequence numeric, id real",
        "sequence bigint NOT NULL, id bigint NOT NULL, note text",
        // The same once more: another table all the same.
        "sequence bigint NOT NULL, id bigint NOT NULL, note text",
    ] {
        let exchange = format!(
            "ALTER TABLE events RENAME TO kept; CREATE TABLE events ({columns});
             INSERT INTO events (sequence, id, note) SELECT sequence, id, note FROM kept; DROP TABLE kept"
        );
        change_under_a_batch(&world, &exchange).await;
        world.commits(&daemon).await;
    }
    judge_values(&world, &daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_moves_away_and_one_that_comes_before_it_in_the_search_path_are_told_apart() {
    let world = World::plain().await;
    let own = "CREATE SCHEMA first; CREATE SCHEMA second; \
        CREATE TABLE second.events (sequence bigint NOT NULL, id bigint NOT NULL, note text);
               DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = first, second', \
                   current_database()); END $$;
               SET search_path = first, second";
    world.database.batch_execute(own).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    // The name stands for another table from now on, and the one before is left as it is.
    let before = world.database.batch_execute(
        "BEGIN; LOCK TABLE second.events IN ACCESS EXCLUSIVE MODE; \
         CREATE TABLE first.events (LIKE second.events);
         INSERT INTO first.events SELECT * FROM second.events; COMMIT",
    );
    before.await.unwrap();
    world.commits(&daemon).await;
    let there = "SELECT count(*) FROM second.events";
    let left = world.count(there).await;
    world.commits(&daemon).await;
    assert_eq!(world.count(there).await, left, "rows go where the name stands for");
    // A schema that is renamed takes its table out of the path.
    let rename =
        "BEGIN; LOCK TABLE first.events; TRUNCATE second.events; INSERT INTO second.events SELECT * \
        FROM first.events;
                  ALTER SCHEMA first RENAME TO third; COMMIT";
    world.database.batch_execute(rename).await.unwrap();
    world.commits(&daemon).await;
    judge_values(&world, &daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_becomes_a_partition_of_its_successor_goes_on_without_a_row_in_the_wrong_place() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let sql = "ALTER TABLE events RENAME TO events_1;
               CREATE TABLE events (LIKE events_1) PARTITION BY RANGE (sequence);
               ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES FROM (0) TO (100000);
               CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100000) TO (200000)";
    change_under_a_batch(&world, sql).await;
    world.commits(&daemon).await;
    // And the way back: the only table that is left is an ordinary one.
    let back = "ALTER TABLE events RENAME TO parent; ALTER TABLE parent DETACH PARTITION events_1; \
        DROP TABLE parent;
                ALTER TABLE events_1 RENAME TO events";
    change_under_a_batch(&world, back).await;
    world.commits(&daemon).await;
    judge_values(&world, &daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_renamed_added_and_dropped_under_load_are_taken_up_at_once_and_told() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let with = async |what: &str, from: u64| {
        world.count(&format!("SELECT count(*) FROM events WHERE sequence > {from} AND {what}")).await
    };

    let renamed = change_under_a_batch(&world, "ALTER TABLE events RENAME COLUMN note TO remark").await;
    world.commits(&daemon).await;
    let added = change_under_a_batch(&world, "ALTER TABLE events ADD COLUMN note text").await;
    world.commits(&daemon).await;
    world.commits(&daemon).await;
    // No row after a change was written for the table before it.
    assert_eq!(with(&format!("sequence <= {added} AND remark IS NOT NULL"), renamed).await, 0);
    assert_eq!(with("note IS NULL", added).await, 0);
    let dropped = change_under_a_batch(&world, "ALTER TABLE events DROP COLUMN remark").await;
    world.commits(&daemon).await;
    assert_eq!(with("note IS NULL", dropped).await, 0);
    for told in ["gone=\"note\"", "added=\"remark text\"", "added=\"note text\"", "gone=\"remark\""] {
        daemon.says(told).await;
    }
    judge_values(&world, &daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_a_type_that_is_not_written_pauses_at_once_under_load_and_no_row_goes_around_it() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let refused = async |change: &str, problem: &str| {
        let before = change_under_a_batch(&world, &format!("ALTER TABLE events {change}")).await;
        eventually("the pause", || async { daemon.status()["state"] == "paused" }).await;
        let status = daemon.status();
        assert!(status["reason"].as_str().unwrap().contains(problem), "{status:#}");
        let check = world.run(&config, &["check"]).await;
        assert!(check.code == 1 && check.out.contains(problem), "{check:?}");
        let after = format!("SELECT count(*) FROM events WHERE sequence > {before}");
        assert_eq!((world.checkpoint("events").await, world.count(&after).await), (before, 0));
    };
    // A new one, which is then left to the server.
    refused("ADD COLUMN place point DEFAULT '(1,2)'", "type point is not supported").await;
    world.config(&format!("{EVENTS}place = {{ skip = true }}\n"));
    daemon.signal(Signal::SIGHUP);
    world.commits(&daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events WHERE place IS NULL").await, 0);
    // One that was written before, and is again.
    refused("ALTER COLUMN note TYPE tsvector USING to_tsvector(note)", "type tsvector is not supported")
        .await;
    world.database.batch_execute("ALTER TABLE events ALTER COLUMN note TYPE text").await.unwrap();
    world.commits(&daemon).await;
    judge_values(&world, &daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_an_alter_table_waits_for_holds_the_pipeline_up_and_no_longer() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    // A reader that takes its time, and an ALTER TABLE that waits behind it and before the next batch.
    let reader = connect(&world.own_url).await.unwrap();
    reader.batch_execute("BEGIN; SELECT FROM events LIMIT 1").await.unwrap();
    let altering = connect(&world.own_url).await.unwrap();
    let alter = tokio::spawn(async move {
        altering.batch_execute("ALTER TABLE events ALTER COLUMN id TYPE double precision").await
    });
    waited_for(&reader).await;
    let queued = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass \
        AND mode = 'RowExclusiveLock'";
    eventually("a batch that waits behind the ALTER TABLE", || async { world.count(queued).await > 0 }).await;
    reader.batch_execute("COMMIT").await.unwrap();
    alter.await.unwrap().unwrap();
    world.commits(&daemon).await;
    judge_values(&world, &daemon, load).await;
}
