//! What `jetcopy store` shows: sizes, rows, compression, chunks or partitions, and jobs, with TimescaleDB and
//! without.
//! Guarantees: it changes nothing, takes no lock that others wait for, and counts no rows: their number is
//! the server's estimate, and is labelled so. A standby is enough.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::place;
use crate::catalog::{ROLLUPS, TABLES};
use crate::config;
use crate::postgres::connect::{self, ConnectError};

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy store";

/// The job that fills a continuous aggregate.
const REFRESH: &str = "policy_refresh_continuous_aggregate";

const VERSION: &str = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";

const HAS_ROLLUPS: &str = "SELECT to_regclass('jetcopy.rollups') IS NOT NULL";

/// Size with indexes and TOAST, and estimated rows, of a relation and all that inherits from it.
const PLAIN: &str = "WITH RECURSIVE parts (oid) AS (
        SELECT to_regclass($1)::oid UNION ALL SELECT inhrelid FROM pg_inherits JOIN parts
            ON inhparent = parts.oid
    )
    SELECT sum(pg_total_relation_size(c.oid::regclass))::int8,
        (sum(greatest(c.reltuples, 0)) FILTER (WHERE c.relkind <> 'p'))::int8,
        bool_or(c.reltuples < 0::float4 AND c.relkind = 'r' AND pg_relation_size(c.oid::regclass) > 0),
        count(*) - 1, (SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)::oid)
    FROM parts JOIN pg_class c ON c.oid = parts.oid";

/// The hypertable of a name: itself, or what a continuous aggregate is stored in.
const HYPERTABLE: &str = "SELECT h.hypertable_schema::text, h.hypertable_name::text, h.aggregate FROM (
        SELECT hypertable_schema, hypertable_name, false AS aggregate,
            to_regclass(pg_catalog.format('%I.%I', hypertable_schema, hypertable_name)) AS relation
        FROM timescaledb_information.hypertables
    UNION ALL
        SELECT materialization_hypertable_schema, materialization_hypertable_name, true,
            to_regclass(pg_catalog.format('%I.%I', view_schema, view_name))
        FROM timescaledb_information.continuous_aggregates
    ) AS h WHERE h.relation::oid = to_regclass($1)::oid LIMIT 1";

/// What the server says where TimescaleDB up to 2.28.3 ends a job on PostgreSQL 15.20: the job's work is
/// committed by then.
const PORTAL: &str = "cannot drop portal \"\" while it is being set up";

/// How such a job ended.
const DONE: &str = "Done";

/// For people.
const DONE_MEANS: &str = "\nDone: the job's work is committed, but TimescaleDB counts it as failed, because \
                          this PostgreSQL refuses\nto drop a portal \"while it is being set up\" \
                          (docs/store-record.md). It runs on time.\n";

/// Jobs that keep the store: what they do, on what, how often, and how they ended last.
const JOBS: &str = "SELECT j.proc_name::text,
        coalesce(c.view_name, j.hypertable_name)::text, j.schedule_interval::text,
        CASE WHEN s.last_run_status = 'Failed' AND $2 = (
            SELECT e.err_message FROM timescaledb_information.job_errors e
            WHERE e.job_id = j.job_id ORDER BY e.finish_time DESC LIMIT 1) THEN $3
                ELSE s.last_run_status::text END, to_char(s.last_run_started_at AT TIME ZONE 'UTC',
                'YYYY-MM-DD HH24:MI:SS'),
        to_char(s.next_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), coalesce(s.total_failures, 0)
    FROM timescaledb_information.jobs j
    LEFT JOIN timescaledb_information.job_stats s USING (job_id)
    LEFT JOIN timescaledb_information.continuous_aggregates c
        ON c.materialization_hypertable_name = j.hypertable_name
    WHERE coalesce(c.view_name, j.hypertable_name) = ANY ($1::text[])
    ORDER BY 2, 1";

/// Up to where TimescaleDB has filled its continuous aggregates; one that holds nothing yet has no such time.
const FILLED: &str = "SELECT a.view_name::text,
    to_char(a.filled_to AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM (
        SELECT c.view_name, _timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(h.id))
            AS filled_to
        FROM timescaledb_information.continuous_aggregates c
        JOIN _timescaledb_catalog.hypertable h ON h.schema_name = c.materialization_hypertable_schema
            AND h.table_name = c.materialization_hypertable_name
    ) a WHERE a.view_name = ANY ($1::text[]) AND isfinite(a.filled_to) AND a.filled_to > '0001-01-01'";

const KEPT: &str = "SELECT name, to_char(refreshed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
        to_char(filled_to AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    FROM jetcopy.rollups ORDER BY name";

/// What the store looks like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// Version of the TimescaleDB extension, where it is installed.
    pub timescaledb: Option<String>,
    /// Tables and roll-ups that are there.
    pub relations: Vec<Relation>,
    /// TimescaleDB's jobs on them, and the roll-ups that jetcopy keeps.
    pub jobs: Vec<Job>,
}

/// A table or roll-up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relation {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes on disk, with indexes.
    pub bytes: i64,
    /// Rows as the server estimates them; `None` where nothing has been analysed yet.
    pub rows_estimate: Option<i64>,
    /// Chunks or partitions.
    pub parts: i64,
    /// Of them compressed.
    pub compressed_parts: i64,
    /// Bytes before compression to bytes after it, of what is compressed.
    pub compression_ratio: Option<f64>,
}

/// What a table or roll-up is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A hypertable of TimescaleDB.
    Hypertable,
    /// A continuous aggregate of TimescaleDB.
    ContinuousAggregate,
    /// A table with native partitions.
    Partitioned,
    /// A table of one piece.
    Table,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hypertable => "hypertable",
            Self::ContinuousAggregate => "aggregate",
            Self::Partitioned => "partitioned",
            Self::Table => "table",
        }
    }
}

/// Something that is done again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// What it works on.
    pub name: String,
    /// What it does: TimescaleDB's procedure, or `jetcopy maintain`.
    pub job: String,
    /// How often; `None` for jetcopy's, which the settings say.
    pub every: Option<String>,
    /// How it ended last, `None` before the first time; "Done" where its work was done and TimescaleDB counts
    /// it as failed.
    pub last_status: Option<String>,
    /// When it ran last, in UTC.
    pub last_run: Option<String>,
    /// When it runs next, in UTC.
    pub next_run: Option<String>,
    /// How often it failed in all.
    pub failures: i64,
    /// For a roll-up: buckets before this are there, in UTC; `None` while it holds none.
    pub filled_to: Option<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a question.
    #[error("cannot inspect the store")]
    Database(#[from] tokio_postgres::Error),
}

/// Looks at the store.
pub async fn look(postgres: &config::Postgres) -> Result<Overview, Error> {
    let session = connect::connect_any(postgres, APPLICATION_NAME).await?;
    let report = async {
        // One moment, and one that a standby has too.
        session.client.batch_execute("BEGIN READ ONLY").await?;
        session.client.batch_execute(place::ENTER).await?;
        look_on(&session.client).await
    }
    .await;
    // Closing the connection ends the transaction.
    session.close().await;
    Ok(report?)
}

async fn look_on(client: &Client) -> Result<Overview, tokio_postgres::Error> {
    let row = client.query_typed_opt(VERSION, &[]).await?;
    let timescaledb: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    let names: Vec<&str> =
        TABLES.iter().map(|table| table.name).chain(ROLLUPS.iter().map(|rollup| rollup.name)).collect();
    let mut relations = Vec::new();
    for name in &names {
        let mut found = None;
        if timescaledb.is_some() {
            found = of_timescale(client, name).await?;
        }
        if found.is_none() {
            found = of_plain(client, name).await?;
        }
        relations.extend(found);
    }
    let mut jobs: Vec<Job> = Vec::new();
    if timescaledb.is_some() {
        let mut filled = BTreeMap::new();
        for row in client.query_typed(FILLED, &[(&names, Type::TEXT_ARRAY)]).await? {
            filled.insert(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        }
        for row in client
            .query_typed(JOBS, &[(&names, Type::TEXT_ARRAY), (&PORTAL, Type::TEXT), (&DONE, Type::TEXT)])
            .await?
        {
            let (job, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            jobs.push(Job {
                filled_to: if job == REFRESH { filled.get(&name).cloned() } else { None },
                job,
                name,
                every: row.try_get(2)?,
                last_status: row.try_get(3)?,
                last_run: row.try_get(4)?,
                next_run: row.try_get(5)?,
                failures: row.try_get(6)?,
            });
        }
    }
    let kept: bool = client.query_typed_one(HAS_ROLLUPS, &[]).await?.try_get(0)?;
    if kept {
        for row in client.query_typed(KEPT, &[]).await? {
            let last_run: Option<String> = row.try_get(1)?;
            jobs.push(Job {
                job: "jetcopy maintain".to_owned(),
                name: row.try_get(0)?,
                every: None,
                // A run that fails leaves no trace here, but the one before it.
                last_status: last_run.is_some().then(|| "Success".to_owned()),
                last_run,
                next_run: None,
                failures: 0,
                filled_to: row.try_get(2)?,
            });
        }
    }
    Ok(Overview { timescaledb, relations, jobs })
}

async fn of_plain(client: &Client, name: &str) -> Result<Option<Relation>, tokio_postgres::Error> {
    let row = client.query_typed_one(PLAIN, &[(&name, Type::TEXT)]).await?;
    let Some(bytes) = row.try_get(0)? else { return Ok(None) };
    let unknown: bool = row.try_get(2)?;
    let rows: i64 = row.try_get(1)?;
    Ok(Some(Relation {
        name: name.to_owned(),
        kind: if row.try_get(4)? { Kind::Partitioned } else { Kind::Table },
        bytes,
        rows_estimate: (!unknown).then_some(rows),
        parts: row.try_get(3)?,
        compressed_parts: 0,
        compression_ratio: None,
    }))
}

async fn of_timescale(client: &Client, name: &str) -> Result<Option<Relation>, tokio_postgres::Error> {
    let Some(row) = client.query_typed_opt(HYPERTABLE, &[(&name, Type::TEXT)]).await? else {
        return Ok(None);
    };
    let (schema, table, aggregate): (String, String, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let functions: String = client
        .query_typed_one(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'timescaledb'",
            &[],
        )
        .await?
        .try_get(0)?;
    let sql = format!(
        "SELECT {functions}.hypertable_size(h.relation), {functions}.approximate_row_count(h.relation),
            (SELECT count(*) FROM timescaledb_information.chunks c
                WHERE c.hypertable_schema = $1 AND c.hypertable_name = $2),
            (SELECT count(*) FROM timescaledb_information.chunks c
                WHERE c.hypertable_schema = $1 AND c.hypertable_name = $2 AND c.is_compressed),
            (SELECT sum(before_compression_total_bytes)::float8 /
                nullif(sum(after_compression_total_bytes), 0)::float8
                FROM {functions}.chunk_compression_stats(h.relation))
        FROM (SELECT pg_catalog.format('%I.%I', $1::text, $2::text)::regclass AS relation) AS h"
    );
    let row = client.query_typed_one(&sql, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?;
    Ok(Some(Relation {
        name: name.to_owned(),
        kind: if aggregate { Kind::ContinuousAggregate } else { Kind::Hypertable },
        bytes: row.try_get::<_, Option<i64>>(0)?.unwrap_or(0),
        rows_estimate: row.try_get(1)?,
        parts: row.try_get(2)?,
        compressed_parts: row.try_get(3)?,
        compression_ratio: row.try_get(4)?,
    }))
}

impl Overview {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = match &self.timescaledb {
            Some(version) => format!("TimescaleDB {version}\n\n"),
            None => "PostgreSQL without TimescaleDB\n\n".to_owned(),
        };
        let head = ["NAME", "KIND", "SIZE", "ROWS (EST.)", "PARTS", "COMPRESSED", "RATIO"];
        let rows = self.relations.iter().map(|relation| {
            vec![
                relation.name.clone(),
                relation.kind.as_str().to_owned(),
                bytesize::ByteSize::b(u64::try_from(relation.bytes).unwrap_or(0)).to_string(),
                relation.rows_estimate.map_or_else(|| "unknown".to_owned(), |rows| rows.to_string()),
                relation.parts.to_string(),
                relation.compressed_parts.to_string(),
                relation.compression_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")),
            ]
        });
        table(&mut out, &head, rows.collect(), &[2, 3, 4, 5, 6]);
        out.push('\n');
        let head = ["JOB", "ON", "EVERY", "LAST RUN (UTC)", "LAST STATUS", "FAILURES", "FILLED TO (UTC)"];
        let rows = self.jobs.iter().map(|job| {
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                job.job.clone(),
                job.name.clone(),
                or_dash(&job.every),
                or_dash(&job.last_run),
                or_dash(&job.last_status),
                job.failures.to_string(),
                or_dash(&job.filled_to),
            ]
        });
        table(&mut out, &head, rows.collect(), &[5]);
        if self.jobs.iter().any(|job| job.last_status.as_deref() == Some(DONE)) {
            out.push_str(DONE_MEANS);
        }
        out
    }
}

/// Writes columns as wide as what is in them; those in `right` are numbers.
fn table(out: &mut String, head: &[&str], rows: Vec<Vec<String>>, right: &[usize]) {
    let head = head.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = if right.contains(&column) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
