//! A message of a stream, as it was published.
//!
//! Guarantees: it is one value, however it was read (delivered to a subscription, or got by itself), up to
//! the rows that are made of it. Handing it on copies nothing: subject and payload are parts of the buffer
//! that they arrived in.
//!
//! Not guaranteed: that it is small. It pins that buffer, and with it whatever else arrived there, so a batch
//! keeps copies ([`Batch::keep`](crate::batch::Batch::keep)).

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Sequence in the stream, from 1.
    pub sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// Full subject.
    pub subject: Subject,
    /// Payload as published.
    pub payload: Bytes,
    /// Headers, where it has any.
    pub headers: Option<HeaderMap>,
}

impl Message {
    /// Bytes of its subject and its payload.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len()
    }
}
