//! Several pipelines in one process do not disturb each other.

use crate::support::{Daemon, World};

#[tokio::test]
async fn a_paused_and_a_halted_pipeline_stop_no_other() {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id integer)").await.unwrap();
    world.publish("a", (1..=100).map(|id| format!("{{\"id\": {id}}}"))).await;
    let pipeline = |name: &str, stream: &str, table: &str| {
        format!(
            "[[pipeline]]\nname = \"{name}\"\nstream = \"{stream}\"\nformat = \"json\"\n\
             [[pipeline.table]]\nname = \"{table}\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n"
        )
    };
    let config = [
        pipeline("no_table", "STREAM", "nowhere"),
        pipeline("no_stream", "NOSUCHSTREAM", "events"),
        pipeline("events", "STREAM", "events"),
    ];
    let daemon = Daemon::start(&world.config(&config.concat()));
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 100);
    daemon.says("no_table").await;
    daemon.says("no_stream").await;
}
