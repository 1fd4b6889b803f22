//! What is done to a column's value before it is encoded, where the mapping asks for it.
//!
//! Guarantees: functions run in one order, whatever the order of the settings: the first source that is
//! there, `trim`, `substring`, `lower` or `upper`, `truncate`, `empty`, then `map`, or `scale` and `offset`.
//! What a function does not take is a fault that names it. Columns without functions do not pass by here.

use crate::encode::json::LONE_SURROGATE;
use crate::encode::linear::Linear;
use crate::encode::types::Type;
use crate::encode::{Fault, Written, copy_frame, number};
use crate::payload::{Value, json};
use crate::poison::{Poison, PoisonKind};

use super::plan::{Table, ValueSource};
use super::row::{Origin, RowWriter};
use super::wrong::{missing, named};

/// How the value of a column is made that is not taken as it is.
#[derive(Debug)]
pub(super) struct Made {
    /// The first of these that is there counts.
    pub(super) from: Vec<ValueSource>,
    pub(super) functions: Functions,
}

/// What is done to a value.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub(super) trim: bool,
    /// The first character, from 0, and how many.
    pub(super) substring: Option<(usize, usize)>,
    /// How many characters are kept.
    pub(super) truncate: Option<usize>,
    pub(super) case: Option<Case>,
    pub(super) empty_is_null: bool,
    /// Value → the field, length included; without entries, there is no `map`.
    pub(super) map: Vec<(String, Box<[u8]>)>,
    pub(super) linear: Option<Linear>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Case {
    Lower,
    Upper,
}

/// Texts as they are made.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    unescaped: String,
    text: String,
    digits: String,
}

/// What functions make of a value.
enum Done<'v> {
    Value(Value<'v>),
    /// A field, which was appended.
    Field,
}

impl<'a> RowWriter<'_, 'a> {
    /// Appends the field of a column that is `made`, in the row that begins at `start`.
    #[inline(never)]
    pub(super) fn made(
        &mut self,
        out: &mut Vec<u8>,
        table: &Table,
        position: usize,
        made: &Made,
        origin: &Origin<'_, 'a>,
        start: usize,
    ) -> Result<(), Poison> {
        let column = &table.columns[position];
        let field = out.len();
        let value = self.first(made, origin, &column.ty);
        let mut scratch = std::mem::take(&mut self.buffers.scratch);
        let written = match value {
            None | Some(Value::Null) => Ok(Written::Null),
            Some(value) => match made.functions.apply(value, out, &mut scratch) {
                Ok(Done::Field) => Ok(Written::Value),
                Ok(Done::Value(value)) => {
                    let written = self.buffers.encoder.field(out, &column.ty, column.times, value);
                    written.map_err(|fault| made.functions.blamed(fault))
                }
                Err(fault) => Err(fault),
            },
        };
        self.buffers.scratch = scratch;
        let written =
            written.map_err(|fault| self.fault(table, position, fault, value, origin, out.len() - start))?;
        if written == Written::Null {
            out.truncate(field);
            match &column.default {
                Some(default) => out.extend_from_slice(default),
                None if column.not_null => {
                    // What `empty` made null is as good as absent.
                    let null = value.map(|_| Value::Null);
                    return Err(named(missing(table, position, null), origin.name()));
                }
                None => copy_frame::null(out),
            }
        }
        Ok(())
    }

    /// The first value that is there and not null; else null, where one is.
    pub(super) fn first<'s>(&self, made: &Made, origin: &Origin<'s, 'a>, ty: &Type) -> Option<Value<'s>>
    where
        'a: 's,
    {
        let mut found = None;
        for from in &made.from {
            let value = match from {
                ValueSource::Message(slot) => self.slots[*slot],
                ValueSource::Element(slot) => origin.element[*slot],
                ValueSource::Around(up, slot) => origin.around(*up, *slot),
                ValueSource::ElementIndex => Some(Value::Int(origin.place.into())),
                ValueSource::Name => origin.name(),
                ValueSource::Value => origin.value(),
                other => self.about_message(other, ty),
            };
            match value {
                None => {}
                Some(Value::Null) => found = value,
                Some(_) => return value,
            }
        }
        found
    }
}

impl Functions {
    fn apply<'v>(
        &self,
        value: Value<'v>,
        out: &mut Vec<u8>,
        scratch: &'v mut Scratch,
    ) -> Result<Done<'v>, Fault> {
        let Scratch { unescaped, text, digits } = scratch;
        let value = match value {
            Value::Escaped(escaped) => {
                unescaped.clear();
                json::unescape(escaped, unescaped).map_err(|_| Fault::malformed(LONE_SURROGATE))?;
                Value::Str(unescaped)
            }
            Value::NotText(_) => return Err(Fault::malformed(&"text that is not UTF-8")),
            value => value,
        };
        let value = match value {
            Value::Str(given) => match self.text(given, text) {
                "" if self.empty_is_null => Value::Null,
                made => Value::Str(made),
            },
            _ if self.substring.is_some() => return Err(Fault::ty(&"`substring` takes text")),
            _ if self.truncate.is_some() => return Err(Fault::ty(&"`truncate` takes text")),
            value => value,
        };
        if value == Value::Null {
            return Ok(Done::Value(value));
        }
        if !self.map.is_empty() {
            let no_entry = || Fault::ty(&"`map` has no entry for it: add one, or correct the publisher");
            out.extend_from_slice(self.mapped(value).ok_or_else(no_entry)?);
            return Ok(Done::Field);
        }
        match &self.linear {
            Some(linear) => linear.apply(value, digits).map(Done::Value),
            None => Ok(Done::Value(value)),
        }
    }

    /// A fault of what functions made of a number, of which the message shows another.
    fn blamed(&self, fault: Fault) -> Fault {
        match fault.kind {
            _ if self.linear.is_none() => fault,
            PoisonKind::Type => Fault::ty(
                &"what `scale` and `offset` make of it does not fit; an integer column needs whole numbers",
            ),
            PoisonKind::Range => {
                Fault::range(&"what `scale` and `offset` make of it is too large or too small for the column")
            }
            _ => fault,
        }
    }

    /// What is kept of a text, in `made` where it has other letters.
    fn text<'v>(&self, given: &'v str, made: &'v mut String) -> &'v str {
        let mut text = if self.trim { given.trim() } else { given };
        if let Some((first, count)) = self.substring {
            text = up_to(from(text, first), count);
        }
        if let Some(case) = self.case {
            made.clear();
            match case {
                Case::Lower => made.extend(text.chars().flat_map(char::to_lowercase)),
                Case::Upper => made.extend(text.chars().flat_map(char::to_uppercase)),
            }
            text = made;
        }
        self.truncate.map_or(text, |count| up_to(text, count))
    }

    /// The field that `map` has for a value; a whole number is the same however it is written.
    fn mapped(&self, value: Value<'_>) -> Option<&[u8]> {
        let entry = |key: &str| self.map.iter().find(|(known, _)| known == key).map(|(_, field)| &**field);
        let mut digits = itoa::Buffer::new();
        match value {
            Value::Str(text) => entry(text),
            Value::Bool(true) => entry("true"),
            Value::Bool(false) => entry("false"),
            Value::Uint(number) => entry(digits.format(number)),
            Value::Decimal(text) if entry(text).is_some() => entry(text),
            Value::Int(_) | Value::Float(_) | Value::Float32(_) | Value::Decimal(_) => {
                entry(digits.format(number::integer(value).ok()?))
            }
            _ => None,
        }
    }
}

/// The text from that character on.
fn from(text: &str, first: usize) -> &str {
    text.char_indices().nth(first).map_or("", |(at, _)| &text[at..])
}

/// So many characters of a text at most.
fn up_to(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(at, _)| &text[..at])
}
