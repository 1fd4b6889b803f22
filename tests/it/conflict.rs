//! Rows that are there already, by `on_conflict`.

use serde_json::json;

use crate::postgres::in_state;
use crate::support::{Daemon, World, eventually, oracle};

fn pipeline(on_conflict: &str) -> String {
    let key = if on_conflict == "error" { "" } else { "key = [\"id\"]" };
    format!(
        r#"
[[pipeline]]
name = "items"
stream = "STREAM"
format = "json"
batch = {{ max_rows = 100, max_age = "20ms" }}

[[pipeline.table]]
name = "items"
on_conflict = "{on_conflict}"
{key}
"#
    )
}

const TABLE: &str = "CREATE TABLE items (id integer PRIMARY KEY, value integer CHECK (value <> 13))";

async fn carried(
    on_conflict: &str,
    messages: impl IntoIterator<Item = (i32, i32)>,
) -> (World, Vec<(i32, i32)>) {
    let (world, rows, _) = carried_by(on_conflict, messages).await;
    (world, rows)
}

/// The same, and the daemon that has done it.
async fn carried_by(
    on_conflict: &str,
    messages: impl IntoIterator<Item = (i32, i32)>,
) -> (World, Vec<(i32, i32)>, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.database.batch_execute("INSERT INTO items VALUES (1, -1), (2, -2)").await.unwrap();
    let messages = messages.into_iter().map(|(id, value)| json!({"id": id, "value": value}).to_string());
    world.publish("a", messages).await;
    let daemon = Daemon::start(&world.config(&pipeline(on_conflict)));
    world.drained("items", &daemon).await;
    let rows = world.database.query("SELECT id, value FROM items ORDER BY id", &[]).await.unwrap();
    let rows = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    (world, rows, daemon)
}

#[tokio::test]
async fn rows_that_are_there_already_or_come_again_in_a_batch_are_counted_as_skipped_and_not_as_stored() {
    // Duplicates reach over several batches, so that both ways of writing are met.
    let messages = (0..1_000).map(|id| (id % 100 + 1, 7));
    let (world, rows, daemon) = carried_by("ignore", messages).await;
    assert_eq!(rows.len(), 100);
    let stored = || daemon.metric("jetcopy_rows_total", "");
    eventually("the rows to be counted", async || stored() == 98).await;
    assert_eq!(daemon.metric("jetcopy_duplicates_skipped_total", ""), 902);
    assert_eq!(daemon.status()["rows"], 98);
    world.publish("a", [json!({"id": 500, "value": 1}).to_string()]).await;
    eventually("a new row to be counted", async || stored() == 99).await;
}

#[tokio::test]
async fn ignore_keeps_the_row_that_is_there_and_the_first_of_a_batch() {
    let messages = [(1, 10), (3, 30), (3, 31), (4, 40), (2, 20)];
    let (world, rows) = carried("ignore", messages).await;
    assert_eq!(rows, [(1, -1), (2, -2), (3, 30), (4, 40)]);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn update_takes_the_highest_sequence_of_a_key_within_a_batch_and_over_batches() {
    let rounds = (0..50).flat_map(|round| (1..=10).map(move |id| (id, round * 100 + id)));
    let (_, rows) = carried("update", rounds).await;
    assert_eq!(rows, (1..=10).map(|id| (id, 4_900 + id)).collect::<Vec<_>>());
}

#[tokio::test]
async fn error_makes_a_dead_letter_of_a_row_that_is_there() {
    let (world, rows) = carried("error", [(1, 10), (3, 30), (3, 31)]).await;
    assert_eq!(rows, [(1, -1), (2, -2), (3, 30)]);
    let sql = "SELECT array_agg(sequence ORDER BY sequence)::text || ' ' || min(sqlstate) \
        FROM jetcopy.dead_letters";
    let found: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(found, "{1,3} 23505");
}

#[tokio::test]
async fn a_row_that_the_merge_path_refuses_is_a_dead_letter_and_the_others_are_merged() {
    for on_conflict in ["ignore", "update"] {
        let (world, rows) = carried(on_conflict, [(1, 10), (3, 13), (4, 40)]).await;
        let first = if on_conflict == "update" { 10 } else { -1 };
        assert_eq!(rows, [(1, first), (2, -2), (4, 40)], "{on_conflict}");
        assert_eq!(world.count("SELECT sequence FROM jetcopy.dead_letters").await, 2);
    }
}

#[tokio::test]
async fn a_row_that_is_there_beside_one_that_another_table_refuses_is_no_reason_to_pause() {
    let world = World::new().await;
    let tables = "CREATE TABLE known (id integer PRIMARY KEY); INSERT INTO known VALUES (1), (2);
        CREATE TABLE facts (id integer REFERENCES known, sequence bigint);
        CREATE TABLE items (id integer PRIMARY KEY, value integer); INSERT INTO items VALUES (1, -1)";
    world.database.batch_execute(tables).await.unwrap();
    world.publish("a", [r#"{"id": 1}"#, r#"{"id": 9}"#, r#"{"id": 2}"#]).await;
    let facts = "[[pipeline.table]]\nname = \"facts\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n";
    let items = pipeline("ignore");
    let (head, table) = items.split_at(items.find("[[pipeline.table]]").unwrap());
    let daemon = Daemon::start(&world.config(&format!("{head}{facts}{table}")));
    oracle(&world, &daemon, "items", "facts", br#"{"id": 2}"#.to_vec()).await;
    let dead = "SELECT string_agg(sequence || ' ' || sqlstate, ', ') FROM jetcopy.dead_letters";
    let dead: String = world.database.query_one(dead, &[]).await.unwrap().get(0);
    assert_eq!(dead, "2 23503");
    assert_eq!(world.count("SELECT count(*) FROM items").await, 2);
}

#[tokio::test]
async fn ignore_skips_what_an_exclusion_constraint_or_an_index_on_an_expression_holds_already() {
    for index in [
        "EXCLUDE USING gist (int4range(id, id + 1) WITH &&)",
        "UNIQUE (sequence); CREATE UNIQUE INDEX ON items ((id % 10))",
        "UNIQUE (sequence); CREATE UNIQUE INDEX ON items (id) WHERE id > 0",
    ] {
        let world = World::new().await;
        let table =
            format!("CREATE TABLE items (id integer, sequence bigint); ALTER TABLE items ADD {index}");
        world.database.batch_execute(&table).await.unwrap();
        world.database.batch_execute("INSERT INTO items VALUES (1, -1)").await.unwrap();
        world.publish("a", (1..=4).map(|id| json!({"id": id}).to_string())).await;
        let rest = pipeline("ignore").replace("key = [\"id\"]", "");
        let rest = format!("{rest}[pipeline.table.columns]\nsequence = \"$sequence\"\n");
        let daemon = Daemon::start(&world.config(&rest));
        world.drained("items", &daemon).await;
        assert_eq!(world.count("SELECT count(*) FROM items").await, 4, "{index}");
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0, "{index}");
    }
}

#[tokio::test]
async fn a_row_that_is_there_by_another_index_than_the_key_is_a_dead_letter_and_the_others_are_rows() {
    for on_conflict in ["ignore", "update"] {
        let world = World::new().await;
        let table = "CREATE TABLE items (id integer PRIMARY KEY, value integer UNIQUE, sequence bigint);
            INSERT INTO items VALUES (1, 10, 0)";
        world.database.batch_execute(table).await.unwrap();
        let messages = [(2, 20), (3, 10), (4, 40), (5, 20)];
        world.publish("a", messages.map(|(id, value)| json!({"id": id, "value": value}).to_string())).await;
        let rest = format!("{}[pipeline.table.columns]\nsequence = \"$sequence\"\n", pipeline(on_conflict));
        let daemon = Daemon::start(&world.config(&rest));
        world.drained("items", &daemon).await;
        let dead = "SELECT string_agg(sequence || ' ' || sqlstate, ', ' ORDER BY sequence) \
            FROM jetcopy.dead_letters";
        let dead: String = world.database.query_one(dead, &[]).await.unwrap().get(0);
        assert_eq!(dead, "2 23505, 4 23505", "{on_conflict}");
        assert_eq!(world.count("SELECT count(*) FROM items").await, 3, "{on_conflict}");
    }
}

#[tokio::test]
async fn the_table_that_rows_are_merged_from_is_a_heap_whatever_the_databases_default_is() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    // Any other kind fails here, as a columnar table would.
    let sql = "CREATE ACCESS METHOD columns TYPE TABLE HANDLER heap_tableam_handler;
        CREATE FUNCTION only_heaps() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'columns') THEN
                RAISE 'not a heap' USING ERRCODE = 'XX000';
            END IF;
        END $$;
        CREATE EVENT TRIGGER only_heaps ON ddl_command_end EXECUTE FUNCTION only_heaps();
        DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET default_table_access_method = columns', current_database());
        END $$";
    world.database.batch_execute(sql).await.unwrap();
    world.publish("a", (1..=3).map(|id| json!({"id": id, "value": id}).to_string())).await;
    let daemon = Daemon::start(&world.config(&pipeline("update")));
    world.drained("items", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM items").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

/// Documents by key: `updated_at` and the place in the list that they came from.
async fn newest(messages: &[(i32, Option<i32>)], max_rows: usize) -> Vec<(i32, Option<i32>, i64)> {
    let world = World::new().await;
    let table = "CREATE TABLE items (id integer PRIMARY KEY, updated_at integer, sequence bigint);
        INSERT INTO items VALUES (1, 5, 0), (2, NULL, 0)";
    world.database.batch_execute(table).await.unwrap();
    let bodies = messages.iter().map(|(id, at)| json!({"id": id, "updated_at": at}).to_string());
    world.publish("a", bodies).await;
    let rest = "newer_by = \"updated_at\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n";
    let pipeline = pipeline("update").replace("max_rows = 100", &format!("max_rows = {max_rows}"));
    let daemon = Daemon::start(&world.config(&format!("{pipeline}{rest}")));
    world.drained("items", &daemon).await;
    let rows =
        world.database.query("SELECT id, updated_at, sequence FROM items ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn an_older_row_never_replaces_a_newer_one_and_of_equals_the_highest_sequence_wins() {
    let messages = [
        (1, Some(4)),
        (2, Some(1)),
        (1, Some(5)),
        (1, Some(5)),
        (3, Some(9)),
        (3, Some(7)),
        (3, None),
        (4, None),
        (4, None),
        (1, Some(3)),
    ];
    let expected = [(1, Some(5), 4), (2, Some(1), 2), (3, Some(9), 5), (4, None, 9)];
    // In one batch, and in one batch a message.
    for max_rows in [100, 1] {
        assert_eq!(newest(&messages, max_rows).await, expected, "{max_rows}");
    }
}

/// Lets a trigger make one key of each ten.
const TENS: &str = "CREATE TABLE items (id integer PRIMARY KEY, value integer);
    CREATE FUNCTION tens() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.id := NEW.id % 10;
        RETURN NEW;
    END $$;
    CREATE TRIGGER tens BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION tens()";

#[tokio::test]
async fn messages_whose_keys_a_trigger_makes_the_same_are_written_apart_and_the_last_one_wins() {
    let world = World::new().await;
    world.database.batch_execute(TENS).await.unwrap();
    let messages = [(1, 10), (2, 20), (11, 30), (3, 40), (21, 50), (13, 60)];
    world.publish("a", messages.map(|(id, value)| json!({"id": id, "value": value}).to_string())).await;
    let daemon = Daemon::start(&world.config(&pipeline("update")));
    daemon.says("continuing with half the messages").await;
    world.drained("items", &daemon).await;
    let rows = world.database.query("SELECT id, value FROM items ORDER BY id", &[]).await.unwrap();
    let rows: Vec<(i32, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, [(1, 50), (2, 20), (3, 60)]);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

#[tokio::test]
async fn a_message_in_which_a_trigger_makes_two_keys_the_same_pauses_and_says_so() {
    let world = World::new().await;
    world.database.batch_execute(TENS).await.unwrap();
    world.publish("a", [json!({"parts": [{"id": 1, "value": 1}, {"id": 11, "value": 2}]}).to_string()]).await;
    let pipeline = pipeline("update").replace("on_conflict", "for_each = \"parts\"\non_conflict");
    let daemon = Daemon::start(&world.config(&pipeline));
    daemon.says("http=").await;
    eventually("a pause", || async { daemon.status()["state"] == "paused" }).await;
    let status = daemon.status();
    assert!(status["reason"].as_str().unwrap().contains("sequence 1 alone"), "{status}");
    let remedy = "a trigger of the table gives several rows of the message the same key";
    assert!(status["remedy"].as_str().unwrap().starts_with(remedy), "{status}");
    world.database.batch_execute("DROP TRIGGER tens ON items").await.unwrap();
    world.drained("items", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM items").await, 2);
}

#[tokio::test]
async fn a_key_that_no_message_fills_is_refused_with_the_true_reason_and_ignore_goes_by_it() {
    let world = World::plain().await;
    let table = "CREATE TABLE items (id integer, value integer, last integer GENERATED ALWAYS AS (id % 10) \
        STORED UNIQUE)";
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", (1..=30).map(|id| json!({"id": id, "value": 1}).to_string())).await;
    let keyed = |on_conflict| world.config(&pipeline(on_conflict).replace("\"id\"", "\"last\""));
    let config = keyed("update");
    let daemon = Daemon::start(&config);
    let reason = "last takes no value from a message";
    let status = in_state(&daemon, "paused", reason).await;
    assert!(status["reason"].as_str().unwrap().contains("the server generates it"), "{status}");
    let checked = world.run(&config, &["check"]).await;
    assert!(checked.code == 1 && checked.out.contains(reason), "{checked:?}");
    drop(daemon);
    let daemon = Daemon::start(&keyed("ignore"));
    world.drained("items", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM items").await, 10);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}
