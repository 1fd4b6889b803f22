//! Rows on their way to the database, and the stretch of the stream they came from.
//!
//! Guarantees: the rows of one message are added whole or not at all ([`Rows::mark`], [`Rows::rollback`]),
//! but for elements that are refused one by one; every row knows the message and the element it came from;
//! every message and every element of the batch is either represented by its rows or listed as [`Refused`].
//! It does no input or output and reads no clock.

use async_nats::Subject;
use bytes::Bytes;

use crate::config;
use crate::message::Message;
use crate::poison::Poison;

mod gap;
pub mod headers;
mod held;
mod originals;
mod refused;
mod selection;

pub use gap::{Gap, Moved};
pub use held::Held;
use originals::Originals;
pub use originals::{Entry, footprint};
pub use refused::{Refusals, Refused};
pub use selection::{Excluded, Selection};

/// Rows of a table that are dropped at once leave no memory behind where they took more bytes than this: what
/// a refused message had written by then may be a quarter of all that may be buffered, in each of the tables
/// in turn, and nobody would know of it. Good rows fill a new batch within microseconds.
const GIANT: usize = 64 << 10;

/// Everything that one transaction writes: the messages of one contiguous stretch of the stream.
#[derive(Debug)]
pub struct Batch {
    /// Encoded rows, table by table.
    pub rows: Rows,
    /// The messages, in stream order.
    pub messages: Vec<Entry>,
    /// Where an ack of the whole batch goes: the reply subject of its last message, where that was delivered.
    pub reply: Option<Subject>,
    originals: Originals,
    gaps: Vec<Gap>,
    /// How many of the gaps were checked.
    checked: usize,
    /// How much of each allocation was in use since it was made: by the tables, then by `originals`.
    used: Vec<usize>,
    /// Messages that seem to have lost their payload on the way, and were not checked yet.
    stripped: Vec<Gap>,
    /// Gaps of messages that were superseded before they were read.
    superseded: Vec<Gap>,
    /// Where the checkpoint moves to without a message.
    pub moved: Option<Moved>,
}

/// Which limit closed a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// `max_rows`.
    Rows,
    /// `max_bytes`.
    Bytes,
    /// `max_age`.
    Age,
    /// The next message is another writer's.
    Block,
    /// The pipeline stops.
    Shutdown,
}

/// The rows of one batch, table by table in the order of the configuration.
#[derive(Debug, Default)]
pub struct Rows {
    /// One entry a configured table.
    pub tables: Vec<TableRows>,
    /// What the decoder refused, in stream order.
    pub refused: Refusals,
}

/// Encoded rows of one table.
#[derive(Debug, Default)]
pub struct TableRows {
    /// Tuples of a binary `COPY`, back to back, without its header and trailer.
    pub data: Vec<u8>,
    /// One entry a tuple in `data`, in stream order.
    pub rows: Vec<Row>,
}

/// Where one tuple lies and what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Offset of the tuple in [`TableRows::data`], in bytes.
    pub start: u32,
    /// Index of the message in its batch.
    pub message: u32,
    /// Place in its array of the element that the row was made of; 0 in a table without `for_each`.
    pub element: u32,
    /// Value of the table's time column in its own unit (microseconds since 2000-01-01 for timestamps, days
    /// for dates), 0 where the table has none: what rows are sorted by.
    pub time: i64,
}

/// A point to return to when a message turns out to be poison.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    tables: Vec<(usize, usize)>,
    refused: usize,
}

impl Batch {
    /// An empty batch for `tables` tables.
    #[must_use]
    pub fn new(tables: usize) -> Self {
        Self {
            rows: Rows::new(tables),
            messages: Vec::new(),
            reply: None,
            originals: Originals::default(),
            gaps: Vec::new(),
            checked: 0,
            used: vec![0; tables + 2],
            stripped: Vec::new(),
            superseded: Vec::new(),
            moved: None,
        }
    }

    /// An empty batch that moves a checkpoint without a message.
    #[must_use]
    pub fn moving(moved: Moved) -> Self {
        Self { moved: Some(moved), ..Self::new(0) }
    }

    /// Empties the batch and keeps its allocations, unless more than `keep` bytes of them were in use: what
    /// one giant has left behind is given back.
    pub fn clear(&mut self, keep: usize) {
        let lengths = self.rows.tables.iter().map(TableRows::bytes).chain(self.originals.copied());
        for (used, now) in self.used.iter_mut().zip(lengths) {
            *used = now.max(*used);
        }
        if self.used.iter().sum::<usize>() > keep {
            *self = Self::new(self.rows.tables.len());
            return;
        }
        for table in &mut self.rows.tables {
            table.data.clear();
            table.rows.clear();
        }
        self.rows.refused.clear();
        self.messages.clear();
        self.reply = None;
        self.originals.clear();
        self.gaps.clear();
        self.checked = 0;
        self.stripped.clear();
        self.superseded.clear();
        self.moved = None;
    }

    /// Drops the messages after `gap`, with their rows. What is left goes without an ack of its own.
    pub fn truncate_at(&mut self, gap: Gap) {
        let kept = |message: u32| (message as usize) < gap.messages;
        for table in &mut self.rows.tables {
            let rows = table.rows.partition_point(|row| kept(row.message));
            let end = table.rows.get(rows).map_or(table.data.len(), |row| row.start as usize);
            table.truncate((end, rows));
        }
        let refused = self.rows.refused.partition_point(|refused| kept(refused.message));
        self.rows.refused.truncate(refused);
        self.messages.truncate(gap.messages);
        self.originals.truncate(self.messages.last());
        self.gaps.retain(|kept| kept.from < gap.from);
        self.checked = self.gaps.len();
        self.stripped.retain(|kept| kept.from < gap.from);
        self.superseded.retain(|kept| kept.from < gap.from);
        self.reply = None;
    }

    /// Index of the message that is kept next: that of its rows, which are appended first.
    #[inline]
    #[must_use]
    pub fn next_index(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    /// Notes why the message that is kept next has no rows.
    pub fn refuse(&mut self, poison: Poison) {
        self.rows.refused.push(Refused { message: self.next_index(), element: None, poison });
    }

    /// Keeps a message whose rows were appended, or which was [refused](Self::refuse).
    #[inline]
    pub fn keep(&mut self, message: &Message) {
        self.messages.push(self.originals.push(message));
    }

    /// Whether no message has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Rows over all tables.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows.tables.iter().map(|table| table.rows.len()).sum()
    }

    /// Bytes held: encoded rows, the messages they came from, and the notes on both.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.originals.held()
            + self.messages.len() * size_of::<Entry>()
            + self.rows.tables.iter().map(TableRows::bytes).sum::<usize>()
            + self.rows.refused.bytes()
    }

    /// Payload bytes of the messages.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.messages.iter().map(|message| self.payload(message).len()).sum()
    }

    /// The limit by count or size that the batch has reached, if any.
    #[must_use]
    pub fn reached(&self, limits: &config::BatchLimits) -> Option<Closed> {
        if self.counted_rows() >= limits.max_rows {
            return Some(Closed::Rows);
        }
        (self.counted_bytes() as u64 >= limits.max_bytes.as_u64()).then_some(Closed::Bytes)
    }

    /// What counts against `batch.max_rows`: rows, or messages where those are more, so that a stream of
    /// messages without rows closes batches too.
    #[must_use]
    pub fn counted_rows(&self) -> usize {
        self.row_count().max(self.messages.len())
    }

    /// What counts against `batch.max_bytes`: encoded rows, or their messages where those are more.
    #[must_use]
    pub fn counted_bytes(&self) -> usize {
        let encoded: usize = self.rows.tables.iter().map(|table| table.data.len()).sum();
        encoded.max(self.originals.bytes())
    }

    /// Subject of a message of this batch.
    #[must_use]
    pub fn subject(&self, message: &Entry) -> &str {
        self.originals.subject(message)
    }

    /// Payload of a message of this batch.
    #[must_use]
    pub fn payload(&self, message: &Entry) -> &[u8] {
        self.originals.payload(message)
    }

    /// The same to be kept beyond the batch; that of a giant is not copied.
    #[must_use]
    pub fn shared_payload(&self, message: &Entry) -> Bytes {
        self.originals.shared(message)
    }

    /// Headers of the `index`th message, as [`headers::read`] takes them; empty where it has none.
    #[must_use]
    pub fn headers(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let before = index.checked_sub(1).map(|before| &self.messages[before]);
        self.originals.headers(before, &self.messages[index])
    }
}

impl Closed {
    /// Label value of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Block => "block",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Rows {
    /// Empty rows for `tables` tables.
    #[must_use]
    pub fn new(tables: usize) -> Self {
        let mut rows = Self::default();
        rows.tables.resize_with(tables, TableRows::default);
        rows
    }

    /// Notes the present end of every table in `mark`, whose allocation is reused.
    pub fn mark(&self, mark: &mut Mark) {
        mark.tables.clear();
        mark.tables.extend(self.tables.iter().map(TableRows::end));
        mark.refused = self.refused.len();
    }

    /// Drops everything that was added since `mark`.
    pub fn rollback(&mut self, mark: &Mark) {
        for (table, &end) in self.tables.iter_mut().zip(&mark.tables) {
            table.truncate(end);
        }
        self.refused.truncate(mark.refused);
    }
}

impl TableRows {
    /// Where the next tuple begins: a point to truncate to.
    #[must_use]
    pub fn end(&self) -> (usize, usize) {
        (self.data.len(), self.rows.len())
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + self.rows.len() * size_of::<Row>()
    }

    /// Drops everything that was added since `end`, and gives the memory of a giant back.
    pub fn truncate(&mut self, (data, rows): (usize, usize)) {
        let before = self.bytes();
        self.data.truncate(data);
        self.rows.truncate(rows);
        if before - self.bytes() > GIANT {
            self.data.shrink_to(data);
            self.rows.shrink_to(rows);
        }
    }

    /// Which rows belong to these messages.
    #[must_use]
    pub fn of_messages(&self, messages: &std::ops::Range<u32>) -> std::ops::Range<usize> {
        let first = |message: u32| self.rows.partition_point(|row| row.message < message);
        first(messages.start)..first(messages.end)
    }

    /// Bytes of the `index`th tuple.
    #[must_use]
    pub fn range(&self, index: u32) -> std::ops::Range<usize> {
        let index = index as usize;
        let start = self.rows[index].start as usize;
        let end = self.rows.get(index + 1).map_or(self.data.len(), |row| row.start as usize);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::poison::PoisonKind;

    fn message(sequence: u64, payload: &'static [u8]) -> Message {
        let (subject, payload) = ("frames.a".into(), Bytes::from_static(payload));
        Message { sequence, timestamp_ns: 0, subject, payload, headers: None }
    }

    fn push_row(batch: &mut Batch, sequence: u64, time: i64) {
        let message = batch.next_index();
        let table = &mut batch.rows.tables[0];
        let start = u32::try_from(table.data.len()).unwrap();
        table.data.extend_from_slice(b"tuple");
        table.rows.push(Row { start, message, element: 0, time });
        batch.keep(&self::message(sequence, b"payload"));
        batch.reply = Some(format!("ack {sequence}").into());
    }

    fn limits(max_rows: usize, max_bytes: u64) -> config::BatchLimits {
        config::BatchLimits { max_rows, max_bytes: ByteSize::b(max_bytes), ..Default::default() }
    }

    #[test]
    fn a_refused_message_has_no_row_and_keeps_its_original() {
        let mut batch = Batch::new(1);
        push_row(&mut batch, 7, 0);
        let poison =
            Poison { kind: PoisonKind::Malformed, message: "cut short".into(), table: None, column: None };
        batch.refuse(poison);
        batch.keep(&message(8, b"bad"));
        assert_eq!(batch.row_count(), 1);
        assert_eq!(batch.rows.tables[0].data, b"tuple");
        assert_eq!(batch.rows.refused.len(), 1);
        let message = &batch.messages[batch.rows.refused[0].message as usize];
        assert_eq!((batch.subject(message), batch.payload(message)), ("frames.a", &b"bad"[..]));
    }

    #[test]
    fn what_a_refused_giant_had_written_is_given_back() {
        let mut table = TableRows { data: b"tuple".to_vec(), rows: Vec::new() };
        let end = table.end();
        table.data.resize(20 * GIANT, 0);
        table.truncate(end);
        assert_eq!(table.data, b"tuple");
        assert!(table.data.capacity() < GIANT, "{}", table.data.capacity());
    }

    #[test]
    fn a_batch_is_full_at_its_rows_or_at_its_bytes() {
        let mut batch = Batch::new(1);
        push_row(&mut batch, 1, 0);
        assert_eq!(batch.reached(&limits(2, 1_000)), None);
        push_row(&mut batch, 2, 0);
        assert_eq!(batch.reached(&limits(2, 1_000)), Some(Closed::Rows));
        assert_eq!(batch.reached(&limits(3, 10)), Some(Closed::Bytes));
    }

    #[test]
    fn messages_without_rows_fill_a_batch_too() {
        let mut batch = Batch::new(1);
        batch.keep(&message(1, b""));
        assert_eq!(batch.reached(&limits(1, 1_000)), Some(Closed::Rows));
    }

    #[test]
    fn what_came_after_a_gap_can_be_dropped() {
        let mut batch = Batch::new(1);
        push_row(&mut batch, 1, 0);
        push_row(&mut batch, 2, 0);
        batch.note_gap(3, 4);
        push_row(&mut batch, 5, 0);
        batch.note_gap(6, 8);
        push_row(&mut batch, 9, 0);
        assert_eq!(
            batch.unchecked_gaps(),
            [Gap { from: 3, to: 4, messages: 2 }, Gap { from: 6, to: 8, messages: 3 }]
        );
        let sequences =
            |batch: &Batch| batch.messages.iter().map(|message| message.sequence).collect::<Vec<_>>();
        batch.truncate_at(batch.unchecked_gaps()[1]);
        assert_eq!(sequences(&batch), [1, 2, 5]);
        batch.truncate_at(Gap { from: 3, to: 4, messages: 2 });
        assert_eq!(sequences(&batch), [1, 2]);
        assert_eq!((batch.row_count(), batch.rows.tables[0].data.len()), (2, 10));
        assert_eq!((batch.reply.as_deref(), batch.originals.bytes()), (None, 30));
        assert_eq!(batch.unchecked_gaps(), []);
    }
}
