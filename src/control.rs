//! What operators do to a checkpoint: pause a pipeline, let it go on, accept dead letters, move it back.
//!
//! Guarantees: each is one transaction on the checkpoint's row, and all but [`accept()`] raise its epoch, so
//! that a writer which knew the row before matches it no more. When [`pause`] has returned, nothing more of
//! the pipeline is committed until [`resume`]. It needs the database alone; a daemon notices within its next
//! commit or renewal of its lease.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::checkpoint::{self, Claim, LOCK_TIMEOUT};
use crate::config::Postgres;
use crate::postgres::connect::{ConnectError, Session, connect};
use crate::shard::Shard;
use crate::write::flood::rules_sql;

pub mod accept;
pub mod rewind;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error("no database connection")]
    Connect(#[from] ConnectError),
    /// The server refused a statement.
    #[error("cannot {action}; is the schema migrated?")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
}

/// Who paused a pipeline, and when, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// Who.
    pub by: String,
    /// When.
    pub since: String,
}

/// Pauses `shard` in the name of `by`; returns by whom it was paused already.
///
/// It waits for the transaction that is under way, if there is one. A shard that never ran is paused before
/// it starts.
pub async fn pause(session: &Session, shard: &Shard, by: &str) -> Result<Option<Paused>, Error> {
    let (name, pipeline) = (escape_literal(&shard.name), escape_literal(&shard.pipeline));
    let (stream, by) = (escape_literal(&shard.stream), escape_literal(by));
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; \
         SELECT paused_by, to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') \
         FROM jetcopy.checkpoints WHERE shard = {name} AND paused_at IS NOT NULL; \
         INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, paused_at, paused_by) \
         SELECT {name}, {pipeline}, {stream}, now(), {by} \
         WHERE NOT EXISTS (SELECT FROM jetcopy.checkpoints WHERE shard = {name}) \
         ON CONFLICT (shard) DO NOTHING; \
         UPDATE jetcopy.checkpoints SET epoch = epoch + 1, owner = NULL, lease_until = NULL, \
           paused_at = now(), paused_by = {by} \
         WHERE shard = {name} AND paused_at IS NULL; \
         COMMIT",
        LOCK_TIMEOUT.as_millis(),
    );
    let rows = rows(session, "pause the pipeline", &sql).await?;
    Ok(rows.first().map(|row| Paused { by: text(row, 0), since: text(row, 1) }))
}

/// What kept a pipeline from going on before it was resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Whether an operator had paused it.
    pub paused: bool,
    /// Why a flood of dead letters had stopped it, if one had.
    pub flood: Option<String>,
}

/// Lets a paused shard go on, and one that a flood of dead letters stopped try again.
pub async fn resume(session: &Session, shard: &Shard) -> Result<Resumed, Error> {
    let sql = format!(
        "WITH before AS (\
           SELECT shard, paused_at IS NOT NULL AS paused, flood ->> 'reason'::text AS reason \
           FROM jetcopy.checkpoints \
           WHERE shard = {} AND (paused_at IS NOT NULL OR flood IS NOT NULL) FOR UPDATE), \
         done AS (\
           UPDATE jetcopy.checkpoints c SET paused_at = NULL, paused_by = NULL, flood = NULL \
           FROM before WHERE c.shard = before.shard) \
         SELECT paused, reason FROM before",
        escape_literal(&shard.name)
    );
    let before = rows(session, "resume the pipeline", &sql).await?;
    let resumed = |row: &SimpleQueryRow| Resumed {
        paused: row.get(0) == Some("t"),
        flood: row.get(1).map(str::to_owned),
    };
    Ok(before.first().map(resumed).unwrap_or_default())
}

/// Lets `letters` messages of `shard` become dead letters beyond its limits; how many were accepted before,
/// `None` where it has no checkpoint yet. A transaction that is under way is waited for.
pub async fn accept(session: &Session, shard: &Shard, letters: u32) -> Result<Option<u64>, Error> {
    let name = escape_literal(&shard.name);
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; \
         SELECT accepted_letters FROM jetcopy.checkpoints WHERE shard = {name} FOR UPDATE; \
         UPDATE jetcopy.checkpoints SET accepted_letters = {letters} WHERE shard = {name}; COMMIT",
        LOCK_TIMEOUT.as_millis(),
    );
    let rows = rows(session, "accept dead letters", &sql).await?;
    Ok(rows.first().map(|row| text(row, 0).parse().unwrap_or(0)))
}

/// Whether a pipeline that a flood of dead letters stopped, and whose rows go into `tables`, is to try again:
/// letters are accepted, somebody resumed it, or the rules of a table are others than those that the flood
/// was met under.
pub async fn ends_flood(postgres: &Postgres, shard: &str, tables: &[&str]) -> Result<bool, Error> {
    let sql = format!(
        "SELECT accepted_letters > 0 OR flood IS NULL OR flood ->> 'rules'::text IS DISTINCT FROM {} \
         FROM jetcopy.checkpoints WHERE shard = {}",
        rules_sql(tables),
        escape_literal(shard)
    );
    let session = connect(postgres, "jetcopy").await?;
    let found = rows(&session, "look for what may end a flood", &sql).await;
    session.close().await;
    Ok(found?.first().is_some_and(|row| row.get(0) == Some("t")))
}

/// Where a shard stands. Nothing is claimed by that.
pub(crate) async fn claim(session: &Session, shard: &Shard) -> Result<Option<Claim>, Error> {
    let sql = format!(
        "SELECT last_sequence, (extract(epoch FROM stream_created) * 1000000::numeric)::bigint, \
           (extract(epoch FROM last_timestamp) * 1000000::numeric)::bigint, known_sequence \
         FROM jetcopy.checkpoints WHERE shard = {}",
        escape_literal(&shard.name)
    );
    let found = rows(session, "read the checkpoint", &sql).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let number = |column| row.get(column).and_then(|text| text.parse::<i64>().ok());
    Ok(Some(Claim {
        epoch: 0,
        known_sequence: number(3).map_or(checkpoint::UNKNOWN, i64::unsigned_abs),
        accepted: 0,
        last_sequence: number(0).and_then(|sequence| u64::try_from(sequence).ok()).unwrap_or(0),
        stream_created_ns: number(1).map(|us| us.saturating_mul(1_000)),
        last_timestamp_us: number(2),
    }))
}

/// The rows that the statements of `sql` returned.
pub(crate) async fn rows(
    session: &Session,
    action: &'static str,
    sql: &str,
) -> Result<Vec<SimpleQueryRow>, Error> {
    let messages =
        session.client.simple_query(sql).await.map_err(|source| Error::Database { action, source })?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// A column as text; empty for NULL.
fn text(row: &SimpleQueryRow, column: usize) -> String {
    row.get(column).unwrap_or_default().to_owned()
}
