//! Measurements: one a message, and many of which some are bad.

use serde_json::{Value, json};

use super::{carry, jetcopy, publish};
use crate::support::{World, days_ago};

/// The hour of the measurements, in seconds.
fn noon() -> i64 {
    days_ago(10) / 1_000_000 + 12 * 3_600
}

fn measurement(n: usize) -> Value {
    let time = jiff::Timestamp::from_second(noon() + i64::try_from(n).unwrap()).unwrap();
    json!({"timestamp_utc": time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        "websdr_id": format!("rx-{}", n % 3), "frequency_mhz": 7.1, "sample_rate_khz": 12.0,
        "samples_count": 144_000, "snr_db": n, "frequency_offset_hz": -0.5, "power_dbm": -73.25, "s3_path": "s3://iq/1.wav", "antenna": "loop"})
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

    let sql = "SELECT count(*)::bigint, sum(snr_db), count(snr_db), count(DISTINCT websdr_id), \
        min(attributes::text),
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

#[tokio::test]
async fn stored_and_refused_measurements_are_counted_by_task() {
    let world = World::new().await;
    publish(&world, "task-1.one", (0..5).map(measurement)).await;
    let mut many: Vec<Value> = (0..10).map(measurement).collect();
    many[3]["frequency_mhz"] = Value::Null;
    many[7] = json!("no measurement");
    publish(&world, "task-2.many", [json!({"measurements": many})]).await;
    world.publish("task-3.many", [json!("no message").to_string()]).await;
    publish(&world, "task-4.one", [json!({}), json!({})]).await;
    publish(&world, "task-5.none", [json!({})]).await;
    let _daemon = carry(&world, "measurements").await;
    let config = world.config_file("query.toml", "");
    let said = jetcopy(&["query", "measurement_results", "since=30d", "--format", "csv"], &config).await;
    assert_eq!(
        said,
        "task_id,stored,refused,refused_messages\ntask-1,5,0,0\ntask-2,8,2,1\ntask-3,0,1,1\ntask-4,0,2,2\n"
    );
    let said =
        jetcopy(&["query", "measurement_results", "task=task-2", "since=30d", "--format", "csv"], &config)
            .await;
    assert_eq!(said, "task_id,stored,refused,refused_messages\ntask-2,8,2,1\n");
}

#[tokio::test]
async fn the_newest_event_of_a_receiver_counts_and_its_measurements_name_it() {
    let world = World::new().await;
    let receiver = |name: &str, active: bool, at: &str| {
        json!({"id": "rx-1", "name": name, "location": "A hill", "url": "http://rx-1", "active": active,
            "updated_at": at, "antenna": "loop"})
    };
    let events = [
        receiver("Newest", false, "2026-07-02T00:00:00Z"),
        receiver("Older", true, "2026-07-01T00:00:00Z"),
        json!({"id": "rx-2", "updated_at": "2026-07-01T00:00:00Z"}),
        json!({"name": "nobody", "updated_at": "2026-07-01T00:00:00Z"}),
    ];
    publish(&world, "receivers", events).await;
    publish(&world, "task-1.one", (0..3).map(measurement)).await;
    let _daemon = carry(&world, "measurements").await;
    let config = world.config_file("query.toml", "");
    let rows = async |query: &[&str]| -> Value {
        let arguments = [&["query"], query, &["--format", "json"]].concat();
        serde_json::from_str(&jetcopy(&arguments, &config).await).unwrap()
    };
    let found = rows(&["receivers"]).await;
    assert_eq!((&found[0]["name"], &found[0]["attributes"]), (&json!("Newest"), &json!({"antenna": "loop"})));
    assert_eq!((&found[1]["name"], &found[1]["active"]), (&Value::Null, &json!(true)));
    assert_eq!(rows(&["receivers", "is_active=false"]).await.as_array().unwrap().len(), 1);
    let names: Vec<Value> = rows(&["snr_statistics", "since=30d"])
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["receiver_name"].clone())
        .collect();
    assert_eq!(names, [Value::Null, json!("Newest"), Value::Null]);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters WHERE column_name = 'id'").await, 1);
}

#[tokio::test]
async fn old_measurements_are_deleted_by_whole_days_and_it_is_told_who_did_it() {
    for world in [World::plain().await, World::new().await] {
        world
            .database
            .batch_execute(
                "SELECT jetcopy.add_partitions('measurements', ARRAY(
                     SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(0, 60) n));
                 INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz)
                     SELECT date_trunc('day', now(), 'UTC') - n * interval '12 hours', 't', 'r', 7.1
                     FROM generate_series(1, 100) n",
            )
            .await
            .unwrap();
        let config = world.config_file("store.toml", "");
        let run = async |arguments: &[&str]| {
            world.run(&config, &[&["store", "delete-old"], arguments].concat()).await
        };
        // 29 days before today there are 58 half days.
        let shown = run(&["measurements", "--older-than", "29d"]).await;
        assert_eq!(shown.code, 1, "{}", shown.out);
        assert!(
            shown.out.starts_with("42 measurements from before ") && shown.out.contains("--yes"),
            "{}",
            shown.out
        );
        let young = run(&["measurements", "--older-than", "27d", "--yes"]).await;
        assert_eq!(young.code, 1, "{}", young.err);
        assert!(young.err.contains("days of the last 28 days are summed up again"), "{}", young.err);
        assert_eq!(world.count("SELECT count(*) FROM measurements").await, 100);

        let done = run(&["measurements", "--older-than", "29d", "--yes"]).await.well();
        assert!(
            done.starts_with("deleted 42 measurements from before ") && done.ends_with("T00:00:00Z\n"),
            "{done}"
        );
        let oldest = "SELECT count(*) FROM measurements
            WHERE timestamp_utc >= date_trunc('day', now() - interval '29 days', 'UTC')";
        assert_eq!(
            (world.count(oldest).await, world.count("SELECT count(*) FROM measurements").await),
            (58, 58)
        );
        let told = "SELECT count(*) FROM jetcopy.deletions WHERE what = 'measurements' AND deleted = 42
            AND deleted_by = session_user AND before = date_trunc('day', now() - interval '29 days', 'UTC')";
        assert_eq!(world.count(told).await, 1);
        assert!(
            run(&["measurements", "--older-than", "29d", "--yes"])
                .await
                .well()
                .starts_with("deleted 0 measurements")
        );
    }
}

#[tokio::test]
async fn compressed_measurements_go_too_however_many() {
    let world = World::new().await;
    if world.count("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").await == 0 {
        return;
    }
    world
        .database
        .batch_execute(
            "ALTER TABLE measurements \
             SET (timescaledb.compress, timescaledb.compress_segmentby = 'websdr_id');
             SELECT set_chunk_time_interval('measurements', interval '7 days');
             INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz)
                 SELECT now() - n * interval '30 s', 't', 'r' || n % 3, 7.1 FROM generate_series(1, 130000) n;
             SELECT compress_chunk(c) FROM show_chunks('measurements') c",
        )
        .await
        .unwrap();
    let before = "SELECT count(*) FROM measurements WHERE timestamp_utc < date_trunc('day', now() - interval \
                  '29 days', 'UTC')";
    let old = world.count(before).await;
    assert!(old > 30_000);
    let gone: i64 = world
        .database
        .query_one("SELECT jetcopy.delete_old_measurements('29 days')", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!((gone, world.count(before).await), (old, 0));
    assert_eq!(world.count("SELECT count(*) FROM measurements").await, 130_000 - old);
}
