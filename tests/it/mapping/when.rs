//! Messages of several kinds on one stream, told apart before they are decoded.

use async_nats::HeaderMap;
use serde_json::json;

use crate::support::{Daemon, World, oracle};

const TABLE: &str = "CREATE TABLE events (sequence bigint NOT NULL, id bigint)";

fn pipeline(when: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
on_unmatched = "skip"

[[pipeline.table]]
name = "events"
when = {when}
[pipeline.table.columns]
sequence = "$sequence"
"#
    )
}

/// What no MessagePack and no JSON begins like.
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00";

#[tokio::test]
async fn a_picture_beside_the_events_is_skipped_without_being_decoded() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    for id in 1..=20 {
        world.publish("pictures", [JPEG]).await;
        world.publish("events", [json!({"id": id}).to_string()]).await;
    }
    let daemon = Daemon::start(&world.config(&pipeline("{ subject = \"STREAM.events\" }")));
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 20);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    // Beside the pictures it is a message like any other: one that cannot be read is a dead letter.
    world.publish("events", [JPEG]).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT sequence FROM jetcopy.dead_letters").await, 41);
}

#[tokio::test]
async fn a_table_takes_messages_by_their_headers_also_without_a_payload() {
    let world = World::new().await;
    let tables = "CREATE TABLE events (sequence bigint NOT NULL, id bigint);
        CREATE TABLE deleted (sequence bigint NOT NULL, what text NOT NULL, operation text NOT NULL)";
    world.database.batch_execute(tables).await.unwrap();
    let config = pipeline("{ headers = { X-Operation = false } }")
        + r#"
[[pipeline.table]]
name = "deleted"
when = { headers = { X-Operation = ["DEL", "PURGE"] } }
[pipeline.table.columns]
sequence = "$sequence"
what = "$subject[1]"
operation = "$header.X-Operation"
"#;
    let publish = async |key: &str, operation: Option<&str>, payload: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("X-Writer", "test");
        if let Some(operation) = operation {
            headers.insert("X-Operation", operation);
        }
        let subject = format!("{}.{key}", world.stream);
        let sent = world.jetstream.publish_with_headers(subject, headers, payload.to_owned().into()).await;
        sent.unwrap().await.unwrap();
    };
    for (key, operation, payload) in [
        ("a", None, r#"{"id":1}"#),
        ("a", Some("DEL"), ""),
        ("b", Some("PURGE"), ""),
        ("c", Some("MOVE"), ""),
        ("b", None, r#"{"id":2}"#),
    ] {
        publish(key, operation, payload).await;
    }
    let daemon = Daemon::start(&world.config(&config));
    world.drained("events", &daemon).await;
    let all = "SELECT string_agg(sequence || ' ' || what, ', ' ORDER BY sequence) FROM
        (SELECT sequence, id::text AS what FROM events UNION ALL SELECT sequence, what || operation \
            FROM deleted) AS rows";
    let rows: String = world.database.query_one(all, &[]).await.unwrap().get(0);
    assert_eq!(rows, "1 1, 2 aDEL, 3 bPURGE, 5 2");
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn without_skip_what_no_table_takes_by_subject_is_an_unmatched_dead_letter() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.publish("pictures", [JPEG]).await;
    let config = pipeline("{ subject = \"STREAM.events\" }").replace("on_unmatched = \"skip\"\n", "");
    let config =
        config.replace("subject = \"STREAM.events\"", "subject = \"STREAM.*\", headers = { X = false }");
    let daemon = Daemon::start(&world.config(&config));
    world.drained("events", &daemon).await;
    let kind = async || -> String {
        world
            .database
            .query_one("SELECT string_agg(kind, ',') FROM jetcopy.dead_letters", &[])
            .await
            .unwrap()
            .get(0)
    };
    assert_eq!(kind().await, "malformed", "a table takes it by its subject");
    world.publish("pictures.of.cats", [JPEG]).await;
    world.drained("events", &daemon).await;
    assert_eq!(kind().await, "malformed,unmatched");
    oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into_bytes()).await;
}
