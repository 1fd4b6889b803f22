//! `jetcopy query`: what it prints and how it fails.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::World;

async fn query(arguments: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.arg("query").args(arguments).arg("--config").arg(config);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn printed(arguments: &[&str], config: &Path) -> String {
    let output = query(arguments, config).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn rows_come_as_a_table_as_json_and_as_csv() {
    let world = World::new().await;
    let config = world.config("");
    world
        .database
        .batch_execute(
            "SELECT jetcopy.add_partition(relation, '2026-07-01') FROM jetcopy.partitioned_tables
                WHERE relation = 'measurements'::regclass;
             INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db) VALUES
                ('2026-07-01 10:00Z', 't 1', 'r1', 145.5, 10), ('2026-07-01 11:00Z', 't 1', 'r1', 145.5, \
                    20.5)",
        )
        .await
        .unwrap();
    let arguments = ["snr_statistics", "since=2026-07-01"];
    assert_eq!(
        printed(&arguments, &config).await,
        "websdr_id  measurements  snr_db_mean  snr_db_min  snr_db_max      snr_db_stddev  receiver_name\n\
         r1                    2        15.25          10        20.5  7.424621202458749\n1 row\n"
    );
    let arguments = ["recent_measurements", "task=t 1", "until=2026-07-01T11:00:00Z", "--format", "json"];
    let rows: Value = serde_json::from_str(&printed(&arguments, &config).await).unwrap();
    assert_eq!(rows[0]["timestamp_utc"], json!("2026-07-01T10:00:00Z"));
    assert_eq!((&rows[0]["snr_db"], &rows[0]["power_dbm"]), (&json!(10.0), &Value::Null));
    assert_eq!(rows.as_array().unwrap().len(), 1);
    let arguments = ["frequency_drift", "receiver=r1", "width=1day", "since=2026-07-01", "--format=csv"];
    assert_eq!(
        printed(&arguments, &config).await,
        "websdr_id,bucket,measurements,offset_hz_mean,offset_hz_min,offset_hz_max,drift_hz,receiver_name\n\
         r1,2026-07-01T00:00:00Z,0,,,,,\n"
    );
    assert!(printed(&[], &config).await.contains("latest_frames"));
    assert!(printed(&["frames", "--describe"], &config).await.contains("camera    required"));
}

#[tokio::test]
async fn wrong_words_exit_with_2_and_a_database_without_the_store_with_1_and_the_remedy() {
    let world = World::new().await;
    let config = world.config("");
    for (arguments, expected) in [
        (&["latest_frame"][..], "there is no query latest_frame; did you mean latest_frames?"),
        (&["frames", "camera=1", "since=soon"], "query frames, argument since: \"soon\" is not a time"),
        (&["frames"], "query frames needs camera=…"),
    ] {
        let output = query(arguments, &config).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{said}");
    }
    world.database.batch_execute("DROP FUNCTION jetcopy.registry_check").await.unwrap();
    let output = query(&["registry_check"], &config).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("run `jetcopy migrate`") && said.contains("registry_check() does not exist"),
        "{said}"
    );
}
