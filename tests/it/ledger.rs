//! What the ledger proves, and what it finds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

/// Kinds of messages and elements: neither sequences nor rows tell by themselves that each is there.
const MIXED: &str = "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\nformat = \"json\"\n\
    on_unmatched = \"skip\"\n\
    [[pipeline.table]]\nname = \"seen\"\nfor_each = \"boxes\"\nwhen = { subject = \"STREAM.a\" }\n\
    [pipeline.table.columns]\nsequence = \"$sequence\"\n\
    [[pipeline.table]]\nname = \"others\"\nwhen = { subject = \"STREAM.b\" }\non_conflict = \"ignore\"\n\
    key = [\"id\"]\n";

/// The exit code, the report, and what else was said.
fn run(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.args(["audit", "events", "--config"]).arg(config).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn report(config: &Path, arguments: &[&str]) -> Value {
    let (code, text, err) = run(config, &[&["--json"], arguments].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{err}"));
    assert_eq!(code, i32::from(report["differences"] != 0), "{text}");
    report
}

/// What the differences are about, in order.
pub(crate) fn found(report: &Value) -> Vec<&str> {
    let differences = report["first_differences"].as_array().unwrap();
    differences.iter().map(|difference| difference["found"].as_str().unwrap()).collect()
}

async fn mixed() -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    let tables = "CREATE TABLE seen (sequence bigint, x int NOT NULL);
        CREATE TABLE others (id int PRIMARY KEY)";
    world.database.batch_execute(tables).await.unwrap();
    for id in 1..=30 {
        let boxes: Vec<Value> = (0..id % 4).map(|x| json!({"x": x})).collect();
        let body = json!({"id": id / 6, "boxes": boxes}).to_string();
        world.publish(["a", "b", "c"][id % 3], [if id == 15 { "{".to_owned() } else { body }]).await;
    }
    let config = world.config(MIXED);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

async fn plain(messages: u64) -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.publish("a", (1..=messages).map(event)).await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

/// A new claim, which seals what was committed.
async fn sealed(world: &World, config: &Path, daemon: Daemon) -> Daemon {
    let seals = world.count("SELECT count(*) FROM jetcopy.seals").await;
    drop(daemon);
    let daemon = Daemon::start(config);
    eventually("a seal", || async { world.count("SELECT count(*) FROM jetcopy.seals").await > seals }).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_what_any_mapping_stores_and_finds_a_row_deleted_or_doubled() {
    let (world, config, daemon) = mixed().await;
    let _daemon = sealed(&world, &config, daemon).await;
    let verified = "SELECT count(verified_sequence) FROM jetcopy.checkpoints";
    assert_eq!(world.count(verified).await, 0, "a seal proves nothing by itself");
    let whole = report(&config, &["--offline"]);
    let ledger = &whole["ledger"];
    assert_eq!((&whole["differences"], &whole["method"]["by"]), (&json!(0), &json!("seals")), "{whole:#}");
    assert_eq!(
        (&ledger["messages"], &ledger["letters"], &ledger["seals"]),
        (&json!(30), &json!(1), &json!(1))
    );
    let rows = world.count("SELECT count(*) FROM seen").await;
    assert_eq!((ledger["rows"]["public.seen"].as_i64(), rows > 0), (Some(rows), true), "{whole:#}");
    for (spoil, mend) in [
        ("DELETE FROM seen WHERE sequence = 9 AND x = 0", "INSERT INTO seen VALUES (9, 0)"),
        ("INSERT INTO seen VALUES (9, 0)", "DELETE FROM seen WHERE ctid = (SELECT max(ctid) FROM seen)"),
        ("DELETE FROM others WHERE id = 2", "INSERT INTO others VALUES (2)"),
    ] {
        world.database.batch_execute(spoil).await.unwrap();
        assert_eq!(found(&report(&config, &["--offline"])), ["count"], "{spoil}");
        assert_ne!(report(&config, &[])["differences"], 0, "{spoil}");
        world.database.batch_execute(mend).await.unwrap();
    }
    assert_eq!(report(&config, &["--offline"])["differences"], 0);
    let online = report(&config, &[]);
    assert_eq!((&online["differences"], &online["ledger"]["digests"]), (&json!(0), &json!(1)), "{online:#}");
    world.database.batch_execute("DELETE FROM jetcopy.dead_letters").await.unwrap();
    assert_eq!(found(&report(&config, &["--offline"])), ["count"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_is_found_in_full() {
    let (world, config, _daemon) = plain(40).await;
    let whole = report(&config, &["--full"]);
    assert_eq!((&whole["differences"], &whole["ledger"]["digests"]), (&json!(0), &json!(1)), "{whole:#}");
    world.database.batch_execute("UPDATE events SET id = 7777 WHERE sequence = 17").await.unwrap();
    assert_eq!(
        report(&config, &["--full"])["differences"],
        2,
        "one row that should be there, one that should not"
    );
    assert_eq!(report(&config, &[])["differences"], 0, "its sequence is in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_that_was_tampered_with_is_found_without_the_stream() {
    let (world, config, daemon) = plain(10).await;
    let daemon = sealed(&world, &config, daemon).await;
    for id in [11, 12] {
        world.publish("a", [event(id)]).await;
        world.drained("events", &daemon).await;
        world.database.execute("SELECT jetcopy.close_seal('events')", &[]).await.unwrap();
        // Whoever closes a seal has to make the owner forget what was in it.
        world.database.execute("UPDATE jetcopy.checkpoints SET epoch = epoch + 1", &[]).await.unwrap();
        eventually("another claim", || async { daemon.status()["state"] == "running" }).await;
    }
    assert_eq!(report(&config, &["--offline"])["differences"], 0);
    let kept = "CREATE TABLE kept AS SELECT * FROM jetcopy.seals;
        CREATE TABLE point AS SELECT * FROM jetcopy.checkpoints";
    world.database.batch_execute(kept).await.unwrap();
    for (spoil, fault) in [
        ("UPDATE jetcopy.seals SET messages = messages - 1 WHERE number = 2", "altered"),
        ("UPDATE jetcopy.seals SET digest = sha256('') WHERE number = 1", "altered"),
        ("UPDATE jetcopy.seals SET sealed_at = sealed_at - interval '1 s' WHERE number = 3", "altered"),
        ("DELETE FROM jetcopy.seals WHERE number = 1", "missing"),
        ("DELETE FROM jetcopy.seals WHERE number = 2", "missing"),
        ("DELETE FROM jetcopy.seals WHERE number = 3", "last"),
        (
            "UPDATE jetcopy.seals s SET letters = 1, hash = sha256(convert_to(jetcopy.seal_text(ROW(s.shard,
                s.lane, s.number, s.kind, s.stream, s.stream_created, s.from_sequence, s.to_sequence,
                s.first_stored_at, s.last_stored_at, s.messages, 1, s.superseded, s.tables, s.rows,
                s.unstored, s.digest, s.epoch, s.sealed_at, s.hash, NULL, NULL)::jetcopy.seals,
                (SELECT hash FROM kept WHERE number = 1)), 'UTF8')) WHERE number = 2",
            "altered",
        ),
    ] {
        world.database.batch_execute(spoil).await.unwrap();
        let spoilt = report(&config, &["--offline"]);
        let seal = spoilt["first_differences"].as_array().unwrap().iter();
        let faults: Vec<&Value> = seal.filter(|it| it["found"] == "seal").map(|it| &it["fault"]).collect();
        assert_eq!(faults, [fault], "{spoil}: {spoilt:#}");
        let mend = "DELETE FROM jetcopy.seals; INSERT INTO jetcopy.seals SELECT * FROM kept";
        world.database.batch_execute(mend).await.unwrap();
    }
    let forget = "UPDATE jetcopy.checkpoints SET seal_hash = sha256('') WHERE shard = 'events'";
    world.database.batch_execute(forget).await.unwrap();
    assert_eq!(found(&report(&config, &["--offline"])), ["seal"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_were_discarded_or_retried_leave_no_difference() {
    let world = World::new().await;
    world.database.batch_execute("CREATE TABLE events (sequence bigint, id int NOT NULL)").await.unwrap();
    world.publish("a", ["{\"id\": 1}", "{", "{\"id\": \"3\"}", "{\"id\": 4}"]).await;
    let config = world.config(&EVENTS.replace("msgpack", "json"));
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    for arguments in [&[][..], &["--full"], &["--offline"]] {
        assert_eq!(report(&config, arguments)["differences"], 0);
    }
    let discard = ["dead-letters", "discard", "--all", "--yes"];
    world.run(&config, &discard).await.well();
    let settled = "SELECT count(*) FROM jetcopy.settlements WHERE action = 'discarded'";
    let discarded = world.count(settled).await;
    assert!(discarded > 0);
    for arguments in [&[][..], &["--full"], &["--offline"]] {
        let after = report(&config, arguments);
        assert_eq!(after["differences"], 0, "{after:#}");
        assert_eq!(after["ledger"]["discarded"], discarded);
    }
    world.database.batch_execute("ALTER TABLE events ADD CHECK (id < 100)").await.unwrap();
    world.publish("a", ["{\"id\": 500}"]).await;
    world.drained("events", &daemon).await;
    world.database.batch_execute("ALTER TABLE events DROP CONSTRAINT events_id_check").await.unwrap();
    world.run(&config, &["dead-letters", "retry", "--all"]).await.well();
    for arguments in [&[][..], &["--full"], &["--offline"]] {
        let after = report(&config, arguments);
        assert_eq!((&after["differences"], &after["ledger"]["retried"]), (&json!(0), &json!(1)), "{after:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proven_is_recorded_and_shown() {
    let (world, config, daemon) = plain(20).await;
    assert_eq!(daemon.status()["verified_through_sequence"], Value::Null);
    let skipped = report(&config, &["--since", "5", "--record"]);
    assert_eq!(skipped["differences"], 0);
    assert_eq!(world.count("SELECT count(verified_sequence) FROM jetcopy.checkpoints").await, 0);
    report(&config, &["--record", "--offline"]);
    eventually("the metric", || async { daemon.status()["verified_through_sequence"] == 20 }).await;
    assert_eq!(daemon.metric("jetcopy_verified_through_sequence", ""), 20);
    world.publish("a", [event(21)]).await;
    world.drained("events", &daemon).await;
    report(&config, &["--since", "21", "--record"]);
    eventually("the metric", || async { daemon.status()["verified_through_sequence"] == 21 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_before_the_ledger_says_where_that_begins() {
    let (world, config, daemon) = plain(20).await;
    drop(daemon);
    let before =
        "DELETE FROM jetcopy.seals; UPDATE jetcopy.checkpoints SET seal_number = 0, seal_hash = NULL,
        seal_after = 0, seal_to = 0, seal_messages = 0, seal_letters = 0, seal_tables = '{}',
        seal_rows = '{}', seal_unstored = '{}', seal_first_at = NULL, seal_digest = NULL";
    world.database.batch_execute(before).await.unwrap();
    let daemon = Daemon::start(&config);
    let seals = "SELECT count(*) FROM jetcopy.seals";
    eventually("where the ledger begins", || async { world.count(seals).await > 0 }).await;
    oracle(&world, &daemon, "events", "events", event(21)).await;
    let (code, text, _) = run(&config, &["--offline"]);
    let begun = "the checkpoint moved from 0 to 20 without commits (begun)";
    let not_proven = "not proven: by the ledger, sequences up to 20: it begins after them";
    assert!(code == 0 && text.contains(begun) && text.contains(not_proven), "{text}");
    assert!(text.contains("ledger from sequence 21: 1 messages, 0 dead letters"), "{text}");
}

/// A seal every five minutes, 1,000,000,000 messages a day. Their rows went by age; the last seal's are
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_seals_is_proven_within_ten_seconds() {
    const SEALS: i64 = 365 * 288;
    const MESSAGES: i64 = 1_000_000_000 / 288;
    let (world, config, daemon) = plain(3).await;
    drop(daemon);
    let make = format!(
        "DELETE FROM jetcopy.seals;
         UPDATE jetcopy.checkpoints SET last_sequence = 0, seal_number = 0, seal_hash = NULL, seal_after = 0,
             seal_to = 0, seal_messages = 0;
         WITH RECURSIVE made AS (
             SELECT seal, sha256(convert_to(jetcopy.seal_text(seal, NULL), 'UTF8')) AS hash
             FROM (SELECT jetcopy_seal(1) AS seal) AS first
             UNION ALL
             SELECT next.seal, sha256(convert_to(jetcopy.seal_text(next.seal, made.hash), 'UTF8'))
             FROM made CROSS JOIN LATERAL (SELECT jetcopy_seal((made.seal).number + 1) AS seal) AS next
             WHERE (made.seal).number < {SEALS})
         INSERT INTO jetcopy.seals SELECT (seal).shard, (seal).lane, (seal).number, (seal).kind,
             (seal).stream, (seal).stream_created, (seal).from_sequence, (seal).to_sequence,
             (seal).first_stored_at, (seal).last_stored_at, (seal).messages, (seal).letters,
             (seal).superseded, (seal).tables, (seal).rows, (seal).unstored, (seal).digest, (seal).epoch,
             (seal).sealed_at, hash FROM made;
         UPDATE jetcopy.checkpoints SET (seal_number, seal_hash, seal_after, seal_to, last_sequence) =
             (SELECT number, hash, to_sequence, to_sequence, to_sequence FROM jetcopy.seals
              ORDER BY number DESC LIMIT 1)"
    );
    // The pipeline's own table is none of theirs.
    let seal = format!(
        "CREATE FUNCTION jetcopy_seal(number bigint) RETURNS jetcopy.seals LANGUAGE sql AS $$
         SELECT ROW('events', 0, number, 'committed', 'S', now(), (number - 1) * {MESSAGES} + 1,
             number * {MESSAGES}, now() - interval '1 year' + number * interval '5 minutes',
             now() - interval '1 year' + (number + 1) * interval '5 minutes', {MESSAGES}, 0, 0,
             ARRAY['public.gone'], ARRAY[{MESSAGES}], ARRAY[0], sha256(number::text::bytea), 1, now(),
             NULL, NULL, NULL)::jetcopy.seals $$"
    );
    world.database.batch_execute(&seal).await.unwrap();
    world.database.batch_execute(&make).await.unwrap();
    let started = Instant::now();
    let year = report(&config, &["--offline"]);
    let took = started.elapsed();
    println!("a year of seals took {took:?}");
    assert_eq!((&year["differences"], &year["ledger"]["seals"]), (&json!(0), &json!(SEALS)), "{year:#}");
    assert_eq!(year["ledger"]["messages"], json!(SEALS * MESSAGES));
    assert!(took.as_secs() < 10, "{took:?}");
    let spoil = format!("UPDATE jetcopy.seals SET rows = ARRAY[1] WHERE number = {}", SEALS / 2);
    world.database.batch_execute(&spoil).await.unwrap();
    assert_eq!(found(&report(&config, &["--offline"])), ["seal"]);
}
