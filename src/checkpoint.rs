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
//! It alone names `jetcopy.checkpoints` in a statement: what daemons and operators do to it, and what anybody
//! reads of it, is here.
//!
//! Everything runs as simple queries inside explicit transactions, so it works behind a transaction pooler.

use std::time::Duration;

use crate::postgres::connect::Session;
use crate::postgres::simple::{self, Answers};

mod claim;
mod flood;
mod operate;
mod read;
mod settle;
mod stretch;
mod transaction;

pub(crate) use claim::{Place, places, places_sql, read_place, release_sql};
pub(crate) use claim::{claim, confirm, release};
pub(crate) use flood::{ends_flood, keep_flood};
pub(crate) use operate::{Paused, Resumed};
pub(crate) use operate::{accept, move_back, pause, resume};
pub(crate) use read::{Keeper, keepers, last_sequence, last_sequence_sql, live_owner, look, read, row_sql};
pub(crate) use settle::{adopt, know, relocate};
pub(crate) use stretch::{begin_stretch_sql, end_stretch};
pub(crate) use transaction::{Advance, Along, Committed, Open, begin_sql, rollback};

/// How often the owner of an idle shard looks whether it still stands where it left it.
pub(crate) const CONFIRM: Duration = Duration::from_secs(3);

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
    /// Rows of this sequence and of all below are in the database.
    pub last_sequence: u64,
    /// When the stream that the checkpoint counts in was created, in nanoseconds since the Unix epoch; `None`
    /// for a new checkpoint.
    pub stream_created_ns: Option<i64>,
    /// When the stream stored the message at `last_sequence`, in microseconds since the Unix epoch.
    pub last_timestamp_us: Option<i64>,
    /// Up to here it is no news that the stream lacks messages: it was so before the pipeline began, or they
    /// were committed before it was rewound. [`UNKNOWN`] where nobody noted it.
    pub known_sequence: u64,
    /// Messages that may become dead letters beyond the limits.
    pub accepted: u64,
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
