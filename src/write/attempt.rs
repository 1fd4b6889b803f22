//! One transaction with rows: to commit it, or to try and roll it back.
//!
//! Guarantees: what is returned as a [`Stop`] has been rolled back, and the session takes the next
//! transaction; an error leaves the session in an unknown state and ends the generation. An error of the
//! server that names another relation than the tables written to, or whose class is never a row's, is
//! [`Stop::Elsewhere`]. A chunk that the same transaction made is the table's, though it is gone by the time
//! it is asked for.

use std::ops::Range;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::error::SqlState;

use super::refused::Poisoned;
use super::{BEGIN, Error, Writer, partitions, shape, within};
use crate::batch::{Batch, Excluded, Row, Selection, TableRows};
use crate::checkpoint::{self, Advance, Along, Committed, Open};
use crate::copy::{CopyError, Unstored};
use crate::dead_letter;
use crate::liveness::copy_deadline;
use crate::loss;
use crate::metrics;
use crate::milestones;
use crate::postgres::simple::{self, ask};
use crate::postgres::sqlstate::{Decision, Step, decide, is_direct, relation};
use crate::seal;
use crate::tally::{self, Event};

/// What one attempt to write a part of a batch came to.
pub(super) enum Attempt {
    /// With what was committed since the last seal, these messages among it.
    Committed(Committed, Copied, Box<seal::Open>),
    Stopped(Stop),
}

/// Why rows did not go in.
pub(super) enum Stop {
    /// A row may be at fault; of this table, unless it was at `COMMIT`.
    Suspect { table: Option<usize>, error: CopyError },
    /// Something else than a row is.
    Elsewhere {
        table: Option<usize>,
        error: CopyError,
        /// The relation that the server names, where it is none of those written to.
        relation: Option<String>,
    },
    /// No partition of this table takes a row.
    Unpartitioned { table: usize, error: CopyError },
    /// Fewer rows at once may pass.
    TooMuch { table: Option<usize>, error: CopyError },
    /// A row of this table is there already.
    Conflict { table: usize },
    /// Another transaction was in the way, or time ran out.
    Again(Error),
}

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// What was not stored, by table; after the last entry, everything was.
    unstored: Vec<Unstored>,
}

impl Copied {
    /// Whether rows of one of the tables were not stored, which says nothing about what would have become of
    /// them.
    pub(super) fn skips(&self, tables: &[usize]) -> bool {
        tables.iter().any(|&table| self.of(table) != Unstored::default())
    }

    /// What of a table's rows was not stored.
    pub(super) fn of(&self, table: usize) -> Unstored {
        self.unstored.get(table).copied().unwrap_or_default()
    }

    /// Adds what was not stored to the open seal; whether there was any.
    fn add_to(&self, sealing: &mut seal::Open) -> bool {
        for (table, unstored) in self.unstored.iter().enumerate() {
            sealing.add_unstored(table, unstored.skipped + unstored.left_out);
        }
        !self.unstored.is_empty()
    }

    fn note(&mut self, table: usize, unstored: Unstored) {
        if unstored == Unstored::default() {
            return;
        }
        if self.unstored.len() <= table {
            self.unstored.resize(table + 1, Unstored::default());
        }
        self.unstored[table] = unstored;
    }
}

impl Writer {
    /// One transaction, from BEGIN to COMMIT or ROLLBACK.
    pub(super) async fn attempt(&self, batch: &mut Batch, poisoned: &Poisoned) -> Result<Attempt, Error> {
        let part = &poisoned.part;
        let Some(last) = batch.messages[..part.end as usize].last() else {
            unreachable!("an empty batch is never sent")
        };
        let to = Advance { last_sequence: last.sequence, last_timestamp_ns: last.timestamp_ns };
        self.at(metrics::Step::Begin(self.tables()));
        let (mut sealing, close) = self.sealing();
        sealing.add(batch, part, &poisoned.excluded, poisoned.letters.len());
        let superseded = batch.superseded(part);
        let mut along = self.along(batch, poisoned, superseded.map(|(.., messages)| messages));
        along.close = close;
        along.set = sealing.set(last.sequence);
        // Two writers would number theirs alike.
        let milestone = self.lane == 0 && self.milestone.is_due();
        if milestone {
            along.after.push_str(&milestones::add(&self.shard.name, last.sequence, last.timestamp_ns));
        }
        let mut open = match self.open(&to, &along).await {
            Ok(open) => open,
            Err(error) => return self.try_again(error).await.map(Attempt::Stopped),
        };
        self.progress.step();
        if let Err(changed) = self.unchanged(open.answers()) {
            within(self.step_timeout, "during rollback", open.rollback()).await??;
            return Err(changed);
        }
        let copied = match self.copy_all(batch, &poisoned.excluded, part).await? {
            Ok(copied) => copied,
            Err((table, error)) => {
                self.metrics.commits.failed.inc();
                return self.stop(Some(table), error).await.map(Attempt::Stopped);
            }
        };
        if !poisoned.letters.is_empty() {
            self.at(metrics::Step::DeadLetters);
            let bytes = poisoned.letters.iter().map(|letter| letter.payload.len()).sum();
            let after = copy_deadline(self.step_timeout, bytes);
            let stored = dead_letter::store(&self.session.client, &self.shard, &poisoned.letters);
            within(after, "storing dead letters", stored).await?.map_err(Error::DeadLetters)?;
            self.progress.step();
        }
        if let Some(superseded) = superseded.filter(|_| self.records_superseded) {
            self.record_superseded(superseded).await?;
        }
        if copied.add_to(&mut sealing) {
            open.set_at_commit(&self.shard, self.team.is_shared(), &sealing.set_unstored());
        }
        self.at(metrics::Step::Commit);
        let committed = within(self.step_timeout, "during commit", open.commit()).await;
        match committed.map_err(Error::from).and_then(|committed| Ok(committed?)) {
            Ok(committed) => {
                self.metrics
                    .duplicates_skipped
                    .inc_by(copied.unstored.iter().map(|table| table.skipped).sum());
                self.metrics.superseded_messages.inc_by(superseded.map_or(0, |(.., messages)| messages));
                if milestone {
                    self.milestone.written();
                }
                Ok(Attempt::Committed(committed, copied, Box::new(sealing)))
            }
            // The server has answered, and rolled back already.
            Err(Error::Checkpoint(checkpoint::Error::Database { source, .. }))
                if decide(&source, Step::Commit) != Decision::Reconnect =>
            {
                self.metrics.commits.failed.inc();
                let error = CopyError { step: Step::Commit, row: None, source };
                self.stop(None, error).await.map(Attempt::Stopped)
            }
            Err(error) => {
                self.metrics.commits.in_doubt.inc();
                Err(error)
            }
        }
    }

    /// What goes along with opening the transaction, of which `superseded` messages were removed unread.
    fn along(&self, batch: &Batch, poisoned: &Poisoned, superseded: Option<u64>) -> Along {
        let mut along = Along {
            before: partitions::touches(&self.targets, &batch.rows.tables),
            after: shape::lock_and_ask(&self.targets, &batch.rows.tables),
            accepted: poisoned.uses(),
            ..Along::default()
        };
        let kinds = poisoned.letters.iter().map(|letter| letter.kind);
        along.after.push_str(&tally::add_letters(&self.shard.name, kinds));
        if let Some(messages) = superseded {
            along.after.push_str(&tally::add(&self.shard.name, Event::Superseded, "", 1, messages));
        }
        along
    }

    /// Opens the transaction that moves the checkpoint.
    pub(super) async fn open(&self, to: &Advance, along: &Along) -> Result<Open<'_>, Error> {
        let known = self.team.known();
        let at = self.position(&known);
        let begin = Open::begin(&self.session, &at, to, along);
        Ok(within(self.step_timeout, BEGIN, begin).await??)
    }

    /// Records the first and the last sequence of what was superseded unread, and how many it was.
    async fn record_superseded(&self, superseded: (u64, u64, u64)) -> Result<(), Error> {
        let noted = loss::note_superseded(&self.session, &self.shard, superseded);
        if within(self.step_timeout, "recording a loss", noted).await?? {
            self.metrics.losses.inc();
            self.metrics.newest.is_now(Event::Loss);
            let (first, last, messages) = superseded;
            tracing::error!(
                pipeline = self.shard.pipeline,
                first,
                last,
                messages,
                "the stream removed messages by itself before they were read; more within the hour is added \
                 to the same row of jetcopy.losses"
            );
        }
        Ok(())
    }

    /// Whether the server takes these rows now, in a transaction that is rolled back.
    pub(super) async fn trial(
        &self,
        batch: &mut Batch,
        excluded: &Excluded,
        part: &Range<u32>,
    ) -> Result<Result<Copied, Stop>, Error> {
        if let Err(stop) = self.begin_trial(&batch.rows.tables).await? {
            return Ok(Err(stop));
        }
        let copied = self.copy_all(batch, excluded, part).await?;
        self.end_trial(copied).await
    }

    /// The same for a single row of `table`.
    pub(super) async fn trial_of(&self, table: usize, tuple: Vec<u8>) -> Result<Result<Copied, Stop>, Error> {
        if let Err(stop) = self.begin_trial(&[]).await? {
            return Ok(Err(stop));
        }
        let row = Row { start: 0, message: 0, element: 0, time: 0 };
        let mut rows = TableRows { data: tuple, rows: vec![row] };
        let copied = self.copy_one(table, &mut rows, &Excluded::default(), &(0..1)).await?;
        let copied = match copied {
            Ok(unstored) => {
                let mut copied = Copied::default();
                copied.note(table, unstored);
                Ok(copied)
            }
            Err(error) => Err((table, error)),
        };
        self.end_trial(copied).await
    }

    async fn end_trial(
        &self,
        copied: Result<Copied, (usize, CopyError)>,
    ) -> Result<Result<Copied, Stop>, Error> {
        let copied = match copied {
            Ok(copied) => copied,
            Err((table, error)) => return self.stop(Some(table), error).await.map(Err),
        };
        // What is deferred is judged at COMMIT, which a trial never comes to. What the transaction made, such
        // as a chunk, is there behind the savepoint, and can be asked for.
        if let Err(source) = self.statement("SAVEPOINT deferred; SET CONSTRAINTS ALL IMMEDIATE").await? {
            let error = CopyError { step: Step::Commit, row: None, source };
            if decide(&error.source, error.step) == Decision::Reconnect {
                return Err(self.not_written(None, error));
            }
            if self.statement("ROLLBACK TO SAVEPOINT deferred").await?.is_err() {
                return Err(self.not_written(None, error));
            }
            let relation = self.other_relation(None, &error).await?;
            return self.rolled_back(None, error, relation).await.map(Err);
        }
        within(self.step_timeout, "during rollback", checkpoint::rollback(&self.session)).await??;
        Ok(Ok(copied))
    }

    async fn statement(&self, sql: &str) -> Result<Result<(), tokio_postgres::Error>, Error> {
        let statement = self.session.client.batch_execute(sql);
        Ok(within(self.step_timeout, "looking for the refused row", statement).await?)
    }

    /// Copies the rows of every table into the open transaction, without what is `excluded` and of the
    /// messages of `part` only.
    async fn copy_all(
        &self,
        batch: &mut Batch,
        excluded: &Excluded,
        part: &Range<u32>,
    ) -> Result<Result<Copied, (usize, CopyError)>, Error> {
        let mut copied = Copied::default();
        for (table, rows) in batch.rows.tables.iter_mut().enumerate() {
            if rows.of_messages(part).is_empty() {
                continue;
            }
            match self.copy_one(table, rows, excluded, part).await? {
                Ok(unstored) => copied.note(table, unstored),
                Err(error) => return Ok(Err((table, error))),
            }
        }
        Ok(Ok(copied))
    }

    async fn copy_one(
        &self,
        table: usize,
        rows: &mut TableRows,
        excluded: &Excluded,
        part: &Range<u32>,
    ) -> Result<Result<Unstored, CopyError>, Error> {
        self.at(metrics::Step::Copy(self.targets[table].name.clone()));
        self.search.copies(rows.of_messages(part).len());
        let after = copy_deadline(self.step_timeout, rows.data.len());
        let selection = Selection { table, excluded, within: part.clone() };
        let write = self.targets[table].write(&self.session, rows, &selection);
        let outcome = within(after, "during COPY", write).await;
        self.progress.step();
        Ok(outcome?)
    }

    /// After an error before any row: rolls back and tries again where that helps. A lock that is not free in
    /// time is waited for by the next generation, which says so.
    pub(super) async fn try_again(&self, error: Error) -> Result<Stop, Error> {
        if matches!(error, Error::Checkpoint(checkpoint::Error::LostEpoch)) {
            self.metrics.commits.lost_epoch.inc();
        }
        let Error::Checkpoint(checkpoint::Error::Database { source, .. }) = error else { return Err(error) };
        self.metrics.commits.failed.inc();
        let again = decide(&source, Step::Own) == Decision::Retry
            && source.code() != Some(&SqlState::LOCK_NOT_AVAILABLE);
        let error = Error::Begin { tables: self.tables(), source };
        if !again {
            return Err(error);
        }
        within(self.step_timeout, "during rollback", checkpoint::rollback(&self.session)).await??;
        Ok(Stop::Again(error))
    }

    /// What an error about rows means, the transaction being rolled back.
    async fn stop(&self, table: Option<usize>, error: CopyError) -> Result<Stop, Error> {
        // Where a COPY does not start, the driver's replies are off by one: the connection is not used again.
        if error.step == Step::CopyStart || decide(&error.source, error.step) == Decision::Reconnect {
            return Err(self.not_written(table, error));
        }
        let rollback = checkpoint::rollback(&self.session);
        if !matches!(within(self.step_timeout, "during rollback", rollback).await, Ok(Ok(()))) {
            return Err(self.not_written(table, error));
        }
        let relation = self.other_relation(table, &error).await?;
        Ok(self.meaning(table, error, relation))
    }

    /// The same, where the relation that the error names is known already.
    async fn rolled_back(
        &self,
        table: Option<usize>,
        error: CopyError,
        relation: Option<String>,
    ) -> Result<Stop, Error> {
        let rollback = checkpoint::rollback(&self.session);
        if !matches!(within(self.step_timeout, "during rollback", rollback).await, Ok(Ok(()))) {
            return Err(self.not_written(table, error));
        }
        Ok(self.meaning(table, error, relation))
    }

    fn meaning(&self, table: Option<usize>, error: CopyError, relation: Option<String>) -> Stop {
        let decision = decide(&error.source, error.step);
        match (decision, table) {
            (Decision::Retry, _) => Stop::Again(self.not_written(table, error)),
            (Decision::Reconnect | Decision::BackOff | Decision::Pause, _) => {
                Stop::Elsewhere { table, error, relation }
            }
            _ if relation.is_some() => Stop::Elsewhere { table, error, relation },
            (Decision::AddPartition, Some(table)) => Stop::Unpartitioned { table, error },
            (Decision::Merge, Some(table)) => Stop::Conflict { table },
            (Decision::Divide, _) => Stop::TooMuch { table, error },
            (Decision::SuspectRow | Decision::PauseUnlessRow | Decision::BackOffUnlessRow, _)
            | (Decision::AddPartition | Decision::Merge, None) => Stop::Suspect { table, error },
        }
    }

    /// Rows were not written, and none of them is at fault.
    pub(super) fn not_written(&self, table: Option<usize>, error: CopyError) -> Error {
        match table {
            Some(table) => Error::Copy { table: self.targets[table].name.clone(), source: error },
            None => checkpoint::Error::Database { action: "commit", source: error.source }.into(),
        }
    }

    /// The relation that the error names, where that is neither a table that was written to nor a partition
    /// or a chunk of one.
    ///
    /// One that is not there was made in the transaction that is rolled back. It is a chunk of the table's
    /// own where no function or other statement met the error, but what writes the rows; at COMMIT, a trial
    /// has to tell.
    async fn other_relation(&self, table: Option<usize>, error: &CopyError) -> Result<Option<String>, Error> {
        match decide(&error.source, error.step) {
            Decision::SuspectRow
            | Decision::AddPartition
            | Decision::Merge
            | Decision::Divide
            | Decision::PauseUnlessRow
            | Decision::BackOffUnlessRow => {}
            Decision::Retry | Decision::Reconnect | Decision::BackOff | Decision::Pause => return Ok(None),
        }
        let Some((schema, name)) = relation(&error.source) else { return Ok(None) };
        let written = self.targets.iter().enumerate().filter(|(index, _)| table.is_none_or(|t| t == *index));
        let written: Vec<String> = written.map(|(_, target)| escape_literal(&target.qualified)).collect();
        let sql = format!(
            "WITH RECURSIVE up (oid) AS ( \
               SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = {} AND c.relname = {} \
               UNION SELECT i.inhparent FROM pg_inherits i JOIN up ON i.inhrelid = up.oid) \
             SELECT oid IN (SELECT to_regclass(name)::oid FROM pg_catalog.unnest(ARRAY[{}]) AS name) FROM up \
             ORDER BY 1 DESC LIMIT 1",
            escape_literal(schema),
            escape_literal(name),
            written.join(", "),
        );
        let asked = within(self.step_timeout, "looking for the refused row", ask(&self.session.client, &sql));
        let answers = asked.await?.map_err(Error::Trial)?;
        let is_written = answers.first().map(|row| simple::is_true(row, 0));
        let is_written = is_written.unwrap_or_else(|| error.step == Step::Commit || is_direct(&error.source));
        Ok((!is_written).then(|| format!("{schema}.{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_not_stored_are_known_by_table() {
        let mut copied = Copied::default();
        copied.note(99, Unstored { left_out: 3, ..Unstored::default() });
        copied.note(2, Unstored { skipped: 1, ..Unstored::default() });
        assert!(copied.skips(&[2]) && copied.skips(&[0, 2]) && copied.skips(&[99]));
        assert!(!copied.skips(&[0, 1, 70]) && !copied.skips(&[]));
        assert_eq!((copied.of(99).left_out, copied.of(100)), (3, Unstored::default()));
    }
}
