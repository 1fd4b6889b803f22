//! An ack covers everything below it, so it must never be ahead of what is committed.

use serde_json::json;

use crate::support::{Daemon, TABLE, World, eventually, oracle};

/// Ten messages a transaction, so that those before and after the one that waits are apart.
const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
batch = { max_rows = 10 }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#;

/// Looks at the consumer while nothing can be committed; an ack that is too early is on its way already.
const LOOKS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_and_written_but_not_committed_is_not_acknowledged() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    // The row of message 55 waits in its COPY for as long as this session holds the lock.
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_advisory_xact_lock_shared(55);
            RETURN NEW;
        END $$;
        CREATE TRIGGER hold BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.id = 55) EXECUTE FUNCTION hold();
        SELECT pg_advisory_lock(55)";
    world.database.batch_execute(hold).await.unwrap();
    let event = |id: u64| json!({"id": id}).to_string();
    world.publish("held", (1..=100).map(event)).await;
    let daemon = Daemon::start(&world.config(PIPELINE));

    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 55 AND NOT granted";
    eventually("the transaction to wait", || async { world.count(waiting).await == 1 }).await;
    let committed = world.checkpoint("events").await;
    assert!((45..55).contains(&committed), "{committed}");
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let info = async || stream.consumer_info("jetcopy-events").await.unwrap();
    eventually("all to be delivered", async || info().await.delivered.stream_sequence == 100).await;
    eventually("the ack of what is committed", async || info().await.ack_floor.stream_sequence >= committed)
        .await;
    for _ in 0..LOOKS {
        assert_eq!(info().await.ack_floor.stream_sequence, committed);
    }
    assert_eq!(world.checkpoint("events").await, committed);

    world.database.batch_execute("SELECT pg_advisory_unlock(55)").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(101).into()).await;
}
