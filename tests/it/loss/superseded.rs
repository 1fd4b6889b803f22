//! What a stream removes from its middle by itself before it was read: told where each message is a row, no
//! matter where the last value of a key is.

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

/// Publishes one message with headers.
async fn publish_headers(world: &World, token: &str, headers: &[(&str, &str)], payload: &str) {
    let mut all = HeaderMap::new();
    for &(name, value) in headers {
        all.insert(name, value);
    }
    let message = PublishMessage::build().headers(all).payload(payload.to_owned().into());
    let subject = format!("{}.{token}", world.stream);
    world.jetstream.send_publish(subject, message).await.unwrap().await.unwrap();
}

/// The same with one.
async fn publish_with(world: &World, token: &str, header: (&str, &str), id: u64) {
    publish_headers(world, token, &[header], &format!("{{\"id\": {id}}}")).await;
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
    for subjects in ["", "subjects = [\"STREAM.>\"]"] {
        let world = world_with(|config| config.max_messages_per_subject = 1_000).await;
        dropped_while_the_table_is_locked(&world, subjects, "superseded").await;
    }
}

#[tokio::test]
async fn what_max_bytes_drops_unread_of_subjects_is_recorded_also_where_the_stream_thins_itself() {
    for per_subject in [-1, 1_000_000] {
        let world = world_with(|config| {
            config.max_bytes = 100_000;
            config.max_messages_per_subject = per_subject;
        });
        dropped_while_the_table_is_locked(&world.await, "subjects = [\"STREAM.a\"]", "dropped").await;
    }
}

#[tokio::test]
async fn of_a_part_of_the_subjects_nothing_behind_the_front_is_told_and_no_other_message_taken_for_a_loss() {
    let world = world_with(|config| config.max_messages_per_subject = 2).await;
    put(&world, "b", 0).await;
    let config = world.config(&pipeline("subjects = [\"STREAM.a\"]"));
    publish(&world, 1).await;
    carried(&world, &config).await;
    publish(&world, 3).await;
    put(&world, "b", 0).await;
    publish(&world, 1).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert!(losses(&world).await.is_empty());
    let sequences = "SELECT string_agg(sequence::text, ' ' ORDER BY sequence) FROM events";
    let sequences: String = world.database.query_one(sequences, &[]).await.unwrap().get(0);
    assert_eq!((sequences.as_str(), superseded(&daemon)), ("2 5 7", 0));
    let check = world.run(&config, &["check"]).await;
    assert!(check.out.contains("removals cannot be told from messages on the other subjects"), "{check:?}");
}

#[tokio::test]
async fn messages_of_subjects_that_the_stream_took_once_are_no_loss_of_those_that_it_takes_now() {
    let world = world_with(|config| config.max_messages_per_subject = 2).await;
    let config = world.config(&pipeline("subjects = [\"STREAM.a\"]"));
    publish(&world, 1).await;
    carried(&world, &config).await;
    put(&world, "b", 0).await;
    publish(&world, 1).await;
    let narrow = Config {
        subjects: vec![format!("{}.a", world.stream)],
        max_messages_per_subject: 2,
        ..world.stream_config()
    };
    world.jetstream.update_stream(narrow).await.unwrap();
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert!(losses(&world).await.is_empty());
    daemon.kill();
    publish(&world, 3).await;
    let daemon = Daemon::start(&config);
    daemon.says("halted").await;
    assert_eq!(losses(&world).await, [(4, Some(4), "superseded".to_owned())]);
}

/// As `nats kv purge` does it.
async fn purge(world: &World, key: &str) {
    publish_headers(world, key, &[("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")], "").await;
}

#[tokio::test]
async fn what_the_purge_of_a_key_removes_unread_is_superseded_also_beside_subjects() {
    let history = |config: &mut Config| {
        bucket(config);
        config.max_messages_per_subject = 5;
    };
    for (subjects, told) in [("", 2), ("subjects = [\"STREAM.>\"]", 2), ("subjects = [\"STREAM.a\"]", 0)] {
        let world = world_with(history).await;
        world.database.batch_execute(VALUES).await.unwrap();
        let config = last_values(&world, subjects);
        put(&world, "b", 1).await;
        put(&world, "a", 2).await;
        carried(&world, &config).await;
        // Sequences 3 and 4 go, and 5 says so.
        put(&world, "a", 3).await;
        put(&world, "a", 4).await;
        purge(&world, "a").await;
        put(&world, "a", 6).await;
        let daemon = Daemon::start(&config);
        world.drained("events", &daemon).await;
        counts(&daemon, told).await;
        assert_eq!(world.count("SELECT id FROM last_values WHERE key = 'a'").await, 6);
        assert_eq!(daemon.metric("jetcopy_passed_over_messages_total", "kind=\"deleted\""), 1);
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
        daemon.kill();
        put(&world, "a", 7).await;
        purge(&world, "a").await;
        let daemon = Daemon::start(&last_values(&world, &format!("{subjects}\non_superseded = \"halt\"")));
        if told > 0 {
            daemon.says("halted").await;
            assert_eq!(losses(&world).await, [(7, Some(7), "superseded".to_owned())]);
        } else {
            world.drained("events", &daemon).await;
            assert!(losses(&world).await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_counter_brings_its_last_value_and_tells_what_was_superseded_also_beside_subjects() {
    for (subjects, told) in [("", 3), ("subjects = [\"STREAM.>\"]", 3), ("subjects = [\"STREAM.a\"]", 0)] {
        let world = World::new().await;
        world.database.batch_execute(VALUES).await.unwrap();
        world.jetstream.delete_stream(&world.stream).await.unwrap();
        let counter = Config {
            allow_message_counter: true,
            allow_direct: true,
            max_messages_per_subject: 1,
            ..world.stream_config()
        };
        world.jetstream.create_stream(counter).await.unwrap();
        let config = last_values(&world, subjects);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text + "id = \"val\"\n").unwrap();
        let add = async |key: &str| publish_headers(&world, key, &[("Nats-Incr", "+2")], "").await;
        add("b").await;
        add("a").await;
        carried(&world, &config).await;
        for _ in 0..4 {
            add("a").await;
        }
        let daemon = Daemon::start(&config);
        world.drained("events", &daemon).await;
        counts(&daemon, told).await;
        assert_eq!(world.count("SELECT id FROM last_values WHERE key = 'a'").await, 10);
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    }
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
    audited(&world, &config, missing, 0).await;
    assert_eq!(
        world.count("SELECT count(*) FROM events").await,
        world.count("SELECT count(DISTINCT sequence) FROM events").await
    );
}

/// `jetcopy audit` knows so many messages as superseded, and so many as missing.
async fn audited(world: &World, config: &Path, superseded: i64, missing: i64) {
    let audit = world.run(config, &["audit", "events", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&audit.out).unwrap();
    let counts = &report["counts"];
    assert_eq!(
        (&counts["superseded"], &report["differences"]),
        (&superseded.into(), &missing.into()),
        "{report:#}"
    );
    assert_eq!((&counts["not_in_stream"], &counts["dropped_by_now"]), (&0.into(), &0.into()), "{report:#}");
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
        daemon.needed_no_resync();
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
    audited(&world, &config, 1, 0).await;
    // Beside what was superseded, in the same record or not, a row that is gone is missing.
    world.database.batch_execute("UPDATE jetcopy.losses SET first_sequence = 4, messages = 1").await.unwrap();
    world.database.batch_execute("DELETE FROM events WHERE sequence IN (4, 6)").await.unwrap();
    audited(&world, &config, 1, 2).await;
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

#[tokio::test]
async fn gaps_that_a_checkpoint_of_before_an_upgrade_cannot_know_are_none_and_later_ones_are_told() {
    let world = world_with(|config| config.max_messages_per_subject = 2).await;
    put(&world, "b", 0).await;
    let config = world.config(&pipeline(""));
    carried(&world, &config).await;
    publish(&world, 10).await;
    // What the migration makes of a checkpoint that is in the middle of its first backlog.
    world.database.batch_execute("UPDATE jetcopy.checkpoints SET known_sequence = NULL").await.unwrap();
    // To rewind it tells nothing new.
    eventually("the lease to end", async || {
        let rewound = world.run(&config, &["rewind", "events", "--to", "0", "--yes"]).await;
        rewound.code == 0 || rewound.err.contains("the checkpoint is at 0")
    })
    .await;
    world.database.batch_execute("DELETE FROM events").await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.checkpoints WHERE known_sequence IS NULL").await, 1);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert_eq!((losses(&world).await.len(), world.count("SELECT count(*) FROM events").await), (0, 3));
    assert_eq!(world.count("SELECT known_sequence FROM jetcopy.checkpoints").await, 11);
    daemon.kill();
    publish(&world, 3).await;
    let daemon = Daemon::start(&config);
    daemon.says("halted").await;
    assert_eq!(losses(&world).await, [(12, Some(12), "superseded".to_owned())]);
}
