//! Giants of every kind, one after the other: the daemon's memory stays within `max_buffered_bytes` and 64
//! MiB, by the most that the kernel ever saw.
//!
//! Messages go over a raw socket, so that they may be anything. `make giants` sends each kind, of the size
//! that it is told; the tests of the suite send those that once took the most.

use std::time::{Duration, Instant};

use jetcopy::private::{NatsOptions, PrivateNats, PrivatePostgres, Wire};

use crate::support::{Daemon, World, eventually, eventually_within, oracle};

/// What the daemon may hold, in KiB: the default of `max_buffered_bytes`, and as much again.
const MOST_KIB: u64 = 128 << 10;

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
    CREATE TABLE events (sequence bigint, id bigint, doc jsonb, plain text, numbers bigint[], texts text[], whole jsonb);
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
    _servers: (PrivateNats, std::sync::Arc<PrivatePostgres>),
}

impl Range {
    /// With a NATS server that takes messages of `size` bytes.
    async fn open(size: usize) -> Self {
        let config = format!("max_payload: {size}\nmax_pending: {}", (2 * size).max(64 << 20));
        let nats = PrivateNats::start(&NatsOptions { config }).unwrap();
        let postgres = PrivatePostgres::shared().unwrap();
        let world = World::on(&nats, &postgres).await;
        world.database.batch_execute(TABLES).await.unwrap();
        let daemon = Daemon::start(&world.config(&PIPELINE.replace("POISON", MUCH_POISON)));
        let wire = Wire::connect(nats.port()).unwrap();
        Self { daemon, wire, world, _servers: (nats, postgres) }
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
            assert!(peak <= MOST_KIB, "{peak} KiB after {kind}");
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
    Range::open(SIZE).await.stays_bounded(SIZE, &kinds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_nothing_but_headers_take_no_more_memory_than_may_be_taken() {
    const SIZE: usize = 1 << 20;
    let kinds = ["headers of many names", "headers of no message", "half of the headers cannot be read"];
    Range::open(SIZE).await.stays_bounded(SIZE, &kinds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_eight_megabytes_take_no_more_memory_than_may_be_taken() {
    const SIZE: usize = 8 << 20;
    let kinds = ["a good text", "no message", "a text beside two elements", "an escaped text"];
    Range::open(SIZE).await.stays_bounded(SIZE, &kinds).await;
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
    let mut range = Range::open(size).await;
    let mut most = 0;
    for giant in giants(size - 8 * 1024).iter().filter(|giant| giant.kind.contains(&kinds)) {
        let started = Instant::now();
        range.send(giant, 6 * size, size).await;
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
    assert!(most <= MOST_KIB, "{most} KiB");
}
