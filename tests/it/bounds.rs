//! What one message may become is bounded, and so is the memory of the daemon, whatever is published.
//!
//! The memory is that of a real daemon, by the most that the kernel ever saw.

use serde_json::json;

use crate::support::{Daemon, World, oracle};

/// What the daemon may hold beside `max_buffered_bytes`, in KiB: the program itself and what the allocator
/// keeps.
const BESIDE_KIB: u64 = 64 << 10;

/// The default of `max_buffered_bytes`, in KiB.
const BUFFERED_KIB: u64 = 64 << 10;

/// One row a message in `events`; rows of a message's fields in `points`; a row an element, with the whole of
/// a field beside each, in `parts`.
const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "auto"

[[pipeline.table]]
name = "events"
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
    CREATE TABLE events (sequence bigint, id bigint);
    CREATE TABLE points (sequence bigint, series text, name text, value double precision);
    CREATE TABLE parts (sequence bigint, element integer, size integer, blob text)";

/// A message of `fields` fields of two bytes each.
fn fields(fields: u32) -> Vec<u8> {
    let mut message = vec![0xdf];
    message.extend(fields.to_be_bytes());
    message.extend([0xa0, 0x01].repeat(fields as usize));
    message
}

/// A message of `elements` empty elements beside a text of `blob` bytes.
fn elements(elements: usize, blob: usize) -> Vec<u8> {
    let parts = vec![json!({}); elements];
    json!({"id": 1, "parts": parts, "blob": "x".repeat(blob)}).to_string().into_bytes()
}

/// Expects that the daemon never held more than it may.
fn memory_was_bounded(daemon: &Daemon, what: &str) {
    let peak = daemon.peak_memory_kib();
    println!("peak memory: {} MiB after {what}", peak >> 10);
    assert!(peak <= BUFFERED_KIB + BESIDE_KIB, "{peak} KiB after {what}");
}

/// The dead letters: kind and reason.
async fn letters(world: &World) -> Vec<(String, String)> {
    let sql = "SELECT kind, message FROM jetcopy.dead_letters ORDER BY id";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Publishes `message` to `subject`; it must become one dead letter, with that in its reason, in bounded
/// memory.
async fn becomes_one_letter(subject: &str, message: Vec<u8>, reasons: &[&str]) {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let daemon = Daemon::start(&world.config(PIPELINE));
    world.publish(subject, [message]).await;
    oracle(&world, &daemon, "events", "events", br#"{"id": 1}"#.to_vec()).await;
    let letters = letters(&world).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].0, "too_large");
    for reason in reasons {
        assert!(letters[0].1.contains(reason), "{letters:?}");
    }
    memory_was_bounded(&daemon, "one message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_half_a_million_fields_under_a_long_subject_is_one_dead_letter() {
    let subject = format!("{}.row", "s".repeat(3_900));
    // As many rows of the subject.
    let reasons = ["about 1.8 GiB", "may take 16.0 MiB, a quarter of max_buffered_bytes: raise that"];
    becomes_one_letter(&subject, fields(500_000), &reasons).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_elements_all_repeat_one_text_is_one_dead_letter() {
    becomes_one_letter("a", elements(2_000, 890_000), &["about 1.7 GiB", "max_buffered_bytes"]).await;
}
