//! Whether rows can go to what a name stands for, and in the way that is configured.
//!
//! Guarantees: what is refused here is refused before a row is written, with the reason and what would fix
//! it.

use tokio_postgres::types::Type as WireType;
use tokio_postgres::{Client, Row};

use super::{IntrospectError, Table};
use crate::config::{self, Foreign, OnConflict, Unlogged};

/// The foreign table that rows for $1 may go to. There are few foreign tables as a rule, and many partitions.
const FOREIGN: &str = "SELECT quote_ident(n.nspname::text) || '.' || quote_ident(c.relname::text)
    FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE f.ftrelid = $1 OR $1 IN (SELECT pg_partition_ancestors(f.ftrelid::regclass)::oid)
    ORDER BY 1 LIMIT 1";

/// The unlogged table that rows for $1 may go to. A partitioned table's own persistence says nothing.
const UNLOGGED: &str = "SELECT c.oid::regclass::text FROM pg_class c
    WHERE c.oid IN (SELECT $1 UNION ALL SELECT relid::oid FROM pg_partition_tree($1::regclass))
        AND c.relkind = 'r' AND c.relpersistence = 'u'
    ORDER BY 1 LIMIT 1";

/// The rules of $1 on UPDATE and INSERT: which of the two, and whether it is switched off.
const RULES: &str = "SELECT quote_ident(rulename::text), ev_type = '3', ev_enabled = 'D' FROM pg_rewrite
    WHERE ev_class = $1 AND ev_type IN ('2', '3') ORDER BY 1";

/// The columns of $1 that the server generates.
const GENERATED: &str = "SELECT attname::text FROM pg_attribute
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' ORDER BY attnum";

/// Sessions to come know a restore by the database's setting; one that is under way by its own.
const RESTORING: &str = "SELECT coalesce(lower(current_setting('timescaledb.restoring', true)) IN ('on',
    'true', 'yes', '1'), false)
    OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
               WHERE d.datname = current_database() AND 'timescaledb.restoring=on' ILIKE ANY (s.setconfig))";

/// Why a relation of this kind is not a table, with what would fix it.
pub(super) fn takes_no_rows(kind: &str, insertable: bool) -> Option<(&'static str, &'static str)> {
    match kind {
        "r" | "p" => None,
        "f" if insertable => None,
        "f" => Some((
            "it is a foreign table that accepts no rows",
            "use a table whose server and foreign-data wrapper accept rows",
        )),
        "v" => Some((
            "it is a view; its rules and triggers decide what becomes of a row",
            "use the table behind it",
        )),
        "m" => Some(("it is a materialized view, which only REFRESH fills", "name a table")),
        "S" => Some(("it is a sequence", "name a table")),
        "i" | "I" => Some(("it is an index", "use its table")),
        "c" => Some(("it is a composite type", "name a table")),
        _ => Some(("it is not a table", "name a table")),
    }
}

/// An error while TimescaleDB restores a dump: rows would go to the hypertable itself, where no query sees
/// them.
pub(super) async fn not_restoring(client: &Client, name: &str) -> Result<(), IntrospectError> {
    let restoring = client.query_typed_one(RESTORING, &[]).await.and_then(|row| row.try_get(0));
    match restoring {
        Ok(false) => Ok(()),
        Ok(true) => Err(IntrospectError::Unusable {
            table: name.to_owned(),
            problem: "timescaledb.restoring is on: rows would bypass the chunks, and no query would see \
                      them"
                .to_owned(),
            remedy: "finish the restore with SELECT timescaledb_post_restore(), \
                     or remove the setting from the role"
                .to_owned(),
        }),
        Err(source) => Err(IntrospectError::Query { name: name.to_owned(), source }),
    }
}

/// What [`Table::foreign`] is.
pub(super) async fn foreign_part(client: &Client, oid: u32) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_typed_opt(FOREIGN, &[(&oid, WireType::OID)]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// What [`Table::unlogged`] is.
pub(super) async fn unlogged_part(
    client: &Client,
    oid: u32,
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_typed_opt(UNLOGGED, &[(&oid, WireType::OID)]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// A rule of a table (`CREATE RULE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, quoted for SQL.
    pub name: String,
    /// Whether it is on INSERT, not on UPDATE.
    pub on_insert: bool,
    /// Whether it is switched off.
    pub disabled: bool,
}

/// What [`Table::rules`] are.
pub(super) async fn rules(client: &Client, oid: u32) -> Result<Vec<Rule>, tokio_postgres::Error> {
    let rows = client.query_typed(RULES, &[(&oid, WireType::OID)]).await?;
    let rule =
        |row: &Row| Ok(Rule { name: row.try_get(0)?, on_insert: row.try_get(1)?, disabled: row.try_get(2)? });
    rows.iter().map(rule).collect()
}

/// What [`Table::generated`] are.
pub(super) async fn generated(client: &Client, oid: u32) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.query_typed(GENERATED, &[(&oid, WireType::OID)]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

impl Table {
    /// Rules that `COPY` does not go by, although somebody may count on them.
    #[must_use]
    pub fn idle_rules(&self, settings: &config::Table) -> Vec<&str> {
        let idle =
            |rule: &&Rule| rule.on_insert && !rule.disabled && settings.on_conflict == OnConflict::Error;
        self.rules.iter().filter(idle).map(|rule| rule.name.as_str()).collect()
    }

    /// The rule that keeps rows from being written by `INSERT … ON CONFLICT`, with the reason. One on INSERT
    /// may leave rows out, or put others in their place, and nobody notices; one on UPDATE the server
    /// refuses, also where it is switched off.
    fn rule_in_the_way(&self) -> Option<(&Rule, &'static str)> {
        let found = self.rules.iter().find(|rule| !rule.on_insert || !rule.disabled)?;
        let reason = if found.on_insert {
            "may silently drop or replace rows"
        } else {
            "makes the server refuse INSERT … ON CONFLICT, even while it is disabled"
        };
        Some((found, reason))
    }

    /// An error where rows cannot be written as `settings` say.
    pub fn fits(&self, settings: &config::Table) -> Result<(), IntrospectError> {
        let unusable = |problem: String, remedy: String| {
            Err(IntrospectError::Unusable { table: settings.name.clone(), problem, remedy })
        };
        if let (Some(foreign), Foreign::Refuse) = (&self.foreign, settings.foreign) {
            let what = if *foreign == self.qualified {
                "it is a foreign table".to_owned()
            } else {
                format!("its partition {foreign} is a foreign table")
            };
            return unusable(
                format!(
                    "{what}, whose server commits before this one: rows are duplicated if the transaction \
                     fails after that"
                ),
                "use a table of this server, or, if at-least-once is enough, set foreign = \"at-least-once\""
                    .to_owned(),
            );
        }
        if let (Some(unlogged), Unlogged::Refuse) = (&self.unlogged, settings.unlogged) {
            return unusable(
                format!(
                    "{unlogged} is unlogged: a crash of the server empties it, and its messages are not read \
                     again"
                ),
                format!(
                    "ALTER TABLE {unlogged} SET LOGGED, or, if at-most-once is enough, set unlogged = \
                     \"at-most-once\""
                ),
            );
        }
        if let (Some(role), OnConflict::Error | OnConflict::Ignore) =
            (&self.row_security, settings.on_conflict)
        {
            return unusable(
                format!("row-level security applies to role {role}, so the server refuses COPY"),
                format!(
                    "ALTER ROLE {role} BYPASSRLS, or let the table's owner write without FORCE ROW LEVEL \
                     SECURITY"
                ),
            );
        }
        if let (Some((rule, reason)), OnConflict::Ignore | OnConflict::Update) =
            (self.rule_in_the_way(), settings.on_conflict)
        {
            let (event, table, name) =
                (if rule.on_insert { "INSERT" } else { "UPDATE" }, &self.qualified, &rule.name);
            let disable = if rule.on_insert {
                format!(", or ALTER TABLE {table} DISABLE RULE {name}")
            } else {
                String::new()
            };
            return unusable(
                format!("with on_conflict rows are written by INSERT, and rule {name} on {event} {reason}"),
                format!("DROP RULE {name} ON {table}{disable}; what it does belongs in a trigger"),
            );
        }
        if settings.on_conflict != OnConflict::Error
            && !settings.key.is_empty()
            && !self.has_key(&settings.key)
        {
            let columns = settings.key.join(", ");
            return unusable(
                format!("no unique index on ({columns}) that on_conflict can use"),
                format!("CREATE UNIQUE INDEX ON {} ({columns}), or correct key", self.qualified),
            );
        }
        Ok(())
    }

    /// Whether there is a unique key of exactly these columns, in whatever order.
    fn has_key(&self, columns: &[String]) -> bool {
        self.unique_keys.iter().any(|unique| {
            unique.len() == columns.len() && unique.iter().all(|column| columns.contains(column))
        })
    }
}
