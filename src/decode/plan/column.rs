//! How one column's value is made.

use jiff::tz::Offset;

use crate::config::path::{self, Source, Step};
use crate::config::{ColumnSource, DetailedSource, Offset as Given, Parse};
use crate::decode::PlanError;
use crate::decode::functions::Made;
use crate::decode::walk::ROOT;
use crate::encode::round::Rounding;
use crate::encode::time::Times;
use crate::encode::types::Type;
use crate::encode::{Encoder, Written};
use crate::payload::json;
use crate::payload::{Reader as _, Value};
use crate::poison::PoisonKind;
use crate::postgres::introspect::{self, ServerDefault};

use super::functions::functions;
use super::{Column, Making, Target, ValueSource};

impl Column {
    pub(super) fn new(
        target: &Target<'_>,
        mapped: Option<&ColumnSource>,
        column: &introspect::Column,
        making: &mut Making<'_>,
        encoder: &mut Encoder,
    ) -> Result<Self, PlanError> {
        let detail = match mapped {
            Some(ColumnSource::Detailed(detail)) => Some(detail),
            None | Some(ColumnSource::From(_)) => None,
        };
        let named: Vec<&str> = mapped.into_iter().flat_map(ColumnSource::named).collect();
        let mut times = times(detail, column).map_err(|problem| target.error(problem))?;
        let ty = rounded(detail, column).map_err(|problem| target.error(problem))?;
        let mut literal = |value: &figment::value::Value, what: &str| {
            encode(value, column, times, encoder)
                .map_err(|problem| target.error(format!("the {what} does not fit the column: {problem}")))
        };
        let constant = detail.and_then(|detail| detail.constant.as_ref());
        let default = detail.and_then(|detail| detail.default.as_ref());
        if constant.is_some() && (!named.is_empty() || default.is_some()) {
            return Err(target.error(
                "a `constant` cannot be combined with `from` or `default`: remove them, or the \
                             constant",
            ));
        }
        let default = match (default, &column.default) {
            (Some(value), _) => Some(literal(value, "default")?),
            (None, ServerDefault::Constant(field)) => Some(field.clone()),
            (None, ServerDefault::None | ServerDefault::Computed) => None,
        };
        let (from, source) = if let Some(constant) = constant {
            (ValueSource::Constant(literal(constant, "constant")?), "constant".to_owned())
        } else {
            let functions = functions(detail, &column.ty, &mut |value| encode(value, column, times, encoder))
                .map_err(|problem| target.error(problem))?;
            let sources = sources(&named, column).map_err(|problem| target.error(problem))?;
            if making.bare && column.ty.is_json() && sources.contains(&Source::Payload) {
                times.parse = times.parse.or(Some(Parse::Json));
            }
            let is_plain = functions.is_none() && sources.len() == 1;
            let mut found = Vec::new();
            for source in sources {
                check(&source, column, (is_plain, making.bare), times, encoder)
                    .map_err(|problem| target.error(problem))?;
                found.push(making.source(source).map_err(|problem| target.error(problem))?);
            }
            let name = if named.is_empty() { column.name.clone() } else { named.join(" or ") };
            match found.pop() {
                Some(only) if is_plain => (only, name),
                last => {
                    found.extend(last);
                    let functions = functions.unwrap_or_default();
                    (ValueSource::Made(Box::new(Made { from: found, functions })), name)
                }
            }
        };
        Ok(Self { from, ty, times, not_null: column.not_null, default, source })
    }
}

impl Making<'_> {
    /// Where the values of a source lie.
    fn source(&mut self, source: Source) -> Result<ValueSource, &'static str> {
        Ok(match source {
            Source::Field(path) => self.slot(&path),
            Source::Outer(up, path) => self.around(up, &path).ok_or(
                "each `^` leads from an element to what is around it, up to the message, and this table's \
                 `for_each` does not go through that many arrays: remove one",
            )?,
            Source::Element if self.levels() > 0 => ValueSource::ElementIndex,
            Source::Element => {
                return Err(
                    "`$element` is the index of an element, but this table has no `for_each`: remove it",
                );
            }
            Source::Subject => ValueSource::Subject,
            Source::SubjectToken(number) => ValueSource::SubjectToken(number),
            Source::Sequence => ValueSource::Sequence,
            Source::Timestamp => ValueSource::Timestamp,
            Source::Header(name) => ValueSource::Header(name),
            Source::Payload => ValueSource::Payload,
            Source::Rest => ValueSource::Rest,
            Source::Value if self.bare => ValueSource::Message(ROOT),
            Source::Name if self.unpivots => ValueSource::Name,
            Source::Value if self.unpivots => ValueSource::Value,
            Source::Name | Source::Value => {
                return Err(
                    "`$name` and `$value` belong to an unpivoted field, but this table has no `unpivot`: \
                     add it (`$value` is the payload with format = \"raw\")",
                );
            }
        })
    }
}

/// What is named, or else the field of the column's own name.
fn sources(named: &[&str], column: &introspect::Column) -> Result<Vec<Source>, String> {
    if named.is_empty() {
        return Ok(vec![Source::Field(vec![Step::Key(column.name.clone())])]);
    }
    named.iter().map(|text| path::source(text)).collect()
}

/// How a column of times, or of JSON, reads its values.
fn times(detail: Option<&DetailedSource>, column: &introspect::Column) -> Result<Times, String> {
    let unit = detail.and_then(|detail| detail.unit);
    if unit.is_some() && !column.ty.is_time() {
        return Err("`unit` is for columns of times; this is not one: remove it".into());
    }
    let offset = match detail.and_then(|detail| detail.offset.as_ref()) {
        Some(Given::Time(_)) if column.ty != Type::Timestamptz => {
            return Err(
                "an `offset` in text is for columns of type timestamptz; this is not one: remove it, \
                        or write a number to be added to numbers"
                    .into(),
            );
        }
        Some(Given::Time(text)) => Some(offset(text)?),
        Some(Given::Number(_)) | None => None,
    };
    let parse = detail.and_then(|detail| detail.parse);
    if parse.is_some() && !column.ty.is_json() {
        return Err("`parse` is for columns of json and jsonb; this is not one: remove it".into());
    }
    Ok(Times { unit, offset, parse })
}

/// The column's type, whose numbers are rounded where that is asked for.
fn rounded(detail: Option<&DetailedSource>, column: &introspect::Column) -> Result<Type, &'static str> {
    let (to, problem) = match detail.map(|detail| (detail.round, detail.round_bits)) {
        Some((Some(digits), _)) => (
            Rounding::Decimals(digits),
            "`round` is for columns of real, double precision and numeric, and arrays of them; this is not \
             one: remove it",
        ),
        Some((None, Some(bits))) => (
            Rounding::Bits(bits),
            "`round_bits` is for columns of real and double precision, and arrays of them; this is not one: \
             remove it",
        ),
        Some((None, None)) | None => return Ok(column.ty.clone()),
    };
    column.ty.rounded(to).ok_or(problem)
}

/// Whether a source whose values are known by their kind goes with the column at all.
fn check(
    source: &Source,
    column: &introspect::Column,
    (is_plain, is_bare): (bool, bool),
    times: Times,
    encoder: &mut Encoder,
) -> Result<(), String> {
    if is_bare {
        check_bare(source, column)?;
    }
    let sample = match source {
        Source::Rest if !is_plain => {
            return Err("$rest is an object of what is left: it stands alone and takes no functions".into());
        }
        Source::Payload if !matches!(column.ty, Type::Json | Type::Jsonb | Type::Text | Type::Bytea) => {
            return Err(
                "$payload needs a column of jsonb, json, text or bytea: change the column or its source"
                    .into(),
            );
        }
        Source::Rest if !matches!(column.ty, Type::Json | Type::Jsonb | Type::Text) => {
            return Err("$rest needs a column of jsonb, json or text: change the column or its source".into());
        }
        // What functions make of it is another value.
        _ if !is_plain => return Ok(()),
        Source::Element | Source::Sequence => Value::Int(1),
        Source::Timestamp => Value::Timestamp { seconds: 0, nanos: 0 },
        Source::Field(_)
        | Source::Outer(..)
        | Source::Subject
        | Source::SubjectToken(_)
        | Source::Header(_)
        | Source::Payload
        | Source::Rest
        | Source::Name
        | Source::Value => return Ok(()),
    };
    encoder
        .field(&mut Vec::new(), &column.ty, times, sample)
        .map(|_| ())
        .map_err(|fault| format!("the source does not fit the column: {}", fault.what))
}

/// Whether a source goes with the column where a message is one value.
fn check_bare(source: &Source, column: &introspect::Column) -> Result<(), &'static str> {
    match source {
        Source::Field(_) | Source::Outer(..) | Source::Rest => Err(
            "with format = \"raw\" a message has no fields, so this column would always be empty: map it to \
             \"$value\" or \"$payload\", to what is around the message (such as \"$subject[1]\" or \
             \"$timestamp\"), or to { skip = true }",
        ),
        Source::Value if matches!(column.ty, Type::Bytea | Type::Array { .. }) => Err(
            "$value is a number, a boolean or text, which this column does not take: use $payload for bytes \
             as they are, or another column",
        ),
        _ => Ok(()),
    }
}

/// Encodes a value of the configuration, by way of JSON, so that it means what it would mean in a message.
fn encode(
    value: &figment::value::Value,
    column: &introspect::Column,
    times: Times,
    encoder: &mut Encoder,
) -> Result<Box<[u8]>, String> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    let value = json::Reader::new(&text).value(0).map_err(|malformed| malformed.what.to_string())?;
    let mut field = Vec::new();
    match encoder.field(&mut field, &column.ty, times, value) {
        Ok(Written::Null) if column.not_null => Err("the column is NOT NULL".into()),
        Ok(Written::Value | Written::Null) => Ok(field.into()),
        Err(fault) if fault.kind == PoisonKind::Missing => Err("it is absent".into()),
        Err(fault) => Err(fault.what.to_string()),
    }
}

/// `+02:00`, or `Z`.
fn offset(text: &str) -> Result<Offset, String> {
    if text == "Z" {
        return Ok(Offset::UTC);
    }
    let text = text.trim();
    // Midnight there, as an instant, says how far it is from UTC.
    let midnight = format!("2000-01-01T00:00:00{text}").parse::<jiff::Timestamp>();
    let seconds = midnight.map(|midnight| 946_684_800 - midnight.as_second()).ok();
    let offset = seconds.and_then(|seconds| i32::try_from(seconds).ok()).map(Offset::from_seconds);
    match offset {
        Some(Ok(offset)) => Ok(offset),
        Some(Err(_)) | None => Err(format!("`{text}` is not an offset such as Z or +02:00")),
    }
}
