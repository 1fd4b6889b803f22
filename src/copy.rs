//! A batch's rows into an open transaction by binary `COPY`.
//!
//! Guarantees: rows go out sorted by time (a hypertable takes shuffled rows half as fast again), in chunks of
//! [`CHUNK`] bytes; rows that lie in order already are sent without being copied. Nothing here commits.
//!
//! Rows that may be there already go through a temporary table ([`merge`]).
//!
//! An error says at which step it came, since the same SQLSTATE means different things at different steps;
//! whether the connection can be used further is the caller's decision.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use postgres_protocol::escape::escape_identifier;

use crate::batch::{Row, Selection, TableRows};
use crate::config::{BadElement, OnConflict, Table as Settings};
use crate::decode::Decoder;
use crate::encode::copy_frame::{HEADER, TRAILER};
use crate::kill_point;
use crate::postgres::connect::Session;
use crate::postgres::direct_compress;
use crate::postgres::introspect::{RolledUp, Table};
use crate::postgres::simple::ask;
use crate::postgres::sqlstate::Step;

use merge::Merge;

mod merge;

/// Bytes in a `CopyData` message. 64 KiB took 0.03 to 0.05 s of CPU for 200 k rows, 1 KiB 0.3 to 0.5 s;
/// more gains nothing.
const CHUNK: usize = 64 * 1024;

/// The statements that fill one target table.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its name, as configured.
    pub name: String,
    /// Its schema and name, quoted for SQL.
    pub qualified: String,
    /// The column that rows are sorted by, where they have it.
    pub time_column: Option<String>,
    /// The roll-ups that are told which of their buckets rows fall into.
    pub rollups: Vec<RolledUp>,
    /// Batches that still go through the merge path, since a row was there already.
    pub merging: u32,
    /// What to do about rows that are there already.
    pub on_conflict: OnConflict,
    /// What is refused with a row.
    pub bad_element: BadElement,
    /// What `jetcopy.shape()` said when the table was read.
    pub shape: Option<i64>,
    /// Takes the lock that a `COPY` takes, before anything is read that the `COPY` depends on.
    pub lock: String,
    direct_compress: bool,
    copy: String,
    merge: Merge,
}

/// Rows that the server took and did not store, which is no error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unstored {
    /// Their key was there already, or came again in the batch. Rows that a trigger left out of a merge are
    /// among them.
    pub skipped: u64,
    /// A trigger of the table left them out.
    pub left_out: u64,
}

impl Unstored {
    /// How many of the rows that were `sent` are stored.
    #[must_use]
    pub(crate) fn of(self, sent: u64) -> u64 {
        sent.saturating_sub(self.skipped + self.left_out)
    }
}

/// Why rows did not go in.
#[derive(Debug, thiserror::Error)]
#[error("the rows were not taken")]
pub(crate) struct CopyError {
    /// Where it happened.
    pub step: Step,
    /// Which of the rows that were sent, counted from 0 in the order of sending, where the server says.
    pub row: Option<u64>,
    /// What the driver said.
    pub source: tokio_postgres::Error,
}

impl Target {
    /// The statements for `table` with the columns that the decoder writes.
    #[must_use]
    pub(crate) fn new(settings: &Settings, table: &Table, decoder: &Decoder, index: usize) -> Self {
        let columns = decoder.columns(index);
        let (name, columns_sql) = (&table.qualified, list(columns));
        // `ONLY` leaves partitions alone, of which there may be thousands: a `COPY` locks those that it
        // fills.
        let lock = if table.lockable {
            format!("LOCK TABLE ONLY {name} IN ROW EXCLUSIVE MODE; ")
        } else {
            // `EXPLAIN` takes the same lock, runs nothing and fires no trigger, and needs no right to other
            // columns.
            let defaults = vec!["DEFAULT"; columns.len()].join(", ");
            format!("EXPLAIN (COSTS OFF) INSERT INTO {name} ({columns_sql}) VALUES ({defaults}); ")
        };
        Self {
            name: settings.name.clone(),
            qualified: name.clone(),
            time_column: table.time_column.clone().filter(|time| columns.contains(time)),
            rollups: table.rollups.clone(),
            merging: 0,
            on_conflict: settings.on_conflict,
            bad_element: settings.bad_element,
            shape: table.shape,
            lock,
            direct_compress: settings.direct_compress,
            copy: format!("COPY {name} ({columns_sql}) FROM STDIN (FORMAT binary)"),
            merge: Merge::new(settings, table, columns, &decoder.may_lack(index)),
        }
    }

    /// Lets a row that is there stay where its `column` is not less than the new one's, so that rows may come
    /// late: by itself, `update` without `newer_by` takes each row that comes for the newest.
    pub(crate) fn keep_newer(&mut self, column: &str) {
        self.merge.keep_newer(column);
    }

    /// Whether the rows go through the temporary table now.
    #[must_use]
    pub(crate) fn merges(&self) -> bool {
        match self.on_conflict {
            OnConflict::Update => true,
            OnConflict::Ignore => self.merging > 0,
            OnConflict::Error => false,
        }
    }

    /// Writes the selected rows, by the way that is right now.
    pub(crate) async fn write(
        &self,
        session: &Session,
        rows: &mut TableRows,
        selection: &Selection<'_>,
    ) -> Result<Unstored, CopyError> {
        if self.merges() {
            let skipped = self.merge(session, rows, selection).await?;
            Ok(Unstored { skipped, ..Unstored::default() })
        } else {
            let left_out = self.copy(session, rows, selection).await?;
            Ok(Unstored { left_out, ..Unstored::default() })
        }
    }

    /// The `sent`th row of a selection.
    #[must_use]
    pub(crate) fn row_of<'r>(
        &self,
        rows: &'r TableRows,
        selection: &Selection<'_>,
        sent: u64,
    ) -> Option<&'r Row> {
        let sent = usize::try_from(sent).ok()?;
        let index = match selection.order(rows, self.merges()) {
            Some(order) => *order.get(sent)? as usize,
            None => sent,
        };
        rows.rows.get(index)
    }

    /// Returns how many rows were left out.
    async fn copy(
        &self,
        session: &Session,
        rows: &mut TableRows,
        selection: &Selection<'_>,
    ) -> Result<u64, CopyError> {
        let data = Step::CopyData { mergeable: self.on_conflict != OnConflict::Error };
        let order = selection.order(rows, false);
        let sent = order.as_ref().map_or(rows.rows.len(), Vec::len) as u64;
        if !self.direct_compress {
            let stored = send(session, &self.copy, rows, order.as_deref(), data).await?;
            return Ok(sent.saturating_sub(stored));
        }
        let switch = |source| CopyError { step: Step::CopyStart, row: None, source };
        session.client.batch_execute(direct_compress::ON).await.map_err(switch)?;
        let stored = send(session, &self.copy, rows, order.as_deref(), data).await?;
        session.client.batch_execute(direct_compress::OFF).await.map_err(switch)?;
        Ok(sent.saturating_sub(stored))
    }

    /// By a temporary table, filled in stream order, and `INSERT … ON CONFLICT`; returns how many rows were
    /// skipped.
    async fn merge(
        &self,
        session: &Session,
        rows: &mut TableRows,
        selection: &Selection<'_>,
    ) -> Result<u64, CopyError> {
        let merge_step = |source| CopyError { step: Step::Merge, row: None, source };
        session.client.batch_execute(&self.merge.create).await.map_err(merge_step)?;
        let order = selection.order(rows, true);
        let data = Step::CopyData { mergeable: false };
        let copied = send(session, &self.merge.copy, rows, order.as_deref(), data).await?;
        let merged = ask(&session.client, &self.merge.insert(copied)).await.map_err(merge_step)?;
        session.client.batch_execute(&self.merge.drop).await.map_err(merge_step)?;
        // The insert is the last statement of those.
        Ok(copied.saturating_sub(merged.affected()))
    }
}

/// Names for SQL, between commas.
fn list(names: &[String]) -> String {
    names.iter().map(|name| escape_identifier(name)).collect::<Vec<_>>().join(", ")
}

/// Returns how many rows the server counted.
async fn send(
    session: &Session,
    sql: &str,
    rows: &mut TableRows,
    order: Option<&[u32]>,
    step: Step,
) -> Result<u64, CopyError> {
    let start = |source| CopyError { step: Step::CopyStart, row: None, source };
    let failed = |source: tokio_postgres::Error| CopyError {
        step,
        row: crate::postgres::sqlstate::copy_line(&source).and_then(|line| line.checked_sub(1)),
        source,
    };
    let mut sink = pin!(session.client.copy_in::<_, Bytes>(sql).await.map_err(start)?);
    sink.feed(Bytes::from_static(HEADER)).await.map_err(failed)?;
    kill_point::reach(kill_point::IN_COPY);
    match order {
        None => {
            // Lent to the driver and taken back: once all of it is sent, the allocation is ours alone again.
            let data = Bytes::from(std::mem::take(&mut rows.data));
            let sent = async {
                for from in (0..data.len()).step_by(CHUNK) {
                    sink.feed(data.slice(from..data.len().min(from + CHUNK))).await?;
                }
                sink.feed(Bytes::from_static(&TRAILER)).await?;
                sink.as_mut().finish().await
            };
            let sent = sent.await.map_err(failed);
            rows.data = Vec::from(data);
            sent
        }
        Some(order) => {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            for &index in order {
                let mut tuple = &rows.data[rows.range(index)];
                // A tuple may lie across chunks: a large one is never in memory once more.
                while chunk.len() + tuple.len() > CHUNK {
                    let (now, later) = tuple.split_at(CHUNK - chunk.len());
                    chunk.extend_from_slice(now);
                    sink.feed(chunk.split().freeze()).await.map_err(failed)?;
                    chunk.reserve(CHUNK);
                    tuple = later;
                }
                chunk.extend_from_slice(tuple);
            }
            chunk.extend_from_slice(&TRAILER);
            sink.feed(chunk.freeze()).await.map_err(failed)?;
            sink.finish().await.map_err(failed)
        }
    }
}
