//! Rows a second out of a filled stream, beside `COPY FROM` a file.

use std::time::{Duration, Instant};

use futures_util::stream;
use jetcopy::private::connect;
use jetcopy::publish::{Outgoing, publish};
use serde::Serialize;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::report::median;
use super::world::World;

const STREAM: &str = "FRAMES";
/// Messages that wait for their acks while the stream is filled.
const MAX_IN_FLIGHT: usize = 5_000;
/// How often the end of a drain is looked for. What is measured are the server's own commit times.
const POLL: Duration = Duration::from_millis(20);
/// How long a drain may take before the bench gives up.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    /// With a primary key.
    Indexed,
    /// Without any index.
    Plain,
}

impl Table {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Indexed => "indexed",
            Self::Plain => "plain",
        }
    }

    fn definition(self) -> String {
        let key = match self {
            Self::Indexed => ", PRIMARY KEY (camera_id, time, frame_id)",
            Self::Plain => "",
        };
        format!(
            "CREATE TABLE {} (time timestamptz NOT NULL, frame_id bigint NOT NULL, camera_id text NOT NULL,
             width integer, height integer, codec text, fps real, key_frame boolean, processing_ms real,
             brightness real, motion real, attributes jsonb{key})",
            self.name()
        )
    }
}

pub(crate) struct Measured {
    /// Rows a second by the daemon.
    pub(crate) drained: f64,
    /// Rows a second by `COPY`.
    pub(crate) limit: f64,
    pub(crate) cpu_seconds_per_million_rows: Vec<f64>,
    pub(crate) peak_memory_mib: f64,
}

/// A frame of twelve fields.
#[derive(Serialize)]
struct Frame {
    timestamp: u64,
    #[expect(clippy::struct_field_names, reason = "the column's name")]
    frame_id: u64,
    camera_id: String,
    width: u32,
    height: u32,
    codec: &'static str,
    fps: f32,
    #[expect(clippy::struct_field_names, reason = "the column's name")]
    key_frame: bool,
    processing_ms: f32,
    brightness: f32,
    motion: f32,
    /// About 110 bytes as JSON, which is most of what a row costs the server.
    attributes: Value,
}

fn frame(index: u64) -> Vec<u8> {
    let camera = index % 16;
    let share = |of: u64| (index % of) as f32 / of as f32;
    let frame = Frame {
        timestamp: 1_735_689_600_000_000 + index * 2_500,
        frame_id: index,
        camera_id: format!("cam-{camera:02}"),
        width: 1920,
        height: 1080,
        codec: "h264",
        fps: 25.0,
        key_frame: index.is_multiple_of(50),
        processing_ms: 3.0 + share(128),
        brightness: share(1_024),
        motion: share(512),
        attributes: json!({"site": "north", "lens": "wide", "exposure": 0.0125, "gain": index % 48, "night": false,
            "zone": camera, "firmware": "4.2.1"}),
    };
    rmp_serde::to_vec_named(&frame).unwrap()
}

/// Fills the stream. Returns the size of a message in bytes.
pub(crate) async fn fill(world: &World, messages: u64) -> usize {
    world.create_stream(STREAM).await;
    let start = Instant::now();
    let frames = (0..messages).map(|index| Outgoing {
        subject: format!("{STREAM}.cam-{}", index % 16).into(),
        headers: None,
        payload: frame(index).into(),
    });
    publish(&world.client, stream::iter(frames), MAX_IN_FLIGHT, |_| {}).await.unwrap();
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    println!("published {messages} messages at {rate:.0} a second");
    frame(messages / 2).len()
}

/// Drains and copies by turns.
pub(crate) async fn measure(world: &World, table: Table, messages: u64, rounds: usize) -> Measured {
    let name = table.name();
    world.execute(&table.definition()).await;
    let (mut drained, mut limit, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak_memory_mib: f64 = 0.0;
    let file = world.postgres.directory().join(format!("{name}.bin"));
    for round in 0..rounds {
        empty(world, name).await;
        let mut daemon = Daemon::start(&world.config(STREAM, name));
        let deadline = Instant::now() + PATIENCE;
        while world.checkpoint(name).await < messages {
            daemon.assert_running();
            assert!(Instant::now() < deadline, "the drain has not ended in {PATIENCE:?}");
            tokio::time::sleep(POLL).await;
        }
        cpu.push(daemon.cpu_seconds() / messages as f64 * 1e6);
        peak_memory_mib = peak_memory_mib.max(daemon.peak_memory_mib());
        drained.push(by_commit_times(world, name, messages).await);
        daemon.stop();

        if round == 0 {
            world.execute(&format!("COPY {name} TO '{}' (FORMAT binary)", file.display())).await;
        }
        empty(world, name).await;
        // A session of its own, as the daemon has one: its first touch of each page of the buffers counts on both sides.
        let session = connect(&world.database_url).await.unwrap();
        let start = Instant::now();
        session
            .batch_execute(&format!("COPY {name} FROM '{}' (FORMAT binary)", file.display()))
            .await
            .unwrap();
        limit.push(messages as f64 / start.elapsed().as_secs_f64());
        println!(
            "{name}, round {}: drained {:.0} rows/s, COPY {:.0} rows/s, CPU {:.2} s a million rows, peak {:.0} MiB",
            round + 1,
            drained[round],
            limit[round],
            cpu[round],
            peak_memory_mib
        );
    }
    world.execute(&format!("DROP TABLE {name}")).await;
    Measured {
        drained: median(drained),
        limit: median(limit),
        cpu_seconds_per_million_rows: cpu,
        peak_memory_mib,
    }
}

/// An empty table, no checkpoint, and nothing left to flush from before.
async fn empty(world: &World, table: &str) {
    world.execute(&format!("TRUNCATE {table}")).await;
    world.execute("DELETE FROM jetcopy.checkpoints").await;
    world.execute("CHECKPOINT").await;
}

/// Rows a second after the first commit.
async fn by_commit_times(world: &World, table: &str, messages: u64) -> f64 {
    let sql = format!(
        "WITH commits AS (SELECT xmin::text, count(*) AS rows FROM {table} GROUP BY 1),
              times AS (SELECT pg_xact_commit_timestamp(xmin::xid) AS at, rows FROM commits),
              ends AS (SELECT min(at) AS first, max(at) AS last, sum(rows)::int8 AS rows FROM times)
         SELECT ends.rows, (ends.rows - times.rows)::float8, extract(epoch FROM last - first)::float8
         FROM ends JOIN times ON times.at = ends.first"
    );
    let row = world.database.query_one(&sql, &[]).await.unwrap();
    let (rows, after_first, seconds): (i64, f64, f64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(u64::try_from(rows).unwrap(), messages, "each message is a row");
    after_first / seconds
}
