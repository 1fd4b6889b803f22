//! What the stream holds of a pipeline's messages.

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};

use crate::marker::Marker;
use crate::stored::{Opened, Stored};
use crate::unreadable;

/// Attempts to count while messages arrive; each takes a few milliseconds.
const COUNTS: usize = 100;

/// Whether pipelines pass over a message by themselves.
fn is_marker(stored: &Stored) -> bool {
    let headers = unreadable::headers(&stored.headers).ok();
    headers.is_some_and(|headers| Marker::of(&headers, &stored.payload).is_some())
}

/// The messages of a stream that a pipeline reads.
pub(crate) struct Contents<'a> {
    stream: &'a Opened,
    subjects: Vec<String>,
    /// The last answer of [`Contents::next`] and what was asked: it holds for all sequences in between, so
    /// that a long stretch with many gaps and few messages takes few questions.
    known: Option<(u64, Option<u64>)>,
    /// Whether a pipeline passes over the message that was found last.
    passed_over: bool,
}

impl<'a> Contents<'a> {
    /// `subjects` narrow the stream; empty, they mean all of it.
    pub(crate) fn new(stream: &'a Opened, subjects: &[String]) -> Self {
        Self { stream, subjects: subjects.to_vec(), known: None, passed_over: false }
    }

    /// The first sequence that the stream held when the audit began.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.stream.cached_info().state.first_sequence
    }

    /// The sequence of the first message at or after `sequence`.
    pub(crate) async fn next(&mut self, sequence: u64) -> Result<Option<u64>, async_nats::Error> {
        if let Some((asked, found)) = self.known
            && asked <= sequence
            && found.is_none_or(|found| sequence <= found)
        {
            return Ok(found);
        }
        let found: Option<Stored> = self.stream.first(sequence, &self.subjects).await?;
        self.passed_over = found.as_ref().is_some_and(is_marker);
        let first = found.map(|stored| stored.sequence);
        self.known = Some((sequence, first));
        Ok(first)
    }

    /// Whether the message that [`Contents::next`] named last is one that pipelines pass over by themselves.
    pub(crate) fn is_passed_over(&self) -> bool {
        self.passed_over
    }

    /// How many messages there are from `first` to `last`.
    pub(crate) async fn count(&self, first: u64, last: u64) -> Result<u64, async_nats::Error> {
        let mut beyond = self.count_from(last + 1).await?;
        for _ in 0..COUNTS {
            let all = self.count_from(first).await?;
            let again = self.count_from(last + 1).await?;
            if again == beyond {
                return Ok(all - beyond);
            }
            beyond = again;
        }
        Err("messages arrive too fast to be counted; pause the publishers for a moment".into())
    }

    /// How many messages there are from `sequence` on: what a consumer that starts there would get.
    async fn count_from(&self, start_sequence: u64) -> Result<u64, async_nats::Error> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ack_policy: AckPolicy::None,
            filter_subjects: self.subjects.clone(),
            memory_storage: true,
            ..Default::default()
        };
        let consumer = self.stream.create_consumer(config).await?;
        let info = consumer.cached_info();
        self.stream.delete_consumer(&info.name).await?;
        Ok(info.num_pending)
    }
}
