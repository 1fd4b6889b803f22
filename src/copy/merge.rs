//! The statements that merge a batch's rows into a table by way of a temporary one.
//!
//! Guarantees: what they leave is what the rows would leave one after the other, in stream order: of the rows
//! of a key the last one wins (the one with the greatest `newer_by`, where there is that), and with `absent =
//! "keep"` each column has the last value that a row had for it. NULL in a key equals no other NULL, so that
//! each such row is one of its own, unless the unique index says `NULLS NOT DISTINCT`: within a batch it is
//! as it is over batches, where the server decides.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_identifier;

use super::list;
use crate::config::{Absent, OnConflict, Table as Settings};
use crate::postgres::introspect::{Column, Table};

/// The temporary table, dropped at the end of its transaction. It is a heap, whatever the database's default
/// is: a columnar table cannot be read in the transaction that fills it.
const ROWS: &str = "jetcopy_merge";

/// With `absent = "keep"`: for each key, where the last row of it lies, and the last one that has each
/// column.
const KEYS: &str = "jetcopy_keys";

/// With `absent = "keep"`: the column of [`ROWS`] that says which others the message had.
const PRESENT: &str = "jetcopy_present";

/// From this many rows on, an index on [`KEYS`] is worth the millisecond or two that it costs: without it,
/// each row that is updated looks through all keys.
const INDEXED: u64 = 500;

#[derive(Debug, Clone)]
pub(super) struct Merge {
    pub(super) create: String,
    pub(super) copy: String,
    /// Makes [`KEYS`], where they are needed.
    keys: Option<Keys>,
    insert: String,
    pub(super) drop: String,
    /// As in [`Making`].
    varying: Vec<String>,
}

#[derive(Debug, Clone)]
struct Keys {
    create: String,
    index: String,
}

/// What the statements are made from.
struct Making<'m> {
    table: &'m str,
    /// In tuple order, quoted.
    columns: Vec<String>,
    /// Whether a message may lack it.
    lacks: &'m [bool],
    /// Columns of the key, quoted.
    key: Vec<String>,
    /// Those of them that may be NULL.
    nullable: Vec<String>,
    /// Whether NULL equals NULL in the key.
    nulls_equal: bool,
    /// Columns of varying length, quoted: they are compared as text, for which the server has the very
    /// operators.
    varying: Vec<String>,
}

/// A column of the row on this side, as it is compared.
fn compared(varying: &[String], side: &str, column: &String) -> String {
    let cast = if varying.contains(column) { "::text" } else { "" };
    format!("{side}.{column}{cast}")
}

impl Merge {
    /// The statements for `columns`, of which messages may lack some.
    pub(super) fn new(settings: &Settings, table: &Table, columns: &[String], lacks: &[bool]) -> Self {
        let quoted = |names: &[String]| names.iter().map(|name| escape_identifier(name)).collect::<Vec<_>>();
        let is_nullable =
            |name: &&String| table.columns.iter().any(|column| column.name == **name && !column.not_null);
        let nullable: Vec<String> = settings.key.iter().filter(is_nullable).cloned().collect();
        let is_varying = |column: &&Column| column.type_name.starts_with("character varying");
        let varying: Vec<String> =
            table.columns.iter().filter(is_varying).map(|column| escape_identifier(&column.name)).collect();
        let making = Making {
            table: &table.qualified,
            columns: quoted(columns),
            lacks,
            key: quoted(&settings.key),
            nullable: quoted(&nullable),
            nulls_equal: table.nulls_are_equal(&settings.key),
            varying: varying.clone(),
        };
        // The decoder says what is present whether or not there is something to keep.
        let says_present = settings.absent == Some(Absent::Keep);
        let updates = making.updated().next().is_some();
        let keeps = says_present && updates;
        let insert = match settings.on_conflict {
            OnConflict::Update if keeps => making.insert_present(),
            OnConflict::Update if updates => making.insert_last(settings.newer_by.as_deref()),
            OnConflict::Update | OnConflict::Ignore | OnConflict::Error => making.insert_new(),
        };
        let (name, columns_sql) = (&table.qualified, list(columns));
        let (made, present) = if says_present {
            (format!(", ''::bytea AS {PRESENT}"), format!(", {PRESENT}"))
        } else {
            Default::default()
        };
        let keys = keeps.then(|| making.keys());
        let dropped = if keeps { format!(", pg_temp.{KEYS}") } else { String::new() };
        Self {
            create: format!(
                "CREATE TEMPORARY TABLE {ROWS} USING heap ON COMMIT DROP AS SELECT {columns_sql}{made} \
                 FROM {name} WITH NO DATA"
            ),
            copy: format!("COPY pg_temp.{ROWS} ({columns_sql}{present}) FROM STDIN (FORMAT binary)"),
            keys,
            insert,
            drop: format!("DROP TABLE pg_temp.{ROWS}{dropped}"),
            varying,
        }
    }

    /// What merges this many rows; the last statement is the `INSERT`.
    pub(super) fn insert(&self, rows: u64) -> String {
        let Some(Keys { create, index }) = &self.keys else { return self.insert.clone() };
        let index = if rows < INDEXED { "" } else { index };
        format!("{create}; {index}{}", self.insert)
    }

    /// Lets a row that is there stay where its `column` is not less than the new one's.
    pub(super) fn keep_newer(&mut self, column: &str) {
        if self.insert.contains(" DO UPDATE ") {
            let column = escape_identifier(column);
            // Writing to a string cannot fail.
            let [old, new] = ["stored", "EXCLUDED"].map(|side| compared(&self.varying, side, &column));
            let _ = write!(self.insert, " WHERE {old} < {new}");
        }
    }
}

impl Making<'_> {
    /// Columns beside the key, with their places.
    fn updated(&self) -> impl Iterator<Item = (usize, &String)> {
        self.columns.iter().enumerate().filter(|(_, column)| !self.key.contains(column))
    }

    /// What tells the rows of one key from those of another.
    fn groups(&self) -> String {
        let key = self.key.join(", ");
        if self.nullable.is_empty() || self.nulls_equal {
            return key;
        }
        let nulls: Vec<String> = self.nullable.iter().map(|column| format!("{column} IS NULL")).collect();
        format!("{key}, CASE WHEN {} THEN ctid END", nulls.join(" OR "))
    }

    /// Rows whose key is not there yet.
    fn insert_new(&self) -> String {
        let (columns, key) = (self.columns.join(", "), self.key.join(", "));
        let target = if key.is_empty() { String::new() } else { format!(" ({key})") };
        format!(
            "INSERT INTO {} ({columns}) SELECT {columns} FROM pg_temp.{ROWS} ORDER BY ctid \
             ON CONFLICT{target} DO NOTHING",
            self.table
        )
    }

    /// The last row of each key. The temporary table is filled in stream order, so that the highest place of
    /// a key is its highest sequence.
    fn insert_last(&self, newer_by: Option<&str>) -> String {
        let (columns, key, groups) = (self.columns.join(", "), self.key.join(", "), self.groups());
        let newer = newer_by.map(escape_identifier);
        let (newest, guard) = newer.map_or_else(Default::default, |newer| {
            let [old, new] = ["stored", "EXCLUDED"].map(|side| compared(&self.varying, side, &newer));
            (format!(", {newer} DESC NULLS LAST"), format!(" WHERE stored.{newer} IS NULL OR {new} >= {old}"))
        });
        let set: Vec<String> =
            self.updated().map(|(_, column)| format!("{column} = EXCLUDED.{column}")).collect();
        format!(
            "INSERT INTO {} AS stored ({columns}) SELECT DISTINCT ON ({groups}) {columns} \
             FROM pg_temp.{ROWS} \
             ORDER BY {groups}{newest}, ctid DESC ON CONFLICT ({key}) DO UPDATE SET {}{guard}",
            self.table,
            set.join(", ")
        )
    }

    fn keys(&self) -> Keys {
        let key = self.key.join(", ");
        let mut last = String::new();
        for (place, _) in self.updated().filter(|(place, _)| self.lacks[*place]) {
            // Writing to a string cannot fail.
            let _ = write!(
                last,
                ", max(ctid) FILTER (WHERE get_bit({PRESENT}, {place}) = 1) AS jetcopy_last_{place}"
            );
        }
        Keys {
            create: format!(
                "CREATE TEMPORARY TABLE {KEYS} USING heap ON COMMIT DROP AS \
                 SELECT {key}, max(ctid) AS jetcopy_last{last} \
                 FROM pg_temp.{ROWS} GROUP BY {}",
                self.groups()
            ),
            index: format!("CREATE INDEX ON pg_temp.{KEYS} ({key}); "),
        }
    }

    /// For each key a row of the last values that rows of it had. Where the key is there already, a column
    /// that none of them had keeps its value. It is read under the lock of the row, so that nothing that
    /// others write meanwhile is lost.
    fn insert_present(&self) -> String {
        format!(
            "INSERT INTO {} AS stored ({}) SELECT {} FROM pg_temp.{KEYS} AS keys \
             JOIN pg_temp.{ROWS} AS newest ON newest.ctid = keys.jetcopy_last ORDER BY keys.jetcopy_last \
             ON CONFLICT ({}) DO UPDATE SET ({}) = \
             (SELECT {} FROM (SELECT) AS one LEFT JOIN pg_temp.{KEYS} AS keys ON {})",
            self.table,
            self.columns.join(", "),
            self.last_values().join(", "),
            self.key.join(", "),
            self.updated().map(|(_, column)| column.as_str()).collect::<Vec<_>>().join(", "),
            self.kept_values().join(", "),
            self.same_key().join(" AND ")
        )
    }

    fn last_values(&self) -> Vec<String> {
        let value = |(place, column): (usize, &String)| {
            if self.lacks[place] && !self.key.contains(column) {
                format!(
                    "(SELECT had.{column} FROM pg_temp.{ROWS} AS had \
                     WHERE had.ctid = coalesce(keys.jetcopy_last_{place}, keys.jetcopy_last))"
                )
            } else {
                format!("newest.{column}")
            }
        };
        self.columns.iter().enumerate().map(value).collect()
    }

    /// A trigger may have changed the key, which is not found then: each column is as it came.
    fn kept_values(&self) -> Vec<String> {
        let value = |(place, column): (usize, &String)| {
            if self.lacks[place] {
                format!(
                    "CASE WHEN keys.jetcopy_last IS NOT NULL AND keys.jetcopy_last_{place} IS NULL \
                     THEN stored.{column} ELSE EXCLUDED.{column} END"
                )
            } else {
                format!("EXCLUDED.{column}")
            }
        };
        self.updated().map(value).collect()
    }

    fn same_key(&self) -> Vec<String> {
        let same = |column: &String| {
            let [old, new] = ["keys", "EXCLUDED"].map(|side| compared(&self.varying, side, column));
            let equal = format!("{old} = {new}");
            if self.nulls_equal && self.nullable.contains(column) {
                format!("({equal} OR (keys.{column} IS NULL AND EXCLUDED.{column} IS NULL))")
            } else {
                equal
            }
        };
        self.key.iter().map(same).collect()
    }
}
