//! Simple queries: one round trip, any number of statements, answers as text; and steps under a deadline.
//!
//! Guarantees: the answers of all statements are read in order, whatever else the server says between them. A
//! column that is NULL, or that the row does not have, reads as `None`.
//!
//! Not guaranteed: that a step which ran out of time did not happen. Its connection is of no more use.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::row::RowIndex;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

/// What the statements of a simple query answered.
#[derive(Debug, Default)]
pub struct Answers(Vec<SimpleQueryMessage>);

/// A step that the server did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database timed out after {} s {action}", .after.as_secs())]
pub struct Timeout {
    /// When that was: "reading the tallies", "during commit".
    pub action: &'static str,
    /// How long was waited.
    pub after: Duration,
}

/// Runs the statements of `sql`.
pub async fn ask(client: &Client, sql: &str) -> Result<Answers, Error> {
    client.simple_query(sql).await.map(Answers)
}

/// Runs one step on the database under its deadline.
pub async fn within<T>(
    limit: Duration,
    action: &'static str,
    step: impl Future<Output = T>,
) -> Result<T, Timeout> {
    tokio::time::timeout(limit, step).await.map_err(|_| Timeout { action, after: limit })
}

impl Answers {
    /// The rows of all statements.
    pub fn rows(&self) -> impl Iterator<Item = &SimpleQueryRow> {
        self.0.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
    }

    /// The first row that has a column.
    #[must_use]
    pub fn first(&self) -> Option<&SimpleQueryRow> {
        self.rows().find(|row| !row.is_empty())
    }

    /// A column of that row.
    #[must_use]
    pub fn text(&self, column: usize) -> Option<&str> {
        self.first().and_then(|row| text(row, column))
    }

    /// The same, read as a number; `None` where it is none.
    #[must_use]
    pub fn number<T: FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }

    /// The column `name` of the first row that has one.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&str> {
        let has = |row: &&SimpleQueryRow| row.columns().iter().any(|column| column.name() == name);
        self.rows().find(has)?.get(name)
    }

    /// Rows that the last statement affected.
    #[must_use]
    pub fn affected(&self) -> u64 {
        let complete = self.0.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        complete.unwrap_or(0)
    }
}

/// A column as text.
#[must_use]
pub fn text(row: &SimpleQueryRow, column: impl RowIndex + Display) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

/// A column as a number; `None` where it is none.
#[must_use]
pub fn number<T: FromStr>(row: &SimpleQueryRow, column: impl RowIndex + Display) -> Option<T> {
    text(row, column)?.parse().ok()
}

/// A column that is true.
#[must_use]
pub fn is_true(row: &SimpleQueryRow, column: usize) -> bool {
    text(row, column) == Some("t")
}
