//! Messages that a server or a client library puts into a stream to say something, with no payload of
//! anybody's own.
//!
//! Guarantees: what is called a marker has a header that only servers and client libraries write, and but for
//! a schedule no payload. A pipeline passes over it, unless a table asks for it by a condition on its
//! headers.

use async_nats::{HeaderMap, HeaderValue};

/// Why a message is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The server says that a subject's last message has expired or was purged (`Nats-Marker-Reason`).
    Removed,
    /// A key of a bucket was deleted or purged (`KV-Operation`).
    Deleted,
    /// What the server is to publish later (`Nats-Schedule`): what it then publishes is a message of its own.
    Schedule,
}

impl Marker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Removed, Self::Deleted, Self::Schedule];

    /// What of this a message with these headers is.
    #[must_use]
    pub fn of(headers: &HeaderMap, payload: &[u8]) -> Option<Self> {
        // In this order, whatever others it has.
        if payload.is_empty() && headers.get("Nats-Marker-Reason").is_some() {
            return Some(Self::Removed);
        }
        let deletes = |value: &HeaderValue| matches!(value.as_str(), "DEL" | "PURGE");
        if payload.is_empty() && headers.get_all("KV-Operation").any(deletes) {
            return Some(Self::Deleted);
        }
        headers.get("Nats-Schedule").map(|_| Self::Schedule)
    }

    /// Label value of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Deleted => "deleted",
            Self::Schedule => "schedule",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(name: &str, value: &str, payload: &[u8]) -> Option<Marker> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "1");
        headers.insert(name, value);
        Marker::of(&headers, payload)
    }

    #[test]
    fn a_marker_is_told_by_its_header_and_by_having_no_payload() {
        assert_eq!(marker("Nats-Marker-Reason", "MaxAge", b""), Some(Marker::Removed));
        assert_eq!(marker("KV-Operation", "DEL", b""), Some(Marker::Deleted));
        assert_eq!(marker("KV-Operation", "PURGE", b""), Some(Marker::Deleted));
        assert_eq!(marker("Nats-Schedule", "@every 1s", b"{}"), Some(Marker::Schedule));
        for (name, value, payload) in [
            ("KV-Operation", "PUT", &b""[..]),
            ("KV-Operation", "DEL", b"{}"),
            ("Nats-Marker-Reason", "MaxAge", b"{}"),
            ("Nats-Scheduler", "schedules.a", b""),
            ("Content-Type", "json", b""),
        ] {
            assert_eq!(marker(name, value, payload), None, "{name}: {value}");
        }
    }

    #[test]
    fn a_marker_of_two_kinds_is_counted_as_the_same_one_each_time() {
        // Each map has an order of its own.
        for _ in 0..50 {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Schedule", "@every 1s");
            headers.insert("KV-Operation", "DEL");
            headers.insert("Nats-Marker-Reason", "MaxAge");
            assert_eq!(Marker::of(&headers, b""), Some(Marker::Removed));
        }
    }
}
