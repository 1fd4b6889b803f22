//! The transaction that moves a checkpoint together with what it is about.
//!
//! Guarantees: nothing in it is committed unless the compare-and-set has moved the checkpoint and every step
//! after it was Ok.

use postgres_protocol::escape::escape_literal;

use super::lanes::{USED, VERIFIED, advance_sql};
use super::{Error, LOCK_TIMEOUT, Position, ask};
use crate::kill_point;
use crate::postgres::connect::Session;
use crate::postgres::interval::timestamp;
use crate::postgres::simple::Answers;
use crate::shard::Shard;

/// The column that says that the checkpoint was moved.
const MOVED: &str = "jetcopy_moved";

/// The first server with `transaction_timeout`, which bounds a transaction as a whole.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// What a transaction moves the checkpoint to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advance {
    /// Stream sequence of the batch's last message.
    pub last_sequence: u64,
    /// When the stream stored it, in nanoseconds since the Unix epoch; 0 where there is no message.
    pub last_timestamp_ns: i64,
}

/// A position that the server has committed. Only [`Open::commit`] makes one.
#[derive(Debug)]
pub(crate) struct Committed {
    lane: usize,
    last_sequence: u64,
    verified: Option<u64>,
}

impl Committed {
    /// The checkpoint that was committed.
    #[must_use]
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Whose it is: it says nothing of what other lanes have committed.
    #[must_use]
    pub(crate) fn lane(&self) -> usize {
        self.lane
    }

    /// Up to where an audit has proven the tables.
    #[must_use]
    pub(crate) fn verified(&self) -> Option<u64> {
        self.verified
    }
}

/// What goes along with the statements that open a transaction, in their round trip. Each statement ends with
/// a semicolon.
#[derive(Debug, Default)]
pub(crate) struct Along {
    /// Before the checkpoint is moved.
    pub before: String,
    /// Closes the open seal of the position that is moved, right before it is.
    pub close: String,
    /// After it: who locks the checkpoint's row and the tables does it in this order, and so cannot deadlock
    /// with another.
    pub after: String,
    /// What the move sets in the checkpoint's row beside the position, as [`crate::seal::Open`] says it.
    pub set: String,
    /// Accepted dead letters that this transaction uses up; with fewer left, it moves nothing.
    pub accepted: u64,
}

/// A transaction in which the checkpoint has been moved and nothing is committed yet.
#[derive(Debug)]
#[must_use = "a transaction that is neither committed nor rolled back blocks the shard"]
pub(crate) struct Open<'s> {
    session: &'s Session,
    lane: usize,
    last_sequence: u64,
    answers: Answers,
    /// What goes before COMMIT, in its round trip.
    last: String,
}

impl<'s> Open<'s> {
    /// Opens a transaction and moves the checkpoint from where the writer is `at` to `to` by compare-and-set,
    /// in one round trip, which takes the statements `along` too. Each statement sees what was committed
    /// before it, whatever the role's defaults are: what follows a lock sees what the lock waited for.
    pub(crate) async fn begin(
        session: &'s Session,
        at: &Position<'_>,
        to: &Advance,
        along: &Along,
    ) -> Result<Self, Error> {
        let advance = if at.others.is_empty() { advance_alone_sql } else { advance_sql };
        let sql =
            format!("{}{}{}{}", begin_sql(session), along.before, advance(at, to, along, MOVED), along.after);
        let answers = ask(session, "advance", &sql).await?;
        let used = at.others.is_empty() || along.accepted == 0 || answers.named(USED).is_some();
        if answers.named(MOVED).is_none() || !used {
            rollback(session).await?;
            return Err(Error::LostEpoch);
        }
        Ok(Self { session, lane: at.lane, last_sequence: to.last_sequence, answers, last: String::new() })
    }

    /// Lets the row that was moved be set once more, in the round trip of COMMIT: that of the lane, if there
    /// are `several`.
    pub(crate) fn set_at_commit(&mut self, shard: &Shard, several: bool, set: &str) {
        let name = escape_literal(&shard.name);
        self.last = if several {
            format!("UPDATE jetcopy.lanes SET {set} WHERE shard = {name} AND lane = {}; ", self.lane)
        } else {
            format!("UPDATE jetcopy.checkpoints SET {set} WHERE shard = {name}; ")
        };
    }

    /// What the statements `along` have answered, among others.
    #[must_use]
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Commits. Call it only when every step was Ok: the server answers COMMIT of an aborted transaction
    /// without an error.
    pub(crate) async fn commit(self) -> Result<Committed, Error> {
        // A warning left over from before this COMMIT must not be taken for its own.
        let _ = self.session.take_sync_wait_cancelled();
        kill_point::reach(kill_point::BEFORE_COMMIT);
        ask(self.session, "commit", &format!("{}COMMIT", self.last)).await?;
        kill_point::reach(kill_point::AFTER_COMMIT);
        if self.session.take_sync_wait_cancelled() {
            return Err(Error::SyncWaitCancelled);
        }
        let verified = self.answers.named(VERIFIED).and_then(|sequence| sequence.parse().ok());
        Ok(Committed { lane: self.lane, last_sequence: self.last_sequence, verified })
    }

    /// Undoes everything.
    pub(crate) async fn rollback(self) -> Result<(), Error> {
        rollback(self.session).await
    }
}

/// SQL that moves the checkpoint of a shard with one writer, as a row that says `moved`.
fn advance_alone_sql(at: &Position<'_>, to: &Advance, along: &Along, moved: &str) -> String {
    let Along { accepted, set, close, .. } = along;
    format!(
        "{close}UPDATE jetcopy.checkpoints SET last_sequence = {}, last_timestamp = {}, \
           updated_at = now(){set}, accepted_letters = accepted_letters - {accepted}, flood = NULL \
         WHERE shard = {} AND epoch = {} AND last_sequence = {} AND accepted_letters >= {accepted} \
         RETURNING true AS {moved}, verified_sequence AS {VERIFIED}; ",
        to.last_sequence,
        timestamp(to.last_timestamp_ns),
        escape_literal(&at.shard.name),
        at.epoch,
        at.from,
    )
}

/// SQL that opens a transaction of the daemon's own: the first statements of a simple query.
///
/// Of the role's own defaults only whether it may write is heeded. Its limits of time are for people and
/// their queries: below what a batch takes, they would end each attempt at it. What bounds the daemon's
/// statements are its own deadlines. `LOCAL`, so that nothing of it stays behind with a pooler.
#[must_use]
pub(crate) fn begin_sql(session: &Session) -> String {
    let newer = if session.server_version() >= TRANSACTION_TIMEOUT_SINCE {
        "SET LOCAL transaction_timeout = 0; "
    } else {
        ""
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{}ms'; \
         SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; {newer}",
        LOCK_TIMEOUT.as_millis()
    )
}

/// Ends the transaction that is open on `session`.
pub(crate) async fn rollback(session: &Session) -> Result<(), Error> {
    ask(session, "roll back", "ROLLBACK").await.map(drop)
}
