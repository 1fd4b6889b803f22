//! Slots → tuples of a binary `COPY`.

use std::sync::atomic::Ordering;

use crate::batch::{Refused, Row, TableRows};
use crate::config::BadElement;
use crate::encode::json::LONE_SURROGATE;
use crate::encode::types::Type;
use crate::encode::{Fault, Written, copy_frame, json as json_text};

use super::plan::{Column, Each, From, Table, Taken, Unpivot};
use super::takers::Tables;
use super::value::{Key, Next, Raw, Reader, Value};
use super::walk::{ROOT, Slots};
use super::{Buffers, Message, Poison, PoisonKind, header, json, msgpack, reuse};

/// Writes the rows of one message.
pub(super) struct Rows<'d, 'a> {
    pub(super) buffers: &'d mut Buffers,
    pub(super) message: &'d Message<'a>,
    /// The message as a whole.
    pub(super) raw: Raw<'a>,
    pub(super) slots: &'d [Option<Value<'a>>],
    /// Index of the message in its batch.
    pub(super) index: u32,
    /// Where refused elements go.
    pub(super) refused: Refusals<'d>,
    /// The tables that take the message.
    pub(super) matched: Tables,
}

/// The elements of one message that were refused.
pub(super) struct Refusals<'d> {
    pub(super) list: &'d mut Vec<Refused>,
    /// How many may still be refused before the message is refused as a whole.
    pub(super) room: usize,
}

/// What one row is made of, beside the message.
#[derive(Clone, Copy)]
struct Origin<'s, 'a> {
    /// What was wanted of the element.
    element: &'s [Option<Value<'a>>],
    /// The element, or the message where the table has no `for_each`.
    raw: Raw<'a>,
    /// The element's place in its array.
    place: u32,
    /// Name and value of the unpivoted field.
    entry: Option<(Value<'s>, Value<'a>)>,
}

/// The longest excerpt of a value in an error message, in characters.
const EXCERPT: usize = 40;

impl<'a> Rows<'_, 'a> {
    /// Appends the message's rows of one table.
    #[inline]
    pub(super) fn table(&mut self, table: &mut Table, rows: &mut TableRows) -> Result<(), Poison> {
        let Some(mut each) = table.each.take() else {
            let origin = Origin { element: &[], raw: self.raw, place: 0, entry: None };
            return self.unpivoted(table, rows, origin);
        };
        let mut slots = reuse(std::mem::take(&mut self.buffers.element));
        let done = match self.slots[each.slot] {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Array(Raw::Msgpack(bytes))) => {
                each.found += 1;
                self.elements(table, rows, &mut each, &mut slots, msgpack::Reader::new(bytes))
            }
            Some(Value::Array(Raw::Json { text, .. })) => {
                each.found += 1;
                self.elements(table, rows, &mut each, &mut slots, json::Reader::new(text))
            }
            Some(other) => Err(for_each(table, &each, other)),
        };
        self.buffers.element = reuse(slots);
        table.each = Some(each);
        done
    }

    fn elements<R: Reader<'a> + Clone>(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        each: &mut Each,
        slots: &mut Slots<'a>,
        mut reader: R,
    ) -> Result<(), Poison> {
        let malformed = |fault| poison(table, None, Fault::from(fault), None);
        let Ok(Next::Array(mut array)) = reader.open(&mut Value::Null) else { return Ok(()) };
        let mut place = 0;
        while reader.element(&mut array).map_err(malformed)? {
            let before = (each.bad == BadElement::Element).then(|| (reader.clone(), rows.end()));
            if let Err(poison) = self.element(table, rows, each, slots, &mut reader, place) {
                let Some((start, end)) = before else { return Err(poison) };
                rows.truncate(end);
                self.refuse(poison, place)?;
                // It may not have been read to its end.
                reader = start;
                reader.value(1).map_err(malformed)?;
            }
            place += 1;
        }
        Ok(())
    }

    /// Appends the row of the next element, at `place` in its array.
    fn element<R: Reader<'a>>(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        each: &mut Each,
        slots: &mut Slots<'a>,
        reader: &mut R,
        place: u32,
    ) -> Result<(), Poison> {
        let malformed = |fault| poison(table, None, Fault::from(fault), None);
        each.element.walk(reader, slots, &mut self.buffers.key, 1).map_err(malformed)?;
        if let Some((slot, path)) = each.element.misfit(self.matched) {
            return Err(misfit(table, &format!("{}[]", each.path), path, slots[slot]));
        }
        match slots[ROOT] {
            Some(Value::Map(raw) | Value::Array(raw)) => {
                self.unpivoted(table, rows, Origin { element: slots, raw, place, entry: None })
            }
            Some(other) => Err(for_each(table, each, other)),
            None => Ok(()),
        }
    }

    /// Notes that an element is refused; the message as a whole, where too many are.
    #[cold]
    fn refuse(&mut self, mut poison: Poison, place: u32) -> Result<(), Poison> {
        let Some(room) = self.refused.room.checked_sub(1) else {
            poison.message = format!(
                "more of its elements cannot be stored than poison.max_per_batch allows; at element {place}: {}",
                poison.message
            );
            return Err(poison);
        };
        self.refused.room = room;
        self.refused.list.push(Refused { message: self.index, element: Some(place), poison });
        Ok(())
    }

    /// Appends the row of an element or a message, or a row for each of its fields that are unpivoted.
    #[inline]
    fn unpivoted(
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
        match map {
            Raw::Msgpack(bytes) => self.entries(table, rows, origin, msgpack::Reader::new(bytes), taken),
            Raw::Json { text, .. } => self.entries(table, rows, origin, json::Reader::new(text), taken),
        }
    }

    /// Appends a row for each entry of a map whose key is not `taken`.
    fn entries<R: Reader<'a>>(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        origin: Origin<'_, 'a>,
        mut reader: R,
        taken: &[Taken],
    ) -> Result<(), Poison> {
        let malformed = |fault| poison(table, None, Fault::from(fault), None);
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
                Key::Other(name) => name,
            };
            self.row(table, rows, &Origin { entry: Some((name, value)), ..origin })?;
        }
        Ok(())
    }

    /// What lies in a slot.
    fn slot(&self, from: &From, origin: &Origin<'_, 'a>) -> Option<Value<'a>> {
        match from {
            From::Element(slot) => origin.element[*slot],
            From::Message(slot) => self.slots[*slot],
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
        let mut time = 0;
        for (position, column) in table.columns.iter().enumerate() {
            let field = out.len();
            let value: Option<Value<'_>> = match &column.from {
                From::Message(slot) => self.slots[*slot],
                From::Element(slot) => origin.element[*slot],
                From::Constant(field) => {
                    out.extend_from_slice(field);
                    if table.time == Some(position) {
                        time = time_of(field);
                    }
                    continue;
                }
                From::Rest => {
                    self.rest(out, table, column, origin.raw)
                        .map_err(|fault| poison(table, Some(position), fault, None))?;
                    continue;
                }
                From::Place => Some(Value::Int(origin.place.into())),
                From::Name => origin.entry.map(|(name, _)| name),
                From::Value => origin.entry.map(|(_, value)| value),
                other => self.about_message(other, &column.ty),
            };
            let written = match value {
                None | Some(Value::Null) => Written::Null,
                Some(value) => {
                    column.filled.store(true, Ordering::Relaxed);
                    self.buffers
                        .encoder
                        .field(out, &column.ty, column.times, value)
                        .map_err(|fault| named(poison(table, Some(position), fault, Some(value)), origin))?
                }
            };
            if written == Written::Null {
                out.truncate(field);
                match &column.default {
                    Some(default) => out.extend_from_slice(default),
                    None if column.not_null => return Err(named(missing(table, position, value), origin)),
                    None => copy_frame::null(out),
                }
            }
            if table.time == Some(position) {
                time = time_of(&out[field..]);
            }
        }
        rows.rows.push(Row { start, message: self.index, element: origin.place, time });
        Ok(())
    }

    /// What the broker says about the message.
    fn about_message(&self, from: &From, ty: &Type) -> Option<Value<'a>> {
        let message = self.message;
        match from {
            From::Message(_)
            | From::Element(_)
            | From::Place
            | From::Rest
            | From::Name
            | From::Value
            | From::Constant(_) => None,
            From::Subject => Some(Value::Str(message.subject)),
            From::SubjectToken(token) => message.subject.split('.').nth(*token).map(Value::Str),
            From::Sequence => {
                Some(i64::try_from(message.sequence).map_or(Value::Uint(message.sequence), Value::Int))
            }
            From::Timestamp => {
                let (seconds, nanos) = (
                    message.timestamp_ns.div_euclid(1_000_000_000),
                    message.timestamp_ns.rem_euclid(1_000_000_000),
                );
                Some(Value::Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) })
            }
            From::Header(name) => message.headers.and_then(|headers| header(headers, name)).map(Value::Str),
            From::Payload if *ty == Type::Bytea => Some(Value::Bytes(message.payload)),
            From::Payload => Some(Value::Map(self.raw)),
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
            let writer = encoder.json_writer(nul);
            match raw {
                Raw::Msgpack(bytes) => rest_of(out, msgpack::Reader::new(bytes), taken, key, writer),
                Raw::Json { text, .. } => rest_of(out, json::Reader::new(text), taken, key, writer),
            }
        })
    }
}

/// Appends the entries of a map whose keys are not `taken`.
fn rest_of<'a, R: Reader<'a>>(
    out: &mut Vec<u8>,
    mut reader: R,
    (taken, matched): (&[Taken], Tables),
    scratch: &mut String,
    mut writer: json_text::Writer<'_>,
) -> Result<(), Fault> {
    out.push(b'{');
    let Next::Map(mut map) = reader.open(&mut Value::Null)? else {
        // An element that is an array has no fields.
        out.push(b'}');
        return Ok(());
    };
    let mut members = json_text::Members::default();
    while let Some(key) = reader.key(&mut map)? {
        let value = reader.value(1)?;
        if is_taken(key, taken, matched, scratch)? {
            continue;
        }
        let start = out.len();
        let rank = writer.key(out, key)?;
        members.add(rank, start);
        writer.write(out, value)?;
        out.push(b',');
    }
    members.end(out, writer.nul == json_text::Nul::Refuse);
    out.push(b'}');
    Ok(())
}

/// Whether `key` is among those that `taken` leaves out of a message that the tables of `matched` take; a key that is no text
/// never is.
fn is_taken(key: Key<'_>, taken: &[Taken], matched: Tables, scratch: &mut String) -> Result<bool, Fault> {
    let name = match key {
        Key::Plain(name) => name,
        Key::Escaped(name) => {
            scratch.clear();
            json::unescape(name, scratch).map_err(|json::LoneSurrogate| Fault::malformed(LONE_SURROGATE))?;
            scratch.as_bytes()
        }
        Key::Other(_) => return Ok(false),
    };
    Ok(taken.iter().any(|(taken, tables)| **taken == *name && tables.meets(matched)))
}

/// The value of an encoded time or date, 0 for NULL.
fn time_of(field: &[u8]) -> i64 {
    match field {
        [0, 0, 0, 8, value @ ..] => value.first_chunk().map_or(0, |value| i64::from_be_bytes(*value)),
        [0, 0, 0, 4, value @ ..] => value.first_chunk().map_or(0, |value| i32::from_be_bytes(*value).into()),
        _ => 0,
    }
}

#[cold]
fn poison(table: &Table, column: Option<usize>, fault: Fault, value: Option<Value<'_>>) -> Poison {
    let message = match (column, value) {
        (Some(column), Some(value)) => {
            format!("{}; `{}` is {}", fault.what, table.columns[column].source, describe(value))
        }
        _ => fault.what.to_string(),
    };
    Poison {
        kind: fault.kind,
        message,
        table: Some(table.name.clone()),
        column: column.map(|column| table.names[column].clone()),
    }
}

/// A value that the mapping goes into and cannot: at `path` below `place`, which is empty for the message.
#[cold]
pub(super) fn misfit(table: &Table, place: &str, path: &str, found: Option<Value<'_>>) -> Poison {
    let what = match (place, path) {
        (place, "") => place.to_owned(),
        ("", path) => path.to_owned(),
        (place, path) => format!("{place}.{path}"),
    };
    let found = found.map_or_else(|| "nothing".to_owned(), describe);
    let message = format!(
        "the mapping goes into `{what}`, which is {found} in this message: correct the path, or take it whole into a column too"
    );
    Poison { kind: PoisonKind::Type, message, table: Some(table.name.clone()), column: None }
}

#[cold]
fn missing(table: &Table, column: usize, value: Option<Value<'_>>) -> Poison {
    let source = &table.columns[column].source;
    let message = match value {
        None => format!("the column is NOT NULL and `{source}` is absent; map it, or give it a default"),
        Some(Value::Null) => format!("the column is NOT NULL and `{source}` is null; give it a default"),
        Some(value) => format!(
            "the column is NOT NULL and `{source}` is {}, which the setting `non_finite` makes NULL",
            describe(value)
        ),
    };
    Poison {
        kind: PoisonKind::Missing,
        message,
        table: Some(table.name.clone()),
        column: Some(table.names[column].clone()),
    }
}

#[cold]
fn for_each(table: &Table, each: &Each, found: Value<'_>) -> Poison {
    let what = Fault::ty(&"for_each takes an array of maps");
    let mut poison = poison(table, None, what, None);
    poison.message = format!("{}; in `{}` there is {}", what.what, each.path, describe(found));
    poison
}

/// What is wrong with a row of an unpivoted field, with the field's name.
#[cold]
fn named(mut poison: Poison, origin: &Origin<'_, '_>) -> Poison {
    if let Some((name, _)) = origin.entry {
        poison.message = format!("{}; the field is {}", poison.message, describe(name));
    }
    poison
}

#[cold]
fn no_map(table: &Table, path: &str, found: Value<'_>) -> Poison {
    let what = Fault::ty(&"unpivot takes a map");
    let mut poison = poison(table, None, what, None);
    poison.message = format!("{}; in `{path}` there is {}", what.what, describe(found));
    poison
}

/// A value for people, cut short.
fn describe(value: Value<'_>) -> String {
    let quote = |text: &str| {
        let short: String = text.chars().take(EXCERPT).flat_map(char::escape_debug).collect();
        let dots = if text.chars().nth(EXCERPT).is_some() { "…" } else { "" };
        format!("the text \"{short}{dots}\"")
    };
    let short = |text: &str| text.chars().take(EXCERPT).collect::<String>();
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Float32(value) => format!("{value:?}"),
        Value::Float(value) => format!("{value:?}"),
        Value::Decimal(digits) => short(digits),
        Value::Str(text) | Value::Escaped(text) => quote(text),
        Value::NotText(bytes) => format!("{} bytes", bytes.len()),
        Value::Bytes(bytes) => format!("{} bytes of binary", bytes.len()),
        Value::Timestamp { seconds, nanos } => format!("the timestamp {seconds}.{nanos:09}"),
        Value::Array(_) => "an array".into(),
        Value::Map(_) => "a map".into(),
    }
}
