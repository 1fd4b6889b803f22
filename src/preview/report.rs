//! What the mapping misses in the messages that were looked at.
//!
//! Guarantees: each count says in how many messages something was so; examples are cut short. A message that
//! is a dead letter counts for neither.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Made, Preview};
use crate::config;
use crate::status::Kept;

/// Characters that are shown of an example.
const EXAMPLE: usize = 60;

/// Counts while messages are looked at.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    kept: Kept,
    counted: Counted,
    /// For each entry and column that a message may lack: in how many messages it had no value, of how many.
    absent: BTreeMap<(usize, String), (u64, u64, String)>,
    untaken: BTreeMap<String, (u64, u64, Option<String>)>,
}

/// How many messages there were, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    pub(crate) messages: u64,
    pub(crate) rows: u64,
    pub(crate) dead_letters: u64,
    /// Messages that say that something was removed, or schedule one.
    pub(crate) passed_over: u64,
    /// Others that became neither rows nor dead letters.
    pub(crate) without_rows: u64,
}

/// What there is to tell.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) counted: Counted,
    /// Tables that no message filled because of `when` or `for_each`.
    pub(crate) never_matched: Vec<Never>,
    /// Columns for which messages had no value, those of most messages first.
    pub(crate) absent: Vec<Absent>,
    /// Fields that no column takes, those of most messages first.
    pub(crate) untaken: Vec<Untaken>,
}

/// A table that got nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Never {
    pub(crate) table: String,
    /// Its place among the entries of the pipeline, from 0.
    pub(crate) entry: usize,
    pub(crate) reason: String,
    /// A field of the messages that is called like the path that was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meant: Option<String>,
}

/// A column for which messages had no value.
#[derive(Debug, Serialize)]
pub(crate) struct Absent {
    pub(crate) table: String,
    pub(crate) column: String,
    pub(crate) source: String,
    /// Messages without a value for it.
    pub(crate) messages: u64,
    /// Messages that made rows of the table.
    pub(crate) of: u64,
    /// A field that no column takes and that is called like the source; only where no message had a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meant: Option<String>,
}

/// A field that no column takes.
#[derive(Debug, Serialize)]
pub(crate) struct Untaken {
    pub(crate) field: String,
    /// Messages that had it.
    pub(crate) messages: u64,
    /// How often it was there, over all elements.
    pub(crate) times: u64,
    /// A value of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) example: Option<String>,
    /// What of the mapping may mean it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meant: Option<String>,
}

impl Counts {
    /// For messages of one pipeline.
    pub(crate) fn new(pipeline: &config::Pipeline) -> Self {
        let mut counts = Self::default();
        counts.kept.begin(&pipeline.tables);
        counts
    }

    /// Adds what became of a message.
    pub(crate) fn add(&mut self, made: &Made) {
        let counted = &mut self.counted;
        counted.messages += 1;
        counted.rows += made.rows.len() as u64;
        counted.dead_letters += made.letters.len() as u64;
        if made.passed_over.is_some() {
            counted.passed_over += 1;
            return;
        }
        counted.without_rows += u64::from(made.rows.is_empty() && made.letters.is_empty());
        self.kept.add(&made.tally, Timestamp::UNIX_EPOCH);
        for (entry, table) in made.tally.tables.iter().enumerate() {
            if !made.rows.iter().any(|row| row.table == entry) {
                continue;
            }
            for column in table.columns.iter().flatten() {
                let none = || (0, 0, column.source.clone());
                let (absent, of, _) = self.absent.entry((entry, column.column.clone())).or_insert_with(none);
                *absent += u64::from(!column.filled);
                *of += 1;
            }
        }
        for (field, times) in &made.tally.fields {
            let (messages, all, example) = self.untaken.entry(field.clone()).or_default();
            *messages += 1;
            *all += times;
            if example.is_none() {
                *example = made.payload.as_ref().and_then(|payload| at(payload, field)).map(cut);
            }
        }
    }

    /// What there is to tell.
    pub(crate) fn report(&self, preview: &Preview<'_>) -> Report {
        let shown = self.kept.show();
        let called = |field: &str| shown.fields.iter().find(|seen| seen.field == field);
        let mut untaken: Vec<_> = self
            .untaken
            .iter()
            .map(|(field, (messages, times, example))| Untaken {
                field: field.clone(),
                messages: *messages,
                times: *times,
                example: example.clone(),
                meant: called(field).and_then(|seen| seen.meant.clone()),
            })
            .collect();
        untaken.sort_by_key(|field| std::cmp::Reverse(field.messages));
        let meant = |source: &str| {
            let path = format!("`{source}`, ");
            let means = |field: &&Untaken| field.meant.as_ref().is_some_and(|meant| meant.starts_with(&path));
            untaken.iter().find(means).map(|field| field.field.clone())
        };
        let missing = self.absent.iter().filter(|(_, (messages, ..))| *messages > 0);
        let mut absent: Vec<_> = missing
            .map(|((entry, column), (messages, of, source))| Absent {
                table: preview.pipeline.tables[*entry].name.clone(),
                column: column.clone(),
                source: source.clone(),
                messages: *messages,
                of: *of,
                meant: if messages == of { meant(source) } else { None },
            })
            .collect();
        absent.sort_by_key(|column| std::cmp::Reverse((column.messages == column.of, column.messages)));
        let path = |entry: usize| {
            let table = &preview.pipeline.tables[entry];
            table.for_each.as_deref().or(table.when.as_ref().and_then(|when| when.field.as_deref()))
        };
        let never = shown.tables.into_iter().map(|table| Never {
            meant: path(table.entry).and_then(meant),
            table: table.table,
            entry: table.entry,
            reason: table.reason,
        });
        Report { counted: self.counted, never_matched: never.collect(), absent, untaken }
    }
}

/// The value at a path as it is shown: `a.b[0].c`, `list[].c` for that of the first element that has it.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(value);
    }
    match value {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let rest = path.strip_prefix('.').unwrap_or(path).strip_prefix(key.as_str())?;
            let goes_on = rest.is_empty() || rest.starts_with(['.', '[']);
            goes_on.then(|| at(value, rest)).flatten()
        }),
        Value::Array(elements) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            if index.is_empty() {
                return elements.iter().find_map(|element| at(element, rest));
            }
            elements.get(index.parse::<usize>().ok()?).and_then(|element| at(element, rest))
        }
        _ => None,
    }
}

/// An example, cut short.
fn cut(value: &Value) -> String {
    let text = value.to_string();
    let dots = if text.chars().nth(EXAMPLE).is_some() { "…" } else { "" };
    text.chars().take(EXAMPLE).collect::<String>() + dots
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_by_its_path_also_where_keys_have_points() {
        let value = json!({"a": {"b.c": [1, {"d": 2}]}, "list": [{"x": 1}, {"y": "z"}]});
        for (path, expected) in [
            ("a.b.c[1].d", json!(2)),
            ("a.b.c[0]", json!(1)),
            ("list[].y", json!("z")),
            ("list[0]", json!({"x": 1})),
        ] {
            assert_eq!(at(&value, path), Some(&expected), "{path}");
        }
        for path in ["a.b", "list[].q", "list[9]", "b"] {
            assert_eq!(at(&value, path), None, "{path}");
        }
    }
}
