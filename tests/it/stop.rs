//! The daemon stops when it is told to, and what it has taken is committed first.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Daemon, World, eventually, oracle};

/// Batches that only a stop closes: far more rows and time than a test has.
const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
batch = { max_rows = 1_000_000, max_age = "10m" }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#;

fn message(id: u64) -> Vec<u8> {
    json!({"id": id}).to_string().into()
}

/// A daemon that has taken `count` messages and committed none of them.
async fn with_taken(world: &World, count: u64) -> Daemon {
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id bigint)").await.unwrap();
    world.publish("a", (1..=count).map(message)).await;
    let daemon = Daemon::start(&world.config(PIPELINE));
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    eventually("everything to be delivered", || async {
        let consumer: Result<Consumer<pull::Config>, _> = stream.get_consumer("jetcopy-events").await;
        consumer.is_ok_and(|consumer| consumer.cached_info().delivered.stream_sequence == count)
    })
    .await;
    assert_eq!(world.checkpoint("events").await, 0);
    daemon
}

#[tokio::test]
async fn sigterm_commits_what_was_taken_acks_it_and_exits_with_0() {
    let world = World::new().await;
    let daemon = with_taken(&world, 500).await;
    daemon.signal(Signal::SIGTERM);
    let (status, _) = daemon.ended().await;
    assert_eq!(status.code(), Some(0));
    // A delivered message may still have been on its way: such a one is not taken. Nearly all were there.
    let rows = world.count("SELECT count(*) FROM events").await;
    assert!(rows > 0, "nothing was committed at the stop");
    assert_eq!(u64::try_from(rows).unwrap(), world.checkpoint("events").await);

    let again = Daemon::start(&world.config(&PIPELINE.replace("10m", "10ms")));
    oracle(&world, &again, "events", "events", message(501)).await;
}

#[tokio::test]
async fn a_second_signal_ends_the_daemon_at_once_and_the_next_one_goes_on_without_loss() {
    let world = World::new().await;
    let daemon = with_taken(&world, 500).await;
    // The stop's commit cannot finish while somebody holds the table.
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    daemon.signal(Signal::SIGTERM);
    daemon.says("pipeline is stopping").await;
    assert_eq!(daemon.get("/readyz"), (503, "events: stopping\n".to_owned()));
    daemon.signal(Signal::SIGTERM);
    let (status, took) = daemon.ended().await;
    assert_eq!(status.code(), Some(143));
    assert!(took < Duration::from_secs(2), "{took:?}");
    world.database.batch_execute("ROLLBACK").await.unwrap();

    let again = Daemon::start(&world.config(&PIPELINE.replace("10m", "10ms")));
    oracle(&world, &again, "events", "events", message(501)).await;
}

#[tokio::test]
async fn a_stop_that_cannot_commit_in_time_exits_with_3_and_the_next_daemon_goes_on_without_loss() {
    let world = World::new().await;
    let daemon = with_taken(&world, 500).await;
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    daemon.signal(Signal::SIGTERM);
    let (status, took) = daemon.ended().await;
    assert_eq!(status.code(), Some(3));
    assert!(took < Duration::from_secs(25), "{took:?}");
    assert!(daemon.log().contains("not all that was read could be committed"), "{}", daemon.log());
    world.database.batch_execute("ROLLBACK").await.unwrap();

    let again = Daemon::start(&world.config(&PIPELINE.replace("10m", "10ms")));
    oracle(&world, &again, "events", "events", message(501)).await;
}
