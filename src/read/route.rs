//! Which writer a batch goes to, and what each writer has to move past without rows.
//!
//! Guarantees: a batch lies within one block, so it is of one lane. What a lane has committed already is not
//! written again. A lane whose sequences were deleted, filtered away or passed over moves past them only once
//! it was checked that nothing is missing there: everything up to [`Route::through`] is.

use tokio::sync::mpsc;

use crate::ack::Ack;
use crate::batch::{Batch, Moved};
use crate::lanes::Lanes;

/// What the writers of a generation were sent.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where they stood at its beginning.
    stored: Lanes,
    /// The last sequence that each was sent.
    sent: Vec<u64>,
    /// Up to here everything was sent, or is nobody's.
    through: u64,
    /// When the stream stored the message there, 0 where that is not known.
    stored_ns: i64,
    /// The last delivery that was committed before, and is to be acknowledged.
    delivered: Option<Ack>,
    acks: mpsc::Sender<Ack>,
}

impl Route {
    /// To writers who stand there.
    #[must_use]
    pub(crate) fn new(stored: Lanes, acks: mpsc::Sender<Ack>) -> Self {
        let (sent, through) = (stored.checkpoints().to_vec(), stored.floor());
        Self { stored, sent, through, stored_ns: 0, delivered: None, acks }
    }

    /// The lane of a batch; any, where it is empty.
    #[must_use]
    pub(super) fn lane(&self, batch: &Batch) -> usize {
        batch.messages.first().map_or(0, |first| self.stored.layout().lane_of(first.sequence))
    }

    /// Whether there are several writers.
    #[must_use]
    pub(super) fn is_shared(&self) -> bool {
        self.stored.are_several()
    }

    /// Whether a message was committed before.
    #[inline]
    #[must_use]
    pub(super) fn holds(&self, sequence: u64) -> bool {
        self.stored.are_several() && self.stored.holds(sequence)
    }

    /// Whether all of a gap was.
    #[must_use]
    pub(super) fn hold_all(&self, from: u64, to: u64) -> bool {
        self.stored.are_several() && self.stored.hold_all(from, to)
    }

    /// Whether a message is of another block than those of a batch.
    #[inline]
    #[must_use]
    pub(super) fn crosses(&self, batch: &Batch, sequence: u64) -> bool {
        let block = |sequence| self.stored.layout().block_of(sequence);
        batch.messages.first().is_some_and(|first| block(first.sequence) != block(sequence))
    }

    /// A batch is sent; all before it is, and its gaps were checked.
    pub(super) fn sent(&mut self, batch: &Batch) {
        let Some(last) = batch.messages.last() else { return };
        let lane = self.lane(batch);
        self.sent[lane] = last.sequence;
        (self.through, self.stored_ns) = (self.through.max(last.sequence), last.timestamp_ns);
    }

    /// Nothing that is to be written is left up to `to`.
    pub(super) fn pass(&mut self, to: u64, stored_ns: i64) {
        if to > self.through {
            (self.through, self.stored_ns) = (to, stored_ns);
        }
    }

    /// Whether some of it is not passed yet, of what was read up to `last`.
    #[must_use]
    pub(super) fn lags(&self, last: u64, idle: bool) -> bool {
        idle && self.stored.are_several() && last > self.through || self.moves().next().is_some()
    }

    /// The lanes that lack nothing up to where they do not stand, and the move that each needs.
    pub(super) fn moves(&self) -> impl Iterator<Item = (usize, Moved)> {
        self.sent.iter().enumerate().filter_map(|(lane, &after)| {
            let to = self.stored.layout().last_of(lane, self.through);
            let timestamp_ns = if to == self.through { self.stored_ns } else { 0 };
            (to > after).then_some((lane, Moved { after, to, timestamp_ns }))
        })
    }

    /// A lane is sent its move.
    pub(super) fn moved(&mut self, lane: usize, moved: Moved) {
        self.sent[lane] = moved.to;
    }

    /// Moves the lanes whose writers have room; the others later.
    pub(super) fn try_moves(&mut self, batches: &[mpsc::Sender<Batch>]) {
        for (lane, moved) in self.moves().collect::<Vec<_>>() {
            if batches[lane].try_send(Batch::moving(moved)).is_ok() {
                self.moved(lane, moved);
            }
        }
    }

    /// A delivery that was committed before came again.
    pub(super) fn came_again(&mut self, ack: Ack) {
        self.delivered = Some(ack);
    }

    /// Tells of it, where there is room; else later.
    pub(super) fn tell(&mut self) {
        if let Some(ack) = self.delivered.take()
            && let Err(mpsc::error::TrySendError::Full(ack)) = self.acks.try_send(ack)
        {
            self.delivered = Some(ack);
        }
    }
}
