//! How far a batch of one of several writers may go beyond the limits of a batch.
//!
//! A block ends a batch. Where one holds a little more than a batch may, each would become a full and a tiny
//! transaction, and over a distance both take as long. So the limits are raised, by half at most, to where
//! the last full number of batches ends with the block.
//!
//! Guarantees: limits are never lowered, and with one writer they stay as they are.

use bytesize::ByteSize;

use crate::batch::Batch;
use crate::config::BatchLimits;

/// The part of a block that a batch covers at least, as one over it, before it says how full a block is.
const TELLING: u64 = 8;

/// What messages of the next block may take beyond those of this one, in sixteenths of all.
const VARIES: u64 = 17;

/// The limits of the batches of a shard.
#[derive(Debug)]
pub(crate) struct Fit {
    limits: BatchLimits,
    /// Sequences of a block, or of a stream where there is one writer.
    block: u64,
}

impl Fit {
    /// Batches with these limits in blocks of so many sequences.
    #[must_use]
    pub(crate) fn new(limits: BatchLimits, block: u64) -> Self {
        Self { limits, block }
    }

    /// The limits of batches that come after `batch`, where it says anything about them.
    #[must_use]
    pub(super) fn after(&self, batch: &Batch) -> Option<BatchLimits> {
        let (first, last) = (batch.messages.first()?, batch.messages.last()?);
        let covered = last.sequence - first.sequence + 1;
        let tells = covered >= self.block / TELLING;
        tells.then(|| self.of_blocks(covered, batch.counted_rows() as u64, batch.counted_bytes() as u64))
    }

    /// The limits where `covered` sequences have so many rows and bytes.
    fn of_blocks(&self, covered: u64, rows: u64, bytes: u64) -> BatchLimits {
        let block = |amount: u64| amount.saturating_mul(self.block) / covered;
        let (rows, bytes) = (block(rows), block(bytes));
        let (max_rows, max_bytes) = (self.limits.max_rows as u64, self.limits.max_bytes.as_u64());
        let batches = nearest(rows, max_rows).max(nearest(bytes, max_bytes)).max(1);
        let raised = |of_block: u64, limit: u64| match of_block / batches {
            each if each <= limit => limit,
            each => (each / (VARIES - 1)).saturating_mul(VARIES).min(limit + limit / 2),
        };
        BatchLimits {
            max_rows: usize::try_from(raised(rows, max_rows)).unwrap_or(usize::MAX),
            max_bytes: ByteSize(raised(bytes, max_bytes)),
            ..self.limits
        }
    }
}

/// How many times `limit` an amount is, to the nearest.
fn nearest(amount: u64, limit: u64) -> u64 {
    amount.saturating_add(limit / 2) / limit.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { max_rows: 20_000, max_bytes: ByteSize(4 << 20), max_age: None };

    /// The limits where a message of a block of 20,000 has so many rows and bytes.
    fn limits(rows: u64, bytes: u64) -> (usize, u64) {
        let limits = Fit::new(LIMITS, 20_000).of_blocks(10_000, rows * 10_000, bytes * 10_000);
        (limits.max_rows, limits.max_bytes.as_u64())
    }

    #[test]
    fn a_block_of_a_little_more_than_a_batch_is_one() {
        assert!(limits(1, 290).1 >= 290 * 20_000);
    }

    #[test]
    fn a_block_of_nearly_two_batches_is_two() {
        let (_, bytes) = limits(1, 400);
        assert!((400 * 10_000..400 * 20_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn rows_count_as_bytes_do() {
        let (rows, _) = limits(2, 10);
        assert!((20_000..30_000).contains(&rows), "{rows}");
    }

    #[test]
    fn a_batch_that_fits_has_the_limits_that_were_set() {
        assert_eq!(limits(1, 100), (20_000, 4 << 20));
    }

    proptest! {
        #[test]
        fn limits_are_raised_by_half_at_most_and_blocks_take_no_more_batches_than_before(
            rows in 0_u64..40, bytes in 0_u64..10_000
        ) {
            let (max_rows, max_bytes) = limits(rows, bytes);
            prop_assert!((20_000..=30_000).contains(&max_rows));
            prop_assert!((4 << 20..=6 << 20).contains(&max_bytes));
            let count = |rows_limit: u64, bytes_limit: u64| {
                (rows * 20_000).div_ceil(rows_limit).max((bytes * 20_000).div_ceil(bytes_limit))
            };
            let (before, after) = (count(20_000, 4 << 20), count(max_rows as u64, max_bytes));
            prop_assert!(after <= before);
        }
    }
}
