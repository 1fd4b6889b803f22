//! The frame message of the benchmarks and its tables, shared with the allocation test.

use figment::Figment;
use figment::providers::{Format, Toml};
use jetcopy::config::Pipeline;
use jetcopy::encode::types::Type;
use jetcopy::message::Message;
use jetcopy::postgres::introspect::{Column, ServerDefault, Table};
use serde_json::{Value, json};

/// Frames of which no two have the same map: more than are remembered of such maps.
pub(crate) fn varied() -> Vec<Value> {
    let frame = |number: u32| {
        let mut frame = flat();
        frame["attributes"]["exposure"] = (0.0125 + f64::from(number) / 1e4).into();
        frame
    };
    (0..1_000).map(frame).collect()
}

/// A frame of twelve fields, one of them a map of about 110 bytes.
pub(crate) fn flat() -> Value {
    json!({
        "timestamp": 1_735_689_600_123_456_u64, "frame_id": 123_456, "camera_id": "cam-07",
        "width": 1920, "height": 1080,
        "codec": "h264", "fps": 25.0, "key_frame": true, "processing_ms": 3.4, "brightness": 0.52,
        "motion": 0.07,
        "attributes": {"site": "north", "lens": "wide", "exposure": 0.0125, "gain": 12, "night": false,
            "zone": 3, "firmware": "4.2.1"},
    })
}

/// The same with five detections.
pub(crate) fn nested() -> Value {
    let detections: Vec<_> = (0..5)
        .map(|n| json!({"label": "person", "score": 0.91, "box": [10 + n, 20, 110, 220], "track": n}))
        .collect();
    let mut frame = flat();
    frame["detections"] = detections.into();
    frame
}

fn table(columns: &[(&str, Type)]) -> Table {
    let columns = columns
        .iter()
        .map(|(name, ty)| Column {
            name: (*name).into(),
            ty: ty.clone(),
            not_null: *name == "time",
            type_name: String::new(),
            default: ServerDefault::None,
        })
        .collect();
    Table { qualified: "t".into(), columns, time_column: Some("time".into()), ..Table::default() }
}

/// The pipeline, without detections or with them.
pub(crate) fn pipeline(detections: bool) -> (Pipeline, Vec<Table>) {
    let mut toml = r#"
        name = "frames"
        stream = "FRAMES"
        [[table]]
        name = "frames"
        [table.columns]
        time = { from = "timestamp", unit = "us" }
    "#
    .to_owned();
    let mut tables = vec![table(&[
        ("time", Type::Timestamptz),
        ("frame_id", Type::Int8),
        ("camera_id", Type::Text),
        ("width", Type::Int4),
        ("height", Type::Int4),
        ("codec", Type::Text),
        ("fps", Type::Float8),
        ("key_frame", Type::Bool),
        ("processing_ms", Type::Float8),
        ("brightness", Type::Float8),
        ("motion", Type::Float8),
        ("attributes", Type::Jsonb),
    ])];
    if detections {
        toml.push_str(
            r#"
            [[table]]
            name = "detections"
            for_each = "detections"
            [table.columns]
            time = { from = "^timestamp", unit = "us" }
            camera_id = "^camera_id"
            left = "box[0]"
            top = "box[1]"
            "#,
        );
        tables.push(table(&[
            ("time", Type::Timestamptz),
            ("camera_id", Type::Text),
            ("label", Type::Text),
            ("score", Type::Float4),
            ("left", Type::Float4),
            ("top", Type::Float4),
            ("track", Type::Int8),
        ]));
    }
    let pipeline =
        Figment::from(Toml::string(&toml)).extract().expect("the benchmark's own settings are valid");
    (pipeline, tables)
}

/// A message as it comes from the stream.
pub(crate) fn message(payload: Vec<u8>) -> Message {
    Message {
        sequence: 1,
        timestamp_ns: 1_735_689_600_000_000_000,
        subject: "frames.cam-07".into(),
        payload: payload.into(),
        headers: None,
    }
}
