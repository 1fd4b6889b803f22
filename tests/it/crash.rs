//! The daemon is killed at random moments and loses nothing. The moments come from a seed, which is printed;
//! `SEED=…` draws the same ones again.

use std::cell::Cell;

use serde_json::json;

use crate::chaos::dice::Dice;
use crate::chaos::seed;
use crate::support::{Daemon, World, eventually, oracle};

const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "msgpack"
batch = { max_rows = 500, max_age = "5ms" }
poison = { max_per_batch = 1000, max_per_minute = 1000000 }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#;

/// Every hundredth message is cut short.
const POISON_EVERY: u64 = 100;

fn message(id: u64) -> Vec<u8> {
    let mut payload = rmp_serde::to_vec_named(&json!({"id": id, "note": "a line of text"})).unwrap();
    if id.is_multiple_of(POISON_EVERY) {
        payload.pop();
    }
    payload
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_twenty_times_under_load_puts_each_message_in_one_place_once() {
    const KILLS: u32 = 20;
    let world = World::new().await;
    let table = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text)";
    world.database.batch_execute(table).await.unwrap();
    let config = world.config(PIPELINE);

    let done = Cell::new(false);
    let load = async {
        let mut next = 1;
        while !done.get() {
            // A batch and a bit, so that full and aged batches alternate.
            world.publish("load", (next..next + 700).map(message)).await;
            next += 700;
        }
    };
    let seed = seed();
    println!("SEED={seed}");
    let mut dice = Dice::new(seed);
    let kills = async {
        for _ in 0..KILLS {
            let before = world.checkpoint("events").await;
            let daemon = Daemon::start(&config);
            eventually("a commit", || async { world.checkpoint("events").await > before }).await;
            // The moment is the point: anywhere in the 200 ms after a commit, which several batches pass in.
            tokio::time::sleep(dice.millis(0, 200)).await;
            daemon.kill();
        }
        done.set(true);
    };
    tokio::join!(load, kills);

    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", message(1)).await;
    let dead = world.count("SELECT count(*) FROM jetcopy.dead_letters").await;
    assert!(dead > 0, "the load holds poison");
    assert_eq!(
        world.count("SELECT count(*) FROM events WHERE note IS DISTINCT FROM 'a line of text'").await,
        0
    );
}
