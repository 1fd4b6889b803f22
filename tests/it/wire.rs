//! From the wire to the rows: messages drawn from a seed go over a raw socket into a real server, through the
//! real daemon and several mappings, and the oracle judges each round.
//!
//! `make fuzz-wire SEED=… DURATION=…` runs it; the same seed draws the same messages. A round that fails
//! prints its seed, with which `ROUND=…` runs it alone, and its messages.

mod message;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres, Wire};

use crate::chaos::dice::Dice;
use crate::chaos::{duration, said, seed};
use crate::support::{Daemon, SLOW, World};
use message::Raw;

/// Messages of a round: enough that batches mix them, few enough to read.
const MESSAGES: usize = 150;

/// How long a pipeline may take for a round: what is refused is found in seconds, and a loaded machine takes
/// longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the daemon may hold, in KiB: three pipelines of 48 MiB, and 64 MiB beside.
const MEMORY_KIB: u64 = (3 * 48 + 64) << 10;

/// What the last message of each round is: good in each pipeline.
const FRESH: &[u8] = b"\x81\xa2id\x07";

/// Names of the pipelines and of the table in which each message is a row, unless it is a dead letter.
const PIPELINES: [&str; 3] = ["flat", "parts", "fields"];

const CONFIG: &str = r#"
[[pipeline]]
name = "flat"
stream = "STREAM"
format = "auto"
max_buffered_bytes = "48MiB"
poison = { max_per_batch = 100_000, max_per_minute = 100_000_000 }
[[pipeline.table]]
name = "flat"
[pipeline.table.columns]
sequence = "$sequence"
subject = "$subject"
kind = "$header.kind"
whole = "$payload"
rest = "$rest"
[[pipeline.table]]
name = "latest"
on_conflict = "update"
key = ["token"]
absent = "keep"
[pipeline.table.columns]
token = "$subject[1]"
newest = "$sequence"

[[pipeline]]
name = "parts"
stream = "STREAM"
format = "auto"
max_buffered_bytes = "48MiB"
poison = { max_per_batch = 100_000, max_per_minute = 100_000_000 }
[[pipeline.table]]
name = "parts"
[pipeline.table.columns]
sequence = "$sequence"
[[pipeline.table]]
name = "elements"
for_each = "parts"
bad_element = "element"
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
blob = "^blob"

[[pipeline]]
name = "fields"
stream = "STREAM"
format = "msgpack"
max_buffered_bytes = "48MiB"
poison = { max_per_batch = 100_000, max_per_minute = 100_000_000 }
[[pipeline.table]]
name = "fields"
[pipeline.table.columns]
sequence = "$sequence"
[[pipeline.table]]
name = "points"
when = { subject = "*.*.row" }
unpivot = { rest = true }
[pipeline.table.columns]
sequence = "$sequence"
series = "$subject[1]"
name = "$name"
value = "$value"
"#;

const TABLES: &str = "
    CREATE TABLE flat (sequence bigint, id bigint, n numeric, t timestamptz, doc jsonb, list integer[], \
        subject text,
        kind text, whole jsonb, rest jsonb);
    CREATE TABLE latest (token text PRIMARY KEY, n double precision, doc text, newest bigint);
    CREATE TABLE parts (sequence bigint, deep jsonb);
    CREATE TABLE elements (sequence bigint, element integer, size integer CHECK (size < 50), x smallint, \
        blob text);
    CREATE TABLE fields (sequence bigint, blob bytea);
    CREATE TABLE points (sequence bigint, series text, name text, value double precision)";

/// Servers and daemon of a run.
struct Range {
    /// Before what its log lies in.
    daemon: Daemon,
    world: World,
    wire: Wire,
    /// What a round's first sequence follows.
    judged: u64,
    /// Restarts of pipelines until then, by cause.
    resyncs: BTreeMap<String, i64>,
    _servers: (TestNats, std::sync::Arc<TestPostgres>),
}

impl Range {
    async fn open() -> Self {
        let nats = TestNats::start(&NatsOptions { config: String::new() }).unwrap();
        let postgres = TestPostgres::shared().unwrap();
        let world = World::on(&nats, &postgres).await;
        world.database.batch_execute(TABLES).await.unwrap();
        let daemon = Daemon::start(&world.config(CONFIG));
        let wire = Wire::connect(nats.port()).unwrap();
        Self { world, daemon, wire, judged: 0, resyncs: BTreeMap::new(), _servers: (nats, postgres) }
    }

    /// Sends messages and a good one after them, and judges what became of them; what is wrong.
    async fn round(&mut self, messages: &[Raw], dice: &mut Dice) -> Result<u64, String> {
        for message in messages {
            let subject = [self.world.stream.as_bytes(), &message.subject].concat();
            self.wire.publish(&subject, None, message.headers.as_deref(), &message.payload).unwrap();
            if dice.between(0, 40) == 0 {
                self.wire.settled().unwrap();
                tokio::time::sleep(message::pause(dice)).await;
            }
        }
        let errors = self.wire.settled().unwrap();
        if !errors.is_empty() {
            return Err(format!("the server ended the connection: {errors:?}"));
        }
        // What comes over one connection is stored in order, so that this is the last.
        let ack = self.wire.request(&format!("{}.fresh", self.world.stream), FRESH).unwrap();
        let ack: serde_json::Value = serde_json::from_slice(&ack).unwrap();
        let last = ack["seq"].as_u64().unwrap();
        for pipeline in PIPELINES {
            self.arrive(pipeline, last).await?;
            self.judge(pipeline, last).await?;
        }
        self.resyncs().await?;
        let stored = last - self.judged;
        self.judged = last;
        self.clear().await;
        Ok(stored)
    }

    async fn arrive(&self, pipeline: &str, last: u64) -> Result<(), String> {
        let start = Instant::now();
        while self.world.checkpoint(pipeline).await < last {
            let at = self.world.checkpoint(pipeline).await;
            if !self.daemon.is_running() {
                return Err(format!("the daemon has ended: {}", self.daemon.log()));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{pipeline} stands at {at}, before {last}: {}", self.daemon.status()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn judge(&self, pipeline: &str, last: u64) -> Result<(), String> {
        let (after, last) = (i64::try_from(self.judged).unwrap(), i64::try_from(last).unwrap());
        let sql = format!(
            "WITH seen AS (SELECT sequence FROM {pipeline}
                 UNION ALL SELECT sequence FROM jetcopy.dead_letters WHERE pipeline = $1 AND element IS NULL)
             SELECT sequence, count(seen.sequence) FROM generate_series($2::int8 + 1, $3::int8) AS sequence
             FULL JOIN seen USING (sequence) GROUP BY 1 HAVING count(seen.sequence) <> 1 OR sequence > $3 \
                 ORDER BY 1"
        );
        let wrong = self.world.database.query(&sql, &[&pipeline, &after, &last]).await.unwrap();
        for row in &wrong {
            let (sequence, times): (i64, i64) = (row.get(0), row.get(1));
            if times > 0 || !self.is_passed_over(u64::try_from(sequence).unwrap()).await {
                return Err(format!(
                    "{pipeline}: message {sequence}, the {}th of the round, is there {times} times",
                    sequence - after
                ));
            }
        }
        let fresh = format!("SELECT count(*) FROM {pipeline} WHERE sequence = {last}");
        if self.world.count(&fresh).await != 1 {
            return Err(format!("{pipeline}: a good message is no row"));
        }
        let peak = self.daemon.peak_memory_kib();
        if peak > MEMORY_KIB {
            return Err(format!("the daemon held {} MiB", peak >> 10));
        }
        // The client library's own panic, at a carriage return in a header, is met by a new connection.
        if self.daemon.log().contains("panicked at src/") {
            return Err("jetcopy panicked".into());
        }
        Ok(())
    }

    /// Whether a message only says that others will be published: a header tells.
    async fn is_passed_over(&self, sequence: u64) -> bool {
        let stream = self.world.jetstream.get_stream(&self.world.stream).await.unwrap();
        let message = stream.get_raw_message(sequence).await;
        message.is_ok_and(|message| message.headers.get("Nats-Schedule").is_some())
    }

    /// Each message that the client cannot read costs each pipeline one connection at most, and so does one
    /// of the rest. Where an answer did not come in time, the same message is met once more.
    async fn resyncs(&mut self) -> Result<(), String> {
        let resyncs = self.daemon.resyncs();
        let mut made = resyncs.clone();
        for (cause, before) in std::mem::replace(&mut self.resyncs, resyncs) {
            made.entry(cause).and_modify(|count| *count -= before);
        }
        made.retain(|_, count| *count > 0);
        let sql = "SELECT count(*) FROM jetcopy.dead_letters WHERE kind = 'unreadable'";
        let unreadable = self.world.count(sql).await;
        let said = format!("resyncs by {made:?} for {unreadable} unreadable messages: {}", self.daemon.log());
        let slow: i64 = SLOW.iter().filter_map(|&cause| made.remove(cause)).sum();
        let lost = made.remove("nats").unwrap_or(0);
        let allowed = unreadable + i64::try_from(PIPELINES.len()).unwrap() + slow;
        if made.is_empty() && lost <= allowed { Ok(()) } else { Err(said) }
    }

    /// What was judged goes.
    async fn clear(&self) {
        let tables = "DELETE FROM flat; DELETE FROM parts; DELETE FROM elements; DELETE FROM fields; \
            DELETE FROM points;
            DELETE FROM latest; DELETE FROM jetcopy.dead_letters";
        self.world.database.batch_execute(tables).await.unwrap();
        let stream = self.world.jetstream.get_stream(&self.world.stream).await.unwrap();
        stream.purge().sequence(self.judged).await.unwrap();
    }
}

/// The `number`th round of a run.
fn round_of(seed: u64, number: u64) -> (Dice, Vec<Raw>) {
    let mut dice = Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let messages = (0..MESSAGES).map(|_| Raw::draw(&mut dice)).collect();
    (dice, messages)
}

/// Looks which part of a round that failed fails alone, by halves, on servers of its own.
async fn smallest(mut messages: Vec<Raw>) -> Vec<Raw> {
    'smaller: while messages.len() > 1 {
        let half = messages.len() / 2;
        for part in [messages[..half].to_vec(), messages[half..].to_vec()] {
            if Range::open().await.round(&part, &mut Dice::new(0)).await.is_err() {
                messages = part;
                continue 'smaller;
            }
        }
        break;
    }
    messages
}

async fn fuzz(seed: u64, duration: Duration, only: Option<u64>) {
    let start = Instant::now();
    println!("make fuzz-wire SEED={seed} DURATION={}", humantime::format_duration(duration));
    let mut range = Range::open().await;
    let (mut number, mut stored) = (only.unwrap_or(0), 0);
    loop {
        let (mut dice, messages) = round_of(seed, number);
        match range.round(&messages, &mut dice).await {
            Ok(more) => stored += more,
            Err(wrong) => {
                println!("{wrong}\nthe round again: make fuzz-wire SEED={seed} ROUND={number}");
                for message in smallest(messages).await {
                    println!("{}", message.shown());
                }
                panic!("SEED={seed} ROUND={number}: {wrong}");
            }
        }
        number += 1;
        if number % 100 == 0 {
            let peak = range.daemon.peak_memory_kib() >> 10;
            println!("{:>5} s: {number} rounds, {stored} messages, {peak} MiB", start.elapsed().as_secs());
        }
        if only.is_some() || start.elapsed() >= duration {
            break;
        }
    }
    let (seconds, peak) = (start.elapsed().as_secs(), range.daemon.peak_memory_kib() >> 10);
    println!(
        "SEED={seed}: {number} rounds, {stored} messages in {seconds} s, {peak} MiB at most, \
         each in one place"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_over_the_wire_is_a_row_or_a_dead_letter_and_nothing_stops() {
    fuzz(1, Duration::from_secs(4), None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told; make fuzz-wire runs it"]
async fn whatever_comes_over_the_wire_for_long_is_a_row_or_a_dead_letter_and_nothing_stops() {
    let only = said("ROUND").map(|text| text.parse().expect("ROUND is a number"));
    fuzz(seed(), duration(), only).await;
}
