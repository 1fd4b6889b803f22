//! A preview as JSON.
//!
//! Guarantees: values of numbers, truth and JSON are what they are, whatever their size; all others are
//! strings, as the server prints them.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::Shown;
use crate::encode::printed;
use crate::preview::report::Report;
use crate::preview::{Column, Letter, Made, Row};

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
pub(super) struct Values<'a> {
    pub(super) columns: &'a [Column<'a>],
    pub(super) row: &'a Row,
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
pub(super) struct OfMessage<'a> {
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
    pub(super) fn new(made: &'a Made, letter: &'a Letter) -> Self {
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
