//! Whether a durable that seems to have nothing to do stands still.
//!
//! Guarantees: trouble is only what two probes in a row saw alike, since a message may be on its way at any moment. A
//! reader without room says nothing: what it was sent waits in the client, and the client asks for no more.

use std::sync::atomic::Ordering;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream;

use super::{Error, Progress};
use crate::gaps::{self, Contents};

/// What a probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    /// Consumer sequence of the last delivery that the reader took.
    received: u64,
    /// Whether the reader has room for more.
    room: bool,
    /// Consumer sequence that the server delivered last.
    delivered: u64,
    /// Whether there are messages to deliver, room for them under `max_ack_pending`, and no pull request for them.
    starved: bool,
    /// The first message after the last delivery that the durable has passed over.
    skipped: Option<u64>,
}

impl Observation {
    pub(super) fn new(consumer: &Info, progress: &Progress, skipped: Option<u64>) -> Self {
        let unacked = i64::try_from(consumer.num_ack_pending).unwrap_or(i64::MAX);
        Self {
            received: progress.delivered.load(Ordering::Relaxed),
            room: progress.room.load(Ordering::Relaxed),
            delivered: consumer.delivered.consumer_sequence,
            starved: consumer.num_waiting == 0
                && consumer.num_pending > 0
                && unacked < consumer.config.max_ack_pending,
            skipped,
        }
    }

    /// What is wrong if the probe before saw the same.
    pub(super) fn trouble(self) -> Option<Error> {
        if !self.room {
            None
        } else if self.delivered > self.received {
            Some(Error::Undelivered { server: self.delivered, received: self.received })
        } else if let Some(sequence) = self.skipped {
            Some(Error::Skipped { sequence })
        } else {
            self.starved.then_some(Error::NoPull)
        }
    }
}

/// The first message that the stream holds after the last delivery, if the durable has nothing to deliver any more. No
/// later delivery would tell of it while the stream is silent.
pub(super) async fn skipped(
    consumer: &Info,
    stream: &stream::Info,
    contents: &Contents,
    progress: &Progress,
) -> Result<Option<u64>, gaps::Error> {
    let position = progress.position.load(Ordering::Relaxed);
    let received = progress.delivered.load(Ordering::Relaxed);
    let last = stream.state.last_sequence;
    if consumer.num_pending > 0 || consumer.delivered.consumer_sequence != received || last <= position {
        return Ok(None);
    }
    Ok(contents.next(position + 1).await?.filter(|&next| next <= last))
}
