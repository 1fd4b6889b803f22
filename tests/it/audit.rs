//! What `jetcopy audit` proves, and what it finds.

use std::path::{Path, PathBuf};
use std::process::Command;

use jetcopy::private::PrivatePostgres;
use serde_json::{Value, json};

use crate::support::{Daemon, World};

/// `columns` are more lines of the table; `subjects` narrow the stream.
fn pipeline(subjects: &str, table: &str) -> String {
    format!(
        "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\nformat = \"json\"\n{subjects}\n\
         [[pipeline.table]]\nname = \"events\"\n{table}"
    )
}

const SEQUENCE: &str = "[pipeline.table.columns]\nsequence = \"$sequence\"\n";

/// The exit code and the output.
fn audit(config: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.args(["audit", "events", "--config"]).arg(config).args(arguments).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

fn report(config: &Path, arguments: &[&str]) -> Value {
    let (code, text) = audit(config, &[&["--json"], arguments].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(code, i32::from(report["differences"] != 0), "{text}");
    report
}

/// A stream of 100 messages, carried into `events`; every tenth is poison, and sequences 5, 6 and 50 were deleted
/// before.
async fn carried(pipeline: &str) -> (World, PathBuf) {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id bigint NOT NULL)").await.unwrap();
    let message = |id: i64| if id % 10 == 0 { "{".to_owned() } else { json!({"id": id}).to_string() };
    world.publish("a", (1..=100).map(message)).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for sequence in [5, 6, 50] {
        stream.delete_message(sequence).await.unwrap();
    }
    let config = world.config(pipeline);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    (world, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sequence_is_found_committed_dead_or_deleted() {
    let (world, config) = carried(&pipeline("", SEQUENCE)).await;
    let (code, text) = audit(&config, &[]);
    assert_eq!(code, 0, "{text}");
    for line in [
        &format!("pipeline events, stream {}, sequences 1 to 100 (the checkpoint)", world.stream),
        "looked at each sequence, in events and the dead letters",
        "  88 committed",
        "  9 dead letters",
        "  3 not in the stream: deleted, or of other subjects",
        "verdict: no difference",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    // What the stream has dropped since is still in its place.
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.purge().await.unwrap();
    let found = report(&config, &[]);
    assert_eq!((&found["counts"]["committed"], &found["counts"]["dropped_by_now"]), (&json!(88), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_difference_is_named_with_its_sequence() {
    let (world, config) = carried(&pipeline("", SEQUENCE)).await;
    let spoil = "DELETE FROM events WHERE sequence IN (1, 17, 18, 19, 99);
        INSERT INTO events VALUES (33, 0), (33, 0), (44, 0), (20, 0), (101, 0);
        INSERT INTO jetcopy.dead_letters (pipeline, shard, stream, sequence, subject, payload, kind, message)
        SELECT pipeline, shard, stream, sequence, subject, payload, kind, message
        FROM jetcopy.dead_letters WHERE sequence = 30";
    world.database.batch_execute(spoil).await.unwrap();
    let found = report(&config, &[]);
    let expected = json!([
        {"found": "missing", "first_sequence": 1, "last_sequence": 1},
        {"found": "missing", "first_sequence": 17, "last_sequence": 19},
        {"found": "row_and_dead_letter", "sequence": 20},
        {"found": "twice", "sequence": 30, "table": "jetcopy.dead_letters", "times": 2},
        {"found": "twice", "sequence": 33, "table": "events", "times": 3},
        {"found": "twice", "sequence": 44, "table": "events", "times": 2},
        {"found": "missing", "first_sequence": 99, "last_sequence": 99},
        {"found": "unknown", "sequence": 101},
    ]);
    assert_eq!(found["first_differences"], expected, "{found:#}");
    assert_eq!(found["differences"], 10);
    let late = report(&config, &["--since", "45"]);
    assert_eq!((&late["from"], &late["differences"]), (&json!(45), &json!(2)));
    let (_, text) = audit(&config, &[]);
    assert!(
        text.contains("sequences 17 to 19 are in the stream, and in no table and no dead letter"),
        "{text}"
    );
    assert!(text.contains("verdict: 10 differences"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_stream_is_looked_at_too() {
    let (world, config) = carried(&pipeline("", SEQUENCE)).await;
    world.database.batch_execute("DELETE FROM events; DELETE FROM jetcopy.dead_letters").await.unwrap();
    assert_eq!(report(&config, &[])["differences"], 97);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_as_lost_is_not_missing() {
    let (world, config) = carried(&pipeline("", SEQUENCE)).await;
    let lose = "DELETE FROM events WHERE sequence BETWEEN 71 AND 79;
        INSERT INTO jetcopy.losses (pipeline, shard, stream, stream_created, first_sequence, last_sequence, cause)
        VALUES ('events', 'events', 's', now(), 72, 79, 'dropped')";
    world.database.batch_execute(lose).await.unwrap();
    let found = report(&config, &[]);
    assert_eq!(found["counts"]["lost"], 8);
    assert_eq!(
        found["first_differences"],
        json!([{"found": "missing", "first_sequence": 71, "last_sequence": 71}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_other_subjects_are_not_missing() {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id bigint)").await.unwrap();
    for id in 1..=19 {
        let token = ["a", "b", "c"][id % 3];
        world.publish(token, [json!({"id": id}).to_string()]).await;
    }
    let config = world.config(&pipeline("subjects = [\"STREAM.a\", \"STREAM.b\"]", SEQUENCE));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let found = report(&config, &[]);
    assert_eq!((&found["differences"], &found["counts"]["committed"]), (&json!(0), &json!(13)), "{found:#}");
    world.database.batch_execute("DELETE FROM events WHERE sequence = 9").await.unwrap();
    assert_eq!(
        report(&config, &[])["first_differences"],
        json!([{"found": "missing", "first_sequence": 9, "last_sequence": 9}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_sequences_is_counted() {
    let (world, config) = carried(&pipeline("", "")).await;
    let found = report(&config, &[]);
    assert_eq!((&found["method"]["by"], &found["counts"]["committed"]), (&json!("counts"), &json!(88)));
    // Three messages were deleted, and may have been carried: so many rows more are no difference.
    world.database.batch_execute("INSERT INTO events VALUES (1, 1), (1, 1), (1, 1)").await.unwrap();
    assert_eq!(report(&config, &[])["differences"], 0);
    world.database.batch_execute("INSERT INTO events VALUES (1, 1)").await.unwrap();
    assert_eq!(
        report(&config, &[])["first_differences"],
        json!([{"found": "count", "messages": 97, "rows": 92, "dead_letters": 9}])
    );
    let since = report(&config, &["--since", "7"]);
    assert_eq!((&since["method"]["by"], &since["differences"]), (&json!("nothing"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_for_each_makes_of_a_message_is_not_proven_and_said_so() {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id bigint NOT NULL)").await.unwrap();
    world.publish("a", [r#"{"parts": [{"id": 1}, {"id": 2}]}"#, r#"{"parts": []}"#, "{"]).await;
    let config = world.config(&pipeline("", &format!("for_each = \"parts\"\n{SEQUENCE}")));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let found = report(&config, &[]);
    assert_eq!(found["differences"], 0);
    assert_eq!((&found["counts"]["committed"], &found["counts"]["not_judged"]), (&json!(1), &json!(1)));
    let (_, text) = audit(&config, &[]);
    assert!(
        text.contains("not proven: table events: how many rows a message makes by for_each, unpivot"),
        "{text}"
    );
    world.database.batch_execute("INSERT INTO events VALUES (3, 0)").await.unwrap();
    assert_eq!(
        report(&config, &[])["first_differences"],
        json!([{"found": "row_and_dead_letter", "sequence": 3}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_audited_is_a_failure_that_says_why() {
    let (world, config) = carried(&pipeline("", SEQUENCE)).await;
    world.database.batch_execute("DELETE FROM jetcopy.checkpoints").await.unwrap();
    let (code, text) = audit(&config, &[]);
    assert_eq!(code, 1);
    assert!(text.contains("pipeline events has no checkpoint yet"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_that_a_recreated_stream_counts_again_are_left_out() {
    let (world, config) = carried(&pipeline("on_loss = \"continue\"", SEQUENCE)).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let settings = stream.cached_info().config.clone();
    world.jetstream.delete_stream(&world.stream).await.unwrap();
    world.jetstream.create_stream(settings).await.unwrap();
    let (_, text) = audit(&config, &[]);
    assert!(text.contains("the stream was recreated after the checkpoint"), "{text}");
    assert!(text.contains("verdict: nothing could be proven"), "{text}");

    world.publish("a", (1..=120).map(|id| json!({"id": id}).to_string())).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let found = report(&config, &[]);
    assert_eq!((&found["from"], &found["differences"]), (&json!(101), &json!(0)), "{found:#}");
    assert_eq!(found["counts"]["committed"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_take_messages_by_their_kind_are_proven_together() {
    let world = World::new().await;
    let tables =
        "CREATE TABLE events (sequence bigint, id bigint NOT NULL); CREATE TABLE others (LIKE events)";
    world.database.batch_execute(tables).await.unwrap();
    let kinds = ["other", "none", "event"].into_iter().cycle();
    let messages = (1..=30).zip(kinds).map(|(id, kind)| json!({"id": id, "kind": kind}).to_string());
    world.publish("a", messages).await;
    let when = |kind: &str| format!("when = {{ field = \"kind\", equals = \"{kind}\" }}\n{SEQUENCE}");
    let second = format!("[[pipeline.table]]\nname = \"others\"\n{}", when("other"));
    let both = |unmatched: &str| pipeline(unmatched, &format!("{}{second}", when("event")));
    let config = world.config(&both(""));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let found = report(&config, &[]);
    let counts = (&found["counts"]["committed"], &found["counts"]["dead_letters"], &found["differences"]);
    assert_eq!(counts, (&json!(20), &json!(10), &json!(0)), "{found:#}");
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters WHERE kind = 'unmatched'").await, 10);
    world.database.batch_execute("DELETE FROM others WHERE sequence = 4").await.unwrap();
    assert_eq!(report(&config, &[])["differences"], 1);
    // Where messages may be skipped, one without a row is none that is missing.
    let found = report(&world.config(&both("on_unmatched = \"skip\"")), &[]);
    assert_eq!((&found["differences"], &found["counts"]["not_judged"]), (&json!(0), &json!(1)));
}

/// Messages whose rows are gone, from a table that drops them by age.
async fn dropped_by_age(world: &World) -> PathBuf {
    world
        .database
        .batch_execute(
            "CREATE TABLE events (time timestamptz NOT NULL, sequence bigint, id bigint);
             SELECT jetcopy.time_table('events', 'time', '1 day')",
        )
        .await
        .unwrap();
    world.publish("a", (1..=10).map(|id| json!({"id": id}).to_string())).await;
    let columns = "[pipeline.table.columns]\nsequence = \"$sequence\"\ntime = \"$timestamp\"\n";
    let config = world.config(&pipeline("", columns));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    world.database.batch_execute("TRUNCATE events").await.unwrap();
    config
}

/// Rows that are gone and were younger than the retention are a difference; older ones are left out.
async fn is_left_out(world: &World, config: &Path, since: impl Fn(&str) -> String) {
    for (age, from, differences) in [("3 hours", 1, 10), ("1 second", 11, 0)] {
        world.database.batch_execute(&since(age)).await.unwrap();
        let found = report(config, &[]);
        assert_eq!((&found["from"], &found["differences"]), (&json!(from), &json!(differences)), "{found:#}");
        let text = "sequences up to 10: table events drops its rows by age, and theirs may be gone";
        let said = found["not_proven"].as_array().unwrap().iter().any(|line| line == text);
        assert_eq!(said, differences == 0, "{found:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_older_than_what_maintain_dropped_are_left_out_and_younger_ones_are_not() {
    let world = World::plain().await;
    let config = dropped_by_age(&world).await;
    is_left_out(&world, &config, |age| {
        format!("UPDATE jetcopy.partitioned_tables SET dropped_before = now() - interval '{age}'")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_older_than_a_retention_policy_are_left_out_and_younger_ones_are_not() {
    if PrivatePostgres::shared().unwrap().lacks_timescaledb() {
        return;
    }
    let world = World::new().await;
    let config = dropped_by_age(&world).await;
    is_left_out(&world, &config, |age| {
        format!(
            "SELECT remove_retention_policy('events', if_exists => true);
             SELECT add_retention_policy('events', interval '{age}', initial_start => now() + interval '1 day')"
        )
    })
    .await;
}
