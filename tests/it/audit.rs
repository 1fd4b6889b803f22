//! What `jetcopy audit` proves, and what it finds.

use std::path::{Path, PathBuf};
use std::process::Command;

use jetcopy::testbed::TestPostgres;
use nix::sys::signal::Signal;
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

/// A stream of 100 messages, carried into `events`; every tenth is poison, and sequences 5, 6 and 50 were
/// deleted before.
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
        "looked up each sequence in events and the dead letters",
        "  88 committed",
        "  9 dead letters",
        "  3 not in the stream: deleted, or on other subjects",
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
        text.contains("sequences 17 to 19 are in the stream, but in no table and no dead letter"),
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
        INSERT INTO jetcopy.losses (pipeline, shard, stream, stream_created, first_sequence, last_sequence, \
            cause)
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
async fn a_table_without_sequences_is_compared_row_by_row() {
    let (world, config) = carried(&pipeline("", "")).await;
    let found = report(&config, &[]);
    assert_eq!((&found["method"]["by"], &found["counts"]["committed"]), (&json!("rows"), &json!(88)));
    assert_eq!(
        (&found["counts"]["dead_letters"], &found["differences"]),
        (&json!(9), &json!(0)),
        "{found:#}"
    );
    // Three messages were deleted, and may have been carried: so many rows more are no difference.
    world
        .database
        .batch_execute("INSERT INTO events VALUES (NULL, 200), (NULL, 1), (NULL, 1)")
        .await
        .unwrap();
    let found = report(&config, &[]);
    assert_eq!(found["differences"], 0);
    let said = "table events: 3 rows that the messages in the stream do not explain";
    assert!(found["not_proven"].to_string().contains(said), "{found:#}");
    world.database.batch_execute("INSERT INTO events VALUES (NULL, 1)").await.unwrap();
    assert_eq!(
        report(&config, &[])["first_differences"],
        json!([{"found": "rows", "table": "events", "sequence": 1, "made": 1, "there": 4, "row": "(,1)"},
            {"found": "rows", "table": "events", "sequence": null, "made": 0, "there": 1, "row": "(,200)"}])
    );
    // What comes before is not asked for: of rows that are missing after it, it is known.
    world.database.batch_execute("DELETE FROM events WHERE id IN (3, 33)").await.unwrap();
    let since = report(&config, &["--since", "7"]);
    assert_eq!((&since["method"]["by"], &since["differences"]), (&json!("rows"), &json!(1)));
    assert_eq!(since["first_differences"][0]["sequence"], 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_for_each_makes_of_a_message_is_compared_row_by_row() {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id bigint NOT NULL)").await.unwrap();
    world.publish("a", [r#"{"parts": [{"id": 1}, {"id": 2}]}"#, r#"{"parts": []}"#, "{"]).await;
    let config = world.config(&pipeline("", &format!("for_each = \"parts\"\n{SEQUENCE}")));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let found = report(&config, &[]);
    assert_eq!((&found["differences"], &found["not_proven"]), (&json!(0), &json!([])), "{found:#}");
    assert_eq!((&found["counts"]["committed"], &found["counts"]["not_judged"]), (&json!(1), &json!(0)));
    assert_eq!(found["compared"], json!([{"table": "events", "made": 2, "by_key": false}]));
    world.database.batch_execute("INSERT INTO events VALUES (3, 0)").await.unwrap();
    let (_, text) = audit(&config, &[]);
    assert!(text.contains("sequence 3 has both a row and a dead letter"), "{text}");
    assert!(text.contains("events has 1 rows that no message makes: (3,0)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_may_change_is_not_proven_and_said_so_but_for_the_number_of_rows() {
    let world = World::new().await;
    let tables = "CREATE TABLE events (id bigint NOT NULL, note text);
        CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.note := 'rewritten'; RETURN NEW; END $$;
        CREATE TRIGGER rewrite BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION rewrite()";
    world.database.batch_execute(tables).await.unwrap();
    world.publish("a", [r#"{"id": 1, "note": "x"}"#, r#"{"id": 2}"#]).await;
    let config = world.config(&pipeline("", ""));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let (code, text) = audit(&config, &[]);
    assert_eq!(code, 0, "{text}");
    let said = "not proven: table events: all but the number of its rows, which a trigger may change before \
                they are stored (public.rewrite)";
    assert!(text.contains(said) && text.contains("verdict: no difference"), "{text}");
    world.database.batch_execute("DELETE FROM events WHERE id = 1").await.unwrap();
    let (code, text) = audit(&config, &[]);
    assert!(code == 1 && text.contains("events has 1 rows, but the messages make 2"), "{text}");
    world.database.batch_execute("ALTER TABLE events ADD PRIMARY KEY (id)").await.unwrap();
    let (code, text) = audit(&world.config(&pipeline("", "on_conflict = \"ignore\"\nkey = [\"id\"]\n")), &[]);
    let said = "not proven: table events: its rows, which a trigger may change";
    assert!(code == 0 && text.contains(said) && text.contains("verdict: nothing could be proven"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_meet_others_are_proven_key_by_key() {
    let world = World::new().await;
    let tables = "CREATE TABLE events (id bigint PRIMARY KEY, note text, doc json)";
    world.database.batch_execute(tables).await.unwrap();
    let message =
        |id: i64, note: &str| json!({"id": id, "note": note, "doc": {"b": 1, "a": note}}).to_string();
    world.publish("a", [message(1, "first"), message(2, "only"), message(1, "last")]).await;
    for (on_conflict, wrong) in [("update", "first"), ("ignore", "none")] {
        world.database.batch_execute("TRUNCATE events; DELETE FROM jetcopy.checkpoints").await.unwrap();
        let table = format!("on_conflict = \"{on_conflict}\"\nkey = [\"id\"]\n");
        let config = world.config(&pipeline("", &table));
        let daemon = Daemon::start(&config);
        world.drained("events", &daemon).await;
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended().await.0.code(), Some(0));
        let found = report(&config, &[]);
        assert_eq!((&found["differences"], &found["not_proven"]), (&json!(0), &json!([])), "{found:#}");
        assert_eq!(found["compared"], json!([{"table": "events", "made": 3, "by_key": true}]));
        let spoil = format!(
            "UPDATE events SET note = '{wrong}', doc = json_build_object('b', 1, 'a', '{wrong}') WHERE id = 1"
        );
        world.database.batch_execute(&spoil).await.unwrap();
        assert_eq!(report(&config, &[])["first_differences"][0]["found"], "differs");
    }
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
    // Where messages may be skipped, those of no kind are none that are missing.
    let found = report(&world.config(&both("on_unmatched = \"skip\"")), &[]);
    assert_eq!((&found["differences"], &found["counts"]["not_judged"]), (&json!(1), &json!(0)), "{found:#}");
    assert_eq!(found["first_differences"][0]["sequence"], 4);
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
        let text = "sequences up to 10: table events drops rows by age, and theirs may be gone";
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
    if TestPostgres::shared().unwrap().lacks_timescaledb() {
        return;
    }
    let world = World::new().await;
    let config = dropped_by_age(&world).await;
    is_left_out(&world, &config, |age| {
        format!(
            "SELECT remove_retention_policy('events', if_exists => true);
             SELECT add_retention_policy('events', interval '{age}', initial_start => now() + \
                 interval '1 day')"
        )
    })
    .await;
}
