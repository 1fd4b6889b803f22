//! Native partitions of a day each, where TimescaleDB is not installed: added ahead, dropped with age.
//!
//! Guarantees: whoever writes to a table or reads from it does not wait while partitions are added, and not
//! for the whole table while one is dropped; what was interrupted halfway is finished by the next run. Only
//! tables in `jetcopy.partitioned_tables` are touched, and of those only partitions that lie wholly beyond
//! the retention.

use std::pin::pin;
use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::postgres::connect::Session;

/// How many days ahead partitions are there: over a weekend on which nobody runs `jetcopy maintain`. The
/// daemon adds what is missing on demand anyway.
pub const DAYS_AHEAD: i32 = 3;

/// How long a statement waits for a lock: others queue behind it, and the next run tries again.
pub const LOCK_TIMEOUT: &str = "10s";

/// How long a partition may wait for those who read from its table before it is let be until the next run.
pub const DETACH_PATIENCE: Duration = Duration::from_mins(1);

/// How long a later run waits for the same: who adds a partition to the table waits meanwhile.
const FINALIZE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a cancelled statement may take to end: it is waiting for a lock, and does so at once.
const CANCELLED: Duration = Duration::from_secs(10);

const TABLES: &str = "SELECT relation::text, relation::oid FROM jetcopy.partitioned_tables
    JOIN pg_class ON pg_class.oid = relation::oid ORDER BY 1";

/// The first day from today on, up to `$2` days ahead, of which no partition of table `$1` takes rows, where
/// jetcopy does not add it; none where that is not foreseen.
pub(crate) const FIRST_WITHOUT: &str =
    "SELECT min(day)::text FROM pg_catalog.unnest(jetcopy.days_without_partition(to_regclass($1),
        ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, $2) AS n))) AS day
    WHERE NOT EXISTS (SELECT FROM jetcopy.partitioned_tables WHERE relation::oid = to_regclass($1)::oid)";

/// SQL for the time before which rows of a table, an expression for its identifier, were dropped, in
/// microseconds since the Unix epoch.
pub(crate) fn dropped_before_sql(table: &str) -> String {
    format!(
        "SELECT (extract(epoch FROM dropped_before) * 1000000::numeric)::bigint \
         FROM jetcopy.partitioned_tables WHERE relation::oid = {table} AND isfinite(dropped_before)"
    )
}

const ADD: &str = "SELECT jetcopy.add_partitions($1::oid::regclass,
    ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, $2::int) AS n))";

const COUNT: &str = "SELECT count(*) FROM jetcopy.partitions($1::oid::regclass)";

/// Partitions that lie wholly before an age, oldest first, and before them one that is being detached, for
/// PostgreSQL detaches one at a time of a table: schema, name, the name on their way out, since their day may
/// get a new one meanwhile, and whether they are being detached.
const EXPIRED: &str = "SELECT n.nspname::text, c.relname::text,
        left(t.relname::text, 45) || to_char(p.starts AT TIME ZONE 'UTC', '_pYYYYMMDD') || '_dropped',
            p.detaching
    FROM pg_class t
    CROSS JOIN jetcopy.partitions(t.oid::regclass) p
    JOIN pg_class c ON c.oid = p.partition::oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.oid = $1 AND p.ends <= now() - make_interval(secs => $2) ORDER BY p.detaching DESC, p.starts";

/// What a run that was interrupted has detached and not dropped.
const LEFT_OVER: &str = "SELECT n.nspname::text, c.relname::text
    FROM pg_class t
    JOIN pg_class c ON c.relnamespace = t.relnamespace AND c.relkind = 'r' AND NOT c.relispartition
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.oid = $1 AND right(c.relname::text, 18) ~ '^_p[0-9]{8}_dropped$'
        AND left(c.relname::text, -18) = left(t.relname::text, 45)";

const FORGET: &str = "UPDATE jetcopy.partitioned_tables
    SET dropped_before = greatest(dropped_before, now() - make_interval(secs => $2))
        WHERE relation::oid = $1";

/// Why a partition was not dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused, or the connection is gone.
    #[error("the server refused")]
    Database(#[from] tokio_postgres::Error),
    /// Somebody reads from its table for long.
    #[error("partition {partition} or its table was still being read after {} s; the next run continues",
        .after.as_secs())]
    InUse {
        /// The partition.
        partition: String,
        /// How long was waited.
        after: Duration,
    },
}

/// A table that jetcopy partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioned {
    /// Its name, as the search path has it.
    pub name: String,
    /// Its object identifier.
    pub oid: u32,
}

/// The tables that jetcopy partitions, the users' own among them.
pub async fn tables(client: &Client) -> Result<Vec<Partitioned>, tokio_postgres::Error> {
    let rows = client.query_typed(TABLES, &[]).await?;
    rows.iter().map(|row| Ok(Partitioned { name: row.try_get(0)?, oid: row.try_get(1)? })).collect()
}

/// Adds the partitions of today and the days ahead; how many were missing.
pub async fn add_ahead(client: &Client, table: &Partitioned) -> Result<u64, tokio_postgres::Error> {
    let count = async || -> Result<i64, tokio_postgres::Error> {
        client.query_typed_one(COUNT, &[(&table.oid, Type::OID)]).await?.try_get(0)
    };
    let before = count().await?;
    client.batch_execute(&begin()).await?;
    client.query_typed(ADD, &[(&table.oid, Type::OID), (&DAYS_AHEAD, Type::INT4)]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(u64::try_from(count().await? - before).unwrap_or(0))
}

/// Drops the partitions whose rows are all older than `age`, and waits for readers of each as long as
/// `patience`; their names.
pub async fn drop_expired(
    session: &Session,
    table: &Partitioned,
    age: Duration,
    patience: Duration,
) -> Result<Vec<String>, Error> {
    let client = &session.client;
    let seconds = age.as_secs_f64();
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&table.oid, Type::OID), (&seconds, Type::FLOAT8)];
    let expired = client.query_typed(EXPIRED, &parameters).await?;
    if !expired.is_empty() {
        // First: from now on no bucket is summed up from what is left.
        client.batch_execute(&begin()).await?;
        client.execute_typed(FORGET, &parameters).await?;
        client.batch_execute("COMMIT").await?;
    }
    for row in expired {
        let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (out, detaching): (String, bool) = (row.try_get(2)?, row.try_get(3)?);
        if name != out {
            let (from, to) = (qualified(&schema, &name), escape_identifier(&out));
            client.batch_execute(&format!("{}; ALTER TABLE {from} RENAME TO {to}; COMMIT", begin())).await?;
        }
        detach(session, table, &qualified(&schema, &out), detaching, patience).await?;
    }
    let mut dropped = Vec::new();
    for row in client.query_typed(LEFT_OVER, &[(&table.oid, Type::OID)]).await? {
        let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let drop = format!("{}; DROP TABLE {}; COMMIT", begin(), qualified(&schema, &name));
        client.batch_execute(&drop).await?;
        dropped.push(name);
    }
    Ok(dropped)
}

/// Takes a partition out of its table.
async fn detach(
    session: &Session,
    table: &Partitioned,
    partition: &str,
    detaching: bool,
    patience: Duration,
) -> Result<(), Error> {
    // Not possible in a transaction, and so without a lock_timeout of its own; one of the session would stay
    // with the server's session behind a pooler.
    let (how, patience) =
        if detaching { ("FINALIZE", patience.min(FINALIZE_PATIENCE)) } else { ("CONCURRENTLY", patience) };
    let sql = format!("ALTER TABLE {} DETACH PARTITION {partition} {how}", table.name);
    let mut detached = pin!(session.client.batch_execute(&sql));
    if let Ok(outcome) = timeout(patience, &mut detached).await {
        return Ok(outcome?);
    }
    session.cancel().await;
    match timeout(CANCELLED, detached).await {
        // Just in time.
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.code() != Some(&SqlState::QUERY_CANCELED) => Err(error.into()),
        // Where it has not ended, the session is of no more use, and the steps that follow find that out.
        Ok(Err(_)) | Err(_) => Err(Error::InUse { partition: partition.to_owned(), after: patience }),
    }
}

/// Opens a transaction that does not wait long.
pub(super) fn begin() -> String {
    format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", escape_identifier(schema), escape_identifier(name))
}
