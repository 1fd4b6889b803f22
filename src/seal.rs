//! What commits carried, counted beside the position that they moved, and sealed from time to time.
//!
//! Guarantees: counts and digest are set in the transaction that moves the checkpoint, as all that was
//! committed since the last seal: of several writers, by each for its own lane. So what a row says is of the
//! same moment as its position, whichever commits a failover has lost. What was tried and not committed
//! leaves no trace: each attempt adds to a copy, which is kept once the commit is there.
//!
//! A seal is closed by `jetcopy.close_seal()` in the transaction of the commit after it, every [`AGE`] and
//! every [`MESSAGES`], and at each claim. Seals are chained by hashes: whoever may write the table can still
//! make a new chain, so what has to outlast that must be kept elsewhere (`jetcopy audit --json`).

use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;

use crate::batch::{Batch, Excluded};
use crate::config;
use crate::postgres::interval::timestamp;

mod chain;
mod digest;
mod story;

pub(crate) use chain::{Chains, End, Fault, Point, Share, Stretch, hex, is_past_sql, share, stored};
pub(crate) use digest::Digest;
pub(crate) use story::{Move, Story};

/// How long a seal stays open while messages come: few enough rows a year (105,000), and soon enough to be
/// filed.
const AGE: Duration = Duration::from_mins(5);

/// How many messages it takes: as many as are read from the stream again within minutes.
const MESSAGES: u64 = 5_000_000;

/// What has moved a checkpoint without a commit of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It is where a pipeline begins.
    Begun,
    /// The stream lacks what comes before.
    Lost,
    /// The stream is another one.
    Recreated,
    /// A rewind, or somebody's statement.
    Unknown,
}

/// SQL of a `SELECT` that seals what all writers of `shard` have committed; only for its owner while none
/// writes, or who has just claimed it.
#[must_use]
pub(crate) fn close_sql(shard: &str, moved: Moved) -> String {
    let moved = match moved {
        Moved::Begun => "begun",
        Moved::Lost => "lost",
        Moved::Recreated => "recreated",
        Moved::Unknown => "moved",
    };
    format!("SELECT jetcopy.close_seals({}, '{moved}') AS jetcopy_sealed", escape_literal(shard))
}

/// What was committed since the last seal.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    /// The tables that rows go to, in the order of the configuration, as SQL.
    tables: String,
    /// Since the first commit.
    since: Option<Instant>,
    messages: u64,
    letters: u64,
    superseded: u64,
    rows: Vec<u64>,
    unstored: Vec<u64>,
    first_at_ns: Option<i64>,
    digest: Option<Digest>,
}

impl Open {
    /// Nothing yet, after a claim.
    #[must_use]
    pub(crate) fn new<'t>(ledger: config::Ledger, tables: impl Iterator<Item = &'t str>) -> Self {
        let tables: Vec<String> = tables.map(escape_literal).collect();
        Self {
            since: None,
            messages: 0,
            letters: 0,
            superseded: 0,
            rows: vec![0; tables.len()],
            unstored: vec![0; tables.len()],
            first_at_ns: None,
            digest: match ledger.digest {
                config::Digest::Blake3 => Some(Digest::default()),
                config::Digest::None => None,
            },
            tables: format!("ARRAY[{}]::text[]", tables.join(", ")),
        }
    }

    /// A copy for the next commit of the `lane` to add to, with the statement that closes the seal before it
    /// where it is time.
    #[must_use]
    pub(crate) fn next(&self, shard: &str, lane: usize) -> (Self, String) {
        if self.messages < MESSAGES && self.since.is_none_or(|since| since.elapsed() < AGE) {
            return (self.clone(), String::new());
        }
        let next = Self {
            tables: self.tables.clone(),
            since: None,
            messages: 0,
            letters: 0,
            superseded: 0,
            rows: vec![0; self.rows.len()],
            unstored: vec![0; self.unstored.len()],
            first_at_ns: None,
            digest: self.digest.as_ref().map(|_| Digest::default()),
        };
        let shard = escape_literal(shard);
        (next, format!("SELECT jetcopy.close_seal({shard}, {lane}) AS jetcopy_sealed; "))
    }

    /// Adds the messages of `part`, of which `letters` dead letters are stored and `excluded` has no rows.
    pub(crate) fn add(&mut self, batch: &Batch, part: &Range<u32>, excluded: &Excluded, letters: usize) {
        let messages = &batch.messages[part.start as usize..part.end as usize];
        self.since = self.since.or_else(|| Some(Instant::now()));
        self.first_at_ns = self.first_at_ns.or_else(|| messages.first().map(|first| first.timestamp_ns));
        self.messages += messages.len() as u64;
        self.letters += letters as u64;
        self.superseded += batch.superseded(part).map_or(0, |(.., messages)| messages);
        for (table, (rows, count)) in batch.rows.tables.iter().zip(&mut self.rows).enumerate() {
            let range = rows.of_messages(part);
            *count += if excluded.is_empty() {
                range.len() as u64
            } else {
                rows.rows[range].iter().filter(|row| !excluded.holds(table, row)).count() as u64
            };
        }
        if let Some(digest) = &mut self.digest {
            for message in messages {
                digest.add(message.sequence, batch.payload(message));
            }
        }
    }

    /// Notes rows of a table that the server took and did not store.
    pub(crate) fn add_unstored(&mut self, table: usize, rows: u64) {
        if let Some(unstored) = self.unstored.get_mut(table) {
            *unstored += rows;
        }
    }

    /// What a commit up to `sequence` sets in the row of the checkpoint or the lane, after what it sets there
    /// anyway.
    #[must_use]
    pub(crate) fn set(&self, sequence: u64) -> String {
        let Self { messages, letters, superseded, tables, .. } = self;
        let mut set = format!(
            ", seal_to = {sequence}, seal_messages = {messages}, seal_letters = {letters}, \
             seal_superseded = {superseded}, seal_tables = {tables}, seal_rows = {}, {}, seal_first_at = {}, \
             seal_digest = ",
            numbers(&self.rows),
            self.set_unstored(),
            self.first_at_ns.map_or_else(|| "NULL".to_owned(), timestamp),
        );
        match &self.digest {
            Some(digest) => {
                // Writing to a string cannot fail.
                let _ = write!(set, "pg_catalog.decode('{}', 'hex')", digest.hex());
            }
            None => set.push_str("NULL"),
        }
        set
    }

    /// The part of it that is known only once the rows are there.
    #[must_use]
    pub(crate) fn set_unstored(&self) -> String {
        format!("seal_unstored = {}", numbers(&self.unstored))
    }
}

/// SQL for an array of them.
fn numbers(of: &[u64]) -> String {
    let texts: Vec<String> = of.iter().map(u64::to_string).collect();
    format!("'{{{}}}'", texts.join(","))
}

#[cfg(test)]
mod tests;
