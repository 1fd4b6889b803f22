//! Loss that nobody can prevent is recorded, halts the pipeline, and is passed over when somebody accepts it.

use std::path::Path;
use std::process::Command;

use async_nats::jetstream::stream::{Config, Source, Stream};

use crate::support::{Daemon, World, eventually};

mod superseded;

fn pipeline(rest: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
batch = {{ max_rows = 500, max_age = "5ms" }}
{rest}

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#
    )
}

/// A world whose stream holds at most `max_messages`, with a table for its messages.
async fn world_with_room_for(max_messages: i64) -> World {
    world_with(|config| config.max_messages = max_messages).await
}

/// A world whose stream is as `change` makes it, with a table for its messages.
async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint NOT NULL, id bigint)").await.unwrap();
    let mut config = world.stream_config();
    change(&mut config);
    world.jetstream.update_stream(config).await.unwrap();
    world
}

async fn publish(world: &World, count: usize) {
    world.publish("a", (0..count).map(|id| format!("{{\"id\": {id}}}"))).await;
}

/// First and last sequence and cause of each recorded loss.
async fn losses(world: &World) -> Vec<(i64, Option<i64>, String)> {
    let sql = "SELECT first_sequence, last_sequence, cause FROM jetcopy.losses ORDER BY id";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn accept_loss(config: &Path, rest: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.arg("accept-loss").arg("--config").arg(config).args(rest).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// That the table holds the sequences from 1 to the stream's end once each, but for those from `first` to
/// `last`.
async fn all_but(world: &World, first: i64, last: i64) {
    let end = i64::try_from(world.last_sequence().await).unwrap();
    let rows = world.count("SELECT count(*) FROM events").await;
    let distinct = world.count("SELECT count(DISTINCT sequence) FROM events").await;
    let among_lost =
        world.count(&format!("SELECT count(*) FROM events WHERE sequence BETWEEN {first} AND {last}")).await;
    assert_eq!((rows, distinct, among_lost), (end - (last - first + 1), rows, 0));
}

/// A mirror of one subject of the world's stream.
async fn mirror(world: &World, subject: &str, rest: Config) -> Stream {
    let origin = Source {
        name: world.stream.clone(),
        filter_subject: Some(format!("{}.{subject}", world.stream)),
        ..Source::default()
    };
    let config = Config { name: "PART".into(), mirror: Some(origin), ..rest };
    world.jetstream.create_stream(config).await.unwrap()
}

#[tokio::test]
async fn a_mirror_of_a_part_has_lost_nothing_where_it_never_held_a_sequence_and_something_where_limits_did() {
    let world = world_with(|_| {}).await;
    let part = mirror(&world, "wanted", Config { max_messages: 5, ..Config::default() }).await;
    let text = pipeline("").replace("stream = \"STREAM\"", "stream = \"PART\"");
    let daemon = Daemon::start(&world.config(&text));
    daemon.says("http=").await;
    eventually("the pipeline to run", async || daemon.get("/readyz").0 == 200).await;
    // The first message has sequence 4, and so the mirror begins there; others come between the next ones.
    let messages = |count: usize| (0..count).map(|id| format!("{{\"id\": {id}}}"));
    for _ in 0..3 {
        world.publish("other", messages(3)).await;
        world.publish("wanted", messages(1)).await;
        let last = i64::try_from(world.last_sequence().await).unwrap();
        let sql = format!("SELECT count(*) FROM events WHERE sequence = {last}");
        eventually("the row", async || world.count(&sql).await == 1).await;
    }
    assert_eq!((world.count("SELECT count(*) FROM events").await, losses(&world).await), (3, vec![]));
    drop(daemon);
    // Others only, while it is down: the front need not move for them.
    world.publish("other", messages(3)).await;
    world.publish("wanted", messages(1)).await;
    let daemon = Daemon::start(&world.config(&text));
    eventually("the row", async || world.count("SELECT count(*) FROM events").await == 4).await;
    drop(daemon);
    world.publish("wanted", messages(9)).await;
    let last = world.last_sequence().await;
    eventually("the mirror to be full", async || part.get_info().await.unwrap().state.last_sequence == last)
        .await;
    let daemon = Daemon::start(&world.config(&text));
    eventually("the loss", async || losses(&world).await.len() == 1).await;
    let (first, last) = (i64::try_from(last - 8).unwrap(), i64::try_from(last - 5).unwrap());
    assert_eq!(losses(&world).await, [(first, Some(last), "dropped".into())]);
    drop(daemon);
}

#[tokio::test]
async fn what_retention_dropped_during_an_outage_halts_the_pipeline_until_it_is_accepted() {
    let world = world_with_room_for(300).await;
    let config = world.config(&pipeline(""));
    publish(&world, 100).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    daemon.kill();
    publish(&world, 1_000).await;

    let daemon = Daemon::start(&config);
    daemon.says("halted").await;
    daemon.says("jetcopy accept-loss").await;
    assert_eq!(losses(&world).await, [(101, Some(800), "dropped".to_owned())]);
    assert_eq!(world.checkpoint("events").await, 100);
    // The loss grows while nobody looks; it stays one row.
    publish(&world, 50).await;

    let shown = accept_loss(&config, &["--dry-run", "events"]);
    assert!(shown.contains("sequences 101 to "), "{shown}");
    let accepted = accept_loss(&config, &["events", "--yes"]);
    assert!(accepted.contains("accepted: stream"), "{accepted}");
    world.drained("events", &daemon).await;
    let recorded = losses(&world).await;
    assert_eq!(recorded, [(101, Some(850), "dropped".to_owned())]);
    all_but(&world, 101, 850).await;
    assert!(accept_loss(&config, &["events", "--yes"]).contains("no loss to accept"));
}

#[tokio::test]
async fn what_the_stream_drops_while_the_pipeline_runs_is_recorded_exactly() {
    dropped_while_the_table_is_locked(&world_with_room_for(1_000).await, "", "dropped").await;
}

#[tokio::test]
async fn what_the_stream_drops_unread_of_subjects_is_recorded_too() {
    let world = world_with_room_for(1_000).await;
    dropped_while_the_table_is_locked(&world, "subjects = [\"STREAM.a\"]", "dropped").await;
}

/// Locks the table of a stream that holds 1,000 messages while 14,000 are published: the pipeline halts, and
/// goes on when the loss is accepted.
async fn dropped_while_the_table_is_locked(world: &World, settings: &str, cause: &str) {
    let config = world.config(&pipeline(settings));
    publish(world, 10).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let (delivered, kept) = lock_and_publish(world).await;
    daemon.says("halted").await;
    // Retention may already have overtaken the consumer while it was delivering.
    let committed = i64::try_from(world.checkpoint("events").await).unwrap();
    assert!((10..=delivered).contains(&committed), "{committed}");
    assert_eq!(losses(world).await, [(committed + 1, Some(kept - 1), cause.to_owned())]);
    accept_loss(&config, &["events", "--yes"]);
    world.drained("events", &daemon).await;
    all_but(world, committed + 1, kept - 1).await;
}

/// Publishes while the table is locked; the last sequence that was delivered, and the first that the stream
/// still holds.
async fn lock_and_publish(world: &World) -> (i64, i64) {
    // The writer waits, and the consumer delivers no more than 10,000 messages that are not acknowledged.
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    publish(world, 1_000).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    eventually("messages to be delivered", || async {
        stream.consumer_info("jetcopy-events").await.unwrap().num_pending == 0
    })
    .await;
    publish(world, 13_000).await;
    let delivered = stream.consumer_info("jetcopy-events").await.unwrap();
    let delivered = i64::try_from(delivered.delivered.stream_sequence).unwrap();
    let kept = world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.first_sequence;
    let kept = i64::try_from(kept).unwrap();
    assert!(delivered + 1 < kept, "nothing was dropped: delivered {delivered}, kept from {kept}");
    world.database.batch_execute("ROLLBACK").await.unwrap();
    (delivered, kept)
}

#[tokio::test]
async fn with_on_loss_continue_a_loss_is_recorded_and_the_pipeline_goes_on() {
    let world = world_with_room_for(300).await;
    let config = world.config(&pipeline("on_loss = \"continue\""));
    publish(&world, 100).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    daemon.kill();
    publish(&world, 1_000).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert_eq!(losses(&world).await, [(101, Some(800), "dropped".to_owned())]);
    all_but(&world, 101, 800).await;
}

#[tokio::test]
async fn messages_deleted_in_the_middle_are_no_loss() {
    let world = world_with_room_for(-1).await;
    publish(&world, 1_000).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for sequence in [2, 3, 400, 999] {
        stream.delete_message(sequence).await.unwrap();
    }
    let daemon = Daemon::start(&world.config(&pipeline("")));
    world.drained("events", &daemon).await;
    assert!(losses(&world).await.is_empty());
    assert_eq!(world.count("SELECT count(*) FROM events").await, 996);
    assert_eq!(world.count("SELECT count(*) FROM events WHERE sequence IN (2, 3, 400, 999)").await, 0);
}

/// Publishes messages of no interest to a pipeline with subjects.
async fn publish_others(world: &World, count: usize) {
    world.publish("other", (0..count).map(|id| format!("{{\"id\": {id}}}"))).await;
}

#[tokio::test]
async fn a_sparse_subject_whose_last_message_retention_has_passed_is_no_loss() {
    let world = world_with_room_for(300).await;
    let config = world.config(&pipeline("subjects = [\"STREAM.a\"]"));
    publish(&world, 10).await;
    let daemon = Daemon::start(&config);
    eventually("the first rows", async || world.count("SELECT count(*) FROM events").await == 10).await;
    // The checkpoint follows the stream without rows, also past what retention has dropped.
    for _ in 0..4 {
        publish_others(&world, 200).await;
        world.drained("events", &daemon).await;
    }
    publish(&world, 10).await;
    publish_others(&world, 200).await;
    world.drained("events", &daemon).await;
    daemon.kill();
    let daemon = Daemon::start(&config);
    publish(&world, 10).await;
    world.drained("events", &daemon).await;
    assert!(losses(&world).await.is_empty());
    assert_eq!(world.count("SELECT count(*) FROM events").await, 30);
    assert_eq!(world.count("SELECT count(DISTINCT sequence) FROM events").await, 30);
    daemon.needed_no_resync();
}
