//! Synthetic camera frames with nested detections.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::Subject;
use serde::Serialize;

use crate::publish::Outgoing;

/// Cameras that take turns.
const CAMERAS: u64 = 8;
/// Frames a camera delivers a second, as it claims.
const FPS: u64 = 25;
/// Detections of a frame: 0 up to this many.
const MOST_DETECTIONS: u64 = 5;
/// What is detected.
const LABELS: [&str; 4] = ["person", "car", "bicycle", "dog"];

#[derive(Debug, Serialize)]
struct Message {
    timestamp: i64,
    frame_id: u64,
    width: u32,
    height: u32,
    codec: &'static str,
    fps: f64,
    key_frame: bool,
    size_bytes: u64,
    processing_ms: f64,
    brightness: f64,
    motion: f64,
    attributes: Attributes,
    detections: Vec<Detection>,
}

#[derive(Debug, Serialize)]
struct Attributes {
    site: &'static str,
    exposure_us: u64,
    night: bool,
}

#[derive(Debug, Serialize)]
struct Detection {
    track: u64,
    label: &'static str,
    score: f64,
    #[serde(rename = "box")]
    edges: [f64; 4],
}

/// The `index`th frame, of this moment. Its content is different from frame to frame and the same from run to
/// run.
pub(super) fn frame(index: u64) -> Outgoing {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let camera = index % CAMERAS;
    let frame_id = index / CAMERAS;
    let mut noise = Noise(index);
    let detections = (0..noise.below(MOST_DETECTIONS + 1))
        .map(|n| Detection {
            track: camera * 1_000 + frame_id / (FPS * 2) + n,
            label: LABELS[usize::try_from(noise.below(LABELS.len() as u64)).unwrap_or(0)],
            score: 0.5 + noise.unit() / 2.0,
            edges: [
                noise.unit() * 1_800.0,
                noise.unit() * 900.0,
                20.0 + noise.unit() * 100.0,
                40.0 + noise.unit() * 140.0,
            ],
        })
        .collect();
    let message = Message {
        timestamp: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
        frame_id,
        width: 1_920,
        height: 1_080,
        codec: "h264",
        fps: 25.0,
        key_frame: frame_id.is_multiple_of(FPS),
        size_bytes: 20_000 + noise.below(60_000),
        processing_ms: 4.0 + noise.unit() * 8.0,
        brightness: noise.unit(),
        motion: noise.unit(),
        attributes: Attributes { site: "north", exposure_us: 1_000 + noise.below(9_000), night: false },
        detections,
    };
    let payload =
        rmp_serde::to_vec_named(&message).expect("a frame is plain data, which MessagePack can always say");
    Outgoing {
        subject: Subject::from(format!("frames.cam-{camera}")),
        headers: None,
        payload: payload.into(),
    }
}

/// Numbers that look random (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// In 0..1, with three decimals: what a detector would write.
    fn unit(&mut self) -> f64 {
        f64::from(u16::try_from(self.below(1_000)).unwrap_or(0)) / 1_000.0
    }
}
