//! The durable consumer, and what it delivers.
//!
//! Guarantees: what [`Subscription::next`] yields is contiguous. The first delivery of a generation has consumer
//! sequence 1, each next one exactly one more, and stream sequences strictly increase from the checkpoint. Anything
//! else is a [`Breach`] and ends the generation: with one ack for all that came before, a delivery that was lost on
//! the way would be acknowledged with the rest.
//!
//! Redelivery by the server plays no part: `ack_wait` is longer than any outage in which a subscription is kept.

use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use jiff::Timestamp;

use crate::config;
use crate::nats::Connection;
use pull::Pull;

pub mod pull;

/// Batches that may be delivered and not yet acknowledged: one being filled, one queued, one being written, and one
/// on the way. More makes an ack over an expired queue slow, which is quadratic in the server.
const BATCHES_UNACKED: usize = 4;

/// Never fewer: small batches come many in a second, and each waits for its ack to come round.
const LEAST_UNACKED: usize = 10_000;

/// Redelivery is no recovery path here; a week outlasts every outage in which a subscription stays open.
const ACK_WAIT: Duration = Duration::from_hours(7 * 24);

/// What a pull request's byte limit leaves for subject, headers and protocol beside the largest payload. A message
/// over the limit would never be delivered.
const PULL_BYTES_MARGIN: usize = 64 * 1024;

/// First server version with consumer reset (ADR-60).
const RESET_SINCE: (i64, i64, i64) = (2, 14, 0);

/// How the durable is put at its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placement {
    /// Moved where the server can do it and nobody else pulls from it, else recreated.
    #[default]
    Reset,
    /// Deleted and created: ends pull requests of other clients too.
    Recreate,
}

/// One message, in order.
#[derive(Debug)]
pub struct Delivery {
    /// Stream sequence.
    pub sequence: u64,
    /// Sequence among the deliveries of this generation, from 1.
    pub consumer_sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// Messages of the stream that the server had not delivered yet.
    pub pending: u64,
    /// Full subject.
    pub subject: Subject,
    /// Payload as published.
    pub payload: Bytes,
    /// Headers, where it has any.
    pub headers: Option<HeaderMap>,
    /// Where an ack of it, and of all before it, goes.
    pub reply: Subject,
}

/// Deliveries that cannot be what the server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
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

/// Why a subscription cannot be made or goes on no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The order was broken.
    #[error("deliveries are not contiguous")]
    Breach(#[from] Breach),
    /// The consumer is gone, silent, or refuses to deliver.
    #[error(transparent)]
    Pull(#[from] pull::Error),
    /// A message came that JetStream did not deliver.
    #[error("a message without JetStream's reply subject came in")]
    Foreign,
    /// An operator paused the durable in NATS.
    #[error("durable consumer {durable} is paused in NATS until {until}")]
    Paused {
        /// Stream's name.
        stream: String,
        /// Consumer's name.
        durable: String,
        /// When the pause ends.
        until: String,
    },
    /// The durable could not be read, made, moved or removed.
    #[error("cannot {action} durable consumer {durable}")]
    Consumer {
        /// What was tried.
        action: &'static str,
        /// Consumer's name.
        durable: String,
        /// What the client said.
        source: async_nats::Error,
    },
}

/// Refuses a durable that an operator paused in NATS: nothing is delivered on it, and jetcopy does not undo what somebody
/// meant.
pub fn refuse_paused(durable: &consumer::Info) -> Result<(), Error> {
    if !durable.paused {
        return Ok(());
    }
    let until = durable.config.pause_until.and_then(|end| Timestamp::from_second(end.unix_timestamp()).ok());
    Err(Error::Paused {
        stream: durable.stream_name.clone(),
        durable: durable.name.clone(),
        until: until.map_or_else(|| "an unknown time".to_owned(), |until| until.to_string()),
    })
}

/// The order in which deliveries must come.
#[derive(Debug, Clone, Copy)]
pub struct Contiguity {
    next_consumer: u64,
    last_stream: u64,
}

impl Contiguity {
    /// The order of a generation that starts after `checkpoint`.
    #[must_use]
    pub fn after(checkpoint: u64) -> Self {
        Self { next_consumer: 1, last_stream: checkpoint }
    }

    /// Takes the next delivery, or says what is wrong with it.
    pub fn check(&mut self, consumer_sequence: u64, stream_sequence: u64) -> Result<(), Breach> {
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

/// The configuration that the durable of `pipeline` must have.
#[must_use]
pub fn consumer_config(pipeline: &config::Pipeline, deliver_policy: DeliverPolicy) -> Config {
    let max_ack_pending = pipeline.batch.max_rows.saturating_mul(BATCHES_UNACKED).max(LEAST_UNACKED);
    let mut config = Config {
        durable_name: Some(pipeline.durable_name()),
        description: Some(format!("cursor of jetcopy pipeline {}", pipeline.name)),
        deliver_policy,
        ack_policy: AckPolicy::All,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        replay_policy: ReplayPolicy::Instant,
        max_ack_pending: i64::try_from(max_ack_pending).unwrap_or(i64::MAX),
        ..Default::default()
    };
    match pipeline.subjects.as_slice() {
        [] => {}
        [subject] => config.filter_subject.clone_from(subject),
        subjects => config.filter_subjects = subjects.to_vec(),
    }
    config
}

/// Whether what an operator or another program may have changed on the durable still is as `wanted`.
#[must_use]
pub fn matches(found: &async_nats::jetstream::consumer::Config, wanted: &Config) -> bool {
    found.ack_policy == wanted.ack_policy
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
        && found.filter_subject == wanted.filter_subject
        && found.filter_subjects == wanted.filter_subjects
        && found.replay_policy == wanted.replay_policy
        && found.backoff.is_empty()
        && !found.headers_only
        && found.deliver_subject.is_none()
}

/// Puts the durable so that its next delivery is the first message after `checkpoint`, with consumer sequence 1.
pub async fn place(
    client: &async_nats::Client,
    stream: &Stream,
    pipeline: &config::Pipeline,
    checkpoint: u64,
    placement: Placement,
) -> Result<PullConsumer, Error> {
    let durable = pipeline.durable_name();
    let failed = |action| {
        let durable = durable.clone();
        move |source: async_nats::Error| Error::Consumer { action, durable, source }
    };
    let start = checkpoint + 1;
    let can_reset = client.is_server_compatible(RESET_SINCE.0, RESET_SINCE.1, RESET_SINCE.2);
    let found = find(stream, pipeline).await?;
    found.as_ref().map_or(Ok(()), refuse_paused)?;
    if can_reset
        && placement == Placement::Reset
        && let Some(found) = found
    {
        let usable = found.config.deliver_policy == DeliverPolicy::All
            && matches(&found.config, &consumer_config(pipeline, DeliverPolicy::All));
        if usable {
            let reset = stream.reset_consumer(&durable, Some(start)).await;
            // A waiting pull request is another client's: it would take the first messages.
            if reset.map_err(|e| failed("reset")(e.into()))?.info.num_waiting == 0 {
                return stream.get_consumer(&durable).await.map_err(failed("read"));
            }
            tracing::info!(durable, "another client pulls from the durable, creating it anew");
        } else {
            tracing::warn!(durable, "the durable is not configured as jetcopy does it, creating it anew");
        }
    }
    if find(stream, pipeline).await?.is_some() {
        stream.delete_consumer(&durable).await.map_err(|e| failed("delete")(e.into()))?;
    }
    let policy =
        if can_reset { DeliverPolicy::All } else { DeliverPolicy::ByStartSequence { start_sequence: start } };
    let consumer = stream
        .create_consumer_strict(consumer_config(pipeline, policy))
        .await
        .map_err(|e| failed("create")(e.into()))?;
    if can_reset && start > 1 {
        stream.reset_consumer(&durable, Some(start)).await.map_err(|e| failed("reset")(e.into()))?;
    }
    Ok(consumer)
}

/// The durable as it is, where there is one.
pub async fn find(stream: &Stream, pipeline: &config::Pipeline) -> Result<Option<consumer::Info>, Error> {
    let durable = pipeline.durable_name();
    match stream.consumer_info(&durable).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Consumer { action: "read", durable, source: error.into() }),
    }
}

/// Contiguous deliveries of one generation.
pub struct Subscription {
    pull: Pull,
    order: Contiguity,
    acks: AckSubjects,
}

impl Subscription {
    /// Starts pulling from a durable that was [placed](place) after `checkpoint`. At most about two pull requests of
    /// `pull_bytes` each are on the way or buffered by the client.
    pub async fn start(
        connection: &Connection,
        consumer: &PullConsumer,
        checkpoint: u64,
        pull_bytes: usize,
    ) -> Result<Self, Error> {
        let pull = Pull::start(connection, consumer, pull_bytes).await?;
        Ok(Self { pull, order: Contiguity::after(checkpoint), acks: AckSubjects::default() })
    }

    /// The next delivery. An error ends the generation; all that was yielded before it was in order.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        let message = self.pull.next().await?;
        self.take(message)
    }

    /// The next delivery if it has arrived already.
    #[inline]
    pub fn next_ready(&mut self) -> Option<Result<Delivery, Error>> {
        match self.pull.next_ready()? {
            Ok(message) => Some(self.take(message)),
            Err(error) => Some(Err(error.into())),
        }
    }

    #[inline]
    fn take(&mut self, message: async_nats::Message) -> Result<Delivery, Error> {
        let delivery = Delivery::new(message, &mut self.acks)?;
        self.order.check(delivery.consumer_sequence, delivery.sequence)?;
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
        Ok(Self { sequence, consumer_sequence, timestamp_ns, pending, subject, payload, headers, reply })
    }
}

/// The subjects that acknowledge the deliveries of one consumer.
///
/// ADR-15 has two forms: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>`
/// and one of eleven or more tokens, with `<domain>.<account hash>` after `$JS.ACK`.
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

/// Bytes that one pull request may bring, so that two of them stay within half of `max_buffered_bytes`; never less
/// than the largest message that the server takes, since a message over the limit would be asked for without end.
#[must_use]
pub fn pull_bytes(max_buffered_bytes: u64, max_payload: usize) -> usize {
    let quarter = usize::try_from(max_buffered_bytes / 4).unwrap_or(usize::MAX);
    quarter.max(max_payload + PULL_BYTES_MARGIN)
}

#[cfg(test)]
mod tests;
