//! Payload → rows.
//!
//! Guarantees: a message becomes rows in every table it fills, or a [`Poison`] and no row at all. Whatever the bytes
//! are, decoding neither panics nor recurses without bound.

use async_nats::HeaderMap;

use crate::batch::Rows;
use crate::config;
use crate::postgres::introspect;

/// A message as the decoder sees it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Full subject.
    pub subject: &'a str,
    /// Headers, where there are any.
    pub headers: Option<&'a HeaderMap>,
    /// Payload as published.
    pub payload: &'a [u8],
    /// Sequence in the stream, from 1.
    pub sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
}

/// Why a message cannot become rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// What kind of fault: the metric's label and the dead letter's `kind`.
    pub kind: PoisonKind,
    /// What was found and what was expected, for a person; holds no payload beyond a short excerpt.
    pub message: String,
    /// Table whose row could not be made, where one was at hand.
    pub table: Option<String>,
    /// Column whose value could not be made, where one was at hand.
    pub column: Option<String>,
}

/// Kinds of poison that the client sees by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoisonKind {
    /// Not valid MessagePack or JSON, or cut short, or nested too deep.
    Malformed,
    /// A required field is absent or null.
    Missing,
    /// The value does not fit the column's type.
    Type,
    /// The value fits the type but not its range.
    Range,
}

impl PoisonKind {
    /// Label value of metrics and value of `jetcopy.dead_letters.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Range => "range",
        }
    }
}

/// Turns messages into rows, by a plan made once per generation.
#[derive(Debug)]
pub struct Decoder {}

/// Why a mapping and a table do not go together.
#[derive(Debug, thiserror::Error)]
#[error("table {table}, column {column}: {problem}")]
pub struct PlanError {
    /// Table as configured.
    pub table: String,
    /// Column, or `*` for the table as a whole.
    pub column: String,
    /// What is wrong and what would mend it.
    pub problem: String,
}

impl Decoder {
    /// Compiles the mapping of `pipeline` against its introspected `tables` (same order).
    pub fn new(_pipeline: &config::Pipeline, _tables: &[introspect::Table]) -> Result<Self, PlanError> {
        Ok(Self {})
    }

    /// Columns that a `COPY` into table `table` (index in the configuration) names, in tuple order.
    #[must_use]
    pub fn columns(&self, _table: usize) -> &[String] {
        &[]
    }

    /// Appends the rows of `message`, the `index`th of its batch; on an error nothing stays appended.
    pub fn decode(&mut self, _message: &Message<'_>, _index: u32, _rows: &mut Rows) -> Result<(), Poison> {
        Ok(())
    }
}
