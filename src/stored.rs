//! Messages of a stream, read one by one over JetStream's API.
//!
//! Guarantees: whatever a publisher sent can be read: the API wraps header block and payload, so that they
//! come as the bytes that they are, also where the protocol of a subscription could not carry them
//! ([`crate::unreadable`]).
//!
//! Not guaranteed: the bytes of a subject that is not UTF-8. The API puts U+FFFD in their place.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use async_nats::{Client, Request, RequestError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// How long an answer may take: it is one look into a store, and a replicated stream elects a leader within
/// seconds.
const ANSWER: Duration = Duration::from_secs(5);

/// JetStream's code for a sequence, or a subject from a sequence on, that no message has.
const NO_MESSAGE_FOUND: u64 = 10_037;

/// Every subject.
const ALL: &str = ">";

/// A message as the stream holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stored {
    /// Sequence in the stream.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    #[serde(rename = "time", deserialize_with = "nanoseconds")]
    pub timestamp_ns: i64,
    /// Full subject, with U+FFFD for what is not UTF-8.
    pub subject: String,
    /// The header block, with its first line; empty where there is none.
    #[serde(rename = "hdrs", default, deserialize_with = "bytes")]
    pub headers: Vec<u8>,
    /// Payload as published.
    #[serde(rename = "data", default, deserialize_with = "bytes")]
    pub payload: Vec<u8>,
}

/// Where and when the stream holds a message; its bytes are left aside, however many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Seen {
    /// Sequence in the stream.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    #[serde(rename = "time", deserialize_with = "nanoseconds")]
    pub timestamp_ns: i64,
}

/// What may be asked of a message.
pub trait Found: DeserializeOwned {
    /// Sequence in the stream.
    fn sequence(&self) -> u64;
}

impl Found for Stored {
    fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Found for Seen {
    fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer came.
    #[error("no answer to $JS.API.STREAM.MSG.GET.{stream}")]
    Request {
        /// Stream's name.
        stream: String,
        /// What the client said.
        source: RequestError,
    },
    /// JetStream refuses.
    #[error("JetStream does not give a message of stream {stream} out: {description} ({code})")]
    Refused {
        /// Stream's name.
        stream: String,
        /// JetStream's own code of the error.
        code: u64,
        /// Its words.
        description: String,
    },
    /// The answer is of another form than JetStream's.
    #[error("the answer about a message of stream {stream} cannot be read")]
    Answer {
        /// Stream's name.
        stream: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A stream, and the connection that its messages are read over.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The connection's client.
    pub client: Client,
    /// The stream.
    pub stream: Stream,
}

impl Deref for Opened {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl Opened {
    /// The first message at or after `sequence` that any of `filters` takes; without filters, the first of
    /// all.
    pub async fn first<F: Found>(&self, sequence: u64, filters: &[String]) -> Result<Option<F>, Error> {
        first(&self.client, &self.stream.cached_info().config.name, sequence, filters).await
    }
}

#[derive(Deserialize)]
struct Answer<F> {
    message: Option<F>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The message at `sequence`; `None` where there is none.
pub async fn at<F: Found>(client: &Client, stream: &str, sequence: u64) -> Result<Option<F>, Error> {
    get(client, stream, &json!({ "seq": sequence })).await
}

/// The first message at or after `sequence` whose subject `filter` takes.
pub async fn from<F: Found>(
    client: &Client,
    stream: &str,
    sequence: u64,
    filter: &str,
) -> Result<Option<F>, Error> {
    get(client, stream, &json!({ "seq": sequence.max(1), "next_by_subj": filter })).await
}

/// The first message at or after `sequence` that any of `filters` takes; without filters, the first of all.
pub async fn first<F: Found>(
    client: &Client,
    stream: &str,
    sequence: u64,
    filters: &[String],
) -> Result<Option<F>, Error> {
    let Some((one, others)) = filters.split_first() else { return from(client, stream, sequence, ALL).await };
    let mut first: Option<F> = from(client, stream, sequence, one).await?;
    for filter in others {
        let found: Option<F> = from(client, stream, sequence, filter).await?;
        first = match (first, found) {
            (Some(first), Some(found)) => {
                Some(if found.sequence() < first.sequence() { found } else { first })
            }
            (first, found) => first.or(found),
        };
    }
    Ok(first)
}

async fn get<F: Found>(client: &Client, stream: &str, question: &Value) -> Result<Option<F>, Error> {
    let request = Request::new().payload(question.to_string().into()).timeout(Some(ANSWER));
    let answer = client.send_request(format!("$JS.API.STREAM.MSG.GET.{stream}"), request).await;
    let answer = answer.map_err(|source| Error::Request { stream: stream.to_owned(), source })?;
    // A server writes JSON in UTF-8, whatever the message holds; one that does not is read as far as it can
    // be.
    let answer: Answer<F> = serde_json::from_str(&String::from_utf8_lossy(&answer.payload))
        .map_err(|source| Error::Answer { stream: stream.to_owned(), source })?;
    match answer.error {
        Some(refusal) if refusal.err_code == NO_MESSAGE_FOUND => Ok(None),
        Some(Refusal { err_code: code, description }) => {
            Err(Error::Refused { stream: stream.to_owned(), code, description })
        }
        None => Ok(answer.message),
    }
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let time = Timestamp::deserialize(deserializer)?;
    Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

/// Base64, read out of the answer without a copy of its text.
struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        STANDARD.decode(text).map_err(E::custom)
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_str(Base64)
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream;
    use async_nats::jetstream::stream::Config;

    use super::*;
    use crate::testbed::TestNats;

    #[tokio::test]
    async fn a_message_is_found_by_its_sequence_and_by_filters_from_a_sequence_on() {
        let nats = TestNats::shared().unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let config =
            Config { name: "STORED".into(), subjects: vec!["stored.>".into()], ..Default::default() };
        let jetstream = jetstream::new(client.clone());
        let stream = jetstream.create_stream(config).await.unwrap();
        for subject in ["stored.a", "stored.b", "stored.a", "stored.c"] {
            jetstream.publish(subject, "payload".into()).await.unwrap().await.unwrap();
        }
        stream.delete_message(1).await.unwrap();
        let sequence = |found: Result<Option<Stored>, Error>| found.unwrap().map(|stored| stored.sequence);
        assert_eq!(sequence(at(&client, "STORED", 1).await), None);
        assert_eq!(sequence(at(&client, "STORED", 2).await), Some(2));
        let filters = |filters: &[&str]| filters.iter().map(|&filter| filter.to_owned()).collect::<Vec<_>>();
        for (from, only, expected) in [
            (0, filters(&[]), Some(2)),
            (3, filters(&[]), Some(3)),
            (1, filters(&["stored.c", "stored.a"]), Some(3)),
            (4, filters(&["stored.b", "stored.c"]), Some(4)),
            (4, filters(&["stored.b"]), None),
            (5, filters(&[]), None),
        ] {
            assert_eq!(
                sequence(first(&client, "STORED", from, &only).await),
                expected,
                "{only:?} from {from}"
            );
        }
        let seen: Seen = at(&client, "STORED", 4).await.unwrap().unwrap();
        let found: Stored = at(&client, "STORED", 4).await.unwrap().unwrap();
        assert_eq!((seen.sequence, seen.timestamp_ns), (4, found.timestamp_ns));
        let known = stream.get_raw_message(4).await.unwrap();
        assert_eq!((found.subject.as_str(), &found.payload[..]), ("stored.c", &b"payload"[..]));
        assert_eq!(i128::from(found.timestamp_ns), known.time.unix_timestamp_nanos());
        assert!(matches!(at::<Seen>(&client, "NO_SUCH", 1).await, Err(Error::Refused { code: 10_059, .. })));
    }
}
