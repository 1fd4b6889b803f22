//! Which message is of which lane, what that makes of checkpoints, and how the number of lanes changes.
//!
//! Guarantees: what a checkpoint means is by definition, sequence by sequence.

use crate::protocol::Protocol;
use crate::rules::{Kind, Mutation};
use crate::state::{LANES, Lanes, PerLane, Run, State};

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

    /// The lanes that there are become as many as asked for.
    pub(crate) fn resize(&self, daemon: usize, state: &mut State) -> Option<()> {
        let (primary, writing) = (state.primary, state.is_writing());
        let run = state.run(daemon)?;
        let settled = self.floor(run.lanes) >= run.lanes.greatest() || self.breaks(Mutation::NoSettle);
        if run.more == run.lanes.more || !settled || writing {
            return None;
        }
        let epoch = self.claims(daemon, run.epoch, primary);
        if epoch && (run.lanes == primary.lanes || self.breaks(Mutation::BlindResize)) {
            let mut lanes = Lanes { more: run.more, checkpoints: PerLane::default() };
            let all = self.floor(run.lanes).max(run.lanes.greatest());
            lanes.checkpoints.iter_mut().take(usize::from(run.more) + 1).for_each(|lane| *lane = all);
            if !self.breaks(Mutation::ResizeUnsealed) {
                (0..LANES).for_each(|lane| state.primary.close(lane));
            }
            state.primary.lanes = lanes;
            state.primary.open = PerLane::default();
            state.highest = state.highest.max(self.floor(lanes));
        }
        // Either way, the next generation reads what there is.
        state.stop(daemon);
        Some(())
    }
}
