//! The tables that messages would fill: one for the messages, and one for each list of objects in them.
//!
//! Guarantees: every field goes somewhere: what has no column of its own is in the last one, as `jsonb`. A
//! column refuses NULL only if a stream that was looked at as a whole, and is not short, always had a value;
//! the time that rows are sorted by refuses it too, and is one that each of many messages had.

use std::collections::BTreeSet;

use super::fields::Seen;
use super::names::{Given, below};
use super::sample::Sample;

/// Messages, or elements, that must have a field before a column refuses NULL, or rows are sorted by it.
const ENOUGH: u64 = 100;

/// Names of the time that a message is about, the likeliest first.
const TIMES: [&str; 5] = ["time", "timestamp", "ts", "event_time", "created_at"];

/// A table, and its place in the mapping.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) for_each: Option<String>,
    pub(crate) columns: Vec<Column>,
    /// The column that rows are sorted by.
    pub(crate) time: String,
    /// The column by which a hypertable is compressed.
    pub(crate) segment: Option<String>,
}

/// A column with its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: String,
    pub(crate) not_null: bool,
    /// Where its value comes from.
    pub(crate) source: String,
    /// The unit of a time in whole numbers.
    pub(crate) unit: Option<&'static str>,
    /// Whether the server fills it, so that nothing may.
    pub(crate) skip: bool,
}

impl Column {
    fn new(name: String, ty: &str, source: &str) -> Self {
        Self { name, ty: ty.to_owned(), source: source.to_owned(), ..Self::default() }
    }
}

/// Messages that no table can be made for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(
        "of {messages} messages none is an object in JSON, MessagePack or CBOR, or a list of them: write the \
         mapping by hand (docs/payloads.md)"
    )]
    Unreadable { messages: usize },
    #[error(
        "some messages are objects and others are lists or plain values, such as sequence {sequence} on \
         {subject}: write the mapping by hand, with `when` (docs/settings.md)"
    )]
    Mixed { sequence: u64, subject: String },
}

/// What all messages were like: the message itself, or the elements of one that is a list.
pub(super) fn root(sample: &Sample) -> Result<(Seen, Option<String>), Unfit> {
    if sample.values.is_empty() {
        return Err(Unfit::Unreadable { messages: sample.singles.len() });
    }
    let mut seen = Seen::default();
    for (_, value) in &sample.values {
        seen.add(value);
    }
    if seen.is_all(seen.objects) {
        return Ok((seen, None));
    }
    let is_list = seen.is_list_of_structures();
    match seen.elements {
        Some(elements) if is_list => Ok((*elements, Some("$".to_owned()))),
        Some(_) | None => Err(mixed(sample)),
    }
}

fn mixed(sample: &Sample) -> Unfit {
    let other = sample.values.iter().find(|(_, value)| !value.is_object());
    let message = other.and_then(|(place, _)| Some(&sample.singles.get(*place)?.message));
    let (sequence, subject) =
        message.map_or((0, String::new()), |message| (message.sequence, message.subject.to_string()));
    Unfit::Mixed { sequence, subject }
}

/// The tables for messages of a stream that takes `subjects`; the first is called `name`.
pub(crate) fn tables(sample: &Sample, subjects: &[String], name: &str) -> Result<Vec<Table>, Unfit> {
    let (seen, for_each) = root(sample)?;
    let is_list = for_each.is_some();
    let tokens = tokens(sample, subjects);
    let mut builder =
        Builder { is_all: sample.is_all, total: seen.present, lists: !is_list, ..Builder::default() };
    builder.walk(&seen, "", "");
    let lists = std::mem::take(&mut builder.found);
    let mut main = builder.table(name, for_each, &tokens, None);
    let time = main.columns.iter().find(|column| column.name == main.time).cloned();
    let mut tables = Vec::new();
    let mut names = Given::default();
    main.name = names.take(name);
    for (path, label, elements) in lists {
        let mut builder = Builder { is_all: sample.is_all, total: elements.present, ..Builder::default() };
        builder.walk(elements, "", "");
        let mut table = builder.table(&label, Some(path), &tokens, time.as_ref());
        table.name = names.take(&format!("{name}_{label}"));
        tables.push(table);
    }
    tables.insert(0, main);
    Ok(tables)
}

/// Sources of what subjects tell: tokens that differ or may differ, or the subject as a whole where they are
/// not of one form.
fn tokens(sample: &Sample, subjects: &[String]) -> Vec<(String, String)> {
    let seen: BTreeSet<&str> = sample.singles.iter().map(|single| &*single.message.subject).collect();
    let lengths: BTreeSet<usize> = seen.iter().map(|subject| subject.split('.').count()).collect();
    let [length] = lengths.into_iter().collect::<Vec<_>>()[..] else {
        return vec![("subject".to_owned(), "$subject".to_owned())];
    };
    let differs = |index: usize| {
        let of = |subject: &&str| subject.split('.').nth(index).map(str::to_owned);
        let may = |pattern: &String| {
            let mut tokens = pattern.split('.').take(index + 1);
            tokens.clone().nth(index) == Some("*") || tokens.any(|token| token == ">")
        };
        seen.iter().map(of).collect::<BTreeSet<_>>().len() > 1 || subjects.iter().any(may)
    };
    (0..length)
        .filter(|index| differs(*index))
        .map(|index| (format!("subject_{index}"), format!("$subject[{index}]")))
        .collect()
}

/// A table while its fields are looked at.
#[derive(Default)]
struct Builder<'s> {
    is_all: bool,
    total: u64,
    /// Whether lists of objects become tables.
    lists: bool,
    given: Given,
    columns: Vec<Column>,
    /// Columns of times that were always there.
    times: Vec<String>,
    segment: Option<String>,
    /// Lists of objects: path, name, and what the elements are like.
    found: Vec<(String, String, &'s Seen)>,
}

impl<'s> Builder<'s> {
    fn walk(&mut self, seen: &'s Seen, path: &str, label: &str) {
        for (key, field) in &seen.fields {
            // What no path can name is left to the column that takes the rest.
            let Some(path) = below(path, key) else { continue };
            let label = if label.is_empty() { key.clone() } else { format!("{label}_{key}") };
            match &field.elements {
                Some(elements) if self.lists && field.is_list_of_structures() => {
                    self.found.push((path, label, elements));
                }
                _ if field.is_structure() => self.walk(field, &path, &label),
                _ => self.column(field, key, &path, &label),
            }
        }
    }

    fn column(&mut self, field: &Seen, key: &str, path: &str, label: &str) {
        let unit = field.unit_of(key);
        let ty = if unit.is_some() { "timestamptz" } else { ty(field) };
        let name = self.given.take(label);
        let always = field.present == self.total;
        if ty == "timestamptz" && always && self.total >= ENOUGH {
            self.times.push(name.clone());
        }
        let kinds = field.different.len() as u64;
        if ty == "text" && self.segment.is_none() && (2..=100).contains(&kinds) && field.present >= 5 * kinds
        {
            self.segment = Some(name.clone());
        }
        let not_null = self.is_all && always && self.total >= ENOUGH;
        self.columns.push(Column { not_null, unit, ..Column::new(name, ty, path) });
    }

    /// The table with what surrounds the fields. `outer` is the time of the message around elements.
    fn table(
        mut self,
        name: &str,
        for_each: Option<String>,
        tokens: &[(String, String)],
        outer: Option<&Column>,
    ) -> Table {
        let mut columns = Vec::new();
        let time = match outer {
            Some(time) => {
                let around = if time.source.starts_with('$') {
                    time.source.clone()
                } else {
                    format!("^{}", time.source)
                };
                let name = self.given.take(&time.name);
                columns.push(Column { name: name.clone(), source: around, not_null: true, ..time.clone() });
                name
            }
            None => self.own_time(&mut columns),
        };
        let mut segment = None;
        for (label, source) in tokens {
            let name = self.given.take(label);
            segment.get_or_insert_with(|| name.clone());
            columns.push(Column::new(name, "text", source));
        }
        columns.append(&mut self.columns);
        let sequence = self.given.take("sequence");
        columns.push(Column { not_null: true, ..Column::new(sequence, "bigint", "$sequence") });
        if for_each.is_some() {
            let element = self.given.take("element");
            columns.push(Column { not_null: true, ..Column::new(element, "integer", "$element") });
        }
        let rest = self.given.take("rest");
        columns.push(Column::new(rest, "jsonb", "$rest"));
        Table { name: name.to_owned(), for_each, columns, time, segment: segment.or(self.segment) }
    }

    /// The likeliest time of the messages, moved to the front; or when the stream stored them.
    fn own_time(&mut self, columns: &mut Vec<Column>) -> String {
        let likely = TIMES.iter().find(|name| self.times.iter().any(|time| time == *name));
        let chosen = likely.map(|name| (*name).to_owned()).or_else(|| self.times.first().cloned());
        if let Some(at) = self.columns.iter().position(|column| Some(&column.name) == chosen.as_ref()) {
            let column = Column { not_null: true, ..self.columns.remove(at) };
            let name = column.name.clone();
            columns.push(column);
            return name;
        }
        let name = self.given.take("stored_at");
        columns.push(Column { not_null: true, ..Column::new(name.clone(), "timestamptz", "$timestamp") });
        name
    }
}

/// The type of a column that takes all that a field was.
fn ty(field: &Seen) -> &'static str {
    let scalar = |seen: &Seen| match () {
        () if seen.is_all(seen.booleans) => Some("boolean"),
        () if seen.is_all(seen.integers) => Some("bigint"),
        () if seen.is_all(seen.integers + seen.floats) && seen.needs_numeric() => Some("numeric"),
        () if seen.is_all(seen.integers + seen.floats) => Some("double precision"),
        () if seen.is_all(seen.times) => Some("timestamptz"),
        () if seen.is_all(seen.texts) => Some("text"),
        () => None,
    };
    let array = |elements: &Seen| match scalar(elements) {
        Some("boolean") => "boolean[]",
        Some("bigint") => "bigint[]",
        Some("double precision") => "double precision[]",
        Some("numeric") => "numeric[]",
        Some("text" | "timestamptz") => "text[]",
        Some(_) | None => "jsonb",
    };
    match &field.elements {
        Some(elements) if field.is_all(field.arrays) => array(elements),
        Some(_) => "jsonb",
        None => scalar(field).unwrap_or("jsonb"),
    }
}
