//! Why the store did not answer.
//!
//! Guarantees: one variant for each thing that the caller can do about it; only an error after which another
//! attempt may succeed is retryable.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::postgres::connect::ConnectError;
use crate::postgres::sqlstate::{Decision, Step, decide};

/// Why the store did not answer: one variant a reaction.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No session; see the inner error for whose turn it is.
    #[error("no database connection")]
    Connect(#[from] ConnectError),
    /// The connection was lost, or the server is going away: try again. A read has been tried again already;
    /// whether a write was done is open.
    #[error("lost the connection to the database")]
    Lost(#[source] tokio_postgres::Error),
    /// Every connection of the pool was in use for as long: open the store with more, or ask for less at a
    /// time.
    #[error("all connections to the database were in use for {}", humantime::format_duration(*.0))]
    Busy(Duration),
    /// The answer did not come in time, and the query was cancelled: ask for a shorter span, or raise the
    /// limit.
    #[error(
        "the query timed out after {}; narrow it, by time first, or raise the limit",
        humantime::format_duration(*.0)
    )]
    Timeout(Duration),
    /// The answer has more bytes than are allowed, and the query was cancelled: ask for less.
    #[error("the answer has more than {}; ask for fewer rows", bytesize::ByteSize::b(*.0 as u64))]
    TooLarge(usize),
    /// The database lacks what this version reads, or has something else under its name: migrate it.
    #[error(
        "the database lacks the store of this version of jetcopy: list its groups in [store] tables, run \
         `jetcopy migrate`, and make sure that the role's search_path includes its tables, or set [store] \
         schema"
    )]
    Outdated(#[source] tokio_postgres::Error),
    /// The role lacks a privilege: grant it.
    #[error(
        "permission denied: grant the role USAGE on schema jetcopy and SELECT on the tables of the store"
    )]
    Forbidden(#[source] tokio_postgres::Error),
    /// The server refuses the statement with these values: correct them.
    #[error("the database rejected the query with these arguments")]
    Refused(#[source] tokio_postgres::Error),
}

/// Why a statement has no answer.
pub(super) enum Refusal {
    /// The driver or the server says why.
    Database(tokio_postgres::Error),
    /// It has more bytes than these.
    TooLarge(usize),
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Database(error) => error.into(),
            Refusal::TooLarge(bytes) => Self::TooLarge(bytes),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let code = error.code();
        // Somebody's statement_timeout or a person, or a function that would change something: the next
        // attempt would end no better.
        if matches!(code, Some(&SqlState::QUERY_CANCELED | &SqlState::READ_ONLY_SQL_TRANSACTION)) {
            return Self::Refused(error);
        }
        let missing = [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::DATATYPE_MISMATCH,
            SqlState::INVALID_FUNCTION_DEFINITION,
            SqlState::INVALID_SCHEMA_NAME,
        ];
        if code.is_some_and(|code| missing.contains(code)) {
            return Self::Outdated(error);
        }
        if code == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return Self::Forbidden(error);
        }
        match decide(&error, Step::Own) {
            Decision::Retry
            | Decision::Reconnect
            | Decision::BackOff
            | Decision::BackOffUnlessRow
            | Decision::Divide => Self::Lost(error),
            Decision::SuspectRow
            | Decision::AddPartition
            | Decision::Merge
            | Decision::PauseUnlessRow
            | Decision::Pause => Self::Refused(error),
        }
    }
}

impl StoreError {
    /// Whether another attempt may go better, so that a read is worth one.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Lost(_)
            | Self::Connect(
                ConnectError::Unreachable { .. }
                | ConnectError::NotWritable { .. }
                | ConnectError::Superseded { .. },
            ) => true,
            Self::Connect(
                ConnectError::Config { .. }
                | ConnectError::Tls { .. }
                | ConnectError::Refused { .. }
                | ConnectError::ReadOnly { .. },
            )
            | Self::Busy(_)
            | Self::Timeout(_)
            | Self::TooLarge(_)
            | Self::Outdated(_)
            | Self::Forbidden(_)
            | Self::Refused(_) => false,
        }
    }
}
