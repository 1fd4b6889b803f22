//! What writing has taught, over all generations of a pipeline: how much fits into a transaction, how long
//! rows have been refused without anybody at fault, and a row of each table that was taken.
//!
//! It decides nothing about rows. What it knows is lost with the process, and found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How many messages there are at first, and after a while without trouble: as many as a batch holds.
const UNBOUNDED: u32 = u32::MAX;

/// A transaction that took less than one part in this many of its deadline lets the next one take twice as
/// much, which then still leaves half of the deadline.
const QUICK: u32 = 4;

/// Longest row that is kept: far more than rows have, and next to nothing of the memory that a pipeline may
/// use.
const LONGEST_ROW: usize = 64 * 1024;

/// What a pipeline's writers have learnt.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What the rows in `taken` look like; those of other tables would be refused for their form.
    shape: String,
    /// A row of each table that was committed, as a tuple of a binary `COPY`; empty where there is none.
    taken: Vec<Vec<u8>>,
    doubt: Option<Doubt>,
    /// Since when single rows after a checkpoint have been refused with these codes while others passed.
    proofs: (u64, BTreeMap<String, Instant>),
    /// The tables of which it was told that a trigger leaves rows out.
    left_out: BTreeSet<usize>,
    /// How much fits.
    pub fit: Fit,
}

/// Rows are refused, and it is not known whose fault that is.
#[derive(Debug)]
struct Doubt {
    checkpoint: u64,
    since: Instant,
}

/// How many messages fit into a transaction.
#[derive(Debug)]
pub(crate) struct Fit {
    limit: u32,
    /// The checkpoint after which a single message did not fit, and how often it was tried.
    alone: Option<(u64, u32)>,
}

impl Memory {
    /// A generation begins with tables of this shape.
    pub(crate) fn begin(&mut self, shape: String, tables: usize) {
        if self.shape != shape {
            self.shape = shape;
            self.taken.clear();
            self.left_out.clear();
        }
        self.taken.resize_with(tables, Vec::new);
    }

    /// Keeps a row that was committed.
    pub(crate) fn keep(&mut self, table: usize, tuple: &[u8]) {
        let Some(kept) = self.taken.get_mut(table).filter(|_| tuple.len() <= LONGEST_ROW) else { return };
        kept.clear();
        kept.extend_from_slice(tuple);
    }

    /// A row of `table` that was taken once.
    #[must_use]
    pub(crate) fn taken(&self, table: usize) -> Option<&[u8]> {
        self.taken.get(table).map(Vec::as_slice).filter(|tuple| !tuple.is_empty())
    }

    /// Whether this is the first time that a trigger of `table` leaves rows out.
    pub(crate) fn first_left_out(&mut self, table: usize) -> bool {
        self.left_out.insert(table)
    }

    /// Notes that rows after `checkpoint` are refused without anybody at fault; since when that is so.
    pub(crate) fn doubt(&mut self, checkpoint: u64) -> Duration {
        match &self.doubt {
            Some(doubt) if doubt.checkpoint == checkpoint => doubt.since.elapsed(),
            Some(_) | None => {
                self.doubt = Some(Doubt { checkpoint, since: Instant::now() });
                Duration::ZERO
            }
        }
    }

    /// Notes that a row after `checkpoint` alone is refused with `code` while others pass; since when that is
    /// so.
    pub(crate) fn proof(&mut self, checkpoint: u64, code: &str) -> Duration {
        if self.proofs.0 != checkpoint {
            self.proofs = (checkpoint, BTreeMap::new());
        }
        self.proofs.1.entry(code.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    /// It was not so for once.
    pub(crate) fn disproof(&mut self, code: &str) {
        self.proofs.1.remove(code);
    }
}

impl Default for Fit {
    fn default() -> Self {
        Self { limit: UNBOUNDED, alone: None }
    }
}

impl Fit {
    /// How many messages the next transaction may take.
    #[must_use]
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// A transaction of several messages ran out of time: begin with a single one. Each that is quick lets
    /// the next take twice as much, so that all but the first failure cost little, however slow the table is.
    pub(crate) fn shrink(&mut self) {
        self.limit = 1;
    }

    /// A transaction of this many messages was too large for the server; it did not time out.
    pub(crate) fn halve(&mut self, messages: u32) {
        self.limit = (messages / 2).max(1);
    }

    /// A transaction of the one message after `checkpoint` ran out of time; how often it has by now.
    pub(crate) fn shrink_alone(&mut self, checkpoint: u64) -> u32 {
        let times = match self.alone {
            Some((known, times)) if known == checkpoint => times + 1,
            Some(_) | None => 1,
        };
        self.alone = Some((checkpoint, times));
        times
    }

    /// A transaction was committed.
    pub(crate) fn took(&mut self, took: Duration, deadline: Duration) {
        if took < deadline / QUICK {
            self.limit = self.limit.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_mins(1);

    #[test]
    fn transactions_grow_to_what_fits_and_stay_there() {
        let mut fit = Fit::default();
        assert_eq!(fit.limit(), u32::MAX);
        fit.shrink();
        // A tenth of a second a message.
        let mut limits = Vec::new();
        for _ in 0..10 {
            limits.push(fit.limit());
            fit.took(Duration::from_millis(100) * fit.limit(), DEADLINE);
        }
        assert_eq!(limits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    }

    #[test]
    fn a_table_that_is_quick_again_gets_whole_batches_within_a_few_transactions() {
        let mut fit = Fit::default();
        fit.shrink();
        for _ in 0..40 {
            fit.took(Duration::from_millis(5), DEADLINE);
        }
        assert_eq!(fit.limit(), u32::MAX);
    }

    #[test]
    fn transactions_that_are_too_much_are_halved_and_grow_again() {
        let mut fit = Fit::default();
        fit.halve(100);
        assert_eq!(fit.limit(), 50);
        fit.took(Duration::from_millis(5), DEADLINE);
        assert_eq!(fit.limit(), 100);
        fit.halve(1);
        assert_eq!(fit.limit(), 1);
    }

    #[test]
    fn a_proof_lasts_while_the_checkpoint_stays_and_nothing_speaks_against_it() {
        let mut memory = Memory::default();
        assert_eq!(memory.proof(5, "XX000").as_secs(), 0);
        std::thread::sleep(Duration::from_millis(20));
        let young = Duration::from_millis(20);
        assert!(memory.proof(5, "42704") < young || memory.proof(5, "XX000") >= young);
        assert!(memory.proof(5, "XX000") >= young);
        let lasted = memory.proof(5, "XX000");
        memory.disproof("XX000");
        assert!(memory.proof(5, "XX000") < lasted);
        std::thread::sleep(Duration::from_millis(20));
        assert!(memory.proof(6, "XX000") < lasted);
    }

    #[test]
    fn a_message_that_never_fits_is_counted_until_another_one_is_tried() {
        let mut fit = Fit::default();
        assert_eq!([fit.shrink_alone(7), fit.shrink_alone(7), fit.shrink_alone(8)], [1, 2, 1]);
    }

    #[test]
    fn a_doubt_lasts_while_the_checkpoint_stays() {
        let mut memory = Memory::default();
        assert_eq!(memory.doubt(5), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(memory.doubt(5) >= Duration::from_millis(2));
        assert_eq!(memory.doubt(6), Duration::ZERO);
    }

    #[test]
    fn rows_of_a_table_that_looks_otherwise_by_now_are_forgotten() {
        let mut memory = Memory::default();
        memory.begin("int4".into(), 2);
        memory.keep(1, b"row");
        memory.keep(0, &vec![0; LONGEST_ROW + 1]);
        memory.begin("int4".into(), 2);
        assert_eq!((memory.taken(0), memory.taken(1)), (None, Some(&b"row"[..])));
        memory.begin("int8".into(), 2);
        assert_eq!(memory.taken(1), None);
    }
}
