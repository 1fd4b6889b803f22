//! `jetcopy audit` on the pipelines of `config/store.toml`: each is proven, and what is changed by hand is
//! found.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{carry, jetcopy, pipeline, publish};
use crate::support::{Daemon, World, days_ago};

/// What the audit of a pipeline found.
async fn report(world: &World, config: &Path, name: &str) -> Value {
    let said = world.run(config, &["audit", name, "--json"]).await;
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!(said.code, i32::from(report["differences"] != 0), "{said:?}");
    report
}

/// Nothing differs, all of these tables are compared, with so many rows each, and no more is left unproven
/// than this.
async fn proven(world: &World, config: &Path, name: &str, rows: &[(&str, u64)], unproven: &[&str]) {
    let found = report(world, config, name).await;
    assert_eq!(found["differences"], 0, "{found:#}");
    assert_eq!(found["method"]["by"], "rows", "{found:#}");
    let compared = found["compared"].as_array().unwrap();
    let compared: Vec<_> =
        compared.iter().map(|it| (it["table"].as_str().unwrap(), it["made"].as_u64().unwrap())).collect();
    assert_eq!(compared, rows, "{found:#}");
    assert_eq!(found["not_proven"], json!(unproven), "{found:#}");
}

/// The audit finds one difference, of this table, which says this.
async fn differs(world: &World, config: &Path, name: &str, table: &str, what: &str) {
    let said = world.run(config, &["audit", name]).await;
    let lines: Vec<&str> = said.out.lines().filter(|line| line.starts_with("difference: ")).collect();
    let expected = lines.len() == 1 && lines[0].contains(what) && lines[0].contains(table);
    assert!(said.code == 1 && expected, "{table}, {what}: {said:?}");
}

/// A row that is taken out of a table is found, and so is one that is there twice.
async fn finds_rows(world: &World, config: &Path, name: &str, table: &str) {
    let run = async |sql: String| world.database.batch_execute(&sql).await.unwrap();
    run(format!("CREATE TABLE spoiled AS SELECT * FROM {table} LIMIT 1")).await;
    run(format!("DELETE FROM {table} AS t USING spoiled AS s WHERE t IS NOT DISTINCT FROM s")).await;
    differs(world, config, name, table, "has 0 rows like").await;
    let put = format!("INSERT INTO {table} SELECT * FROM spoiled");
    run(format!("{put}; {put}")).await;
    differs(world, config, name, table, "has 2 rows like").await;
    run(format!("DELETE FROM {table} AS t USING spoiled AS s WHERE t IS NOT DISTINCT FROM s; {put}")).await;
    run("DROP TABLE spoiled".to_owned()).await;
}

/// In a table with a key: a row that is taken out, one with another value, and one that no message makes.
/// `change` is an assignment.
async fn finds_rows_by_key(world: &World, config: &Path, name: &str, table: &str, key: &str, change: &str) {
    let run = async |sql: String| world.database.batch_execute(&sql).await.unwrap();
    let put = format!("INSERT INTO {table} SELECT * FROM spoiled");
    run(format!("CREATE TABLE spoiled AS SELECT * FROM {table} LIMIT 1")).await;
    let delete = format!("DELETE FROM {table} AS t USING spoiled AS s WHERE t.{key} = s.{key}");
    run(delete.clone()).await;
    differs(world, config, name, table, "has 0 rows like").await;
    run(format!("{put}; UPDATE {table} AS t SET {change} FROM spoiled AS s WHERE t.{key} = s.{key}")).await;
    differs(world, config, name, table, "differs from what the messages make").await;
    run(format!("{delete}; {put}; UPDATE spoiled SET {key} = 'nobody'; {put}")).await;
    differs(world, config, name, table, "that no message makes").await;
    run(format!("DELETE FROM {table} WHERE {key} = 'nobody'; DROP TABLE spoiled")).await;
}

/// A world whose store has carried these messages; the daemon goes on.
async fn carried(name: &str, messages: Vec<(&str, Vec<Value>)>) -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    for (subject, lines) in messages {
        publish(&world, subject, lines).await;
    }
    let daemon = carry(&world, name).await;
    let config = world.config(&pipeline(name));
    (world, config, daemon)
}

#[tokio::test]
async fn an_audit_proves_frames_with_their_detections_and_finds_each_row_changed_by_hand() {
    let frame = |n: i64| {
        let detections: Vec<_> = (0..n % 4)
            .map(|track| json!({"label": "car", "track_id": track, "box": [1, 2, 3, 4.5], "hue": n}))
            .collect();
        json!({"timestamp": days_ago(2) + n, "frame_id": n, "codec": "h264", "detections": detections,
            "mood": "calm"})
    };
    let frames = (0..40).map(frame).chain([json!({"frame_id": 1})]).collect();
    let (world, config, _daemon) = carried("frames", vec![("gate", frames)]).await;
    proven(&world, &config, "frames", &[("frame_metadata", 40), ("detection_events", 60)], &[]).await;
    let said = world.run(&config, &["audit", "frames"]).await.well();
    for line in [
        "  40 messages with rows",
        "  1 dead letters",
        "compared 60 rows of detection_events",
        "verdict: no difference",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    for table in ["frame_metadata", "detection_events"] {
        finds_rows(&world, &config, "frames", table).await;
    }
    // A value that differs is a row that is missing, and one that nobody made.
    world.database.batch_execute("UPDATE frame_metadata SET codec = 'av1' WHERE frame_id = 7").await.unwrap();
    let found = report(&world, &config, "frames").await;
    let kinds = found["first_differences"].as_array().unwrap();
    let sequences: Vec<_> = kinds.iter().map(|it| (&it["sequence"], &it["made"], &it["there"])).collect();
    let (one, none) = (json!(1), json!(0));
    assert_eq!(sequences, [(&json!(8), &one, &none), (&Value::Null, &none, &one)], "{found:#}");
}

#[tokio::test]
async fn an_audit_proves_measurements_one_by_one_and_in_arrays_and_receivers() {
    let at = days_ago(2);
    let one = |n: i64| {
        json!({"timestamp_utc": at + n, "websdr_id": format!("rx{}", n % 3), "frequency_mhz": 7.1,
            "snr_db": n, "gain": n})
    };
    let mut bad = one(4);
    bad["frequency_mhz"] = json!("none");
    let many = json!({"measurements": [one(100), bad, one(101), one(102)]});
    let receiver =
        |age: i64, name: &str| json!({"id": "rx1", "name": name, "updated_at": at + age, "rack": 4});
    let messages = vec![
        ("t.one", (0..20).map(one).collect()),
        ("t.many", vec![many, json!({"measurements": []})]),
        ("receivers", vec![receiver(5, "new"), receiver(3, "old")]),
    ];
    let (world, config, _daemon) = carried("measurements", messages).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 1);
    proven(&world, &config, "measurements", &[("measurements", 23), ("websdrs", 2)], &[]).await;
    finds_rows(&world, &config, "measurements", "measurements").await;
    finds_rows_by_key(&world, &config, "measurements", "websdrs", "id", "name = 'old'").await;
    // The letter of the element belongs to the proof.
    world.database.batch_execute("DELETE FROM jetcopy.dead_letters").await.unwrap();
    differs(&world, &config, "measurements", "measurements", "element 1 of sequence 21 is neither a row of")
        .await;
}

#[tokio::test]
async fn an_audit_proves_documents_and_points_of_series_however_these_come() {
    let at = days_ago(1);
    let rows: Vec<_> = (0..5).map(|n| json!({"timestamp": at + n, "a": n, "b": 2.5})).collect();
    let points: Vec<_> =
        (0..5).map(|n| json!({"timestamp": at + 100 + n, "column": "c", "value": n})).collect();
    let messages = vec![
        ("room.metadata", vec![json!({"name": "first"}), json!({"name": "last", "unit": "C"})]),
        ("hall.metadata", vec![json!({"name": "Hall", "created_at": at})]),
        ("room.points", vec![json!({"points": points})]),
        ("room.rows", vec![json!({"rows": rows})]),
        ("room.row", vec![json!({"timestamp": at + 200, "a": 1, "b": 2, "c": 3})]),
    ];
    let (world, config, _daemon) = carried("series", messages).await;
    let unproven = ["table time_series_metadata: created_at, which a trigger sets"];
    let tables = [("time_series_metadata", 3), ("time_series_data_points", 18)];
    proven(&world, &config, "series", &tables, &unproven).await;
    finds_rows(&world, &config, "series", "time_series_data_points").await;
    finds_rows_by_key(&world, &config, "series", "time_series_metadata", "id", "name = 'first'").await;
    // What a person deleted by the command that says so is no difference.
    let store = world.config_file("store.toml", "");
    jetcopy(&["store", "delete-series", "room", "--yes"], &store).await;
    let deleted =
        |table: &str| format!("table {table}: rows that were deleted, according to jetcopy.deletions");
    let unproven =
        [unproven[0].to_owned(), deleted("time_series_metadata"), deleted("time_series_data_points")];
    proven(&world, &config, "series", &tables, &unproven.each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn an_audit_proves_projects_files_and_their_log_and_knows_files_that_expired() {
    let at = days_ago(1);
    let project = |age: i64, name: &str| {
        json!({"id": "p", "name": name, "updated_at": at + age, "settings": {"a": [1, 2.50]},
            "log": {"operation": "create_project", "duration_ms": age, "details": {"by": "me"}}})
    };
    let file = |path: &str, age: i64, staged: bool| {
        let mut file = json!({"project_id": "p", "path": path, "staged": staged, "updated_at": at + age});
        if staged {
            file["expires_at"] = json!(at + 1_000);
        }
        file
    };
    let operation =
        |n: i64| json!({"timestamp": at + n, "operation": "create_bucket", "request_id": n.to_string()});
    let files =
        vec![file("kept", 1, true), file("kept", 2, false), file("gone", 1, true), file("late", 1, true)];
    let messages = vec![
        ("projects", vec![project(2, "newer"), project(1, "older")]),
        ("files", files),
        ("operations", (0..6).map(operation).collect()),
    ];
    let (world, config, daemon) = carried("registry", messages).await;
    let tables = [("projects", 2), ("files", 4), ("operations_log", 8)];
    proven(&world, &config, "registry", &tables, &[]).await;
    // Files expire by themselves; an event that is older than that changes nothing more.
    assert_eq!(world.count("SELECT jetcopy.expire_staged_files()").await, 2);
    publish(&world, "files", [file("late", 2, false)]).await;
    world.drained("registry", &daemon).await;
    let tables = [("projects", 2), ("files", 5), ("operations_log", 8)];
    proven(&world, &config, "registry", &tables, &[]).await;
    world.database.batch_execute("ALTER TABLE operations_log DISABLE TRIGGER append_only").await.unwrap();
    finds_rows(&world, &config, "registry", "operations_log").await;
    finds_rows_by_key(&world, &config, "registry", "projects", "id", "name = 'older'").await;
    finds_rows_by_key(&world, &config, "registry", "files", "path", "status = 'deleted'").await;
    // One that was never staged has not expired.
    let expired = "UPDATE files SET status = 'expired' WHERE path = 'kept'";
    world.database.batch_execute(expired).await.unwrap();
    differs(&world, &config, "registry", "files", "differs from what the messages make").await;
}

#[tokio::test]
async fn rows_that_aged_out_are_left_out_of_the_proof_and_younger_ones_are_not() {
    let world = World::plain().await;
    let at = |n: i64| json!({"timestamp_utc": n, "websdr_id": "rx", "frequency_mhz": 7.1});
    publish(&world, "t.one", [at(days_ago(3)), at(days_ago(3) + 1), at(days_ago(1))]).await;
    let _daemon = carry(&world, "measurements").await;
    let config = world.config(&pipeline("measurements"));
    let old = "DELETE FROM measurements WHERE timestamp_utc < now() - interval '2 days'";
    world.database.batch_execute(old).await.unwrap();
    assert_eq!(report(&world, &config, "measurements").await["differences"], 2);
    let dropped = "UPDATE jetcopy.partitioned_tables SET dropped_before = now() - interval '2 days'
        WHERE relation = 'measurements'::regclass";
    world.database.batch_execute(dropped).await.unwrap();
    let unproven = ["table measurements: rows that it may have dropped by age"];
    proven(&world, &config, "measurements", &[("measurements", 3), ("websdrs", 0)], &unproven).await;
    world.database.batch_execute("DELETE FROM measurements").await.unwrap();
    differs(&world, &config, "measurements", "measurements", "has 0 rows like").await;
}

#[tokio::test]
async fn what_the_stream_does_not_hold_any_more_is_not_proven_and_what_it_holds_is() {
    let frame =
        |n: i64| json!({"timestamp": days_ago(2) + n, "frame_id": n, "detections": [{"label": "car"}]});
    let (world, config, _daemon) = carried("frames", vec![("gate", (0..20).map(frame).collect())]).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for sequence in 1..=5 {
        stream.delete_message(sequence).await.unwrap();
    }
    let found = report(&world, &config, "frames").await;
    assert_eq!(found["differences"], 0, "{found:#}");
    let unproven = found["not_proven"].to_string();
    for text in [
        "rows of 5 messages that the stream no longer holds",
        "table frame_metadata: 5 rows that the messages in the stream do not explain",
        "table detection_events: 5 rows",
    ] {
        assert!(unproven.contains(text), "{text} in {unproven}");
    }
    // A frame has one row, so that a sixth is one too many; how many detections it has nobody knows.
    finds_rows_of_held(&world, &config).await;
    stream.purge().await.unwrap();
    let said = world.run(&config, &["audit", "frames"]).await.well();
    assert!(said.contains("verdict: nothing could be proven"), "{said}");
}

async fn finds_rows_of_held(world: &World, config: &Path) {
    let spoil = "INSERT INTO frame_metadata SELECT * FROM frame_metadata WHERE frame_id = 2;
        DELETE FROM detection_events WHERE frame_id = 9";
    world.database.batch_execute(spoil).await.unwrap();
    let found = report(world, config, "frames").await;
    let tables: Vec<_> =
        found["first_differences"].as_array().unwrap().iter().map(|it| &it["table"]).collect();
    // Any of the six may be the one too many.
    assert_eq!((tables.len(), found["differences"].as_u64()), (6, Some(6)), "{found:#}");
    assert_eq!(tables.iter().filter(|&&table| table == "detection_events").count(), 1, "{found:#}");
}
