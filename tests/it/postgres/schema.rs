//! The table changes while rows go into it.

use super::{in_state, own_server};
use crate::support::{Daemon, EVENTS, Load, TABLE, event, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_pauses_until_it_is_there_again() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;

    let drop = "BEGIN; LOCK TABLE events; CREATE TABLE kept AS TABLE events; DROP TABLE events; COMMIT";
    world.database.batch_execute(drop).await.unwrap();
    let status = in_state(&daemon, "paused", "events").await;
    let (reason, remedy) = (status["reason"].as_str().unwrap(), status["remedy"].as_str().unwrap());
    assert!(remedy.contains("create the table") && !reason.contains(remedy), "{status}");
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
    let log = daemon.log();
    assert!(log.contains("the table was replaced") && !log.contains("=\"\""), "{log}");
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_a_pipeline_that_ran_keeps_it_paused_while_it_looks_again_and_is_told_in_one_line() {
    let (_postgres, world) = own_server(&[]).await;
    let days = "DROP TABLE events; CREATE TABLE events (sequence bigint, id bigint, note text) \
        PARTITION BY LIST (id);
        CREATE TABLE first PARTITION OF events FOR VALUES IN (1)";
    world.database.batch_execute(days).await.unwrap();
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", [event(1)]).await;
    world.drained("events", &daemon).await;
    world.publish("a", [event(2)]).await;
    let status = in_state(&daemon, "paused", "no partition for (id) = (2)").await;
    assert!(status["reason"].as_str().unwrap().contains("DETAIL"), "{status}");
    let (_, ready) = daemon.get("/readyz");
    assert_eq!(ready.lines().count(), 1, "{ready}");
    let shown = world.run(&config, &["status"]).await;
    assert!(!shown.out.contains('\u{FFFD}'), "{shown:?}");
    eventually("a second look", || async { daemon.metric("jetcopy_resyncs_total", "cause=\"table\"") >= 2 })
        .await;
    let log = daemon.log();
    for line in ["pipeline is running", "pipeline is paused"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    world.database.batch_execute("CREATE TABLE second PARTITION OF events FOR VALUES IN (2)").await.unwrap();
    world.drained("events", &daemon).await;
    eventually("it to run", || async { daemon.status()["state"] == "running" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_under_load_is_not_taken_for_one_that_the_configuration_uses() {
    let (_postgres, world) = own_server(&[]).await;
    world.database.batch_execute("CREATE TABLE event (sequence bigint, id bigint, note text)").await.unwrap();
    let other = "[[pipeline.table]]\nname = \"event\"\nwhen = { subject = \"STREAM.none\" }\n";
    let config = world.config(&format!("{EVENTS}{other}"));
    let daemon = Daemon::start(&config);
    let load = Load::start(&world);
    world.commits(&daemon).await;
    world.database.batch_execute("ALTER TABLE events RENAME TO put_aside").await.unwrap();
    let status = in_state(&daemon, "paused", "events does not exist").await;
    assert!(status["remedy"].as_str().unwrap().starts_with("create the table"), "{status}");
    let said = world.run(&config, &["check"]).await.out;
    assert!(!said.contains("did you mean"), "{said}");
    world.database.batch_execute("ALTER TABLE put_aside RENAME TO events").await.unwrap();
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
