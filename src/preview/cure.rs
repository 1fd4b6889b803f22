//! What would mend a dead letter, beyond what its reason says.
//!
//! It guesses from one message: a field of the message that is called like the one that the mapping looks for
//! comes first.

use serde_json::Value;

use super::Preview;
use crate::config::Format;
use crate::poison::{Poison, PoisonKind};
use crate::status::nearest;

/// Fields of a message that are compared: more than a person maps.
const MOST: usize = 2_000;

pub(super) fn of(preview: &Preview<'_>, poison: &Poison, payload: Option<&Value>) -> Option<String> {
    let column = poison.column.as_deref();
    let place = poison.table.as_ref().zip(column).and_then(|(table, name)| {
        let entries = preview.pipeline.tables.iter().enumerate();
        let mut entries = entries.filter(|(_, entry)| entry.name == *table);
        entries.find_map(|(entry, _)| {
            let column = preview.columns(entry).into_iter().find(|column| column.name == name)?;
            let (source, type_name) = (column.source.to_owned(), column.type_name.to_owned());
            Some((entry, name.to_owned(), source, type_name))
        })
    });
    match (poison.kind, place) {
        (PoisonKind::Missing, Some((entry, column, source, _))) => {
            if let Some(field) = payload.and_then(|payload| meant(&source, payload)) {
                return Some(format!(
                    "did you mean `{field}`, which the message has? {column} = \"{field}\""
                ));
            }
            let table = &preview.tables[entry].qualified;
            Some(format!(
                "correct the path, set a default ({column} = {{ from = \"{source}\", default = … }}), or \
                 allow NULL: ALTER TABLE {table} ALTER COLUMN \"{column}\" DROP NOT NULL"
            ))
        }
        (PoisonKind::Type | PoisonKind::Range, Some((.., type_name)))
            if preview.pipeline.format == Format::Raw =>
        {
            Some(format!("correct the publisher, or the column's type, which is {type_name}"))
        }
        (PoisonKind::Type | PoisonKind::Range, Some((.., type_name))) => {
            Some(format!("map a field that fits {type_name}, or change the column's type"))
        }
        (PoisonKind::Malformed, _) if poison.message.starts_with("not a payload in") => {
            Some("correct the publisher, or the pipeline's compression".to_owned())
        }
        (PoisonKind::Malformed, _) => Some(match preview.pipeline.format {
            Format::Auto => {
                "correct the publisher, or set the pipeline's format; by default it accepts JSON and \
                 MessagePack, and CBOR where Content-Type says so"
                    .to_owned()
            }
            format => format!(
                "correct the publisher, or the pipeline's format, which is \"{}\"",
                format!("{format:?}").to_lowercase()
            ),
        }),
        (PoisonKind::Unreadable, _) => Some(
            "correct the publisher; `jetcopy dead-letters show` prints such a message's bytes".to_owned(),
        ),
        (
            PoisonKind::Missing
            | PoisonKind::Type
            | PoisonKind::Range
            | PoisonKind::Unmatched
            | PoisonKind::TooLarge,
            _,
        ) => None,
    }
}

/// The field of a message that is called like the path of a source.
fn meant(source: &str, payload: &Value) -> Option<String> {
    if source.starts_with('$') {
        return None;
    }
    let mut known = Vec::new();
    paths(payload, "", &mut known);
    let wanted = source.trim_start_matches('^');
    nearest(wanted, known.into_iter().filter(|path| path != wanted), String::as_str)
}

fn paths(value: &Value, before: &str, known: &mut Vec<String>) {
    if known.len() > MOST {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if before.is_empty() { key.clone() } else { format!("{before}.{key}") };
                known.push(path.clone());
                paths(value, &path, known);
            }
        }
        // Paths of an element begin at the element, as in the mapping.
        Value::Array(elements) => {
            if let Some(element) = elements.first() {
                paths(element, "", known);
            }
        }
        _ => {}
    }
}
