//! Messages drawn from a seed: subject, header block and payload as raw bytes, good ones, ones that are
//! nearly good, and noise.

#![expect(clippy::cast_possible_truncation, reason = "drawn below what the type holds")]

use std::time::Duration;

use serde_json::json;

use crate::chaos::dice::Dice;

/// One message as it goes over the wire; the subject follows the stream's name.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) subject: Vec<u8>,
    pub(super) headers: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

/// Bytes that protocols and formats care about.
const LOADED: &[u8] =
    b"\0\r\n :.,*>$\"\\{}[]-+0e\x7f\x80\x90\xa0\xc0\xc1\xc6\xc9\xd9\xdb\xdc\xdd\xde\xdf\xed\xef\xff";

/// Names of headers, some of which a server, jetcopy or a tool before it gives a meaning.
const NAMES: &[&str] = &[
    "kind",
    "x",
    "Content-Type",
    "Nats-Msg-Id",
    "Nats-Msg-Size",
    "Nats-Schedule",
    "Nats-TTL",
    "Status",
    "traceparent",
    "Nats-Pending-Messages",
    "Nats-Stream",
    "Nats-Sequence",
    "Description",
    "a_b-c",
    "\u{e4}",
    "A B",
];

const VALUES: &[&str] = &[
    "",
    "a",
    "b",
    "application/json",
    "application/msgpack",
    "1",
    "-1",
    "404 No Messages",
    "\u{1f600}",
    "a\tb",
];

const SUBJECTS: &[&str] = &[
    ".a",
    ".a.b",
    ".one.row",
    ".x.row",
    ".$JS.ACK",
    ".\u{e4}\u{f6}",
    ".\u{fffd}",
    ".a\u{3000}b",
    ".{{x}}",
    ".\"",
    ".%s",
    ".0",
    "._INBOX.a",
];

impl Raw {
    /// The next one.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self { subject: subject(dice), headers: headers(dice), payload: payload(dice) }
    }

    /// How to write it down.
    pub(super) fn shown(&self) -> String {
        let payload = &self.payload[..self.payload.len().min(2_000)];
        let headers = self.headers.as_ref().map(|block| block.escape_ascii().to_string());
        let (subject, length) = (self.subject.escape_ascii(), self.payload.len());
        format!("{subject} | {headers:?} | {length} bytes: {}", payload.escape_ascii())
    }
}

fn number(dice: &mut Dice, below: usize) -> usize {
    usize::try_from(dice.between(0, below as u64)).unwrap()
}

fn once_in(dice: &mut Dice, times: u64) -> bool {
    dice.between(0, times) == 0
}

/// Changes some bytes, cuts some out, or doubles a stretch.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..dice.between(1, 6) {
        if bytes.is_empty() {
            bytes.push(dice.one_of(LOADED));
            continue;
        }
        let at = number(dice, bytes.len());
        let to = (at + 1 + number(dice, 16)).min(bytes.len());
        match dice.between(0, 6) {
            0 => bytes[at] = dice.one_of(LOADED),
            1 => bytes[at] ^= 1 << dice.between(0, 8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to)),
            4 => bytes.insert(at, dice.one_of(LOADED)),
            _ => {
                let stretch = bytes[at..to].repeat(1 + number(dice, 20));
                bytes.splice(at..at, stretch);
            }
        }
    }
}

/// What a server would take for the end of the subject stays out: it would not be one message any more.
fn subject(dice: &mut Dice) -> Vec<u8> {
    let mut subject = dice.one_of(SUBJECTS).as_bytes().to_vec();
    if once_in(dice, 50) {
        subject.extend(b"x".repeat(number(dice, 3_000)));
    }
    if once_in(dice, 150) {
        mutate(dice, &mut subject);
        subject.retain(|byte| !b" \t\r\n\0*>".contains(byte));
        subject.insert(0, b'.');
        while let Some(at) = subject.windows(2).position(|pair| pair == b"..") {
            subject.remove(at);
        }
        if subject.last() == Some(&b'.') {
            subject.push(b'z');
        }
    }
    subject
}

fn headers(dice: &mut Dice) -> Option<Vec<u8>> {
    if dice.between(0, 3) > 0 {
        return None;
    }
    let mut block = b"NATS/1.0\r\n".to_vec();
    let lines = if once_in(dice, 100) { 2_000 } else { dice.between(0, 5) };
    for _ in 0..lines {
        let (name, value) = (dice.one_of(&NAMES[..14]), dice.one_of(VALUES));
        block.extend(format!("{name}: {value}\r\n").bytes());
    }
    if once_in(dice, 100) {
        block.extend(format!("{}: 1\r\n", dice.one_of(&NAMES[14..])).bytes());
    }
    block.extend(b"\r\n");
    if once_in(dice, 50) {
        mutate(dice, &mut block);
    }
    Some(block)
}

/// A value in MessagePack, now and then of a form that no column takes.
fn packed(dice: &mut Dice, depth: u32, out: &mut Vec<u8>) {
    match dice.between(0, if depth == 0 { 9 } else { 12 }) {
        0 => out.push(0xc0),
        1 => out.push(0xc2 + dice.small(0, 2) as u8),
        2 => out.push(dice.small(0, 256) as u8 & 0x7f),
        3 => {
            out.push(0xd3);
            out.extend(dice.between(0, u64::MAX).to_be_bytes());
        }
        4 => {
            out.push(0xcb);
            out.extend(dice.between(0, u64::MAX).to_be_bytes());
        }
        5 => text(dice, out),
        6 => out.extend(b"\xc4\x03\x00\xff\x01"),
        7 => out.extend(b"\xd6\xff\x65\x00\x00\x00"),
        8 => out.extend(b"\xd4\x05\x01"),
        9 | 10 => {
            let length = dice.small(0, 6);
            out.push(0x90 | length as u8);
            (0..length).for_each(|_| packed(dice, depth - 1, out));
        }
        _ => map(dice, depth - 1, out),
    }
}

fn text(dice: &mut Dice, out: &mut Vec<u8>) {
    let text =
        dice.one_of(&["", "a", "2026-01-01T00:00:00Z", "1e400", "NaN", "a\0b", "\u{1f600}", "[1,{}]", "row"]);
    out.push(0xa0 | text.len() as u8);
    out.extend(text.bytes());
}

fn map(dice: &mut Dice, depth: u32, out: &mut Vec<u8>) {
    const KEYS: &[&str] = &["id", "n", "t", "doc", "parts", "blob", "size", "deep", "list", "x", "", "a.b"];
    let length = dice.small(0, 9);
    out.push(0x80 | length as u8);
    for _ in 0..length {
        if once_in(dice, 200) {
            packed(dice, 0, out);
        } else {
            let key = dice.one_of(KEYS);
            out.push(0xa0 | key.len() as u8);
            out.extend(key.bytes());
        }
        packed(dice, depth, out);
    }
}

fn written(dice: &mut Dice) -> Vec<u8> {
    let id = dice.between(0, 1_000);
    let part = json!({"size": dice.between(0, 60), "x": dice.between(0, 9)});
    let text = json!({
        "id": id, "n": 1.5, "t": 1_700_000_000, "doc": {"a": [1, null, "b"]}, "blob": "text",
        "parts": vec![part; number(dice, 12)], "list": [1, 2, 3], "deep": {"er": {"est": true}}
    });
    text.to_string().into_bytes()
}

/// Up to 400 kB of one thing.
fn giant(dice: &mut Dice) -> Vec<u8> {
    let times = 1_000 + number(dice, 100_000);
    let length = u32::try_from(times).unwrap().to_be_bytes();
    let of = |before: &[u8], length: &[u8], unit: &[u8]| [before, length, &unit.repeat(times)].concat();
    match dice.between(0, 9) {
        0 => of(b"\x81\xa5parts\xdd", &length, b"\x80"),
        1 => of(b"\x81\xa3doc\xdd", &length, b"\xc0"),
        2 => of(b"\xdf", &length, b"\xa0\x01"),
        3 => of(b"\x81\xa3doc\xdb", &length, b"\x01"),
        4 => of(b"\x81\xa4blob\xdb", &length, b"x"),
        5 => of(b"{\"doc\":", b"", b"[")[..].to_vec(),
        6 => format!("{{\"n\": 1{}, \"doc\": 1{}}}", "0".repeat(times), "0".repeat(times)).into_bytes(),
        7 => of(b"\x81\xa4list\xdd", &length, b"\x01"),
        _ => {
            let parts = vec!["{}"; times / 20].join(",");
            format!("{{\"blob\": \"{}\", \"parts\": [{parts}]}}", "b".repeat(times)).into_bytes()
        }
    }
}

fn payload(dice: &mut Dice) -> Vec<u8> {
    let mut payload = match dice.between(0, 100) {
        0 => giant(dice),
        1..4 => Vec::new(),
        4..10 => (0..number(dice, 200)).map(|_| dice.small(0, 256) as u8).collect(),
        10..50 => written(dice),
        _ => {
            let mut out = Vec::new();
            map(dice, 4, &mut out);
            out
        }
    };
    if once_in(dice, 4) {
        mutate(dice, &mut payload);
    }
    payload
}

/// How long to let the daemon be between rounds, so that batches are of any size.
pub(super) fn pause(dice: &mut Dice) -> Duration {
    dice.millis(0, 30)
}
