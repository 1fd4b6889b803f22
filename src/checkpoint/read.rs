//! Checkpoints, read by whoever does not own them.
//!
//! Guarantees: nothing is claimed, locked or changed by it.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row, SimpleQueryRow};

use super::lanes::{floor_sql, floor_timestamp_sql};
use super::{Claim, Paused, UNKNOWN};
use crate::daemons;
use crate::lanes::Lanes;
use crate::postgres::simple::{self, ask};
use crate::seal::{self, Point, Stretch};
use crate::shard::Shard;

/// Where a shard stands; `None` where it has no checkpoint yet. Epoch and accepted letters are left out: they
/// are a claim's.
pub(crate) async fn read(client: &Client, shard: &Shard) -> Result<Option<Claim>, Error> {
    let sql = format!(
        "SELECT {}, (extract(epoch FROM stream_created) * 1000000::numeric)::bigint, \
           (extract(epoch FROM {}) * 1000000::numeric)::bigint, known_sequence, \
           (SELECT pg_catalog.string_agg(lane.last_sequence::text, ','::text ORDER BY lane.lane) \
             FROM jetcopy.lanes lane WHERE lane.shard = c.shard), \
           (SELECT max(lane.block) FROM jetcopy.lanes lane WHERE lane.shard = c.shard) \
         FROM jetcopy.checkpoints c WHERE c.shard = {}",
        floor_sql("c"),
        floor_timestamp_sql("c"),
        escape_literal(&shard.name)
    );
    let found = ask(client, &sql).await?;
    Ok(found.first().map(|row| Claim {
        epoch: 0,
        last_sequence: simple::number(row, 0).unwrap_or(0),
        lanes: lanes_of(row),
        since_us: simple::number(row, 2),
        stream_created_ns: simple::number(row, 1).map(|us: i64| us.saturating_mul(1_000)),
        last_timestamp_us: simple::number(row, 2),
        known_sequence: simple::number(row, 3).map_or(UNKNOWN, i64::unsigned_abs),
        accepted: 0,
    }))
}

/// The lanes of such a row, the fifth and sixth columns, or the only one.
fn lanes_of(row: &SimpleQueryRow) -> Lanes {
    match (simple::text(row, 4), simple::number(row, 5)) {
        (Some(lanes), Some(block)) => {
            let sequences = lanes.split(',').map(|sequence| sequence.parse().unwrap_or(0));
            Lanes::new(block, sequences.collect())
        }
        _ => Lanes::single(simple::number(row, 0).unwrap_or(0)),
    }
}

/// Where the ledger of a shard stands, of each lane or of the only writer; none where it has no checkpoint
/// yet.
pub(crate) async fn seal_points(client: &Client, shard: &Shard) -> Result<Vec<Point>, Error> {
    let open = "seal_number, seal_hash, seal_after, seal_to, \
        (extract(epoch FROM seal_first_at) * 1000000::numeric)::bigint, seal_messages, seal_letters, \
        seal_superseded, seal_tables, seal_rows, seal_unstored, seal_digest";
    let sql = format!(
        "SELECT last_sequence, {open}, lane, lanes, block FROM jetcopy.lanes WHERE shard = $1 \
         UNION ALL SELECT last_sequence, {open}, 0, NULL, NULL FROM jetcopy.checkpoints WHERE shard = $1 \
           AND NOT EXISTS (SELECT FROM jetcopy.lanes lane WHERE lane.shard = $1) \
         ORDER BY lane"
    );
    let found = client.query_typed(&sql, &[(&shard.name, Type::TEXT)]).await?;
    found.iter().map(point).collect()
}

fn point(row: &Row) -> Result<Point, Error> {
    let number = |column| row.try_get(column).map(|value: i64| u64::try_from(value).unwrap_or(0));
    let (rows, unstored): (Vec<i64>, Vec<i64>) = (row.try_get(10)?, row.try_get(11)?);
    Ok(Point {
        last_sequence: number(0)?,
        number: number(1)?,
        hash: row.try_get(2)?,
        after: number(3)?,
        open: Stretch {
            number: number(1)? + 1,
            share: seal::share(row, 13)?,
            from: number(3)? + 1,
            to: number(4)?,
            first_at_us: row.try_get(5)?,
            messages: number(6)?,
            letters: number(7)?,
            superseded: number(8)?,
            rows: seal::stored(row.try_get(9)?, &rows, &unstored),
            digest: row.try_get(12)?,
        },
    })
}

/// The last sequence that is committed in the shard of this name.
pub(crate) async fn last_sequence(client: &Client, shard: &str) -> Result<Option<u64>, Error> {
    Ok(ask(client, &last_sequence_sql(shard)).await?.number(0))
}

/// SQL for the same.
#[must_use]
pub(crate) fn last_sequence_sql(shard: &str) -> String {
    format!("SELECT {} FROM jetcopy.checkpoints c WHERE c.shard = {}", floor_sql("c"), escape_literal(shard))
}

/// The daemon that holds a shard and is alive.
pub(crate) async fn live_owner(client: &Client, shard: &Shard) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT CASE WHEN {} THEN owner END FROM jetcopy.checkpoints WHERE shard = {}",
        daemons::lives_sql("owner"),
        escape_literal(&shard.name)
    );
    Ok(ask(client, &sql).await?.text(0).map(str::to_owned))
}

/// SQL for the checkpoint's row in a `FROM`: its columns `pipeline`, `shard`, `stream` and `stream_created`.
#[must_use]
pub(crate) fn row_sql(shard: &str) -> String {
    format!(
        "(SELECT pipeline, shard, stream, stream_created FROM jetcopy.checkpoints WHERE shard = {})",
        escape_literal(shard)
    )
}

/// A checkpoint, as operators look at it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The last sequence that is committed.
    pub(crate) last_sequence: Option<u64>,
    /// When the checkpoint moved last, in RFC 3339.
    pub(crate) committed_at: Option<String>,
    /// The daemon that holds it and is alive.
    pub(crate) owner: Option<String>,
    /// Who paused it.
    pub(crate) paused: Option<Paused>,
    /// When the stream was created that it counts in, in microseconds since the Unix epoch.
    pub(crate) stream_created_us: Option<i64>,
    /// The flood that stops it.
    pub(crate) flood: Option<Flood>,
}

/// A flood of dead letters that stops a shard.
#[derive(Debug)]
pub(crate) struct Flood {
    pub(crate) reason: String,
    /// A few of its messages, a JSON array.
    pub(crate) samples: String,
}

/// Looks at a checkpoint; `None` where there is none yet.
pub(crate) async fn look(client: &Client, shard: &Shard) -> Result<Option<Seen>, Error> {
    let sql = format!(
        "SELECT {}, to_char(greatest(updated_at, \
             (SELECT max(lane.updated_at) FROM jetcopy.lanes lane WHERE lane.shard = c.shard)) \
             AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
           CASE WHEN {} THEN owner END, paused_by, \
           to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), \
           (extract(epoch FROM stream_created) * 1000000::numeric)::bigint, \
           flood ->> 'reason'::text, flood ->> 'samples'::text, accepted_letters = 0 \
         FROM jetcopy.checkpoints c WHERE c.shard = {}",
        floor_sql("c"),
        daemons::lives_sql("owner"),
        escape_literal(&shard.name)
    );
    let found = ask(client, &sql).await?;
    Ok(found.first().map(|row| {
        let text = |column| simple::text(row, column).map(str::to_owned);
        let flood = |reason| Flood { reason, samples: text(7).unwrap_or_default() };
        Seen {
            last_sequence: simple::number(row, 0),
            committed_at: text(1),
            owner: text(2),
            paused: text(4).map(|since| Paused { by: text(3).unwrap_or_default(), since }),
            stream_created_us: simple::number(row, 5),
            flood: text(6).filter(|_| simple::is_true(row, 8)).map(flood),
        }
    }))
}

/// Why a pipeline's position is still somebody's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// This daemon, which is alive, has it.
    Daemon(String),
    /// An operator has paused it.
    Operator,
}

/// Who keeps a shard of `pipeline`, whatever is configured.
pub(crate) async fn keepers(client: &Client, pipeline: &str) -> Result<Vec<Keeper>, Error> {
    let sql = format!(
        "SELECT CASE WHEN {} THEN owner END, paused_at IS NOT NULL \
         FROM jetcopy.checkpoints WHERE pipeline = {}",
        daemons::lives_sql("owner"),
        escape_literal(pipeline)
    );
    let found = ask(client, &sql).await?;
    let keeper = |row| match simple::text(row, 0) {
        Some(owner) => Some(Keeper::Daemon(owner.to_owned())),
        None => simple::is_true(row, 1).then_some(Keeper::Operator),
    };
    Ok(found.rows().filter_map(keeper).collect())
}
