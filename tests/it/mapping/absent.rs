//! What a field that a message lacks does to a row that is there, and what NULL in a key is.

use serde_json::{Value, json};

use crate::support::{Daemon, World, oracle};

const TABLE: &str = "CREATE TABLE items (id integer PRIMARY KEY, sequence bigint, a integer, \
    b text DEFAULT 'new', tags integer[],
    note text);
    INSERT INTO items (id, a, b, tags, note) VALUES (1, 1, 'old', '{1,2}', 'by hand'), (2, 2, NULL, NULL, \
        'by hand')";

fn pipeline(rest: &str, max_rows: usize) -> String {
    format!(
        r#"
[[pipeline]]
name = "items"
stream = "STREAM"
batch = {{ max_rows = {max_rows}, max_age = "200ms" }}

[[pipeline.table]]
name = "items"
on_conflict = "update"
{rest}
"#
    )
}

/// What is in the table once the messages are, by batches of so many.
async fn carried(world: &World, rest: &str, messages: &[Value], max_rows: usize) -> Vec<String> {
    world.publish("a", messages.iter().map(Value::to_string)).await;
    let daemon = Daemon::start(&world.config(&pipeline(rest, max_rows)));
    world.drained("items", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    let rows = "SELECT row_to_json(items)::text FROM items ORDER BY id NULLS FIRST, sequence";
    world.database.query(rows, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn rows(rows: &[Value]) -> Vec<Value> {
    rows.to_vec()
}

fn parsed(rows: &[String]) -> Vec<Value> {
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

const KEEP: &str = "key = [\"id\"]\nabsent = \"keep\"\n[pipeline.table.columns]\nsequence = \"$sequence\"";

#[tokio::test]
async fn a_field_that_a_message_lacks_keeps_what_the_row_has_whatever_the_batches() {
    let messages = [
        json!({"id": 1, "a": 10}),
        json!({"id": 1, "tags": [3]}),
        json!({"id": 3, "a": 30}),
        json!({"id": 2, "b": "x", "a": null}),
        json!({"id": 3, "b": "y"}),
        json!({"id": 2}),
        json!({"id": 4, "a": null, "note": "n"}),
        json!({"id": 3, "tags": [1, 2, 3], "b": null}),
        json!({"id": 1, "tags": null}),
    ];
    let expected = rows(&[
        json!({"id": 1, "sequence": 9, "a": 10, "b": "old", "tags": null, "note": "by hand"}),
        json!({"id": 2, "sequence": 6, "a": null, "b": "x", "tags": null, "note": "by hand"}),
        json!({"id": 3, "sequence": 8, "a": 30, "b": "new", "tags": [1, 2, 3], "note": null}),
        json!({"id": 4, "sequence": 7, "a": null, "b": "new", "tags": null, "note": "n"}),
    ]);
    // In one batch, in a few, and in one a message.
    for max_rows in [100, 4, 1] {
        let world = World::new().await;
        world.database.batch_execute(TABLE).await.unwrap();
        assert_eq!(parsed(&carried(&world, KEEP, &messages, max_rows).await), expected, "{max_rows}");
    }
}

#[tokio::test]
async fn many_keys_in_a_batch_keep_what_they_have_as_one_does() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let filled =
        "INSERT INTO items (id, a, note) SELECT id, id, 'by hand ' || id FROM generate_series(3, 2000) AS id";
    world.database.batch_execute(filled).await.unwrap();
    let messages: Vec<Value> = (0..6_000).map(|n| json!({"id": n % 2_000 + 1, "b": n.to_string()})).collect();
    carried(&world, KEEP, &messages, 6_000).await;
    let wrong = "SELECT count(*) FROM items
        WHERE note NOT LIKE 'by hand%' OR a IS DISTINCT FROM id OR b <> (3999 + id)::text";
    assert_eq!(world.count(wrong).await, 0);
    assert_eq!(world.count("SELECT count(*) FROM items").await, 2_000);
}

#[tokio::test]
async fn a_column_that_is_skipped_is_left_alone_and_needs_no_right() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let role = format!("writer_{}", world.stream.to_lowercase());
    let grants = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA jetcopy TO {role}; \
         GRANT ALL ON ALL TABLES IN SCHEMA jetcopy TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA jetcopy TO {role};
         GRANT INSERT (id, sequence, a, b, tags), SELECT (id, sequence, a, b, tags), \
             UPDATE (sequence, a, b, tags) ON items TO {role}"
    );
    world.database.batch_execute(&grants).await.unwrap();
    let rest = "key = [\"id\"]\nabsent = \"null\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\nnote \
                = { skip = true }";
    let config = world.config(&pipeline(rest, 100));
    let text = std::fs::read_to_string(&config).unwrap();
    let (scheme, address) = world.database_url.split_once("://").unwrap();
    let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
    let as_role = format!("{scheme}://{role}@{address}");
    std::fs::write(&config, text.replace(&world.database_url, &as_role)).unwrap();
    let check = world.run(&config, &["check"]).await.well();
    assert!(
        check.contains("a message that lacks the field sets a, b, tags to NULL or the default"),
        "{check}"
    );
    world
        .publish("a", [json!({"id": 1, "note": "not taken"}).to_string(), json!({"id": 7}).to_string()])
        .await;
    let daemon = Daemon::start(&config);
    world.drained("items", &daemon).await;
    let notes =
        "SELECT string_agg(id || coalesce(note, '-') || coalesce(a::text, '-'), ',' ORDER BY id) FROM items";
    let notes: String = world.database.query_one(notes, &[]).await.unwrap().get(0);
    assert_eq!(notes, "1by hand-,2by hand2,7--");
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn a_row_with_null_in_its_key_is_one_of_its_own_whatever_the_batches() {
    let distinct = [("null", "", 11), ("keep", "", 11)];
    let not_distinct = [("null", "NULLS NOT DISTINCT", 2), ("keep", "NULLS NOT DISTINCT", 2)];
    let world = World::new().await;
    // PostgreSQL 14 does not know them.
    let known = world.count("SELECT current_setting('server_version_num')::bigint").await >= 150_000;
    let not_distinct = not_distinct.into_iter().filter(|_| known);
    for (absent, nulls, there) in distinct.into_iter().chain(not_distinct) {
        for max_rows in [100, 3, 1] {
            let world = World::new().await;
            let table = format!(
                "CREATE TABLE items (id integer, sequence bigint, a integer, b integer, UNIQUE {nulls} (id))"
            );
            world.database.batch_execute(&table).await.unwrap();
            let messages: Vec<Value> = (0..12)
                .map(|n| match n {
                    0 => json!({"id": null, "b": 5}),
                    5 | 7 => json!({"id": 1, "a": n}),
                    n => json!({"a": n}),
                })
                .collect();
            let rest = format!(
                "key = [\"id\"]\nabsent = \"{absent}\"\n[pipeline.table.columns]\nsequence = \"$sequence\""
            );
            let found = parsed(&carried(&world, &rest, &messages, max_rows).await);
            assert_eq!(found.len(), there, "{absent} {nulls} {max_rows}: {found:?}");
            let (one, b) = (json!({"id": 1, "sequence": 8, "a": 7, "b": null}), &found[0]["b"]);
            assert_eq!(found.last(), Some(&one));
            // The first row of all, or the only one with NULL.
            let kept = if nulls.is_empty() || absent == "keep" { json!(5) } else { Value::Null };
            assert_eq!(*b, kept, "{absent} {nulls} {max_rows}");
        }
    }
}

#[tokio::test]
async fn what_the_table_refuses_is_a_dead_letter_and_the_others_keep_what_they_have() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.database.batch_execute("ALTER TABLE items ADD CHECK (a <> 13)").await.unwrap();
    let messages = [json!({"id": 1, "b": "x"}), json!({"id": 1, "a": 13}), json!({"id": 2, "tags": [5]})];
    world.publish("a", messages.iter().map(Value::to_string)).await;
    let daemon = Daemon::start(&world.config(&pipeline(KEEP, 100)));
    world.drained("items", &daemon).await;
    assert_eq!(world.count("SELECT sequence FROM jetcopy.dead_letters").await, 2);
    let kept =
        "SELECT string_agg(concat_ws('/', id, sequence, a, b, tags::text, note), ' ' ORDER BY id) FROM items";
    let kept: String = world.database.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(kept, "1/1/1/x/{1,2}/by hand 2/3/2/{5}/by hand");
    let keyless = "DELETE FROM items";
    world.database.batch_execute(keyless).await.unwrap();
    world.database.batch_execute("INSERT INTO items (id, sequence) VALUES (-1, 1), (-3, 3)").await.unwrap();
    oracle(&world, &daemon, "items", "items", json!({"id": 9}).to_string().into_bytes()).await;
}
