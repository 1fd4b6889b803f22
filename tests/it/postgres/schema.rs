//! The table changes while rows go into it.

use super::{in_state, own_server};
use crate::support::{Daemon, EVENTS, Load, TABLE};

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_pauses_until_it_is_there_again() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;

    let drop = "BEGIN; LOCK TABLE events; CREATE TABLE kept AS TABLE events; DROP TABLE events; COMMIT";
    world.database.batch_execute(drop).await.unwrap();
    let status = in_state(&daemon, "paused", "events").await;
    assert!(status["remedy"].as_str().unwrap().contains("table"), "{status}");
    assert_eq!(daemon.metric("jetcopy_database_up", ""), 1, "the server is there");
    let checkpoint = world.checkpoint("events").await;
    let again = format!("BEGIN; {TABLE}; INSERT INTO events SELECT * FROM kept; COMMIT");
    world.database.batch_execute(&again).await.unwrap();
    let recovery = world.commits(&daemon).await;
    println!("table dropped and created again: first commit after {recovery:?}");
    assert!(world.checkpoint("events").await > checkpoint);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_exchanged_under_load_gets_each_row_once() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for _ in 0..3 {
        world.commits(&daemon).await;
        let exchange = format!(
            "BEGIN; LOCK TABLE events; ALTER TABLE events RENAME TO kept; {TABLE};
             INSERT INTO events SELECT * FROM kept; DROP TABLE kept; COMMIT"
        );
        world.database.batch_execute(&exchange).await.unwrap();
    }
    world.commits(&daemon).await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_and_goes_costs_no_row() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;

    world.database.batch_execute("ALTER TABLE events ADD COLUMN extra text DEFAULT 'none'").await.unwrap();
    world.commits(&daemon).await;
    world.database.batch_execute("ALTER TABLE events DROP COLUMN extra").await.unwrap();
    world.commits(&daemon).await;
    // One that is written to: the statement names it, so the table is looked at anew.
    world.database.batch_execute("ALTER TABLE events DROP COLUMN note").await.unwrap();
    let recovery = world.commits(&daemon).await;
    println!("column dropped: first commit after {recovery:?}");
    world.database.batch_execute("ALTER TABLE events ADD COLUMN note text").await.unwrap();
    world.commits(&daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    world.judge(&daemon, load).await;
}
