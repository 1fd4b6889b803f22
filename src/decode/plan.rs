//! The mapping of one pipeline, compiled against its tables.
//!
//! Guarantees: every name, path, constant and default of the mapping was checked against the table; what is left to go
//! wrong at run time is the message's doing.
//!
//! Which columns a `COPY` names: those that the configuration names, and every other one that the server does not fill
//! itself. A column with a default or an identity that the configuration does not name is left to the server, since a
//! `COPY` that names a column cannot ask for its default. Naming it (`inserted_at = "inserted_at"`) makes it take its field.

use crate::config::{self, BadElement, ColumnSource, TimeUnit};
use crate::encode::types::Type;
use crate::encode::{Encoder, Written};
use crate::postgres::introspect::{self, ServerDefault};

use super::path::{self, Source, Step};
use super::value::{Reader as _, Value};
use super::walk::Wanted;
use super::{PlanError, PoisonKind, json};

/// How the messages of a pipeline become rows.
#[derive(Debug)]
pub(super) struct Plan {
    /// What is wanted of the message as a whole.
    pub(super) message: Wanted,
    pub(super) tables: Vec<Table>,
}

/// How one table's rows are made.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Column names, in tuple order.
    pub(super) names: Vec<String>,
    /// One entry a column, in the same order.
    pub(super) columns: Vec<Column>,
    /// Number of columns, as a tuple carries it.
    pub(super) width: i16,
    /// Index of the column that rows are sorted by.
    pub(super) time: Option<usize>,
    /// One row an element of this array.
    pub(super) each: Option<Each>,
    /// Top-level keys that `$rest` leaves out; empty where no column is `$rest`.
    pub(super) taken: Vec<Box<[u8]>>,
}

/// `for_each`
#[derive(Debug)]
pub(super) struct Each {
    /// The array's slot in the message.
    pub(super) slot: usize,
    /// What is wanted of an element.
    pub(super) element: Wanted,
    /// As configured, for error messages.
    pub(super) path: String,
    /// What a bad element takes along.
    pub(super) bad: BadElement,
}

/// How one column's value is made.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) from: From,
    pub(super) ty: Type,
    pub(super) unit: Option<TimeUnit>,
    pub(super) not_null: bool,
    /// The field to write, length included, where the value is absent or null.
    pub(super) default: Option<Box<[u8]>>,
    /// As configured, for error messages.
    pub(super) source: String,
}

/// Where a value lies.
#[derive(Debug)]
pub(super) enum From {
    /// A slot of the message.
    Message(usize),
    /// A slot of the element.
    Element(usize),
    Subject,
    SubjectToken(usize),
    /// The element's place in its array.
    Place,
    Sequence,
    Timestamp,
    Header(String),
    Payload,
    Rest,
    /// The field itself, length included.
    Constant(Box<[u8]>),
}

/// Names the table and the column that a problem belongs to.
struct Place<'p> {
    table: &'p str,
    column: &'p str,
}

impl Place<'_> {
    fn error(&self, problem: impl Into<String>) -> PlanError {
        PlanError { table: self.table.to_owned(), column: self.column.to_owned(), problem: problem.into() }
    }
}

impl Plan {
    pub(super) fn new(
        pipeline: &config::Pipeline,
        tables: &[introspect::Table],
        encoder: &mut Encoder,
    ) -> Result<Self, PlanError> {
        let mut message = Wanted::new();
        let mut split = Vec::new();
        for table in &pipeline.tables {
            let place = Place { table: &table.name, column: "*" };
            if let Some(for_each) = &table.for_each {
                let path =
                    path::path_of(for_each).map_err(|problem| place.error(format!("for_each: {problem}")))?;
                split.extend(first_key(&path));
            }
        }
        let tables = pipeline
            .tables
            .iter()
            .zip(tables)
            .map(|(mapping, table)| Table::new(mapping, table, &mut message, &split, encoder))
            .collect::<Result<_, _>>()?;
        Ok(Self { message, tables })
    }
}

impl Table {
    fn new(
        mapping: &config::Table,
        table: &introspect::Table,
        message: &mut Wanted,
        split: &[Box<[u8]>],
        encoder: &mut Encoder,
    ) -> Result<Self, PlanError> {
        for name in mapping.columns.keys() {
            if !table.columns.iter().any(|column| column.name == *name) {
                let place = Place { table: &mapping.name, column: name };
                return Err(place.error(unknown_column(name, table)));
            }
        }
        let place = Place { table: &mapping.name, column: "*" };
        let mut each = match &mapping.for_each {
            None => None,
            Some(path) => Some(Each {
                slot: message.slot(&path::path_of(path).map_err(|problem| place.error(problem))?),
                element: Wanted::new(),
                path: path.clone(),
                bad: mapping.bad_element,
            }),
        };
        // Under `for_each`, `$rest` is of the element, which no table splits further.
        let mut taken = if each.is_none() { split.to_vec() } else { Vec::new() };
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for column in &table.columns {
            let mapped = mapping.columns.get(&column.name);
            if mapped.is_none() && column.default == ServerDefault::Computed {
                continue;
            }
            let place = Place { table: &mapping.name, column: &column.name };
            let planned = Column::new(&place, mapped, column, message, each.as_mut(), &mut taken, encoder)?;
            names.push(column.name.clone());
            columns.push(planned);
        }
        if columns.is_empty() {
            return Err(
                place.error("no column takes a value: map at least one under [pipeline.table.columns]")
            );
        }
        if !columns.iter().any(|column| matches!(column.from, From::Rest)) {
            taken.clear();
        }
        Ok(Self {
            name: mapping.name.clone(),
            width: i16::try_from(columns.len())
                .map_err(|_| place.error("more columns than a tuple holds"))?,
            time: table.time_column.as_ref().and_then(|time| names.iter().position(|name| name == time)),
            names,
            columns,
            each,
            taken,
        })
    }
}

impl Column {
    fn new(
        place: &Place<'_>,
        mapped: Option<&ColumnSource>,
        column: &introspect::Column,
        message: &mut Wanted,
        each: Option<&mut Each>,
        taken: &mut Vec<Box<[u8]>>,
        encoder: &mut Encoder,
    ) -> Result<Self, PlanError> {
        let (from, detail) = match mapped {
            None => (None, None),
            Some(ColumnSource::From(from)) => (Some(from.as_str()), None),
            Some(ColumnSource::Detailed(detail)) => (detail.from.as_deref(), Some(detail)),
        };
        let unit = detail.and_then(|detail| detail.unit);
        if unit.is_some() && !column.ty.is_time() {
            return Err(place.error("`unit` is for columns of times; this one is none: remove it"));
        }
        let mut literal = |value: &figment::value::Value, what: &str| {
            encode(value, column, unit, encoder)
                .map_err(|problem| place.error(format!("the {what} does not fit the column: {problem}")))
        };
        let constant = detail.and_then(|detail| detail.constant.as_ref());
        let default = detail.and_then(|detail| detail.default.as_ref());
        if constant.is_some() && (from.is_some() || default.is_some()) {
            return Err(
                place.error("a `constant` stands alone: remove `from` and `default`, or the constant")
            );
        }
        let default = match (default, &column.default) {
            (Some(value), _) => Some(literal(value, "default")?),
            (None, ServerDefault::Constant(field)) => Some(field.clone()),
            (None, ServerDefault::None | ServerDefault::Computed) => None,
        };
        let (from, source) = if let Some(constant) = constant {
            (From::Constant(literal(constant, "constant")?), "constant".to_owned())
        } else {
            let own = vec![Step::Key(column.name.clone())];
            let parsed = from.map_or(Ok(Source::Field(own)), path::source);
            let parsed = parsed.map_err(|problem| place.error(problem))?;
            check(&parsed, column, unit, encoder).map_err(|problem| place.error(problem))?;
            let from_place = match parsed {
                Source::Field(path) => {
                    taken.extend(first_key(&path));
                    match each {
                        Some(each) => From::Element(each.element.slot(&path)),
                        None => From::Message(message.slot(&path)),
                    }
                }
                Source::Outer(path) if each.is_some() => From::Message(message.slot(&path)),
                Source::Outer(_) => {
                    return Err(place.error(
                        "`^` reaches out of an element, and this table has no `for_each`: remove it",
                    ));
                }
                Source::Element if each.is_some() => From::Place,
                Source::Element => {
                    return Err(place.error(
                        "`$element` is the place of an element, and this table has no `for_each`: remove it",
                    ));
                }
                Source::Subject => From::Subject,
                Source::SubjectToken(number) => From::SubjectToken(number),
                Source::Sequence => From::Sequence,
                Source::Timestamp => From::Timestamp,
                Source::Header(name) => From::Header(name),
                Source::Payload => From::Payload,
                Source::Rest => From::Rest,
            };
            (from_place, from.unwrap_or(&column.name).to_owned())
        };
        Ok(Self { from, ty: column.ty.clone(), unit, not_null: column.not_null, default, source })
    }
}

/// Whether a source whose values are known by their kind goes with the column at all.
fn check(
    source: &Source,
    column: &introspect::Column,
    unit: Option<TimeUnit>,
    encoder: &mut Encoder,
) -> Result<(), String> {
    let sample = match source {
        Source::Payload if !matches!(column.ty, Type::Json | Type::Jsonb | Type::Text | Type::Bytea) => {
            return Err(
                "$payload goes into jsonb, json, text or bytea: change the column or its source".into()
            );
        }
        Source::Rest if !matches!(column.ty, Type::Json | Type::Jsonb | Type::Text) => {
            return Err("$rest goes into jsonb, json or text: change the column or its source".into());
        }
        Source::Element | Source::Sequence => Value::Int(1),
        Source::Timestamp => Value::Timestamp { seconds: 0, nanos: 0 },
        Source::Field(_)
        | Source::Outer(_)
        | Source::Subject
        | Source::SubjectToken(_)
        | Source::Header(_)
        | Source::Payload
        | Source::Rest => return Ok(()),
    };
    encoder
        .field(&mut Vec::new(), &column.ty, unit, sample)
        .map(|_| ())
        .map_err(|fault| format!("the source does not fit the column: {}", fault.what))
}

/// Encodes a value of the configuration, by way of JSON, so that it means what it would mean in a message.
fn encode(
    value: &figment::value::Value,
    column: &introspect::Column,
    unit: Option<TimeUnit>,
    encoder: &mut Encoder,
) -> Result<Box<[u8]>, String> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    let value = json::Reader::new(&text).value(0).map_err(|malformed| malformed.what.to_owned())?;
    let mut field = Vec::new();
    match encoder.field(&mut field, &column.ty, unit, value) {
        Ok(Written::Null) if column.not_null => Err("the column is NOT NULL".into()),
        Ok(Written::Value | Written::Null) => Ok(field.into()),
        Err(fault) if fault.kind == PoisonKind::Missing => Err("it is absent".into()),
        Err(fault) => Err(fault.what.to_owned()),
    }
}

/// The key that a path starts with, where it starts with one.
fn first_key(path: &[Step]) -> Option<Box<[u8]>> {
    match path.first() {
        Some(Step::Key(key)) => Some(key.as_bytes().into()),
        Some(Step::Index(_)) | None => None,
    }
}

fn unknown_column(name: &str, table: &introspect::Table) -> String {
    /// Names less alike than this are no slip of the pen.
    const ALIKE: f64 = 0.8;
    if let Some(known) = table.unsupported.iter().find(|unsupported| unsupported.name == name) {
        return format!("type {} is not supported: remove the column from the mapping", known.type_name);
    }
    let likeness = |column: &introspect::Column| strsim::jaro_winkler(name, &column.name);
    let nearest = table.columns.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(column) if likeness(column) >= ALIKE => {
            format!("the table has no such column; did you mean `{}`?", column.name)
        }
        _ => "the table has no such column: remove it from the mapping or add it to the table".into(),
    }
}
