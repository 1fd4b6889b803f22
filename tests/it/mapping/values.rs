//! Values as others write them, and values that could be stored but not read.

use crate::support::{Daemon, World, oracle};

const TABLE: &str = "CREATE TABLE events (sequence bigint NOT NULL, id bigint, x double precision, \
    at timestamptz, j jsonb, list jsonb)";

fn pipeline(non_finite: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
non_finite = "{non_finite}"

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
at = {{ unit = "ms" }}
"#
    )
}

/// What `json.dumps` of Python, a program in C and an editor on Windows make of good data.
const FOREIGN: [&str; 6] = [
    r#"{"id": 1, "x": NaN, "j": {"a": [NaN, -Infinity]}}"#,
    r#"{"id": 2, "x": -Infinity, "list": [{"v": Infinity}]}"#,
    "\u{feff}{\"id\": 3}",
    "{\"id\": 4}\0",
    r#"{"id": 5, "at": "1700000000123"}"#,
    r#"{"id": 6, "j": "{\"a\": [1, 2]}", "list": "[]"}"#,
];

#[tokio::test]
async fn what_others_write_is_taken_and_lands_as_what_it_says() {
    for (non_finite, expected) in [
        (
            "keep",
            "1 NaN {\"a\": [\"NaN\", \"-Infinity\"]}|2 -Infinity [{\"v\": \"Infinity\"}]|3|4|5 \
             1700000000.123|6 {\"a\": [1, 2]} []",
        ),
        ("null", r#"1 {"a": [null, null]}|2 [{"v": null}]|3|4|5 1700000000.123|6 {"a": [1, 2]} []"#),
    ] {
        let world = World::new().await;
        world.database.batch_execute(TABLE).await.unwrap();
        world.publish("a", FOREIGN).await;
        let daemon = Daemon::start(&world.config(&pipeline(non_finite)));
        world.drained("events", &daemon).await;
        assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
        let rows = "SELECT string_agg(concat_ws(' ', id, x, round(extract(epoch FROM at), 3), j, list), '|' \
            ORDER BY id) FROM events";
        let rows: String = world.database.query_one(rows, &[]).await.unwrap().get(0);
        assert_eq!(rows, expected);
    }
}

#[tokio::test]
async fn with_refuse_a_message_with_nan_is_a_dead_letter_and_the_others_are_rows() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.publish("a", FOREIGN).await;
    let daemon = Daemon::start(&world.config(&pipeline("refuse")));
    world.drained("events", &daemon).await;
    let kinds = "SELECT string_agg(sequence || kind, ',' ORDER BY sequence) FROM jetcopy.dead_letters";
    let kinds: String = world.database.query_one(kinds, &[]).await.unwrap().get(0);
    assert_eq!(kinds, "1range,2range");
    oracle(&world, &daemon, "events", "events", FOREIGN[5].into()).await;
}

#[tokio::test]
async fn numbers_that_no_dump_could_print_are_a_dead_letter() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let numbers = |times: usize| format!(r#"{{"id":1,"j":{{"a":[{}]}}}}"#, vec!["1e7999"; times].join(","));
    world.publish("a", [numbers(1_000), numbers(140_000), numbers(1)]).await;
    let daemon = Daemon::start(&world.config(&pipeline("keep")));
    world.drained("events", &daemon).await;
    let letter = "SELECT sequence || kind FROM jetcopy.dead_letters";
    let letter: String = world.database.query_one(letter, &[]).await.unwrap().get(0);
    assert_eq!(letter, "2range");
    // As a dump prints them.
    assert_eq!(world.count("SELECT max(length(e::text))::bigint / 1000000 FROM events e").await, 8);
    oracle(&world, &daemon, "events", "events", FOREIGN[5].into()).await;
}
