//! Where a pipeline stands in its stream, and what is left of that when a generation ends or nobody answers.
//!
//! Guarantees: the checkpoint lies beyond the stream's end only where it counts in another history of the
//! stream; what nobody can tell any more is forgotten rather than left as it was.

use std::sync::PoisonError;

use super::{Known, PipelineMetrics, gauge_value};
use crate::loss::{Cause, Loss};

/// Where reading goes on past a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumes {
    /// After this sequence.
    after: u64,
    /// Whether the checkpoint counts in another history of the stream.
    elsewhere: bool,
}

impl Resumes {
    /// Past `loss`.
    #[must_use]
    pub fn past(loss: &Loss) -> Self {
        Self { after: loss.resume_after, elsewhere: loss.cause != Cause::Dropped }
    }
}

impl PipelineMetrics {
    /// Everything up to `sequence` is committed. The stream is asked for its end every two seconds: what is
    /// committed was there.
    pub fn committed_to(&self, sequence: u64) {
        let sequence = gauge_value(sequence);
        self.checkpoint_sequence.set(sequence);
        if !self.counts_elsewhere() && self.stream_last_sequence.get().is_some_and(|last| last < sequence) {
            self.stream_last_sequence.set(sequence);
        }
    }

    /// The stream's ends, as it says.
    pub fn stream_holds(&self, first: u64, last: u64) {
        let checkpoint = self.checkpoint_sequence.count().filter(|_| !self.counts_elsewhere());
        self.stream_first_sequence.set(gauge_value(first));
        self.stream_last_sequence
            .set(gauge_value(checkpoint.map_or(last, |checkpoint| last.max(checkpoint))));
    }

    /// Where reading goes on once a loss is accepted; `None` where it goes on from the checkpoint.
    pub fn resumes(&self, resumes: Option<Resumes>) {
        *self.resumes.lock().unwrap_or_else(PoisonError::into_inner) = resumes;
    }

    /// Where reading goes on: behind the checkpoint, or past a loss that nobody has accepted. `None` where it
    /// is not known.
    #[must_use]
    pub fn reads_after(&self) -> Option<u64> {
        let resumes = *self.resumes.lock().unwrap_or_else(PoisonError::into_inner);
        resumes.map(|resumes| resumes.after).or_else(|| self.checkpoint_sequence.count())
    }

    /// Whether the checkpoint counts in another history of the stream than it has now: one that was made
    /// anew, or rolled back.
    #[must_use]
    pub fn counts_elsewhere(&self) -> bool {
        let resumes = *self.resumes.lock().unwrap_or_else(PoisonError::into_inner);
        resumes.is_some_and(|resumes| resumes.elsewhere)
    }

    /// A generation has ended: what it had in memory is gone, and the server has it yet to deliver.
    pub fn ended(&self) {
        // Nobody counts with this one.
        drop(self.buffered.begin());
        // It committed some since the last probe, or all.
        let (last, at) = (self.stream_last_sequence.get(), self.checkpoint_sequence.get());
        if let (Some(backlog), Some(last), Some(at), false) =
            (self.backlog.get(), last, at, self.counts_elsewhere())
        {
            let backlog = backlog.min((last - at).max(0));
            self.backlog.set(backlog);
            // What was on its way will be delivered again.
            self.pending_messages.set(backlog);
        }
        for gauge in [&self.in_flight_messages, &self.uncommitted_messages] {
            if gauge.get().is_some() {
                gauge.set(0);
            }
        }
    }

    /// The gauges that are shown only where their value is known.
    #[must_use]
    pub fn known(&self) -> [&Known; 14] {
        [
            &self.pending_messages,
            &self.in_flight_messages,
            &self.uncommitted_messages,
            &self.ack_pending_messages,
            &self.stream_first_sequence,
            &self.stream_last_sequence,
            &self.checkpoint_sequence,
            &self.behind_seconds,
            &self.headroom_sequences,
            &self.headroom_seconds,
            &self.catch_up_seconds,
            &self.database_up,
            &self.nats_up,
            &self.dead_letters_in_table,
        ]
    }

    /// NATS has not answered for so long that what it said last says nothing of now.
    pub fn forget_lag(&self) {
        for gauge in [
            &self.pending_messages,
            &self.ack_pending_messages,
            &self.in_flight_messages,
            &self.uncommitted_messages,
            &self.backlog,
        ] {
            gauge.forget();
        }
    }
}
