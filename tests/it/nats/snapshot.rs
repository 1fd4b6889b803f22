//! A stream is restored from a snapshot or moved by a mirror: it has another creation time, and the same
//! messages.

use std::net::TcpListener;
use std::path::PathBuf;

use async_nats::{Client, jetstream};
use futures_util::StreamExt as _;
use jetcopy::testbed::{NatsOptions, Stop, TestNats, TestPostgres};
use serde_json::{Value, json};

use super::{accept_loss, each_id_once, halted, losses, shared};
use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

/// A stream as the server gives it out.
struct Snapshot {
    /// Its configuration and state.
    about: Value,
    chunks: Vec<Vec<u8>>,
}

/// What the server answers to a request; it must not be an error.
async fn ask(client: &Client, subject: String, request: Vec<u8>) -> Value {
    let answer = client.request(subject, request.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or(Value::Null);
    assert!(answer["error"].is_null(), "{answer}");
    answer
}

impl Snapshot {
    async fn take(world: &World) -> Self {
        let inbox = world.nats.new_inbox();
        let mut parts = world.nats.subscribe(inbox.clone()).await.unwrap();
        let request = json!({"deliver_subject": inbox, "chunk_size": 65_536}).to_string().into_bytes();
        let about = ask(&world.nats, format!("$JS.API.STREAM.SNAPSHOT.{}", world.stream), request).await;
        let mut chunks = Vec::new();
        while let Some(part) = parts.next().await {
            if part.payload.is_empty() {
                break;
            }
            chunks.push(part.payload.to_vec());
            if let Some(reply) = part.reply {
                world.nats.publish(reply, "".into()).await.unwrap();
            }
        }
        Self { about, chunks }
    }

    /// Puts it in the place of the stream that is there.
    async fn restore(&self, world: &World) {
        world.jetstream.delete_stream(&world.stream).await.unwrap();
        let request = json!({"config": self.about["config"], "state": self.about["state"]});
        let subject = format!("$JS.API.STREAM.RESTORE.{}", world.stream);
        let answer = ask(&world.nats, subject, request.to_string().into_bytes()).await;
        let deliver = answer["deliver_subject"].as_str().unwrap().to_owned();
        for chunk in self.chunks.iter().cloned().chain([Vec::new()]) {
            ask(&world.nats, deliver.clone(), chunk).await;
        }
    }
}

/// A world whose daemon has committed events up to `last`.
async fn carried(last: u64) -> (World, PathBuf, Daemon) {
    let world = shared().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=last).map(event)).await;
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

/// Forgets all by which a stream is known, as a checkpoint of an earlier version has nothing of it.
async fn forget(world: &World) {
    let sql = "UPDATE jetcopy.checkpoints SET last_timestamp = NULL; DELETE FROM jetcopy.milestones";
    world.database.batch_execute(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_restored_from_a_snapshot_is_known_and_read_on_without_a_word_of_anybody() {
    // With the message at the checkpoint, and without it; under a daemon that runs, and under one that
    // starts.
    for (deleted, running) in [(false, true), (true, false)] {
        let (world, config, daemon) = carried(300).await;
        if deleted {
            let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
            stream.delete_message(300).await.unwrap();
        }
        let snapshot = Snapshot::take(&world).await;
        if running {
            snapshot.restore(&world).await;
            daemon.says("the stream was restored or moved").await;
        }
        daemon.kill();
        if !running {
            snapshot.restore(&world).await;
            let audited = world.run(&config, &["audit", "events"]).await;
            assert!(audited.code == 0 && audited.out.contains("300 committed"), "{audited:?}");
        }
        world.publish("a", (301..=400).map(event)).await;
        let daemon = Daemon::start(&config);
        world.drained("events", &daemon).await;
        each_id_once(&world, 400).await;
        oracle(&world, &daemon, "events", "events", event(401)).await;
        assert!(losses(&world).await.is_empty());
        each_id_once(&world, 401).await;
        if !running {
            daemon.says("the stream was restored or moved").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_restored_from_an_older_snapshot_was_rolled_back_to_its_end() {
    // What is published since ends before the checkpoint, or after it.
    for published in [100, 500] {
        let (world, config, daemon) = carried(300).await;
        let snapshot = Snapshot::take(&world).await;
        world.publish("a", (301..=500).map(event)).await;
        world.drained("events", &daemon).await;
        daemon.kill();
        snapshot.restore(&world).await;
        let last = 500 + published;
        world.publish("a", (501..=last).map(event)).await;

        let daemon = Daemon::start(&config);
        halted(&daemon, "rolled back to sequence 300").await;
        assert_eq!(losses(&world).await, [(301, Some(500), "rolled_back".to_owned())]);
        let shown = world.run(&config, &["accept-loss", "events"]).await;
        assert_eq!(shown.code, 1, "{shown:?}");
        let goes_on = format!("would resume after sequence 300 and read {published} messages");
        assert!(
            shown.out.contains(&goes_on) && shown.out.contains("none of them is in the tables"),
            "{shown:?}"
        );
        let again = world.run(&config, &["accept-loss", "events", "--after", "280"]).await.out;
        assert!(again.contains("20 of them were written before"), "{again}");
        assert!(again.contains("table events: 20 rows would be duplicated"), "{again}");
        accept_loss(&config);
        world.drained("events", &daemon).await;
        each_id_once(&world, last).await;
        // Known again by what was committed since.
        let snapshot = Snapshot::take(&world).await;
        snapshot.restore(&world).await;
        world.publish("a", [event(last + 1)]).await;
        world.drained("events", &daemon).await;
        each_id_once(&world, last + 1).await;
        assert_eq!(losses(&world).await.len(), 1);
    }
}

/// What happens to a stream while no daemon runs.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Purged,
    RestoredShorter,
    RestoredAndGrown,
    Recreated,
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_in_the_same_words_what_run_would_halt_at_and_changes_nothing() {
    for (fate, words) in [
        (Fate::Purged, "the stream dropped sequences 301 to 320 before they were committed"),
        (
            Fate::RestoredShorter,
            "the stream was rolled back to sequence 200, but the database holds messages up to 300",
        ),
        (
            Fate::RestoredAndGrown,
            "the stream was rolled back to sequence 200, but the database holds messages up to 300",
        ),
        (Fate::Recreated, "the stream was recreated"),
    ] {
        let (world, config, daemon) = carried(200).await;
        let snapshot = Snapshot::take(&world).await;
        world.publish("a", (201..=300).map(event)).await;
        world.drained("events", &daemon).await;
        daemon.kill();
        let well = world.run(&config, &["check"]).await.well();
        assert!(
            well.contains("pipeline events, checkpoint: 300, and the stream holds everything after it"),
            "{well}"
        );
        match fate {
            Fate::Purged => {
                world.publish("a", (301..=340).map(event)).await;
                let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
                stream.purge().sequence(321).await.unwrap();
            }
            Fate::RestoredShorter => snapshot.restore(&world).await,
            Fate::RestoredAndGrown => {
                snapshot.restore(&world).await;
                world.publish("a", (301..=450).map(event)).await;
            }
            Fate::Recreated => {
                world.jetstream.delete_stream(&world.stream).await.unwrap();
                world.create_stream().await;
            }
        }
        let state = "SELECT string_agg(c::text, ' ') FROM jetcopy.checkpoints c";
        let read = async || world.database.query_one(state, &[]).await.unwrap().get::<_, String>(0);
        let consumers = async || {
            world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.consumer_count
        };
        let before = (read().await, consumers().await);
        let checked = world.run(&config, &["check"]).await;
        assert_eq!(checked.code, 1, "{fate:?}: {checked:?}");
        assert!(
            checked.out.contains(&format!("error pipeline events, checkpoint: {words}")),
            "{fate:?}: {checked:?}"
        );
        assert_eq!((read().await, consumers().await), before, "{fate:?}");
        assert!(losses(&world).await.is_empty(), "{fate:?}");

        let daemon = Daemon::start(&config);
        halted(&daemon, words).await;
        let status = daemon.status();
        for said in ["reason", "remedy"] {
            assert!(checked.out.contains(status[said].as_str().unwrap()), "{fate:?}: {checked:?}, {status}");
        }
        // The same beside a daemon that halts, and where somebody has accepted it.
        assert_eq!(world.run(&config, &["check"]).await.code, 1, "{fate:?}");
        daemon.kill();
        accept_loss(&config);
        let accepted = world.run(&config, &["check"]).await.well();
        assert!(accepted.contains("the loss was accepted"), "{fate:?}: {accepted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_checkpoint_knows_a_restored_stream_too() {
    let (world, config, daemon) = carried(300).await;
    let snapshot = Snapshot::take(&world).await;
    world.run(&config, &["pause", "events"]).await.well();
    daemon.kill();
    world.run(&config, &["rewind", "events", "--to", "150", "--yes"]).await.well();
    snapshot.restore(&world).await;
    // Once more, of a stream that no daemon has met yet.
    world.run(&config, &["rewind", "events", "--to", "50", "--yes"]).await.well();
    world.database.batch_execute("DELETE FROM events WHERE sequence > 50").await.unwrap();
    world.run(&config, &["resume", "events"]).await.well();
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(301)).await;
    each_id_once(&world, 301).await;
    assert!(losses(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_loss_says_where_it_goes_on_and_takes_a_sequence() {
    let (world, config, daemon) = carried(100).await;
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    world.create_stream().await;
    world.publish("a", (101..=250).map(event)).await;
    halted(&daemon, "the stream was recreated").await;
    let shown = world.run(&config, &["accept-loss", "events"]).await;
    assert_eq!(shown.code, 1, "{shown:?}");
    for line in [
        "the stream holds sequences 1 to 150; the checkpoint is at 100",
        "would resume after sequence 0 and read 150 messages",
        "100 of them have the sequences of written messages",
        "--after 100",
        "table events: 100 rows would be duplicated",
        "nothing was changed; use --yes to do it",
    ] {
        assert!(shown.out.contains(line), "{line:?} in {}", shown.out);
    }
    let outside = world.run(&config, &["accept-loss", "events", "--after", "151", "--yes"]).await;
    assert!(outside.code == 1 && outside.err.contains("--after must be 0 to 150"), "{outside:?}");
    assert_eq!(world.checkpoint("events").await, 100);
    let accepted = world.run(&config, &["accept-loss", "events", "--after", "40", "--yes"]).await.well();
    assert!(
        accepted.contains("accepted: stream") && accepted.contains("resume after sequence 40"),
        "{accepted}"
    );
    eventually("the last message", async || world.checkpoint("events").await == 150).await;
    let ids = "SELECT count(DISTINCT id) FROM events WHERE id <= 100 OR id BETWEEN 141 AND 250";
    assert_eq!(world.count(ids).await, 210);
    assert_eq!(world.count("SELECT count(*) FROM events").await, 210);
    let none = world.run(&config, &["accept-loss", "events", "--yes"]).await.well();
    assert!(none.contains("no loss to accept"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nothing_proves_to_be_the_same_halts_and_goes_on_where_it_is_told() {
    // All that was committed has aged out of the stream.
    let (world, config, daemon) = carried(300).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.purge().await.unwrap();
    let snapshot = Snapshot::take(&world).await;
    daemon.kill();
    snapshot.restore(&world).await;
    world.publish("a", (301..=350).map(event)).await;
    let daemon = Daemon::start(&config);
    halted(&daemon, "the stream was recreated").await;
    let shown = world.run(&config, &["accept-loss", "events", "--dry-run"]).await.well();
    assert!(shown.contains("would resume after sequence 300 and read 50 messages"), "{shown}");
    assert!(shown.contains("none of them has the sequence of one that was written"), "{shown}");
    accept_loss(&config);
    world.drained("events", &daemon).await;
    each_id_once(&world, 350).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_what_was_read_twice_of_a_restored_stream_or_says_that_it_cannot() {
    for times in [true, false] {
        let world = shared().await;
        let sql = "ALTER TABLE events ADD stored timestamptz";
        world.database.batch_execute(sql).await.unwrap();
        let with = if times {
            "sequence = \"$sequence\"\nstored = \"$timestamp\""
        } else {
            "sequence = \"$sequence\""
        };
        let config = world.config(&EVENTS.replace("sequence = \"$sequence\"", with));
        let daemon = Daemon::start(&config);
        world.publish("a", (1..=100).map(event)).await;
        world.drained("events", &daemon).await;
        daemon.kill();
        Snapshot::take(&world).await.restore(&world).await;
        forget(&world).await;
        let daemon = Daemon::start(&config);
        halted(&daemon, "the stream was recreated").await;
        accept_loss(&config);
        world.publish("a", [event(101)]).await;
        world.drained("events", &daemon).await;
        let audited = world.run(&config, &["audit", "events"]).await;
        if times {
            assert_eq!(audited.code, 1, "{audited:?}");
            assert!(audited.out.contains("sequence 1 is 2 times in events"), "{audited:?}");
            assert!(audited.out.contains("verdict: 100 differences"), "{audited:?}");
        } else {
            let said = "table events: 100 of these sequences have several rows";
            assert!(
                audited.out.contains(said) && audited.out.contains("without a column for $timestamp"),
                "{audited:?}"
            );
        }
    }
}

/// A server with a mirror of the world's stream, of the same name, in a domain of its own.
async fn mirrored(rows: u64) -> (World, TestNats, TestNats, std::sync::Arc<TestPostgres>, Daemon) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let domain = |name: &str, leaf: &str| NatsOptions {
        config: format!(
            "server_name: {name}\njetstream {{ store_dir: STORE, domain: {name} }}\nleafnodes {{ {leaf} }}"
        ),
    };
    let origin = TestNats::start(&domain("origin", &format!("listen: \"127.0.0.1:{port}\""))).unwrap();
    let remote = format!("remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}]");
    let copy = TestNats::start(&domain("copy", &remote)).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::on(&origin, &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=rows).map(event)).await;
    world.drained("events", &daemon).await;
    let client = async_nats::connect(copy.url()).await.unwrap();
    let there = jetstream::new(client.clone());
    // The server refuses what the client library would ask for.
    let external = json!({"api": "$JS.origin.API", "deliver": ""});
    let mirror = json!({"name": world.stream, "external": external});
    let config = json!({"name": world.stream, "mirror": mirror, "storage": "file", "retention": "limits"});
    eventually("the mirror", async || {
        let request =
            client.request(format!("$JS.API.STREAM.CREATE.{}", world.stream), config.to_string().into());
        let answer: Value = serde_json::from_slice(&request.await.unwrap().payload).unwrap();
        answer["error"].is_null()
    })
    .await;
    eventually("the mirror to have all", async || {
        there.get_stream(&world.stream).await.unwrap().cached_info().state.last_sequence == rows
    })
    .await;
    (world, origin, copy, postgres, daemon)
}

/// Makes the mirror a stream of its own, away from its origin; a client of it.
async fn promote(world: &World, copy: &mut TestNats) -> Client {
    copy.stop(Stop::Fast);
    copy.reconfigure("server_name: copy\njetstream { store_dir: STORE, domain: copy }").unwrap();
    copy.start_again().unwrap();
    let client = async_nats::connect(copy.url()).await.unwrap();
    let there = jetstream::new(client.clone());
    eventually("the promotion", async || there.update_stream(world.stream_config()).await.is_ok()).await;
    client
}

/// Has the world's publishers and its daemon at the copy from now on.
fn move_to(world: &mut World, copy: &TestNats, client: &Client) {
    world.nats = client.clone();
    world.jetstream = jetstream::new(client.clone());
    world.nats_url = copy.url();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_the_same_name_that_took_the_streams_place_is_read_on() {
    let (mut world, mut origin, mut copy, _postgres, daemon) = mirrored(300).await;
    daemon.kill();
    origin.stop(Stop::Fast);
    let client = promote(&world, &mut copy).await;
    move_to(&mut world, &copy, &client);
    world.publish("a", (301..=400).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    oracle(&world, &daemon, "events", "events", event(401)).await;
    each_id_once(&world, 401).await;
    assert!(losses(&world).await.is_empty());
    daemon.says("the stream was restored or moved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_took_messages_beside_its_origin_loses_none_and_that_is_said() {
    let (mut world, mut origin, mut copy, _postgres, daemon) = mirrored(300).await;
    let client = promote(&world, &mut copy).await;
    // Both take messages; those of the origin are committed.
    let origins = (world.nats.clone(), world.jetstream.clone(), world.nats_url.clone());
    for round in 0..5 {
        world.publish("a", (301 + round * 20..=320 + round * 20).map(event)).await;
        move_to(&mut world, &copy, &client);
        world.publish("a", (401 + round * 20..=420 + round * 20).map(event)).await;
        (world.nats, world.jetstream, world.nats_url) = origins.clone();
    }
    world.publish("a", [event(501)]).await;
    world.drained("events", &daemon).await;
    daemon.kill();
    origin.stop(Stop::Fast);
    move_to(&mut world, &copy, &client);
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    halted(&daemon, "rolled back to sequence").await;
    let shown = world.run(&config, &["accept-loss", "events", "--after", "300"]).await;
    assert!(shown.out.contains("diverged somewhere after sequence"), "{shown:?}");
    world.run(&config, &["accept-loss", "events", "--after", "300", "--yes"]).await.well();
    world.drained("events", &daemon).await;
    each_id_once(&world, 501).await;
    world.publish("a", [event(502)]).await;
    world.drained("events", &daemon).await;
    each_id_once(&world, 502).await;
}
