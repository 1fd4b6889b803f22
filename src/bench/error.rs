//! Why a run has no result.
//!
//! Guarantees: one variant for each thing that its caller may do about it, with the cause attached.

use std::path::PathBuf;

use super::publisher;
use crate::migrate::MigrateError;
use crate::nats::ConnectError as NatsError;
use crate::postgres::connect::ConnectError as PostgresError;
use crate::testbed;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows do not fit into the message.
    #[error("a message of {payload} bytes cannot hold {rows} rows: ask for {least} bytes or more")]
    TooSmall {
        /// Bytes asked for.
        payload: usize,
        /// Rows asked for.
        rows: usize,
        /// Bytes without any filling.
        least: usize,
    },
    /// The server would not take the message.
    #[error(
        "a message of {payload} bytes is larger than the {most} that the NATS server accepts (max_payload)"
    )]
    TooLarge {
        /// Bytes asked for.
        payload: usize,
        /// The server's limit.
        most: usize,
    },
    /// A private server cannot be had.
    #[error(transparent)]
    Private(#[from] testbed::Error),
    /// Its database cannot be prepared.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// NATS cannot be reached.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The database cannot be reached.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The daemon would have no place for its checkpoints.
    #[error("the database has no schema jetcopy: run `jetcopy migrate` first, or use `--private`")]
    NotMigrated,
    /// The database refused a statement.
    #[error("cannot {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// JetStream refused.
    #[error("cannot {action} stream {stream}")]
    Stream {
        /// What was tried.
        action: &'static str,
        /// The stream.
        stream: String,
        /// What the client said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not all could be published.
    #[error(transparent)]
    Publish(#[from] publisher::Error),
    /// The daemon does not do what it should.
    #[error("jetcopy run {what}; its log ends:\n{tail}")]
    Daemon {
        /// What it did.
        what: String,
        /// The last lines of its log.
        tail: String,
    },
    /// A file or a process could not be handled.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// What is to be measured cannot be.
    #[error("cannot measure: {what}")]
    Unmeasured {
        /// Why.
        what: String,
    },
    /// Someone asked for the end.
    #[error("interrupted; what the run created was removed")]
    Interrupted,
    /// A thread of the run has ended, which only a panic explains.
    #[error("a part of the run ended unexpectedly")]
    Ended,
    /// The run is over, but its traces are not.
    #[error(
        "not all streams, schemas and checkpoints whose names begin with {prefix} could be removed: run \
         `jetcopy bench --clean`"
    )]
    Remains {
        /// The beginning of the names; those of streams are in capitals.
        prefix: String,
        /// Why.
        source: Box<Error>,
    },
}

impl Error {
    /// Wraps what the database says to `action`.
    pub fn database(action: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    pub(super) fn stream(
        action: &'static str,
        stream: String,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Stream { action, stream, source: Box::new(source) }
    }
}

/// Names the action and the path of an input or output error.
pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
