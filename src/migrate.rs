//! Brings the database to the schema that this version of jetcopy expects.
//!
//! Guarantees: either all pending migrations are applied or none is; of two migrators at a time the second
//! waits and finds nothing left to do; running it again changes nothing; a migration that was applied and
//! edited later is an error, not a surprise. It works through a transaction pooler: all happens in one
//! transaction.
//!
//! It creates neither database nor role, and a target table that is there already stays as it is.

use std::collections::BTreeMap;
use std::fmt;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::catalog::groups::{Group, Groups};
use crate::config;
use crate::postgres::connect::{self, ConnectError};
use crate::postgres::path;
use crate::store::BEGIN;
use crate::store::groups;
use crate::store::life;
use crate::store::place;

mod store;

/// The migration of this number and name, with the text of its file.
macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../migrations/V", $version, "__", $name, ".sql")),
        }
    };
}

/// Every migration, in the order of application. What was released is never edited, only followed by another.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "jetcopy"),
    migration!(2, "time_tables"),
    migration!(3, "store"),
    migration!(4, "rollups"),
    migration!(5, "camera_queries"),
    migration!(6, "measurement_queries"),
    migration!(7, "registry_tallies"),
    migration!(8, "registry_queries"),
    migration!(9, "monitoring"),
    migration!(10, "daemons"),
    migration!(11, "visible"),
    migration!(12, "ledger"),
    migration!(13, "shards"),
    migration!(14, "lanes"),
    migration!(15, "lane_seals"),
];

/// How the server knows the session: an operator who wonders what waits for the lock sees it in
/// `pg_stat_activity`.
const APPLICATION_NAME: &str = "jetcopy migrate";

/// Creates the history. Each step looks first: `IF NOT EXISTS` asks for the privilege to create what exists.
///
/// Texts come from anywhere in the world, and a dead letter must never be refused: an encoding that lacks
/// characters is refused here instead.
const CREATE_HISTORY: &str = "DO $$ BEGIN
    IF current_setting('server_encoding') NOT IN ('UTF8', 'SQL_ASCII') THEN
        RAISE EXCEPTION 'this database has encoding %, which cannot hold every text: '
                'create one with ENCODING ''UTF8''',
            current_setting('server_encoding');
    END IF;
    IF to_regnamespace('jetcopy') IS NULL THEN
        CREATE SCHEMA jetcopy;
    END IF;
    IF to_regclass('jetcopy.schema_history') IS NULL THEN
        CREATE TABLE jetcopy.schema_history (
            version integer PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        );
    END IF;
END $$";

/// Where monitoring looks for the store's tables: in the schemas of the path of whoever migrates.
const STORE_SCHEMAS: &str = "DO $$ BEGIN
    IF jetcopy.store_schemas() OPERATOR(pg_catalog.<>) pg_catalog.current_schemas(false) THEN
        EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION jetcopy.store_schemas() RETURNS name[]
            LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS %L',
            pg_catalog.format('SELECT %L::name[]', pg_catalog.current_schemas(false)));
    END IF;
END $$";

/// The checksums are the server's work, on both sides of the comparison.
const RECORD: &str = "INSERT INTO jetcopy.schema_history (version, name, checksum)
    VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8'::name)), 'hex'))";

/// What stands in the history, beside what this version would write there. A number that stands there with
/// another name is of a version that was never released: a released migration keeps its name.
const HISTORY: &str = "SELECT coalesce(h.version, m.version), coalesce(h.name, m.name),
        to_char(h.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
        m.version IS NULL,
        h.name <> m.name,
        h.checksum IS DISTINCT FROM encode(sha256(convert_to(m.sql, 'UTF8'::name)), 'hex')
    FROM jetcopy.schema_history h
    FULL JOIN unnest($1::int[], $2::text[], $3::text[]) AS m (version, name, sql) USING (version)
    ORDER BY 1";

#[derive(Debug, Clone, Copy)]
struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

/// One migration and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub version: i32,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: State,
}

/// How a migration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Applied at this time, in UTC.
    Applied(String),
    /// Not applied yet.
    Pending,
    /// Applied, but its text was another then.
    Changed,
    /// Applied by a later version of jetcopy; this one does not know it.
    Unknown,
    /// Applied by a version of jetcopy that was never released, whose migrations had other numbers.
    Unreleased,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, name, state } = self;
        match state {
            State::Applied(at) => write!(f, "V{version} {name}: applied {at} UTC"),
            State::Pending => write!(f, "V{version} {name}: pending"),
            State::Changed => write!(f, "V{version} {name}: applied, but with a different text"),
            State::Unknown => write!(f, "V{version} {name}: applied by a later version of jetcopy"),
            State::Unreleased => {
                let by = "a development version of jetcopy that was never released";
                write!(f, "V{version} {name}: applied by {by}")
            }
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that this run applied; empty where nothing was pending.
    pub applied: Vec<Entry>,
    /// The groups of the store's tables that are chosen.
    pub groups: Groups,
    /// Those of them that nobody named, and whose tables a database had that lacked schema `jetcopy`.
    pub found: Groups,
    /// Tables of the store that such a database had, of groups that were not whole.
    pub strays: Vec<String>,
    /// Schemas of such a database that have the tables of a group, and are not in the search path.
    pub schemas: Vec<String>,
    /// The schema of the store's tables, where one was ever named.
    pub schema: Option<String>,
    /// Tables and roll-ups of the store that were gone, and that this run created again.
    pub again: Vec<String>,
    /// Tables under names of the store that are another system's, and which of their columns differ.
    pub foreign: BTreeMap<String, Vec<String>>,
    /// Version of the TimescaleDB extension in the database; without it the store tables have native
    /// partitions.
    pub timescaledb: Option<String>,
    /// A line for each table and roll-up of the store that this run created: how long its rows live.
    pub lives: Vec<String>,
}

/// Why a run changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The history and this program do not belong together.
    #[error("{0}; use the version of jetcopy that matches the database (nothing was changed)")]
    Diverged(Entry),
    /// The database was made by a version that was never released.
    #[error(
        "{0}, and cannot be upgraded: keep that version, or save jetcopy's rows with pg_dump and migrate a \
         fresh schema, as docs/operations.md describes; nothing was changed"
    )]
    Unreleased(Entry),
    /// Somebody has put functions or operators before the server's own.
    #[error(
        "{} could be called instead of the server's own, with your privileges: drop it, and let nobody \
         create objects in a schema of the search path (REVOKE CREATE ON SCHEMA public FROM PUBLIC); nothing \
         was changed",
        .0.join(", ")
    )]
    Shadowed(Vec<String>),
    /// The server refused a statement.
    #[error("migration V{version} {name} failed and nothing was changed")]
    Migration {
        /// Number of the migration.
        version: i32,
        /// Its name.
        name: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// What `[store]` names of life cycles does not fit together, or cannot be kept.
    #[error(transparent)]
    Life(#[from] life::Error),
    /// The store cannot lie where it is asked for.
    #[error(transparent)]
    Place(#[from] place::Error),
    /// The history could not be read.
    #[error("cannot read the migration history (jetcopy.schema_history)")]
    Unread(#[source] tokio_postgres::Error),
    /// The history could not be read or written.
    #[error("cannot read or write the migration history (jetcopy.schema_history); nothing was changed")]
    History(#[source] tokio_postgres::Error),
}

/// Applies what is pending, with every group of the store's tables; the store has its defaults.
pub async fn migrate(config: &config::Postgres) -> Result<Migrated, MigrateError> {
    let named = config::Store { groups: Some(Group::ALL.into()), ..config::Store::default() };
    migrate_with(config, &named).await
}

/// Applies what is pending; the store has what is named of it, and the defaults beside that. A new database
/// has no tables of the store but those of the groups that are named.
pub async fn migrate_with(
    config: &config::Postgres,
    named: &config::Store,
) -> Result<Migrated, MigrateError> {
    run(config, named, MIGRATIONS).await
}

/// As [`migrate_with`], with these migrations.
async fn run(
    config: &config::Postgres,
    named: &config::Store,
    migrations: &[Migration],
) -> Result<Migrated, MigrateError> {
    let session = connect::connect(config, APPLICATION_NAME).await?;
    // Such as that a table stays as it is, and why.
    session.show_warnings();
    let report = apply(&session.client, named, migrations).await;
    // Closing the connection rolls back what was not committed.
    session.close().await;
    report
}

/// Lists every migration, known or found in the database, and changes nothing. A standby will do.
pub async fn status(config: &config::Postgres) -> Result<Vec<Entry>, MigrateError> {
    let session = connect::connect_any(config, APPLICATION_NAME).await?;
    let entries = async {
        session.client.batch_execute("BEGIN READ ONLY").await?;
        let exists = "SELECT to_regclass('jetcopy.schema_history') IS NOT NULL";
        let exists: bool = session.client.query_typed_one(exists, &[]).await?.try_get(0)?;
        let entries = if exists { history(&session.client, MIGRATIONS).await? } else { all_pending() };
        session.client.batch_execute("COMMIT").await?;
        Ok(entries)
    }
    .await
    .map_err(MigrateError::Unread);
    session.close().await;
    entries
}

async fn apply(
    client: &Client,
    named: &config::Store,
    migrations: &[Migration],
) -> Result<Migrated, MigrateError> {
    client.batch_execute(BEGIN).await.map_err(MigrateError::History)?;
    store::pin_path(client).await.map_err(MigrateError::History)?;
    alone(client).await?;
    client.batch_execute(CREATE_HISTORY).await.map_err(MigrateError::History)?;
    let mut pending = Vec::new();
    for entry in history(client, migrations).await.map_err(MigrateError::History)? {
        match entry.state {
            State::Applied(_) => {}
            State::Pending => pending.push(entry.version),
            State::Changed | State::Unknown => return Err(MigrateError::Diverged(entry)),
            State::Unreleased => return Err(MigrateError::Unreleased(entry)),
        }
    }
    let is_new = pending.contains(&1);
    let mut before = groups::before(client, is_new).await.map_err(MigrateError::History)?;
    if named.groups.as_ref().is_some_and(|named| !named.is_subset(&before)) {
        client.batch_execute(store::EXTENSION).await.map_err(MigrateError::History)?;
    }
    let schema = place::settle(client, named.schema.as_deref(), &before).await?;
    let mut left = store::Left::default();
    if is_new && named.groups.is_none() {
        left = store::left(client).await.map_err(MigrateError::History)?;
        before.clone_from(&left.groups);
    }
    let groups = named.groups.clone().unwrap_or(before);
    let before = life::found(client).await.map_err(MigrateError::History)?;
    for migration in migrations.iter().filter(|migration| pending.contains(&migration.version)) {
        let &Migration { version, name, sql } = migration;
        let text = store::without(sql, &groups);
        client.batch_execute(&text).await.map_err(|source| MigrateError::Migration {
            version,
            name,
            source,
        })?;
        client
            .execute_typed(RECORD, &[(&version, Type::INT4), (&name, Type::TEXT), (&sql, Type::TEXT)])
            .await
            .map_err(MigrateError::History)?;
        tracing::info!(version, name, "migration applied");
    }
    client.batch_execute(STORE_SCHEMAS).await.map_err(MigrateError::History)?;
    groups::keep(client, &groups).await.map_err(MigrateError::History)?;
    groups::keep_real_time(client, named.real_time).await.map_err(MigrateError::History)?;
    place::keep(client, schema.as_deref()).await.map_err(MigrateError::History)?;
    let (again, foreign) = tables(client, &groups, pending.is_empty()).await?;
    let created =
        life::found(client).await.map_err(MigrateError::History)?.difference(&before).copied().collect();
    let lives = life::begin(client, &named.named, &created).await?;
    let mut applied = history(client, migrations).await.map_err(MigrateError::History)?;
    applied.retain(|entry| pending.contains(&entry.version));
    let timescaledb = client
        .query_typed_opt("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", &[])
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(MigrateError::History)?;
    alone(client).await?;
    client.batch_execute("COMMIT").await.map_err(MigrateError::History)?;
    let store::Left { groups: found, strays, schemas } = left;
    Ok(Migrated { applied, groups, found, strays, schemas, schema, again, foreign, timescaledb, lives })
}

/// Refuses a path where others have put something before the server's own. The migrations make tables where
/// the path says, so they run with it, as far as tables go there or lie there.
async fn alone(client: &Client) -> Result<(), MigrateError> {
    match path::shadows(client).await.map_err(MigrateError::History)? {
        found if found.is_empty() => Ok(()),
        found => Err(MigrateError::Shadowed(found)),
    }
}

/// Creates the store's tables that are gone, where no migration made any; they, and the tables that are
/// another system's.
async fn tables(
    client: &Client,
    groups: &Groups,
    none_pending: bool,
) -> Result<(Vec<String>, store::Foreign), MigrateError> {
    let missing = async || store::missing(client, groups).await.map_err(MigrateError::History);
    let gone = if none_pending { missing().await? } else { Vec::new() };
    store::create(client, groups, &gone).await?;
    let still = if gone.is_empty() { Vec::new() } else { missing().await? };
    let again = gone.into_iter().filter(|name| !still.contains(name)).collect();
    let mut foreign = store::recognize(client).await.map_err(MigrateError::History)?;
    // Tables of one's own are nobody's business where their group was not chosen.
    foreign.retain(|name, _| groups.contains(&Group::of(name)));
    Ok((again, foreign))
}

async fn history(client: &Client, migrations: &[Migration]) -> Result<Vec<Entry>, tokio_postgres::Error> {
    let versions: Vec<i32> = migrations.iter().map(|migration| migration.version).collect();
    let names: Vec<&str> = migrations.iter().map(|migration| migration.name).collect();
    let texts: Vec<&str> = migrations.iter().map(|migration| migration.sql).collect();
    let rows = client
        .query_typed(
            HISTORY,
            &[(&versions, Type::INT4_ARRAY), (&names, Type::TEXT_ARRAY), (&texts, Type::TEXT_ARRAY)],
        )
        .await?;
    let mut unreleased = false;
    for row in &rows {
        unreleased |= row.try_get::<_, Option<bool>>(4)?.unwrap_or_default();
    }
    rows.iter()
        .map(|row| {
            let applied: Option<String> = row.try_get(2)?;
            let unknown: bool = row.try_get(3)?;
            let changed: bool = row.try_get(5)?;
            let state = match applied {
                None => State::Pending,
                Some(_) if unreleased => State::Unreleased,
                Some(_) if unknown => State::Unknown,
                Some(_) if changed => State::Changed,
                Some(at) => State::Applied(at),
            };
            Ok(Entry { version: row.try_get(0)?, name: row.try_get(1)?, state })
        })
        .collect()
}

fn all_pending() -> Vec<Entry> {
    MIGRATIONS
        .iter()
        .map(|migration| Entry {
            version: migration.version,
            name: migration.name.to_owned(),
            state: State::Pending,
        })
        .collect()
}

#[cfg(test)]
mod tests;
