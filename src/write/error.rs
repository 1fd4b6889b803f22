//! Why no more batches can be written: a variant for each thing that follows.

use std::fmt::Write as _;

use super::BEGIN;
use super::flood::Stopped;
use crate::catalog::bounds::Bounds;
use crate::checkpoint;
use crate::copy::CopyError;
use crate::postgres::simple::Timeout;
use crate::postgres::sqlstate;

/// Why no more batches can be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The checkpoint could not be moved or committed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A table could not be locked, or the checkpoint not be moved.
    #[error("cannot move the checkpoint and lock {tables}")]
    Begin {
        /// The tables, as configured.
        tables: String,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// A table is not what the batch was encoded for.
    #[error("table {table} has changed; reloading its definition")]
    Changed {
        /// Table as configured.
        table: String,
    },
    /// Rows were not taken, and no single row is at fault.
    #[error("cannot write to table {table}")]
    Copy {
        /// Table as configured.
        table: String,
        source: CopyError,
    },
    /// Dead letters could not be stored.
    #[error("cannot store dead letters")]
    DeadLetters(#[source] tokio_postgres::Error),
    /// A trial that looks for the refused row failed for another reason.
    #[error("cannot look for the refused row")]
    Trial(#[source] tokio_postgres::Error),
    /// Rows need partitions that could not be added.
    #[error("cannot add partitions to table {table}")]
    Partitions {
        /// Table as configured.
        table: String,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// Rows need a partition that is not jetcopy's to make.
    #[error("no partition for {key} in table {table}")]
    NoPartition {
        /// Table as configured.
        table: String,
        /// The partition key and the value of a row, where the server says it.
        key: String,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// Rows need partitions that the configuration wants and the database refuses.
    #[error(
        "rows of {day} have no partition in table {table}: the configuration adds them within {set}, but the \
         database only within {kept}"
    )]
    Bounds {
        /// Table as configured.
        table: String,
        day: String,
        /// What the database keeps.
        kept: Bounds,
        /// What the configuration says.
        set: Bounds,
    },
    /// The server did not answer in time.
    #[error(transparent)]
    Timeout(#[from] Timeout),
    /// Rows are refused, and none passes that is tried: something else than a message is wrong.
    #[error("{}", all_refused(.table.as_deref(), *.sequence))]
    AllRefused {
        /// Table as configured, unless it was at COMMIT.
        table: Option<String>,
        /// Sequence of the message whose rows are refused first.
        sequence: u64,
        /// Whether that lasts.
        lasting: bool,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// Rows are refused, and taken when they are tried.
    #[error("rows{} are refused, but accepted when tried alone", of_table(.table.as_deref()))]
    Unsettled {
        /// Table as configured, unless it was at COMMIT.
        table: Option<String>,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// A row is refused alone, and others pass, with an error that is a row's fault by way of exception.
    #[error(
        "the message at sequence {sequence} alone is refused{}; it becomes a dead letter if that persists",
        .table.as_deref().map_or_else(String::new, |table| format!(" by table {table}"))
    )]
    Doubted {
        /// Table as configured, unless it was at COMMIT.
        table: Option<String>,
        sequence: u64,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// Something else than the target table or a message is at fault.
    #[error("{}", elsewhere(.table.as_deref(), .relation.as_deref(), *.sequence))]
    Elsewhere {
        /// Table as configured, unless it was at COMMIT.
        table: Option<String>,
        /// The relation that the server names.
        relation: Option<String>,
        /// The one message that has met this for a while, where others pass.
        sequence: Option<u64>,
        source: CopyError,
    },
    /// A transaction ran out of time; the next ones take fewer messages.
    #[error("{messages} messages did not fit into one transaction; the next ones take fewer")]
    Slow {
        /// How many there were.
        messages: u32,
        /// How that was noticed.
        source: Box<Error>,
    },
    /// So did one of a single message, again and again.
    #[error("the message at sequence {sequence} alone takes longer than a transaction may")]
    TooSlow {
        sequence: u64,
        /// How that was noticed.
        source: Box<Error>,
    },
    /// So is the one of a single message for a limit of the server.
    #[error("the message at sequence {sequence} alone is more than the server accepts in one statement")]
    TooMuch { sequence: u64, source: CopyError },
    /// More poison than is normal.
    #[error(transparent)]
    Flood(Box<Stopped>),
    /// The connection is gone.
    #[error("the database connection was lost")]
    Closed,
    /// The server is there by its address and answers nobody.
    #[error("the database server at {host} no longer answers")]
    Silent {
        /// Host and port.
        host: String,
    },
}

fn of_table(table: Option<&str>) -> String {
    table.map_or_else(String::new, |table| format!(" of table {table}"))
}

fn all_refused(table: Option<&str>, sequence: u64) -> String {
    let table = of_table(table);
    format!("every row{table} that was tried is refused, from sequence {sequence} on: no message is at fault")
}

fn elsewhere(table: Option<&str>, relation: Option<&str>, sequence: Option<u64>) -> String {
    let mut text = format!("cannot write rows{}", of_table(table));
    if let Some(relation) = relation {
        text.push_str(": the server names another relation, ");
        text.push_str(relation);
    }
    if let Some(sequence) = sequence {
        // Writing to a string cannot fail.
        let _ = write!(text, ", whenever those of sequence {sequence} are among them");
    }
    text
}

/// Whether it was a matter of time that rows were not written, so that fewer might be.
pub(super) fn out_of_time(error: &Error) -> bool {
    match error {
        Error::Timeout(timeout) => timeout.action != BEGIN,
        Error::Checkpoint(checkpoint::Error::Database { source, .. })
        | Error::Copy { source: CopyError { source, .. }, .. }
        | Error::DeadLetters(source)
        | Error::Trial(source) => sqlstate::ran_out_of_time(source),
        Error::Checkpoint(_)
        | Error::Begin { .. }
        | Error::Changed { .. }
        | Error::Partitions { .. }
        | Error::NoPartition { .. }
        | Error::Bounds { .. }
        | Error::AllRefused { .. }
        | Error::Unsettled { .. }
        | Error::Doubted { .. }
        | Error::Elsewhere { .. }
        | Error::TooMuch { .. }
        | Error::Slow { .. }
        | Error::TooSlow { .. }
        | Error::Flood(_)
        | Error::Closed
        | Error::Silent { .. } => false,
    }
}
