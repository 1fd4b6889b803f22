//! Frames and detections by binary `COPY`, in batches of one transaction each, as the daemon writes them.

use std::time::Instant;

use bytes::Bytes;
use futures_util::SinkExt;
use jetcopy::encode::copy_frame::{self, EPOCH_US, HEADER, TRAILER};
use tokio_postgres::Client;

use super::frames::{Frame, Frames, camera_name};
use super::report::Report;
use super::world::World;

/// Frames of a transaction: more than the daemon's batches, to have the load over sooner; what is stored is
/// the same.
const BATCH: usize = 50_000;
/// Bytes of a message, as the daemon sends them.
const CHUNK: usize = 64 * 1024;

const COPY_FRAMES: &str =
    "COPY frame_metadata (time, camera_id, frame_id, width, height, codec, fps, key_frame, size_bytes,
    processing_ms, brightness, motion, attributes) FROM STDIN (FORMAT binary)";
const COPY_DETECTIONS: &str =
    "COPY detection_events (time, camera_id, frame_id, track_id, label, confidence, bbox_left, bbox_top,
    bbox_width, bbox_height) FROM STDIN (FORMAT binary)";

/// Rows of both tables, encoded.
struct Batch {
    frames: Vec<u8>,
    detections: Vec<u8>,
    rows: [u64; 2],
}

pub(crate) async fn load(world: &World, frames: u64, start: i64, report: &mut Report) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Batch>(2);
    let generator = std::thread::spawn(move || {
        let mut frames = Frames::new(frames, start).peekable();
        while frames.peek().is_some() {
            if sender.blocking_send(encode(frames.by_ref().take(BATCH))).is_err() {
                break;
            }
        }
    });
    let (begun, mut seconds, mut rows) = (Instant::now(), [0.0; 2], [0_u64; 2]);
    let (mut processor, mut logged) = ([0.0; 2], [0.0; 2]);
    while let Some(batch) = receiver.recv().await {
        world.execute("BEGIN").await;
        for (index, (statement, bytes)) in
            [(COPY_FRAMES, batch.frames), (COPY_DETECTIONS, batch.detections)].into_iter().enumerate()
        {
            let (from, ran) = (world.log_position().await, world.processor_ms());
            let started = Instant::now();
            copy(&world.database, statement, bytes.into()).await;
            seconds[index] += started.elapsed().as_secs_f64();
            processor[index] += world.processor_ms() - ran;
            logged[index] += world.log_position().await - from;
            rows[index] += batch.rows[index];
        }
        world.execute("COMMIT").await;
    }
    generator.join().unwrap();
    println!(
        "loaded {} frames and {} detections in {:.0} s",
        rows[0],
        rows[1],
        begun.elapsed().as_secs_f64()
    );
    for (index, table) in ["frame_metadata", "detection_events"].into_iter().enumerate() {
        let count = rows[index] as f64;
        report.set(format!("{table}: rows"), count, "");
        report.set(format!("{table}: COPY"), count / seconds[index], "rows/s");
        report.set(format!("{table}: processor of COPY"), processor[index] * 1e3 / count, "µs a row");
        report.set(format!("{table}: log"), logged[index] / count, "bytes a row");
    }
}

async fn copy(database: &Client, statement: &str, mut bytes: Bytes) {
    let sink = database.copy_in::<_, Bytes>(statement).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    while !bytes.is_empty() {
        sink.feed(bytes.split_to(bytes.len().min(CHUNK))).await.unwrap();
    }
    sink.finish().await.unwrap();
}

fn encode(rows: impl Iterator<Item = Frame>) -> Batch {
    let mut batch = Batch { frames: HEADER.to_vec(), detections: HEADER.to_vec(), rows: [0; 2] };
    for row in rows {
        batch.rows[0] += 1;
        batch.rows[1] += row.detections.len() as u64;
        let camera = camera_name(row.camera);
        for detection in &row.detections {
            let out = &mut batch.detections;
            copy_frame::tuple(out, 10);
            copy_frame::int8(out, row.time - EPOCH_US);
            copy_frame::text(out, &camera).unwrap();
            copy_frame::int8(out, row.id);
            copy_frame::int8(out, detection.track);
            copy_frame::text(out, detection.label).unwrap();
            float8(out, detection.confidence);
            detection.bounds.iter().for_each(|&bound| float8(out, bound));
        }
        let out = &mut batch.frames;
        copy_frame::tuple(out, 13);
        copy_frame::int8(out, row.time - EPOCH_US);
        copy_frame::text(out, &camera).unwrap();
        copy_frame::int8(out, row.id);
        copy_frame::int4(out, row.size.0);
        copy_frame::int4(out, row.size.1);
        copy_frame::text(out, row.codec).unwrap();
        float8(out, row.fps);
        copy_frame::bool(out, row.key);
        copy_frame::int8(out, row.bytes);
        float8(out, row.processing_ms);
        float8(out, row.brightness);
        float8(out, row.motion);
        copy_frame::jsonb(out, row.attributes.as_bytes()).unwrap();
    }
    batch.frames.extend_from_slice(&TRAILER);
    batch.detections.extend_from_slice(&TRAILER);
    batch
}

fn float8(out: &mut Vec<u8>, value: f64) {
    copy_frame::int8(out, value.to_bits().cast_signed());
}
