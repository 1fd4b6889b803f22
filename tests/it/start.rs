//! Where a new pipeline begins, and that it is decided once.

use jetcopy::{config, migrate};
use serde_json::{Value, json};

use crate::support::{Daemon, World};

fn pipeline(start: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
start = {start}

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#
    )
}

async fn world() -> World {
    let world = World::new().await;
    let table = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL)";
    world.database.batch_execute(table).await.unwrap();
    world
}

fn event(id: u64) -> Vec<u8> {
    json!({"id": id}).to_string().into_bytes()
}

async fn sequences(world: &World) -> Vec<i64> {
    let rows = world.database.query("SELECT sequence FROM events ORDER BY 1", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// What `jetcopy audit` says, which must find nothing.
fn audited(world: &World, config: &str, flags: &[&str]) -> Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(["audit", "events", "--json"]).args(flags).arg("--config").arg(world.config(config));
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["first_differences"], json!([]), "{report:#}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_for_what_is_new_leaves_out_what_was_there_once_and_for_all() {
    let world = world().await;
    world.publish("a", (1..=3).map(event)).await;
    let new = pipeline("\"new\"");
    let daemon = Daemon::start(&world.config(&new));
    daemon.says("pipeline is running").await;
    world.publish("a", (4..=5).map(event)).await;
    world.drained("events", &daemon).await;
    assert_eq!(sequences(&world).await, [4, 5]);
    assert_eq!(daemon.metric("jetcopy_losses_total", ""), 0);
    drop(daemon);
    world.publish("a", [event(6)]).await;

    // What is published while nobody runs is not left out, and the setting means nothing any more.
    for start in ["\"new\"", "\"all\"", "2"] {
        let daemon = Daemon::start(&world.config(&pipeline(start)));
        world.drained("events", &daemon).await;
        assert_eq!(sequences(&world).await, [4, 5, 6], "{start}");
    }
    audited(&world, &new, &[]);
    audited(&world, &new, &["--full"]);
    audited(&world, &new, &["--offline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_forgets_where_the_pipeline_began_costs_no_message() {
    let world = world().await;
    world.publish("a", (1..=3).map(event)).await;
    let config = world.config(&pipeline("\"new\""));
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    world.publish("a", (4..=5).map(event)).await;
    world.drained("events", &daemon).await;
    drop(daemon);
    // As after a failover to a standby that had received nothing yet.
    world.database.batch_execute("DROP SCHEMA jetcopy CASCADE; TRUNCATE events").await.unwrap();
    let settings = config::Postgres { url: world.own_url.clone(), ..config::Postgres::default() };
    migrate::migrate(&settings).await.unwrap();
    world.publish("a", [event(6)]).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert_eq!(sequences(&world).await, [4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_begins_at_a_sequence_at_a_time_or_where_the_stream_does() {
    for (start, expected) in
        [("3", vec![3, 4, 5]), ("99", vec![5]), ("1", vec![1, 2, 3, 4, 5]), ("time", vec![4, 5])]
    {
        let world = world().await;
        world.publish("a", (1..=4).map(event)).await;
        let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
        let time = stream.get_raw_message(4).await.unwrap().time;
        let time = jiff::Timestamp::from_nanosecond(time.unix_timestamp_nanos()).unwrap();
        let start = if start == "time" { format!("\"{time}\"") } else { start.to_owned() };
        let config = pipeline(&start);
        let daemon = Daemon::start(&world.config(&config));
        daemon.says("pipeline is running").await;
        world.publish("a", [event(5)]).await;
        world.drained("events", &daemon).await;
        assert_eq!(sequences(&world).await, expected, "{start}");
        audited(&world, &config, &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_writers_begin_at_a_sequence_too() {
    let world = world().await;
    world.publish("a", (1..=500).map(event)).await;
    let config = pipeline("301").replace("start", "writers = 3\nbatch.max_rows = 20\nstart");
    let daemon = Daemon::start(&world.config(&config));
    world.drained("events", &daemon).await;
    assert_eq!(sequences(&world).await, (301..=500).collect::<Vec<_>>());
    audited(&world, &config, &[]);
    audited(&world, &config, &["--offline"]);
}
