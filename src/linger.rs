//! How long a batch waits for more, where no setting says it.
//!
//! A row should be seen soon after its message, and a commit costs the server about as much for one row as
//! for a hundred. So a batch waits as long as lets the writer rest for two thirds of the time: twice what its
//! last transactions took. A quick and idle database is asked often, for a few rows at a time; one that is
//! slow, far or busy with other pipelines is asked less often, for more.
//!
//! Guarantees: an age is between [`SHORTEST`] and [`LONGEST`], whatever the database does. Under a backlog a
//! batch fills up to its size instead, which [`BACKLOG`] bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Timers go by milliseconds.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);

/// Where waiting longer saves little: fifty commits a second of each pipeline.
pub(crate) const LONGEST: Duration = Duration::from_millis(20);

/// Where the stream holds more than a batch takes: its rows are late already, and a commit waits for the disk
/// as long for a tenth of them. A batch of 20,000 rows fills within this at 80,000 a second, as it does where
/// the reader shares few cores with both servers.
pub(crate) const BACKLOG: Duration = Duration::from_millis(250);

/// How much of the mean the last transaction is: a quarter follows a change within ten commits, and one slow
/// commit does not slow down the next ones by much.
const WEIGHT: u64 = 4;

/// What the last transactions took.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    /// A moving mean in microseconds; 0 before the first.
    mean: AtomicU64,
}

impl Linger {
    /// Notes a transaction, from its BEGIN to the answer to its COMMIT. One writer calls it.
    pub(crate) fn wrote(&self, took: Duration) {
        // What takes longer than this is none the less the longest age.
        let took = u64::try_from(took.min(LONGEST).as_micros()).unwrap_or(u64::MAX);
        let mean = self.mean.load(Ordering::Relaxed);
        let mean = if mean == 0 { took } else { mean - mean / WEIGHT + took / WEIGHT };
        self.mean.store(mean, Ordering::Relaxed);
    }

    /// How long a batch that begins now waits; under a `backlog` it waits to be full.
    #[must_use]
    pub(crate) fn age(&self, backlog: bool) -> Duration {
        if backlog {
            return BACKLOG;
        }
        Duration::from_micros(2 * self.mean.load(Ordering::Relaxed)).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(milliseconds: impl IntoIterator<Item = u64>) -> Duration {
        let linger = Linger::default();
        for took in milliseconds {
            linger.wrote(Duration::from_millis(took));
        }
        linger.age(false)
    }

    #[test]
    fn a_batch_waits_twice_as_long_as_a_transaction_takes_within_bounds() {
        assert_eq!(after([]), SHORTEST);
        assert_eq!(after([0; 9]), SHORTEST);
        assert_eq!(after([3; 9]), Duration::from_millis(6));
        assert_eq!(after([300; 9]), LONGEST);
    }

    #[test]
    fn after_a_backlog_it_is_short_again_within_a_few_commits() {
        assert_eq!(after([80, 80, 80, 2]), LONGEST);
        assert!(after([80; 20].into_iter().chain([2; 10])) < Duration::from_millis(7));
    }

    #[test]
    fn under_a_backlog_a_batch_waits_to_be_full() {
        assert_eq!(Linger::default().age(true), BACKLOG);
    }

    #[test]
    fn one_slow_commit_changes_little() {
        assert!(after([2; 10].into_iter().chain([60])) < Duration::from_millis(14));
    }
}
