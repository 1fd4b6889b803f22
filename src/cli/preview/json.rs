//! A preview as JSON.
//!
//! Guarantees: values of numbers, truth and JSON are what they are, whatever their size; all others are
//! strings, as the server prints them.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::Shown;
use crate::encode::printed;
use crate::marker::Marker;
use crate::preview::report::Report;
use crate::preview::{Column, Letter, Made, Preview, Row};

#[derive(Serialize)]
struct Object<'a> {
    pipeline: &'a str,
    origin: &'a str,
    #[serde(flatten)]
    report: &'a Report,
    tables: Vec<Table<'a>>,
    letters: Vec<OfMessage<'a>>,
    /// Why values are not what the server would make of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_judged_by_the_server: Option<&'a str>,
}

#[derive(Serialize)]
struct Table<'a> {
    #[serde(rename = "table")]
    name: &'a str,
    columns: Vec<About<'a>>,
    rows: Vec<Shape<'a>>,
}

#[derive(Serialize)]
struct About<'a> {
    column: &'a str,
    r#type: &'a str,
    source: &'a str,
}

#[derive(Serialize)]
struct Shape<'a> {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<u32>,
    values: Values<'a>,
}

/// A row's values by column.
struct Values<'a> {
    columns: &'a [Column<'a>],
    row: &'a Row,
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, field) in self.columns.iter().zip(&self.row.fields) {
            let value = field.as_ref().map(|field| printed::json(column.ty, field));
            map.serialize_entry(column.name, &value)?;
        }
        map.end()
    }
}

/// A dead letter with its message.
#[derive(Serialize)]
struct OfMessage<'a> {
    sequence: u64,
    subject: &'a str,
    kind: &'a str,
    reason: &'a str,
    table: Option<&'a str>,
    column: Option<&'a str>,
    element: Option<u32>,
    sqlstate: Option<&'a str>,
    cure: Option<&'a str>,
    payload: Option<&'a serde_json::Value>,
}

impl<'a> OfMessage<'a> {
    fn new(made: &'a Made, letter: &'a Letter) -> Self {
        Self {
            sequence: made.sequence,
            subject: &made.subject,
            kind: letter.kind,
            reason: &letter.reason,
            table: letter.table.as_deref(),
            column: letter.column.as_deref(),
            element: letter.element,
            sqlstate: letter.sqlstate.as_deref(),
            cure: letter.cure.as_deref(),
            payload: made.payload.as_ref(),
        }
    }
}

/// The object, on several lines.
pub(super) fn object(shown: &Shown<'_>, report: &Report) -> String {
    let preview = shown.preview;
    let columns: Vec<_> = (0..preview.tables.len()).map(|table| preview.columns(table)).collect();
    let table = |(index, columns)| table(shown, index, columns);
    let each = |made| letters(made);
    let object = Object {
        pipeline: &preview.pipeline.name,
        origin: &shown.origin,
        report,
        tables: columns.iter().enumerate().map(table).collect(),
        letters: shown.made.iter().flat_map(each).collect(),
        not_judged_by_the_server: shown.unjudged.as_deref(),
    };
    serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
}

/// A message and what it becomes, as a line of NDJSON.
pub(in crate::cli) fn line(preview: &Preview<'_>, made: &Made) -> String {
    let columns: Vec<_> = (0..preview.tables.len()).map(|table| preview.columns(table)).collect();
    let row = |row| live_row(preview, &columns, row);
    let line = Line {
        sequence: made.sequence,
        subject: &made.subject,
        rows: made.rows.iter().map(row).collect(),
        dead_letters: letters(made).collect(),
        passed_over: made.passed_over.map(Marker::as_str),
    };
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// What the mapping misses, as a line of NDJSON.
pub(in crate::cli) fn summary(report: &Report) -> String {
    serde_json::to_string(&serde_json::json!({ "summary": report })).unwrap_or_default() + "\n"
}

fn live_row<'a>(preview: &'a Preview<'_>, columns: &'a [Vec<Column<'a>>], row: &'a Row) -> LiveRow<'a> {
    let values = Values { columns: &columns[row.table], row };
    LiveRow { table: &preview.pipeline.tables[row.table].name, element: row.element, values }
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    subject: &'a str,
    rows: Vec<LiveRow<'a>>,
    dead_letters: Vec<OfMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_over: Option<&'static str>,
}

#[derive(Serialize)]
struct LiveRow<'a> {
    table: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<u32>,
    values: Values<'a>,
}

fn letters(made: &Made) -> impl Iterator<Item = OfMessage<'_>> {
    made.letters.iter().map(|letter| OfMessage::new(made, letter))
}

fn table<'a>(shown: &Shown<'a>, index: usize, columns: &'a Vec<Column<'a>>) -> Table<'a> {
    let rows = shown.made.iter().flat_map(|made| made.rows.iter().map(move |row| (made, row)));
    let rows = rows.filter(|(_, row)| row.table == index).map(|(made, row)| Shape {
        sequence: made.sequence,
        element: row.element,
        values: Values { columns, row },
    });
    Table {
        name: &shown.preview.pipeline.tables[index].name,
        columns: columns
            .iter()
            .map(|column| About { column: column.name, r#type: column.type_name, source: column.source })
            .collect(),
        rows: rows.collect(),
    }
}
