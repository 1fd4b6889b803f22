//! Messages that a server stores and the client library cannot read: each is one dead letter with all of its
//! bytes, and nothing around it is lost, doubled or held up.

use std::collections::BTreeSet;

use jetcopy::stored::{Seen, from};
use jetcopy::testbed::{Stop, Wire};

use super::{events_with, own_nats, resyncs, shared};
use crate::support::{Daemon, EVENTS, Load, World, event, eventually, oracle};

/// Limits of poison that these tests stay within.
const MUCH_POISON: &str = "poison = { max_per_batch = 5_000, max_per_minute = 50_000 }";

/// What follows the stream's name in the subject, header block: what servers store and the library does not
/// read.
const BAD: [(&[u8], Option<&[u8]>); 12] = [
    (b".a", Some(b"foo")),
    (b".a", Some(b"foo\r\n\r\n")),
    (b".a", Some(b"NATS/2.0\r\nA: b\r\n\r\n")),
    (b".a", Some(b"\r\n\r\n")),
    (b".a", Some(b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n")),
    (b".a", Some(b"NATS/1.0\r\nno colon\r\n\r\n")),
    (b".a", Some(b"NATS/1.0\r\nContent Type: json\r\nNats-Msg-Id: kept\r\n\r\n")),
    (b".a", Some(b"NATS/1.0\r\nA: b\rc\r\n\r\n")),
    (b".\xff", None),
    (b".\xff\xfd", Some(b"NATS/1.0\r\nA: b\r\n\r\n")),
    (b".a\xe3\x80\x80b", Some(b"NATS/1.0\r\nA: b\r\n\r\n")),
    (b".\xef\xbf\xbd\xff", Some(b"NATS/1.0\r\n\r\n")),
];

/// Publishes raw bytes below the stream's name.
struct Raw {
    wire: Wire,
    stream: String,
}

impl Raw {
    fn connect(world: &World) -> Self {
        let port = world.nats_url.rsplit(':').next().unwrap().parse().unwrap();
        Self { wire: Wire::connect(port).unwrap(), stream: world.stream.clone() }
    }

    /// Publishes one message and waits until the stream holds it; its sequence.
    async fn publish(&mut self, world: &World, rest: &[u8], headers: Option<&[u8]>, payload: &[u8]) -> u64 {
        let before = world.last_sequence().await;
        self.send(rest, headers, payload);
        self.wire.settled().unwrap();
        eventually("the stream to hold it", async || world.last_sequence().await > before).await;
        before + 1
    }

    fn send(&mut self, rest: &[u8], headers: Option<&[u8]>, payload: &[u8]) {
        let subject = [self.stream.as_bytes(), rest].concat();
        self.wire.publish(&subject, None, headers, payload).unwrap();
    }
}

/// Sequence, raw headers and payload of each dead letter, all of which must be of this kind.
async fn letters(world: &World) -> Vec<(u64, Option<Vec<u8>>, Vec<u8>)> {
    let sql =
        "SELECT sequence, raw_headers, payload, kind, message FROM jetcopy.dead_letters ORDER BY sequence";
    let rows = world.database.query(sql, &[]).await.unwrap();
    let letter = |row: &tokio_postgres::Row| {
        let (kind, message): (&str, &str) = (row.get(3), row.get(4));
        assert!(kind == "unreadable" && message.contains("the NATS client cannot read"), "{kind}: {message}");
        let sequence = u64::try_from(row.get::<_, i64>(0)).unwrap();
        (sequence, row.get(1), row.get(2))
    };
    rows.iter().map(letter).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_client_cannot_read_is_a_dead_letter_with_its_bytes_and_the_next_one_a_row() {
    let world = shared().await;
    let mut raw = Raw::connect(&world);
    let daemon = Daemon::start(&world.config(&events_with(MUCH_POISON)));
    world.publish("a", (1..=5_000).map(event)).await;
    let mut expected = Vec::new();
    for (number, (rest, headers)) in BAD.iter().enumerate() {
        let payload = event(1_000_000 + number as u64);
        let sequence = raw.publish(&world, rest, *headers, &payload).await;
        expected.push((sequence, headers.map(<[u8]>::to_vec), payload));
        world.publish("a", [event(10_000 + number as u64)]).await;
    }
    // With nobody's headers at fault: the character that stands for what is not UTF-8 is itself a good one.
    raw.publish(&world, ".\u{fffd}".as_bytes(), None, &event(20_000)).await;
    world.drained("events", &daemon).await;
    assert_eq!(letters(&world).await, expected);
    let kept = "SELECT count(*) FROM jetcopy.dead_letters WHERE headers->'Nats-Msg-Id'->>0 = 'kept'";
    assert_eq!(world.count(kept).await, 1);
    oracle(&world, &daemon, "events", "events", event(30_000)).await;
    assert_eq!(daemon.metric("jetcopy_dead_letters_total", "kind=\"unreadable\""), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_cost_one_connection_each_at_most_whatever_stands_before_and_between_them() {
    let world = shared().await;
    let mut raw = Raw::connect(&world);
    // First and last of the stream, hundreds in a row, and each tenth of a stretch.
    raw.publish(&world, b".a", Some(b"first"), &event(1)).await;
    for group in 0..3_u64 {
        world.publish("a", (1..=20_000).map(|id| event(group * 100_000 + id))).await;
        raw.publish(&world, b".a", Some(b"alone"), &event(1)).await;
    }
    let before = world.last_sequence().await;
    for number in 0..500_u64 {
        raw.send(b".a", Some(b"in a row"), &event(number));
        if number >= 400 {
            for id in 0..9 {
                raw.send(b".a", None, &event(1_000_000 + number * 10 + id));
            }
        }
    }
    raw.wire.settled().unwrap();
    eventually("the stream to hold them", async || world.last_sequence().await == before + 1_400).await;
    raw.publish(&world, b".a", Some(b"last"), &event(1)).await;

    let daemon = Daemon::start(&world.config(&events_with(MUCH_POISON)));
    let started = std::time::Instant::now();
    daemon.says("http=").await;
    world.drained("events", &daemon).await;
    let (lost, took) = (resyncs(&daemon, "nats"), started.elapsed());
    println!("60,905 messages, 505 of them unreadable: {took:?}, {lost} connections lost");
    assert_eq!(letters(&world).await.len(), 505);
    // The first, the three alone, and one for each stretch of two hundred, or of a second where that comes
    // first.
    let slow = i64::try_from(took.as_secs()).unwrap();
    assert!(lost <= 4 + 10 + slow, "{lost} connections lost in {took:?}");
    oracle(&world, &daemon, "events", "events", event(2_000_000)).await;
}

/// Each generation begins with a question to the server, over the connection that messages come on.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_the_connection_before_the_first_probe_is_answered_costs_each_pipeline_one() {
    let world = shared().await;
    let mut raw = Raw::connect(&world);
    // The library panics at it.
    raw.publish(&world, b".a", Some(b"NATS/1.0\r\nA: b\rc\r\n\r\n"), &event(1)).await;
    let names: Vec<String> = (0..12).map(|number| format!("events_{number}")).collect();
    let mut pipelines = String::new();
    for name in &names {
        world.database.batch_execute(&format!("CREATE TABLE {name} (LIKE events)")).await.unwrap();
        pipelines.push_str(&EVENTS.replace("\"events\"", &format!("\"{name}\"")));
    }
    let daemon = Daemon::start(&world.config(&pipelines));
    for name in &names {
        oracle(&world, &daemon, name, name, event(2)).await;
    }
    let metrics = daemon.get("/metrics").1;
    let resyncs: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("jetcopy_resyncs_total{")).collect();
    let lost = resyncs.iter().filter(|line| line.contains("cause=\"nats\"") && line.ends_with(" 1")).count();
    let started = resyncs.iter().filter(|line| line.contains("cause=\"start\"")).count();
    assert_eq!((lost, lost + started), (names.len(), resyncs.len()), "{resyncs:#?}");
}

/// What came before a connection was lost is committed, however long that takes, as long as the server comes
/// further.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_behind_rows_that_take_long_costs_one_connection() {
    let world = shared().await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END$$;
        CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()";
    world.database.batch_execute(slow).await.unwrap();
    let mut raw = Raw::connect(&world);
    world.publish("a", (0..240).map(event)).await;
    raw.publish(&world, b".a", Some(b"broken"), &event(240)).await;
    // One batch for all that comes before it.
    let batch = "batch = { max_rows = 1_000, max_age = \"1s\" }";
    let config = EVENTS.replace("batch = { max_rows = 200, max_age = \"5ms\" }", batch);
    let daemon = Daemon::start(&world.config(&config));
    oracle(&world, &daemon, "events", "events", event(241)).await;
    assert_eq!(letters(&world).await.len(), 1);
    assert_eq!(resyncs(&daemon, "nats"), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_of_other_subjects_are_none_of_a_pipelines() {
    let world = shared().await;
    let mut raw = Raw::connect(&world);
    let subjects = "subjects = [\"STREAM.a.>\", \"STREAM.b.>\"]";
    let config = world.config(&events_with(&format!("{subjects}\n{MUCH_POISON}")));
    let daemon = Daemon::start(&config);
    let mut expected = BTreeSet::new();
    let mut rows = 0;
    for round in 0..10_u64 {
        for (rest, mine) in [(b".a.x", true), (b".c.x", false), (b".b.x", true), (b".a.\xff", true)] {
            let sequence = raw.publish(&world, rest, Some(b"broken"), &event(round)).await;
            if mine {
                expected.insert(sequence);
            }
        }
        for token in ["a.x", "b.y", "c.z"] {
            world.publish(token, (0..20).map(event)).await;
        }
        rows += 40;
    }
    eventually("its messages to be stored", || async {
        world.count("SELECT count(*) FROM events").await == rows
    })
    .await;
    world.publish("a.last", [event(1)]).await;
    world.drained("events", &daemon).await;
    let letters: BTreeSet<u64> = letters(&world).await.iter().map(|letter| letter.0).collect();
    assert_eq!(letters, expected);
    assert_eq!(world.count("SELECT count(DISTINCT sequence) FROM events").await, rows + 1);
    assert_eq!(world.count("SELECT count(*) FROM events").await, rows + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_among_deleted_ones_hold_up_nothing_that_came_before_them() {
    let world = shared().await;
    let mut raw = Raw::connect(&world);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for round in 0..20_u64 {
        world.publish("a", (0..30).map(|id| event(round * 100 + id))).await;
        let last = world.last_sequence().await;
        for back in [3, 9, 15] {
            stream.delete_message(last - back).await.unwrap();
        }
        raw.publish(&world, b".a", Some(b"broken"), &event(round)).await;
    }
    let daemon = Daemon::start(&world.config(&events_with(MUCH_POISON)));
    let started = std::time::Instant::now();
    daemon.says("http=").await;
    oracle(&world, &daemon, "events", "events", event(1_000_000)).await;
    println!("20 unreadable messages among deleted ones: {:?}", started.elapsed());
    assert_eq!(letters(&world).await.len(), 20);
    assert!(resyncs(&daemon, "nats") <= 21, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_among_unreadable_messages_makes_no_good_one_a_dead_letter() {
    let (world, mut nats, _postgres) = own_nats().await;
    let daemon = Daemon::start(&world.config(&events_with(MUCH_POISON)));
    let load = Load::start(&world);
    let mut expected = BTreeSet::new();
    for round in 0..6_u64 {
        world.commits(&daemon).await;
        let mut raw = Raw::connect(&world);
        for number in 0..10 {
            raw.send(b".bad", Some(b"broken"), &event(round * 10 + number));
        }
        raw.wire.settled().unwrap();
        nats.stop(if round % 2 == 0 { Stop::Kill } else { Stop::Fast });
        nats.start_again().unwrap();
        world.nats_answers().await;
        world.commits(&daemon).await;
    }
    let published = load.stop().await;
    // What a killed server still holds is for the stream to say.
    let mut next = 1;
    let subject = format!("{}.bad", world.stream);
    let client = &world.nats;
    while let Some(stored) = from::<Seen>(client, &world.stream, next, &subject).await.unwrap() {
        expected.insert(stored.sequence);
        next = stored.sequence + 1;
    }
    assert!(expected.len() >= 20, "{expected:?}");
    oracle(&world, &daemon, "events", "events", event(published + 1)).await;
    let letters: BTreeSet<u64> = letters(&world).await.iter().map(|letter| letter.0).collect();
    assert_eq!(letters, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_an_unreadable_message_waits_is_known_with_and_without_a_daemon() {
    let world = shared().await;
    let config = world.config(&events_with(MUCH_POISON));
    let mut raw = Raw::connect(&world);
    let daemon = Daemon::start(&config);
    daemon.says("http=").await;
    oracle(&world, &daemon, "events", "events", event(1)).await;
    // Nothing of it can be written, so that the daemon looks from outside.
    world.run(&config, &["pause", "events"]).await.well();
    raw.publish(&world, b".a", Some(b"broken"), &event(2)).await;
    world.publish("a", [event(3)]).await;
    eventually("the daemon to know how long it waits", async || {
        let status = daemon.status();
        status["undelivered_messages"] == 2 && status["behind_seconds"].as_f64().is_some_and(|age| age > 0.0)
    })
    .await;
    world.run(&config, &["resume", "events"]).await.well();
    oracle(&world, &daemon, "events", "events", event(4)).await;
    daemon.kill();
    raw.publish(&world, b".a", Some(b"broken"), &event(5)).await;
    let objects = world.run(&config, &["status", "--json"]).await.out;
    let seen: serde_json::Value = serde_json::from_str(&objects).unwrap();
    let seen = if seen["pipelines"].is_array() { &seen["pipelines"][0] } else { &seen[0] };
    assert!(seen["unknown"].is_null(), "{objects}");
    assert_eq!(seen["undelivered_messages"], 1, "{objects}");
    assert!(seen["behind_seconds"].as_f64().unwrap() > 0.0, "{objects}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_look_like_a_servers_own_status_are_a_publishers_and_make_rows() {
    let world = shared().await;
    let mut raw = Raw::connect(&world);
    let daemon = Daemon::start(&world.config(EVENTS));
    let mut id = 0;
    for block in [
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
        "NATS/1.0 404 No Messages\r\nA: b\r\n\r\n",
        "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: 5\r\n\r\n",
        "NATS/1.0 409 Consumer Deleted\r\nA: b\r\n\r\n",
        "NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 5000\r\n\r\n",
        "NATS/1.0 503\r\nA: b\r\n\r\n",
        "NATS/1.0 503\r\n\r\n",
        "NATS/1.0\r\nNats-Pending-Messages: 7\r\nStatus: 409\r\nDescription: Leadership Change\r\n\r\n",
        "NATS/1.0\r\n\r\n",
        "NATS/1.0\r\n",
    ] {
        id += 1;
        raw.publish(&world, b".a", Some(block.as_bytes()), &event(id)).await;
    }
    // The longest header block that JetStream stores, a subject near the longest line, and the largest
    // message.
    let long = format!("NATS/1.0\r\n{}\r\n", "A-Header: with a value\r\n".repeat(2_730));
    raw.publish(&world, b".a", Some(long.as_bytes()), &event(id + 1)).await;
    let subject = format!(".{}", "t".repeat(3_800));
    raw.publish(&world, subject.as_bytes(), Some(b"NATS/1.0\r\nA: b\r\n\r\n"), &event(id + 2)).await;
    let note = "x".repeat(1_048_576 - 18 - event_with("").len() - 4);
    raw.publish(&world, b".a", Some(b"NATS/1.0\r\nA: b\r\n\r\n"), &event_with(&note)).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, i64::try_from(id + 3).unwrap());
    oracle(&world, &daemon, "events", "events", event(1_000)).await;
    daemon.needed_no_resync();
}

fn event_with(note: &str) -> Vec<u8> {
    rmp_serde::to_vec_named(&serde_json::json!({"id": 1, "note": note})).unwrap()
}
