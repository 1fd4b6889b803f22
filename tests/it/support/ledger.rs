//! What must be true of the ledger after any fault: the seals of each writer form one chain, they and the
//! rows of checkpoint and lanes count what the tables hold, and their digests are those of the stream's
//! messages.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;

use super::World;

/// A stretch with more messages is not read again: reading them one by one takes as long as the test.
const FEW: i64 = 1_000;

/// The chains, and the rows that each leads to: of the lanes, or of the checkpoint where there are none. `$1`
/// is the shard.
const CHAIN: &str = "WITH chain AS (
        SELECT s.*, row_number() OVER w AS place, lag(s.to_sequence, 1, 0::bigint) OVER w AS at,
            jetcopy.seal_text(s, lag(s.hash) OVER w) AS text
        FROM jetcopy.seals s WHERE s.shard = $1 WINDOW w AS (PARTITION BY s.lane ORDER BY s.number)),
    last AS (SELECT DISTINCT ON (lane) * FROM chain ORDER BY lane, number DESC),
    point AS (
        SELECT lane, lanes, block, l.last_sequence, l.seal_number, l.seal_hash, l.seal_after, l.seal_to,
            l.seal_messages, l.seal_letters, l.seal_tables, l.seal_rows, l.seal_unstored, l.seal_digest
        FROM jetcopy.lanes l WHERE shard = $1
        UNION ALL SELECT 0, NULL, NULL, last_sequence, seal_number, seal_hash, seal_after, seal_to,
            seal_messages, seal_letters, seal_tables, seal_rows, seal_unstored, seal_digest
        FROM jetcopy.checkpoints WHERE shard = $1
            AND NOT EXISTS (SELECT FROM jetcopy.lanes l WHERE l.shard = $1))";

/// What was committed and not left behind since by a move back: by its own lane, or after it by another
/// number of writers.
const STANDING: &str = "all_of_them AS (
        SELECT number, from_sequence, to_sequence, messages, letters, tables, rows, unstored, digest, lane,
            lanes, block, sealed_at
        FROM chain WHERE kind = 'committed' UNION ALL
        SELECT seal_number + 1, seal_after + 1, seal_to, seal_messages, seal_letters, seal_tables,
            seal_rows, seal_unstored, seal_digest, lane, lanes, block, 'infinity'
        FROM point WHERE seal_messages > 0),
    standing AS (SELECT * FROM all_of_them a
        WHERE NOT EXISTS (SELECT FROM chain m WHERE m.kind <> 'committed'
            AND (m.to_sequence < a.to_sequence OR m.kind = 'rebuilt')
            AND CASE WHEN m.lane = a.lane THEN m.number > a.number
                ELSE (m.lanes, m.block) IS DISTINCT FROM (a.lanes, a.block)
                    AND m.sealed_at > a.sealed_at END)),
    seen AS (
        SELECT sequence FROM {table} UNION
        SELECT sequence FROM jetcopy.dead_letters WHERE pipeline = $1 UNION
        SELECT sequence FROM jetcopy.settlements WHERE pipeline = $1 AND action = 'discarded')";

/// Whether a sequence is of a stretch.
const OF: &str = "sequence BETWEEN a.from_sequence AND a.to_sequence
    AND coalesce((sequence - 1) / a.block % a.lanes = a.lane, true)";

/// Fails where the ledger of `pipeline` is not whole, or counts something else than `table` and the dead
/// letters hold.
pub(crate) async fn ledger(world: &World, pipeline: &str, table: &str) {
    are_chains(world, pipeline).await;
    for stretch in stretches(world, pipeline, table).await {
        let text = format!("{stretch:?}");
        let number = |column: &str| stretch.get::<_, i64>(column);
        assert_eq!(number("messages"), number("found"), "messages of {text}");
        assert_eq!(number("letters"), number("lettered"), "dead letters of {text}");
        // A table that was moved since is counted by the name that it had.
        if let Some(counted) = stretch.get::<_, Option<i64>>("counted") {
            assert_eq!(counted, number("stored"), "rows of {text}");
        }
        if let Some(digest) = stretch.get::<_, Option<Vec<u8>>>("digest")
            && number("messages") <= FEW
            && let Some(again) = digest_of(world, &stretch).await
        {
            assert_eq!(digest, again, "digest of {text}");
        }
    }
    is_complete(world, pipeline, table).await;
}

async fn are_chains(world: &World, pipeline: &str) {
    let sql = format!(
        "{CHAIN} SELECT lane, number, place, kind, from_sequence, at, text, hash, digest, epoch FROM chain \
         ORDER BY lane DESC, number"
    );
    // Of the other chains, at each change of the number of writers.
    let mut changes: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
    for seal in world.database.query(&sql, &[&pipeline]).await.unwrap() {
        let number: i64 = seal.get("number");
        let (lane, kind): (i32, &str) = (seal.get("lane"), seal.get("kind"));
        assert_eq!(number, seal.get::<_, i64>("place"), "a seal of lane {lane} is missing");
        let begins = seal.get::<_, i64>("at") + i64::from(kind == "committed");
        assert_eq!(
            seal.get::<_, i64>("from_sequence"),
            begins,
            "seal {number} of lane {lane} begins where the last ended"
        );
        let hash: Vec<u8> = seal.get("hash");
        let again = Sha256::digest(seal.get::<_, &str>("text")).to_vec();
        assert_eq!(hash, again, "the hash of seal {number} of lane {lane}");
        if kind == "lanes" && lane > 0 {
            changes.entry(seal.get("epoch")).or_default().insert(0, hash);
        } else if kind == "lanes" {
            let ends = changes.remove(&seal.get("epoch")).unwrap_or_default().concat();
            let digest: Vec<u8> = seal.get("digest");
            assert_eq!(digest, Sha256::digest(ends).to_vec(), "what seal {number} says of other chains");
        }
    }
    assert!(changes.is_empty(), "the first chain knows of each change: {changes:?}");
    let sql = format!(
        "{CHAIN} SELECT coalesce(last.number, 0) = point.seal_number
             AND last.hash IS NOT DISTINCT FROM point.seal_hash
             AND coalesce(last.to_sequence, 0) = point.seal_after
             AND point.seal_to = point.last_sequence, point::text
         FROM point LEFT JOIN last USING (lane)"
    );
    for point in world.database.query(&sql, &[&pipeline]).await.unwrap() {
        let text = point.get::<_, &str>(1);
        assert!(point.get::<_, bool>(0), "checkpoint or lane goes on from its last seal: {text}");
    }
}

/// What was committed and not written again since: what the ledger counts, and what there is.
async fn stretches(world: &World, pipeline: &str, table: &str) -> Vec<Row> {
    let sql = format!(
        "{CHAIN}, {}
        SELECT a.*,
            (SELECT count(*) FROM seen WHERE {OF}) AS found,
            (SELECT count(*) FROM jetcopy.dead_letters d WHERE d.pipeline = $1 AND {OF})
                + (SELECT (count(*) - coalesce(sum(s.letters), 0))::bigint FROM jetcopy.settlements s
                    WHERE s.pipeline = $1 AND {OF}) AS lettered,
            (SELECT sum(r - u)::bigint
                FROM unnest(a.tables, a.rows, a.unstored) AS of_table (t, r, u)
                WHERE to_regclass(t) = $2::text::regclass)
                + (SELECT coalesce(sum(r), 0)::bigint FROM jetcopy.settlements s,
                    unnest(s.tables, s.rows) AS of_table (t, r) WHERE s.pipeline = $1
                    AND to_regclass(t) = $2::text::regclass AND {OF}) AS counted,
            (SELECT count(*) FROM {table} WHERE {OF}) AS stored
        FROM standing a ORDER BY a.lane, a.number",
        STANDING.replace("{table}", table)
    );
    world.database.query(&sql, &[&pipeline, &table]).await.unwrap()
}

/// Fails where something is there that no stretch counts, though no checkpoint was moved but by commits and a
/// change of the number of writers.
async fn is_complete(world: &World, pipeline: &str, table: &str) {
    let sql = format!(
        "{CHAIN}, {} SELECT array_agg(sequence) FROM seen \
         WHERE NOT EXISTS (SELECT FROM standing a WHERE {OF}) \
           AND NOT EXISTS (SELECT FROM chain WHERE kind NOT IN ('committed', 'lanes') \
             OR to_sequence < from_sequence - 1)",
        STANDING.replace("{table}", table)
    );
    let uncounted = world.database.query_one(&sql, &[&pipeline]).await.unwrap();
    assert_eq!(uncounted.get::<_, Option<Vec<i64>>>(0), None, "no seal counts these");
}

/// The digest of what the stream holds of a stretch; `None` where that is not all of it.
async fn digest_of(world: &World, stretch: &Row) -> Option<Vec<u8>> {
    let number = |column: &str| stretch.get::<_, i64>(column);
    let (lane, lanes): (i32, Option<i32>) = (stretch.get("lane"), stretch.get("lanes"));
    let of_lane = |sequence: &i64| {
        lanes.is_none_or(|lanes| (sequence - 1) / number("block") % i64::from(lanes) == i64::from(lane))
    };
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let mut hasher = blake3::Hasher::new();
    let mut found = 0;
    for sequence in (number("from_sequence")..=number("to_sequence")).filter(of_lane) {
        let sequence = u64::try_from(sequence).unwrap();
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        found += 1;
        hasher.update(&sequence.to_le_bytes());
        hasher.update(&(message.payload.len() as u64).to_le_bytes());
        hasher.update(&message.payload);
    }
    (found == number("messages")).then(|| hasher.finalize().as_bytes().to_vec())
}
