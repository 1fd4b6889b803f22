//! How a letter looks: in a list, alone, exported.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::Compression;
use crate::dead_letter::kept::Kept;
use crate::decode::{expanded_as_json, spelling};
use crate::terminal::within;

/// Longest reason in a list, in characters: the rest of a terminal's line.
const REASON: usize = 80;

/// Bytes of payload that are shown in hexadecimal; `export` has all.
const HEX: usize = 4096;

/// Bytes a line of hexadecimal.
const HEX_LINE: usize = 16;

pub(super) const HEADER: [&str; 8] =
    ["ID", "FAILED AT", "PIPELINE", "SEQUENCE", "SUBJECT", "KIND", "PLACE", "REASON"];
pub(super) const RIGHT: [bool; 8] = [true, false, false, true, false, false, false, false];

pub(super) fn row(letter: &Kept) -> [String; 8] {
    let mut reason: String = letter.message.chars().take(REASON).collect();
    if reason.len() < letter.message.len() {
        reason.push('…');
    }
    if letter.payload.is_none() {
        reason.insert_str(0, "(payload expired) ");
    }
    [
        letter.id.to_string(),
        letter.failed_at.get(..19).unwrap_or(&letter.failed_at).replace('T', " "),
        letter.pipeline.clone(),
        letter.sequence.to_string(),
        letter.subject.clone(),
        letter.kind.clone(),
        place(letter),
        reason,
    ]
}

/// `table.column`, with the element where it is about one.
fn place(letter: &Kept) -> String {
    let mut place = letter.table.clone().unwrap_or_default();
    if let Some(element) = letter.element {
        let more = if letter.elements.is_some() { ", …" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(place, "[{element}{more}]");
    }
    if let Some(column) = &letter.column {
        let _ = write!(place, ".{column}");
    }
    place
}

pub(super) fn text(letter: &Kept) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<10} {}", within(value));
    };
    line("id", &letter.id.to_string());
    line("failed at", &letter.failed_at);
    if let Some(expired) = &letter.expired_at {
        line("expired at", expired);
    }
    line("pipeline", &letter.pipeline);
    if letter.shard != letter.pipeline {
        line("shard", &letter.shard);
    }
    line("stream", &format!("{}, sequence {}", letter.stream, letter.sequence));
    if let Some(stored) = stored_at(letter) {
        line("stored at", &stored);
    }
    line("subject", &letter.subject);
    if let Some(headers) = &letter.headers {
        line("headers", headers);
    }
    for (name, raw) in [("raw subject", &letter.raw_subject), ("raw headers", &letter.raw_headers)] {
        match raw.as_deref() {
            Some([]) => line(name, "not available: not UTF-8"),
            Some(bytes) => line(name, &bytes.escape_ascii().to_string()),
            None => {}
        }
    }
    line("kind", &letter.kind);
    line("reason", &letter.message);
    for (name, value) in
        [("sqlstate", &letter.sqlstate), ("table", &letter.table), ("column", &letter.column)]
    {
        if let Some(value) = value {
            line(name, value);
        }
    }
    if let Some(element) = letter.element {
        line("element", &element.to_string());
    }
    if let Some(elements) = &letter.elements {
        let elements: Vec<String> = elements.iter().map(i32::to_string).collect();
        line("elements", &elements.join(", "));
    }
    match &letter.payload {
        Some(bytes) => out + &payload(bytes, as_json(letter, bytes)),
        None => out + "payload    removed by age ([store.dead_letters] retention)\n",
    }
}

/// The payload as JSON text, expanded where it is compressed.
fn as_json(letter: &Kept, payload: &[u8]) -> Option<String> {
    let headers: BTreeMap<String, Vec<String>> =
        letter.headers.as_deref().and_then(|headers| serde_json::from_str(headers).ok()).unwrap_or_default();
    let each = headers.iter().map(|(name, values)| (name.as_str(), values));
    let encoding = spelling(each, Compression::HEADER);
    expanded_as_json(payload, encoding.and_then(|(_, values)| values.first()).map(String::as_str))
}

fn payload(payload: &[u8], json: Option<String>) -> String {
    let mut out = format!("payload    {} bytes", payload.len());
    let parsed = json.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    if let Some(pretty) = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok()) {
        return out + ", decoded:\n" + &pretty + "\n";
    }
    let shown = &payload[..payload.len().min(HEX)];
    out += if shown.len() < payload.len() { ", the first ones:\n" } else { ":\n" };
    for (index, bytes) in shown.chunks(HEX_LINE).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain =
            bytes.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' });
        let plain: String = plain.collect();
        let width = 3 * HEX_LINE - 1;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:08x}  {:<width$}  {plain}", index * HEX_LINE, hex.join(" "));
    }
    out
}

fn stored_at(letter: &Kept) -> Option<String> {
    Timestamp::from_microsecond(letter.stored_at_us?).ok().map(|time| time.to_string())
}

/// A letter as a line of NDJSON.
#[derive(Serialize)]
pub(super) struct Exported<'a> {
    id: i64,
    failed_at: &'a str,
    pipeline: &'a str,
    shard: &'a str,
    stream: &'a str,
    sequence: i64,
    stored_at: Option<String>,
    subject: &'a str,
    headers: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_subject_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_headers_base64: Option<String>,
    kind: &'a str,
    reason: &'a str,
    sqlstate: Option<&'a str>,
    table: Option<&'a str>,
    column: Option<&'a str>,
    element: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elements: Option<&'a [i32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> Exported<'a> {
    pub(super) fn new(letter: &'a Kept, decode: bool) -> Self {
        // One line each: what a publisher wrote over several is put into one.
        let one_line = |text: String| RawValue::from_string(text.replace(['\n', '\r'], " ")).ok();
        let bytes = letter.payload.as_deref();
        let decoded = bytes.filter(|_| decode).and_then(|bytes| as_json(letter, bytes)).and_then(one_line);
        Self {
            id: letter.id,
            failed_at: &letter.failed_at,
            pipeline: &letter.pipeline,
            shard: &letter.shard,
            stream: &letter.stream,
            sequence: letter.sequence,
            stored_at: stored_at(letter),
            subject: &letter.subject,
            headers: letter.headers.clone().and_then(|headers| RawValue::from_string(headers).ok()),
            raw_subject_base64: letter.raw_subject.as_ref().map(|bytes| STANDARD.encode(bytes)),
            raw_headers_base64: letter.raw_headers.as_ref().map(|bytes| STANDARD.encode(bytes)),
            kind: &letter.kind,
            reason: &letter.message,
            sqlstate: letter.sqlstate.as_deref(),
            table: letter.table.as_deref(),
            column: letter.column.as_deref(),
            element: letter.element,
            elements: letter.elements.as_deref(),
            expired_at: letter.expired_at.as_deref(),
            payload_base64: bytes.filter(|_| decoded.is_none()).map(|bytes| STANDARD.encode(bytes)),
            payload: decoded,
        }
    }
}
