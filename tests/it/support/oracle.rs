//! What must be true after any fault.

use async_nats::jetstream::consumer::pull;

use super::ledger::ledger;
use super::{Daemon, World, eventually};

/// Differences that are printed; the first ones tell the pattern.
const SHOWN: usize = 10;

/// Checks that each message that the stream ever held is once in `table` or once in the dead letters and
/// nothing else is, that checkpoint and ack floor stand at the stream's end, and that `fresh`, a good
/// message, becomes a row. The ledger counts the same ([`ledger`]).
///
/// A message that somebody deleted in the middle of the stream may be there once or not at all; one that is
/// recorded as dropped in `jetcopy.losses` must not be there.
///
/// The pipeline has the name of its durable without `jetcopy-`; `table` has a column `sequence` from
/// `$sequence`.
pub(crate) async fn oracle(world: &World, daemon: &Daemon, pipeline: &str, table: &str, fresh: Vec<u8>) {
    world.drained(pipeline, daemon).await;
    each_message_once(world, pipeline, table).await;
    acked_to_the_end(world, pipeline).await;
    ledger(world, pipeline, table).await;

    let rows = world.count(&format!("SELECT count(*) FROM {table}")).await;
    world.publish("fresh", [fresh]).await;
    world.drained(pipeline, daemon).await;
    let after = world.count(&format!("SELECT count(*) FROM {table}")).await;
    assert_eq!(after, rows + 1, "a fresh message becomes a row");
    each_message_once(world, pipeline, table).await;
    acked_to_the_end(world, pipeline).await;
    ledger(world, pipeline, table).await;
}

async fn each_message_once(world: &World, pipeline: &str, table: &str) {
    let differences = differences(world, pipeline, table).await;
    let shown: Vec<&str> = differences.iter().take(SHOWN).map(String::as_str).collect();
    assert!(
        differences.is_empty(),
        "{} messages are not there exactly once:\n{}",
        differences.len(),
        shown.join("\n")
    );
}

/// A line for each sequence that is not in its place once.
async fn differences(world: &World, pipeline: &str, table: &str) -> Vec<String> {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let info = stream.info_builder().with_deleted(true).fetch().await.unwrap().info;
    let sequence = |sequence: u64| i64::try_from(sequence).unwrap();
    let deleted: Vec<i64> = info.state.deleted.iter().flatten().copied().map(sequence).collect();
    let sql = format!(
        "WITH seen AS (
             SELECT sequence, 'row' AS place FROM {table}
             UNION ALL SELECT sequence, 'dead letter' FROM jetcopy.dead_letters WHERE pipeline = $1 \
                 AND element IS NULL
         ), found AS (SELECT sequence, count(*) AS times, string_agg(place, ', ' ORDER BY place DESC) \
             AS places FROM seen GROUP BY 1),
         published AS (
             SELECT generate_series(1, $2::int8) AS sequence EXCEPT
             SELECT generate_series(first_sequence, last_sequence) FROM jetcopy.losses
             WHERE pipeline = $1 AND cause = 'dropped'
         )
         SELECT sequence, coalesce(times, 0), coalesce(places, 'nowhere'), published.sequence IS NOT NULL
         FROM found FULL JOIN published USING (sequence)
         WHERE (times IS DISTINCT FROM 1 OR published.sequence IS NULL)
             AND NOT (times IS NULL AND sequence = ANY ($3)) ORDER BY 1"
    );
    let last = sequence(info.state.last_sequence);
    let differences = world.database.query(&sql, &[&pipeline, &last, &deleted]).await.unwrap();
    differences
        .iter()
        .map(|row| {
            let (sequence, times, places): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
            let published = if row.get(3) { "published" } else { "never published" };
            format!("sequence {sequence}, {published}: {times} times ({places})")
        })
        .collect()
}

async fn acked_to_the_end(world: &World, pipeline: &str) {
    let last = world.last_sequence().await;
    assert_eq!(world.checkpoint(pipeline).await, last);
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let durable = format!("jetcopy-{pipeline}");
    // The ack follows the commit, so it may still be on its way.
    eventually(&format!("ack floor {last}"), || async {
        // One that was deleted may not be there again yet.
        let Ok(mut consumer) = stream.get_consumer::<pull::Config>(&durable).await else { return false };
        let floor = consumer.info().await.unwrap().ack_floor.stream_sequence;
        assert!(floor <= last, "the ack floor {floor} lies beyond the stream's end {last}");
        floor == last
    })
    .await;
}

#[tokio::test]
async fn the_oracle_names_what_is_lost_doubled_in_both_places_or_made_up() {
    let world = World::new().await;
    world.publish("a", (1..=5).map(|_| "{}")).await;
    let dead =
        "INSERT INTO jetcopy.dead_letters (pipeline, shard, stream, sequence, subject, payload, kind, \
        message)
                VALUES ('events', 'events', 's', $1, 'a', '', 'malformed', '')";
    world
        .database
        .batch_execute("CREATE TABLE events AS SELECT unnest(ARRAY[1,2,3]::int8[]) AS sequence")
        .await
        .unwrap();
    for sequence in [4_i64, 5] {
        world.database.execute(dead, &[&sequence]).await.unwrap();
    }
    assert_eq!(differences(&world, "events", "events").await, [""; 0]);

    world.database.batch_execute("UPDATE events SET sequence = 2 WHERE sequence = 3").await.unwrap();
    world.database.batch_execute("INSERT INTO events VALUES (5), (6)").await.unwrap();
    assert_eq!(
        differences(&world, "events", "events").await,
        [
            "sequence 2, published: 2 times (row, row)",
            "sequence 3, published: 0 times (nowhere)",
            "sequence 5, published: 2 times (row, dead letter)",
            "sequence 6, never published: 1 times (row)",
        ]
    );
}
