//! Which message is of which lane, and what that makes of checkpoints.
//!
//! Guarantees: all of it is by definition, sequence by sequence.

use crate::protocol::Protocol;
use crate::rules::Kind;
use crate::state::{Lanes, Run};

impl Protocol {
    pub(crate) fn last(&self) -> u8 {
        u8::try_from(self.bounds.stream.len()).expect("a short stream")
    }

    pub(crate) fn kind(&self, sequence: u8) -> Kind {
        self.bounds.stream[usize::from(sequence) - 1]
    }

    /// Whether the stream holds a message there.
    pub(crate) fn holds(&self, sequence: u8) -> bool {
        self.kind(sequence) != Kind::Removed
    }

    /// How many messages the stream holds after one sequence, up to another.
    pub(crate) fn held(&self, after: u8, to: u8) -> usize {
        (after + 1..=to).filter(|&sequence| self.holds(sequence)).count()
    }

    /// The lane of a sequence.
    pub(crate) fn lane(&self, lanes: Lanes, sequence: u8) -> usize {
        usize::from((sequence - 1) / self.bounds.block % (lanes.more + 1))
    }

    /// The last sequence of a lane up to another, 0 where there is none.
    pub(crate) fn last_of(&self, lanes: Lanes, lane: usize, to: u8) -> u8 {
        (1..=to).rev().find(|&sequence| self.lane(lanes, sequence) == lane).unwrap_or(0)
    }

    /// Up to where every lane has stored all of its own.
    pub(crate) fn floor(&self, lanes: Lanes) -> u8 {
        let lacks = |&sequence: &u8| sequence > lanes.checkpoints[self.lane(lanes, sequence)];
        (1..=self.last()).find(lacks).map_or(self.last(), |sequence| sequence - 1)
    }

    /// What an ack may name: the last delivery that is not above the floor.
    pub(crate) fn acknowledges(&self, run: Run) -> u8 {
        run.read.min(self.floor(run.lanes))
    }
}
