//! A stretch of the stream again, into tables beside the ones it is in.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually};

/// 500 messages carried by a daemon that still runs; sequence 250 is poison.
async fn carried() -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let message = |id| if id == 250 { vec![0xc1] } else { event(id) };
    world.publish("a", (1..=500).map(message)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

/// What a replay leaves beside its shadow.
async fn left(world: &World) -> (i64, usize) {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let consumers = stream.cached_info().state.consumer_count;
    (
        world.count("SELECT count(*) FROM jetcopy.checkpoints WHERE pipeline LIKE '%-replay-%'").await,
        consumers,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_by_sequence_is_in_the_shadow_once_beside_the_running_daemon() {
    let (world, config, daemon) = carried().await;
    let load = Load::start(&world);
    let dry =
        world.run(&config, &["replay", "events", "--from", "101", "--to", "300", "--dry-run"]).await.well();
    assert!(dry.contains("sequences 101 to 300, 200 messages"), "{dry}");
    assert!(dry.contains("table events: into events_replay, which is created like it"), "{dry}");
    assert_eq!(world.count("SELECT count(to_regclass('events_replay'))").await, 0);

    let said = world.run(&config, &["replay", "events", "--from", "101", "--to", "300"]).await.well();
    assert!(
        said.contains("table events_replay: 199 rows, as many as events has for these messages"),
        "{said}"
    );
    assert!(said.contains("dead letters: 1 of the replay, 1 of the pipeline in this range"), "{said}");
    let stretch = "SELECT count(*) FROM (SELECT * FROM events WHERE sequence BETWEEN 101 AND 300 \
                   EXCEPT ALL TABLE events_replay) AS missing";
    assert_eq!(world.count(stretch).await, 0);
    assert_eq!(world.count("SELECT count(*) FROM events_replay").await, 199);
    assert_eq!(left(&world).await, (0, 1));

    let again = world.run(&config, &["replay", "events", "--from", "1", "--to", "5"]).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("events_replay already holds rows"), "{again:?}");
    let twice = ["replay", "events", "--from", "101", "--to", "300", "--into", "again"];
    let twice = world.run(&config, &twice).await.well();
    assert!(
        twice.contains("table again: 199 rows") && twice.contains("dead letters: 1 of the replay"),
        "{twice}"
    );
    let named = ["replay", "events", "--from", "1", "--to", "5", "--into", "first_five"];
    let named = world.run(&config, &named).await.well();
    assert!(named.contains("table first_five: 5 rows, as many as events has"), "{named}");
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_end_all_that_the_pipeline_has_carried_is_replayed() {
    let (world, config, _daemon) = carried().await;
    let said = world.run(&config, &["replay", "events", "--from", "0"]).await.well();
    assert!(said.contains("sequences 1 to 500, 500 messages"), "{said}");
    assert!(
        said.contains("table events_replay: 499 rows, as many as events has for these messages"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_by_time_begins_and_ends_where_the_messages_do() {
    let (world, config, daemon) = carried().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.publish("a", (501..=540).map(event)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.publish("a", (541..=550).map(event)).await;
    world.drained("events", &daemon).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let time = async |sequence| {
        let time = stream.get_raw_message(sequence).await.unwrap().time.unix_timestamp_nanos();
        jiff::Timestamp::from_nanosecond(time).unwrap().to_string()
    };
    let (from, to) = (time(501).await, time(541).await);
    let dry =
        world.run(&config, &["replay", "events", "--from", &from, "--to", &to, "--dry-run"]).await.well();
    assert!(dry.contains("sequences 501 to 540, 40 messages"), "{dry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_messages_and_other_subjects_at_the_end_do_not_hold_a_replay_up() {
    let (world, config, _daemon) = carried().await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    for sequence in [199, 200, 500] {
        stream.delete_message(sequence).await.unwrap();
    }
    let said = world.run(&config, &["replay", "events", "--from", "190", "--to", "200"]).await.well();
    assert!(said.contains("table events_replay: 9 rows; events has 11 for these messages"), "{said}");
    world.database.batch_execute("TRUNCATE events_replay").await.unwrap();
    let said = world.run(&config, &["replay", "events", "--from", "491", "--to", "9999"]).await.well();
    assert!(said.contains("table events_replay: 9 rows; events has 10 for these messages"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_goes_on_where_it_was() {
    let (world, config, _daemon) = carried().await;
    world.database.batch_execute("CREATE TABLE events_replay (LIKE events)").await.unwrap();
    // It comes to a stand at sequence 200, with what is before it committed.
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
        CREATE TRIGGER hold BEFORE INSERT ON events_replay FOR EACH ROW
            WHEN (NEW.sequence = 200) EXECUTE FUNCTION hold();
        SELECT pg_advisory_lock(1)";
    world.database.batch_execute(hold).await.unwrap();
    let slow = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, slow.replace("max_rows = 200", "max_rows = 10")).unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_jetcopy"));
    let mut child =
        jetcopy::testbed::spawn_tied(program, None, nix::sys::signal::Signal::SIGKILL, |command| {
            command.args(["replay", "events", "--from", "1", "--to", "500", "--config"]).arg(&config);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        })
        .unwrap();
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted";
    eventually("the replay to wait for the lock", || async { world.count(waits).await == 1 }).await;
    child.kill().unwrap();
    child.wait().unwrap();
    world.database.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    assert_eq!(left(&world).await, (1, 2));

    let said = world.run(&config, &["replay", "events", "--from", "1", "--to", "500"]).await.well();
    assert!(said.contains("continues after sequence "), "{said}");
    assert!(said.contains("table events_replay: 499 rows, as many as events has"), "{said}");
    assert_eq!(left(&world).await, (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_pipeline_fills_is_no_shadow() {
    let (world, config, _daemon) = carried().await;
    let answer = world.run(&config, &["replay", "events", "--from", "1", "--into", "public.events"]).await;
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("a pipeline fills public.events"), "{answer:?}");
    let answer = world.run(&config, &["replay", "events", "--from", "1", "--into", "others=x"]).await;
    assert!(answer.err.contains("does not name a table of the pipeline"), "{answer:?}");
    let answer = world.run(&config, &["replay", "events", "--from", "900"]).await;
    assert!(answer.err.contains("there is nothing to replay from 900 to 500"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_of_a_message_has_its_shadow() {
    let world = World::new().await;
    let tables = "CREATE TABLE frames (sequence bigint, id integer); CREATE TABLE parts (id integer)";
    world.database.batch_execute(tables).await.unwrap();
    let message = |id: u32| json!({"id": id, "parts": [{"id": 1}, {"id": 2}]}).to_string();
    world.publish("a", (1..=20).map(message)).await;
    let config = world.config(
        "[[pipeline]]\nname = \"frames\"\nstream = \"STREAM\"\nformat = \"json\"\n[[pipeline.table]]\nname = \
         \"frames\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n[[pipeline.table]]\nname = \
         \"parts\"\nfor_each = \"parts\"\n",
    );
    let said =
        world.run(&config, &["replay", "frames", "--from", "11", "--into", "parts=again"]).await.well();
    assert!(said.contains("table frames_replay: 10 rows; frames has 0 for these messages"), "{said}");
    assert!(
        said.contains("table again: 20 rows; not compared, because no column of parts has $sequence"),
        "{said}"
    );
}
