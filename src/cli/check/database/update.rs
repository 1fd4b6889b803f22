//! What `on_conflict` does to rows that are there, as far as table and mapping tell.

use crate::cli::check::report::Findings;
use crate::config::{Absent, OnConflict, Table};
use crate::decode::Decoder;
use crate::postgres::introspect;

/// Says what becomes of columns whose field a message lacks, and of keys that are NULL.
pub(in crate::cli::check) fn judge(
    place: &str,
    table: &Table,
    found: &introspect::Table,
    (decoder, index): (&Decoder, usize),
    report: &mut Findings,
) {
    if table.on_conflict == OnConflict::Update {
        absent(place, table, found, (decoder, index), report);
    }
    let nullable = found.columns.iter().filter(|column| !column.not_null && table.key.contains(&column.name));
    let nullable: Vec<_> = nullable.map(|column| column.name.as_str()).collect();
    if nullable.is_empty() || found.nulls_are_equal(&table.key) {
        return;
    }
    let columns = nullable.join(", ");
    report.warn(
        place,
        format!("the key's {columns} may be NULL: NULL equals nothing, so each such message adds a row"),
        format!(
            "ALTER TABLE {} ALTER COLUMN {} SET NOT NULL, so that such messages become dead letters",
            found.qualified, nullable[0]
        ),
    );
}

/// Columns that an update changes and whose field a message may lack. Of those that are NOT NULL without a
/// default, no row is made then.
fn absent(
    place: &str,
    table: &Table,
    found: &introspect::Table,
    (decoder, index): (&Decoder, usize),
    report: &mut Findings,
) {
    let may_be_null = |name: &str| {
        let column = found.columns.iter().find(|column| column.name == *name);
        column.is_some_and(|column| !column.not_null || column.default != introspect::ServerDefault::None)
    };
    let lacking = decoder.columns(index).iter().zip(decoder.may_lack(index));
    let columns: Vec<&str> = lacking
        .filter(|(name, lacks)| *lacks && !table.key.contains(name) && may_be_null(name))
        .map(|(name, _)| name.as_str())
        .collect();
    if columns.is_empty() {
        return;
    }
    let columns = columns.join(", ");
    match table.absent {
        Some(Absent::Keep) => {
            report.ok(place, format!("a message that lacks the field leaves {columns} unchanged"));
        }
        Some(Absent::Null) => {
            report.ok(place, format!("a message that lacks the field sets {columns} to NULL or the default"));
        }
        None => report.warn(
            place,
            format!(
                "a message that lacks the field sets these columns of the existing row to NULL or the \
                 default: {columns}"
            ),
            "set absent = \"keep\" to keep the value, absent = \"null\" to confirm this, or { skip = true } \
             for a column that something else fills",
        ),
    }
}
