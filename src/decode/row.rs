//! Slots → tuples of a binary `COPY`.

use async_nats::{HeaderMap, HeaderName};

use crate::batch::{self, Row, TableRows};
use crate::encode::types::Type;
use crate::encode::{Fault, Written, copy_frame, json as json_text};

use super::cost::{Cost, SMALL};
use super::plan::{Column, Table, Unpivot, ValueSource};
use super::rest::{Taken, is_taken, rest_of};
use super::takers::Tables;
use super::walk::ROOT;
use super::wrong::{missing, named, no_map, poison, too_large};
use super::{Buffers, header};
use crate::message::Message;
use crate::payload::{Key, Next, Raw, Reader, Value, with_reader};
use crate::poison::{Poison, PoisonKind};

/// Writes the rows of one message.
pub(super) struct RowWriter<'d, 'a> {
    pub(super) buffers: &'d mut Buffers,
    pub(super) message: &'a Message,
    /// Its payload, expanded.
    pub(super) payload: &'a [u8],
    /// The message as a whole.
    pub(super) raw: Raw<'a>,
    pub(super) slots: &'d [Option<Value<'a>>],
    /// Index of the message in its batch.
    pub(super) index: u32,
    /// Where refused elements go.
    pub(super) refused: RefusedElements<'d>,
    /// The tables that take the message.
    pub(super) matched: Tables,
    /// What the message may cost.
    pub(super) cost: Cost,
    /// Whether one row may be too much by itself.
    pub(super) large: bool,
    /// Whether it is noted which elements of the message are taken.
    pub(super) by_element: bool,
    /// Elements of the table that were come to so far, each of which may be a row.
    pub(super) place: u32,
}

/// What was wanted of an element that an array lies in.
#[derive(Clone, Copy)]
pub(super) struct Around<'s, 'a> {
    pub(super) slots: &'s [Option<Value<'a>>],
    pub(super) around: Option<&'s Around<'s, 'a>>,
}

/// The elements of one message that were refused.
pub(super) struct RefusedElements<'d> {
    pub(super) list: &'d mut batch::Refusals,
    /// How many may still be refused before the message is refused as a whole.
    pub(super) room: usize,
}

/// What one row is made of, beside the message.
#[derive(Clone, Copy)]
pub(super) struct Origin<'s, 'a> {
    /// What was wanted of the element.
    pub(super) element: &'s [Option<Value<'a>>],
    /// The element, or the message where the table has no `for_each`.
    pub(super) raw: Raw<'a>,
    /// What it lies in, beside the message.
    pub(super) around: Option<&'s Around<'s, 'a>>,
    /// The element's place among all of the table's.
    pub(super) place: u32,
    /// Name and value of the unpivoted field.
    pub(super) entry: Option<(Value<'s>, Value<'a>)>,
}

impl<'s, 'a> Origin<'s, 'a> {
    /// Name of the unpivoted field.
    pub(super) fn name(&self) -> Option<Value<'s>> {
        self.entry.map(|(name, _)| name)
    }

    /// What lies in a slot of the element that is `up` levels around it.
    pub(super) fn around(&self, up: usize, slot: usize) -> Option<Value<'a>> {
        let mut found = self.around;
        for _ in 1..up {
            found = found.and_then(|around| around.around);
        }
        found.and_then(|around| around.slots[slot])
    }

    /// Its value.
    pub(super) fn value(&self) -> Option<Value<'a>> {
        self.entry.map(|(_, value)| value)
    }
}

impl<'a> RowWriter<'_, 'a> {
    /// Appends the message's rows of one table.
    #[inline]
    pub(super) fn table(&mut self, table: &mut Table, rows: &mut TableRows) -> Result<(), Poison> {
        let Some(mut each) = table.each.take() else {
            let origin = Origin { element: &[], around: None, raw: self.raw, place: 0, entry: None };
            self.cost.repeats(0);
            return self.unpivoted(table, rows, origin);
        };
        self.place = 0;
        let array = self.slots[each.slot];
        let done = self.array(table, rows, &mut each, array, None);
        table.each = Some(each);
        done
    }

    /// Appends the row of an element or a message, or a row for each of its fields that are unpivoted.
    #[inline]
    pub(super) fn unpivoted(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        origin: Origin<'_, 'a>,
    ) -> Result<(), Poison> {
        match &table.unpivot {
            None => self.row(table, rows, &origin),
            Some(unpivot) => self.fields(table, rows, unpivot, origin),
        }
    }

    fn fields(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        unpivot: &Unpivot,
        origin: Origin<'_, 'a>,
    ) -> Result<(), Poison> {
        self.repeats(table, origin.element, origin.around);
        let (map, taken) = match unpivot {
            Unpivot::Fields(fields) => {
                for (name, from) in fields {
                    let Some(value) = self.slot(from, &origin) else { continue };
                    self.row(table, rows, &Origin { entry: Some((Value::Str(name), value)), ..origin })?;
                }
                return Ok(());
            }
            Unpivot::Map(from, path) => match self.slot(from, &origin) {
                None | Some(Value::Null) => return Ok(()),
                Some(Value::Map(map)) => (map, [].as_slice()),
                Some(other) => return Err(no_map(table, path, other)),
            },
            Unpivot::Rest => (origin.raw, table.taken.as_slice()),
        };
        let length = map.bytes().len();
        with_reader!(map, |reader| self.entries(table, rows, origin, (reader, length), taken))
    }

    /// Appends a row for each entry of a map whose key is not `taken`.
    fn entries<R: Reader<'a>>(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        origin: Origin<'_, 'a>,
        (mut reader, length): (R, usize),
        taken: &[Taken],
    ) -> Result<(), Poison> {
        let malformed = |fault| poison(table, None, Fault::from(fault), None);
        let first = self.cost.rows();
        let Next::Map(mut map) = reader.open(&mut Value::Null).map_err(malformed)? else {
            return Err(no_map(table, "the element", Value::Array(origin.raw)));
        };
        while let Some(key) = reader.key(&mut map).map_err(malformed)? {
            let value = reader.value(1).map_err(malformed)?;
            if is_taken(key, taken, self.matched, &mut self.buffers.key)
                .map_err(|fault| poison(table, None, fault, None))?
            {
                continue;
            }
            let name = match key {
                Key::Plain(name) => str::from_utf8(name).map_or(Value::NotText(name), Value::Str),
                Key::Escaped(name) => Value::Escaped(name),
                // As where keys become JSON.
                Key::Other(Value::Null) => Value::Str("null"),
                Key::Other(name) => name,
            };
            if let Err(poison) = self.row(table, rows, &Origin { entry: Some((name, value)), ..origin }) {
                if poison.kind == PoisonKind::TooLarge {
                    self.cost.estimate(first, reader.position(), length);
                }
                return Err(poison);
            }
        }
        Ok(())
    }

    /// Counts what each row of `table` reads of the message, or of the `element` whose fields are unpivoted,
    /// again.
    #[inline]
    pub(super) fn repeats(
        &mut self,
        table: &Table,
        element: &[Option<Value<'a>>],
        around: Option<&Around<'_, 'a>>,
    ) {
        let small = self.payload.len() <= SMALL && self.message.headers.is_none();
        self.cost.repeats(if small { 0 } else { self.repeated(table, element, around) });
    }

    fn repeated(
        &self,
        table: &Table,
        element: &[Option<Value<'a>>],
        around: Option<&Around<'_, 'a>>,
    ) -> usize {
        let message = self.message;
        let origin = Origin { element, around, raw: self.raw, place: 0, entry: None };
        let of_source = |from: &ValueSource| match from {
            ValueSource::Message(slot) => bytes_of(self.slots[*slot]),
            ValueSource::Element(slot) => element.get(*slot).map_or(0, |value| bytes_of(*value)),
            ValueSource::Around(up, slot) => bytes_of(origin.around(*up, *slot)),
            ValueSource::Subject | ValueSource::SubjectToken(_) => message.subject.len(),
            // Each is looked at.
            ValueSource::Header(_) => {
                message.headers.as_ref().map_or(0, HeaderMap::len) * size_of::<HeaderName>()
            }
            ValueSource::Payload => self.payload.len(),
            ValueSource::Rest if table.unpivot.is_some() => self.payload.len(),
            ValueSource::Rest
            | ValueSource::ElementIndex
            | ValueSource::Sequence
            | ValueSource::Timestamp
            | ValueSource::Name
            | ValueSource::Value
            | ValueSource::Made(_) => 0,
            ValueSource::Constant(field) => field.len(),
        };
        table.columns.iter().flat_map(|column| column.from.each()).map(of_source).sum()
    }

    /// What lies in a slot.
    fn slot(&self, from: &ValueSource, origin: &Origin<'_, 'a>) -> Option<Value<'a>> {
        match from {
            ValueSource::Element(slot) => origin.element[*slot],
            ValueSource::Around(up, slot) => origin.around(*up, *slot),
            ValueSource::Message(slot) => self.slots[*slot],
            other => self.about_message(other, &Type::Text),
        }
    }

    /// Appends one row.
    #[inline]
    fn row(&mut self, table: &Table, rows: &mut TableRows, origin: &Origin<'_, 'a>) -> Result<(), Poison> {
        let out = &mut rows.data;
        let start = u32::try_from(out.len()).map_err(|_| {
            poison(table, None, Fault::range(&"the rows of a batch are longer than 4 GiB"), None)
        })?;
        copy_frame::tuple(out, table.width);
        self.buffers.encoder.begin_row();
        if self.large {
            self.buffers.encoder.bound(out.len().saturating_add(self.cost.left()));
        }
        let mut time = 0;
        for (position, column) in table.columns.iter().enumerate() {
            let field = out.len();
            let value: Option<Value<'_>> = match &column.from {
                ValueSource::Message(slot) => self.slots[*slot],
                ValueSource::Element(slot) => origin.element[*slot],
                ValueSource::Constant(field) => {
                    out.extend_from_slice(field);
                    if table.time == Some(position) {
                        time = time_of(field);
                    }
                    continue;
                }
                ValueSource::Rest => {
                    self.rest(out, table, column, origin.raw).map_err(|fault| {
                        self.fault(table, position, fault, None, origin, out.len() - start as usize)
                    })?;
                    continue;
                }
                ValueSource::Made(made) => {
                    self.made(out, table, position, made, origin, start as usize)?;
                    if table.time == Some(position) {
                        time = time_of(&out[field..]);
                    }
                    continue;
                }
                ValueSource::Around(up, slot) => origin.around(*up, *slot),
                ValueSource::ElementIndex => Some(Value::Int(origin.place.into())),
                ValueSource::Name => origin.name(),
                ValueSource::Value => origin.value(),
                other => self.about_message(other, &column.ty),
            };
            let written = match value {
                None | Some(Value::Null) => Written::Null,
                Some(value) => {
                    self.buffers.encoder.field(out, &column.ty, column.times, value).map_err(|fault| {
                        self.fault(table, position, fault, Some(value), origin, out.len() - start as usize)
                    })?
                }
            };
            if written == Written::Null {
                out.truncate(field);
                match &column.default {
                    Some(default) => out.extend_from_slice(default),
                    None if column.not_null => {
                        return Err(named(missing(table, position, value), origin.name()));
                    }
                    None => copy_frame::null(out),
                }
            }
            if table.time == Some(position) {
                time = time_of(&out[field..]);
            }
            if self.large && out.len() - start as usize > self.cost.left() {
                break;
            }
        }
        if table.says_present {
            self.say_present(out, table, origin);
        }
        if !self.cost.row(out.len() - start as usize) {
            return Err(too_large(table));
        }
        if !self.buffers.unfilled[table.index].is_empty() {
            self.note_filled(table, origin);
        }
        rows.rows.push(Row { start, message: self.index, element: origin.place, time });
        Ok(())
    }

    /// Why a row is none that has `written` bytes already.
    #[cold]
    pub(super) fn fault(
        &mut self,
        table: &Table,
        column: usize,
        fault: Fault,
        value: Option<Value<'_>>,
        origin: &Origin<'_, 'a>,
        written: usize,
    ) -> Poison {
        if fault.kind == PoisonKind::TooLarge {
            // What does not fit was not begun with.
            let least = match value {
                Some(Value::Str(text)) if table.columns[column].ty == Type::Bytea => text.len() / 4 * 3,
                Some(Value::Str(text)) => text.len(),
                Some(Value::Bytes(bytes)) => bytes.len(),
                Some(_) | None => 0,
            };
            self.cost.row(written + least);
            return too_large(table);
        }
        named(poison(table, Some(column), fault, value), origin.name())
    }

    /// What the broker says about the message.
    pub(super) fn about_message(&self, from: &ValueSource, ty: &Type) -> Option<Value<'a>> {
        let message = self.message;
        match from {
            ValueSource::Message(_)
            | ValueSource::Element(_)
            | ValueSource::Around(..)
            | ValueSource::ElementIndex
            | ValueSource::Rest
            | ValueSource::Name
            | ValueSource::Value
            | ValueSource::Constant(_)
            | ValueSource::Made(_) => None,
            ValueSource::Subject => Some(Value::Str(&message.subject)),
            ValueSource::SubjectToken(token) => message.subject.split('.').nth(*token).map(Value::Str),
            ValueSource::Sequence => {
                Some(i64::try_from(message.sequence).map_or(Value::Uint(message.sequence), Value::Int))
            }
            ValueSource::Timestamp => {
                let (seconds, nanos) = (
                    message.timestamp_ns.div_euclid(1_000_000_000),
                    message.timestamp_ns.rem_euclid(1_000_000_000),
                );
                Some(Value::Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) })
            }
            ValueSource::Header(name) => {
                message.headers.as_ref().and_then(|headers| header(headers, name)).map(Value::Str)
            }
            ValueSource::Payload if *ty == Type::Bytea => Some(Value::Bytes(self.payload)),
            ValueSource::Payload => self.slots[ROOT],
        }
    }

    /// Appends `$rest` as an object, which is empty where everything was taken.
    fn rest(&mut self, out: &mut Vec<u8>, table: &Table, column: &Column, raw: Raw<'a>) -> Result<(), Fault> {
        copy_frame::sized(out, |out| {
            let nul = if column.ty == Type::Jsonb {
                out.push(copy_frame::JSONB_VERSION);
                json_text::Nul::Refuse
            } else {
                json_text::Nul::Keep
            };
            let Buffers { encoder, key, .. } = &mut *self.buffers;
            let taken = (table.taken.as_slice(), self.matched);
            rest_of(out, raw, taken, key, &mut encoder.json_writer(nul)).map(|_| ())
        })
    }
}

/// Bytes that a value takes in the message, where they may be many.
fn bytes_of(value: Option<Value<'_>>) -> usize {
    match value {
        Some(Value::Str(text) | Value::Escaped(text) | Value::Decimal(text)) => text.len(),
        Some(Value::NotText(bytes) | Value::Bytes(bytes)) => bytes.len(),
        Some(Value::Array(raw) | Value::Map(raw)) => raw.bytes().len(),
        Some(_) | None => 0,
    }
}

/// The value of an encoded time or date, 0 for NULL.
fn time_of(field: &[u8]) -> i64 {
    match field {
        [0, 0, 0, 8, value @ ..] => value.first_chunk().map_or(0, |value| i64::from_be_bytes(*value)),
        [0, 0, 0, 4, value @ ..] => value.first_chunk().map_or(0, |value| i32::from_be_bytes(*value).into()),
        _ => 0,
    }
}
