//! The mapping of one pipeline, compiled against its tables.
//!
//! Guarantees: every name, path, constant and default of the mapping was checked against the table; what is left to go
//! wrong at run time is the message's doing.
//!
//! Which columns a `COPY` names: those that the configuration names, and every other one that the server does not fill
//! itself. A column with a default or an identity that the configuration does not name is left to the server, since a
//! `COPY` that names a column cannot ask for its default. Naming it (`inserted_at = "inserted_at"`) makes it take its field.

use crate::config::path::{self, Source, Step};
use crate::config::{self, BadElement, ColumnSource, OnConflict, OnUnmatched};
use crate::encode::time::Times;
use crate::encode::types::Type;
use crate::encode::{Encoder, Written};
use crate::postgres::introspect::{self, ServerDefault};
use jiff::tz::Offset;

use super::value::{Reader as _, Value};
use super::walk::Wanted;
use super::when::When;
use super::{Message, PlanError, PoisonKind, json};

/// How the messages of a pipeline become rows.
#[derive(Debug)]
pub(super) struct Plan {
    /// What is wanted of the message as a whole.
    pub(super) message: Wanted,
    pub(super) tables: Vec<Table>,
    /// What becomes of a message that no table takes.
    pub(super) unmatched: OnUnmatched,
    /// Whether some table does not take every message.
    conditional: bool,
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
    /// Which messages it takes.
    pub(super) when: Option<When>,
    /// Whether it takes the message at hand, as far as that is known.
    pub(super) takes: bool,
    /// One row an element of this array.
    pub(super) each: Option<Each>,
    /// One row a field.
    pub(super) unpivot: Option<Unpivot>,
    /// Top-level keys that `$rest` and an unpivoted rest leave out; empty where there is neither.
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

/// `unpivot`
#[derive(Debug)]
pub(super) enum Unpivot {
    /// These fields: the name, and where the value lies.
    Fields(Vec<(String, From)>),
    /// All entries of the map that lies there, by its path.
    Map(From, String),
    /// All fields whose keys are not taken.
    Rest,
}

/// How one column's value is made.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) from: From,
    pub(super) ty: Type,
    pub(super) times: Times,
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
    /// Name of the unpivoted field.
    Name,
    /// Its value.
    Value,
    /// The field itself, length included.
    Constant(Box<[u8]>),
}

/// What the columns of a table are made from, as far as it is known.
struct Making<'m> {
    message: &'m mut Wanted,
    each: Option<Each>,
    unpivots: bool,
    /// Keys that columns take.
    taken: Vec<Box<[u8]>>,
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
        for (index, (table, found)) in pipeline.tables.iter().zip(tables).enumerate() {
            // Rows of a batch are written entry by entry, and which of two entries came later would not count.
            let same =
                (0..).zip(tables).any(|(other, table)| other != index && table.qualified == found.qualified);
            if same && table.on_conflict != OnConflict::Error {
                let place = Place { table: &table.name, column: "*" };
                return Err(place.error("another entry fills this table too, and on_conflict goes by the order within one: make them one entry"));
            }
        }
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
        let conditional = pipeline.tables.iter().any(|table| table.when.is_some());
        Ok(Self { message, tables, unmatched: pipeline.on_unmatched, conditional })
    }

    /// Finds which tables may take `message`, by its subject and its headers; whether any may.
    #[inline]
    pub(super) fn admit(&mut self, message: &Message<'_>) -> bool {
        if !self.conditional {
            return true;
        }
        let mut any = false;
        for table in &mut self.tables {
            table.takes = table.when.as_ref().is_none_or(|when| when.may_hold(message));
            any |= table.takes;
        }
        any
    }

    /// Whether every table that may take the message at hand goes by its headers: then it need not have a payload.
    pub(super) fn goes_by_headers(&self) -> bool {
        let by_headers = |table: &Table| table.when.as_ref().is_some_and(When::has_headers);
        self.tables.iter().all(|table| !table.takes || by_headers(table))
    }

    /// Whether some table takes `message` by a condition on its headers.
    pub(super) fn asks_for(&self, message: &Message<'_>) -> bool {
        let whens = self.tables.iter().filter_map(|table| table.when.as_ref());
        whens.filter(|when| when.has_headers()).any(|when| when.may_hold(message))
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
        let path_of = |what: &str, path: &str| {
            path::path_of(path).map_err(|problem| place.error(format!("{what}: {problem}")))
        };
        let when = match &mapping.when {
            None => None,
            Some(when) => {
                Some(When::new(when, message).map_err(|problem| place.error(format!("when: {problem}")))?)
            }
        };
        let each = match &mapping.for_each {
            None => None,
            Some(path) => Some(Each {
                slot: message.slot(&path_of("for_each", path)?),
                element: Wanted::new(),
                path: path.clone(),
                bad: mapping.bad_element,
            }),
        };
        // Under `for_each`, `$rest` is of the element, which no table splits further.
        let taken = if each.is_none() { split.to_vec() } else { Vec::new() };
        let mut making = Making { message, each, unpivots: mapping.unpivot.is_some(), taken };
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for column in &table.columns {
            let mapped = mapping.columns.get(&column.name);
            if mapped.is_none() && column.default == ServerDefault::Computed {
                continue;
            }
            let place = Place { table: &mapping.name, column: &column.name };
            columns.push(Column::new(&place, mapped, column, &mut making, encoder)?);
            names.push(column.name.clone());
        }
        let unpivot = match &mapping.unpivot {
            None => None,
            Some(config::Unpivot { map: Some(map), .. }) => {
                Some(Unpivot::Map(making.slot(&path_of("unpivot", map)?), map.clone()))
            }
            Some(config::Unpivot { rest: true, .. }) => {
                // What tells a message of this kind from others is no value of it.
                if making.each.is_none() {
                    let field = mapping.when.as_ref().and_then(|when| when.field.as_ref());
                    let field = field.map(|field| path_of("when", field)).transpose()?;
                    making.taken.extend(field.and_then(|path| first_key(&path)));
                }
                Some(Unpivot::Rest)
            }
            Some(config::Unpivot { fields, .. }) => {
                let field = |name: &String| Ok((name.clone(), making.slot(&path_of("unpivot", name)?)));
                Some(Unpivot::Fields(fields.iter().map(field).collect::<Result<_, _>>()?))
            }
        };
        let Making { each, mut taken, .. } = making;
        if unpivot.is_some() && !columns.iter().any(|column| matches!(column.from, From::Value)) {
            return Err(place.error("unpivot makes a row a field, and no column takes its `$value`: map one"));
        }
        if let Some(newer) = &mapping.newer_by
            && !names.contains(newer)
        {
            return Err(place.error(format!(
                "newer_by: {newer} is no column that takes a value: {}",
                unknown_column(newer, table)
            )));
        }
        if columns.is_empty() {
            return Err(
                place.error("no column takes a value: map at least one under [pipeline.table.columns]")
            );
        }
        if !columns.iter().any(|column| matches!(column.from, From::Rest))
            && !matches!(unpivot, Some(Unpivot::Rest))
        {
            taken.clear();
        }
        Ok(Self {
            name: mapping.name.clone(),
            width: i16::try_from(columns.len())
                .map_err(|_| place.error("more columns than a tuple holds"))?,
            time: table.time_column.as_ref().and_then(|time| names.iter().position(|name| name == time)),
            names,
            columns,
            when,
            takes: true,
            each,
            unpivot,
            taken,
        })
    }
}

impl Making<'_> {
    /// Where the field at `path` lies, in the element or in the message; its key is taken.
    fn slot(&mut self, path: &[Step]) -> From {
        self.taken.extend(first_key(path));
        match &mut self.each {
            Some(each) => From::Element(each.element.slot(path)),
            None => From::Message(self.message.slot(path)),
        }
    }
}

impl Column {
    fn new(
        place: &Place<'_>,
        mapped: Option<&ColumnSource>,
        column: &introspect::Column,
        making: &mut Making<'_>,
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
        let offset = match detail.and_then(|detail| detail.offset.as_deref()) {
            Some(_) if column.ty != Type::Timestamptz => {
                return Err(
                    place.error("`offset` is for columns of type timestamptz; this one is none: remove it")
                );
            }
            Some(text) => Some(offset(text).map_err(|problem| place.error(problem))?),
            None => None,
        };
        let times = Times { unit, offset };
        let mut literal = |value: &figment::value::Value, what: &str| {
            encode(value, column, times, encoder)
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
            check(&parsed, column, times, encoder).map_err(|problem| place.error(problem))?;
            let from_place = match parsed {
                Source::Field(path) => making.slot(&path),
                Source::Outer(path) if making.each.is_some() => From::Message(making.message.slot(&path)),
                Source::Outer(_) => {
                    return Err(place.error(
                        "`^` reaches out of an element, and this table has no `for_each`: remove it",
                    ));
                }
                Source::Element if making.each.is_some() => From::Place,
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
                Source::Name if making.unpivots => From::Name,
                Source::Value if making.unpivots => From::Value,
                Source::Name | Source::Value => {
                    return Err(place.error(
                        "`$name` and `$value` are of an unpivoted field, and this table has no `unpivot`: add it",
                    ));
                }
            };
            (from_place, from.unwrap_or(&column.name).to_owned())
        };
        Ok(Self { from, ty: column.ty.clone(), times, not_null: column.not_null, default, source })
    }
}

/// Whether a source whose values are known by their kind goes with the column at all.
fn check(
    source: &Source,
    column: &introspect::Column,
    times: Times,
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
        | Source::Rest
        | Source::Name
        | Source::Value => return Ok(()),
    };
    encoder
        .field(&mut Vec::new(), &column.ty, times, sample)
        .map(|_| ())
        .map_err(|fault| format!("the source does not fit the column: {}", fault.what))
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
        Some(Err(_)) | None => Err(format!("`{text}` is not an offset; it looks like Z or +02:00")),
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
