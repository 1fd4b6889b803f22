//! `jetcopy audit` on the pipelines of `config/store.toml`: what it proves, and what it says it cannot.

use serde_json::json;

use super::{carry, pipeline, publish};
use crate::support::{World, days_ago};

#[tokio::test]
async fn an_audit_counts_the_frames_of_the_store_and_finds_one_that_is_missing() {
    let world = World::plain().await;
    let frame =
        |n: i64| json!({"timestamp": days_ago(2) + n, "frame_id": n, "detections": [{"label": "car"}]});
    publish(&world, "gate", (0..20).map(frame).chain([json!({"frame_id": 1})])).await;
    let _daemon = carry(&world, "frames").await;
    let config = world.config(&pipeline("frames"));
    let said = world.run(&config, &["audit", "frames"]).await.well();
    assert!(said.contains("counted 20 rows of frame_metadata and 1 dead letters"), "{said}");
    assert!(said.contains("verdict: no difference"), "{said}");
    world.database.batch_execute("DELETE FROM frame_metadata WHERE frame_id = 7").await.unwrap();
    let said = world.run(&config, &["audit", "frames"]).await;
    assert!(said.code == 1 && said.out.contains("21 messages up to the checkpoint, but 19 rows"), "{said:?}");
}

#[tokio::test]
async fn an_audit_of_the_other_pipelines_never_takes_for_proven_what_rows_do_not_tell() {
    let at = days_ago(2);
    for (name, subject, message) in [
        ("measurements", "t.one", json!({"timestamp_utc": at, "websdr_id": "rx", "frequency_mhz": 7.1})),
        ("series", "room.row", json!({"timestamp": at, "a": 1})),
        ("registry", "projects", json!({"id": "p", "updated_at": at})),
    ] {
        let world = World::plain().await;
        publish(&world, subject, [message]).await;
        let _daemon = carry(&world, name).await;
        let said = world.run(&world.config(&pipeline(name)), &["audit", name]).await;
        assert!(
            said.out.contains("not proven: ") && said.out.contains("nothing could be proven"),
            "{said:?}"
        );
    }
}
