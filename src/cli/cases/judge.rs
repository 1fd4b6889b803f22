//! What a case expects, against what its message becomes.
//!
//! Guarantees: expected values are encoded as a message's values of the column would be, so that `2` is `2.0`
//! of a `real` and `2025-01-01T00:00:00Z` the same instant as `2025-01-01T01:00:00+01:00`.

use std::collections::BTreeMap;
use std::path::Path;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use figment::value::Value;
use serde_json::Value as Json;

use super::case::{Case, DeadLetter, File};
use super::report::{Difference, Result as CaseResult, Results};
use crate::cli::UnknownPipeline;
use crate::config::{Compression, Config, Format, NonFinite, Pipeline};
use crate::decode::header;
use crate::encode::types::Type;
use crate::encode::{Encoder, printed, time::Times};
use crate::message::Message;
use crate::payload::compress::compress;
use crate::payload::{Reader as _, json};
use crate::postgres::introspect::saved::Saved;
use crate::preview::{Column, Letter, Made, Preview};
use crate::unreadable::Single;

/// Names less alike than this are no slip of the pen.
const ALIKE: f64 = 0.8;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Judges all cases of a file.
pub(super) fn all(
    config: &Config,
    saved: &Saved,
    path: &Path,
    directory: &Path,
    file: &File,
) -> Result<Results, Failed> {
    let mut previews: BTreeMap<&str, Preview<'_>> = BTreeMap::new();
    let mut results = Vec::new();
    for case in &file.cases {
        let pipeline = pipeline_of(config, case)?;
        if !previews.contains_key(pipeline.name.as_str()) {
            let tables = pipeline.tables.iter().map(|table| saved.table(&table.name));
            let tables = tables.collect::<Result<Vec<_>, _>>()?;
            previews.insert(&pipeline.name, Preview::new(pipeline, tables)?);
        }
        let Some(preview) = previews.get_mut(pipeline.name.as_str()) else { continue };
        let differences = match message(pipeline, case, directory) {
            Ok(message) => {
                let made = preview.make(&Single { message, unreadable: None });
                differences(preview, case, &made)
            }
            Err(problem) => vec![Difference::of(problem)],
        };
        let (name, pipeline) = (case.name.clone(), pipeline.name.clone());
        results.push(CaseResult { name, pipeline, passed: differences.is_empty(), differences });
    }
    Ok(Results { file: path.display().to_string(), cases: results })
}

fn pipeline_of<'c>(config: &'c Config, case: &Case) -> Result<&'c Pipeline, Failed> {
    match (&case.pipeline, config.pipelines.as_slice()) {
        (Some(name), _) => Ok(UnknownPipeline::find(config, name)?),
        (None, [only]) => Ok(only),
        (None, all) => {
            let names: Vec<&str> = all.iter().map(|pipeline| pipeline.name.as_str()).collect();
            let (case, names) = (&case.name, names.join(", "));
            Err(format!("case `{case}` does not say its pipeline; there are: {names}").into())
        }
    }
}

/// The message of a case, or why it has none.
fn message(pipeline: &Pipeline, case: &Case, directory: &Path) -> Result<Message, String> {
    let format = case.format.unwrap_or(pipeline.format);
    let packs = matches!(format, Format::Msgpack | Format::Cbor);
    let encode = |value: &Json| match (format, value) {
        (Format::Msgpack, value) => rmp_serde::to_vec_named(value).map_err(|error| error.to_string()),
        (Format::Cbor, value) => {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes).map_err(|error| error.to_string())?;
            Ok(bytes)
        }
        (Format::Ndjson, Json::Array(texts)) => {
            let lines: Vec<String> = texts.iter().map(Json::to_string).collect();
            Ok(lines.join("\n").into_bytes())
        }
        (Format::Raw | Format::Influx, Json::String(text)) => Ok(text.clone().into_bytes()),
        (_, value) => Ok(value.to_string().into_bytes()),
    };
    let headers = headers(case)?;
    let codec = pipeline.compression.codec(|| header(&headers, Compression::HEADER));
    let compressed = |payload: Vec<u8>| match codec {
        Some(codec) => compress(codec, &payload).map_err(|error| error.to_string()),
        None => Ok(payload),
    };
    let payload = match (&case.message, &case.json, &case.base64, &case.file) {
        (Some(value), None, None, None) => encode(&as_json(value)).and_then(compressed),
        (None, Some(text), None, None) if packs => serde_json::from_str(text)
            .map_err(|error| format!("json: {error}"))
            .and_then(|value| encode(&value))
            .and_then(compressed),
        (None, Some(text), None, None) => compressed(text.clone().into_bytes()),
        (None, None, Some(text), None) => STANDARD.decode(text).map_err(|error| format!("base64: {error}")),
        (None, None, None, Some(file)) => {
            let path = directory.join(file);
            std::fs::read(&path).map_err(|error| format!("file: {}: {error}", path.display()))
        }
        (None, None, None, None) => Ok(Vec::new()),
        _ => Err("more than one of `message`, `json`, `base64` and `file`: keep one".to_owned()),
    }?;
    let timestamp_ns = match &case.timestamp {
        None => 0,
        Some(text) => {
            let time: jiff::Timestamp = text.parse().map_err(|error| format!("timestamp: {error}"))?;
            i64::try_from(time.as_nanosecond()).map_err(|error| format!("timestamp: {error}"))?
        }
    };
    Ok(Message {
        sequence: case.sequence,
        timestamp_ns,
        subject: case.subject.as_str().into(),
        payload: payload.into(),
        headers: (!case.headers.is_empty()).then_some(headers),
    })
}

fn headers(case: &Case) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &case.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("headers: `{name}` is no header's name"))?;
        let value: HeaderValue =
            value.parse().map_err(|_| format!("headers: the value of {name} is none"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn as_json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or(Json::Null)
}

/// How a case and what its message becomes differ.
fn differences(preview: &Preview<'_>, case: &Case, made: &Made) -> Vec<Difference> {
    let mut found = Vec::new();
    let names: Vec<&str> = preview.pipeline.tables.iter().map(|table| table.name.as_str()).collect();
    for table in case.rows.keys().filter(|table| !names.contains(&table.as_str())) {
        let meant = nearest(table, names.iter().copied());
        let pipeline = &preview.pipeline.name;
        found.push(Difference::of(format!("pipeline {pipeline} has no table {table}{meant}")));
    }
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
            table(preview, case, made, name, &mut found);
        }
    }
    letters(&case.dead_letter, &made.letters, &mut found);
    found
}

/// The rows of one table, by however many entries it is filled.
fn table(preview: &Preview<'_>, case: &Case, made: &Made, name: &str, differences: &mut Vec<Difference>) {
    let none = Vec::new();
    let expected = case.rows.get(name).unwrap_or(&none);
    let entries = preview.pipeline.tables.iter().enumerate().filter(|(_, table)| table.name == name);
    let columns: Vec<(usize, Vec<Column<'_>>)> =
        entries.map(|(entry, _)| (entry, preview.columns(entry))).collect();
    let of = |entry: usize| columns.iter().find(|(known, _)| *known == entry).map(|(_, columns)| columns);
    let rows: Vec<_> = made.rows.iter().filter_map(|row| Some((of(row.table)?, row))).collect();
    for (number, wanted) in expected.iter().enumerate() {
        let place = format!("table {name}, row {}", number + 1);
        for column in wanted.keys() {
            let known = columns.iter().flat_map(|(_, columns)| columns).map(|column| column.name);
            if !known.clone().any(|known| known == column) {
                let meant = nearest(column, known);
                differences.push(Difference::of(format!("{place}: no row fills column {column}{meant}")));
            }
        }
        let Some((columns, row)) = rows.get(number) else {
            let texts = wanted.iter().map(|(column, value)| format!("{column} = {}", shown(value)));
            let expected = texts.collect::<Vec<_>>().join(", ");
            differences.push(Difference { place, expected, found: "no row".to_owned(), source: None });
            continue;
        };
        for (column, field) in columns.iter().zip(&row.fields) {
            let Some(value) = wanted.get(column.name) else { continue };
            if !is_same(column, &as_json(value), field.as_deref()) {
                differences.push(Difference {
                    place: format!("{place}, column {}", column.name),
                    expected: shown(value),
                    found: field
                        .as_ref()
                        .map_or_else(|| "NULL".into(), |field| printed::text(column.ty, field)),
                    source: Some(column.source.to_owned()),
                });
            }
        }
    }
    for (number, (columns, row)) in rows.iter().enumerate().skip(expected.len()) {
        let texts = columns.iter().zip(&row.fields).map(|(column, field)| {
            let text = field.as_ref().map_or_else(|| "NULL".into(), |field| printed::text(column.ty, field));
            format!("{} = {text}", column.name)
        });
        differences.push(Difference {
            place: format!("table {name}, row {}", number + 1),
            expected: "no row".to_owned(),
            found: texts.collect::<Vec<_>>().join(", "),
            source: None,
        });
    }
}

/// Whether a case says that a column is NULL, for which TOML has no word.
fn is_null(value: &Json) -> bool {
    *value == serde_json::json!({"null": true})
}

fn shown(value: &Value) -> String {
    match as_json(value) {
        value if is_null(&value) => "NULL".to_owned(),
        Json::String(text) => text,
        other => other.to_string(),
    }
}

fn is_same(column: &Column<'_>, expected: &Json, field: Option<&[u8]>) -> bool {
    let Some(field) = field else { return is_null(expected) };
    let found = printed::text(column.ty, field);
    if expected.as_str() == Some(&found) {
        return true;
    }
    let text = expected.to_string();
    let Ok(value) = json::Reader::new(&text).value(0) else { return false };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(NonFinite::Keep);
    if encoder.field(&mut bytes, column.ty, Times::default(), value).is_err() {
        return false;
    }
    let wanted = printed::text(column.ty, bytes.get(4..).unwrap_or_default());
    let parsed = |text: &str| serde_json::from_str::<Json>(text).ok();
    wanted == found
        || match column.ty {
            Type::Json | Type::Jsonb => parsed(&wanted) == parsed(&found),
            // `12.50` is `12.5`.
            Type::Numeric | Type::Rounded { .. } => plain(&wanted) == plain(&found),
            _ => false,
        }
}

/// Digits without zeros at their end.
fn plain(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Dead letters, each expected one against the first that is as it says.
fn letters(expected: &[DeadLetter], found: &[Letter], differences: &mut Vec<Difference>) {
    let mut left: Vec<&Letter> = found.iter().collect();
    for wanted in expected {
        match left.iter().position(|letter| is_as_expected(wanted, letter)) {
            Some(place) => drop(left.remove(place)),
            None => differences.push(Difference {
                place: "dead letter".to_owned(),
                expected: words(wanted),
                found: if found.is_empty() {
                    "none".to_owned()
                } else {
                    found.iter().map(described).collect::<Vec<_>>().join("; ")
                },
                source: None,
            }),
        }
    }
    // What was expected otherwise is shown already.
    if differences.iter().any(|difference| difference.place == "dead letter") {
        return;
    }
    for letter in left {
        let (expected, found) = ("none".to_owned(), described(letter));
        differences.push(Difference { place: "dead letter".to_owned(), expected, found, source: None });
    }
}

fn is_as_expected(wanted: &DeadLetter, letter: &Letter) -> bool {
    let DeadLetter { kind, reason, table, column, element } = wanted;
    kind.as_ref().is_none_or(|kind| kind == letter.kind)
        && reason.as_ref().is_none_or(|reason| letter.reason.contains(reason))
        && table.as_ref().is_none_or(|table| Some(table) == letter.table.as_ref())
        && column.as_ref().is_none_or(|column| Some(column) == letter.column.as_ref())
        && element.is_none_or(|element| Some(element) == letter.element)
}

fn words(wanted: &DeadLetter) -> String {
    let DeadLetter { kind, reason, table, column, element } = wanted;
    let element = element.map(|element| element.to_string());
    let each =
        [("kind", kind), ("reason", reason), ("table", table), ("column", column), ("element", &element)];
    let said = each.iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let said = said.collect::<Vec<_>>().join(", ");
    if said.is_empty() { "any".to_owned() } else { said }
}

fn described(letter: &Letter) -> String {
    let part = |name: &str, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |value| format!(", {name} {value}"))
    };
    let element = letter.element.map(|element| element.to_string());
    format!(
        "kind {}{}{}{}: {}",
        letter.kind,
        part("table", &letter.table),
        part("column", &letter.column),
        part("element", &element),
        letter.reason
    )
}

/// The known name that a wrong one is most like, as a question.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let alike = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let nearest = alike.filter(|(likeness, _)| *likeness >= ALIKE).max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}
