//! What messages, tables and servers bring along does not act on the terminal of whoever looks at it.

use serde_json::Value;

use crate::support::{EVENTS, TABLE, World};

/// Sets a title, clears the screen by a C1 control, turns the direction of text, goes back in the line and
/// deletes.
const NASTY: &str = "a\u{1b}]0;t\u{7}\u{9b}2J\u{202e}b\u{2066}\r\u{7f}z";

fn acts(character: char) -> bool {
    character.is_control() && character != '\n'
        || matches!(character, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_of_messages_rows_and_servers_reach_no_terminal() {
    let world = World::plain().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    world
        .database
        .execute(
            "INSERT INTO frame_metadata (time, camera_id, frame_id, codec) VALUES (now(), $1, 1, $1)",
            &[&NASTY],
        )
        .await
        .unwrap();
    let id: i64 = world
        .database
        .query_one(
            "INSERT INTO jetcopy.dead_letters
                (pipeline, shard, stream, sequence, subject, headers, payload, kind, message, table_name, \
                    column_name)
             VALUES ('events', 'events', 'S', 1, $1, jsonb_build_object($1::text, $1::text), $2, \
                 'malformed', $1, $1, $1)
             RETURNING id",
            &[&NASTY, &serde_json::to_vec(&serde_json::json!({NASTY: NASTY})).unwrap()],
        )
        .await
        .unwrap()
        .get(0);
    world
        .database
        .execute(
            "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, paused_at, paused_by)
             VALUES ('events', 'events', $1, now(), $1)",
            &[&NASTY],
        )
        .await
        .unwrap();
    let id = id.to_string();
    for command in [
        &["query", "latest_frames"][..],
        &["query", "latest_frames", "--format", "json"],
        &["dead-letters", "list"],
        &["dead-letters", "show", &id],
        &["dead-letters", "export"],
        &["dead-letters", "export", "--decode"],
        &["status"],
        &["status", "--json"],
        &["check"],
        &["check", "--json"],
        &["audit", "events"],
        &["store"],
        &["pause", "events"],
    ] {
        let answer = world.run(&config, command).await;
        let said = format!("{}{}", answer.out, answer.err);
        assert!(!said.trim().is_empty(), "{command:?}");
        let found = said.chars().find(|character| acts(*character));
        assert!(found.is_none(), "{command:?} prints {found:?}: {said:?}");
    }
    // It is the same text for a machine.
    let rows = world.run(&config, &["query", "latest_frames", "--format", "json"]).await.well();
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows[0]["camera_id"], NASTY);
    let csv = world.run(&config, &["query", "latest_frames", "--format", "csv"]).await.well();
    assert!(csv.contains(NASTY), "a file has what the database has");
}
