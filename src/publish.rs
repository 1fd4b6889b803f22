//! Publishing to a stream, with acks and a bound on what is in flight.
//!
//! Guarantees: messages are sent in order, and a message counts as published when the stream has stored it. A
//! message with a `Nats-Msg-Id` is sent again if its ack is overdue, and the stream drops the second copy;
//! one without is not, because it could be stored twice. A message that had to be sent again may come after
//! later ones.

use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, context};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};

/// How long an ack may take: far above any healthy server's, and eight of them stay well within the two
/// minutes in which a stream remembers message ids.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often one message is sent.
const ATTEMPTS: usize = 8;
/// Between two attempts when the server answered at once that nobody listens, as it does while it starts.
const PAUSE: Duration = Duration::from_secs(1);

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub subject: Subject,
    /// Its headers. With a `Nats-Msg-Id` among them it can be sent again.
    pub headers: Option<HeaderMap>,
    /// What it says.
    pub payload: Bytes,
}

/// What the stream has answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Acked messages, duplicates among them.
    pub messages: u64,
    /// Messages whose id the stream already knew.
    pub duplicates: u64,
}

/// Why publishing ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody stores what is published there.
    #[error("no stream stores subject {subject:?}: create one that does")]
    NoStream {
        /// The subject of the first such message.
        subject: Subject,
    },
    /// The message is larger than the server takes.
    #[error("a message to {subject:?} is larger than the server's max_payload")]
    TooLarge {
        /// Its subject.
        subject: Subject,
        /// What the client says, with the sizes.
        #[source]
        source: context::PublishError,
    },
    /// No ack came, and the message has been tried as often as it may be.
    #[error(
        "no ack for a message to {subject:?}: is the server reachable, and does the stream have a leader?"
    )]
    NoAck {
        /// Its subject.
        subject: Subject,
        /// How the last attempt ended.
        #[source]
        source: context::PublishError,
    },
    /// The stream would not have the message.
    #[error("the stream refused a message to {subject:?}")]
    Refused {
        /// Its subject.
        subject: Subject,
        /// The stream's reason.
        #[source]
        source: context::PublishError,
    },
}

/// Publishes `messages`, at most `max_in_flight` of them waiting for their acks, and calls `on_ack` for each
/// ack.
///
/// On an error, messages that were in flight may be stored or not.
pub async fn publish(
    client: &Client,
    messages: impl Stream<Item = Outgoing>,
    max_in_flight: usize,
    mut on_ack: impl FnMut(&PublishAck),
) -> Result<Published, Error> {
    let max_in_flight = max_in_flight.max(1);
    let context =
        ContextBuilder::new().max_ack_inflight(max_in_flight).timeout(ACK_TIMEOUT).build(client.clone());
    let mut messages = std::pin::pin!(messages.fuse());
    let mut in_flight = FuturesUnordered::new();
    let mut published = Published::default();
    loop {
        let room = in_flight.len() < max_in_flight;
        tokio::select! {
            // Acks first: they make the room that the next message needs.
            biased;
            Some(ack) = in_flight.next(), if !in_flight.is_empty() => {
                let ack: PublishAck = ack?;
                published.messages += 1;
                published.duplicates += u64::from(ack.duplicate);
                on_ack(&ack);
            }
            Some(message) = messages.next(), if room => {
                let first = send(&context, &message).await;
                // Whether a stream listens at all shows with the first ack; after that, silence is an outage.
                let expect_stream = published.messages > 0;
                in_flight.push(deliver(&context, message, first, expect_stream));
            }
            else => return Ok(published),
        }
    }
}

async fn send(
    context: &jetstream::Context,
    message: &Outgoing,
) -> Result<PublishAckFuture, context::PublishError> {
    let mut outgoing = PublishMessage::build().payload(message.payload.clone());
    if let Some(headers) = &message.headers {
        outgoing = outgoing.headers(headers.clone());
    }
    context.send_publish(message.subject.clone(), outgoing).await
}

/// Waits for the ack, and sends the message again as often as that makes sense.
async fn deliver(
    context: &jetstream::Context,
    message: Outgoing,
    first: Result<PublishAckFuture, context::PublishError>,
    expect_stream: bool,
) -> Result<PublishAck, Error> {
    let has_id = message.headers.as_ref().is_some_and(|headers| headers.get(NATS_MESSAGE_ID).is_some());
    let mut sent = first;
    let mut attempt = 1;
    loop {
        let source = match sent {
            Ok(ack) => match ack.await {
                Ok(ack) => return Ok(ack),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let subject = message.subject.clone();
        match source.kind() {
            // Nothing was stored, so sending again is safe without an id.
            PublishErrorKind::StreamNotFound if !expect_stream => return Err(Error::NoStream { subject }),
            PublishErrorKind::StreamNotFound if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe if has_id && attempt < ATTEMPTS => {}
            PublishErrorKind::StreamNotFound | PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                return Err(Error::NoAck { subject, source });
            }
            PublishErrorKind::MaxPayloadExceeded => return Err(Error::TooLarge { subject, source }),
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::Other => return Err(Error::Refused { subject, source }),
        }
        attempt += 1;
        sent = send(context, &message).await;
    }
}

/// Lets `messages` through at `per_second`. What could not be sent in time is caught up with.
pub fn paced<S: Stream>(messages: S, per_second: f64) -> impl Stream<Item = S::Item> {
    let start = tokio::time::Instant::now();
    messages.enumerate().then(move |(index, message)| async move {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
        let due = start + Duration::from_secs_f64(index as f64 / per_second);
        tokio::time::sleep_until(due).await;
        message
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use jetstream::stream::Config;

    use super::*;
    use crate::testbed::{NatsOptions, Stop, TestNats};

    async fn stream_of(nats: &TestNats, name: &str) -> (Client, jetstream::stream::Stream) {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let config = Config { name: name.into(), subjects: vec![format!("{name}.>")], ..Default::default() };
        let stream = jetstream::new(client.clone()).create_stream(config).await.unwrap();
        (client, stream)
    }

    fn numbered(subject: &str, count: usize, with_id: bool) -> impl Stream<Item = Outgoing> + use<> {
        let subject = Subject::from(subject.to_owned());
        stream::iter((0..count).map(move |n| {
            let headers = with_id.then(|| {
                let mut headers = HeaderMap::new();
                headers.insert(NATS_MESSAGE_ID, n.to_string());
                headers
            });
            Outgoing { subject: subject.clone(), headers, payload: n.to_string().into() }
        }))
    }

    #[tokio::test]
    async fn messages_are_stored_in_the_order_they_were_given() {
        let nats = TestNats::shared().unwrap();
        let (client, stream) = stream_of(&nats, "ORDER").await;
        let published =
            publish(&client, numbered("ORDER.a", 3_000, false), 100, |ack| assert_eq!(ack.stream, "ORDER"))
                .await
                .unwrap();
        assert_eq!(published, Published { messages: 3_000, duplicates: 0 });
        for sequence in [1_u64, 2, 1_500, 3_000] {
            let message = stream.get_raw_message(sequence).await.unwrap();
            assert_eq!(message.payload, (sequence - 1).to_string());
        }
    }

    #[tokio::test]
    async fn a_known_message_id_is_counted_as_a_duplicate() {
        let nats = TestNats::shared().unwrap();
        let (client, mut stream) = stream_of(&nats, "TWICE").await;
        publish(&client, numbered("TWICE.a", 10, true), 4, |_| {}).await.unwrap();
        let again = publish(&client, numbered("TWICE.a", 12, true), 4, |_| {}).await.unwrap();
        assert_eq!(again, Published { messages: 12, duplicates: 10 });
        assert_eq!(stream.info().await.unwrap().state.messages, 12);
    }

    #[tokio::test]
    async fn a_subject_without_a_stream_is_an_error_that_names_it() {
        let nats = TestNats::shared().unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let error = publish(&client, numbered("nowhere.a", 3, true), 2, |_| {}).await.unwrap_err();
        assert!(
            matches!(&error, Error::NoStream { subject } if subject.as_str() == "nowhere.a"),
            "{error:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_is_killed_while_publishing_loses_and_duplicates_nothing() {
        const COUNT: usize = 20_000;
        let mut nats = TestNats::start(&NatsOptions::default()).unwrap();
        let (client, _) = stream_of(&nats, "CRASH").await;
        let (half, at_half) = tokio::sync::oneshot::channel();
        let mut half = Some(half);
        let mut acked = 0;
        let publishing = tokio::spawn(async move {
            let on_ack = move |_: &PublishAck| {
                acked += 1;
                if acked == COUNT / 4 {
                    let _ = half.take().map(|half| half.send(()));
                }
            };
            publish(&client, numbered("CRASH.a", COUNT, true), 500, on_ack).await
        });
        at_half.await.unwrap();
        nats.stop(Stop::Kill);
        nats.start_again().unwrap();
        assert_eq!(publishing.await.unwrap().unwrap().messages, COUNT as u64);
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut stream = jetstream::new(client).get_stream("CRASH").await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, COUNT as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_stream_keeps_its_rate() {
        let start = tokio::time::Instant::now();
        assert_eq!(paced(stream::iter(0..=500), 100.0).count().await, 501);
        let took = start.elapsed();
        assert!((4.9..5.1).contains(&took.as_secs_f64()), "{took:?}");
    }
}
