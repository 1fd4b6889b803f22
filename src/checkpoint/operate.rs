//! What operators do to a checkpoint.
//!
//! Guarantees: each is one transaction on the checkpoint's row, and all but [`accept`], [`resume`] and
//! [`record_verified`] raise
//! its epoch, so that a writer which knew the row before matches it no more.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use super::{LOCK_TIMEOUT, lanes};
use crate::daemons;
use crate::milestones;
use crate::postgres::simple::{self, ask};
use crate::shard::Shard;

/// Who paused a shard, and when, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paused {
    /// Who.
    pub by: String,
    pub since: String,
}

/// One transaction of these statements, which waits for the row's lock for [`LOCK_TIMEOUT`] at most.
fn waiting(statements: &str) -> String {
    format!("BEGIN; SET LOCAL lock_timeout = '{}ms'; {statements}; COMMIT", LOCK_TIMEOUT.as_millis())
}

/// Pauses `shard` in the name of `by`; returns by whom it was paused already.
///
/// It waits for the transaction that is under way, if there is one. A shard that never ran is paused before
/// it starts.
pub(crate) async fn pause(client: &Client, shard: &Shard, by: &str) -> Result<Option<Paused>, Error> {
    let (name, pipeline) = (escape_literal(&shard.name), escape_literal(&shard.pipeline));
    let (stream, by) = (escape_literal(&shard.stream), escape_literal(by));
    let statements = format!(
        "SELECT paused_by, to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') \
         FROM jetcopy.checkpoints WHERE shard = {name} AND paused_at IS NOT NULL; \
         INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, paused_at, paused_by) \
         SELECT {name}, {pipeline}, {stream}, now(), {by} \
         WHERE NOT EXISTS (SELECT FROM jetcopy.checkpoints WHERE shard = {name}) \
         ON CONFLICT (shard) DO NOTHING; \
         UPDATE jetcopy.checkpoints SET epoch = epoch + 1, owner = NULL, owned_since = NULL, \
           paused_at = now(), paused_by = {by} \
         WHERE shard = {name} AND paused_at IS NULL; {}",
        lanes::fence_sql(&name)
    );
    let before = ask(client, &waiting(&statements)).await?;
    let text = |row, column| simple::text(row, column).unwrap_or_default().to_owned();
    Ok(before.first().map(|row| Paused { by: text(row, 0), since: text(row, 1) }))
}

/// What kept a shard from going on before it was resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// Whether an operator had paused it.
    pub paused: bool,
    /// Why a flood of dead letters had stopped it, if one had.
    pub flood: Option<String>,
}

/// Lets a paused shard go on, and one that a flood of dead letters stopped try again.
pub(crate) async fn resume(client: &Client, shard: &Shard) -> Result<Resumed, Error> {
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
    let before = ask(client, &sql).await?;
    Ok(Resumed { paused: before.text(0) == Some("t"), flood: before.text(1).map(str::to_owned) })
}

/// Lets `letters` messages of `shard` become dead letters beyond its limits; how many were accepted before,
/// `None` where it has no checkpoint yet. A transaction that is under way is waited for.
pub(crate) async fn accept(client: &Client, shard: &Shard, letters: u32) -> Result<Option<u64>, Error> {
    let name = escape_literal(&shard.name);
    let statements = format!(
        "SELECT accepted_letters FROM jetcopy.checkpoints WHERE shard = {name} FOR UPDATE; \
         UPDATE jetcopy.checkpoints SET accepted_letters = {letters} WHERE shard = {name}"
    );
    let before = ask(client, &waiting(&statements)).await?;
    Ok(before.first().map(|row| simple::number(row, 0).unwrap_or(0)))
}

/// Records that what the tables hold was proven up to `sequence`, from `from` on; whether it follows on what
/// was proven before, and the checkpoint has not gone back since.
pub(crate) async fn record_verified(
    client: &Client,
    shard: &Shard,
    from: u64,
    sequence: u64,
) -> Result<bool, Error> {
    let statements = format!(
        "UPDATE jetcopy.checkpoints c SET verified_sequence = greatest(verified_sequence, {sequence}) \
         WHERE shard = {} AND {} >= {sequence} AND coalesce(verified_sequence, 0) + 1 >= {from} \
         RETURNING shard",
        escape_literal(&shard.name),
        lanes::floor_sql("c"),
    );
    Ok(ask(client, &waiting(&statements)).await?.first().is_some())
}

/// Moves the checkpoint of `shard` back from `from` to `to`; whether it did: not where it has moved, or a
/// daemon holds it.
pub(crate) async fn move_back(client: &Client, shard: &Shard, from: u64, to: u64) -> Result<bool, Error> {
    let name = escape_literal(&shard.name);
    // By what was committed the stream is known, also when the checkpoint stands before it.
    let committed = format!(
        "SELECT shard, last_sequence AS sequence, last_timestamp AS stored_at FROM (\
           SELECT shard, last_sequence, last_timestamp FROM jetcopy.checkpoints \
           UNION ALL SELECT shard, last_sequence, last_timestamp FROM jetcopy.lanes) position \
         WHERE shard = {name} AND last_sequence > 0 AND last_timestamp IS NOT NULL \
         ORDER BY last_sequence DESC LIMIT 1"
    );
    let floor = lanes::floor_sql("c");
    let greatest = format!(
        "greatest(known_sequence, {floor}, \
           (SELECT max(lane.last_sequence) FROM jetcopy.lanes lane WHERE lane.shard = c.shard))"
    );
    // The time of the message at the new checkpoint is not known to be that of what was committed then.
    let move_it = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; \
         SELECT FROM jetcopy.checkpoints WHERE shard = {name} FOR UPDATE; {lock}{} \
         UPDATE jetcopy.checkpoints c SET known_sequence = CASE WHEN known_sequence IS NOT NULL \
             THEN {greatest} END, last_sequence = {to}, \
             last_timestamp = NULL, epoch = epoch + 1, \
             owner = NULL, owned_since = NULL, updated_at = now() \
           WHERE shard = {name} AND {floor} = {from} AND NOT {} RETURNING true AS jetcopy_moved",
        LOCK_TIMEOUT.as_millis(),
        milestones::add_of(&committed),
        daemons::lives_sql("owner"),
        lock = lanes::lock_sql(&name),
    );
    let moved = ask(client, &move_it).await?.named("jetcopy_moved").is_some();
    let end = if moved { format!("{}; COMMIT", lanes::remove_sql(&name)) } else { "ROLLBACK".to_owned() };
    ask(client, &end).await?;
    Ok(moved)
}
