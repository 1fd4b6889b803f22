//! Maintenance of the store. Without TimescaleDB, what its jobs would do: partitions ahead, roll-ups,
//! retention. With and without it: staged files of the registry and payloads of dead letters expire.
//! Guarantees: only one daemon or command runs it at a time; a step that fails is reported and stops no
//! other; an interrupted run is continued by the next. Hypertables are left to TimescaleDB, and the report
//! says so.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::partitions::{self, Partitioned};
use super::{groups, life, place, rollup};
use crate::catalog::groups::Group;
use crate::catalog::{ROLLUPS, TABLES, lives, written};
use crate::chain::chain;
use crate::config::{self, Config};
use crate::metrics::MaintainMetrics;
use crate::postgres::connect::{self, ConnectError, Session};

/// The registry's table of files, in the report.
const FILES: &str = "files";

/// How the server knows the sessions.
const APPLICATION_NAME: &str = "jetcopy maintain";

/// Takes the lock for the length of a run, in a transaction that does nothing else: it holds no snapshot, so
/// that nothing waits for it. Its number is `jetcopm\0` in ASCII, beside that of `jetcopy migrate`.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(x'6a6574636f706d00'::bigint)";

/// The steps need what the migration of the store makes; one that needs a later one fails by itself.
const MIGRATED: &str = "SELECT to_regclass('jetcopy.store_life') IS NOT NULL";

/// The roll-ups that jetcopy keeps.
const KEPT: &str = "SELECT name FROM jetcopy.rollups";

/// Which tables of the catalog there are.
const FOUND: &str = "SELECT name, to_regclass(name)::oid FROM pg_catalog.unnest($1::text[]) AS name
    WHERE to_regclass(name) IS NOT NULL";

const HAS_HYPERTABLES: &str = "SELECT to_regclass('timescaledb_information.hypertables') IS NOT NULL";

const HYPERTABLES: &str =
    "SELECT to_regclass(pg_catalog.format('%I.%I', hypertable_schema, hypertable_name))::oid
    FROM timescaledb_information.hypertables";

/// Whether this role may mark files of the registry; no row where there is no such table. Somebody else's
/// table of the name has other columns.
const MAY_EXPIRE: &str =
    "SELECT has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE')
    FROM pg_class c WHERE c.oid = to_regclass('files')::oid AND 6 = (
        SELECT count(*) FROM pg_attribute a JOIN (VALUES ('project_id', 'text'), ('path', 'text'),
            ('staged', 'boolean'), ('status', 'text'), ('expires_at', 'timestamptz'),
            ('updated_at', 'timestamptz')
        ) AS ours (name, type) ON a.attname::text = ours.name AND a.atttypid = ours.type::regtype::oid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)";

const EXPIRE: &str = "SELECT jetcopy.expire_staged_files()";

/// Puts the registry's running counts together that sessions left behind.
const FOLD: &str = "SELECT jetcopy.fold_registry()";

/// A thousand messages at a time, by the retention that the database keeps.
const EXPIRE_LETTERS: &str = "SELECT jetcopy.expire_dead_letters()";

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Maintained {
    /// Whether it ran, and if not, why not.
    pub outcome: Outcome,
    /// What it did or found, step by step.
    pub lines: Vec<Line>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step is done.
    Done,
    /// Some step failed.
    Failed,
    /// Another run is under way, and does it.
    Busy,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// The table or roll-up.
    pub name: String,
    /// What kind of line it is.
    pub kind: Kind,
    /// What was done, or is to be known.
    pub text: String,
}

/// Kinds of [`Line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing had to be done.
    Unchanged,
    /// Something was done.
    Changed,
    /// The step failed.
    Failed,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema is of an earlier version.
    #[error("the database is from an earlier version: run `jetcopy migrate`")]
    NotMigrated,
    /// The server refused a question.
    #[error("cannot inspect the store")]
    Database(#[from] tokio_postgres::Error),
}

impl Maintained {
    fn add(&mut self, name: &str, kind: Kind, text: impl Into<String>) {
        if kind == Kind::Failed {
            self.outcome = Outcome::Failed;
        }
        self.lines.push(Line { name: name.to_owned(), kind, text: text.into() });
    }
}

/// Does all there is to do, once, by what the database keeps; where `store` names something else, that is
/// told. With `all`, roll-ups are refreshed that are not due yet.
pub async fn maintain(
    postgres: &config::Postgres,
    store: &config::Store,
    all: bool,
) -> Result<Maintained, Error> {
    let guard = connect::connect(postgres, APPLICATION_NAME).await?;
    let worker = connect::connect(postgres, APPLICATION_NAME).await?;
    let report = async {
        let migrated: bool = guard.client.query_typed_one(MIGRATED, &[]).await?.try_get(0)?;
        if !migrated {
            return Err(Error::NotMigrated);
        }
        let mut report = Maintained { outcome: Outcome::Done, lines: Vec::new() };
        guard.client.batch_execute("BEGIN").await?;
        let alone: bool = guard.client.query_typed_one(LOCK, &[]).await?.try_get(0)?;
        if alone {
            steps(&worker, store, all, &mut report).await?;
        } else {
            report.outcome = Outcome::Busy;
        }
        Ok(report)
    }
    .await;
    worker.close().await;
    // The lock ends with its transaction.
    guard.close().await;
    report
}

async fn steps(
    session: &Session,
    store: &config::Store,
    all: bool,
    report: &mut Maintained,
) -> Result<(), Error> {
    let client = &session.client;
    let lives = life::kept(client).await?;
    for ((relation, _), text) in life::differences(&store.named, &lives) {
        report.add(relation, Kind::Unchanged, text + ": run `jetcopy migrate` to change it");
    }
    let ours = partitions::tables(client).await?;
    for table in &ours {
        match partitions::add_ahead(client, table).await {
            Ok(0) => {}
            Ok(added) => report.add(&table.name, Kind::Changed, format!("{added} partitions added")),
            Err(error) => failed(client, report, &table.name, "partitions not added", &error).await,
        }
    }
    // Asked first, since a refresh needs rights that nobody needs where TimescaleDB keeps them all.
    let rows = client.query_typed(KEPT, &[]).await?;
    let kept: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let real_time = groups::real_time(client).await?.unwrap_or(false);
    for rollup in ROLLUPS.iter().filter(|rollup| kept.iter().any(|kept| kept == rollup.name)) {
        let life = lives.rollup(rollup);
        match rollup::refresh(client, rollup, &life, rollup::When { all, real_time }).await {
            Ok(None) => {}
            Ok(Some(rollup::Refreshed { corrected, rows, expired })) => {
                let mut text = format!("refreshed: {rows} rows written");
                if corrected > 0 {
                    text = text + ", " + &corrected.to_string() + " spans corrected";
                }
                if expired > 0 {
                    text = text + ", " + &expired.to_string() + " rows dropped by age";
                }
                let kind = if rows + expired > 0 { Kind::Changed } else { Kind::Unchanged };
                report.add(rollup.name, kind, text);
            }
            Err(error) => failed(client, report, rollup.name, "not refreshed", &error).await,
        }
    }
    let hypertables = hypertables(client).await?;
    for row in found(client).await? {
        let (name, oid): (String, u32) = (row.try_get(0)?, row.try_get(1)?);
        let Some(table) = TABLES.iter().find(|table| table.name == name) else { continue };
        if let Some(ours) = ours.iter().find(|ours| ours.oid == oid) {
            retention(session, ours, lives.table(table).retention.age(), report).await;
        } else if hypertables.contains(&oid) {
            report.add(&name, Kind::Unchanged, "a hypertable: TimescaleDB's own jobs maintain it");
        } else {
            report.add(&name, Kind::Unchanged, "not partitioned by jetcopy: its rows stay");
        }
    }
    if groups::before(client, false).await?.contains(&Group::Registry) {
        registry(client, report).await;
    }
    match expire_letters(client).await {
        Ok(0) => {}
        Ok(letters) => {
            report.add(
                lives::DEAD_LETTERS,
                Kind::Changed,
                format!("{letters} letters expired: their payloads were removed"),
            );
        }
        Err(error) => failed(client, report, lives::DEAD_LETTERS, "letters not expired", &error).await,
    }
    Ok(())
}

/// Has the registry's staged files expire, and its running counts in few rows.
async fn registry(client: &Client, report: &mut Maintained) {
    match expire(client).await {
        Ok(None | Some(Expired::Files(0))) => {}
        Ok(Some(Expired::NotAllowed)) => {
            let text = "staged files do not expire: this role may not change them; run `jetcopy maintain` as \
                        a role that may";
            report.add(FILES, Kind::Unchanged, text);
        }
        Ok(Some(Expired::Files(files))) => {
            report.add(FILES, Kind::Changed, format!("{files} staged files marked as expired"));
        }
        Err(error) => failed(client, report, FILES, "staged files not marked as expired", &error).await,
    }
    let fold = format!("BEGIN; SET LOCAL lock_timeout = '{}'; {FOLD}; COMMIT", partitions::LOCK_TIMEOUT);
    if let Err(error) = client.batch_execute(&fold).await {
        failed(client, report, FILES, "running counts not folded", &error).await;
    }
}

/// Takes their payloads off the dead letters that are old enough; how many.
async fn expire_letters(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let mut letters = 0;
    loop {
        match client.query_typed_one(EXPIRE_LETTERS, &[]).await?.try_get(0)? {
            0 => return Ok(letters),
            expired => letters += expired,
        }
    }
}

/// Which tables of the catalog there are, with their object identifiers.
async fn found(client: &Client) -> Result<Vec<Row>, tokio_postgres::Error> {
    let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    client.batch_execute("BEGIN READ ONLY").await?;
    client.batch_execute(place::ENTER).await?;
    let rows = client.query_typed(FOUND, &[(&names, Type::TEXT_ARRAY)]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(rows)
}

/// What became of the registry's staged files.
enum Expired {
    /// So many were marked.
    Files(i64),
    /// The role lacks a privilege, as a daemon does that carries no registry.
    NotAllowed,
}

/// Marks staged files whose time has passed; `None` where there is no registry.
async fn expire(client: &Client) -> Result<Option<Expired>, tokio_postgres::Error> {
    client.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '{}'", partitions::LOCK_TIMEOUT)).await?;
    client.batch_execute(place::ENTER).await?;
    let may = client.query_typed_opt(MAY_EXPIRE, &[]).await?.map(|row| row.try_get(0)).transpose()?;
    let expired = match may {
        None => None,
        Some(false) => Some(Expired::NotAllowed),
        Some(true) => Some(Expired::Files(client.query_typed_one(EXPIRE, &[]).await?.try_get(0)?)),
    };
    client.batch_execute("COMMIT").await?;
    Ok(expired)
}

/// Object identifiers of all hypertables.
pub(super) async fn hypertables(client: &Client) -> Result<Vec<u32>, tokio_postgres::Error> {
    let offered: bool = client.query_typed_one(HAS_HYPERTABLES, &[]).await?.try_get(0)?;
    if !offered {
        return Ok(Vec::new());
    }
    client.query_typed(HYPERTABLES, &[]).await?.iter().map(|row| row.try_get(0)).collect()
}

async fn retention(session: &Session, table: &Partitioned, age: Option<Duration>, report: &mut Maintained) {
    let Some(age) = age else { return };
    match partitions::drop_expired(session, table, age, partitions::DETACH_PATIENCE).await {
        Ok(dropped) if dropped.is_empty() => {}
        Ok(dropped) => {
            let text = format!("{} partitions dropped, older than {}", dropped.len(), written(age));
            report.add(&table.name, Kind::Changed, text);
        }
        Err(error) => failed(&session.client, report, &table.name, "partitions not dropped", &error).await,
    }
}

/// Notes that a step failed, and leaves the transaction that it may have been in.
async fn failed(
    client: &Client,
    report: &mut Maintained,
    name: &str,
    what: &str,
    error: &(impl std::error::Error + Send + Sync + 'static),
) {
    report.add(name, Kind::Failed, format!("{what}: {}", chain(error)));
    // Where the connection is gone, the next step tells.
    let _ = client.batch_execute("ROLLBACK").await;
}

/// Maintains every `store.maintain_interval`, for as long as it is let. What fails is logged and counted, and
/// tried again; what is under way when it is dropped, the server rolls back.
pub async fn run(settings: watch::Receiver<Arc<Config>>, metrics: MaintainMetrics) -> Infallible {
    let mut last_error = String::new();
    loop {
        let now = Arc::clone(&settings.borrow());
        tokio::time::sleep(now.store.maintain_interval).await;
        let now = Arc::clone(&settings.borrow());
        let started = Instant::now();
        let outcome = maintain(&now.postgres, &now.store, false).await;
        let error = tell(&metrics, outcome, started.elapsed());
        // A database that is away says the same each minute.
        if error != last_error && !error.is_empty() {
            tracing::warn!(error, "cannot maintain the store; pipelines continue");
        }
        last_error = error;
    }
}

/// Counts and logs a run; what went wrong.
fn tell(metrics: &MaintainMetrics, outcome: Result<Maintained, Error>, took: Duration) -> String {
    match outcome {
        Ok(Maintained { outcome: Outcome::Busy, .. }) => {
            metrics.busy.inc();
            String::new()
        }
        Ok(report) => {
            metrics.ran(report.outcome == Outcome::Done, took);
            let mut error = String::new();
            for Line { name, kind, text } in &report.lines {
                match kind {
                    Kind::Changed if ROLLUPS.iter().any(|rollup| rollup.name == name) => {
                        tracing::debug!(name, "{text}");
                    }
                    Kind::Changed => tracing::info!(name, "{text}"),
                    Kind::Failed => error = error + name + ": " + text + "; ",
                    Kind::Unchanged => {}
                }
            }
            error
        }
        Err(error) => {
            metrics.ran(false, took);
            chain(&error)
        }
    }
}

#[cfg(test)]
mod tests;
