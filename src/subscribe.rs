//! The durable consumer, and what it delivers.
//!
//! Guarantees: what [`Subscription::next`] yields is contiguous. The first delivery of a generation has
//! consumer sequence 1, each next one exactly one more, and stream sequences strictly increase from the
//! checkpoint. Anything else is a [`Breach`] and ends the generation: with one ack for all that came before,
//! a delivery that was lost on the way would be acknowledged with the rest.
//!
//! Redelivery by the server plays no part: `ack_wait` is longer than any outage in which a subscription is
//! kept.

use std::sync::Arc;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{self, RetentionPolicy};
use async_nats::{Subject, jetstream};
use bytesize::ByteSize;

use crate::config;
use crate::message::Message;
use crate::nats::Connection;
use pull::Pull;

mod place;
pub(crate) mod pull;
mod window;

pub(crate) use place::{
    Known, LEAST_SERVER, Placement, allowed_config, batch_limits, consumer_config, find, is_described,
    least_server, matches, max_ack_pending, place, refuse_others, refuse_paused,
};
pub(crate) use window::{Limits, Window};

/// What a pull request's byte limit leaves for subject, headers and protocol beside a large payload.
const PULL_BYTES_MARGIN: usize = 64 * 1024;

/// The largest payload that each pull request can bring, however little memory there is: what servers take by
/// default. Where they take larger ones, few messages are, and each of these is asked for by itself: a
/// request that could bring one could bring as many bytes of headers, which the client library holds in
/// thirty times their bytes.
const USUAL_PAYLOAD: usize = 1 << 20;

/// One message, in order, and what the server said about its delivery.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub message: Message,
    /// Sequence among the deliveries of this generation, from 1.
    pub consumer_sequence: u64,
    /// Messages of the stream that the server had not delivered yet.
    pub pending: u64,
    /// Where an ack of it, and of all before it, goes.
    pub reply: Subject,
}

/// Deliveries that cannot be what the server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    /// Deliveries are missing, or others were made to another client.
    #[error("expected delivery {expected}, got {got}")]
    Consumer {
        /// Consumer sequence that was due.
        expected: u64,
        /// Consumer sequence that came.
        got: u64,
    },
    /// The stream went backwards or repeated itself.
    #[error("stream sequence {got} came after {after}")]
    Stream {
        /// Stream sequence before.
        after: u64,
        /// Stream sequence that came.
        got: u64,
    },
}

/// Why a subscription cannot be made, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The order was broken.
    #[error("deliveries are not contiguous")]
    Breach(#[from] Breach),
    /// The consumer is gone, silent, or refuses to deliver.
    #[error(transparent)]
    Pull(#[from] pull::Error),
    /// A message came that JetStream did not deliver.
    #[error("received a message without a JetStream reply subject")]
    Foreign,
    /// An operator paused the durable in NATS.
    #[error("durable consumer {durable} is paused in NATS until {until}")]
    Paused {
        stream: String,
        durable: String,
        /// When the pause ends.
        until: String,
    },
    /// The durable is another pipeline's, whose daemon uses it.
    #[error("durable consumer {durable} is in use by pipeline {pipeline} of database {database}")]
    Elsewhere { durable: String, pipeline: String, database: String },
    /// A durable that is none of jetcopy's stands where the pipeline's is to be made for the first time.
    #[error(
        "durable consumer {durable} of stream {stream} was not created by jetcopy, and this is the \
         pipeline's first start"
    )]
    NotOurs { stream: String, durable: String },
    /// The server refuses to create the durable.
    #[error("the server refuses to create durable consumer {durable}")]
    Refused {
        durable: String,
        /// What JetStream said.
        source: jetstream::Error,
    },
    /// The server made another durable than it was asked for.
    #[error("the server created durable consumer {durable} with settings other than requested: \
             {}", .fields.join(", "))]
    Unlike {
        durable: String,
        /// What differs, by the names of the consumer's settings.
        fields: Vec<&'static str>,
    },
    /// The servers of the durable say that none of them leads it.
    #[error("durable consumer {durable} has no leader")]
    Leaderless { durable: String },
    /// The durable could not be read, made, moved or removed.
    #[error("cannot {action} durable consumer {durable}")]
    Consumer {
        /// What was tried.
        action: &'static str,
        durable: String,
        /// What the client said.
        source: async_nats::Error,
    },
}

/// A stream that drops what has been acknowledged, so that it cannot be replayed after a failover of the
/// database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream} has {retention} retention and cannot be replayed")]
pub(crate) struct Retention {
    pub stream: String,
    pub retention: &'static str,
}

/// Refuses a stream that drops what has been acknowledged.
pub(crate) fn refuse_other_retention(stream: &stream::Config) -> Result<(), Retention> {
    let retention = match stream.retention {
        RetentionPolicy::Limits => return Ok(()),
        RetentionPolicy::WorkQueue => "work queue",
        RetentionPolicy::Interest => "interest",
    };
    Err(Retention { stream: stream.name.clone(), retention })
}

/// What helps where two daemons use one durable.
pub(crate) const ONE_EACH: &str = "two daemons use one durable consumer: give one of the two pipelines \
    another name, or its own `durable`; once nobody pulls from it, jetcopy takes it over by itself";

/// The order in which deliveries must come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contiguity {
    next_consumer: u64,
    last_stream: u64,
}

impl Contiguity {
    /// The order of a generation that starts after `checkpoint`.
    #[must_use]
    pub(crate) fn after(checkpoint: u64) -> Self {
        Self { next_consumer: 1, last_stream: checkpoint }
    }

    /// Takes the next delivery, or says what is wrong with it.
    pub(crate) fn check(&mut self, consumer_sequence: u64, stream_sequence: u64) -> Result<(), Breach> {
        if consumer_sequence != self.next_consumer {
            return Err(Breach::Consumer { expected: self.next_consumer, got: consumer_sequence });
        }
        if stream_sequence <= self.last_stream {
            return Err(Breach::Stream { after: self.last_stream, got: stream_sequence });
        }
        self.next_consumer += 1;
        self.last_stream = stream_sequence;
        Ok(())
    }
}

/// Contiguous deliveries of one generation.
pub(crate) struct Subscription {
    pull: Pull,
    order: Contiguity,
    acks: AckSubjects,
}

impl Subscription {
    /// Starts pulling from a durable that was [placed](place) after `checkpoint`. What is on the way or
    /// buffered by the client stays within `window` and `limits`.
    pub(crate) async fn start(
        connection: &Connection,
        consumer: &PullConsumer,
        checkpoint: u64,
        window: Arc<Window>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let pull = Pull::start(connection, consumer, window, limits).await?;
        Ok(Self { pull, order: Contiguity::after(checkpoint), acks: AckSubjects::default() })
    }

    /// The next delivery. An error ends the generation; all that was yielded before it was in order.
    pub(crate) async fn next(&mut self) -> Result<Delivery, Error> {
        let message = self.pull.next().await?;
        self.take(message)
    }

    /// The next delivery if it has arrived already.
    #[inline]
    pub(crate) fn next_ready(&mut self) -> Option<Result<Delivery, Error>> {
        match self.pull.next_ready()? {
            Ok(message) => Some(self.take(message)),
            Err(error) => Some(Err(error.into())),
        }
    }

    #[inline]
    fn take(&mut self, message: async_nats::Message) -> Result<Delivery, Error> {
        let delivery = Delivery::new(message, &mut self.acks)?;
        self.order.check(delivery.consumer_sequence, delivery.message.sequence)?;
        self.pull.pending = delivery.pending;
        Ok(delivery)
    }
}

impl Delivery {
    #[inline]
    fn new(message: async_nats::Message, acks: &mut AckSubjects) -> Result<Self, Error> {
        let async_nats::Message { subject, reply, payload, headers, .. } = message;
        let reply = reply.ok_or(Error::Foreign)?;
        let numbers = acks.numbers(&reply).ok_or(Error::Foreign)?;
        let [sequence, consumer_sequence, timestamp_ns, pending] = numbers;
        let timestamp_ns = i64::try_from(timestamp_ns).map_err(|_| Error::Foreign)?;
        let message = Message { sequence, timestamp_ns, subject, payload, headers };
        Ok(Self { message, consumer_sequence, pending, reply })
    }
}

/// The subjects that acknowledge the deliveries of one consumer.
///
/// ADR-15 has two forms: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer
/// sequence>.<time>.<pending>` and one of eleven or more tokens, with `<domain>.<account hash>` after
/// `$JS.ACK`.
#[derive(Debug, Default)]
struct AckSubjects {
    /// What the last one began with, up to the stream sequence: the next one begins so too.
    beginning: String,
}

impl AckSubjects {
    /// Stream sequence, consumer sequence, time (ns) and count of pending messages of a delivery.
    #[inline]
    fn numbers(&mut self, reply: &str) -> Option<[u64; 4]> {
        if self.beginning.is_empty() || !reply.starts_with(&self.beginning) {
            reply[..numbers_start(reply)?].clone_into(&mut self.beginning);
        }
        let mut rest = reply.as_bytes()[self.beginning.len()..].iter();
        let mut number = || {
            let first = rest.next().filter(|byte| byte.is_ascii_digit())?;
            rest.by_ref().take_while(|&&byte| byte != b'.').try_fold(
                u64::from(first - b'0'),
                |number, byte| {
                    let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
                    number.checked_mul(10)?.checked_add(digit)
                },
            )
        };
        Some([number()?, number()?, number()?, number()?])
    }
}

/// Where the stream sequence begins in a subject that acknowledges a delivery.
fn numbers_start(reply: &str) -> Option<usize> {
    const PREFIX: &str = "$JS.ACK.";
    /// Tokens of the short form, and of those before the stream sequence.
    const SHORT: (usize, usize) = (9, 5);
    /// Tokens before the stream sequence of the other form.
    const LONG_BEFORE: usize = 7;
    reply.strip_prefix(PREFIX)?;
    let dots = || memchr::memchr_iter(b'.', reply.as_bytes());
    let before = if dots().count() + 1 == SHORT.0 { SHORT.1 } else { LONG_BEFORE };
    dots().nth(before - 1).map(|dot| dot + 1)
}

/// What pull requests may ask for, so that what is on the way stays within half of `max_buffered_bytes`; one
/// of them always fits the largest message that the server takes, or one of a usual size.
#[must_use]
pub(crate) fn limits(max_buffered_bytes: u64, max_payload: usize) -> Limits {
    let memory = usize::try_from(max_buffered_bytes / 2).unwrap_or(usize::MAX);
    let largest = max_payload.min(USUAL_PAYLOAD) + PULL_BYTES_MARGIN;
    Limits { memory, largest, batch: None, bytes: None, expires: None }
}

/// How many times the largest message `max_buffered_bytes` is at least where it bounds the daemon's memory:
/// the client library's buffer for one grows to twice its size, and what is there beside it is its rows and
/// the next one.
const LARGEST_BUFFERED: u64 = 8;

/// What [`LARGEST_BUFFERED`] asks of people.
pub(crate) const BUFFER_MORE: &str =
    "raise max_buffered_bytes to eight times the largest message, or lower the stream's max_msg_size";

/// The largest message that `stream` takes on a server that takes `max_payload` bytes.
#[must_use]
pub(crate) fn largest(stream: &stream::Config, max_payload: usize) -> ByteSize {
    let of_stream = u64::try_from(stream.max_message_size).ok().filter(|&size| size > 0);
    ByteSize(of_stream.unwrap_or(u64::MAX).min(max_payload as u64))
}

/// Whether `max_buffered_bytes` bounds the daemon's memory also for messages of `largest` bytes.
#[must_use]
pub(crate) fn bounds(pipeline: &config::Pipeline, largest: ByteSize) -> bool {
    largest.as_u64().saturating_mul(LARGEST_BUFFERED) <= pipeline.buffered_bytes().as_u64()
}

#[cfg(test)]
mod tests;
