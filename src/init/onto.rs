//! The mapping onto a table that is there: which field each column takes.
//!
//! Guarantees: a column that the server fills by itself is left to it, unless a field is called like it. A
//! column takes a field of its own name, also if that is written otherwise (`cameraId`) or lies deeper
//! (`env.temperature` as `env_temperature` or, where there is one only, `temperature`). Columns that refuse
//! NULL and find no field take the stream's sequence or time, where that fits; others are told.

use std::collections::BTreeSet;

use super::fields::Seen;
use super::names::{below, snake};
use super::propose::{self, Column, Table, Unfit};
use super::sample::Sample;
use crate::encode::types::Type;
use crate::postgres::introspect::{self, ServerDefault};

/// Names of columns that take what is left of a message.
const RESTS: [&str; 9] =
    ["rest", "more", "extra", "attributes", "other", "data", "payload", "fields", "properties"];

/// A field with its path.
struct Leaf<'s> {
    path: String,
    /// Its names, from the outermost object on.
    label: String,
    own: String,
    seen: &'s Seen,
}

/// The mapping, and columns for which nothing was found.
pub(crate) fn mapping(
    sample: &Sample,
    table: &introspect::Table,
    name: &str,
) -> Result<(Table, Vec<String>), Unfit> {
    let (seen, for_each) = propose::root(sample)?;
    let mut leaves = Vec::new();
    leaves_of(&seen, "", "", &mut leaves);
    let mut mapped = Table { name: name.to_owned(), for_each, ..Table::default() };
    let mut taken = BTreeSet::new();
    for column in &table.columns {
        let leaf = leaf_of(&leaves, &column.name).filter(|leaf| !taken.contains(&leaf.path));
        let Some(leaf) = leaf else { continue };
        taken.insert(leaf.path.clone());
        let is_time = matches!(column.ty, Type::Timestamptz | Type::Timestamp | Type::Date);
        mapped.columns.push(Column {
            name: column.name.clone(),
            source: leaf.path.clone(),
            unit: leaf.seen.unit().filter(|_| is_time),
            ..Column::default()
        });
    }
    let mut left = Vec::new();
    let mut rest = false;
    for column in &table.columns {
        if mapped.columns.iter().any(|known| known.name == column.name) {
            continue;
        }
        let required = column.not_null && column.default == ServerDefault::None;
        let source = match column.ty {
            _ if column.default == ServerDefault::Computed => continue,
            Type::Json | Type::Jsonb if !rest && RESTS.contains(&snake(&column.name).as_str()) => {
                rest = true;
                Some("$rest".to_owned())
            }
            Type::Int8 if snake(&column.name).contains("seq") => Some("$sequence".to_owned()),
            Type::Timestamptz if required => Some("$timestamp".to_owned()),
            _ => None,
        };
        match source {
            Some(source) => {
                mapped.columns.push(Column { name: column.name.clone(), source, ..Column::default() });
            }
            None if required => left.push(column.name.clone()),
            None => {}
        }
    }
    mapped.columns.extend(table.unsupported.iter().map(|column| Column {
        name: column.name.clone(),
        skip: true,
        ..Column::default()
    }));
    left.extend(table.unsupported.iter().filter(|column| column.required).map(|column| column.name.clone()));
    Ok((mapped, left))
}

fn leaves_of<'s>(seen: &'s Seen, path: &str, label: &str, leaves: &mut Vec<Leaf<'s>>) {
    for (key, field) in &seen.fields {
        let Some(path) = below(path, key) else { continue };
        let label = if label.is_empty() { snake(key) } else { format!("{label}_{}", snake(key)) };
        if field.is_structure() {
            leaves_of(field, &path, &label, leaves);
        }
        leaves.push(Leaf { path, label, own: snake(key), seen: field });
    }
}

/// The field that a column is called like.
fn leaf_of<'l, 's>(leaves: &'l [Leaf<'s>], column: &str) -> Option<&'l Leaf<'s>> {
    let same = leaves.iter().find(|leaf| leaf.path == column);
    let alike = || leaves.iter().find(|leaf| leaf.label == snake(column));
    let deeper = || {
        let mut found = leaves.iter().filter(|leaf| leaf.own == snake(column));
        found.next().filter(|_| found.next().is_none())
    };
    same.or_else(alike).or_else(deeper)
}
