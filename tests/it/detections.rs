//! Real detections, one message a video frame: every line of the files becomes a row.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Daemon, World, days_ago, shared_data};

const PIPELINE: &str = r#"
[[pipeline]]
name = "frames"
stream = "STREAM"
format = "FORMAT"

[[pipeline.table]]
name = "frame_metadata"
[pipeline.table.columns]
time = { from = "timestamp", unit = "us" }
camera_id = "$subject[1]"
frame_id = "frame"

[[pipeline.table]]
name = "detection_events"
for_each = "detections"
[pipeline.table.columns]
time = { from = "^timestamp", unit = "us" }
camera_id = "$subject[1]"
frame_id = "^frame"
confidence = "score"
bbox_left = "box[0]"
bbox_top = "box[1]"
bbox_width = "box[2]"
bbox_height = "box[3]"
"#;

/// When it begins, in microseconds; frames follow at 25 a second.
fn start() -> i64 {
    days_ago(10)
}
const FRAME: i64 = 40_000;

/// A line of a file: box and score.
type Detection = ([f64; 4], f64);
/// Detections by camera (the file's name) and frame.
type Frames = BTreeMap<(String, i64), Vec<Detection>>;

/// Reads the files: MOT format, `frame,id,left,top,width,height,score,…`.
fn frames() -> Option<Frames> {
    let mut frames = Frames::new();
    for entry in shared_data("detections")?.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let camera = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |index: usize| fields[index].parse::<f64>().unwrap();
            let frame = fields[0].parse().unwrap();
            let detection = ([number(2), number(3), number(4), number(5)], number(6));
            frames.entry((camera.clone(), frame)).or_default().push(detection);
        }
    }
    Some(frames)
}

fn message(frame: i64, detections: &[Detection]) -> Value {
    let detections: Vec<Value> = detections
        .iter()
        .map(|(edges, score)| json!({"box": edges, "score": score, "label": "person"}))
        .collect();
    json!({"timestamp": start() + frame * FRAME, "frame": frame, "detections": detections})
}

fn in_order(mut rows: Vec<(String, i64, [f64; 5])>) -> Vec<(String, i64, [f64; 5])> {
    rows.sort_by(|a, b| {
        let numbers = || a.2.iter().zip(&b.2).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then_with(|| numbers().unwrap_or(std::cmp::Ordering::Equal))
    });
    rows
}

/// Sums of score and of box area.
fn sums(rows: &[(String, i64, [f64; 5])]) -> (f64, f64) {
    rows.iter().fold((0.0, 0.0), |(score, area), (_, _, row)| (score + row[4], area + row[2] * row[3]))
}

async fn every_line_becomes_a_row(format: &str, encode: impl Fn(&Value) -> Vec<u8>) {
    let Some(frames) = frames() else { return };
    let world = World::new().await;
    for ((camera, frame), detections) in &frames {
        world.publish(camera, [encode(&message(*frame, detections))]).await;
    }
    let daemon = Daemon::start(&world.config(&PIPELINE.replace("FORMAT", format)));
    world.drained("frames", &daemon).await;

    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let stored =
        world.database.query("SELECT camera_id, frame_id, time FROM frame_metadata", &[]).await.unwrap();
    let stored: Vec<(String, i64, i64)> = stored
        .iter()
        .map(|row| {
            let time: std::time::SystemTime = row.get(2);
            let time = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
            (row.get(0), row.get(1), i64::try_from(time).unwrap())
        })
        .collect();
    assert_eq!(stored.len(), frames.len());
    for (camera, frame, time) in stored {
        assert!(frames.contains_key(&(camera, frame)));
        assert_eq!(time, start() + frame * FRAME);
    }

    let sql = "SELECT camera_id, frame_id, bbox_left, bbox_top, bbox_width, bbox_height, confidence
               FROM detection_events WHERE label = 'person'";
    let stored = world.database.query(sql, &[]).await.unwrap();
    let stored =
        stored.iter().map(|row| (row.get(0), row.get(1), [2, 3, 4, 5, 6].map(|column| row.get(column))));
    let stored = in_order(stored.collect());
    let expected = frames.iter().flat_map(|((camera, frame), detections)| {
        let row = |&([a, b, c, d], score): &Detection| (camera.clone(), *frame, [a, b, c, d, score]);
        detections.iter().map(row)
    });
    let expected = in_order(expected.collect());
    assert!(expected.len() > 7_000, "{}", expected.len());
    // Both lists are in one order, so that equal rows also sum up to the same bits.
    assert_eq!(sums(&stored), sums(&expected));
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn each_real_detection_sent_as_messagepack_is_a_row() {
    every_line_becomes_a_row("msgpack", |message| rmp_serde::to_vec_named(message).unwrap()).await;
}

#[tokio::test]
async fn each_real_detection_sent_as_json_is_a_row() {
    every_line_becomes_a_row("json", |message| message.to_string().into()).await;
}

/// The same messages into a table beside the store's, for which nothing is rounded.
const ROUNDED: &str = r#"
[[pipeline]]
name = "frames"
stream = "STREAM"

[[pipeline.table]]
name = "detection_events"
for_each = "detections"
[pipeline.table.columns]
time = { from = "^timestamp", unit = "us" }
camera_id = "$subject[1]"
frame_id = "^frame"
track_id = "$element"
confidence = { from = "score", round_bits = 10 }
bbox_left = { from = "box[0]", round_bits = 4 }
bbox_top = { from = "box[1]", round_bits = 4 }
bbox_width = { from = "box[2]", round = 1 }
bbox_height = { from = "box[3]", round = 0 }

[[pipeline.table]]
name = "as_sent"
for_each = "detections"
[pipeline.table.columns]
time = { from = "^timestamp", unit = "us" }
camera_id = "$subject[1]"
frame_id = "^frame"
track_id = "$element"
confidence = "score"
bbox_left = "box[0]"
bbox_top = "box[1]"
bbox_width = "box[2]"
bbox_height = "box[3]"
"#;

#[tokio::test]
async fn real_detections_lose_no_more_than_half_a_unit_of_the_last_digit_that_they_keep() {
    let Some(frames) = frames() else { return };
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE as_sent (LIKE detection_events)").await.unwrap();
    for ((camera, frame), detections) in &frames {
        world.publish(camera, [message(*frame, detections).to_string()]).await;
    }
    let daemon = Daemon::start(&world.config(ROUNDED));
    world.drained("frames", &daemon).await;
    assert!(world.count("SELECT count(*) FROM as_sent").await > 7_000);
    // Half a unit, and what a double is off by.
    let wrong = "SELECT count(*) FROM as_sent a FULL JOIN detection_events d \
        USING (camera_id, frame_id, track_id)
        WHERE coalesce(abs(a.confidence - d.confidence) <= 1 / 2048.0 \
            AND mod((d.confidence * 1024)::numeric, 1) = 0
            AND abs(a.bbox_left - d.bbox_left) <= 1 / 32.0 AND mod((d.bbox_left * 16)::numeric, 1) = 0
            AND abs(a.bbox_top - d.bbox_top) <= 1 / 32.0 AND mod((d.bbox_top * 16)::numeric, 1) = 0
            AND abs(a.bbox_width - d.bbox_width) <= 0.05 + 1e-12 AND d.bbox_width = d.bbox_width::numeric(9, \
                1)
            AND d.bbox_height = round(a.bbox_height::numeric), false) IS FALSE";
    assert_eq!(world.count(wrong).await, 0);
}
