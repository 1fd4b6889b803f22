//! The mapping of one pipeline, compiled against its tables.
//!
//! Guarantees: every name, path, constant and default of the mapping was checked against the table; what is
//! left to go wrong at run time is the message's doing.
//!
//! Which columns a `COPY` names: those that the configuration names, and every other one that the server does
//! not fill itself. A column with a default or an identity that the configuration does not name is left to
//! the server, since a `COPY` that names a column cannot ask for its default. Naming it (`inserted_at =
//! "inserted_at"`) makes it take its field.

use crate::config::path::{self, Step};
use crate::config::{self, Absent, BadElement, ColumnSource, Format, OnConflict, OnUnmatched};
use crate::encode::Encoder;
use crate::encode::time::Times;
use crate::encode::types::Type;
use crate::postgres::introspect::{self, ServerDefault};

use super::PlanError;
use super::functions::Made;
use super::rest::{Taken, leave_out};
use super::takers::{Partial, Tables};
use super::walk::{ROOT, Wanted};
use super::when::When;
use making::Making;

mod column;
mod functions;
mod making;
mod matching;
pub(super) mod misfit;
mod share;

/// How the messages of a pipeline become rows.
#[derive(Debug)]
pub(super) struct Plan {
    /// What is wanted of the message as a whole.
    pub(super) message: Wanted,
    pub(super) tables: Vec<Table>,
    /// What becomes of a message that no table takes.
    pub(super) unmatched: OnUnmatched,
    /// Whether some table does not take every message.
    pub(super) conditional: bool,
    /// Whether some table makes rows of elements.
    splits: bool,
    /// What a message that is an array becomes.
    pub(super) root: Root,
    /// All tables.
    all: Tables,
    /// Fields of the message that only some tables take.
    pub(super) partial: Vec<Partial>,
    /// Messages that were decoded or passed over, since that was last told.
    pub(super) messages: u64,
}

/// What a message that is an array becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// No table makes rows of its elements.
    Refused,
    /// Rows, one an element.
    Split,
    /// The same, and some table takes only some elements.
    Chosen,
}

/// How one table's rows are made.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Its place among the entries.
    pub(super) index: usize,
    /// Itself, among the tables.
    pub(super) bit: Tables,
    /// Messages that it took, since that was last told; not counted where all tables take every message.
    pub(super) taken_messages: u64,
    /// Columns that no message had a value for, when that was last told.
    pub(super) told_unfilled: Option<usize>,
    /// Column names, in tuple order.
    pub(super) names: Vec<String>,
    /// One entry a column, in the same order.
    pub(super) columns: Vec<Column>,
    /// Number of fields of a tuple.
    pub(super) width: i16,
    /// Whether a tuple ends with a field that says which columns the message had a field for.
    pub(super) says_present: bool,
    /// Index of the column that rows are sorted by.
    pub(super) time: Option<usize>,
    /// Which messages it takes.
    pub(super) when: Option<When>,
    /// Whether it takes the message at hand, as far as that is known.
    pub(super) takes: bool,
    /// One row an element of this array.
    pub(super) each: Option<ForEach>,
    /// One row a field.
    pub(super) unpivot: Option<Unpivot>,
    /// What `$rest` leaves out, and by its keys at the top an unpivoted rest; empty where there is neither.
    pub(super) taken: Vec<Taken>,
}

/// `for_each`, or one array of several that lie within each other.
#[derive(Debug)]
pub(super) struct ForEach {
    /// The array's slot in the message, or in the elements of the array around it.
    pub(super) slot: usize,
    /// The array in each element that rows are made of, rather than of the element.
    pub(super) inner: Option<Box<ForEach>>,
    /// Its steps, after those of the arrays around it.
    pub(super) steps: Vec<Vec<Step>>,
    /// What is wanted of an element.
    pub(super) element: Wanted,
    /// As configured, for error messages.
    pub(super) path: String,
    /// What a bad element takes along.
    pub(super) bad: BadElement,
    /// Tables before it that make rows of the same array, and note what nobody takes of it.
    pub(super) earlier: Tables,
    /// How often the array was there, since that was last told.
    pub(super) found: u64,
}

impl ForEach {
    /// The innermost array.
    pub(super) fn innermost(&mut self) -> &mut Self {
        match self.inner {
            Some(ref mut inner) => inner.innermost(),
            None => self,
        }
    }

    /// Does `each` with it and every array in it, from the outside.
    pub(super) fn all(&mut self, each: &mut impl FnMut(&mut Self)) {
        each(self);
        if let Some(inner) = &mut self.inner {
            inner.all(each);
        }
    }
}

/// `unpivot`
#[derive(Debug)]
pub(super) enum Unpivot {
    /// These fields: the name, and where the value lies.
    Fields(Vec<(String, ValueSource)>),
    /// All entries of the map that lies there, by its path.
    Map(ValueSource, String),
    /// All fields whose keys are not taken.
    Rest,
}

/// How one column's value is made.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) from: ValueSource,
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
pub(super) enum ValueSource {
    /// A slot of the message.
    Message(usize),
    /// A slot of the element.
    Element(usize),
    /// A slot of the element that lies so many levels around it.
    Around(usize, usize),
    Subject,
    SubjectToken(usize),
    /// The element's place in its array.
    ElementIndex,
    Sequence,
    Timestamp,
    Header(String),
    Payload,
    Rest,
    /// Name of the unpivoted field.
    Name,
    Value,
    /// The field itself, length included.
    Constant(Box<[u8]>),
    /// Made by functions.
    Made(Box<Made>),
}

impl ValueSource {
    /// Whether a message may have nothing there.
    pub(super) fn may_lack(&self) -> bool {
        match self {
            Self::Message(_)
            | Self::Element(_)
            | Self::Around(..)
            | Self::SubjectToken(_)
            | Self::Header(_) => true,
            Self::Subject
            | Self::ElementIndex
            | Self::Sequence
            | Self::Timestamp
            | Self::Payload
            | Self::Rest
            | Self::Name
            | Self::Value
            | Self::Constant(_) => false,
            Self::Made(made) => made.from.iter().all(Self::may_lack),
        }
    }

    /// What it is made of, or itself.
    pub(super) fn each(&self) -> &[Self] {
        if let Self::Made(made) = self { &made.from } else { std::slice::from_ref(self) }
    }
}

/// The table and the column that a mapping fills, `*` for the table as a whole: where a problem is.
struct Target<'p> {
    table: &'p str,
    column: &'p str,
}

impl Target<'_> {
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
            // Rows of a batch are written entry by entry, and which of two entries came later would not
            // count.
            let same =
                (0..).zip(tables).any(|(other, table)| other != index && table.qualified == found.qualified);
            if same && table.on_conflict != OnConflict::Error {
                let target = Target { table: &table.name, column: "*" };
                return Err(target.error(
                    "another entry also fills this table, but on_conflict needs the order \
                                        within one entry: merge them",
                ));
            }
        }
        let mut message = Wanted::new("");
        let mut arrays = Vec::new();
        for table in &pipeline.tables {
            let target = Target { table: &table.name, column: "*" };
            let of_table = table.for_each.as_deref().map(path::arrays_of).transpose();
            arrays.push(
                of_table.map_err(|problem| target.error(format!("for_each: {problem}")))?.unwrap_or_default(),
            );
        }
        let mut tables = pipeline
            .tables
            .iter()
            .zip(tables)
            .enumerate()
            .map(|(index, (mapping, table))| {
                let bare = pipeline.format == Format::Raw;
                let mut making = Making::new(mapping, &mut message, &arrays, index, bare);
                Table::new(mapping, table, &mut making, encoder)
            })
            .collect::<Result<Vec<_>, _>>()?;
        share::share(&mut message, &mut tables);
        let conditional = pipeline.tables.iter().any(|table| table.when.is_some());
        let partial = if conditional { message.partial(tables.len()) } else { Vec::new() };
        let mut all = Tables::NONE;
        for table in &tables {
            all |= table.bit;
        }
        let unmatched = pipeline.on_unmatched;
        let splits = tables.iter().any(|table| table.each.is_some());
        let by_element = tables.iter().filter_map(|table| table.when.as_ref()).any(When::is_of_element);
        let root = match tables.iter().any(Table::splits_root) {
            true if by_element => Root::Chosen,
            true => Root::Split,
            false => Root::Refused,
        };
        Ok(Self { message, tables, unmatched, conditional, splits, root, all, partial, messages: 0 })
    }
}

impl Table {
    /// Whether it makes rows of the message itself, as an array.
    pub(super) fn splits_root(&self) -> bool {
        self.each.as_ref().is_some_and(|each| each.slot == ROOT)
    }

    /// Whether it takes what no column takes.
    fn takes_rest(&self) -> bool {
        matches!(self.unpivot, Some(Unpivot::Rest)) || self.has_rest()
    }

    /// Whether a column does.
    fn has_rest(&self) -> bool {
        self.has_source(|from| matches!(from, ValueSource::Rest))
    }

    /// Whether a column takes a source that is one of those.
    fn has_source(&self, is_one: impl Fn(&ValueSource) -> bool) -> bool {
        self.columns.iter().flat_map(|column| column.from.each()).any(is_one)
    }

    fn new(
        mapping: &config::Table,
        table: &introspect::Table,
        making: &mut Making<'_>,
        encoder: &mut Encoder,
    ) -> Result<Self, PlanError> {
        misfit::of_table(mapping, table).into_iter().next().map_or(Ok(()), Err)?;
        let target = Target { table: &mapping.name, column: "*" };
        let path_of = |what: &str, path: &str| {
            path::path_of(path).map_err(|problem| target.error(format!("{what}: {problem}")))
        };
        let of_element = mapping.splits_root();
        let when = mapping.when.as_ref().map(|when| When::new(when, making.when(of_element), of_element));
        let when = when.transpose().map_err(|problem| target.error(format!("when: {problem}")))?;
        let (names, columns) = columns(mapping, table, making, encoder)?;
        let unpivot = unpivot(mapping, making, &path_of)?;
        refuse_incomplete(mapping, table, &names, &columns)?;
        let takes_rest = columns.iter().any(|column| matches!(column.from, ValueSource::Rest))
            || matches!(unpivot, Some(Unpivot::Rest));
        let taken = if takes_rest { std::mem::take(&mut making.taken) } else { Vec::new() };
        let says_present = mapping.absent == Some(Absent::Keep);
        Ok(Self {
            says_present,
            name: mapping.name.clone(),
            index: making.index,
            bit: making.bit,
            taken_messages: 0,
            told_unfilled: None,
            width: i16::try_from(columns.len() + usize::from(says_present))
                .map_err(|_| target.error("more columns than a tuple holds"))?,
            time: table.time_column.as_ref().and_then(|time| names.iter().position(|name| name == time)),
            names,
            columns,
            when,
            takes: true,
            each: making.arrays(),
            unpivot,
            taken,
        })
    }
}

/// Reads a path of the mapping, the second, that stands at the first.
type PathOf<'a> = &'a dyn Fn(&str, &str) -> Result<Vec<Step>, PlanError>;

/// How fields become rows of their own, where `unpivot` says so.
fn unpivot(
    mapping: &config::Table,
    making: &mut Making<'_>,
    path_of: PathOf<'_>,
) -> Result<Option<Unpivot>, PlanError> {
    let unpivot = match &mapping.unpivot {
        None => return Ok(None),
        Some(config::Unpivot { map: Some(map), .. }) => {
            Unpivot::Map(making.slot(&path_of("unpivot", map)?), map.clone())
        }
        Some(config::Unpivot { rest: true, .. }) => {
            // What tells a message of this kind from others is no value of it.
            if mapping.for_each.is_none() || mapping.splits_root() {
                let field = mapping.when.as_ref().and_then(|when| when.field.as_ref());
                let field = field.map(|field| path_of("when", field)).transpose()?;
                leave_out(&mut making.taken, &field.unwrap_or_default(), Tables::ALL);
            }
            Unpivot::Rest
        }
        Some(config::Unpivot { fields, .. }) => {
            let field = |name: &String| Ok((name.clone(), making.slot(&path_of("unpivot", name)?)));
            Unpivot::Fields(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
    };
    Ok(Some(unpivot))
}

/// Refuses a mapping that lacks a column which it needs.
fn refuse_incomplete(
    mapping: &config::Table,
    table: &introspect::Table,
    names: &[String],
    columns: &[Column],
) -> Result<(), PlanError> {
    let target = Target { table: &mapping.name, column: "*" };
    let mut sources = columns.iter().flat_map(|column| column.from.each());
    if mapping.unpivot.is_some() && !sources.any(|from| matches!(from, ValueSource::Value)) {
        return Err(target.error(
            "unpivot makes one row per field, but no column takes its `$value`: map \
                                one",
        ));
    }
    if let Some(newer) = &mapping.newer_by
        && !names.contains(newer)
    {
        return Err(target.error(format!(
            "newer_by: {newer} is not a column that takes a value: {}",
            misfit::unknown_column(newer, table)
        )));
    }
    if let Some(key) = mapping.key.iter().find(|key| !names.contains(key))
        && mapping.on_conflict == OnConflict::Update
    {
        return Err(target.error(format!(
            "key: {key} takes no value from a message, so the rows of a batch cannot be told apart: {}",
            misfit::without_value(key, table)
        )));
    }
    if columns.is_empty() {
        return Err(target.error("no column takes a value: map at least one under [pipeline.table.columns]"));
    }
    Ok(())
}

/// The columns that a row fills, with their names.
fn columns(
    mapping: &config::Table,
    table: &introspect::Table,
    making: &mut Making<'_>,
    encoder: &mut Encoder,
) -> Result<(Vec<String>, Vec<Column>), PlanError> {
    let mut names = Vec::new();
    let mut columns = Vec::new();
    for column in &table.columns {
        let mapped = mapping.columns.get(&column.name);
        if mapped.is_none() && column.default == ServerDefault::Computed {
            continue;
        }
        let target = Target { table: &mapping.name, column: &column.name };
        if mapped.is_some_and(ColumnSource::is_skipped) {
            if column.not_null && column.default == ServerDefault::None {
                return Err(target.error(
                    "it is skipped, but it is NOT NULL and has no default: give it one, or a source",
                ));
            }
            continue;
        }
        columns.push(Column::new(&target, mapped, column, making, encoder)?);
        names.push(column.name.clone());
    }
    Ok((names, columns))
}
