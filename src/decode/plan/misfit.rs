//! Columns for which mapping and table do not go together.
//!
//! Guarantees: all of them are found, each with what would mend it.

use super::Target;
use crate::config::{self, ColumnSource};
use crate::decode::PlanError;
use crate::postgres::introspect;

/// All of one table: first those of a type that jetcopy does not write, then those of the mapping that it has
/// not.
pub(in crate::decode) fn of_table(mapping: &config::Table, table: &introspect::Table) -> Vec<PlanError> {
    let mut found = unsupported(mapping, table);
    found.extend(unknown(mapping, table));
    found
}

/// Takes a column out of mapping and table, so that the next one is judged; whether it was in either.
pub(in crate::decode) fn leave_out(
    pipeline: &mut config::Pipeline,
    tables: &mut [introspect::Table],
    misfit: &PlanError,
) -> bool {
    let mut was_there = false;
    let entries = pipeline.tables.iter_mut().zip(tables);
    for (mapping, table) in entries.filter(|(mapping, _)| mapping.name == misfit.table) {
        let before = table.columns.len() + table.unsupported.len();
        table.columns.retain(|column| column.name != misfit.column);
        table.unsupported.retain(|column| column.name != misfit.column);
        was_there |= table.columns.len() + table.unsupported.len() < before;
        was_there |= mapping.columns.remove(&misfit.column).is_some();
    }
    was_there
}

/// Columns of the mapping that the table has not, or nobody may fill.
fn unknown<'t>(
    mapping: &'t config::Table,
    table: &'t introspect::Table,
) -> impl Iterator<Item = PlanError> + 't {
    mapping.columns.iter().filter_map(|(name, source)| {
        let skipped = source.is_skipped() && table.unsupported.iter().any(|column| column.name == *name);
        if skipped || table.columns.iter().any(|column| column.name == *name) {
            return None;
        }
        let target = Target { table: &mapping.name, column: name };
        Some(target.error(unknown_column(name, table)))
    })
}

/// Columns of a type that jetcopy does not write, and of which the mapping does not say that they are left
/// alone: a field for one would be lost without a word.
fn unsupported(mapping: &config::Table, table: &introspect::Table) -> Vec<PlanError> {
    let judge = |column: &introspect::Unsupported| {
        let target = Target { table: &mapping.name, column: &column.name };
        let (name, type_name) = (&column.name, &column.type_name);
        if !mapping.columns.get(name).is_some_and(ColumnSource::is_skipped) {
            return Some(target.error(format!(
                "type {type_name} is not supported: give it one that jetcopy writes, such as text or jsonb, \
                 or leave the column to the server by \"{name}\" = {{ skip = true }} under \
                 [pipeline.table.columns]"
            )));
        }
        let refused = "it is skipped, but it is NOT NULL and has no default: give it one";
        column.required.then(|| target.error(refused))
    };
    table.unsupported.iter().filter_map(judge).collect()
}

/// Why a column cannot take a value: it is not there, or the server generates it.
pub(super) fn unknown_column(name: &str, table: &introspect::Table) -> String {
    /// Names less alike than this are no slip of the pen.
    const ALIKE: f64 = 0.8;
    if table.generated.iter().any(|generated| generated == name) {
        return "the server generates this column, so it cannot be filled: remove it from the mapping".into();
    }
    // Names are as the catalog has them: a slip of the pen may be one of capitals or quotes.
    let name = name.trim_matches('"').to_lowercase();
    let likeness = |column: &introspect::Column| strsim::jaro_winkler(&name, &column.name.to_lowercase());
    let nearest = table.columns.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(column) if likeness(column) >= ALIKE => {
            format!("the table has no such column; did you mean `{}`?", column.name)
        }
        _ => "the table has no such column: remove it from the mapping or add it to the table".into(),
    }
}

/// Why a column of the key takes no value, and what would mend it.
pub(super) fn without_value(name: &str, table: &introspect::Table) -> String {
    if table.generated.iter().any(|generated| generated == name) {
        return format!(
            "the server generates it; name the columns that it is made from, with a unique index on them, or \
             fill it by the mapping after ALTER TABLE {} ALTER COLUMN \"{name}\" DROP EXPRESSION",
            table.qualified
        );
    }
    if table.columns.iter().any(|column| column.name == name) {
        return "it is left to the server; map it to a field, or name other columns".into();
    }
    unknown_column(name, table)
}
