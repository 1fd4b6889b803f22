//! What a stream removes from its middle by itself before it was read: told where each message is a row, no matter where the
//! last value of a key is.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use nix::sys::signal::Signal;

use super::*;

/// A table of the last values, and the pipeline that keeps them.
const VALUES: &str = "CREATE TABLE last_values (key text PRIMARY KEY, id bigint NOT NULL)";

fn last_values(world: &World, rest: &str) -> std::path::PathBuf {
    world.config(&format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
{rest}

[[pipeline.table]]
name = "last_values"
on_conflict = "update"
key = ["key"]
[pipeline.table.columns]
key = "$subject[1]"
"#
    ))
}

/// Makes of the stream what a KV bucket is.
fn bucket(config: &mut Config) {
    config.max_messages_per_subject = 1;
    config.allow_rollup = true;
    config.allow_direct = true;
}

/// Publishes one message with a header.
async fn publish_with(world: &World, token: &str, header: (&str, &str), id: u64) {
    let mut headers = HeaderMap::new();
    headers.insert(header.0, header.1);
    let message = PublishMessage::build().headers(headers).payload(format!("{{\"id\": {id}}}").into());
    let subject = format!("{}.{token}", world.stream);
    world.jetstream.send_publish(subject, message).await.unwrap().await.unwrap();
}

async fn put(world: &World, token: &str, id: u64) {
    world.publish(token, [format!("{{\"id\": {id}}}")]).await;
}

/// Stops the daemon once all is committed.
async fn carried(world: &World, config: &Path) {
    let daemon = Daemon::start(config);
    world.drained("events", &daemon).await;
    daemon.kill();
}

fn superseded(daemon: &Daemon) -> i64 {
    daemon.metric("jetcopy_superseded_messages_total", "")
}

/// Waits until so many are counted, which is right after the commit.
async fn counts(daemon: &Daemon, messages: i64) {
    eventually("superseded messages to be counted", async || superseded(daemon) == messages).await;
}

#[tokio::test]
async fn what_a_limit_of_a_subject_removes_unread_halts_a_pipeline_whose_messages_are_rows() {
    let world = world_with(|config| config.max_messages_per_subject = 1_000).await;
    dropped_while_the_table_is_locked(&world, "", "superseded").await;
}

#[tokio::test]
async fn with_record_what_a_limit_of_a_subject_removes_unread_is_counted_exactly_and_the_pipeline_goes_on() {
    let world = world_with(|config| config.max_messages_per_subject = 1_000).await;
    // It stays in front, so that all else is missing in the middle.
    put(&world, "b", 0).await;
    let config = world.config(&pipeline("on_superseded = \"record\""));
    publish(&world, 10).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    lock_and_publish_behind(&world).await;
    world.drained("events", &daemon).await;
    let sql = "SELECT count(*), sum(messages)::bigint FROM jetcopy.losses WHERE cause = 'superseded'";
    let row = world.database.query_one(sql, &[]).await.unwrap();
    let missing = i64::try_from(world.last_sequence().await).unwrap()
        - world.count("SELECT count(DISTINCT sequence) FROM events").await;
    assert_eq!((row.get(0), row.get(1)), (1_i64, Some(missing)));
    assert!(missing > 0);
    counts(&daemon, missing).await;
    assert_eq!(daemon.status()["superseded_messages"], missing);
    assert_eq!(
        world.count("SELECT count(*) FROM events").await,
        world.count("SELECT count(DISTINCT sequence) FROM events").await
    );
}

/// As [`lock_and_publish`], where the front of the stream stays.
async fn lock_and_publish_behind(world: &World) {
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    publish(world, 14_000).await;
    world.database.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_bucket_whose_keys_were_updated_again_and_again_while_the_daemon_was_down_brings_the_last_values() {
    // The second time the front of the stream passes the checkpoint.
    for others in [&["b", "c"][..], &[]] {
        let world = world_with(bucket).await;
        world.database.batch_execute(VALUES).await.unwrap();
        let config = last_values(&world, "");
        for token in others.iter().chain(&["a"]) {
            put(&world, token, 1).await;
        }
        carried(&world, &config).await;
        for id in 2..=4 {
            put(&world, "a", id).await;
        }
        let daemon = Daemon::start(&config);
        world.drained("events", &daemon).await;
        counts(&daemon, 2).await;
        assert!(losses(&world).await.is_empty());
        assert_eq!(world.count("SELECT id FROM last_values WHERE key = 'a'").await, 4);
        let kept = i64::try_from(others.len()).unwrap();
        assert_eq!(world.count("SELECT count(*) FROM last_values WHERE id = 1").await, kept);
        put(&world, "a", 5).await;
        world.drained("events", &daemon).await;
        assert_eq!(world.count("SELECT id FROM last_values WHERE key = 'a'").await, 5);
        assert_eq!(daemon.metric("jetcopy_resyncs_total", "cause=\"dropped\""), 0);
    }
}

#[tokio::test]
async fn a_loss_to_another_limit_of_a_bucket_halts_also_where_only_last_values_are_kept() {
    let full = |config: &mut Config| {
        bucket(config);
        config.max_messages = 3;
    };
    let old = |config: &mut Config| {
        bucket(config);
        config.max_age = Duration::from_secs(1);
        config.duplicate_window = Duration::from_secs(1);
    };
    for world in [world_with(full).await, world_with(old).await] {
        world.database.batch_execute(VALUES).await.unwrap();
        let config = last_values(&world, "");
        put(&world, "a", 1).await;
        carried(&world, &config).await;
        for (id, token) in (2..).zip(["b", "c", "d", "e", "f"]) {
            put(&world, token, id).await;
        }
        let mut stream = world.jetstream.get_stream(&world.stream).await.unwrap();
        eventually("the limit to drop some", async || {
            let first =
                world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.first_sequence;
            first > 3
        })
        .await;
        put(&world, "g", 7).await;
        let first = i64::try_from(stream.info().await.unwrap().state.first_sequence).unwrap();
        let daemon = Daemon::start(&config);
        daemon.says("halted").await;
        let recorded = losses(&world).await;
        assert_eq!((recorded[0].0, recorded[0].2.as_str()), (2, "dropped"), "{recorded:?}");
        assert!(recorded[0].1 >= Some(first - 1), "{recorded:?}");
    }
}

#[tokio::test]
async fn a_message_whose_time_to_live_ended_unread_in_the_middle_is_told() {
    let world = world_with(|config| config.allow_message_ttl = true).await;
    let config = world.config(&pipeline(""));
    publish(&world, 3).await;
    carried(&world, &config).await;
    put(&world, "a", 4).await;
    publish_with(&world, "a", ("Nats-TTL", "1s"), 5).await;
    put(&world, "a", 6).await;
    eventually("the message to expire", async || {
        world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.messages == 5
    })
    .await;
    let daemon = Daemon::start(&config);
    daemon.says("halted").await;
    daemon.says("on_superseded").await;
    assert_eq!(losses(&world).await, [(5, Some(5), "superseded".to_owned())]);
    accept_loss(&config, &["events", "--yes"]);
    world.drained("events", &daemon).await;
    all_but(&world, 5, 5).await;
}

#[tokio::test]
async fn what_a_roll_up_removes_unread_is_told_by_what_the_pipeline_says() {
    for (settings, recorded) in [
        ("on_loss = \"continue\"", vec![(5, Some(6), "superseded".to_owned())]),
        ("on_superseded = \"ignore\"", vec![]),
    ] {
        let world = world_with(|config| config.allow_rollup = true).await;
        let config = world.config(&pipeline(settings));
        put(&world, "b", 1).await;
        publish(&world, 2).await;
        carried(&world, &config).await;
        put(&world, "b", 4).await;
        publish(&world, 2).await;
        publish_with(&world, "a", ("Nats-Rollup", "sub"), 7).await;
        let daemon = Daemon::start(&config);
        world.drained("events", &daemon).await;
        assert_eq!(losses(&world).await, recorded);
        counts(&daemon, 2).await;
        all_but(&world, 5, 6).await;
    }
}

#[tokio::test]
async fn what_was_superseded_before_the_pipeline_began_or_was_carried_before_a_rewind_is_no_loss() {
    let world = world_with(|config| config.max_messages_per_subject = 2).await;
    put(&world, "b", 0).await;
    publish(&world, 10).await;
    let config = world.config(&pipeline(""));
    carried(&world, &config).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 3);
    let daemon = Daemon::start(&config);
    for id in 11..=14 {
        put(&world, "a", id).await;
        world.drained("events", &daemon).await;
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.0.code(), Some(0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output =
        command.args(["rewind", "--config"]).arg(&config).args(["events", "--to", "1", "--yes"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert!(losses(&world).await.is_empty());
    assert_eq!(superseded(&daemon), 0);
    let twice = "SELECT count(*) FROM (SELECT FROM events GROUP BY sequence HAVING count(*) = 2) AS twice";
    assert_eq!(world.count(twice).await, 2);
}
