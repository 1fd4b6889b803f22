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
//! It does not promise that one daemon alone is alive: the lease keeps a second one waiting, the
//! compare-and-set makes it harmless.
//!
//! Everything runs as simple queries inside explicit transactions, so it works behind a transaction pooler.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::SimpleQueryMessage;

use crate::kill_point;
use crate::milestones;
use crate::postgres::connect::Session;
use crate::postgres::interval::timestamp;
use crate::shard::Shard;

mod owner;

/// How long a claim lasts without a commit or a renewal. A daemon that was killed frees its shard at once,
/// since its backends are gone; this is what a frozen or cut-off one costs.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long to wait for a lock before the transaction is given up and tried again: longer than any sane DDL
/// or VACUUM step, short enough that a stuck lock shows up as a retry and not as silence.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A known sequence that was never noted: nothing that the stream lacks is news.
pub const UNKNOWN: u64 = u64::MAX;

/// The column that says that the checkpoint was moved.
const MOVED: &str = "jetcopy_moved";

/// The first server with `transaction_timeout`, which bounds a transaction as a whole.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// A shard that this process may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
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

/// What a transaction moves the checkpoint to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Stream sequence of the batch's last message.
    pub last_sequence: u64,
    /// When the stream stored it, in nanoseconds since the Unix epoch.
    pub last_timestamp_ns: i64,
}

/// A position that the server has committed. Only [`Open::commit`] makes one.
#[derive(Debug)]
pub struct Committed {
    last_sequence: u64,
}

impl Committed {
    /// The checkpoint that was committed.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }
}

/// Why a shard could not be claimed or a transaction not be opened or committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon writes this shard.
    #[error("shard is held by {owner}")]
    Held {
        /// The other daemon, as in `jetcopy.checkpoints.owner`.
        owner: String,
        /// The checkpoint now.
        checkpoint: u64,
    },
    /// An operator paused the pipeline.
    #[error("paused by operator {by} since {since} UTC")]
    Paused {
        /// The pipeline.
        pipeline: String,
        /// Who did, as in `jetcopy.checkpoints.paused_by`.
        by: String,
        /// When, in UTC.
        since: String,
        /// The checkpoint.
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
    Unreadable {
        /// The column.
        column: &'static str,
    },
}

impl Error {
    /// The checkpoint of a shard that could not be claimed.
    #[must_use]
    pub fn checkpoint(&self) -> Option<u64> {
        match self {
            Self::Held { checkpoint, .. } | Self::Paused { checkpoint, .. } => Some(*checkpoint),
            Self::LostEpoch | Self::SyncWaitCancelled | Self::Database { .. } | Self::Unreadable { .. } => {
                None
            }
        }
    }
}

/// Claims the shard for `owner`: ends leftover backends of its own and of the owner before, and takes a new
/// epoch.
///
/// The row is read `FOR UPDATE`, so a commit of a former owner that is still in doubt is waited for and then
/// seen. A checkpoint that does not exist yet is created at sequence 0 without a stream.
pub async fn claim(session: &Session, shard: &Shard, owner: &str) -> Result<Claim, Error> {
    let name = escape_literal(&shard.name);
    let database = |action| move |source| Error::Database { action, source };

    let before = owner::look(session, shard, owner).await?;
    let end_leftovers = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
         AND usename = current_user AND application_name <> '' AND application_name IN ({}, {})",
        escape_literal(owner),
        escape_literal(&before),
    );
    session.client.simple_query(&end_leftovers).await.map_err(database("end leftover backends of"))?;

    let take = format!(
        "{}SELECT FROM jetcopy.checkpoints WHERE shard = {name} FOR UPDATE; \
         UPDATE jetcopy.checkpoints SET epoch = epoch + 1, owner = {}, \
         lease_until = now() + interval '{} ms', \
           updated_at = now() \
         WHERE shard = {name} AND coalesce(owner, '') IN ({}, {}) AND paused_at IS NULL \
         RETURNING epoch, last_sequence, (extract(epoch FROM stream_created) * 1000000::numeric)::bigint, \
           (extract(epoch FROM last_timestamp) * 1000000::numeric)::bigint, known_sequence, \
           accepted_letters; \
         COMMIT",
        begin_sql(session),
        escape_literal(owner),
        LEASE.as_millis(),
        escape_literal(owner),
        escape_literal(&before),
    );
    let rows = match session.client.simple_query(&take).await {
        Ok(rows) => rows,
        // The connection may be used for nothing else: the caller ends the generation on any error.
        Err(source) => return Err(Error::Database { action: "claim", source }),
    };
    let Some(epoch) = text(&rows, 0) else {
        // Another daemon claimed the shard, or an operator paused it, between the look and the update: which,
        // it says now.
        owner::look(session, shard, owner).await?;
        return Err(Error::LostEpoch);
    };
    let number = |column, name| match text(&rows, column) {
        Some(value) => value.parse::<i64>().map(Some).map_err(|_| Error::Unreadable { column: name }),
        None => Ok(None),
    };
    Ok(Claim {
        epoch: epoch.parse().map_err(|_| Error::Unreadable { column: "epoch" })?,
        last_sequence: number(1, "last_sequence")?
            .and_then(|sequence| u64::try_from(sequence).ok())
            .ok_or(Error::Unreadable { column: "last_sequence" })?,
        stream_created_ns: number(2, "stream_created")?.map(|us| us.saturating_mul(1_000)),
        last_timestamp_us: number(3, "last_timestamp")?,
        known_sequence: number(4, "known_sequence")?.map_or(UNKNOWN, i64::unsigned_abs),
        accepted: number(5, "accepted_letters")?.map_or(0, i64::unsigned_abs),
    })
}

/// Moves the checkpoint by compare-and-set without any rows: to the start of a stream that it has not counted
/// in yet, or past what was lost. Up to `known_sequence` it is no news what the stream lacks; milestones
/// after `forget_after` are of another history.
pub async fn relocate(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    last_sequence: u64,
    stream_created_ns: i64,
    known_sequence: u64,
    forget_after: Option<u64>,
) -> Result<Claim, Error> {
    let to = Advance { last_sequence, last_timestamp_ns: 0 };
    let open = Open::begin(session, shard, claim.epoch, claim.last_sequence, &to, &Along::default()).await?;
    // The time of a message that this daemon did not write is not known.
    let sql = format!(
        "{}UPDATE jetcopy.checkpoints SET stream = {}, stream_created = {}, last_timestamp = NULL, \
           known_sequence = {known_sequence} WHERE shard = {}",
        forget_after.map(|sequence| milestones::forget_after(&shard.name, sequence)).unwrap_or_default(),
        escape_literal(&shard.stream),
        timestamp(stream_created_ns),
        escape_literal(&shard.name),
    );
    affected(session, &sql, "relocate").await?;
    open.commit().await?;
    Ok(Claim {
        epoch: claim.epoch,
        last_sequence,
        stream_created_ns: Some(stream_created_ns),
        last_timestamp_us: None,
        known_sequence,
        accepted: claim.accepted,
    })
}

/// Notes that the stream is the same as before though it was created at another time; [`Error::LostEpoch`]
/// when the shard is no longer ours.
pub async fn adopt(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    stream_created_ns: i64,
) -> Result<Claim, Error> {
    let created = format!("stream_created = {}", timestamp(stream_created_ns));
    note(session, shard, claim, &created, "take the stream's new creation time into").await?;
    Ok(Claim { stream_created_ns: Some(stream_created_ns), ..claim.clone() })
}

/// Notes up to where it is no news what the stream lacks, where that was [`UNKNOWN`].
pub async fn know(session: &Session, shard: &Shard, claim: &Claim, known: u64) -> Result<Claim, Error> {
    let set = format!("known_sequence = {known}");
    note(session, shard, claim, &set, "note the gaps of the stream in").await?;
    Ok(Claim { known_sequence: known, ..claim.clone() })
}

async fn note(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    set: &str,
    action: &'static str,
) -> Result<(), Error> {
    let name = escape_literal(&shard.name);
    let sql =
        format!("UPDATE jetcopy.checkpoints SET {set} WHERE shard = {name} AND epoch = {}", claim.epoch);
    match affected(session, &sql, action).await? {
        0 => Err(Error::LostEpoch),
        _ => Ok(()),
    }
}

/// Extends the lease of an idle shard; [`Error::LostEpoch`] when it is no longer ours, or its checkpoint is
/// no longer `last_sequence`: behind a pooler a session outlives a failover, and without a next batch nothing
/// else would show that the new primary lacks commits.
pub async fn renew(session: &Session, shard: &Shard, epoch: i64, last_sequence: u64) -> Result<(), Error> {
    let sql = format!(
        "UPDATE jetcopy.checkpoints SET lease_until = now() + interval '{} ms' \
         WHERE shard = {} AND epoch = {epoch} AND last_sequence = {last_sequence}",
        LEASE.as_millis(),
        escape_literal(&shard.name),
    );
    match affected(session, &sql, "renew the lease of").await? {
        0 => Err(Error::LostEpoch),
        _ => Ok(()),
    }
}

/// Gives the shard up, so that another daemon need not wait for the lease to end.
pub async fn release(session: &Session, shard: &Shard, epoch: i64) -> Result<(), Error> {
    let sql = format!(
        "UPDATE jetcopy.checkpoints SET owner = NULL, lease_until = NULL WHERE shard = {} \
         AND epoch = {epoch}",
        escape_literal(&shard.name),
    );
    affected(session, &sql, "release").await.map(drop)
}

/// What goes along with the statements that open a transaction, in their round trip. Each statement ends with
/// a semicolon.
#[derive(Debug, Default)]
pub struct Along {
    /// Before the checkpoint is moved.
    pub before: String,
    /// After it: who locks the checkpoint's row and the tables does it in this order, and so cannot deadlock
    /// with another.
    pub after: String,
    /// Accepted dead letters that this transaction uses up; with fewer left, it moves nothing.
    pub accepted: u64,
}

/// A transaction in which the checkpoint has been moved and nothing is committed yet.
#[derive(Debug)]
#[must_use = "a transaction that is neither committed nor rolled back blocks the shard"]
pub struct Open<'s> {
    session: &'s Session,
    last_sequence: u64,
    answers: Vec<SimpleQueryMessage>,
}

impl<'s> Open<'s> {
    /// Opens a transaction and moves the checkpoint from `from` to `to` by compare-and-set, in one round
    /// trip, which takes the statements `along` too. Each statement sees what was committed before it,
    /// whatever the role's defaults are: what follows a lock sees what the lock waited for.
    pub async fn begin(
        session: &'s Session,
        shard: &Shard,
        epoch: i64,
        from: u64,
        to: &Advance,
        along: &Along,
    ) -> Result<Self, Error> {
        let accepted = along.accepted;
        let sql = format!(
            "{}{}UPDATE jetcopy.checkpoints SET last_sequence = {}, last_timestamp = {}, \
               lease_until = now() + interval '{} ms', updated_at = now(), \
               accepted_letters = accepted_letters - {accepted}, flood = NULL \
             WHERE shard = {} AND epoch = {epoch} AND last_sequence = {from} \
             AND accepted_letters >= {accepted} \
             RETURNING true AS {MOVED}; {}",
            begin_sql(session),
            along.before,
            to.last_sequence,
            timestamp(to.last_timestamp_ns),
            LEASE.as_millis(),
            escape_literal(&shard.name),
            along.after,
        );
        let answers = session.client.simple_query(&sql).await;
        let answers = answers.map_err(|source| Error::Database { action: "advance", source })?;
        if answer(&answers, MOVED).is_none() {
            rollback(session).await?;
            return Err(Error::LostEpoch);
        }
        Ok(Self { session, last_sequence: to.last_sequence, answers })
    }

    /// What the statements `along` have answered, among others.
    #[must_use]
    pub fn answers(&self) -> &[SimpleQueryMessage] {
        &self.answers
    }

    /// The session that the transaction is open on.
    #[must_use]
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// Commits. Call it only when every step was Ok: the server answers COMMIT of an aborted transaction
    /// without an error.
    pub async fn commit(self) -> Result<Committed, Error> {
        // A warning left over from before this COMMIT must not be taken for its own.
        let _ = self.session.take_sync_wait_cancelled();
        kill_point::reach(kill_point::BEFORE_COMMIT);
        self.session
            .client
            .simple_query("COMMIT")
            .await
            .map_err(|source| Error::Database { action: "commit", source })?;
        kill_point::reach(kill_point::AFTER_COMMIT);
        if self.session.take_sync_wait_cancelled() {
            return Err(Error::SyncWaitCancelled);
        }
        Ok(Committed { last_sequence: self.last_sequence })
    }

    /// Undoes everything.
    pub async fn rollback(self) -> Result<(), Error> {
        rollback(self.session).await
    }
}

/// SQL that opens a transaction of the daemon's own: the first statements of a simple query.
///
/// Of the role's own defaults only whether it may write is heeded. Its limits of time are for people and
/// their queries: below what a batch takes, they would end each attempt at it. What bounds the daemon's
/// statements are its own deadlines. `LOCAL`, so that nothing of it stays behind with a pooler.
#[must_use]
pub fn begin_sql(session: &Session) -> String {
    let newer = if session.server_version() >= TRANSACTION_TIMEOUT_SINCE {
        "SET LOCAL transaction_timeout = 0; "
    } else {
        ""
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{}ms'; SET LOCAL statement_timeout \
         = 0; SET LOCAL idle_in_transaction_session_timeout = 0; {newer}",
        LOCK_TIMEOUT.as_millis()
    )
}

/// The value of column `name` in the first row that has one.
#[must_use]
pub fn answer<'a>(answers: &'a [SimpleQueryMessage], name: &str) -> Option<&'a str> {
    answers.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.columns().iter().any(|column| column.name() == name) => {
            row.get(name)
        }
        _ => None,
    })
}

/// Ends the transaction that is open on `session`.
pub async fn rollback(session: &Session) -> Result<(), Error> {
    session
        .client
        .simple_query("ROLLBACK")
        .await
        .map(drop)
        .map_err(|source| Error::Database { action: "roll back", source })
}

/// Rows that the last statement of `sql` affected.
async fn affected(session: &Session, sql: &str, action: &'static str) -> Result<u64, Error> {
    let messages =
        session.client.simple_query(sql).await.map_err(|source| Error::Database { action, source })?;
    let last = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::CommandComplete(count) => Some(*count),
        _ => None,
    });
    Ok(last.unwrap_or(0))
}

/// A column of the first row that a simple query returned.
fn text(messages: &[SimpleQueryMessage], column: usize) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if !row.is_empty() => row.get(column).map(str::to_owned),
        _ => None,
    })
}
