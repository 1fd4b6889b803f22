//! A shard's position in the database: claiming it, and moving it in the transaction that writes the rows.
//!
//! Guarantees:
//!
//! - The checkpoint moves by compare-and-set on (shard, epoch, last sequence), in the same transaction as the
//!   rows. A writer whose epoch was taken, or that is behind or ahead of what the database holds, writes
//!   nothing.
//! - A [`Committed`] exists only for a transaction whose COMMIT the server answered without a warning. It is
//!   the only thing that can be acknowledged.
//!
//! It does not promise that one daemon alone is alive: a second one waits while the first has its row in
//! `jetcopy.daemons`, and the compare-and-set makes it harmless.
//!
//! It alone names `jetcopy.checkpoints` and `jetcopy.lanes` in a statement: what daemons and operators do to
//! them, and what anybody reads of them, is here. With several writers, each lane has a row of its own that
//! its commits move; where the shard stands is then the floor of its lanes ([`crate::lanes`]), for everybody.
//!
//! Everything runs as simple queries inside explicit transactions, so it works behind a transaction pooler.

use std::time::Duration;

use crate::lanes::{Lanes, Layout};
use crate::postgres::connect::Session;
use crate::postgres::simple::{self, Answers};
use crate::shard::Shard;

mod claim;
mod flood;
mod lanes;
mod operate;
mod read;
mod settle;
mod stretch;
mod transaction;

pub(crate) use claim::{Claimed, claim, confirm, release};
pub(crate) use claim::{Place, places, places_sql, read_place, release_sql};
pub(crate) use flood::{ends_flood, keep_flood};
pub(crate) use operate::{Paused, Resumed};
pub(crate) use operate::{accept, move_back, pause, record_verified, resume};
pub(crate) use read::seal_points;
pub(crate) use read::{Keeper, keepers, last_sequence, last_sequence_sql, live_owner, look, read, row_sql};
pub(crate) use settle::{adopt, know, relocate};
pub(crate) use stretch::{begin_stretch_sql, end_stretch};
pub(crate) use transaction::{Advance, Along, Committed, Open, begin_sql, rollback};

/// How often the owner of an idle shard looks whether it still stands where it left it.
pub(crate) const CONFIRM: Duration = Duration::from_secs(3);

/// How often it looks over its own session although its daemon has just seen the same over another: an idle
/// connection that something in between forgot is found, and 64 pipelines cost a server little.
pub(crate) const OWN_CONFIRM: Duration = Duration::from_secs(30);

/// How long to wait for a lock before the transaction is given up and tried again: longer than any sane DDL
/// or VACUUM step, short enough that a stuck lock shows up as a retry and not as silence.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A known sequence that was never noted: nothing that the stream lacks is news.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// A shard that this process may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Fences every earlier claim.
    pub epoch: i64,
    /// Rows of this sequence and of all below are in the database: the floor of its lanes.
    pub last_sequence: u64,
    /// Where each of its lanes stands.
    pub lanes: Lanes,
    /// When the stream that the checkpoint counts in was created, in nanoseconds since the Unix epoch; `None`
    /// for a new checkpoint.
    pub stream_created_ns: Option<i64>,
    /// When the stream stored the message at `last_sequence`, in microseconds since the Unix epoch.
    pub last_timestamp_us: Option<i64>,
    /// What follows `last_sequence`, the stream stored no earlier; `None` where nothing was committed since
    /// the checkpoint was last set.
    pub since_us: Option<i64>,
    /// Up to here it is no news that the stream lacks messages: it was so before the pipeline began, or they
    /// were committed before it was rewound. [`UNKNOWN`] where nobody noted it.
    pub known_sequence: u64,
    /// Messages that may become dead letters beyond the limits.
    pub accepted: u64,
}

impl Claim {
    /// How far the lanes have to be written as they are before there are `wanted` ones: after that, none of
    /// them is ahead of another. `None` where they are as wanted.
    #[must_use]
    pub(crate) fn settles_at(&self, wanted: Layout) -> Option<u64> {
        (self.lanes.layout() != wanted).then(|| self.lanes.greatest())
    }

    /// How many sequences after the checkpoint, up to `to`, are not committed, where some are.
    #[must_use]
    pub(crate) fn lacking(&self, to: u64) -> Option<u64> {
        let lacking = self.lanes.lacking(self.last_sequence + 1, to);
        (lacking < to.saturating_sub(self.last_sequence)).then_some(lacking)
    }
}

/// Where a writer stands, by which its next transaction is compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position<'p> {
    pub shard: &'p Shard,
    /// Epoch of the claim.
    pub epoch: i64,
    /// The writer's lane.
    pub lane: usize,
    /// What it has committed.
    pub from: u64,
    /// What each lane is known to have committed; empty where there is one writer, whose row is the shard's.
    pub others: &'p [u64],
    /// Whether a flood that is kept in the shard's row stays there, since another lane has just met it.
    pub keeps_flood: bool,
}

/// Why a shard could not be claimed or a transaction not be opened or committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another daemon writes this shard.
    #[error("shard is held by daemon {owner}")]
    Held {
        /// The other daemon, as in `jetcopy.checkpoints.owner`.
        owner: String,
        /// The checkpoint now.
        checkpoint: u64,
    },
    /// This daemon has no row in `jetcopy.daemons` yet, or none any more.
    #[error("this daemon is not in jetcopy.daemons")]
    Unlisted,
    /// An operator paused the pipeline.
    #[error("paused by operator {by} since {since} UTC")]
    Paused {
        /// As a command names it.
        pipeline: String,
        /// Who did, as in `jetcopy.checkpoints.paused_by`.
        by: String,
        /// When, in UTC.
        since: String,
        checkpoint: u64,
    },
    /// The compare-and-set matched no row: another writer took the shard or moved its checkpoint.
    #[error("the checkpoint was moved by another writer")]
    LostEpoch,
    /// COMMIT was answered, but the wait for a synchronous standby had been cancelled.
    #[error("the wait for a synchronous standby was cancelled; the commit may not survive a failover")]
    SyncWaitCancelled,
    /// The server refused a statement or the connection broke.
    #[error("cannot {action} the checkpoint")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// A row of `jetcopy.checkpoints` does not read as this version writes it.
    #[error("jetcopy.checkpoints holds an unreadable {column}; is the schema of another version?")]
    Unreadable { column: &'static str },
}

impl Error {
    /// The checkpoint of a shard that could not be claimed.
    #[must_use]
    pub(crate) fn checkpoint(&self) -> Option<u64> {
        match self {
            Self::Held { checkpoint, .. } | Self::Paused { checkpoint, .. } => Some(*checkpoint),
            Self::Unlisted
            | Self::LostEpoch
            | Self::SyncWaitCancelled
            | Self::Database { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

/// Runs statements of the daemon's own.
async fn ask(session: &Session, action: &'static str, sql: &str) -> Result<Answers, Error> {
    simple::ask(&session.client, sql).await.map_err(|source| Error::Database { action, source })
}
