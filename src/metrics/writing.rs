//! What writers spend the time of their transactions on.
//!
//! Guarantees: a step is counted when it ends, over all writers of a pipeline. What a writer does between
//! transactions is not counted.

use std::time::Duration;

use prometheus::Counter;
use serde::Serialize;

use super::motion::Step;

/// Ways there and back again that a `COPY` takes beside its rows: to be prepared, begun and ended.
const COPY_ROUND_TRIPS: f64 = 3.0;

/// Seconds by step of a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct WriteSeconds {
    /// BEGIN with the move of the checkpoint: hardly more than a way there and back again.
    pub begin: f64,
    /// The tables.
    pub copy: f64,
    /// COMMIT: the same, and the disk or a standby.
    pub commit: f64,
}

impl WriteSeconds {
    /// What came since `before`.
    #[must_use]
    pub(crate) fn since(&self, before: &Self) -> Self {
        let rise = |now: f64, before: f64| (now - before).max(0.0);
        Self {
            begin: rise(self.begin, before.begin),
            copy: rise(self.copy, before.copy),
            commit: rise(self.commit, before.commit),
        }
    }

    /// The part of it, of 1, that was spent on the way and on commits rather than on rows, which several
    /// writers can do at once however many cores the server has. `None` where nothing was written.
    #[must_use]
    pub(crate) fn waits(&self) -> Option<f64> {
        let all = self.begin + self.copy + self.commit;
        let ways = self.begin + self.copy.min(COPY_ROUND_TRIPS * self.begin) + self.commit;
        (all > 0.0).then(|| ways / all)
    }
}

/// Counts; clones share it.
#[derive(Debug, Clone)]
pub(super) struct WriteClock {
    begin: Counter,
    copy: Counter,
    commit: Counter,
}

impl WriteClock {
    pub(super) fn new(counter: impl Fn(&'static str) -> Counter) -> Self {
        Self { begin: counter("begin"), copy: counter("copy"), commit: counter("commit") }
    }

    /// A step has ended.
    pub(super) fn took(&self, step: &Step, time: Duration) {
        let counter = match step {
            Step::Begin(_) => &self.begin,
            Step::Copy(_) => &self.copy,
            Step::Commit => &self.commit,
            Step::Confirm
            | Step::Partitions(_)
            | Step::Search
            | Step::DeadLetters
            | Step::Again
            | Step::Ack => return,
        };
        counter.inc_by(time.as_secs_f64());
    }

    pub(super) fn seconds(&self) -> WriteSeconds {
        WriteSeconds { begin: self.begin.get(), copy: self.copy.get(), commit: self.commit.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_what_rows_do_not_take() {
        let waits = |begin, copy, commit| WriteSeconds { begin, copy, commit }.waits().unwrap();
        assert!((waits(0.02, 0.12, 0.02) - 0.625).abs() < 1e-9, "far away");
        assert!(waits(0.001, 0.08, 0.004) < 0.1, "near");
        assert!((waits(0.02, 0.03, 0.02) - 1.0).abs() < 1e-9, "never more than all of it");
        assert_eq!(WriteSeconds::default().waits(), None);
    }
}
