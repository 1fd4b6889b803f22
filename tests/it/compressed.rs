//! Compressed payloads become rows, and what cannot be expanded a dead letter, whichever command looks.

use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;

use async_nats::{HeaderMap, Subject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use jetcopy::publish::{Outgoing, publish};
use serde_json::{Value, json};

use crate::support::{Daemon, World, eventually, oracle};

const TABLE: &str = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text)";

fn pipeline(settings: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
poison = {{ max_per_batch = 1000, max_per_minute = 1000000 }}
{settings}

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#
    )
}

fn gzip(payload: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

fn zlib(payload: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate(payload: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

fn snappy(payload: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(payload).unwrap()
}

fn snappy_frames(payload: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(payload).unwrap();
    encoder.into_inner().unwrap()
}

fn zstd(payload: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(payload, 3).unwrap()
}

/// A message and the `Content-Encoding` that it has.
type Sent = (Option<&'static str>, Vec<u8>);

async fn send(world: &World, messages: Vec<Sent>) {
    let subject = Subject::from(format!("{}.a", world.stream));
    let messages = messages.into_iter().map(|(encoding, payload)| Outgoing {
        subject: subject.clone(),
        headers: encoding.map(|encoding| {
            let mut headers = HeaderMap::new();
            headers.insert("Content-Encoding", encoding);
            headers
        }),
        payload: payload.into(),
    });
    publish(&world.nats, futures_util::stream::iter(messages), 1_000, |_| {}).await.unwrap();
}

fn event(id: i64) -> Vec<u8> {
    json!({"id": id, "note": "a line of text"}).to_string().into_bytes()
}

/// More than a megabyte that expands out of two kilobytes.
fn bomb() -> Vec<u8> {
    json!({"id": 7, "note": "0".repeat(1 << 20)}).to_string().into_bytes()
}

/// Messages that are rows, in every way that a payload is compressed.
fn good() -> Vec<Sent> {
    let packed = rmp_serde::to_vec_named(&json!({"id": 1, "note": "a line of text"})).unwrap();
    let event = event(1);
    let (first, second) = event.split_at(9);
    vec![
        (Some("gzip"), gzip(&event)),
        (Some("x-gzip"), gzip(&packed)),
        (Some("gzip"), [gzip(first), gzip(second)].concat()),
        (Some("zstd"), zstd(&event)),
        (Some("zstd"), [zstd(first), zstd(second)].concat()),
        (Some("Snappy"), snappy(&packed)),
        (Some("snappy"), snappy_frames(&event)),
        (Some("deflate"), zlib(&event)),
        (Some("deflate"), bare_deflate(&packed)),
        (Some("identity"), event.clone()),
        (None, event),
    ]
}

/// Messages that are dead letters, with the kind and a part of the reason.
fn bad() -> Vec<(&'static str, &'static str, Sent)> {
    let event = event(2);
    let mut corrupt = gzip(&event);
    corrupt[12] ^= 0xff;
    let cut = |mut payload: Vec<u8>| {
        payload.pop();
        payload
    };
    let malformed = [
        ("it is cut short", (Some("gzip"), cut(gzip(&event)))),
        ("it is cut short", (Some("zstd"), cut(zstd(&event)))),
        ("it is corrupt", (Some("snappy"), cut(snappy(&event)))),
        ("it is cut short", (Some("deflate"), cut(zlib(&event)))),
        ("not a payload in gzip", (Some("gzip"), corrupt)),
        ("bytes follow its end", (Some("gzip"), [&gzip(&event)[..], b"\n"].concat())),
        ("bytes follow its end", (Some("deflate"), [&zlib(&event)[..], &event].concat())),
        ("it begins otherwise", (Some("gzip"), event.clone())),
        ("it begins otherwise", (Some("zstd"), gzip(&event))),
        ("the payload is empty", (Some("gzip"), Vec::new())),
        ("the payload is empty", (Some("gzip"), gzip(b""))),
        ("which is none of gzip", (Some("br"), gzip(&event))),
        ("it begins like gzip: let publishers say so", (None, gzip(b"not a map"))),
        ("the position is in what gzip expanded it to", (Some("gzip"), gzip(b"{\"id\": 1"))),
    ];
    let bombs = [("gzip", gzip(&bomb())), ("zstd", zstd(&bomb())), ("snappy", snappy(&bomb()))];
    let malformed = malformed.map(|(reason, sent)| ("malformed", reason, sent));
    let bombs = bombs.map(|(name, payload)| ("too_large", "max_decompressed_bytes", (Some(name), payload)));
    malformed.into_iter().chain(bombs).collect()
}

/// What a command prints as one JSON object.
async fn object(world: &World, config: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.run(config, arguments).await.well()).unwrap()
}

/// Dead letters: sequence, kind, reason, payload.
async fn letters(world: &World) -> Vec<(i64, String, String, Vec<u8>)> {
    let sql = "SELECT sequence, kind, message, jetcopy.payload_of(letter)
        FROM jetcopy.dead_letters letter ORDER BY sequence";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_in_any_way_is_a_row_and_what_is_broken_a_dead_letter_as_it_came() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let (good, bad) = (good(), bad());
    let rows = i64::try_from(good.len()).unwrap();
    send(&world, good).await;
    send(&world, bad.iter().map(|(_, _, sent)| sent.clone()).collect()).await;
    let settings = "max_decompressed_bytes = \"1MiB\"";
    let config = world.config(&pipeline(settings));
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(1)).await;

    let found = letters(&world).await;
    assert_eq!(found.len(), bad.len(), "{found:#?}");
    for ((at, found), (kind, reason, (encoding, payload))) in (rows + 1..).zip(&found).zip(&bad) {
        assert_eq!((found.0, &*found.1), (at, *kind), "{encoding:?}: {found:?}");
        assert!(found.2.contains(reason), "{encoding:?}, {reason}: {}", found.2);
        assert_eq!(found.3, *payload, "{reason}: the letter has the payload as it came");
    }
    let right = "SELECT count(*) FROM events WHERE (id, note) = (1, 'a line of text')";
    assert_eq!(world.count(right).await, rows + 1);
    others_see_the_same(&world, &config, rows, &bad).await;

    // What was too large is rows once it may be as large.
    let settings = "max_decompressed_bytes = \"2MiB\"";
    let larger = world.config_file("larger.toml", &pipeline(settings));
    world
        .run(&larger, &["dead-letters", "retry", "--kind", "too_large", "--pipeline", "events"])
        .await
        .well();
    let stored = "SELECT count(*) FROM events WHERE id = 7 AND length(note) = 1048576";
    assert_eq!(world.count(stored).await, 3);
    let answer = object(&world, &larger, &["audit", "events", "--json"]).await;
    assert_eq!(answer["differences"], 0, "{answer:#?}");
}

/// `preview`, `audit`, `replay` and `dead-letters` see what the daemon made.
async fn others_see_the_same(
    world: &World,
    config: &Path,
    rows: i64,
    bad: &[(&'static str, &'static str, Sent)],
) {
    let all = (rows + 1 + i64::try_from(bad.len()).unwrap()).to_string();
    let shown = object(world, config, &["preview", "events", "--count", &all, "--json"]).await;
    assert_eq!(
        shown["tables"][0]["rows"].as_array().map(Vec::len),
        usize::try_from(rows + 1).ok(),
        "{shown:#}"
    );
    assert_eq!(shown["letters"].as_array().map(Vec::len), Some(bad.len()), "{shown:#}");

    let report = object(world, config, &["audit", "events", "--json"]).await;
    assert_eq!(report["differences"], 0, "{report:#}");

    world.run(config, &["replay", "events", "--from", "1", "--to", &all]).await.well();
    let missing = "SELECT count(*) FROM (TABLE events EXCEPT ALL TABLE events_replay) AS missing";
    assert_eq!(world.count(missing).await, 0);

    let exported =
        world.run(config, &["dead-letters", "export", "--decode", "--pipeline", "events"]).await.objects();
    let decoded =
        |letter: &&Value| letter["payload"]["id"] == json!(2) || letter["payload"]["id"] == json!(7);
    // The three bombs, what is plain, and the gzip that is called br.
    let decoded = exported.iter().filter(decoded).count();
    assert_eq!(decoded, 5, "{exported:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_says_how_all_payloads_are_compressed_and_publish_compresses_them() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(&pipeline("compression = \"zstd\""));
    send(&world, vec![(None, zstd(&event(1))), (Some("gzip"), zstd(&event(1))), (None, event(1))]).await;
    let file = world.directory.path().join("events.ndjson");
    std::fs::write(&file, event(1)).unwrap();
    let (file, subject) = (file.to_str().unwrap(), format!("{}.a", world.stream));
    world.run(&config, &["publish", &subject, file, "--compress", "zstd"]).await.well();
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", zstd(&event(1))).await;
    let found = letters(&world).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, &*found[0].1), (3, "malformed"), "{found:?}");
    assert!(found[0].2.starts_with("not a payload in zstd, as compression = \"zstd\" has it"), "{found:?}");
    // Of a file, text is what publishers would compress.
    let shown = object(&world, &config, &["preview", "events", "--file", file, "--json"]).await;
    assert_eq!(shown["tables"][0]["rows"].as_array().map(Vec::len), Some(1), "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_under_compressed_load_puts_each_message_in_one_place_once() {
    const KILLS: u32 = 6;
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(&pipeline(
        "batch = { max_rows = 300, max_age = \"5ms\" }\nmax_decompressed_bytes = \"64KiB\"",
    ));
    let (good, bad) = (good(), bad());
    let done = Cell::new(false);
    let load = async {
        while !done.get() {
            let broken = bad.iter().map(|(_, _, sent)| sent.clone());
            let round = std::iter::repeat_n(good.clone(), 30).flatten().chain(broken);
            send(&world, round.collect()).await;
        }
    };
    let kills = async {
        for _ in 0..KILLS {
            let before = world.checkpoint("events").await;
            let daemon = Daemon::start(&config);
            eventually("commits", || async { world.checkpoint("events").await > before + 500 }).await;
            daemon.kill();
        }
        done.set(true);
    };
    tokio::join!(load, kills);
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(1)).await;
    let (dead, wrong) = (
        world.count("SELECT count(*) FROM jetcopy.dead_letters").await,
        world.count("SELECT count(*) FROM events WHERE (id, note) <> (1, 'a line of text')").await,
    );
    assert!(dead > 0, "the load holds poison");
    assert_eq!(wrong, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_a_case_is_compressed_as_its_header_or_the_pipeline_has_it() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    for (settings, headers, base64) in [
        ("compression = \"zstd\"", "{}", STANDARD.encode(zstd(&event(1)))),
        ("", "{ content-encoding = \"snappy\" }", STANDARD.encode(snappy(&event(1)))),
    ] {
        let config = world.config(&pipeline(settings));
        let schema = world.directory.path().join("jetcopy.schema.json");
        world.run(&config, &["check", "--save-schema", schema.to_str().unwrap()]).await;
        let case = |name: &str, message: &str, outcome: &str| {
            format!(
                "[[case]]\nname = \"{name}\"\nsubject = \"a\"\nheaders = {headers}\n\
                 {message}\n[[case.{outcome}\n"
            )
        };
        let row = "rows.events]]\nid = 1";
        let cases = [
            case("a table", "message = { id = 1 }", row),
            case("text", "json = '{\"id\": 1}'", row),
            case("bytes", &format!("base64 = \"{base64}\""), row),
            case("plain bytes", "base64 = \"e30=\"", "dead_letter]]\nkind = \"malformed\""),
        ];
        let file = world.directory.path().join("events.test.toml");
        std::fs::write(&file, cases.concat()).unwrap();
        let said = world.run(&config, &["test", file.to_str().unwrap()]).await.well();
        assert!(said.ends_with("4 passed, 0 failed\n"), "{said}");
    }
}
