//! What is wrong with a message, in words.
//!
//! Guarantees: a reason names its table, and the column and the field where one is at fault; of a value it
//! holds a short excerpt at most.

use super::plan::{ForEach, Table};
use crate::encode::Fault;
use crate::payload::Value;
use crate::poison::{Poison, PoisonKind};

/// The longest excerpt of a value in an error message, in characters.
const EXCERPT: usize = 40;

#[cold]
pub(super) fn poison(table: &Table, column: Option<usize>, fault: Fault, value: Option<Value<'_>>) -> Poison {
    let message = match (column, value) {
        (Some(column), Some(value)) => {
            format!("{}; `{}` is {}", fault.what, table.columns[column].source, describe(value))
        }
        _ => fault.what.to_string(),
    };
    Poison {
        kind: fault.kind,
        message,
        table: Some(table.name.clone()),
        column: column.map(|column| table.names[column].clone()),
    }
}

/// That a message costs too much. What it would cost is said when all is known of it.
#[cold]
pub(super) fn too_large(table: &Table) -> Poison {
    Poison {
        kind: PoisonKind::TooLarge,
        message: String::new(),
        table: Some(table.name.clone()),
        column: None,
    }
}

/// A value that the mapping goes into and cannot: at `path` below `place`, which is empty for the message.
#[cold]
pub(super) fn misfit(table: &Table, place: &str, path: &str, found: Option<Value<'_>>) -> Poison {
    let what = match (place, path) {
        (place, "") => place.to_owned(),
        ("", path) => path.to_owned(),
        (place, path) => format!("{place}.{path}"),
    };
    let found = found.map_or_else(|| "nothing".to_owned(), describe);
    let message = format!(
        "the mapping reads inside `{what}`, which is {found} in this message: correct the path, or also map \
         it as a whole to a column"
    );
    Poison { kind: PoisonKind::Type, message, table: Some(table.name.clone()), column: None }
}

#[cold]
pub(super) fn missing(table: &Table, column: usize, value: Option<Value<'_>>) -> Poison {
    let source = &table.columns[column].source;
    let message = match value {
        None => format!("the column is NOT NULL and `{source}` is absent; map it, or give it a default"),
        Some(Value::Null) => format!("the column is NOT NULL and `{source}` is null; give it a default"),
        Some(value) => format!(
            "the column is NOT NULL and `{source}` is {}, which the setting `non_finite` turns into NULL",
            describe(value)
        ),
    };
    Poison {
        kind: PoisonKind::Missing,
        message,
        table: Some(table.name.clone()),
        column: Some(table.names[column].clone()),
    }
}

/// A message that is an array, for a table that takes fields of it.
#[cold]
pub(super) fn array(table: &Table) -> Poison {
    let message = "the message is an array, but the table takes its fields: set for_each = \"$\", or a \
                   `when` by subject or header";
    let table = Some(table.name.clone());
    Poison { kind: PoisonKind::Type, message: message.to_owned(), table, column: None }
}

/// Why a message, or the element at a place in it, is refused that no table takes.
#[cold]
pub(super) fn unmatched(place: Option<u32>) -> Poison {
    let element = place.map(|place| format!("element {place}: ")).unwrap_or_default();
    Poison {
        kind: PoisonKind::Unmatched,
        message: format!(
            "{element}`when` holds for no table: correct one, add one, or set on_unmatched = \"skip\""
        ),
        table: None,
        column: None,
    }
}

#[cold]
pub(super) fn for_each(table: &Table, each: &ForEach, found: Value<'_>) -> Poison {
    let what = Fault::ty(&"for_each needs an array of maps");
    let mut poison = poison(table, None, what, None);
    poison.message = format!("{}; in `{}` there is {}", what.what, each.path, describe(found));
    poison
}

/// What is wrong with a row of an unpivoted field, with the field's name.
#[cold]
pub(super) fn named(mut poison: Poison, field: Option<Value<'_>>) -> Poison {
    if let Some(name) = field {
        poison.message = format!("{}; the field is {}", poison.message, describe(name));
    }
    poison
}

#[cold]
pub(super) fn no_map(table: &Table, path: &str, found: Value<'_>) -> Poison {
    let what = Fault::ty(&"unpivot needs a map");
    let mut poison = poison(table, None, what, None);
    poison.message = format!("{}; in `{path}` there is {}", what.what, describe(found));
    poison
}

/// A value for people, cut short.
fn describe(value: Value<'_>) -> String {
    let quote = |text: &str| {
        let short: String = text.chars().take(EXCERPT).flat_map(char::escape_debug).collect();
        let dots = if text.chars().nth(EXCERPT).is_some() { "…" } else { "" };
        format!("the text \"{short}{dots}\"")
    };
    let short = |text: &str| text.chars().take(EXCERPT).collect::<String>();
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Float32(value) => format!("{value:?}"),
        Value::Float(value) => format!("{value:?}"),
        Value::Decimal(digits) => short(digits),
        Value::Str(text) | Value::Escaped(text) => quote(text),
        Value::NotText(bytes) => format!("{} bytes", bytes.len()),
        Value::Bytes(bytes) => format!("{} bytes of binary", bytes.len()),
        Value::Timestamp { seconds, nanos } => format!("the timestamp {seconds}.{nanos:09}"),
        Value::Array(_) => "an array".into(),
        Value::Map(_) => "a map".into(),
    }
}
