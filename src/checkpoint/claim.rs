//! Taking a shard, keeping it and giving it up.
//!
//! Guarantees: one that another daemon holds, or an operator has paused, is not taken; whoever takes it
//! fences every earlier claim.

use postgres_protocol::escape::escape_literal;

use super::{Claim, Error, LEASE, UNKNOWN, ask, begin_sql};
use crate::postgres::connect::Session;
use crate::shard::Shard;

/// Claims the shard for `owner`: ends leftover backends of its own and of the owner before, and takes a new
/// epoch.
///
/// The row is read `FOR UPDATE`, so a commit of a former owner that is still in doubt is waited for and then
/// seen. A checkpoint that does not exist yet is created at sequence 0 without a stream.
pub(crate) async fn claim(session: &Session, shard: &Shard, owner: &str) -> Result<Claim, Error> {
    let name = escape_literal(&shard.name);
    let before = look(session, shard, owner).await?;
    let end_leftovers = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
         AND usename = current_user AND application_name <> '' AND application_name IN ({}, {})",
        escape_literal(owner),
        escape_literal(&before),
    );
    ask(session, "end leftover backends of", &end_leftovers).await?;

    let take = format!(
        "{}SELECT FROM jetcopy.checkpoints WHERE shard = {name} FOR UPDATE; \
         UPDATE jetcopy.checkpoints SET epoch = epoch + 1, owner = {}, \
           lease_until = now() + interval '{} ms', updated_at = now() \
         WHERE shard = {name} AND coalesce(owner, '') IN ({}, {}) AND paused_at IS NULL \
         RETURNING epoch, last_sequence, (extract(epoch FROM stream_created) * 1000000::numeric)::bigint, \
           (extract(epoch FROM last_timestamp) * 1000000::numeric)::bigint, known_sequence, \
           accepted_letters; \
         COMMIT",
        begin_sql(session),
        escape_literal(owner),
        LEASE.as_millis(),
        escape_literal(owner),
        escape_literal(&before),
    );
    // After an error the connection may be used for nothing else: the caller ends the generation on any.
    let taken = ask(session, "claim", &take).await?;
    let Some(epoch) = taken.text(0) else {
        // Another daemon claimed the shard, or an operator paused it, between the look and the update: which,
        // it says now.
        look(session, shard, owner).await?;
        return Err(Error::LostEpoch);
    };
    let number = |column, name| match taken.text(column) {
        Some(value) => value.parse::<i64>().map(Some).map_err(|_| Error::Unreadable { column: name }),
        None => Ok(None),
    };
    Ok(Claim {
        epoch: epoch.parse().map_err(|_| Error::Unreadable { column: "epoch" })?,
        last_sequence: number(1, "last_sequence")?
            .and_then(|sequence| u64::try_from(sequence).ok())
            .ok_or(Error::Unreadable { column: "last_sequence" })?,
        stream_created_ns: number(2, "stream_created")?.map(|us| us.saturating_mul(1_000)),
        last_timestamp_us: number(3, "last_timestamp")?,
        known_sequence: number(4, "known_sequence")?.map_or(UNKNOWN, i64::unsigned_abs),
        accepted: number(5, "accepted_letters")?.map_or(0, i64::unsigned_abs),
    })
}

/// Who had the shard before, empty where nobody did; an error where an operator paused it or another daemon
/// holds it. A checkpoint that does not exist yet is created at sequence 0 without a stream.
async fn look(session: &Session, shard: &Shard, owner: &str) -> Result<String, Error> {
    let name = escape_literal(&shard.name);
    let look = format!(
        "SELECT coalesce(owner, ''), coalesce(lease_until > now(), false) AND EXISTS (\
           SELECT FROM pg_stat_activity WHERE application_name = owner), \
           to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), coalesce(paused_by, ''), \
           last_sequence \
         FROM jetcopy.checkpoints WHERE shard = {name}"
    );
    let found = ask(session, "read", &look).await?;
    let before = if let Some(owner) = found.text(0) {
        owner.to_owned()
    } else {
        // Only where there is none: also with DO NOTHING the insert would wait for a transaction that moves
        // the row, and a frozen daemon's never ends.
        let create = format!(
            "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) \
             VALUES ({name}, {}, {}, 0, 0) ON CONFLICT (shard) DO NOTHING",
            escape_literal(&shard.pipeline),
            escape_literal(&shard.stream),
        );
        ask(session, "create", &create).await?;
        String::new()
    };
    let checkpoint = found.number(4).unwrap_or(0);
    if let Some(since) = found.text(2).map(str::to_owned) {
        let by = found.text(3).unwrap_or_default().to_owned();
        return Err(Error::Paused { pipeline: shard.pipeline.clone(), by, since, checkpoint });
    }
    if found.text(1) == Some("t") && before != owner {
        return Err(Error::Held { owner: before, checkpoint });
    }
    Ok(before)
}

/// Extends the lease of an idle shard; [`Error::LostEpoch`] when it is no longer ours, or its checkpoint is
/// no longer `last_sequence`: behind a pooler a session outlives a failover, and without a next batch nothing
/// else would show that the new primary lacks commits.
pub(crate) async fn renew(
    session: &Session,
    shard: &Shard,
    epoch: i64,
    last_sequence: u64,
) -> Result<(), Error> {
    let sql = format!(
        "UPDATE jetcopy.checkpoints SET lease_until = now() + interval '{} ms' \
         WHERE shard = {} AND epoch = {epoch} AND last_sequence = {last_sequence}",
        LEASE.as_millis(),
        escape_literal(&shard.name),
    );
    match ask(session, "renew the lease of", &sql).await?.affected() {
        0 => Err(Error::LostEpoch),
        _ => Ok(()),
    }
}

/// Gives the shard up, so that another daemon need not wait for the lease to end.
pub(crate) async fn release(session: &Session, shard: &Shard, epoch: i64) -> Result<(), Error> {
    let sql = format!(
        "UPDATE jetcopy.checkpoints SET owner = NULL, lease_until = NULL WHERE shard = {} \
         AND epoch = {epoch}",
        escape_literal(&shard.name),
    );
    ask(session, "release", &sql).await.map(drop)
}
