//! Rows on their way to the database, and the range of stream sequences they came from.
//!
//! Guarantees: the rows of one message are added whole or not at all ([`Rows::mark`], [`Rows::rollback`]), and every
//! row knows the message it came from. It does no input or output and reads no clock.

/// The rows of one batch, table by table in the order of the configuration.
#[derive(Debug, Default)]
pub struct Rows {
    /// One entry a configured table.
    pub tables: Vec<TableRows>,
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
    /// Value of the table's time column in its own unit (microseconds since 2000-01-01 for timestamps, days for
    /// dates), 0 where the table has none: what rows are sorted by.
    pub time: i64,
}

/// A point to return to when a message turns out to be poison.
#[derive(Debug, Clone, Default)]
pub struct Mark(Vec<(usize, usize)>);

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
        mark.0.clear();
        mark.0.extend(self.tables.iter().map(|table| (table.data.len(), table.rows.len())));
    }

    /// Drops everything that was added since `mark`.
    pub fn rollback(&mut self, mark: &Mark) {
        for (table, &(data, rows)) in self.tables.iter_mut().zip(&mark.0) {
            table.data.truncate(data);
            table.rows.truncate(rows);
        }
    }
}
