//! Frames and detections: real detections of four videos.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{carry, publish};
use crate::support::{World, days_ago, shared_data};

/// When it begins, in microseconds; frames follow at 25 a second.
fn start() -> i64 {
    days_ago(10)
}

/// Count and sums of the files: score and area of the boxes.
type Sums = (i64, f64, f64);

/// Messages by camera, one a frame, and the sums of each camera's file.
fn cameras() -> Option<BTreeMap<String, (Vec<Value>, Sums)>> {
    let mut cameras = BTreeMap::new();
    for entry in shared_data("detections")?.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let mut frames: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
        let mut sums = (0, 0.0, 0.0);
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |index: usize| fields[index].parse::<f64>().unwrap();
            let edges = [2, 3, 4, 5].map(number);
            sums = (sums.0 + 1, sums.1 + number(6), sums.2 + edges[2] * edges[3]);
            let detection = json!({"label": "person", "confidence": number(6), "box": edges});
            frames.entry(fields[0].parse().unwrap()).or_default().push(detection);
        }
        let message = |(frame, detections): (i64, Vec<Value>)| {
            json!({"timestamp": start() + frame * 40_000, "frame_id": frame, "site": "street",
                "detections": detections})
        };
        let camera = path.file_stem().unwrap().to_str().unwrap().to_owned();
        cameras.insert(camera, (frames.into_iter().map(message).collect(), sums));
    }
    Some(cameras)
}

#[tokio::test]
async fn real_detections_are_stored_with_their_frames() {
    let Some(cameras) = cameras() else { return };
    let world = World::new().await;
    for (camera, (messages, _)) in &cameras {
        publish(&world, camera, messages.clone()).await;
    }
    let _daemon = carry(&world, "frames").await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    for (camera, (messages, sums)) in &cameras {
        let sql =
            "SELECT count(*), max(frame_id), min(attributes::text) FROM frame_metadata WHERE camera_id = $1";
        let row = world.database.query_one(sql, &[camera]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), i64::try_from(messages.len()).unwrap(), "{camera}");
        assert_eq!(row.get::<_, &str>(2), r#"{"site": "street"}"#);
        let sql = "SELECT count(*), sum(confidence), sum(bbox_width * bbox_height), count(*) FILTER \
            (WHERE label = 'person')
            FROM detection_events WHERE camera_id = $1";
        let row = world.database.query_one(sql, &[camera]).await.unwrap();
        let found: Sums = (row.get(0), row.get(1), row.get(2));
        assert_eq!((found.0, row.get::<_, i64>(3)), (sums.0, sums.0), "{camera}");
        // The server adds up in another order than the file.
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
        assert!(close(found.1, sums.1) && close(found.2, sums.2), "{camera}: {found:?}, {sums:?}");
    }
}
