//! What commits are counted as, and how counts are sealed: `seal.rs` and `jetcopy.close_seal()`.
//!
//! Guarantees: an open seal is what its lane's row says; closed ones are a sum, since nothing alters them.

use crate::protocol::Protocol;
use crate::rules::Mutation;
use crate::state::{Batch, Database, LANES, Open, State};

impl Protocol {
    fn messages(&self, batch: Batch) -> u8 {
        (1..=self.last()).map(|sequence| u8::try_from(batch.messages.of(sequence)).unwrap_or(3)).sum()
    }

    /// What a commit says: all since the last seal, which ends before it where it `seals`.
    pub(crate) fn counted(&self, batch: Batch, since: u8, seals: bool) -> u8 {
        let starts_anew = seals && !self.breaks(Mutation::CountOn);
        if self.bounds.ledger { self.messages(batch) + if starts_anew { 0 } else { since } } else { 0 }
    }

    /// What COMMIT makes of it.
    pub(crate) fn count(&self, open: Open, lane: usize, database: &mut Database) {
        if open.seals {
            database.close(lane);
        }
        if !self.breaks(Mutation::CountApart) {
            database.open[lane] = open.counted;
        }
    }

    /// The counts have a transaction of their own, once COMMIT is answered.
    pub(crate) fn count_apart(&self, open: Open, lane: usize, database: &mut Database) {
        if self.breaks(Mutation::CountApart) {
            database.open[lane] = open.counted;
        }
    }

    /// Whoever claims the shard knows nothing of what was counted.
    pub(crate) fn seal_at_claim(&self, database: &mut Database) {
        let lanes = match self.mutation {
            Mutation::ClaimUnsealed => 0,
            Mutation::SealFirstLane => 1,
            _ => LANES,
        };
        (0..lanes).for_each(|lane| database.close(lane));
    }

    /// A seal is closed without the compare-and-set of a commit.
    pub(crate) fn seal(&self, daemon: usize, lane: usize, state: &mut State) -> Option<()> {
        if !self.breaks(Mutation::SealUnfenced) || state.open[lane].is_some() {
            return None;
        }
        let run = state.run(daemon).filter(|run| run.counted[lane] > 0)?;
        run.counted[lane] = 0;
        state.primary.close(lane);
        Some(())
    }

    /// Whether all that is stored is counted once.
    pub(crate) fn ledger_counts(&self, database: Database) -> bool {
        let Database { rows, letters, sealed, open, .. } = database;
        let stored: u16 = (1..=self.last()).map(|sequence| rows.of(sequence) + letters.of(sequence)).sum();
        !self.bounds.ledger || stored == u16::from(sealed) + open.into_iter().map(u16::from).sum::<u16>()
    }
}

impl Database {
    /// Seals what a lane has committed.
    pub(crate) fn close(&mut self, lane: usize) {
        self.sealed += std::mem::take(&mut self.open[lane]);
    }
}
