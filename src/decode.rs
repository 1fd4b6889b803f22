//! Payload → rows.
//!
//! Guarantees: a message becomes rows in every table it fills, or a [`Poison`] and no row at all. The
//! exception is asked for: with `bad_element = "element"`, an element of `for_each` that cannot be stored is
//! refused by itself. Whatever the bytes are, decoding neither panics nor recurses without bound, and once
//! its buffers have grown it allocates nothing.
//!
//! A message is one map, or with `for_each = "$"` an array, in one of the formats ([`crate::payload`]); with
//! `format = "raw"`, it is one value. Line protocol is packed as MessagePack first ([`lines`]). It is read
//! once from front to back ([`walk`]), which leaves the wanted values in slots; then each table's row is
//! encoded from the slots, column by column ([`row`]), by way of functions where a column has some
//! ([`functions`]). A key that a column takes may stand only once in its map; `$rest` and whole copies keep
//! repeated keys as they are. A field that is null is as good as absent: it takes the column's default, else
//! NULL. A message that no table takes by its subject and its headers is not read at all.

mod compressed;
mod cost;
mod elements;
mod explain;
mod functions;
mod header;
mod lines;
mod plan;
mod presence;
mod rest;
mod row;
mod show;
mod takers;
mod tally;
mod untaken;
mod walk;
mod when;
mod wrong;

use crate::batch::{Mark, Rows};
use crate::config;
use crate::encode::Encoder;
use crate::encode::types::Type;
use crate::message::Message;
use crate::payload::{Malformed, Raw, Reader, Value, json, with_reader};
use crate::poison::{Poison, PoisonKind};
use crate::postgres::introspect;

use compressed::Compressed;
use cost::{Cost, Over};
use functions::Scratch;
use header::header_values;
pub(crate) use header::{header, spelling};
use lines::Lines;
use plan::{Plan, Root};
use row::{RefusedElements, RowWriter};
pub use show::{as_json, expanded_as_json};
use takers::Tables;
pub use tally::{ColumnTally, TableTally, Tally};

/// Why there are no rows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecoded {
    /// There never will be.
    Poison(Poison),
    /// There is no room for them now.
    NoRoom,
}

impl From<Poison> for Undecoded {
    fn from(poison: Poison) -> Self {
        Self::Poison(poison)
    }
}

/// Turns messages into rows, by a plan made once per generation.
#[derive(Debug)]
pub struct Decoder {
    format: config::Format,
    compressed: Compressed,
    lines: Lines,
    plan: Plan,
    buffers: Buffers,
    mark: Mark,
    /// Bytes that the rows of one message may take.
    most: usize,
}

/// The share of `max_buffered_bytes` that the rows of one message may take, as one over it: as much as a pull
/// request, so that one such message and what is read of the next fit whatever comes.
const SHARE: u64 = 4;

/// Elements of a message that may be refused one by one. Each that the server refuses costs it some
/// transactions; a message with more of them is refused as a whole.
pub const MOST_ELEMENTS: usize = 1_000;

/// A message of more than this many bytes is looked at field by field: of a smaller one no row is large
/// enough to matter.
const LARGE: usize = 64 * 1024;

/// What is reused from message to message.
#[derive(Debug)]
struct Buffers {
    encoder: Encoder,
    message: Vec<Option<Value<'static>>>,
    /// For each level of elements, what is wanted of one.
    elements: Vec<Vec<Option<Value<'static>>>>,
    key: String,
    /// Whether some table took each element of the message.
    taken: Vec<bool>,
    /// Texts that functions make.
    scratch: Scratch,
    /// For each table, the columns that messages may lack and that none has filled yet.
    unfilled: Vec<Vec<usize>>,
}

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

/// All for which the mapping of `pipeline` and its introspected `tables` (same order) do not go together:
/// what a plan says of the first column that is wrong it then says of the next.
#[must_use]
pub fn misfits(pipeline: &config::Pipeline, tables: &[introspect::Table]) -> Vec<PlanError> {
    let each = pipeline.tables.iter().zip(tables);
    let mut found: Vec<PlanError> =
        each.flat_map(|(mapping, table)| plan::misfit::of_table(mapping, table)).collect();
    let (mut pipeline, mut tables) = (pipeline.clone(), tables.to_vec());
    for misfit in &found {
        plan::misfit::leave_out(&mut pipeline, &mut tables, misfit);
    }
    while let Err(error) = Decoder::new(&pipeline, &tables) {
        let is_whole = error.column == "*";
        if is_whole && found.iter().any(|known| known.table == error.table) {
            // It may be for what was left out.
            break;
        }
        let goes_on = !is_whole && plan::misfit::leave_out(&mut pipeline, &mut tables, &error);
        found.push(error);
        if !goes_on {
            break;
        }
    }
    found
}

impl Decoder {
    /// Compiles the mapping of `pipeline` against its introspected `tables` (same order).
    pub fn new(pipeline: &config::Pipeline, tables: &[introspect::Table]) -> Result<Self, PlanError> {
        let mut encoder = Encoder::new(pipeline.non_finite);
        let plan = Plan::new(pipeline, tables, &mut encoder)?;
        let unfilled = plan.may_lack();
        let buffers = Buffers {
            encoder,
            message: Vec::new(),
            elements: Vec::new(),
            key: String::new(),
            taken: Vec::new(),
            scratch: Scratch::default(),
            unfilled,
        };
        Ok(Self {
            format: pipeline.format,
            compressed: Compressed::new(pipeline),
            lines: Lines::new(pipeline),
            plan,
            buffers,
            mark: Mark::default(),
            most: usize::try_from(pipeline.buffered_bytes().as_u64() / SHARE).unwrap_or(usize::MAX),
        })
    }

    /// Columns that a `COPY` into table `table` (index in the configuration) names, in tuple order.
    #[must_use]
    pub fn columns(&self, table: usize) -> &[String] {
        &self.plan.tables[table].names
    }

    /// The type of each of these columns, and where its value comes from, as configured.
    pub fn sources(&self, table: usize) -> impl Iterator<Item = (&Type, &str)> {
        self.plan.tables[table].columns.iter().map(|column| (&column.ty, column.source.as_str()))
    }

    /// Whether messages may lack the field, the header or the token of each of these columns.
    #[must_use]
    pub fn may_lack(&self, table: usize) -> Vec<bool> {
        self.plan.tables[table].columns.iter().map(|column| column.from.may_lack()).collect()
    }

    /// Appends the rows of `message`, the `index`th of its batch, and its elements that were refused; on an
    /// error nothing stays appended.
    pub fn decode(&mut self, message: &Message, index: u32, rows: &mut Rows) -> Result<(), Poison> {
        match self.decode_into(message, index, rows, usize::MAX) {
            Ok(()) => Ok(()),
            Err(Undecoded::Poison(poison)) => Err(poison),
            Err(Undecoded::NoRoom) => unreachable!("there is room for all that may be"),
        }
    }

    /// The same where the rows may take `room` bytes now.
    pub fn decode_into(
        &mut self,
        message: &Message,
        index: u32,
        rows: &mut Rows,
        room: usize,
    ) -> Result<(), Undecoded> {
        if !self.plan.admit(message) {
            unmatched(self.plan.unmatched)?;
            self.plan.settle(Some(Tables::NONE), &[]);
            return Ok(());
        }
        rows.mark(&mut self.mark);
        let decoded = match self.compressed.codec(message) {
            None => self.decode_payload(message, &message.payload, index, rows, room),
            Some(codec) => self.decode_compressed(codec, message, index, rows, room),
        };
        decoded.map_err(|mut undecoded| {
            rows.rollback(&self.mark);
            self.explain(message, &mut undecoded);
            undecoded
        })
    }

    /// Appends the rows of `message`, whose payload is `payload` once it is expanded.
    fn decode_payload(
        &mut self,
        message: &Message,
        payload: &[u8],
        index: u32,
        rows: &mut Rows,
        room: usize,
    ) -> Result<(), Undecoded> {
        if self.format == config::Format::Influx {
            return self.decode_lines(message, payload, index, rows, room);
        }
        let needs_fields = self.format != config::Format::Raw;
        let raw = if payload.is_empty() && needs_fields && self.plan.goes_by_headers() {
            Ok(NO_FIELDS)
        } else {
            let declared = || message.headers.as_ref().and_then(|headers| header(headers, "Content-Type"));
            self.format.raw(payload, declared)
        };
        match raw {
            Ok(raw) => {
                let origin = (message, payload);
                with_reader!(raw, |reader| self.decode_as(origin, reader, index, rows, room))
            }
            Err(unread) => Err(malformed(unread.format, unread.fault).into()),
        }
    }

    /// Whether some table takes `message` by a condition on its headers: then nobody may pass over it for
    /// what they say, such as that something was deleted.
    #[must_use]
    pub fn asks_for(&self, message: &Message) -> bool {
        self.plan.asks_for(message)
    }

    fn decode_as<'a, R: Reader<'a>>(
        &mut self,
        (message, payload): (&'a Message, &'a [u8]),
        mut reader: R,
        index: u32,
        rows: &mut Rows,
        room: usize,
    ) -> Result<(), Undecoded> {
        let buffers = &mut self.buffers;
        let mut slots = reuse(std::mem::take(&mut buffers.message));
        let read = self
            .plan
            .message
            .walk(&mut reader, &mut slots, &mut buffers.key, 0)
            .and_then(|()| reader.end())
            .map_err(|fault| malformed(R::NAME, fault));
        let mut taken_by = None;
        let decoded = read.map_err(Undecoded::from).and_then(|()| {
            let (raw, is_array) = match slots[walk::ROOT] {
                Some(Value::Map(raw)) => (raw, false),
                Some(Value::Array(raw)) if self.plan.root != Root::Refused => (raw, true),
                Some(_) if R::FORMAT == config::Format::Raw => (reader.raw(0), false),
                _ => {
                    return Err(malformed(R::NAME, Malformed::new(&NO_MAP, 0)).into());
                }
            };
            let matched = self.plan.matched(&slots, &mut buffers.key);
            if matched == Tables::NONE {
                unmatched(self.plan.unmatched)?;
                taken_by = Some(matched);
                return Ok(());
            }
            if self.plan.message.has_misfits()
                && let Some(unfit) = self.plan.unfit(matched, &slots)
            {
                return Err(unfit.into());
            }
            if is_array && let Some(unfit) = self.plan.no_array() {
                return Err(unfit.into());
            }
            let refused = RefusedElements { list: &mut rows.refused, room: MOST_ELEMENTS };
            let cost = Cost::begin(payload.len(), self.most, room);
            let large = payload.len() > LARGE;
            buffers.encoder.bound(usize::MAX);
            let slots = &slots;
            buffers.taken.clear();
            let mut writer = RowWriter {
                buffers,
                message,
                payload,
                raw,
                slots,
                index,
                refused,
                matched,
                cost,
                large,
                by_element: self.plan.root == Root::Chosen && is_array,
                place: 0,
            };
            for (table, rows) in self.plan.tables.iter_mut().zip(&mut rows.tables) {
                if table.takes {
                    writer.table(table, rows).map_err(|poison| undecoded(poison, &writer.cost))?;
                }
            }
            if writer.by_element && self.plan.unmatched != config::OnUnmatched::Skip {
                writer.refuse_untaken(&self.plan.tables)?;
            }
            taken_by = Some(matched);
            Ok(())
        });
        self.plan.settle(taken_by, &slots);
        self.buffers.message = reuse(slots);
        if payload.len() > LARGE {
            self.buffers.encoder.shrink();
            self.buffers.key = String::new();
            self.buffers.scratch = Scratch::default();
        }
        decoded
    }
}

/// Wording of a message that is something else, for tables that take fields of it.
const NO_MAP: &str = "a message is a map of fields";

/// A message without a payload, where one is not needed.
const NO_FIELDS: Raw<'static> = Raw::Json(json::Raw::new("{}"));

/// Empties `slots` for values of another lifetime. Collecting an emptied vector keeps its allocation, which
/// the allocation test watches.
fn reuse<'b>(mut slots: Vec<Option<Value<'_>>>) -> Vec<Option<Value<'b>>> {
    slots.clear();
    slots.into_iter().map(|_| None).collect()
}

#[cold]
fn undecoded(poison: Poison, cost: &Cost) -> Undecoded {
    if poison.kind != PoisonKind::TooLarge {
        return poison.into();
    }
    match cost.over() {
        Over::Room => Undecoded::NoRoom,
        Over::Most => cost.poison(poison.table).into(),
    }
}

/// What becomes of a message that no table takes.
#[cold]
fn unmatched(then: config::OnUnmatched) -> Result<(), Poison> {
    if then == config::OnUnmatched::Skip {
        return Ok(());
    }
    Err(wrong::unmatched(None))
}

#[cold]
fn malformed(format: &str, fault: Malformed) -> Poison {
    Poison {
        kind: PoisonKind::Malformed,
        message: format!("not a message in {format}: {} (at byte {})", fault.what, fault.at),
        table: None,
        column: None,
    }
}

#[cfg(test)]
mod tests;
