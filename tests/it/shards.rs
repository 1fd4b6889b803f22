//! A pipeline of several shards: each is run, counted, paused, rewound and taken over by itself, and together
//! they carry each message once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::Config as StreamConfig;
use jetcopy::publish::{Outgoing, publish};
use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::ledger::{found, report};
use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// How many messages the load publishes in one go, and how often.
const MESSAGES: u64 = 60;
const EVERY: Duration = Duration::from_millis(20);

/// The single stream that the shards take the place of.
const OLD: &str = "before = \"STREAM\"";

/// [`EVENTS`] from `shards` streams, and from more that `rest` names.
fn sharded(shards: usize, rest: &str) -> String {
    let stream = format!("stream = \"STREAM_{{shard}}\"\nshards = {shards}\n{rest}");
    EVENTS.replace("stream = \"STREAM\"", &stream)
}

/// The streams of `shards` shards, each with its number as the second token of its subjects.
async fn make_streams(world: &World, shards: usize) {
    for number in 0..shards {
        let config = StreamConfig {
            name: format!("{}_{number}", world.stream),
            subjects: vec![format!("{}.{number}.*", world.stream)],
            ..Default::default()
        };
        world.jetstream.create_stream(config).await.unwrap();
    }
}

/// A world with the table, the streams of the shards, and no other.
async fn world(shards: usize) -> World {
    let world = World::new().await;
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    make_streams(&world, shards).await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// Publishes events with ids from 1 on, until it is stopped.
struct Spread {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Spread {
    /// Each event goes to what follows the world's subject, by its id.
    fn start(world: &World, subject: fn(u64) -> String) -> Self {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&published));
        let (nats, root) = (world.nats.clone(), world.stream.clone());
        let task = tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            while !stopped.load(Ordering::Relaxed) {
                every.tick().await;
                let first = count.load(Ordering::Relaxed) + 1;
                let messages = (first..first + MESSAGES).map(|id| Outgoing {
                    subject: format!("{root}.{}", subject(id)).into(),
                    headers: None,
                    payload: event(id).into(),
                });
                publish(&nats, futures_util::stream::iter(messages), 1_000, |_| {}).await.unwrap();
                count.fetch_add(MESSAGES, Ordering::Relaxed);
            }
        });
        Self { stop, published, task }
    }

    async fn goes_on(&self) {
        let before = self.published.load(Ordering::Relaxed);
        eventually("the load to go on", async || self.published.load(Ordering::Relaxed) > before).await;
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.published.load(Ordering::Relaxed)
    }
}

/// Where all shards stand, if that is at the ends of their streams.
async fn at_the_ends(world: &World) -> Option<BTreeMap<String, i64>> {
    let sql = "SELECT shard, stream, jetcopy.floor(shard) FROM jetcopy.checkpoints";
    let mut found = BTreeMap::new();
    for row in world.database.query(sql, &[]).await.unwrap() {
        let (shard, stream, at): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        let last = world.jetstream.get_stream(&stream).await.unwrap().cached_info().state.last_sequence;
        if i64::try_from(last).unwrap() != at {
            return None;
        }
        found.insert(shard, at);
    }
    Some(found)
}

/// Waits until all shards stand at the ends of their streams; where that is.
async fn all_drained(world: &World) -> BTreeMap<String, i64> {
    eventually("all shards to be drained", || async { at_the_ends(world).await.is_some() }).await;
    at_the_ends(world).await.unwrap()
}

/// Each of the events 1 to `published` is a row once, and nothing else is one.
async fn each_once(world: &World, published: u64) {
    let sql = "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM events";
    let row = world.database.query_one(sql, &[]).await.unwrap();
    let counts: (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    let published = i64::try_from(published).unwrap();
    assert_eq!(counts, (published, published, 1, published), "rows, ids, first and last");
}

async fn commits(world: &World, shard: &str) {
    let before = world.checkpoint(shard).await;
    eventually("the shard to commit", async || world.checkpoint(shard).await > before).await;
}

/// The shard's entry in `/status`.
fn status(daemon: &Daemon, shard: &str) -> Value {
    let body: Value = serde_json::from_str(&daemon.get("/status").1).unwrap();
    let pipelines = body["pipelines"].as_array().unwrap();
    pipelines.iter().find(|pipeline| pipeline["shard"] == shard).unwrap_or(&Value::Null).clone()
}

/// Which shards each daemon has.
async fn held(world: &World) -> Vec<i64> {
    let sql = "SELECT count(*) FROM jetcopy.checkpoints WHERE owner IS NOT NULL GROUP BY owner ORDER BY 1";
    world.database.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// By the id, over four streams.
fn fourth(id: u64) -> String {
    format!("{}.a", id % 4)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_the_shards_of_one_pipeline_and_one_that_is_killed_loses_and_doubles_nothing() {
    let world = world(4).await;
    let config = world.config(&sharded(4, ""));
    let load = Spread::start(&world, fourth);
    let first = Daemon::start(&config);
    let second = Daemon::start(&config);
    eventually("two shards each", async || held(&world).await == [2, 2]).await;
    for number in 0..4 {
        commits(&world, &format!("events-{number}")).await;
    }
    first.kill();
    eventually("the other daemon to have all", async || held(&world).await == [4]).await;
    load.goes_on().await;
    let third = Daemon::start(&config);
    for number in 0..4 {
        commits(&world, &format!("events-{number}")).await;
    }
    second.kill();
    eventually("the new daemon to have all", async || held(&world).await == [4]).await;
    let published = load.stop().await;
    let checkpoints = all_drained(&world).await;
    assert_eq!(checkpoints.keys().collect::<Vec<_>>(), ["events-0", "events-1", "events-2", "events-3"]);
    each_once(&world, published).await;
    // Nothing is told twice, or of a shard as a whole: the messages since this daemon began are theirs.
    let shards: Vec<Value> = (0..4).map(|number| status(&third, &format!("events-{number}"))).collect();
    for (number, shard) in shards.iter().enumerate() {
        assert_eq!(shard["pipeline"], "events", "{shard}");
        assert_eq!(shard["stream"], format!("{}_{number}", world.stream), "{shard}");
        assert_eq!(shard["checkpoint_sequence"], checkpoints[&format!("events-{number}")], "{shard}");
    }
    let shown = world.run(&config, &["status"]).await.well();
    assert!(shown.contains("\nevents-3 "), "{shown}");
    // A publisher waits by what its ack names, whichever shard has it.
    let subject = format!("{}.2.a", world.stream);
    let ack = world.jetstream.publish(subject, event(published + 1).into()).await.unwrap().await.unwrap();
    let wait = format!("SELECT jetcopy.wait_visible('{}', {}, '1min')", ack.stream, ack.sequence);
    assert!(world.database.query_one(&wait, &[]).await.unwrap().get::<_, bool>(0));
    each_once(&world, published + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_shard_is_paused_rewound_and_resumed_while_the_others_go_on() {
    let world = world(2).await;
    let config = world.config(&sharded(2, ""));
    let load = Spread::start(&world, |id| format!("{}.a", id % 2));
    let daemon = Daemon::start(&config);
    commits(&world, "events-0").await;
    commits(&world, "events-1").await;
    let said = world.run(&config, &["pause", "events", "--shard", "1"]).await.well();
    assert!(said.contains("`jetcopy resume events --shard 1` resumes it"), "{said}");
    eventually("one shard to be paused", async || status(&daemon, "events-1")["state"] == "paused").await;
    assert_eq!(status(&daemon, "events-1")["remedy"], "run `jetcopy resume events --shard 1`");
    let paused = world.checkpoint("events-1").await;
    commits(&world, "events-0").await;
    assert_eq!(world.checkpoint("events-1").await, paused);
    let published = load.stop().await;

    let which = world.run(&config, &["rewind", "events", "--to", "1"]).await;
    assert!(which.err.contains("name one with --shard, of events-0, events-1"), "{which:?}");
    let to = (paused / 2).to_string();
    let done = world.run(&config, &["rewind", "events", "--shard", "1", "--to", &to, "--yes"]).await.well();
    assert!(done.contains(&format!("the checkpoint of events-1 is now {to}")), "{done}");
    // Sequences are those of several streams: which rows are doubled cannot be told by them.
    assert!(done.contains("all shards fill the table, and their sequences repeat"), "{done}");
    let live = world.run(&config, &["rewind", "events", "--shard", "0", "--to", "1"]).await;
    assert!(live.err.contains("run `jetcopy pause events --shard 0` first"), "{live:?}");

    world.run(&config, &["resume", "events"]).await.well();
    all_drained(&world).await;
    let twice = world.count("SELECT count(*) - count(DISTINCT id) FROM events").await;
    assert_eq!(u64::try_from(twice).unwrap(), paused - paused / 2, "those of one shard after the sequence");
    assert_eq!(world.count("SELECT count(DISTINCT id) FROM events").await, i64::try_from(published).unwrap());
    let odd = "SELECT count(*) FROM (SELECT id FROM events GROUP BY id HAVING count(*) > 1 AND id % 2 = 0) x";
    assert_eq!(world.count(odd).await, 0, "nothing of the other shard is there twice");
    let audited = world.run(&config, &["audit", "events"]).await.well();
    assert!(audited.contains("shard events-1 also writes to it"), "{audited}");
    let replay = world.run(&config, &["replay", "events", "--from", "1", "--dry-run"]).await;
    assert!(replay.err.contains("name one with --shard"), "{replay:?}");
    let replay = ["replay", "events", "--shard", "0", "--from", "1", "--to", "5"];
    let replayed = world.run(&config, &replay).await.well();
    assert!(replayed.contains("table events_replay: 5 rows; not compared"), "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_of_shards_that_share_a_table_prove_its_rows_together_and_each_its_own_messages() {
    let world = world(2).await;
    let short = sharded(2, "writers = 2").replace("max_rows = 200", "max_rows = 20");
    let config = world.config(&short);
    let daemon = Daemon::start(&config);
    for id in 1..=300 {
        let payload = if id % 100 == 7 { vec![0xc1] } else { event(id) };
        world.publish(&format!("{}.a", id % 2), [payload]).await;
    }
    eventually("both shards", || async {
        at_the_ends(&world).await.is_some_and(|ends| ends.values().eq([&150, &150]))
    })
    .await;
    let audit = |shard: &str, way: &str| report(&config, &["--shard", shard, way]);
    let said = |report: &Value, text: &str| report["not_proven"].to_string().contains(text);
    let first = audit("0", "--offline");
    assert_eq!((&first["differences"], &first["ledger"]["letters"]), (&json!(0), &json!(0)), "{first:#}");
    assert!(said(&first, "297 rows of all together were committed, and 297 are there"), "{first:#}");
    let second = audit("1", "--offline");
    assert_eq!((&second["differences"], &second["ledger"]["letters"]), (&json!(0), &json!(3)), "{second:#}");
    assert!(said(&second, "its rows are counted in the audit of events-0"), "{second:#}");
    for shard in ["0", "1"] {
        let full = audit(shard, "--full");
        let digests = (&full["ledger"]["digests"], &full["ledger"]["digested_messages"]);
        assert_eq!((&full["differences"], digests), (&json!(0), (&json!(2), &json!(150))), "{full:#}");
        assert!(said(&full, "also writes to it, and has the same sequences"), "{full:#}");
    }

    world.database.batch_execute("DELETE FROM events WHERE id = 11").await.unwrap();
    let missed = json!({"found": "together", "table": "events", "expected": 297, "there": 296});
    assert_eq!(audit("0", "--offline")["first_differences"], json!([missed]));
    world.database.batch_execute("INSERT INTO events VALUES (6, 11), (6, 11)").await.unwrap();
    assert!(said(&audit("0", "--offline"), "1 rows more than all its shards committed"));
    world.database.batch_execute("DELETE FROM jetcopy.dead_letters WHERE sequence = 54").await.unwrap();
    assert_eq!(found(&audit("1", "--offline")), ["count"], "the letters are each shard's own");
    drop(daemon);
    let spoil = "UPDATE jetcopy.lanes SET seal_digest = sha256('') WHERE shard = 'events-0' AND lane = 1";
    world.database.batch_execute(spoil).await.unwrap();
    assert_eq!(found(&audit("0", "--full")), ["digest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_and_retried_by_shard_also_where_their_sequences_are_the_same() {
    let world = world(2).await;
    world.database.batch_execute("ALTER TABLE events ADD CHECK (id < 100)").await.unwrap();
    let config = world.config(&sharded(2, ""));
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    world.publish("0.a", [event(100), event(101), event(1)]).await;
    world.publish("1.a", [event(102)]).await;
    eventually("the letters to be counted", async || {
        let there = |shard: &str| status(&daemon, shard)["dead_letters_in_table"].as_i64();
        (there("events-0"), there("events-1")) == (Some(2), Some(1))
    })
    .await;
    let list = ["dead-letters", "list", "--pipeline", "events", "--shard", "1"];
    let listed = world.run(&config, &list).await.well();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    world.database.batch_execute("ALTER TABLE events DROP CONSTRAINT events_id_check").await.unwrap();
    let retry = ["dead-letters", "retry", "--pipeline", "events", "--shard", "events-0"];
    let retried = world.run(&config, &retry).await.well();
    assert!(retried.contains("2 stored in 2 rows, 0 still dead letters"), "{retried}");
    assert_eq!(world.count("SELECT count(*) FROM events WHERE id IN (100, 101)").await, 2);
    assert_eq!(world.count("SELECT sum(id)::int8 FROM events").await, 202);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters WHERE shard = 'events-1'").await, 1);
    let retried = world.run(&config, &["dead-letters", "retry", "--pipeline", "events"]).await.well();
    assert!(retried.contains("1 stored in 1 rows"), "{retried}");
    let metrics = daemon.get("/metrics").1;
    assert!(
        metrics.contains(&format!(
            "jetcopy_dead_letters_total{{kind=\"refused\",pipeline=\"events\",shard=\"events-0\",\
             stream=\"{}_0\"}} 2",
            world.stream
        )),
        "{metrics}"
    );
}

/// A world whose single stream runs with a daemon under load, on a NATS server of its own.
async fn single() -> (TestNats, Arc<TestPostgres>, World, PathBuf) {
    let nats = TestNats::start(&NatsOptions::default()).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::on(&nats, &postgres).await;
    // The single stream holds what comes without a shard's number.
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    let (name, subjects) = (world.stream.clone(), vec![format!("{}.*", world.stream)]);
    let config = StreamConfig { name, subjects, ..Default::default() };
    world.jetstream.create_stream(config).await.unwrap();
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    (nats, postgres, world, config)
}

/// The account's mapping that spreads the subjects over `shards` streams.
fn mapping(world: &World, shards: usize) -> String {
    let root = &world.stream;
    format!("mappings: {{ \"{root}.*\": \"{root}.{{{{partition({shards},1)}}}}.{{{{wildcard(1)}}}}\" }}")
}

/// One of 64 subjects.
fn of_many(id: u64) -> String {
    format!("c{}", id % 64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_moves_over_to_shards_under_load_and_nothing_is_lost_or_twice() {
    let (mut nats, _postgres, world, config) = single().await;
    let load = Spread::start(&world, of_many);
    let daemon = Daemon::start(&config);
    commits(&world, "events").await;
    let old = world.checkpoint("events").await;

    make_streams(&world, 3).await;
    world.config(&sharded(3, OLD));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.says("configuration reloaded").await;
    // Both are read while the mapping takes effect.
    nats.reconfigure(&mapping(&world, 3)).unwrap();
    for number in 0..3 {
        commits(&world, &format!("events-{number}")).await;
    }
    let other = Daemon::start(&config);
    // Before, a signal would end it.
    other.says("jetcopy::supervise: started").await;
    load.goes_on().await;
    let last = world.last_sequence().await;
    eventually("the old stream to be empty", async || world.checkpoint("events").await == last).await;
    assert!(last > old, "the old stream's checkpoint went on");
    load.goes_on().await;
    assert_eq!(world.last_sequence().await, last, "nothing goes to the old stream any more");

    // The line goes, and so does the stream.
    world.config(&sharded(3, ""));
    for (daemon, reloads) in [(&daemon, 2), (&other, 1)] {
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        daemon.says_times("configuration reloaded", reloads).await;
    }
    daemon.kill();
    load.goes_on().await;
    let published = load.stop().await;
    let checkpoints = all_drained(&world).await;
    assert_eq!(checkpoints.len(), 4, "{checkpoints:?}");
    each_once(&world, published).await;
    assert_eq!(other.get("/status").1.matches("\"left_behind\":[]").count(), 1);
    let checked = world.run(&config, &["check"]).await;
    assert!(!checked.out.contains("nobody reads"), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_in_the_old_stream_when_its_line_goes_too_soon_is_told_until_it_is_read() {
    let (_nats, _postgres, world, config) = single().await;
    let daemon = Daemon::start(&config);
    world.publish("c1", (1..=10).map(event)).await;
    world.drained("events", &daemon).await;
    daemon.kill();
    world.publish("c1", (11..=15).map(event)).await;
    make_streams(&world, 2).await;
    world.config(&sharded(2, ""));
    let daemon = Daemon::start(&config);
    daemon.says("messages are left that nobody reads").await;
    let body: Value = serde_json::from_str(&daemon.get("/status").1).unwrap();
    let left = &body["left_behind"][0];
    assert_eq!(
        (&left["shard"], &left["checkpoint"], &left["messages"]),
        (&"events".into(), &10.into(), &5.into())
    );
    assert!(daemon.get("/metrics").1.contains("\njetcopy_left_behind_messages 5\n"));
    let checked = world.run(&config, &["check"]).await;
    let said = format!("stream {} still holds up to 5 messages after sequence 10", world.stream);
    assert!(checked.code == 1 && checked.out.contains(&said), "{checked:?}");
    assert!(checked.out.contains(&format!("add `before = \"{}\"`", world.stream)), "{checked:?}");

    world.config(&sharded(2, OLD));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.says("nothing is left behind there any more").await;
    all_drained(&world).await;
    each_once(&world, 15).await;
    assert!(daemon.get("/metrics").1.contains("\njetcopy_left_behind_messages 0\n"));
    // A number that becomes smaller is told, too.
    world.publish("1.c", (16..=18).map(event)).await;
    all_drained(&world).await;
    world.config(&sharded(1, OLD));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.says_times("configuration reloaded", 2).await;
    world.publish("1.c", [event(19)]).await;
    daemon.says("shard=\"events-1\"").await;
    eventually("it to be told", async || {
        let body: Value = serde_json::from_str(&daemon.get("/status").1).unwrap();
        body["left_behind"][0]["shard"] == "events-1"
    })
    .await;
}
