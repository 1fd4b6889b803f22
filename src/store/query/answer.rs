//! The rows of an answer as JSON, and as texts for a table or CSV.
//!
//! Guarantees: every column keeps its name and its order; an object that stands for columns (`values` of
//! `series_wide`) becomes columns of texts. NULL is an empty text, and `null` in JSON, as are NaN and
//! infinities.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value as Json;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

/// The column whose object stands for columns.
const WIDE: &str = "values";

/// Rows of any columns.
#[derive(Debug)]
pub struct Answer {
    columns: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<Cell>>,
    truncated: bool,
}

/// The same as texts.
#[derive(Debug, PartialEq, Eq)]
pub struct Texts {
    /// The names of the columns; none where there are no rows.
    pub columns: Vec<String>,
    /// Which of them are numbers.
    pub right: Vec<bool>,
    /// The rows, each with a text a column.
    pub rows: Vec<Vec<String>>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Number(f64),
    Flag(bool),
    Json(Json),
}

impl Answer {
    pub(super) fn new(rows: &[Row], truncated: bool) -> Result<Self, tokio_postgres::Error> {
        let Some(first) = rows.first() else {
            return Ok(Self { columns: Vec::new(), right: Vec::new(), rows: Vec::new(), truncated });
        };
        let columns = first.columns().iter().map(|column| column.name().to_owned()).collect();
        let numbers = [Type::INT4, Type::INT8, Type::FLOAT8];
        let right = first.columns().iter().map(|column| numbers.contains(column.type_())).collect();
        let rows = rows
            .iter()
            .map(|row| (0..row.len()).map(|index| cell(row, index)).collect())
            .collect::<Result<_, _>>()?;
        Ok(Self { columns, right, rows, truncated })
    }

    /// Whether there are more rows than these.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// An array with an object a line.
    #[must_use]
    pub fn json(&self) -> String {
        let lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                // Put together here, for a map of serde_json sorts its keys.
                let fields = self.columns.iter().zip(row);
                let fields =
                    fields.map(|(name, cell)| format!("{}: {}", Json::from(name.as_str()), cell.json()));
                format!("  {{{}}}", fields.collect::<Vec<_>>().join(", "))
            })
            .collect();
        if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
    }

    /// Texts for people; `guard`: none of them begins as a formula of a spreadsheet does.
    #[must_use]
    pub fn texts(self, guard: bool) -> Texts {
        let Self { columns, right, rows, .. } = self.widened();
        let text = |cell: &Cell| if guard { cell.guarded() } else { cell.text() };
        let rows = rows.iter().map(|row| row.iter().map(text).collect()).collect();
        Texts { columns, right, rows }
    }

    /// The object that stands for columns as columns, those of all rows.
    fn widened(self) -> Self {
        let Some(wide) = self.columns.iter().position(|name| name == WIDE) else { return self };
        let objects = self.rows.iter().filter_map(|row| match &row[wide] {
            Cell::Json(Json::Object(object)) => Some(object),
            _ => None,
        });
        let names: BTreeSet<String> = objects.flat_map(|object| object.keys().cloned()).collect();
        let rows = self
            .rows
            .into_iter()
            .map(|mut row| {
                let object = row.remove(wide);
                row.extend(names.iter().map(|name| match &object {
                    Cell::Json(Json::Object(object)) => Cell::of_json(object.get(name)),
                    _ => Cell::Null,
                }));
                row
            })
            .collect();
        let (mut columns, mut right) = (self.columns, self.right);
        columns.remove(wide);
        right.remove(wide);
        right.extend(names.iter().map(|_| true));
        columns.extend(names);
        Self { columns, right, rows, truncated: self.truncated }
    }
}

impl Cell {
    fn of_json(value: Option<&Json>) -> Self {
        match value {
            None | Some(Json::Null) => Self::Null,
            Some(Json::Number(number)) => number.as_f64().map_or(Self::Null, Self::Number),
            // NaN and infinities.
            Some(Json::String(text)) => Self::Text(text.clone()),
            Some(other) => Self::Json(other.clone()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Json(json) => json.to_string(),
        }
    }

    /// As text that a spreadsheet does not take for a formula. Numbers are none.
    fn guarded(&self) -> String {
        match self {
            Self::Text(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
            other => other.text(),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Text(text) => Json::from(text.as_str()),
            Self::Integer(number) => Json::from(*number),
            Self::Number(number) => Json::from(*number),
            Self::Flag(flag) => Json::from(*flag),
            Self::Json(json) => json.clone(),
        }
    }
}

/// A value of one of the types that the queries return.
fn cell(row: &Row, index: usize) -> Result<Cell, tokio_postgres::Error> {
    fn get<'r, T: FromSql<'r>>(
        row: &'r Row,
        index: usize,
        cell: impl FnOnce(T) -> Cell,
    ) -> Result<Cell, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<T>>(index)?.map_or(Cell::Null, cell))
    }
    match *row.columns()[index].type_() {
        Type::BOOL => get(row, index, Cell::Flag),
        Type::INT4 => get(row, index, |number: i32| Cell::Integer(number.into())),
        Type::INT8 => get(row, index, Cell::Integer),
        Type::FLOAT8 => get(row, index, Cell::Number),
        Type::TIMESTAMPTZ => get(row, index, |time: Timestamp| Cell::Text(time.to_string())),
        Type::JSONB => get(row, index, Cell::Json),
        _ => get(row, index, Cell::Text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wide() -> Answer {
        Answer {
            columns: vec!["timestamp".into(), "values".into()],
            right: vec![false, false],
            rows: vec![
                vec![Cell::Text("2".into()), Cell::Json(json!({"a, b": 1.5, "c": null}))],
                vec![Cell::Text("10".into()), Cell::Json(json!({"c": "NaN"}))],
            ],
            truncated: false,
        }
    }

    #[test]
    fn an_object_of_values_becomes_columns_of_texts() {
        let Texts { columns, right, rows } = wide().texts(false);
        assert_eq!(
            (columns, right),
            (vec!["timestamp".into(), "a, b".into(), "c".into()], vec![false, true, true])
        );
        assert_eq!(rows, [["2", "1.5", ""], ["10", "", "NaN"]]);
    }

    #[test]
    fn a_text_that_begins_as_a_formula_does_is_guarded_where_that_is_asked_for_and_a_number_never() {
        let row = ["=1+1", "+1", "-1", "@a", "\ta", "a=1"].map(|text| Cell::Text(text.into()));
        let answer = || Answer {
            columns: "abcdefg".chars().map(String::from).collect(),
            right: vec![false; 7],
            rows: vec![row.iter().cloned().chain([Cell::Number(-1.5)]).collect()],
            truncated: false,
        };
        assert_eq!(answer().texts(true).rows, [["'=1+1", "'+1", "'-1", "'@a", "'\ta", "a=1", "-1.5"]]);
        assert_eq!(answer().texts(false).rows, [["=1+1", "+1", "-1", "@a", "\ta", "a=1", "-1.5"]]);
    }

    #[test]
    fn json_keeps_the_order_of_columns_and_the_object() {
        assert_eq!(
            wide().json(),
            "[\n  {\"timestamp\": \"2\", \"values\": {\"a, b\":1.5,\"c\":null}},\n  \
             {\"timestamp\": \"10\", \"values\": {\"c\":\"NaN\"}}\n]\n"
        );
    }

    #[test]
    fn no_rows_are_an_empty_array() {
        assert_eq!(Answer::new(&[], false).unwrap().json(), "[]\n");
    }
}
