//! Messages without a payload of anybody's own: markers of what was removed, deletions of keys, schedules.

use std::time::Duration;

use async_nats::HeaderMap;
use jetcopy::publish::{Outgoing, publish};

use super::{each_id_once, shared};
use crate::support::{Daemon, EVENTS, PATIENCE, World, event, eventually, eventually_within};

/// Publishes a message with one header.
async fn with_header(world: &World, name: &str, value: &str, payload: Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    let subject = format!("{}.a", world.stream).into();
    let message = Outgoing { subject, headers: Some(headers), payload: payload.into() };
    publish(&world.nats, futures_util::stream::iter([message]), 1, |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_markers_are_passed_over_counted_and_no_loss() {
    let world = shared().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    let mut id = 0;
    for _ in 0..150 {
        id += 1;
        world.publish("a", [event(id)]).await;
        with_header(&world, "KV-Operation", "DEL", Vec::new()).await;
        with_header(&world, "KV-Operation", "PURGE", Vec::new()).await;
        with_header(&world, "Nats-Marker-Reason", "MaxAge", Vec::new()).await;
    }
    // With a payload it is somebody's own.
    id += 1;
    with_header(&world, "KV-Operation", "PUT", event(id)).await;
    id += 1;
    with_header(&world, "Nats-Marker-Reason", "mine", event(id)).await;
    world.drained("events", &daemon).await;
    each_id_once(&world, id).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    assert_eq!(daemon.metric("jetcopy_passed_over_messages_total", "kind=\"deleted\""), 300);
    assert_eq!(daemon.metric("jetcopy_passed_over_messages_total", "kind=\"removed\""), 150);
    assert_eq!(daemon.status()["passed_over_by_kind"]["deleted"], 300);
    let audited = world.run(&config, &["audit", "events"]).await;
    assert!(audited.code == 0 && audited.out.contains("450 markers of removals"), "{audited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_by_counts_does_not_miss_rows_of_markers() {
    let world = shared().await;
    let columns = "[pipeline.table.columns]\nsequence = \"$sequence\"\n";
    let config = world.config(&EVENTS.replace(columns, "columns = { sequence = { skip = true } }\n"));
    world.database.batch_execute("ALTER TABLE events ALTER sequence DROP NOT NULL").await.unwrap();
    let daemon = Daemon::start(&config);
    for id in 1..=20 {
        world.publish("a", [event(id)]).await;
        with_header(&world, "KV-Operation", "DEL", Vec::new()).await;
    }
    world.drained("events", &daemon).await;
    each_id_once(&world, 20).await;
    let audited = world.run(&config, &["audit", "events"]).await;
    assert!(audited.code == 0 && audited.out.contains("20 markers of removals"), "{audited:?}");
    // A row that is missing is missed nevertheless.
    world.database.batch_execute("DELETE FROM events WHERE id = 7").await.unwrap();
    let audited = world.run(&config, &["audit", "events"]).await;
    assert!(audited.code == 1 && audited.out.contains("1 difference"), "{audited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_writes_when_a_message_expires_is_passed_over() {
    let world = shared().await;
    let mut stream = world.stream_config();
    stream.allow_message_ttl = true;
    stream.subject_delete_marker_ttl = Some(Duration::from_mins(1));
    world.jetstream.update_stream(stream).await.unwrap();
    // Beside it one that reads the subject of the marker, and one that reads the other.
    world
        .database
        .batch_execute("CREATE TABLE narrow (LIKE events); CREATE TABLE other (LIKE events)")
        .await
        .unwrap();
    let beside = |name: &str, token: &str| {
        let stream = format!("stream = \"STREAM\"\nsubjects = [\"STREAM.{token}\"]");
        EVENTS.replace("\"events\"", &format!("\"{name}\"")).replace("stream = \"STREAM\"", &stream)
    };
    let config = [EVENTS, &beside("narrow", "a"), &beside("other", "kept")].concat();
    let daemon = Daemon::start(&world.config(&config));
    daemon.says("http=").await;
    world.publish("kept", [event(1)]).await;
    with_header(&world, "Nats-TTL", "1s", event(2)).await;
    // The server looks for what has expired about once a minute.
    let patience = 3 * PATIENCE;
    let written = || async { world.last_sequence().await == 3 };
    eventually_within(patience, "the server to write its marker", written).await;
    eventually("the server's marker to be passed over", || async {
        ["events", "narrow"].iter().all(|name| {
            let removed = format!("kind=\"removed\",pipeline=\"{name}\"");
            daemon.metric("jetcopy_passed_over_messages_total", &removed) == 1
        })
    })
    .await;
    for pipeline in ["events", "narrow", "other"] {
        world.drained(pipeline, &daemon).await;
    }
    each_id_once(&world, 2).await;
    assert_eq!(world.count("SELECT sum(id)::bigint FROM narrow").await, 2);
    assert_eq!(world.count("SELECT sum(id)::bigint FROM other").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.losses").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_asks_for_deletions_gets_them() {
    let world = shared().await;
    let sql = "CREATE TABLE deletions (sequence bigint NOT NULL, subject text NOT NULL)";
    world.database.batch_execute(sql).await.unwrap();
    let deletions = r#"
[[pipeline.table]]
name = "deletions"
when = { headers = { "KV-Operation" = ["DEL", "PURGE"] } }
[pipeline.table.columns]
sequence = "$sequence"
subject = "$subject"
"#;
    let events = EVENTS.replace(
        "name = \"events\"\n[pipeline.table",
        "name = \"events\"\nwhen = { headers = { \"KV-Operation\" = false } }\n[pipeline.table",
    );
    let daemon = Daemon::start(&world.config(&(events + deletions)));
    for id in 1..=10 {
        world.publish("a", [event(id)]).await;
        with_header(&world, "KV-Operation", "DEL", Vec::new()).await;
    }
    world.drained("events", &daemon).await;
    each_id_once(&world, 10).await;
    assert_eq!(world.count("SELECT count(*) FROM deletions").await, 10);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}
