//! Messages that nobody sends on purpose.
//!
//! Whether one comes into the stream is the stream's to know, and the oracle asks it.

use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::fault::{Huge, Unreadable};
use super::super::load::POISON_EVERY;
use super::Arena;

/// What a message is about that never becomes a row.
pub(super) const NEVER_ROWS: &[&str] = &["poison", "unreadable", "amplifying"];

/// The payload of a message that cannot be read: no row either, should somebody read it.
const PAYLOAD: &[u8] = b"\x01{cut";

/// A line of text that fills a message, below the server's limit of 1 MiB.
const LONG: usize = 900_000;

/// Parts that a message has, each of which repeats [`BLOB`] bytes: 600 MB of rows out of 300 kB.
const PARTS: usize = 2_000;
const BLOB: usize = 300_000;

impl Arena {
    pub(super) async fn publish_poison(&self, count: u32) {
        let subject = format!("{}.poison", self.world.stream);
        for _ in 0..count {
            let _ = self.world.jetstream.publish(subject.clone(), PAYLOAD.into()).await;
        }
    }

    /// Publishes by hand: no client would.
    pub(super) async fn publish_unreadable(&self, what: Unreadable, count: u32) {
        let subject = format!("{}.unreadable", self.world.stream).into_bytes();
        let (subject, headers): (_, &[u8]) = match what {
            Unreadable::Headers => (subject, b"foo\r\n\r\n"),
            Unreadable::Version => (subject, b"NATS/2.0\r\nA: b\r\n\r\n"),
            Unreadable::Value => (subject, b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
            Unreadable::Subject => ([&subject[..], b".\xff\xfe"].concat(), b""),
        };
        let mut request = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
        for _ in 0..count {
            let total = headers.len() + PAYLOAD.len();
            if headers.is_empty() {
                request.extend([b"PUB ", &subject[..], format!(" {total}\r\n").as_bytes()].concat());
            } else {
                let sizes = format!(" {} {total}\r\n", headers.len());
                request.extend([b"HPUB ", &subject[..], sizes.as_bytes(), headers].concat());
            }
            request.extend([PAYLOAD, b"\r\n"].concat());
        }
        request.extend(b"PING\r\n");
        let mut server = TcpStream::connect(("127.0.0.1", self.nats.port())).await.unwrap();
        server.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"PONG\r\n") {
            assert!(server.read_buf(&mut answer).await.unwrap() > 0, "NATS refused the messages");
        }
    }

    pub(super) async fn publish_huge(&mut self, huge: Huge) {
        let id = self.next_id.fetch_add(POISON_EVERY, Ordering::Relaxed);
        let id = if id % POISON_EVERY == 0 { id + 1 } else { id };
        let (subject, message) = match huge {
            Huge::Row => ("huge", json!({"id": id, "note": "x".repeat(LONG)})),
            Huge::Amplifying => {
                let parts: Vec<_> = (0..PARTS).map(|n| json!({"n": n})).collect();
                ("amplifying", json!({"id": id, "blob": "x".repeat(BLOB), "parts": parts}))
            }
        };
        let payload = rmp_serde::to_vec_named(&message).unwrap();
        let subject = format!("{}.{subject}", self.world.stream);
        let Ok(sent) = self.world.jetstream.publish(subject, payload.into()).await else { return };
        if let (Ok(ack), Huge::Row) = (sent.await, huge) {
            self.huge.push((i64::try_from(ack.sequence).unwrap(), id));
        }
    }
}
