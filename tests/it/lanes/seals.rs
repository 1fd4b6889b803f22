//! The ledger of several writers.

use super::{carried, events, world};
use crate::support::{Daemon, event, eventually, oracle};

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
