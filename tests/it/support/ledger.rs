//! What must be true of the ledger after any fault: seals form one chain, they and the checkpoint's row count
//! what the tables hold, and their digests are those of the stream's messages.

use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;

use super::World;

/// A stretch with more messages is not read again: reading them one by one takes as long as the test.
const FEW: i64 = 1_000;

/// The chain, and the checkpoint that it leads to. `$1` is the shard.
const CHAIN: &str = "WITH chain AS (
        SELECT s.*, row_number() OVER w AS place, lag(s.to_sequence, 1, 0::bigint) OVER w AS at,
            jetcopy.seal_text(s, lag(s.hash) OVER w) AS text
        FROM jetcopy.seals s WHERE s.shard = $1 AND s.lane = 0 WINDOW w AS (ORDER BY s.number)),
    last AS (SELECT * FROM chain ORDER BY number DESC LIMIT 1),
    point AS (SELECT * FROM jetcopy.checkpoints WHERE shard = $1)";

/// Fails where the ledger of `pipeline` is not whole, or counts something else than `table` and the dead
/// letters hold.
pub(crate) async fn ledger(world: &World, pipeline: &str, table: &str) {
    is_a_chain(world, pipeline).await;
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
        {
            let (from, to) = (number("from_sequence"), number("to_sequence"));
            if let Some(again) = digest_of(world, from, to, number("messages")).await {
                assert_eq!(digest, again, "digest of {text}");
            }
        }
    }
}

async fn is_a_chain(world: &World, pipeline: &str) {
    let sql = format!(
        "{CHAIN} SELECT number, place, kind, from_sequence, at, text, hash FROM chain ORDER BY number"
    );
    let mut hashes = Vec::new();
    for seal in world.database.query(&sql, &[&pipeline]).await.unwrap() {
        let number: i64 = seal.get("number");
        assert_eq!(number, seal.get::<_, i64>("place"), "a seal is missing");
        let begins = seal.get::<_, i64>("at") + i64::from(seal.get::<_, &str>("kind") == "committed");
        assert_eq!(seal.get::<_, i64>("from_sequence"), begins, "seal {number} begins where the last ended");
        let hash: Vec<u8> = seal.get("hash");
        assert_eq!(hash, Sha256::digest(seal.get::<_, &str>("text")).to_vec(), "the hash of seal {number}");
        hashes.push(hash);
    }
    let sql = format!(
        "{CHAIN} SELECT coalesce(last.number, 0) = point.seal_number
             AND last.hash IS NOT DISTINCT FROM point.seal_hash
             AND coalesce(last.to_sequence, 0) = point.seal_after
             AND point.seal_to = point.last_sequence, point::text
         FROM point LEFT JOIN last ON true"
    );
    let point = world.database.query_one(&sql, &[&pipeline]).await.unwrap();
    assert!(
        point.get::<_, bool>(0),
        "the checkpoint goes on from the last seal: {}",
        point.get::<_, &str>(1)
    );
}

/// What was committed and not written again since: what the ledger counts, and what there is.
async fn stretches(world: &World, pipeline: &str, table: &str) -> Vec<Row> {
    let sql = format!(
        "{CHAIN}, seen AS (
            SELECT sequence FROM {table} UNION
            SELECT sequence FROM jetcopy.dead_letters WHERE pipeline = $1 UNION
            SELECT sequence FROM jetcopy.settlements WHERE pipeline = $1 AND action = 'discarded'),
        all_of_them AS (
            SELECT number, from_sequence, to_sequence, messages, letters, tables, rows, unstored, digest
            FROM chain WHERE kind = 'committed' UNION ALL
            SELECT seal_number + 1, seal_after + 1, seal_to, seal_messages, seal_letters, seal_tables,
                seal_rows, seal_unstored, seal_digest FROM point WHERE seal_messages > 0)
        SELECT a.*,
            (SELECT count(*) FROM seen WHERE sequence BETWEEN a.from_sequence AND a.to_sequence) AS found,
            (SELECT count(*) FROM jetcopy.dead_letters d WHERE d.pipeline = $1
                AND d.sequence BETWEEN a.from_sequence AND a.to_sequence)
                + (SELECT (count(*) - coalesce(sum(s.letters), 0))::bigint FROM jetcopy.settlements s
                    WHERE s.pipeline = $1
                    AND s.sequence BETWEEN a.from_sequence AND a.to_sequence) AS lettered,
            (SELECT sum(r - u)::bigint
                FROM unnest(a.tables, a.rows, a.unstored) AS of_table (t, r, u)
                WHERE to_regclass(t) = $2::text::regclass)
                + (SELECT coalesce(sum(r), 0)::bigint FROM jetcopy.settlements s,
                    unnest(s.tables, s.rows) AS of_table (t, r) WHERE s.pipeline = $1
                    AND to_regclass(t) = $2::text::regclass
                    AND s.sequence BETWEEN a.from_sequence AND a.to_sequence) AS counted,
            (SELECT count(*) FROM {table} WHERE sequence BETWEEN a.from_sequence AND a.to_sequence) AS stored
        FROM all_of_them a
        WHERE NOT EXISTS (SELECT FROM chain m WHERE m.kind <> 'committed' AND m.number > a.number
            AND (m.to_sequence < a.to_sequence OR m.kind = 'rebuilt'))
        ORDER BY a.number"
    );
    world.database.query(&sql, &[&pipeline, &table]).await.unwrap()
}

/// The digest of what the stream holds; `None` where that is not all of it.
async fn digest_of(world: &World, from: i64, to: i64, messages: i64) -> Option<Vec<u8>> {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let mut hasher = blake3::Hasher::new();
    let mut found = 0;
    for sequence in from..=to {
        let sequence = u64::try_from(sequence).unwrap();
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        found += 1;
        hasher.update(&sequence.to_le_bytes());
        hasher.update(&(message.payload.len() as u64).to_le_bytes());
        hasher.update(&message.payload);
    }
    (found == messages).then(|| hasher.finalize().as_bytes().to_vec())
}
