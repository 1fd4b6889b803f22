//! Taking a shard, keeping it and giving it up.
//!
//! Guarantees: one of a daemon that has its row in `jetcopy.daemons`, or that an operator has paused, is not
//! taken; whoever takes it fences every earlier claim.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, SimpleQueryRow};

use super::lanes::{self, floor_sql, floor_timestamp_sql};
use super::{Claim, Error, Paused, Position, UNKNOWN, ask, begin_sql, rollback};
use crate::daemons;
use crate::lanes::{Lanes, Layout};
use crate::postgres::connect::Session;
use crate::postgres::simple;
use crate::seal::{self, Moved};
use crate::shard::Shard;

/// Each claim raises the epoch by one and a random number below this: a claim that a failover has lost has
/// another epoch than the one that takes its place. In the life of a shard, there is room for billions.
const UNLIKELY: u32 = 1_000_000_000;

/// What a claim yields.
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    /// The epoch of the claim before.
    pub(crate) follows: i64,
}

/// Claims the shard for `daemon`, with all its lanes: ends the transactions that an earlier session of its
/// own, or one of the daemon before, has left open on the shard, and takes an epoch that no claim had, nor
/// one that a failover has lost.
///
/// What was committed before is sealed as it stands: whoever claims the shard knows nothing of it. The rows
/// are read `FOR UPDATE`, so a commit of a former owner that is still in doubt is waited for and then seen. A
/// checkpoint that does not exist yet is created at sequence 0 without a stream. The lanes are as `wanted`,
/// unless others have something left to settle.
pub(crate) async fn claim(
    session: &Session,
    shard: &Shard,
    daemon: &str,
    wanted: Layout,
) -> Result<Claimed, Error> {
    let name = escape_literal(&shard.name);
    let Before { owner, epoch: follows, lanes: there } = look(session, shard, daemon).await?;
    // Only who has moved a row and not committed is in the way. A pooler names a session after whose
    // transaction it is, and leaves the name there afterwards.
    let sessions = (0..there.max(wanted.lanes).max(1))
        .flat_map(|lane| [daemon, &owner].map(|daemon| escape_literal(&shard.session_of(daemon, lane))));
    let end_leftovers = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS session WHERE pid <> pg_backend_pid() \
         AND usename = current_user AND application_name IN ({}) \
         AND EXISTS (SELECT FROM pg_locks AS held WHERE held.pid = session.pid AND held.granted \
           AND held.mode = 'RowExclusiveLock' \
           AND held.relation IN ('jetcopy.checkpoints'::regclass, 'jetcopy.lanes'::regclass))",
        sessions.collect::<Vec<_>>().join(", "),
    );
    ask(session, "end leftover transactions on", &end_leftovers).await?;

    let me = escape_literal(daemon);
    let take = format!(
        "{}SELECT FROM jetcopy.checkpoints WHERE shard = {name} FOR UPDATE; {}\
         UPDATE jetcopy.checkpoints c SET epoch = epoch + 1 + floor(random() * {UNLIKELY}::float8)::bigint, \
           last_sequence = {}, last_timestamp = {}, \
           owned_since = CASE WHEN owner = {me} THEN owned_since ELSE now() END, owner = {me}, \
           pipeline = {}, updated_at = now() \
         WHERE shard = {name} AND paused_at IS NULL \
           AND (coalesce(owner, {me}) = {me} OR NOT {}) AND {} \
         RETURNING epoch, last_sequence, (extract(epoch FROM stream_created) * 1000000::numeric)::bigint, \
           (extract(epoch FROM last_timestamp) * 1000000::numeric)::bigint, known_sequence, \
           accepted_letters",
        begin_sql(session),
        lanes::lock_sql(&name),
        floor_sql("c"),
        floor_timestamp_sql("c"),
        escape_literal(&shard.pipeline),
        daemons::is_listed_sql("owner"),
        daemons::is_listed_sql(&me),
    );
    // After an error the connection may be used for nothing else: the caller ends the generation on any.
    let taken = ask(session, "claim", &take).await?;
    let Some(epoch) = taken.text(0) else {
        // Another daemon claimed the shard, or an operator paused it, between the look and the update: which,
        // it says now.
        rollback(session).await?;
        look(session, shard, daemon).await?;
        return Err(Error::Unlisted);
    };
    let number = |column, name| match taken.text(column) {
        Some(value) => value.parse::<i64>().map(Some).map_err(|_| Error::Unreadable { column: name }),
        None => Ok(None),
    };
    let seal = seal::close_sql(&shard.name, Moved::Unknown);
    let rest = format!("{seal}; {}COMMIT", lanes::take_sql(&name, wanted));
    let found = lanes::read(&ask(session, "claim", &rest).await?)?;
    let last_sequence = number(1, "last_sequence")?
        .and_then(|sequence| u64::try_from(sequence).ok())
        .ok_or(Error::Unreadable { column: "last_sequence" })?;
    let last_timestamp_us = number(3, "last_timestamp")?;
    let claim = Claim {
        epoch: epoch.parse().map_err(|_| Error::Unreadable { column: "epoch" })?,
        last_sequence,
        lanes: Lanes::single(last_sequence),
        stream_created_ns: number(2, "stream_created")?.map(|us| us.saturating_mul(1_000)),
        last_timestamp_us,
        since_us: last_timestamp_us,
        known_sequence: number(4, "known_sequence")?.map_or(UNKNOWN, i64::unsigned_abs),
        accepted: number(5, "accepted_letters")?.map_or(0, i64::unsigned_abs),
    };
    Ok(Claimed { claim: claim.with(found), follows })
}

/// What a claim finds.
struct Before {
    /// Who had the shard, empty where nobody did.
    owner: String,
    /// The epoch of the claim before.
    epoch: i64,
    /// How many lanes it has rows of.
    lanes: usize,
}

/// Who had the shard before; an error where an operator paused it or another daemon has it. A checkpoint that
/// does not exist yet is created at sequence 0 without a stream.
async fn look(session: &Session, shard: &Shard, daemon: &str) -> Result<Before, Error> {
    let name = escape_literal(&shard.name);
    let look = format!(
        "SELECT coalesce(owner, ''), {}, \
           to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), coalesce(paused_by, ''), \
           {}, (SELECT count(*) FROM jetcopy.lanes lane WHERE lane.shard = c.shard), epoch \
         FROM jetcopy.checkpoints c WHERE c.shard = {name}",
        daemons::is_listed_sql("owner"),
        floor_sql("c"),
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
        return Err(Error::Paused { pipeline: shard.argument(), by, since, checkpoint });
    }
    if found.text(1) == Some("t") && before != daemon {
        return Err(Error::Held { owner: before, checkpoint });
    }
    let (lanes, epoch) = (found.number(5).unwrap_or(0), found.number(6).unwrap_or(0));
    Ok(Before { owner: before, epoch, lanes })
}

/// Looks whether an idle shard is still ours; [`Error::LostEpoch`] when it is not, or its writer is no longer
/// where it is `at`: behind a pooler a session outlives a failover, and without a next batch nothing else
/// would show that the new primary lacks commits. Returns up to where an audit has proven the tables.
pub(crate) async fn confirm(session: &Session, at: &Position<'_>) -> Result<Option<u64>, Error> {
    let sql = if at.others.is_empty() {
        format!(
            "SELECT shard, verified_sequence FROM jetcopy.checkpoints \
             WHERE shard = {} AND epoch = {} AND last_sequence = {}",
            escape_literal(&at.shard.name),
            at.epoch,
            at.from,
        )
    } else {
        lanes::confirm_sql(at)
    };
    let found = ask(session, "look at", &sql).await?;
    if found.first().is_some() {
        Ok(found.named("verified_sequence").and_then(|verified| verified.parse().ok()))
    } else {
        Err(Error::LostEpoch)
    }
}

/// Gives the shard up, so that another daemon takes it at once.
pub(crate) async fn release(session: &Session, shard: &Shard, epoch: i64) -> Result<(), Error> {
    let sql = format!(
        "UPDATE jetcopy.checkpoints SET owner = NULL, owned_since = NULL WHERE shard = {} \
         AND epoch = {epoch}",
        escape_literal(&shard.name),
    );
    ask(session, "release", &sql).await.map(drop)
}

/// SQL that gives up a shard of `daemon` that it does not run.
pub(crate) fn release_sql(shard: &str, daemon: &str) -> String {
    format!(
        "UPDATE jetcopy.checkpoints SET owner = NULL, owned_since = NULL WHERE shard = {} AND owner = {}; ",
        escape_literal(shard),
        escape_literal(daemon),
    )
}

/// Whose a shard is, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) shard: String,
    /// Its pipeline as of the last claim, and the stream that it read at the first.
    pub(crate) pipeline: String,
    pub(crate) stream: String,
    /// The daemon that has it, or had it.
    pub(crate) owner: Option<String>,
    /// For how many seconds.
    pub(crate) owned_for: f64,
    /// Who paused it.
    pub(crate) paused: Option<Paused>,
    /// Of the claim.
    pub(crate) epoch: i64,
    /// The last sequence that is committed.
    pub(crate) checkpoint: u64,
    /// Up to where an audit has proven the tables.
    pub(crate) verified: Option<u64>,
}

/// SQL for the places of all shards, the rows that [`read_place`] reads.
pub(crate) fn places_sql() -> String {
    format!(
        "SELECT shard AS jetcopy_shard, pipeline, stream, owner, epoch, {} AS floor, verified_sequence, \
           extract(epoch FROM now() - owned_since)::float8 AS owned_for, paused_by, \
           to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS paused_since \
         FROM jetcopy.checkpoints c ORDER BY shard",
        floor_sql("c")
    )
}

/// A place, where the row is one of [`places_sql`].
pub(crate) fn read_place(row: &SimpleQueryRow) -> Option<Place> {
    let text = |column| simple::text(row, column).map(str::to_owned);
    Some(Place {
        shard: text("jetcopy_shard")?,
        pipeline: text("pipeline").unwrap_or_default(),
        stream: text("stream").unwrap_or_default(),
        owner: text("owner"),
        owned_for: simple::number(row, "owned_for").unwrap_or(0.0),
        paused: text("paused_since").map(|since| Paused { by: text("paused_by").unwrap_or_default(), since }),
        epoch: simple::number(row, "epoch").unwrap_or(0),
        checkpoint: simple::number(row, "floor").unwrap_or(0),
        verified: simple::number(row, "verified_sequence"),
    })
}

/// The places of all shards.
pub(crate) async fn places(client: &Client) -> Result<Vec<Place>, tokio_postgres::Error> {
    Ok(simple::ask(client, &places_sql()).await?.rows().filter_map(read_place).collect())
}
