//! Measurements: one a message, and many of which some are bad.

use serde_json::{Value, json};

use super::{carry, publish};
use crate::support::{World, days_ago};

/// The hour of the measurements, in seconds.
fn noon() -> i64 {
    days_ago(10) / 1_000_000 + 12 * 3_600
}

fn measurement(n: usize) -> Value {
    let time = jiff::Timestamp::from_second(noon() + i64::try_from(n).unwrap()).unwrap();
    json!({"timestamp_utc": time.strftime("%Y-%m-%dT%H:%M:%S").to_string(), "websdr_id": format!("rx-{}", n % 3),
        "frequency_mhz": 7.1, "sample_rate_khz": 12.0, "samples_count": 144_000, "snr_db": n,
        "frequency_offset_hz": -0.5, "power_dbm": -73.25, "s3_path": "s3://iq/1.wav", "antenna": "loop"})
}

#[tokio::test]
async fn bad_measurements_of_a_message_are_dead_letters_and_the_good_ones_rows() {
    let world = World::new().await;
    publish(&world, "task-1.one", (0..30).map(measurement)).await;
    let mut many: Vec<Value> = (0..50).map(measurement).collect();
    many[3]["frequency_mhz"] = Value::Null;
    many[17] = json!("no measurement");
    many[49]["timestamp_utc"] = json!("yesterday");
    many[20]["snr_db"] = json!("NaN");
    publish(&world, "task-2.many", [json!({"measurements": many})]).await;
    publish(&world, "task-2.none", [json!({})]).await;
    let _daemon = carry(&world, "measurements").await;

    let sql = "SELECT count(*)::bigint, sum(snr_db), count(snr_db), count(DISTINCT websdr_id), min(attributes::text),
        max(extract(epoch FROM timestamp_utc))::bigint FROM measurements WHERE task_id = $1";
    let mut found = Vec::new();
    for task in ["task-1", "task-2"] {
        let row = world.database.query_one(sql, &[&task]).await.unwrap();
        assert_eq!((row.get::<_, i64>(3), row.get::<_, &str>(4)), (3, r#"{"antenna": "loop"}"#));
        found.push((row.get::<_, i64>(0), row.get::<_, f64>(1), row.get::<_, i64>(2), row.get::<_, i64>(5)));
    }
    // Of the second task, 0 to 49 without 3, 17, 49 and without the value of 20.
    assert_eq!(found, [(30, 435.0, 30, noon() + 29), (47, 1136.0, 46, noon() + 48)]);

    let sql = "SELECT sequence, element, kind FROM jetcopy.dead_letters ORDER BY 1, 2";
    let letters = world.database.query(sql, &[]).await.unwrap();
    let letters: Vec<(i64, Option<i32>, &str)> =
        letters.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected =
        [(31, Some(3), "missing"), (31, Some(17), "type"), (31, Some(49), "type"), (32, None, "unmatched")];
    assert_eq!(letters, expected);
}
