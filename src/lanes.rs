//! Which writer of a shard writes which sequences, and where the shard stands for all of them.
//!
//! Sequences are cut into blocks of equal length, and blocks go round the writers: the block of sequence `s`
//! is `(s − 1) / block`, its lane is that modulo the number of lanes. Each lane has a checkpoint of its own;
//! the *floor* is the sequence up to which every lane has committed all that is its own. With one writer, the
//! floor is its checkpoint.
//!
//! Guarantees: plain arithmetic, the same as `jetcopy.floor()` in the database and as the model's, which a
//! test compares. It does no input or output.

use std::collections::BTreeMap;

/// How sequences are shared out among writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How many writers there are.
    pub lanes: usize,
    /// How many sequences in a row are of the same lane.
    pub block: u64,
}

/// Where each lane of a shard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lanes {
    layout: Layout,
    checkpoints: Vec<u64>,
}

impl Layout {
    /// One writer, whose checkpoint is the shard's.
    pub(crate) const SINGLE: Self = Self { lanes: 1, block: u64::MAX };

    /// At least one lane, of blocks of at least one sequence.
    #[must_use]
    pub(crate) fn new(lanes: usize, block: u64) -> Self {
        Self { lanes: lanes.max(1), block: block.max(1) }
    }

    /// All lanes with everything up to `checkpoint` committed.
    #[must_use]
    pub(crate) fn at(self, checkpoint: u64) -> Lanes {
        Lanes { layout: self, checkpoints: vec![checkpoint; self.lanes] }
    }

    /// The block of a sequence.
    #[must_use]
    pub(crate) fn block_of(self, sequence: u64) -> u64 {
        sequence.saturating_sub(1) / self.block
    }

    /// The lane of a sequence.
    #[inline]
    #[must_use]
    pub(crate) fn lane_of(self, sequence: u64) -> usize {
        self.of_block(self.block_of(sequence))
    }

    fn of_block(self, block: u64) -> usize {
        // Less than the number of lanes.
        usize::try_from(block % self.lanes as u64).unwrap_or(0)
    }

    /// The sequence right before the first of a lane after `last`.
    #[must_use]
    pub(crate) fn complete_to(self, lane: usize, last: u64) -> u64 {
        // The block of the sequence after the last.
        let block = last / self.block;
        let ahead = ((lane + self.lanes - self.of_block(block)) % self.lanes) as u64;
        if ahead == 0 { last } else { (block + ahead).saturating_mul(self.block) }
    }

    /// The last sequence of a lane up to `to`, 0 where there is none.
    #[must_use]
    pub(crate) fn last_of(self, lane: usize, to: u64) -> u64 {
        if to == 0 {
            return 0;
        }
        let block = self.block_of(to);
        let back = ((self.of_block(block) + self.lanes - lane) % self.lanes) as u64;
        match block.checked_sub(back) {
            Some(_) if back == 0 => to,
            Some(block) => (block + 1) * self.block,
            None => 0,
        }
    }
}

impl Lanes {
    /// The only lane of a shard with one writer.
    #[must_use]
    pub(crate) fn single(checkpoint: u64) -> Self {
        Layout::SINGLE.at(checkpoint)
    }

    /// Lanes that stand there.
    #[must_use]
    pub(crate) fn new(block: u64, checkpoints: Vec<u64>) -> Self {
        Self { layout: Layout::new(checkpoints.len(), block), checkpoints }
    }

    #[must_use]
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.checkpoints.len()
    }

    /// Whether there are several.
    #[must_use]
    pub(crate) fn are_several(&self) -> bool {
        self.checkpoints.len() > 1
    }

    /// What each has committed, of its own.
    #[must_use]
    pub(crate) fn checkpoints(&self) -> &[u64] {
        &self.checkpoints
    }

    /// Up to where every lane has committed all of its own.
    #[must_use]
    pub(crate) fn floor(&self) -> u64 {
        let complete = |(lane, &last)| self.layout.complete_to(lane, last);
        self.checkpoints.iter().enumerate().map(complete).min().unwrap_or(0)
    }

    /// The last sequence that any lane has committed.
    #[must_use]
    pub(crate) fn greatest(&self) -> u64 {
        self.checkpoints.iter().copied().max().unwrap_or(0)
    }

    /// Whether a sequence is committed.
    #[inline]
    #[must_use]
    pub(crate) fn holds(&self, sequence: u64) -> bool {
        sequence <= self.checkpoints[self.layout.lane_of(sequence)]
    }

    /// Whether all sequences from one to another are committed.
    #[must_use]
    pub(crate) fn hold_all(&self, from: u64, to: u64) -> bool {
        // Beyond the greatest checkpoint there is nothing, and below it are few blocks.
        to <= self.greatest()
            && (self.layout.block_of(from)..=self.layout.block_of(to)).all(|block| {
                let end = (block + 1).saturating_mul(self.layout.block).min(to);
                end <= self.checkpoints[self.layout.of_block(block)]
            })
    }

    /// How many sequences from one to another are not committed.
    #[must_use]
    pub(crate) fn lacking(&self, from: u64, to: u64) -> u64 {
        let between = |from: u64, to: u64| (to + 1).saturating_sub(from);
        let greatest = self.greatest();
        let blocks = self.layout.block_of(from)..=self.layout.block_of(to.min(greatest));
        let of_block = |block: u64| {
            let begin = block.saturating_mul(self.layout.block).saturating_add(1).max(from);
            let end = (block + 1).saturating_mul(self.layout.block).min(to).min(greatest);
            between(begin.max(self.checkpoints[self.layout.of_block(block)] + 1), end)
        };
        blocks.map(of_block).sum::<u64>() + between(from.max(greatest + 1), to)
    }

    /// A lane has committed all of its own up to `to`.
    pub(crate) fn commit(&mut self, lane: usize, to: u64) {
        self.checkpoints[lane] = to;
    }
}

/// The floor as lanes commit, and what came of it.
#[derive(Debug)]
pub(crate) struct Floor<T> {
    lanes: Lanes,
    /// What belongs to sequences that may be above the floor.
    ends: BTreeMap<u64, T>,
}

impl<T> Floor<T> {
    /// Of lanes that stand there.
    #[must_use]
    pub(crate) fn new(lanes: Lanes) -> Self {
        Self { lanes, ends: BTreeMap::new() }
    }

    #[must_use]
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// `what` holds once everything up to `sequence` is committed.
    pub(crate) fn ends(&mut self, sequence: u64, what: T) {
        self.ends.insert(sequence, what);
    }

    /// A lane has committed all of its own up to `to`.
    pub(crate) fn commit(&mut self, lane: usize, to: u64) {
        self.lanes.commit(lane, to);
    }

    /// What holds by now, of the highest sequence, if there is news.
    pub(crate) fn reached(&mut self) -> Option<(u64, T)> {
        let above = self.ends.split_off(&(self.lanes.floor() + 1));
        std::mem::replace(&mut self.ends, above).pop_last()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By definition, sequence by sequence, as in the model.
    fn lacks(lanes: &Lanes, sequence: u64) -> bool {
        let lane = (sequence - 1) / lanes.layout.block % lanes.checkpoints.len() as u64;
        sequence > lanes.checkpoints[usize::try_from(lane).unwrap()]
    }

    proptest! {
        #[test]
        fn the_floor_is_right_before_the_first_sequence_that_its_lane_lacks(
            block in 1_u64..6, checkpoints in prop::collection::vec(0_u64..60, 1..5)
        ) {
            let lanes = Lanes::new(block, checkpoints);
            let first = (1..1_000).find(|&sequence| lacks(&lanes, sequence)).unwrap();
            prop_assert_eq!(lanes.floor(), first - 1);
        }

        #[test]
        fn the_last_of_a_lane_is_its_greatest_sequence_up_to_there(
            block in 1_u64..6, count in 1_usize..5, to in 0_u64..60
        ) {
            let layout = Layout::new(count, block);
            for lane in 0..count {
                let last = (1..=to).rev().find(|&sequence| layout.lane_of(sequence) == lane).unwrap_or(0);
                prop_assert_eq!(layout.last_of(lane, to), last);
            }
        }

        #[test]
        fn a_stretch_is_held_where_each_sequence_of_it_is(
            block in 1_u64..6, checkpoints in prop::collection::vec(0_u64..40, 1..5), from in 1_u64..40,
            length in 0_u64..20
        ) {
            let lanes = Lanes::new(block, checkpoints);
            let all = (from..=from + length).all(|sequence| !lacks(&lanes, sequence));
            prop_assert_eq!(lanes.hold_all(from, from + length), all);
            let lacking = (from..=from + length).filter(|&sequence| lacks(&lanes, sequence)).count() as u64;
            prop_assert_eq!(lanes.lacking(from, from + length), lacking);
        }
    }

    #[test]
    fn one_writer_stands_where_its_checkpoint_is() {
        let lanes = Lanes::single(7);
        assert_eq!((lanes.floor(), lanes.greatest(), lanes.layout().last_of(0, 9)), (7, 7, 9));
        assert!(lanes.holds(7) && !lanes.holds(8) && !lanes.are_several());
        assert_eq!((lanes.lacking(8, 10), lanes.lacking(5, 8), lanes.lacking(3, 7)), (3, 1, 0));
    }

    #[test]
    fn what_ends_above_the_floor_waits_for_the_other_lanes() {
        let mut floor = Floor::new(Layout { lanes: 2, block: 10 }.at(0));
        floor.ends(20, "second");
        floor.commit(1, 20);
        assert_eq!(floor.reached(), None);
        floor.ends(10, "first");
        floor.commit(0, 10);
        assert_eq!(floor.reached(), Some((20, "second")));
        assert_eq!(floor.reached(), None);
    }
}
