//! The messages that are drained, and the tables that they are drained into.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

/// Detections of a message that fills several tables.
pub(crate) const DETECTIONS: u64 = 5;

/// What is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// One table with a primary key.
    Indexed,
    /// One table without any index.
    Plain,
    /// Two tables without any index: a row of the message, and one of each detection.
    Tables,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detections: Vec<Detection>,
}

#[derive(Serialize)]
struct Detection {
    label: &'static str,
    score: f32,
    #[serde(rename = "box")]
    area: [f32; 4],
    track: u64,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Indexed => "indexed",
            Self::Plain => "plain",
            Self::Tables => "tables",
        }
    }

    /// The stream that it is filled from; both of the one table share theirs.
    pub(crate) fn stream(self) -> &'static str {
        match self {
            Self::Indexed | Self::Plain => "FRAMES",
            Self::Tables => "DETECTIONS",
        }
    }

    pub(crate) fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Indexed => &["indexed"],
            Self::Plain => &["plain"],
            Self::Tables => &["frames", "detections"],
        }
    }

    pub(crate) fn rows_per_message(self) -> u64 {
        match self {
            Self::Indexed | Self::Plain => 1,
            Self::Tables => 1 + DETECTIONS,
        }
    }

    /// Its tables, as hypertables where there is TimescaleDB.
    pub(crate) fn definition(self, timescale: bool) -> String {
        let frames = |name: &str, key: &str| {
            format!(
                "CREATE TABLE {name} (time timestamptz NOT NULL, frame_id bigint NOT NULL, \
                 camera_id text NOT NULL,
                 width integer, height integer, codec text, fps real, key_frame boolean, processing_ms real,
                 brightness real, motion real, attributes jsonb{key});"
            )
        };
        let tables = match self {
            Self::Indexed => frames("indexed", ", PRIMARY KEY (camera_id, time, frame_id)"),
            Self::Plain => frames("plain", ""),
            Self::Tables => {
                frames("frames", "")
                    + "CREATE TABLE detections (time timestamptz NOT NULL, frame_id bigint NOT NULL, \
                        camera_id text NOT NULL,
                       label text, score real, \"left\" real, top real, width real, height real, \
                           track bigint);"
            }
        };
        let hypertable = |name: &&str| {
            format!("SELECT create_hypertable('{name}', 'time', create_default_indexes => false);")
        };
        if timescale { tables + &self.tables().iter().map(hypertable).collect::<String>() } else { tables }
    }

    /// The part of a configuration that fills it.
    pub(crate) fn pipeline(self) -> String {
        let (name, stream, first) = (self.name(), self.stream(), self.tables()[0]);
        let mut text = format!(
            r#"
            [[pipeline]]
            name = "{name}"
            stream = "{stream}"
            format = "msgpack"
            [[pipeline.table]]
            name = "{first}"
            [pipeline.table.columns]
            time = {{ from = "timestamp", unit = "us" }}
            "#
        );
        if self == Self::Tables {
            text += r#"
            [[pipeline.table]]
            name = "detections"
            for_each = "detections"
            [pipeline.table.columns]
            time = { from = "^timestamp", unit = "us" }
            frame_id = "^frame_id"
            camera_id = "^camera_id"
            left = "box[0]"
            top = "box[1]"
            width = "box[2]"
            height = "box[3]"
            "#;
        }
        text
    }
}

/// A message of the target's stream.
pub(crate) fn message(target: Target, index: u64) -> Bytes {
    let camera = index % 16;
    let share = |of: u64| (index % of) as f32 / of as f32;
    let detection = |number: u64| Detection {
        label: ["person", "car", "bicycle", "dog", "truck"][(index + number) as usize % 5],
        score: share(97),
        area: [share(640), share(480), 0.125, 0.25],
        track: index / 50 + number,
    };
    let detections = if target == Target::Tables { DETECTIONS } else { 0 };
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
        attributes: json!({"site": "north", "lens": "wide", "exposure": 0.0125, "gain": index % 48,
            "night": false, "zone": camera, "firmware": "4.2.1"}),
        detections: (0..detections).map(detection).collect(),
    };
    rmp_serde::to_vec_named(&frame).unwrap().into()
}
