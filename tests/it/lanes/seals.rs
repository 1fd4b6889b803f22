//! The ledger of several writers.

use std::path::Path;

use serde_json::{Value, json};

use super::{carried, events, world};
use crate::ledger::{found, report};
use crate::support::{Daemon, Load, World, event, eventually, oracle};

/// What migration `name` does from `begin` to the end of that statement.
fn statement(migration: &str, begin: &str) -> String {
    let text = std::fs::read_to_string(format!("migrations/{migration}.sql")).unwrap();
    let from = &text[text.find(begin).unwrap()..];
    let end = from.find("\n$$;").unwrap() + "\n$$;".len();
    from[..end].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
}

/// Makes the database what it was before lanes had seals, the pipeline being claimed there.
fn before_seals_of_lanes() -> String {
    let columns = ["number", "hash", "after", "to", "messages", "letters", "superseded", "tables", "rows"];
    let drops = columns.iter().chain(&["unstored", "first_at", "digest"]);
    let drops: Vec<String> = drops.map(|column| format!("DROP COLUMN seal_{column}")).collect();
    format!(
        "DELETE FROM jetcopy.schema_history WHERE version > 14;
         DROP FUNCTION jetcopy.set_lanes, jetcopy.close_seals, jetcopy.last_seal;
         DELETE FROM jetcopy.seals;
         UPDATE jetcopy.checkpoints SET seal_number = 0, seal_hash = NULL, seal_after = 0, seal_to = 0;
         ALTER TABLE jetcopy.lanes {};
         ALTER TABLE jetcopy.seals DROP COLUMN lanes, DROP COLUMN block;
         {} {}
         UPDATE jetcopy.checkpoints SET last_sequence = jetcopy.floor(shard);
         SELECT jetcopy.close_seal('events');",
        drops.join(", "),
        statement("V12__ledger", "CREATE FUNCTION jetcopy.seal_text"),
        statement("V12__ledger", "CREATE FUNCTION jetcopy.close_seal"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_under_way_when_their_ledger_begins_go_on_and_are_counted_from_there() {
    let (world, config, daemon) = carried().await;
    daemon.kill();
    // One lane is behind.
    let behind = "UPDATE jetcopy.lanes SET last_sequence = 155, last_timestamp = NULL WHERE lane = 0;
        DELETE FROM events WHERE sequence > 155 AND (sequence - 1) / 10 % 3 = 0;";
    world.database.batch_execute(&(behind.to_owned() + &before_seals_of_lanes())).await.unwrap();
    world.run(&config, &["migrate"]).await.well();
    let begun = "SELECT count(*) FROM jetcopy.seals WHERE kind = 'begun' AND lanes = 3 AND block = 10";
    assert_eq!(world.count(begun).await, 3);
    // A daemon of the version before is still at work.
    let older = "INSERT INTO events SELECT n, n FROM generate_series(156, 157) n;
        UPDATE jetcopy.lanes SET last_sequence = 157 WHERE lane = 0;";
    world.database.batch_execute(older).await.unwrap();
    let daemon = Daemon::start(&config);
    world.publish("a", (201..=300).map(event)).await;
    oracle(&world, &daemon, "events", "events", event(301)).await;
    // 158 to 160 and 181 to 190 are the first lane's.
    let counted = "SELECT sum(seal_messages)::bigint FROM jetcopy.lanes";
    assert_eq!(world.count(counted).await, 301 - 200 + 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_writers_seals_all_chains_and_the_first_says_where_the_others_end() {
    let world = world().await;
    let changes = "SELECT count(*) FROM jetcopy.seals WHERE kind = 'lanes' AND lane = 0";
    let mut published = 0;
    for (writers, max_rows) in [(4, 10), (1, 10), (2, 10), (2, 20), (3, 10), (1, 10)] {
        let before =
            world.count("SELECT count(*) FROM jetcopy.seals WHERE kind = 'lanes' AND lane = 0").await;
        let daemon = Daemon::start(&world.config(&events(writers, max_rows)));
        world.publish("a", (published + 1..=published + 95).map(event)).await;
        published += 95;
        world.drained("events", &daemon).await;
        eventually("the lanes to change", || async { world.count(changes).await > before }).await;
        oracle(&world, &daemon, "events", "events", event(published + 1)).await;
        published += 1;
        daemon.kill();
    }
    let chains = "SELECT count(DISTINCT lane) FROM jetcopy.seals";
    assert_eq!(world.count(chains).await, 4);
    let moved = "SELECT count(*) FROM jetcopy.seals WHERE kind NOT IN ('committed', 'lanes')";
    assert_eq!(world.count(moved).await, 0);
}

/// Messages that four writers have carried, sealed by a second claim and open since, and a daemon that runs.
async fn sealed() -> (World, std::path::PathBuf, Daemon) {
    let world = world().await;
    let config = world.config(&events(4, 10));
    world.publish("a", (1..=205).map(event)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    daemon.kill();
    let daemon = Daemon::start(&config);
    world.publish("a", (206..=290).map(event)).await;
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

fn ways(config: &Path) -> [Value; 3] {
    [&[][..], &["--full"], &["--offline"]].map(|arguments| report(config, arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_deleted_doubled_or_altered_is_found_with_four_writers() {
    let (world, config, daemon) = sealed().await;
    for whole in ways(&config) {
        let ledger = &whole["ledger"];
        assert_eq!((&whole["differences"], &ledger["messages"]), (&json!(0), &json!(290)), "{whole:#}");
        assert_eq!(ledger["writers"].as_array().unwrap().len(), 4, "{whole:#}");
    }
    // Of each lane, a sealed stretch and the open one.
    let [_, full, offline] = ways(&config);
    assert_eq!(
        (&full["ledger"]["digests"], &offline["ledger"]["counted"]),
        (&json!(8), &json!(8)),
        "{full:#}"
    );
    for (spoil, mend, finds) in [
        ("DELETE FROM events WHERE sequence = 77", "INSERT INTO events VALUES (77, 77)", [1, 1, 1]),
        (
            "INSERT INTO events VALUES (288, 288)",
            "DELETE FROM events WHERE ctid = (SELECT max(ctid) FROM events WHERE sequence = 288)",
            [1, 1, 1],
        ),
        (
            "UPDATE events SET id = 7777 WHERE sequence = 17",
            "UPDATE events SET id = 17 WHERE id = 7777",
            [0, 2, 0],
        ),
    ] {
        world.database.batch_execute(spoil).await.unwrap();
        let counts = ways(&config).map(|report| report["differences"].as_u64().unwrap());
        assert!(counts.iter().zip(finds).all(|(&found, least)| found >= least), "{spoil}: {counts:?}");
        world.database.batch_execute(mend).await.unwrap();
    }
    let spoil = "DELETE FROM events WHERE sequence = 77";
    world.database.batch_execute(spoil).await.unwrap();
    let missed = &report(&config, &["--offline"])["first_differences"][0];
    let expected = json!({"writer": 3, "writers": 4, "block": 10});
    assert_eq!((&missed["found"], &missed["part"]), (&json!("count"), &expected), "{missed:#}");
    world.database.batch_execute("INSERT INTO events VALUES (77, 77)").await.unwrap();
    report(&config, &["--record"]);
    eventually("the metric", || async { daemon.status()["verified_through_sequence"] == 290 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_of_any_of_four_writers_that_was_tampered_with_is_found() {
    let (world, config, daemon) = sealed().await;
    daemon.kill();
    // Back to one writer: three chains end.
    let daemon = Daemon::start(&world.config(&events(1, 10)));
    let gone = "SELECT count(*) FROM jetcopy.seals WHERE kind = 'lanes' AND lanes IS NULL";
    eventually("one writer", || async { world.count(gone).await == 4 }).await;
    world.publish("a", (291..=300).map(event)).await;
    world.drained("events", &daemon).await;
    assert_eq!(report(&config, &["--offline"])["differences"], 0);
    let kept = "CREATE TABLE kept AS SELECT * FROM jetcopy.seals";
    world.database.batch_execute(kept).await.unwrap();
    for (spoil, faults) in [
        ("UPDATE jetcopy.seals SET messages = messages + 1 WHERE lane = 2 AND number = 2", &["altered"][..]),
        ("UPDATE jetcopy.seals SET lane = 9 WHERE lane = 3", &["altered", "ends"]),
        ("UPDATE jetcopy.seals SET block = 20 WHERE lane = 1 AND number = 2", &["altered"]),
        ("DELETE FROM jetcopy.seals WHERE lane = 1 AND number = 2", &["missing"]),
        // The end of a chain that nobody goes on with.
        ("DELETE FROM jetcopy.seals WHERE lane = 3 AND number > 1", &["ends", "last"]),
        ("DELETE FROM jetcopy.seals WHERE lane = 3", &["ends"]),
        ("DELETE FROM jetcopy.seals WHERE lane = 0 AND kind = 'lanes' AND lanes IS NULL", &["ends", "last"]),
    ] {
        world.database.batch_execute(spoil).await.unwrap();
        let spoilt = report(&config, &["--offline"]);
        let differences = spoilt["first_differences"].as_array().unwrap().iter();
        let found: Vec<&str> = differences.filter_map(|it| it["fault"].as_str()).collect();
        assert!(faults.iter().all(|fault| found.contains(fault)), "{spoil}: {spoilt:#}");
        let mend = "DELETE FROM jetcopy.seals; INSERT INTO jetcopy.seals SELECT * FROM kept";
        world.database.batch_execute(mend).await.unwrap();
    }
    assert_eq!(report(&config, &["--offline"])["differences"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_of_lanes_that_are_apart_or_at_work_finds_nothing() {
    let world = world().await;
    let config = world.config(&events(3, 20));
    let load = Load::start(&world);
    let daemon = Daemon::start(&config);
    world.commits(&daemon).await;
    for _ in 0..3 {
        for whole in ways(&config) {
            assert_eq!(whole["differences"], 0, "{whole:#}");
        }
    }
    // As after a crash, with lanes far apart.
    daemon.kill();
    let apart = "UPDATE jetcopy.lanes SET last_sequence = 25, last_timestamp = NULL WHERE lane = 1;
        DELETE FROM events WHERE sequence > 25 AND (sequence - 1) / 20 % 3 = 1";
    world.database.batch_execute(apart).await.unwrap();
    for whole in ways(&config) {
        assert_eq!((&whole["differences"], &whole["checkpoint"]), (&json!(0), &json!(25)), "{whole:#}");
    }
    let daemon = Daemon::start(&config);
    world.commits(&daemon).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_and_rewinds_of_several_writers_leave_no_difference() {
    let (world, config, daemon) = carried().await;
    world.run(&config, &["dead-letters", "discard", "--all", "--yes"]).await.well();
    for whole in ways(&config) {
        let counts = (&whole["differences"], &whole["ledger"]["discarded"]);
        assert_eq!(counts, (&json!(0), &json!(1)), "{whole:#}");
    }
    report(&config, &["--record"]);
    world.run(&config, &["pause", "events"]).await.well();
    world.run(&config, &["rewind", "events", "--to", "43", "--yes"]).await.well();
    world.database.batch_execute("DELETE FROM events WHERE sequence > 43").await.unwrap();
    assert_eq!(world.count("SELECT verified_sequence FROM jetcopy.checkpoints").await, 43);
    assert_eq!(report(&config, &["--offline"])["differences"], 0);
    world.run(&config, &["resume", "events"]).await.well();
    world.drained("events", &daemon).await;
    for whole in ways(&config) {
        assert_eq!(
            (&whole["differences"], &whole["ledger"]["discarded"]),
            (&json!(0), &json!(0)),
            "{whole:#}"
        );
        let moved = json!({"kind": "rewound", "from": 200, "to": 43});
        assert_eq!(whole["ledger"]["moves"].as_array().unwrap().last(), Some(&moved), "{whole:#}");
    }
    world.database.batch_execute("DELETE FROM jetcopy.dead_letters").await.unwrap();
    assert_eq!(found(&report(&config, &["--offline"])), ["count"]);
}
