//! Whether a durable that seems to have nothing to do is stuck.
//!
//! Guarantees: trouble is only what two probes in a row saw alike, since a message may be on its way at any
//! moment. A reader without room says nothing: what it was sent waits in the client, and the client asks for
//! no more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream;

use super::{Error, Progress};
use crate::batch::Moved;
use crate::gaps::{self, Contents};
use crate::liveness::PROBE;

/// The shortest time between two probes: a stream whose messages live for less than four of it is no store.
const SOONEST: Duration = Duration::from_millis(250);

/// More deliveries are not what an account that lets one answer through makes of the requests at a
/// generation's beginning.
const FEW: u64 = 8;

/// Why only the first delivery of each request may come.
const ONE_ANSWER: &str = "; if JetStream is imported from another account, its export of $JS.API.> must have \
                          `response_type: stream`: without it, a request gets only one answer";

/// What a probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    /// Consumer sequence of the last delivery that the reader took.
    received: u64,
    /// Whether the reader has room for more.
    room: bool,
    /// Consumer sequence that the server delivered last.
    delivered: u64,
    /// Whether there are messages to deliver, room for them under `max_ack_pending`, and no pull request for
    /// them.
    starved: bool,
    /// The first message after the last delivery that the durable has passed over.
    skipped: Option<u64>,
    /// Messages that are unacknowledged, where the server delivers no more for it and all of them are
    /// committed.
    unacknowledged: Option<usize>,
}

impl Observation {
    pub(super) fn new(consumer: &Info, progress: &Progress, rest: &Rest) -> Self {
        let unacked = i64::try_from(consumer.num_ack_pending).unwrap_or(i64::MAX);
        let received = progress.delivered.load(Ordering::Relaxed);
        let delivered = consumer.delivered.consumer_sequence;
        let allowed = consumer.config.max_ack_pending;
        let full = allowed > 0 && unacked >= allowed;
        // A server may count less than it delivered, after an ack that counted for more.
        let done = delivered <= received && uncommitted(progress) == 0;
        Self {
            received,
            room: progress.room.load(Ordering::Relaxed),
            delivered,
            starved: consumer.num_waiting == 0 && consumer.num_pending > 0 && unacked < allowed,
            skipped: if let Rest::Skipped(sequence) = rest { Some(*sequence) } else { None },
            unacknowledged: (full && done).then_some(consumer.num_ack_pending),
        }
    }

    /// What is wrong if the probe before saw the same.
    pub(super) fn trouble(self) -> Option<Error> {
        if !self.room {
            None
        } else if self.delivered > self.received {
            let hint = if self.received <= FEW { ONE_ANSWER } else { "" };
            Some(Error::Undelivered { server: self.delivered, received: self.received, hint })
        } else if let Some(unacknowledged) = self.unacknowledged {
            Some(Error::Unacknowledged { unacknowledged, remedy: None })
        } else if let Some(sequence) = self.skipped {
            Some(Error::Skipped { sequence })
        } else {
            self.starved.then_some(Error::NoPull)
        }
    }
}

/// What the stream holds after the last message that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Something is under way, or nothing was stored since.
    Unknown,
    /// Messages, and none of the pipeline.
    Nothing(Moved),
    /// A message of the pipeline, and the durable has nothing to deliver any more. No later delivery would
    /// tell of it while the stream is silent.
    Skipped(u64),
}

/// Deliveries that were taken and are not committed.
fn uncommitted(progress: &Progress) -> u64 {
    let fetched = progress.fetched.load(Ordering::Relaxed);
    let committed = progress.committed.load(Ordering::Relaxed).saturating_sub(fetched);
    progress.delivered.load(Ordering::Relaxed).saturating_sub(committed)
}

/// Looks at the rest of `stream`, whose state was read before the consumer's: of what it held then, a
/// consumer that has nothing to deliver has delivered all.
pub(super) async fn rest(
    consumer: &Info,
    stream: &stream::Info,
    contents: &Contents,
    progress: &Progress,
) -> Result<Rest, gaps::Error> {
    let after = progress.position.load(Ordering::Relaxed);
    let received = progress.delivered.load(Ordering::Relaxed);
    let to = stream.state.last_sequence;
    let busy = consumer.num_pending > 0
        || consumer.delivered.consumer_sequence > received
        || uncommitted(progress) > 0;
    if busy || to <= after {
        return Ok(Rest::Unknown);
    }
    let stored = stream.state.last_timestamp.unix_timestamp_nanos();
    let timestamp_ns = i64::try_from(stored).unwrap_or(i64::MAX);
    Ok(match contents.next(after + 1).await? {
        Some(next) if next <= to => Rest::Skipped(next),
        _ => Rest::Nothing(Moved { after, to, timestamp_ns }),
    })
}

/// When to probe next for a pipeline whose checkpoint moves by it: four times before a message that the
/// stream stores now is dropped, if it goes on as it does.
pub(super) fn soon(stream: &stream::Info) -> Duration {
    let state = &stream.state;
    let span = (state.last_timestamp - state.first_timestamp).unsigned_abs();
    if state.messages == 0 || state.first_sequence <= 1 { PROBE } else { (span / 4).clamp(SOONEST, PROBE) }
}
