//! What a writer is at, and what writers spend the time of their transactions on.
//!
//! Guarantees: a step is counted when it ends, over all writers of a pipeline. What a writer does between
//! transactions is not counted.

use std::fmt;
use std::time::Duration;

use prometheus::Counter;
use serde::Serialize;

use super::stage::Stage;

/// Ways there and back again that a `COPY` takes beside its rows: to be prepared, begun and ended.
const COPY_ROUND_TRIPS: f64 = 3.0;

/// What the writer is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Extends the lease of an idle shard.
    Confirm,
    /// Opens the transaction, moves the checkpoint and locks these tables.
    Begin(String),
    /// Copies rows to that table.
    Copy(String),
    /// Adds partitions to that table.
    Partitions(String),
    /// Looks for the row that was refused.
    Search,
    /// Stores dead letters.
    DeadLetters,
    /// Commits.
    Commit,
    /// Waits before it tries again what another transaction was in the way of.
    Again,
    /// Hands a committed batch on to be acknowledged.
    Ack,
}

impl Step {
    /// What the pipeline waits for during it.
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Confirm
            | Self::Begin(_)
            | Self::Copy(_)
            | Self::Partitions(_)
            | Self::Search
            | Self::DeadLetters
            | Self::Commit
            | Self::Again => Stage::Database,
            Self::Ack => Stage::Nats,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirm => f.write_str("looking at the checkpoint"),
            Self::Begin(tables) => write!(f, "moving the checkpoint and locking {tables}"),
            Self::Copy(table) => write!(f, "COPY to table {table}"),
            Self::Partitions(table) => write!(f, "new partitions of table {table}"),
            Self::Search => f.write_str("finding a row that was refused"),
            Self::DeadLetters => f.write_str("storing dead letters"),
            Self::Commit => f.write_str("COMMIT"),
            Self::Again => f.write_str("the pause before another attempt"),
            Self::Ack => f.write_str("acks that cannot be sent"),
        }
    }
}

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
