//! Publishing fast: one subscription for all acks, and nothing is kept of a message but its time of sending.
//!
//! Guarantees: each message is acknowledged by the stream, in order and as the next of its sequence, or
//! publishing ends with an error; at most `in_flight` wait for their acks. So the message of number n has
//! sequence n + 1 of a stream that was empty. A message that goes out late counts as sent two milliseconds
//! after it was due: a publisher that is held up hides no latency.
//!
//! It sends nothing twice. [`crate::publish`] does, and keeps each message until it is acknowledged, which
//! costs several times as much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subject};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::time::Instant;

/// How long the next ack may take: far above what any healthy server needs.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at what is due: the finest that the timer has.
const TICK: Duration = Duration::from_millis(1);
/// What of a message's delay is the publisher's own: two ticks, which the timer costs. Any more counts as
/// latency.
const LATE: Duration = Duration::from_millis(2);

/// What is published, and how fast.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where to: a subject that one stream stores and nobody else publishes to.
    pub subject: Subject,
    /// How many messages.
    pub total: u64,
    /// Messages a second; without it, as fast as the acks come.
    pub rate: Option<f64>,
    /// Messages that may wait for their acks.
    pub in_flight: u64,
    /// When the first is due, and what times are counted from.
    pub start: Instant,
}

/// Why publishing ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection is gone, or the client would not have the message.
    #[error("cannot publish to {subject}")]
    Client {
        /// The subject.
        subject: Subject,
        /// What the client says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came.
    #[error("no ack for a message to {subject} within {ACK_TIMEOUT:?}: does the stream have a leader?")]
    NoAck {
        /// The subject.
        subject: Subject,
    },
    /// The stream would not have the message.
    #[error("the stream refused a message to {subject}: {why}")]
    Refused {
        /// The subject.
        subject: Subject,
        /// What it said.
        why: String,
    },
    /// The stream has given the message another sequence than its number.
    #[error(
        "a message to {subject} got sequence {found} instead of {expected}: does something else publish \
         there?"
    )]
    Order {
        /// The subject.
        subject: Subject,
        /// The sequence in the ack.
        found: u64,
        /// The one after the ack before.
        expected: u64,
    },
}

/// What a stream answers to a message.
#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    description: String,
}

/// Publishes what `message` makes of each number, and counts the acks in `acked`. Returns when each was sent,
/// in microseconds since the start; nothing where no rate was asked for.
pub async fn publish(
    client: &Client,
    job: &Job,
    mut message: impl FnMut(u64) -> Bytes,
    acked: &AtomicU64,
) -> Result<Vec<u64>, Error> {
    let inbox = client.new_inbox();
    let failed = |source| Error::Client { subject: job.subject.clone(), source };
    let mut acks = client.subscribe(inbox.clone()).await.map_err(|error| failed(Box::new(error)))?;
    let reply = Subject::from(inbox);
    let mut times = Vec::with_capacity(job.rate.map_or(0, |_| usize::try_from(job.total).unwrap_or(0)));
    let (mut sent, mut done) = (0, 0);
    tokio::time::sleep_until(job.start).await;
    while done < job.total {
        let due = job.due();
        while sent < due && sent - done < job.in_flight {
            if job.rate.is_some() {
                times.push(job.sent_at(sent));
            }
            let payload = message(sent);
            client
                .publish_with_reply(job.subject.clone(), reply.clone(), payload)
                .await
                .map_err(|error| failed(Box::new(error)))?;
            sent += 1;
        }
        while let Some(Some(ack)) = acks.next().now_or_never() {
            done += 1;
            job.check(&ack, done)?;
        }
        acked.store(done, Ordering::Relaxed);
        if done == job.total {
            break;
        }
        let waits_for_its_turn = sent < job.total && sent - done < job.in_flight;
        let patience = if waits_for_its_turn { TICK } else { ACK_TIMEOUT };
        match tokio::time::timeout(patience, acks.next()).await {
            Ok(Some(ack)) => {
                done += 1;
                job.check(&ack, done)?;
            }
            Ok(None) => return Err(failed("the connection was closed".into())),
            Err(_) if waits_for_its_turn => {}
            Err(_) => return Err(Error::NoAck { subject: job.subject.clone() }),
        }
    }
    acked.store(done, Ordering::Relaxed);
    Ok(times)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times and rates are positive and small"
)]
impl Job {
    /// How many messages should have gone out by now.
    fn due(&self) -> u64 {
        match self.rate {
            None => self.total,
            Some(rate) => self.total.min((self.start.elapsed().as_secs_f64() * rate) as u64 + 1),
        }
    }

    /// What the message that goes out now counts as sent at.
    fn sent_at(&self, number: u64) -> u64 {
        let now = self.start.elapsed().as_micros() as u64;
        let due = self.rate.map_or(now, |rate| (number as f64 / rate * 1e6) as u64);
        now.min(due + LATE.as_micros() as u64)
    }

    /// Looks at the ack that should be the `expected`th.
    fn check(&self, message: &Message, expected: u64) -> Result<(), Error> {
        let refused = |why: String| Error::Refused { subject: self.subject.clone(), why };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(refused("no stream stores it".into()));
        }
        let ack: Ack = serde_json::from_slice(&message.payload)
            .map_err(|_| refused(String::from_utf8_lossy(&message.payload).into_owned()))?;
        match (ack.seq, ack.error) {
            (_, Some(error)) => Err(refused(error.description)),
            (Some(found), None) if found == expected => Ok(()),
            (found, None) => {
                Err(Error::Order { subject: self.subject.clone(), found: found.unwrap_or(0), expected })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::{self, stream::Config};

    use super::*;
    use crate::testbed::TestNats;

    fn job(subject: &str, total: u64, rate: Option<f64>) -> Job {
        Job { subject: subject.to_owned().into(), total, rate, in_flight: 100, start: Instant::now() }
    }

    async fn stream(nats: &TestNats, config: Config) -> (Client, jetstream::stream::Stream) {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let stream = jetstream::new(client.clone()).create_stream(config).await.unwrap();
        (client, stream)
    }

    #[tokio::test]
    async fn every_message_is_stored_once_in_its_order_and_has_a_time() {
        let nats = TestNats::shared().unwrap();
        let config = Config { name: "BENCH_ORDER".into(), ..Default::default() };
        let (client, stream) = stream(&nats, config).await;
        let acked = AtomicU64::new(0);
        let times = publish(
            &client,
            &job("BENCH_ORDER", 3_000, Some(1e6)),
            |number| number.to_string().into(),
            &acked,
        )
        .await
        .unwrap();
        assert_eq!((times.len(), acked.into_inner()), (3_000, 3_000));
        assert!(times.is_sorted());
        for sequence in [1_u64, 2, 3_000] {
            let message = stream.get_raw_message(sequence).await.unwrap();
            assert_eq!(message.payload, (sequence - 1).to_string());
        }
    }

    #[tokio::test]
    async fn a_stream_that_somebody_else_fills_and_one_that_refuses_end_publishing() {
        let nats = TestNats::shared().unwrap();
        let (client, _stream) =
            stream(&nats, Config { name: "BENCH_SHARED".into(), ..Default::default() }).await;
        let acked = AtomicU64::new(0);
        let message = |_| Bytes::from_static(b"x");
        publish(&client, &job("BENCH_SHARED", 1, None), message, &acked).await.unwrap();
        let error = publish(&client, &job("BENCH_SHARED", 1, None), message, &acked).await.unwrap_err();
        assert!(matches!(error, Error::Order { found: 2, expected: 1, .. }), "{error:?}");

        let config = Config { name: "BENCH_SMALL".into(), max_message_size: 1, ..Default::default() };
        let (client, _stream) = stream(&nats, config).await;
        let error = publish(&client, &job("BENCH_SMALL", 1, None), |_| Bytes::from_static(b"xx"), &acked)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("message size exceeds maximum allowed"), "{error}");

        let error = publish(&client, &job("nowhere", 1, None), message, &acked).await.unwrap_err();
        assert!(error.to_string().ends_with("no stream stores it"), "{error}");
    }
}
