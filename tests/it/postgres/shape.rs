//! What jetcopy has read of a table changes under it: each batch is written for the table as it is.
//!
//! The changes come while a batch waits for their lock, since that is when a batch meets another table than it was encoded
//! for.

use tokio_postgres::Client;

use jetcopy::private::{PrivatePgBouncer, connect};

use super::own_server;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, eventually};

/// Makes changes in one transaction while a batch waits for the table `events`; returns the last sequence that was
/// committed before.
async fn change_under_a_batch(world: &World, sql: &str) -> u64 {
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
async fn waited_for(session: &Client) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    eventually("a batch that waits for the lock", || async {
        session.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
}

/// Ends the load at the oracle, and checks that each of its ids is there once, with the value that was published.
async fn judge_values(world: &World, daemon: &Daemon, load: Load) {
    world.judge(daemon, load).await;
    let wrong = "SELECT count(*) FROM (SELECT id::numeric AS id, count(*) OVER (PARTITION BY id::numeric) AS times,
                 count(*) OVER () AS rows FROM events) AS e WHERE times <> 1 OR id <> trunc(id) OR id NOT BETWEEN 1 AND rows";
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
    let Ok(bouncer) = PrivatePgBouncer::start(&postgres) else {
        eprintln!("SKIPPED: pgbouncer is not there");
        return;
    };
    world.database.batch_execute("DROP TABLE events").await.unwrap();
    world.database_url = bouncer.url(&world.own_url);
    types_change_under_load(&world).await;
}
