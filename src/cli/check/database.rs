//! The database's side of a check: reachable, writable, migrated, and every table as its pipeline needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::CLIENT_NAME;
use super::mapping::Mappings;
use super::report::Findings;
use super::{horizon, partitions};
use crate::chain::chain;
use crate::config::{Config, Pipeline};
use crate::exposure::{self, Exposure};
use crate::migrate::{self, MigrateError, State};
use crate::postgres::connect::{self, ConnectError, Session};
use crate::postgres::direct_compress;
use crate::postgres::introspect::{self, IntrospectError, introspect_beside};
use crate::postgres::privileges::{self, Missing, grant};

pub(super) mod update;

/// Oldest server that jetcopy is meant for: the store's queries need its `date_bin`, and what is older gets
/// no fixes any more.
const OLDEST_VERSION: i32 = 14;

/// What the daemon does with its own tables.
const OWN_PRIVILEGES: [(&str, &str); 21] = [
    ("jetcopy.checkpoints", "SELECT"),
    ("jetcopy.checkpoints", "INSERT"),
    ("jetcopy.checkpoints", "UPDATE"),
    ("jetcopy.daemons", "SELECT"),
    ("jetcopy.daemons", "INSERT"),
    ("jetcopy.daemons", "UPDATE"),
    ("jetcopy.daemons", "DELETE"),
    ("jetcopy.dead_letters", "INSERT"),
    ("jetcopy.lanes", "SELECT"),
    ("jetcopy.lanes", "INSERT"),
    ("jetcopy.lanes", "UPDATE"),
    ("jetcopy.lanes", "DELETE"),
    ("jetcopy.losses", "SELECT"),
    ("jetcopy.losses", "INSERT"),
    ("jetcopy.losses", "UPDATE"),
    ("jetcopy.milestones", "SELECT"),
    ("jetcopy.milestones", "INSERT"),
    ("jetcopy.milestones", "DELETE"),
    ("jetcopy.tallies", "SELECT"),
    ("jetcopy.tallies", "INSERT"),
    ("jetcopy.tallies", "UPDATE"),
];

/// Place of what concerns the database as a whole.
const DATABASE: &str = "database";

/// Looks at the database and at every table that a pipeline names; a session where its schema is this
/// version's.
pub(super) async fn look(
    config: &Config,
    horizons: &BTreeMap<String, Duration>,
    mappings: &Mappings,
    report: &mut Findings,
) -> Option<Session> {
    let session = match connect::connect(&config.postgres, CLIENT_NAME).await {
        Ok(session) => session,
        Err(error) => {
            unreachable(&error, report);
            return None;
        }
    };
    let facts = match Facts::read(&session.client).await {
        Ok(facts) => facts,
        Err(error) => {
            report.failure(DATABASE, &error);
            return None;
        }
    };
    facts.judge(session.host(), report);
    if let Some(Exposure { text, remedy, .. }) = exposure::of_database(&session) {
        report.warn(DATABASE, text, remedy);
    }
    pooler(config, &facts, report).await;
    path::judge(&session.client, report).await;
    let migrated = migrations(config, report).await;
    if migrated {
        own_tables(&session.client, report).await;
        partitions::of_database(&session.client, config, report).await;
    }
    for pipeline in &config.pipelines {
        // Of a stream that was not found nothing is replayed.
        let horizon = horizons.get(&pipeline.name).copied().unwrap_or_default();
        let asked = (horizon, mappings);
        look_at_pipeline(&session.client, config, pipeline, asked, &facts, report).await;
    }
    if migrated {
        return Some(session);
    }
    session.close().await;
    None
}

fn unreachable(error: &ConnectError, report: &mut Findings) {
    match error {
        ConnectError::Config { .. } | ConnectError::Refused { .. } => report.failure(DATABASE, error),
        ConnectError::Tls { remedy, .. } | ConnectError::ReadOnly { remedy, .. } => {
            report.error(DATABASE, chain(error), remedy);
        }
        ConnectError::Superseded { .. } | ConnectError::NotWritable { .. } => {
            report.error(DATABASE, chain(error), "put the primary in postgres.url, or promote a standby");
        }
        ConnectError::Unreachable { source, .. } => {
            let refuses = |error: &tokio_postgres::Error| error.as_db_error().is_some();
            let remedy = if source.downcast_ref().is_some_and(refuses) {
                "the server answers but refuses: fix what it reports; if there is a pooler, see its log"
            } else {
                "start the server, or correct postgres.url"
            };
            report.error(DATABASE, chain(error), remedy);
        }
    }
}

/// What is asked of the server once.
struct Facts {
    version: String,
    version_number: i32,
    read_only: bool,
    encoding: String,
    timescaledb: Option<String>,
    citus: Option<String>,
    backend: i32,
}

impl Facts {
    async fn read(client: &Client) -> Result<Self, Error> {
        let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
                   current_setting('transaction_read_only')::bool, getdatabaseencoding()::text, \
                   (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), \
                   (SELECT extversion FROM pg_extension WHERE extname = 'citus'), pg_backend_pid()";
        let row = client.query_typed_one(sql, &[]).await?;
        Ok(Self {
            version: row.try_get(0)?,
            version_number: row.try_get(1)?,
            read_only: row.try_get(2)?,
            encoding: row.try_get(3)?,
            timescaledb: row.try_get(4)?,
            citus: row.try_get(5)?,
            backend: row.try_get(6)?,
        })
    }

    fn judge(&self, host: &str, report: &mut Findings) {
        let mut extensions = match &self.timescaledb {
            Some(version) => format!("TimescaleDB {version}"),
            None => "without TimescaleDB".into(),
        };
        if let Some(version) = &self.citus {
            extensions = extensions + ", Citus " + version;
        }
        report.ok(DATABASE, format!("PostgreSQL {} at {host}, {extensions}", self.version));
        // The number of version 12.3 is 120003.
        if self.version_number < OLDEST_VERSION * 10_000 {
            report.error(
                DATABASE,
                format!("PostgreSQL {} is too old", self.version),
                format!("use PostgreSQL {OLDEST_VERSION} or later"),
            );
        }
        if self.read_only {
            report.error(
                DATABASE,
                format!("{host} is read-only"),
                "put the primary in postgres.url and remove target_session_attrs from it, or set \
                 default_transaction_read_only to off",
            );
        }
        if !["UTF8", "SQL_ASCII"].contains(&self.encoding.as_str()) {
            report.error(
                DATABASE,
                format!("its encoding is {}, which cannot store all text", self.encoding),
                "use a database with ENCODING 'UTF8'",
            );
        }
    }
}

/// A second session on the same backend as the first, which is still open, gives a pooler away.
async fn pooler(config: &Config, facts: &Facts, report: &mut Findings) {
    let second = match connect::connect(&config.postgres, CLIENT_NAME).await {
        Ok(second) => second,
        Err(error) => {
            return report.error(
                DATABASE,
                format!("a second connection failed: {}", chain(&error)),
                "each pipeline needs a connection of its own: raise max_connections or the role's limit",
            );
        }
    };
    match Facts::read(&second.client).await {
        Ok(second) if second.backend == facts.backend => report.warn(
            DATABASE,
            "the connection goes through a pooler in transaction mode. That works, but creates temporary \
             tables for each merge, leaves the transaction of a lost connection open until the pooler \
             notices, and lets other daemons wait 4 s for one that was killed",
            "connect to the server directly, or use session mode",
        ),
        Ok(_) => {}
        Err(error) => report.failure(DATABASE, &error),
    }
    if let Err(error) = second.client.batch_execute("BEGIN").await {
        report.error(
            DATABASE,
            format!("it does not allow transactions: {}", chain(&error)),
            "set the pooler's pool_mode to transaction or session",
        );
    }
    second.close().await;
}

/// Whether all migrations are applied.
async fn migrations(config: &Config, report: &mut Findings) -> bool {
    let entries = match migrate::status(&config.postgres).await {
        Ok(entries) => entries,
        Err(MigrateError::Unread(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            report.error(
                "schema jetcopy",
                chain(&MigrateError::Unread(error)),
                "GRANT USAGE ON SCHEMA jetcopy and SELECT ON jetcopy.schema_history TO the role in \
                 postgres.url, as config/postgres/roles.sql does",
            );
            return false;
        }
        Err(error) => {
            report.failure("schema jetcopy", &error);
            return false;
        }
    };
    let mut pending = Vec::new();
    for entry in &entries {
        match entry.state {
            State::Applied(_) => {}
            State::Pending => pending.push(format!("V{} {}", entry.version, entry.name)),
            State::Changed | State::Unknown => {
                report.warn("schema jetcopy", entry.to_string(), "run the jetcopy version that created it");
            }
            State::Unreleased => {
                report.error(
                    "schema jetcopy",
                    entry.to_string(),
                    "keep that version, or migrate a fresh schema, as docs/operations.md describes",
                );
                return false;
            }
        }
    }
    if pending.is_empty() {
        report.ok("schema jetcopy", "all migrations are applied");
        return true;
    }
    report.error(
        "schema jetcopy",
        format!("migrations are pending: {}", pending.join(", ")),
        "run `jetcopy migrate`",
    );
    false
}

async fn own_tables(client: &Client, report: &mut Findings) {
    for (table, privilege) in OWN_PRIVILEGES {
        let sql = "SELECT coalesce(has_table_privilege(to_regclass($1)::oid, $2), false)";
        let allowed = client
            .query_typed_one(sql, &[(&table, Type::TEXT), (&privilege, Type::TEXT)])
            .await
            .and_then(|row| row.try_get::<_, bool>(0));
        match allowed {
            Ok(true) => {}
            Ok(false) => report.error(table, format!("no {privilege} privilege"), grant(privilege, table)),
            Err(error) => {
                report.error(
                    table,
                    chain(&error),
                    "GRANT USAGE ON SCHEMA jetcopy TO the role in postgres.url",
                );
            }
        }
    }
}

async fn look_at_pipeline(
    client: &Client,
    config: &Config,
    pipeline: &Pipeline,
    (horizon, mappings): (Duration, &Mappings),
    facts: &Facts,
    report: &mut Findings,
) {
    let mut found = Vec::new();
    let used = config.tables();
    for table in &pipeline.tables {
        match introspect_beside(client, &table.name, &used).await {
            Ok(introspected) => {
                if let Err(error) = introspected.fits(table) {
                    unusable(&place(pipeline, &table.name), &error, report);
                }
                found.push(introspected);
                if table.direct_compress
                    && let Err(error) = direct_compress::require(client, &table.name).await
                {
                    report.failure(place(pipeline, &table.name), &error);
                }
            }
            Err(error) => unusable(&place(pipeline, &table.name), &error, report),
        }
    }
    if found.len() < pipeline.tables.len() {
        return;
    }
    let Some(decoder) = mappings.judge(pipeline, &found, report) else { return };
    for (index, (table, found)) in pipeline.tables.iter().zip(&found).enumerate() {
        let place = place(pipeline, &table.name);
        arbiters::judge(client, &place, table, found, report).await;
        update::judge(&place, table, found, (&decoder, index), report);
        let rules = found.idle_rules(table).join(", ");
        if !rules.is_empty() {
            report.warn(
                &place,
                format!(
                    "its rules do not apply to rows that jetcopy writes, because COPY ignores rules: {rules}"
                ),
                "replace each with a trigger, or drop it",
            );
        }
        if found.qualified.starts_with("jetcopy.") {
            report.warn(
                &place,
                "it is in jetcopy's own schema: who drops that drops the table with its rows",
                format!("run `ALTER TABLE {} SET SCHEMA public`", found.qualified),
            );
        }
        match privileges::missing(client, table, found, decoder.columns(index)).await {
            Ok(missing) => missing.into_iter().for_each(|Missing { problem, remedy }| {
                report.error(&place, problem, remedy);
            }),
            Err(error) => report.failure(&place, &error),
        }
        describe(client, &place, found, facts, report).await;
        partitions::of_table(client, &place, found, report).await;
        if facts.timescaledb.is_some() {
            horizon::judge(client, &place, found, horizon, report).await;
        }
    }
}

fn place(pipeline: &Pipeline, table: &str) -> String {
    format!("pipeline {}, table {table}", pipeline.name)
}

/// Says what kind of table it is.
async fn describe(
    client: &Client,
    place: &str,
    found: &introspect::Table,
    facts: &Facts,
    report: &mut Findings,
) {
    let mut kind = "table";
    if facts.timescaledb.is_some() {
        let sql = "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables \
                   WHERE to_regclass(pg_catalog.format('%I.%I', hypertable_schema, hypertable_name))::oid = \
                     to_regclass($1)::oid)";
        let hypertable = client
            .query_typed_one(sql, &[(&found.qualified, Type::TEXT)])
            .await
            .and_then(|row| row.try_get::<_, bool>(0));
        match hypertable {
            Ok(true) => kind = "hypertable",
            Ok(false) => kind = "table, not a hypertable",
            Err(error) => report.failure(place, &error),
        }
    }
    let mut text = format!("{kind} with {} columns", found.columns.len());
    if facts.citus.is_some()
        && let Some(spread) = citus::spread(client, place, found, report).await
    {
        text = text + ", " + &spread;
    }
    if let Some(time) = &found.time_column {
        text = text + ", rows sorted by " + time;
    }
    for column in &found.unsupported {
        text = text + ", " + &column.name + " (" + &column.type_name + ") parsed by the server";
    }
    report.ok(place, text);
}

/// A table that rows cannot be written to.
fn unusable(place: &str, error: &IntrospectError, report: &mut Findings) {
    match error {
        IntrospectError::Missing { remedy, .. } => report.error(place, "it does not exist", remedy),
        IntrospectError::Unusable { problem, remedy, .. } => report.error(place, problem, remedy),
        IntrospectError::Query { .. } => report.failure(place, error),
    }
}

mod arbiters;
mod citus;
mod path;

#[cfg(test)]
mod tests;
