//! The messages of a batch as they came: what a dead letter is made of.
//!
//! Guarantees: what they take in memory is known. A payload is copied, since one that is kept pins the read
//! buffer that it arrived in, and what else came in that. A giant fills its buffer nearly alone, and a copy
//! would be in memory beside it: it is kept as it came.

use bytes::Bytes;

use super::headers;
use crate::message::Message;

/// A payload of at least this many bytes is kept as it came: what is in its buffer beside it is smaller than
/// a copy.
const GIANT: usize = 1 << 20;

/// How many times its length a giant may take: the buffer grows by doubling, and what follows the message
/// fills the rest.
const PINNED: usize = 2;

/// What a batch knows of one of its messages: where its parts lie among the [`Originals`], which need no
/// allocation a message.
#[derive(Debug)]
pub struct Entry {
    /// Sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    subject_start: usize,
    payload_start: usize,
    payload_end: usize,
    headers_end: usize,
}

/// Subjects, payloads and headers of messages.
#[derive(Debug, Default)]
pub(super) struct Originals {
    /// Subjects and payloads, back to back.
    copied: Vec<u8>,
    /// Headers, likewise.
    headers: Vec<u8>,
    /// Payloads of giants, by their sequence.
    giants: Vec<(u64, Bytes)>,
}

/// About what a message takes in a batch.
#[must_use]
pub fn footprint(message: &Message) -> usize {
    let payload = message.payload.len();
    message.subject.len() + if payload < GIANT { payload } else { payload.saturating_mul(PINNED) }
}

impl Originals {
    /// Adds a message.
    #[inline]
    pub(super) fn push(&mut self, message: &Message) -> Entry {
        let subject_start = self.copied.len();
        self.copied.extend_from_slice(message.subject.as_bytes());
        let payload_start = self.copied.len();
        if message.payload.len() < GIANT {
            self.copied.extend_from_slice(&message.payload);
        } else {
            self.giants.push((message.sequence, message.payload.clone()));
        }
        if let Some(headers) = &message.headers {
            headers::append(&mut self.headers, headers);
        }
        Entry {
            sequence: message.sequence,
            timestamp_ns: message.timestamp_ns,
            subject_start,
            payload_start,
            payload_end: self.copied.len(),
            headers_end: self.headers.len(),
        }
    }

    /// Drops all that came after `last`.
    pub(super) fn truncate(&mut self, last: Option<&Entry>) {
        self.copied.truncate(last.map_or(0, |message| message.payload_end));
        self.headers.truncate(last.map_or(0, |message| message.headers_end));
        self.giants.retain(|(sequence, _)| last.is_some_and(|last| *sequence <= last.sequence));
    }

    /// Drops all, and keeps the allocations.
    pub(super) fn clear(&mut self) {
        self.truncate(None);
    }

    /// Bytes of what was copied, and of headers.
    pub(super) fn copied(&self) -> [usize; 2] {
        [self.copied.len(), self.headers.len()]
    }

    /// Bytes of subjects and payloads.
    pub(super) fn bytes(&self) -> usize {
        self.copied.len() + self.giants()
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.copied.len() + self.headers.len() + self.giants() * PINNED
    }

    fn giants(&self) -> usize {
        self.giants.iter().map(|(_, payload)| payload.len()).sum()
    }

    pub(super) fn subject(&self, entry: &Entry) -> &str {
        // A subject enters as `&str`, so this never falls back.
        str::from_utf8(&self.copied[entry.subject_start..entry.payload_start]).unwrap_or_default()
    }

    pub(super) fn payload(&self, entry: &Entry) -> &[u8] {
        match self.giant(entry) {
            Some(payload) => payload,
            None => &self.copied[entry.payload_start..entry.payload_end],
        }
    }

    /// The payload to keep; that of a giant is not copied.
    pub(super) fn shared(&self, entry: &Entry) -> Bytes {
        self.giant(entry).cloned().unwrap_or_else(|| Bytes::copy_from_slice(self.payload(entry)))
    }

    fn giant(&self, entry: &Entry) -> Option<&Bytes> {
        self.giants.iter().find(|(sequence, _)| *sequence == entry.sequence).map(|(_, payload)| payload)
    }

    /// Headers of `entry`, before which `before` stands.
    pub(super) fn headers(&self, before: Option<&Entry>, entry: &Entry) -> &[u8] {
        &self.headers[before.map_or(0, |before| before.headers_end)..entry.headers_end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_a_giant_is_kept_as_it_came_and_any_other_is_copied() {
        let mut originals = Originals::default();
        let payloads =
            [Bytes::from(vec![1; GIANT - 1]), Bytes::from(vec![2; GIANT]), Bytes::from_static(b"3")];
        let messages: Vec<Entry> = (1..)
            .zip(&payloads)
            .map(|(sequence, payload)| {
                let (subject, payload) = ("frames.a".into(), payload.clone());
                originals.push(&Message { sequence, timestamp_ns: 0, subject, payload, headers: None })
            })
            .collect();
        for (message, payload) in messages.iter().zip(&payloads) {
            assert_eq!((originals.subject(message), originals.payload(message)), ("frames.a", &payload[..]));
        }
        let kept = |index: usize| originals.shared(&messages[index]).as_ptr() == payloads[index].as_ptr();
        assert_eq!([kept(0), kept(1), kept(2)], [false, true, false]);
        assert_eq!(originals.bytes(), 3 * 8 + 2 * GIANT);
        assert_eq!(originals.held(), originals.bytes() + GIANT);
        originals.truncate(Some(&messages[0]));
        assert_eq!((originals.bytes(), originals.giants.len()), (8 + GIANT - 1, 0));
    }
}
