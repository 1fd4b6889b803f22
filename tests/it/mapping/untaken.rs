//! What of a message nothing takes is counted and shown, with what may be meant.

use serde_json::{Value, json};

use crate::support::{Daemon, World, eventually, oracle};

const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
batch = { max_rows = 20, max_age = "10ms" }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"

[[pipeline.table]]
name = "readings"
for_each = "reading"

[[pipeline.table]]
name = "alarms"
when = { field = "alarm" }
"#;

const TABLES: &str = "CREATE TABLE events (sequence bigint NOT NULL, id bigint, camera_id text, note text);
    CREATE TABLE readings (value bigint); CREATE TABLE alarms (alarm text)";

fn message(id: u64) -> String {
    json!({"id": id, "cameraId": "north", "readings": [{"value": id}], "note": "n"}).to_string()
}

/// A world whose daemon answers at a port that commands find.
async fn world() -> (World, Daemon, std::path::PathBuf) {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = world.config(PIPELINE);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))).unwrap();
    let daemon = Daemon::start(&config);
    (world, daemon, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_no_column_takes_and_tables_that_get_nothing_are_shown_by_status_page_and_metrics() {
    let (world, daemon, config) = world().await;
    world.publish("a", (1..=50).map(message)).await;
    world.drained("events", &daemon).await;
    let untaken = daemon.status()["untaken"].clone();
    let fields: Vec<_> = untaken["fields"].as_array().unwrap().iter().map(|seen| &seen["field"]).collect();
    assert_eq!(fields, ["cameraId", "readings"], "{untaken}");
    assert_eq!((&untaken["messages"], &untaken["field_times"]), (&50.into(), &100.into()));
    assert_eq!(untaken["fields"][0]["meant"], "`camera_id`, column camera_id of table events");
    assert_eq!(untaken["fields"][1]["meant"], "`reading`, `for_each` of table readings");
    let reasons: Vec<_> =
        untaken["tables"].as_array().unwrap().iter().map(|table| &table["reason"]).collect();
    let expected = [
        "`for_each` found no array `reading` in any of its 50 messages",
        "its `when` matched none of 50 messages",
    ];
    assert_eq!(reasons, expected.map(Value::from).iter().collect::<Vec<_>>());
    assert_eq!(
        untaken["columns"],
        json!([{"table": "events", "column": "camera_id", "source": "camera_id"}])
    );

    assert_eq!(daemon.metric("jetcopy_untaken_fields_total", ""), 100);
    for (table, messages, unfilled) in [("events", 50, 1), ("readings", 0, 1), ("alarms", 0, 1)] {
        let label = format!("table=\"{table}\"");
        assert_eq!(daemon.metric("jetcopy_table_messages_total", &label), messages, "{table}");
        assert_eq!(daemon.metric("jetcopy_unfilled_columns", &label), unfilled, "{table}");
    }
    daemon.says_times("some fields are not stored in any column", 1).await;

    let text = world.run(&config, &["status"]).await.well();
    for line in [
        "events: table alarms gets no rows: its `when` matched none of 50 messages",
        "events: no message had a value for column camera_id of table events",
        "events: no column takes field `readings`, 50 times; is it `reading`, `for_each` of table readings?",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mended_mapping_begins_its_counts_anew_and_then_nothing_is_untaken() {
    let (world, daemon, config) = world().await;
    world.publish("a", (1..=5).map(message)).await;
    world.drained("events", &daemon).await;
    let mended = std::fs::read_to_string(&config).unwrap().replace("\"reading\"", "\"readings\"");
    let mended =
        mended.replace("sequence = \"$sequence\"", "sequence = \"$sequence\"\ncamera_id = \"cameraId\"");
    std::fs::write(&config, mended).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.says("configuration reloaded").await;
    eventually("the new mapping", || async { daemon.status()["untaken"]["messages"] == 0 }).await;
    world.publish("a", (6..=10).map(message)).await;
    world.drained("events", &daemon).await;
    let untaken = daemon.status()["untaken"].clone();
    assert_eq!((&untaken["messages"], &untaken["fields"]), (&5.into(), &json!([])), "{untaken}");
    assert_eq!(world.count("SELECT count(*) FROM readings").await, 5);
    oracle(&world, &daemon, "events", "events", message(11).into_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_into_an_array_is_a_dead_letter_and_no_loss() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let config = PIPELINE.replace("for_each = \"reading\"", "for_each = \"frames.readings\"");
    world.publish("a", [r#"{"id":1,"frames":[{"readings":[{"value":1}]}]}"#]).await;
    world.publish("a", [r#"{"id":2,"frames":{"readings":[{"value":2}]}}"#]).await;
    let daemon = Daemon::start(&world.config(&config));
    world.drained("events", &daemon).await;
    let letter =
        "SELECT kind || ' ' || table_name || ': ' || message FROM jetcopy.dead_letters WHERE sequence = 1";
    let said: String = world.database.query_one(letter, &[]).await.unwrap().get(0);
    assert!(
        said.starts_with("type readings: the mapping reads inside `frames`, which is an array"),
        "{said}"
    );
    assert_eq!(world.count("SELECT sum(value)::bigint FROM readings").await, 2);
    let fresh = r#"{"id":3,"frames":null}"#;
    oracle(&world, &daemon, "events", "events", fresh.into()).await;
}
