//! Giants of every kind, one after the other: the daemon's memory stays within `max_buffered_bytes` and 64
//! MiB, by the most that the kernel ever saw.
//!
//! Messages go over a raw socket, so that they may be anything. `make giants` sends each kind, of the size
//! that it is told; the tests of the suite send those that once took the most.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jetcopy::testbed::{NatsOptions, PostgresOptions, Stop, TestNats, TestPostgres, Wire};

use crate::support::{Daemon, World, eventually, eventually_within, oracle};

/// The default of `max_buffered_bytes`, in MiB.
const BUFFERED: u64 = 64;

/// What the daemon may hold beside `max_buffered_bytes`, in MiB.
const BESIDE: u64 = 64;

/// How long all that was sent may take: rows by the million in a debug build.
const PATIENCE: Duration = Duration::from_mins(15);

/// Limits of poison that these tests stay within.
const MUCH_POISON: &str =
    r#"poison = { max_per_batch = 100_000, max_per_minute = 100_000_000, max_bytes_per_minute = "100GiB" }"#;

/// One row a message in `events`, with whole copies; rows of a message's fields in `points`; a row an
/// element, with the whole of a field beside each, in `parts`.
const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "auto"
POISON

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
whole = "$payload"

[[pipeline.table]]
name = "points"
when = { subject = "*.*.row" }
unpivot = { rest = true }
[pipeline.table.columns]
sequence = "$sequence"
series = "$subject[1]"
name = "$name"
value = "$value"

[[pipeline.table]]
name = "parts"
for_each = "parts"
bad_element = "element"
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
blob = "^blob"
"#;

const TABLES: &str = "
    CREATE TABLE events (sequence bigint, id bigint, doc jsonb, plain text, numbers bigint[], texts text[], \
        whole jsonb);
    CREATE TABLE points (sequence bigint, series text, name text, value double precision);
    CREATE TABLE parts (sequence bigint, element integer, size integer, blob text)";

/// A good message.
const GOOD: &[u8] = br#"{"id": 1}"#;

/// What JetStream takes of headers at most.
const HEADERS: usize = 65_000;

/// A message of a kind.
struct Giant {
    kind: &'static str,
    /// The subject after the stream's name.
    token: &'static [u8],
    headers: Option<Vec<u8>>,
    payload: Vec<u8>,
}

/// A map of `id` and of `name`, whose value is `value`, in MessagePack.
fn message(name: &str, value: &[u8]) -> Vec<u8> {
    let name = [&[0xa0 + u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    [b"\x82\xa2id\x01", &name[..], value].concat()
}

/// `length` times `element`, in MessagePack.
fn array(element: &[u8], length: usize) -> Vec<u8> {
    [&[0xdd], &u32::try_from(length).unwrap().to_be_bytes()[..], &element.repeat(length)].concat()
}

/// A text of that byte, in MessagePack.
fn text(byte: u8, length: usize) -> Vec<u8> {
    [&[0xdb], &u32::try_from(length).unwrap().to_be_bytes()[..], &vec![byte; length]].concat()
}

/// A map of so many fields of two bytes.
fn fields(count: usize) -> Vec<u8> {
    [&[0xdf], &u32::try_from(count).unwrap().to_be_bytes()[..], &[0xa0, 0x01].repeat(count)].concat()
}

/// In JSON, `count` times `element` as `name`, and `blob`.
fn json(name: &str, element: &str, count: usize, blob: &str) -> Vec<u8> {
    let elements = vec![element; count].join(",");
    format!(r#"{{"id": 1, "{name}": [{elements}], "blob": "{blob}"}}"#).into_bytes()
}

/// A header block with as many lines as JetStream takes, each with a number.
fn headers(line: impl Fn(usize) -> String) -> Vec<u8> {
    let mut block = b"NATS/1.0\r\n".to_vec();
    for line in (0..).map(line) {
        if block.len() + line.len() + 4 > HEADERS {
            break;
        }
        block.extend_from_slice(line.as_bytes());
        block.extend_from_slice(b"\r\n");
    }
    block.extend_from_slice(b"\r\n");
    block
}

/// A name for each number, as short as can be.
fn short(mut number: usize) -> String {
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    let mut name = String::new();
    loop {
        name.push(letters[number % letters.len()]);
        number /= letters.len();
        if number == 0 {
            return name;
        }
    }
}

/// Messages of about `size` bytes that publishers send who mean harm, or know no better.
fn giants(size: usize) -> Vec<Giant> {
    let length = size - 64;
    let nested = |depth: usize| message("doc", &[vec![0x91; depth], vec![1; length - depth]].concat());
    let keys: Vec<String> = (0..length / 11).map(|key| format!("\"{key:06}\":1")).collect();
    let blob = "x".repeat(size / 2);
    let plain = |kind, payload| Giant { kind, token: b".a", headers: None, payload };
    let headed = |kind, block: Vec<u8>, payload: &[u8]| Giant {
        kind,
        token: b".a",
        headers: Some(block),
        payload: payload.to_vec(),
    };
    let names = || headers(|number| format!("{}:x", short(number)));
    let half = [names(), b"\xff:x".to_vec()].concat();
    vec![
        plain("a good text", message("doc", &text(b'x', length))),
        plain("no message", vec![0xc1; length]),
        plain("cut short", message("doc", &text(b'x', length)[..size / 2])),
        plain("control characters", message("doc", &text(1, length))),
        plain("deep nesting", nested(120)),
        plain("too deep nesting", nested(200)),
        plain("nil", message("doc", &array(&[0xc0], length))),
        plain("numbers", message("numbers", &array(&[1], length))),
        plain("numbers in JSON", json("numbers", "1", length / 2 - 20, "")),
        plain("empty texts", message("texts", &array(&[0xa0], length))),
        plain("escapes", json("doc", r#""\u0001\n""#, length / 11 - 20, "")),
        plain(
            "an escaped text",
            format!(r#"{{"id": 1, "plain": "{}"}}"#, r"\n".repeat(length / 2 - 20)).into(),
        ),
        plain("many keys", format!("{{{}}}", keys.join(",")).into()),
        Giant { token: b".b.row", ..plain("fields", fields(length / 2)) },
        Giant { token: b".b.row", ..plain("fewer fields", fields(length / 8)) },
        plain("elements", message("parts", &array(&[0x80], length))),
        plain("fewer elements", message("parts", &array(&[0x80], length / 8))),
        plain("elements that are no maps", message("parts", &array(&[1], length))),
        plain(
            "elements that no column takes",
            message("parts", &array(b"\x81\xa4size\xa4wide", length / 11)),
        ),
        plain("a text beside many elements", json("parts", "{}", size / 8, &blob)),
        plain("a text beside two elements", json("parts", "{}", 2, &"x".repeat(length))),
        plain(
            "a text with NUL beside many elements",
            json("parts", "{}", size / 8, &format!("{blob}\\u0000")),
        ),
        headed("headers of one name", headers(|_| "a:".into()), GOOD),
        headed("headers of many names", names(), GOOD),
        headed("headers of no message", names(), b"no"),
        headed("headers that cannot be read", vec![b'x'; HEADERS], b"no"),
        headed("half of the headers cannot be read", half, b"no"),
        headed("a giant whose headers cannot be read", b"foo".to_vec(), &vec![b'x'; length]),
        Giant { token: b".\xff", ..plain("a giant whose subject cannot be read", vec![b'x'; length]) },
    ]
}

/// Servers and daemon.
struct Range {
    daemon: Daemon,
    wire: Wire,
    world: World,
    /// What the daemon may hold, in KiB.
    most: u64,
    _servers: (TestNats, std::sync::Arc<TestPostgres>),
}

impl Range {
    /// With a NATS server that takes messages of `size` bytes, and `max_buffered_bytes` of so many MiB.
    async fn open(size: usize, buffered: u64) -> Self {
        let config = format!("max_payload: {size}\nmax_pending: {}", (2 * size).max(64 << 20));
        let nats = TestNats::start(&NatsOptions { config }).unwrap();
        let postgres = TestPostgres::shared().unwrap();
        let world = World::on(&nats, &postgres).await;
        world.database.batch_execute(TABLES).await.unwrap();
        let settings = format!("max_buffered_bytes = \"{buffered}MiB\"\n{MUCH_POISON}");
        let daemon = Daemon::start(&world.config(&PIPELINE.replace("POISON", &settings)));
        let wire = Wire::connect(nats.port()).unwrap();
        let most = (buffered + BESIDE) << 10;
        Self { daemon, wire, world, most, _servers: (nats, postgres) }
    }

    /// Sends `bytes` of headers of that kind, or as many messages as are of `size` bytes.
    async fn send(&mut self, giant: &Giant, bytes: usize, size: usize) {
        let before = self.world.last_sequence().await;
        let subject = [self.world.stream.as_bytes(), giant.token].concat();
        let each = giant.headers.as_ref().map_or(size, |block| block.len() + giant.payload.len());
        let count = bytes.div_ceil(each);
        for _ in 0..count {
            self.wire.publish(&subject, None, giant.headers.as_deref(), &giant.payload).unwrap();
        }
        assert_eq!(self.wire.settled().unwrap(), [""; 0], "{}", giant.kind);
        eventually(giant.kind, || async {
            self.world.last_sequence().await == before + u64::try_from(count).unwrap()
        })
        .await;
    }

    async fn drained(&self) {
        let last = self.world.last_sequence().await;
        eventually_within(PATIENCE, "the drain", || async {
            assert!(self.daemon.is_running(), "the daemon has ended; its log:\n{}", self.daemon.log());
            self.world.checkpoint("events").await == last
        })
        .await;
    }

    /// Sends some of each of these kinds in turn, then asks the oracle.
    async fn stays_bounded(mut self, size: usize, kinds: &[&str]) {
        let giants = giants(size - 8 * 1024);
        for kind in kinds {
            let giant = giants.iter().find(|giant| giant.kind == *kind).unwrap();
            self.send(giant, 3 * size, size).await;
            self.drained().await;
            let peak = self.daemon.peak_memory_kib();
            assert!(peak <= self.most, "{peak} KiB after {kind}");
        }
        println!("peak memory: {} MiB", self.daemon.peak_memory_kib() >> 10);
        oracle(&self.world, &self.daemon, "events", "events", GOOD.to_vec()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_any_kind_takes_no_more_memory_than_may_be_taken() {
    const SIZE: usize = 1 << 20;
    let kinds =
        ["fields", "elements", "fewer elements", "a text beside many elements", "no message", "escapes"];
    Range::open(SIZE, BUFFERED).await.stays_bounded(SIZE, &kinds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_nothing_but_headers_take_no_more_memory_than_may_be_taken() {
    const SIZE: usize = 1 << 20;
    let kinds = ["headers of many names", "headers of no message", "half of the headers cannot be read"];
    Range::open(SIZE, BUFFERED).await.stays_bounded(SIZE, &kinds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_eight_megabytes_take_no_more_memory_than_may_be_taken() {
    const SIZE: usize = 8 << 20;
    let kinds = ["a good text", "no message", "a text beside two elements", "an escaped text"];
    Range::open(SIZE, BUFFERED).await.stays_bounded(SIZE, &kinds).await;
}

/// A pull request that could bring the largest message could bring as many bytes of headers.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_nothing_but_headers_take_no_more_memory_where_the_server_takes_giants_either() {
    const SIZE: usize = 8 << 20;
    let mut range = Range::open(SIZE, BUFFERED).await;
    let giants = giants(SIZE - 8 * 1024);
    let of = |kind| giants.iter().find(|giant| giant.kind == kind).unwrap();
    range.send(of("a good text"), SIZE, SIZE).await;
    range.drained().await;
    // They come together.
    range.world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    range.send(of("headers of many names"), SIZE, SIZE).await;
    range.world.database.batch_execute("ROLLBACK").await.unwrap();
    range.drained().await;
    let peak = range.daemon.peak_memory_kib();
    assert!(peak <= range.most, "{peak} KiB");
    println!("peak memory: {} MiB", peak >> 10);
    oracle(&range.world, &range.daemon, "events", "events", GOOD.to_vec()).await;
}

/// The bound is each pipeline's, and holds while the database is away and when it comes back. What was
/// refused is tried again by a process of its own, which holds some copies of one message.
#[tokio::test(flavor = "multi_thread")]
async fn giants_for_several_pipelines_stay_within_the_bound_of_each_through_an_outage_of_the_database() {
    const SIZE: usize = 8 << 20;
    const PIPELINES: u64 = 3;
    let nats = TestNats::start(&NatsOptions { config: format!("max_payload: {SIZE}") }).unwrap();
    let mut postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let mut world = World::on(&nats, &postgres).await;
    let mut pipelines = Vec::new();
    for number in 0..PIPELINES {
        let table = format!("CREATE TABLE events_{number} (sequence bigint, doc text, whole jsonb)");
        world.database.batch_execute(&table).await.unwrap();
        pipelines.push(format!(
            "[[pipeline]]\nname = \"events_{number}\"\nstream = \"STREAM\"\n{MUCH_POISON}\n\
             [[pipeline.table]]\n\
             name = \"events_{number}\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n\
             whole = \"$payload\"\n"
        ));
    }
    let config = world.config(&pipelines.concat());
    let daemon = Daemon::start(&config);
    world.publish("a", [GOOD]).await;
    world.drained("events_0", &daemon).await;

    postgres.stop(Stop::Fast);
    let giants = giants(SIZE - 8 * 1024);
    for kind in ["a good text", "no message", "cut short"] {
        let giant = giants.iter().find(|giant| giant.kind == kind).unwrap();
        world.publish("a", vec![giant.payload.clone(); 3]).await;
    }
    let again = || daemon.resyncs().get("database").copied().unwrap_or(0);
    let before = again();
    eventually("attempts", async || again() >= before + 5 * i64::try_from(PIPELINES).unwrap()).await;
    postgres.start_again().unwrap();
    world.reconnect().await;
    for number in 0..PIPELINES {
        world.drained_within(PATIENCE, &format!("events_{number}"), &daemon).await;
    }
    let peak = daemon.peak_memory_kib();
    assert!(peak <= (PIPELINES * BUFFERED + BESIDE) << 10, "{peak} KiB");

    let mut retry = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    retry.args(["dead-letters", "retry", "--all", "--config"]).arg(&config).stdout(Stdio::null());
    let peak_of_retry = peak_of(&mut retry.spawn().unwrap());
    println!("peak memory: {} MiB, of a retry {} MiB", peak >> 10, peak_of_retry >> 10);
    for number in 0..PIPELINES {
        let (pipeline, letters) = (format!("events_{number}"), "SELECT count(*) FROM jetcopy.dead_letters");
        oracle(&world, &daemon, &pipeline, &pipeline, GOOD.to_vec()).await;
        assert_eq!(world.count(letters).await, i64::try_from(6 * PIPELINES).unwrap());
    }
}

/// The most memory, in KiB, that a process held until it ended.
fn peak_of(process: &mut Child) -> u64 {
    let mut peak = 0;
    while process.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

/// A setting of this run.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: run it with `make giants`"]
async fn giants_of_every_kind_take_no_more_memory_than_may_be_taken() {
    let mib: usize = setting("MIB").map_or(1, |mib| mib.parse().unwrap());
    let kinds = setting("KINDS").unwrap_or_default();
    let size = mib << 20;
    let buffered = setting("BUFFERED").map_or(BUFFERED, |mib| mib.parse().unwrap());
    let mut range = Range::open(size, buffered).await;
    let mut most = 0;
    for giant in giants(size - 8 * 1024).iter().filter(|giant| giant.kind.contains(&kinds)) {
        let started = Instant::now();
        // What of headers is enough to see a pull request's worth of them.
        let bytes = if giant.headers.is_some() { 6 * size.min(1 << 20) } else { 6 * size };
        range.send(giant, bytes, size).await;
        range.drained().await;
        let (peak, now) = (range.daemon.peak_memory_kib(), range.daemon.memory_kib());
        most = most.max(peak);
        println!(
            "{:>4} MiB, {:>4} MiB then, {:>5.1?}: {}",
            peak >> 10,
            now >> 10,
            started.elapsed(),
            giant.kind
        );
        range.daemon.forget_peak();
    }
    assert!(most <= range.most, "{most} KiB");
}
