//! A message that cannot be stored becomes a dead letter, and the others become rows.

use serde_json::json;

use crate::support::{Daemon, World, eventually, oracle};

fn pipeline(format: &str, rest: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "{format}"
{rest}

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#
    )
}

const TABLE: &str = "CREATE TABLE events (
    sequence bigint NOT NULL, id integer NOT NULL, value double precision, note text, doc jsonb)";

/// Reasons of the dead letters by sequence: `kind: message`.
async fn dead_letters(world: &World) -> Vec<(i64, String, Option<String>)> {
    let sql =
        "SELECT sequence, kind || ': ' || message, sqlstate FROM jetcopy.dead_letters ORDER BY sequence";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// Publishes each of `bad` followed by a good message, and expects the kinds given, in order.
async fn each_is_a_dead_letter(format: &str, good: &[u8], bad: Vec<(&str, Vec<u8>)>) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    for (_, payload) in &bad {
        world.publish("a", [payload.clone(), good.to_vec()]).await;
    }
    let daemon = Daemon::start(&world.config(&pipeline(format, "")));
    oracle(&world, &daemon, "events", "events", good.to_vec()).await;

    let found = dead_letters(&world).await;
    let kinds: Vec<(i64, &str)> =
        found.iter().map(|(sequence, reason, _)| (*sequence, reason.split(':').next().unwrap())).collect();
    let expected: Vec<(i64, &str)> = (0..).zip(&bad).map(|(n, (kind, _))| (2 * n + 1, *kind)).collect();
    assert_eq!(kinds, expected, "{found:#?}");
    let kept = world.count("SELECT count(*) FROM jetcopy.dead_letters WHERE payload IS NULL").await;
    assert_eq!(kept, 0, "every payload is kept");
}

#[tokio::test]
async fn bad_messagepack_becomes_dead_letters_and_the_message_after_each_becomes_a_row() {
    let good = rmp_serde::to_vec_named(&json!({"id": 1, "note": "good"})).unwrap();
    let truncated = good[..good.len() - 1].to_vec();
    let deep = {
        let mut message = vec![0x82, 0xa2, b'i', b'd', 1, 0xa3, b'd', b'o', b'c'];
        message.extend(std::iter::repeat_n(0x91, 10_000));
        message.push(0xc0);
        message
    };
    // {"id": 1, "id": 2}
    let repeated = vec![0x82, 0xa2, b'i', b'd', 1, 0xa2, b'i', b'd', 2];
    let too_large = rmp_serde::to_vec_named(&json!({"id": 3_000_000_000_u64})).unwrap();
    let nul = rmp_serde::to_vec_named(&json!({"id": 1, "note": "a\0b"})).unwrap();
    let not_utf8 = vec![0x82, 0xa2, b'i', b'd', 1, 0xa4, b'n', b'o', b't', b'e', 0xa2, 0xff, 0xfe];
    let missing = rmp_serde::to_vec_named(&json!({"note": "no id"})).unwrap();
    let wrong_type = rmp_serde::to_vec_named(&json!({"id": "one"})).unwrap();
    let bad = vec![
        ("malformed", truncated),
        ("malformed", Vec::new()),
        ("malformed", deep),
        ("malformed", repeated),
        ("range", too_large),
        ("range", nul),
        ("malformed", not_utf8),
        ("missing", missing),
        ("type", wrong_type),
        ("malformed", b"\xc1".to_vec()),
    ];
    each_is_a_dead_letter("msgpack", &good, bad).await;
}

#[tokio::test]
async fn bad_json_becomes_dead_letters_and_the_message_after_each_becomes_a_row() {
    let good = br#"{"id": 1, "note": "good"}"#;
    let deep = format!(r#"{{"id": 1, "doc": {}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("malformed", br#"{"id": 1, "note": "cut"#.to_vec()),
        ("malformed", Vec::new()),
        ("malformed", deep.into_bytes()),
        ("malformed", br#"{"id": 1, "id": 2}"#.to_vec()),
        ("range", br#"{"id": 3000000000}"#.to_vec()),
        ("range", br#"{"id": 1, "note": "a\u0000b"}"#.to_vec()),
        ("malformed", br#"{"id": 1, "note": "\ud800"}"#.to_vec()),
        ("malformed", b"{\"id\": 1, \"note\": \"\xff\"}".to_vec()),
        ("missing", br#"{"note": "no id"}"#.to_vec()),
        ("malformed", br#"{"id": 1} trailing"#.to_vec()),
        ("malformed", b"[1, 2]".to_vec()),
    ];
    each_is_a_dead_letter("json", good, bad).await;
}

#[tokio::test]
async fn unusual_values_that_a_column_can_hold_become_rows() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let long = "x".repeat(1_000_000);
    let nan = [&[0x82, 0xa2, b'i', b'd', 1, 0xa5][..], b"value", &[0xcb], &f64::NAN.to_be_bytes()].concat();
    let good = rmp_serde::to_vec_named(&json!({"id": 4})).unwrap();
    world.publish("a", [rmp_serde::to_vec_named(&json!({"id": 2, "note": long})).unwrap(), nan]).await;
    let daemon = Daemon::start(&world.config(&pipeline("msgpack", "")));
    oracle(&world, &daemon, "events", "events", good).await;
    assert!(dead_letters(&world).await.is_empty());
    assert_eq!(world.count("SELECT length(note)::bigint FROM events WHERE id = 2").await, 1_000_000);
    assert_eq!(world.count("SELECT count(*) FROM events WHERE value = 'NaN'").await, 1);
}

/// Messages 1 to 300; those that `table`'s constraints refuse are dead letters with `sqlstate`.
async fn refused_by_the_server(table: &str, bad: impl Fn(i64) -> bool, sqlstate: &str) {
    let world = World::new().await;
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", (1..=300).map(|id| json!({"id": id}).to_string())).await;
    // One batch holds them all.
    let config = world.config(&pipeline("json", "batch = { max_rows = 300, max_age = \"10s\" }"));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    daemon.kill();

    let expected: Vec<i64> = (1..=300).filter(|id| bad(*id)).collect();
    let found = dead_letters(&world).await;
    assert_eq!(found.iter().map(|(sequence, _, _)| *sequence).collect::<Vec<_>>(), expected);
    assert!(found.iter().all(|(_, _, found)| found.as_deref() == Some(sqlstate)), "{found:?}");
    let daemon = Daemon::start(&world.config(&pipeline("json", "")));
    oracle(&world, &daemon, "events", "events", json!({"id": 1000}).to_string().into()).await;
}

#[tokio::test]
async fn rows_that_a_check_refuses_are_pinned_by_the_line_that_the_server_names() {
    let table = "CREATE TABLE events (sequence bigint, id integer CHECK (id NOT IN (7, 150, 151, 300)))";
    refused_by_the_server(table, |id| [7, 150, 151, 300].contains(&id), "23514").await;
}

#[tokio::test]
async fn rows_of_a_shuffled_batch_are_pinned_to_the_right_messages() {
    // Sorted by time, the lines that the server names are not in stream order.
    let table = "CREATE TABLE events (sequence bigint, id integer CHECK (id NOT IN (3, 299)),
        time timestamptz GENERATED ALWAYS AS (timestamptz '2024-01-01 UTC') STORED)";
    refused_by_the_server(table, |id| [3, 299].contains(&id), "23514").await;

    let world = World::new().await;
    let table =
        "CREATE TABLE events (sequence bigint, id integer CHECK (id NOT IN (3, 299)), time timestamptz)";
    world.database.batch_execute(table).await.unwrap();
    let messages = (1..=300).map(|id| {
        let minute = id * 37 % 60;
        json!({"id": id, "time": format!("2024-01-01T00:{minute:02}:00Z")}).to_string()
    });
    world.publish("a", messages).await;
    let daemon =
        Daemon::start(&world.config(&pipeline("json", "batch = { max_rows = 300, max_age = \"10s\" }")));
    world.drained("events", &daemon).await;
    let found = dead_letters(&world).await;
    assert_eq!(found.iter().map(|(sequence, _, _)| *sequence).collect::<Vec<_>>(), [3, 299]);
}

#[tokio::test]
async fn rows_without_their_foreign_key_are_found_by_bisection() {
    let table = "CREATE TABLE known (id integer PRIMARY KEY);
        INSERT INTO known SELECT generate_series(1, 1000) EXCEPT VALUES (42), (211);
        CREATE TABLE events (sequence bigint, id integer REFERENCES known)";
    refused_by_the_server(table, |id| [42, 211].contains(&id), "23503").await;
}

#[tokio::test]
async fn a_batch_with_many_bad_rows_that_only_bisection_finds_is_written_in_parts_and_limited_as_a_whole() {
    let world = World::new().await;
    let table = "CREATE TABLE known (id integer PRIMARY KEY);
        INSERT INTO known SELECT id FROM generate_series(1, 11000) AS id WHERE id % 800 <> 0;
        CREATE TABLE events (sequence bigint, id integer REFERENCES known)";
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", (1..=10_000).map(|id| json!({"id": id}).to_string())).await;
    let batch = "batch = { max_rows = 10_000, max_age = \"10s\" }";
    let limit = format!("{batch}\npoison = {{ max_per_batch = 11 }}");
    let daemon = Daemon::start(&world.config(&pipeline("json", &limit)));
    daemon.says("more than 11 messages of one batch cannot be stored").await;
    let checkpoint = world.checkpoint("events").await;
    assert!((1..10_000).contains(&checkpoint), "{checkpoint}");
    daemon.kill();

    let daemon = Daemon::start(&world.config(&pipeline("json", "")));
    oracle(&world, &daemon, "events", "events", json!({"id": 10_001}).to_string().into()).await;
    let found: Vec<i64> = dead_letters(&world).await.iter().map(|(sequence, _, _)| *sequence).collect();
    assert_eq!(found, (1..=12).map(|number| number * 800).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_that_a_deferred_constraint_refuses_at_commit_are_found_by_bisection() {
    let table = "CREATE TABLE known (id integer PRIMARY KEY);
        INSERT INTO known SELECT generate_series(1, 1000) EXCEPT VALUES (42);
        CREATE TABLE events (sequence bigint, id integer REFERENCES known DEFERRABLE INITIALLY DEFERRED)";
    refused_by_the_server(table, |id| id == 42, "23503").await;
}

/// A table whose trigger refuses the rows 42 and 211, and 300, which is the last.
fn guarded(trigger: &str, errcode: &str) -> String {
    format!(
        "CREATE TABLE events (sequence bigint, id integer);
         CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id IN (42, 211, 300) THEN RAISE 'not this one' USING ERRCODE = '{errcode}'; END IF;
             RETURN NEW;
         END $$;
         CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION guard()"
    )
}

#[tokio::test]
async fn rows_that_a_trigger_refuses_are_dead_letters_whenever_it_fires_and_whatever_its_code() {
    for trigger in [
        "TRIGGER guard BEFORE INSERT ON events",
        "TRIGGER guard AFTER INSERT ON events",
        "CONSTRAINT TRIGGER guard AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED",
    ] {
        for code in ["P0001", "JC001"] {
            refused_by_the_server(&guarded(trigger, code), |id| [42, 211, 300].contains(&id), code).await;
        }
    }
}

#[tokio::test]
async fn an_error_that_passes_by_itself_while_a_row_is_looked_for_is_no_rows_fault() {
    let mut table = guarded("TRIGGER guard AFTER INSERT ON events", "P0001");
    // Now and then, in attempts and in trials alike: sequences do not roll back.
    table += ";CREATE SEQUENCE rows;
         CREATE FUNCTION flap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('rows') IN (200, 700, 1500) THEN RAISE 'again' USING ERRCODE = '40001'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER flap BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION flap()";
    refused_by_the_server(&table, |id| [42, 211, 300].contains(&id), "P0001").await;
}

#[tokio::test]
async fn the_few_good_messages_of_a_batch_are_found_among_the_bad_ones() {
    let table =
        "CREATE TABLE events (sequence bigint, id integer CHECK (id NOT BETWEEN 101 AND 190 OR id = 137))";
    let world = World::new().await;
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", (101..=190).map(|id| json!({"id": id}).to_string())).await;
    let daemon = Daemon::start(&world.config(&pipeline("json", "")));
    oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into()).await;
    assert_eq!(dead_letters(&world).await.len(), 89);
    assert!(!daemon.log().contains("backing off"), "{}", daemon.log());
}

#[tokio::test]
async fn a_good_message_behind_three_hundred_bad_ones_is_found_where_so_many_may_be_bad() {
    let table = "CREATE TABLE events (sequence bigint, id integer PRIMARY KEY);
        INSERT INTO events SELECT 0, generate_series(1, 300)";
    let world = World::new().await;
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", (1..=301).map(|id| json!({"id": id}).to_string())).await;
    let settings = "batch = { max_rows = 400, max_age = \"10s\" }
        poison = { max_per_batch = 1000, max_per_minute = 1000 }";
    let daemon = Daemon::start(&world.config(&pipeline("json", settings)));
    world.drained("events", &daemon).await;
    assert_eq!(dead_letters(&world).await.len(), 300);
    assert_eq!(world.count("SELECT id::bigint FROM events WHERE sequence > 0").await, 301);
    assert!(!daemon.log().contains("backing off"), "{}", daemon.log());
}

#[tokio::test]
async fn each_dead_letter_of_a_batch_has_the_reason_of_its_own_row() {
    let world = World::new().await;
    let table =
        "CREATE TABLE known (id integer PRIMARY KEY); INSERT INTO known SELECT generate_series(1, 99);
        CREATE TABLE events (sequence bigint, id integer REFERENCES known CHECK (id <> 7), note text);
        CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.note = 'bad' THEN RAISE 'bad note'; END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER guard AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION guard()";
    world.database.batch_execute(table).await.unwrap();
    let messages = [(1, "bad"), (2, ""), (100, ""), (7, ""), (200, "bad"), (3, "bad"), (4, "")];
    world.publish("a", messages.map(|(id, note)| json!({"id": id, "note": note}).to_string())).await;
    let daemon = Daemon::start(&world.config(&pipeline("json", "")));
    oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into()).await;
    let found = dead_letters(&world).await;
    let codes: Vec<(i64, Option<&str>)> = found.iter().map(|(n, _, code)| (*n, code.as_deref())).collect();
    assert_eq!(
        codes,
        [(1, Some("P0001")), (3, Some("23503")), (4, Some("23514")), (5, Some("23503")), (6, Some("P0001"))],
        "{found:?}"
    );
}

#[tokio::test]
async fn a_bad_message_that_comes_alone_is_a_dead_letter_at_once_and_two_after_a_while() {
    for count in [1, 2] {
        let world = World::new().await;
        world
            .database
            .batch_execute(&guarded("TRIGGER guard AFTER INSERT ON events", "P0001"))
            .await
            .unwrap();
        world.publish("a", (0..count).map(|_| json!({"id": 42}).to_string())).await;
        let daemon = Daemon::start(&world.config(&pipeline("json", "")));
        oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into()).await;
        assert_eq!(dead_letters(&world).await.len(), count);
        assert_eq!(daemon.log().contains("no message is at fault"), count > 1, "{}", daemon.log());
        // By now a good row is known.
        world.publish("a", (0..5).map(|_| json!({"id": 211}).to_string())).await;
        world.drained("events", &daemon).await;
        assert_eq!(dead_letters(&world).await.len(), count + 5);
    }
}

#[tokio::test]
async fn an_unknown_enum_label_is_refused_by_the_server_and_pinned() {
    let world = World::new().await;
    let table = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE events (sequence bigint, mood mood)";
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", [r#"{"mood": "good"}"#, r#"{"mood": "odd"}"#, r#"{"mood": "bad"}"#]).await;
    let daemon = Daemon::start(&world.config(&pipeline("json", "")));
    oracle(&world, &daemon, "events", "events", br#"{"mood": "good"}"#.to_vec()).await;
    assert_eq!(dead_letters(&world).await.len(), 1);
}

#[tokio::test]
async fn a_message_that_fills_several_tables_is_refused_in_all_of_them() {
    let world = World::new().await;
    let tables = "CREATE TABLE events (sequence bigint, id integer);
        CREATE TABLE parts (sequence bigint, size integer CHECK (size < 10))";
    world.database.batch_execute(tables).await.unwrap();
    let messages = [
        r#"{"id": 1, "parts": [{"size": 1}, {"size": 2}]}"#,
        r#"{"id": 2, "parts": [{"size": 3}, {"size": 99}]}"#,
        r#"{"id": 3, "parts": []}"#,
    ];
    world.publish("a", messages).await;
    let second = "[[pipeline.table]]\nname = \"parts\"\nfor_each = \
                  \"parts\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n";
    let daemon = Daemon::start(&world.config(&format!("{}{second}", pipeline("json", ""))));
    oracle(&world, &daemon, "events", "events", br#"{"id": 4}"#.to_vec()).await;
    assert_eq!(world.count("SELECT count(*) FROM parts").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM parts WHERE sequence = 2").await, 0);
    assert_eq!(world.count("SELECT sequence FROM jetcopy.dead_letters WHERE table_name = 'parts'").await, 2);
}

#[tokio::test]
async fn a_flood_of_poison_pauses_the_pipeline_and_fills_no_table() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.publish("a", (0..500).map(|_| "not json")).await;
    let limits = "poison = { max_per_batch = 10, max_per_minute = 20 }";
    let daemon = Daemon::start(&world.config(&pipeline("json", limits)));
    daemon.says("paused").await;
    assert!(daemon.is_running());
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    assert_eq!(world.checkpoint("events").await, 0);
    daemon.kill();

    // An operator who wants them raises the limits.
    let limits = "poison = { max_per_batch = 1000, max_per_minute = 1000 }";
    let daemon = Daemon::start(&world.config(&pipeline("json", limits)));
    oracle(&world, &daemon, "events", "events", br#"{"id": 1}"#.to_vec()).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 500);
}

#[tokio::test]
async fn a_table_that_is_missing_pauses_the_pipeline_until_it_is_there() {
    let world = World::new().await;
    world.publish("a", [r#"{"id": 1}"#]).await;
    let daemon = Daemon::start(&world.config(&pipeline("json", "")));
    daemon.says("paused").await;
    world.database.batch_execute(TABLE).await.unwrap();
    eventually("the pipeline to run", || async { world.checkpoint("events").await == 1 }).await;
    oracle(&world, &daemon, "events", "events", br#"{"id": 2}"#.to_vec()).await;
}
