//! The store's life cycle on TimescaleDB, with the daemon at work: direct compress, and rows that come late.

use std::cell::Cell;
use std::time::Duration;

use jetcopy::config;
use jetcopy::store::timescale;
use jetcopy::testbed::TestPostgres;
use serde_json::json;

use crate::support::{Daemon, World, eventually, oracle};

const PIPELINE: &str = r#"
[[pipeline]]
name = "frames"
stream = "STREAM"
format = "msgpack"
batch = { max_rows = 2_000, max_age = "50ms" }

[[pipeline.table]]
name = "frame_metadata"
DIRECT
[pipeline.table.columns]
time = { from = "timestamp", unit = "us" }
camera_id = "camera"
"#;

/// Messages that a load publishes in one go.
const MESSAGES: u64 = 1_000;

/// A frame of one of five cameras, so many hours ago.
fn frame(id: u64, hours_ago: i64) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_microsecond();
    rmp_serde::to_vec_named(&json!({
        "timestamp": now - hours_ago * 3_600_000_000,
        "camera": format!("cam-{}", id % 5),
        "frame_id": id,
        "codec": "h264",
    }))
    .unwrap()
}

/// A world on TimescaleDB whose store follows the defaults, `frame_metadata` with a column for the oracle, or
/// `None`, said aloud, where there is none.
async fn world() -> Option<World> {
    let postgres = TestPostgres::shared().unwrap();
    if postgres.lacks_timescaledb() {
        return None;
    }
    let world = World::new().await;
    // Jobs run when the test says so.
    world.stop_jobs().await;
    world.database.batch_execute("ALTER TABLE frame_metadata ADD COLUMN sequence bigint").await.unwrap();
    let settings = config::Postgres { url: world.own_url.clone(), ..config::Postgres::default() };
    timescale::apply(&settings).await.unwrap();
    Some(world)
}

fn pipeline(table: &str) -> String {
    PIPELINE.replace("DIRECT", table) + "sequence = \"$sequence\"\n"
}

/// Compressed chunks of `frame_metadata`, and rows that lie in it uncompressed.
async fn compressed(world: &World) -> (i64, i64) {
    let chunks = world
        .count(
            "SELECT count(*) FROM timescaledb_information.chunks
             WHERE hypertable_name = 'frame_metadata' AND is_compressed",
        )
        .await;
    let sql = "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
               WHERE hypertable_name = 'frame_metadata'";
    let mut loose = 0;
    for row in world.database.query(sql, &[]).await.unwrap() {
        // Read behind the back of decompression, as the heap holds it.
        let chunk: String = row.get(0);
        world.database.batch_execute("SET timescaledb.enable_transparent_decompression = off").await.unwrap();
        loose += world.count(&format!("SELECT count(*) FROM ONLY {chunk}")).await;
        world.database.batch_execute("RESET timescaledb.enable_transparent_decompression").await.unwrap();
    }
    (chunks, loose)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_arrive_compressed_are_there_once_whenever_the_daemon_is_killed() {
    let Some(world) = world().await else { return };
    let config = world.config(&pipeline("direct_compress = true"));
    let done = Cell::new(false);
    let load = async {
        let mut next = 1;
        while !done.get() {
            world.publish("load", (next..next + MESSAGES).map(|id| frame(id, 0))).await;
            next += MESSAGES;
        }
    };
    let kills = async {
        for moment in [0, 30, 90] {
            let before = world.checkpoint("frames").await;
            let daemon = Daemon::start(&config);
            eventually("a commit", || async { world.checkpoint("frames").await > before }).await;
            // Somewhere in the batches after a commit.
            tokio::time::sleep(Duration::from_millis(moment)).await;
            daemon.kill();
        }
        done.set(true);
    };
    tokio::join!(load, kills);
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "frames", "frame_metadata", frame(1, 0)).await;
    let (chunks, loose) = compressed(&world).await;
    assert!(chunks > 0, "rows arrive compressed");
    assert_eq!(loose, 0, "no row arrives uncompressed");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_reach_chunks_that_are_compressed_already() {
    let Some(world) = world().await else { return };
    let daemon = Daemon::start(&world.config(&pipeline("")));
    // Two to five days ago, all older than compress_after.
    let late = |ids: std::ops::Range<u64>| {
        ids.map(|id| frame(id, 48 + i64::try_from(id % 72).unwrap())).collect::<Vec<_>>()
    };
    world.publish("load", late(0..2_000)).await;
    world.drained("frames", &daemon).await;
    let job = world
        .count(
            "SELECT job_id::bigint FROM timescaledb_information.jobs
             WHERE hypertable_name = 'frame_metadata' AND proc_name = 'policy_compression'",
        )
        .await;
    world.database.batch_execute(&format!("CALL run_job({job})")).await.unwrap();
    let (chunks, loose) = compressed(&world).await;
    assert!(chunks > 0);
    assert_eq!(loose, 0, "all of the chunks are compressed");

    world.publish("load", late(2_000..4_000)).await;
    oracle(&world, &daemon, "frames", "frame_metadata", frame(4_000, 72)).await;
    assert_eq!(compressed(&world).await, (chunks, 2_001), "late rows lie beside the compressed ones");
    world.database.batch_execute(&format!("CALL run_job({job})")).await.unwrap();
    assert_eq!(compressed(&world).await, (chunks, 0), "until the job compresses them, too");
    assert_eq!(world.count("SELECT count(*) FROM frame_metadata").await, 4_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_no_compressed_rows_pauses_its_pipeline_until_it_does() {
    let Some(world) = world().await else { return };
    let unique = "CREATE UNIQUE INDEX once ON frame_metadata (camera_id, time, frame_id)";
    world.database.batch_execute(unique).await.unwrap();
    let daemon = Daemon::start(&world.config(&pipeline("direct_compress = true")));
    daemon.says("it has a unique index or exclusion constraint").await;
    world.publish("load", (0..100).map(|id| frame(id, 0))).await;
    world.database.batch_execute("DROP INDEX once").await.unwrap();
    oracle(&world, &daemon, "frames", "frame_metadata", frame(1, 0)).await;
}
