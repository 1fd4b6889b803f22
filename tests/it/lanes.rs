//! Several writers of one pipeline: each message is written once, whatever happens to any of them.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::ledger::report;
use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

mod seals;

/// [`EVENTS`] with so many writers, whose blocks are `max_rows` long.
pub(crate) fn events(writers: usize, max_rows: usize) -> String {
    EVENTS
        .replace("stream = ", &format!("writers = {writers}\nstream = "))
        .replace("max_rows = 200", &format!("max_rows = {max_rows}"))
}

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// Where each lane stands.
async fn lanes(world: &World) -> Vec<i64> {
    let sql = "SELECT last_sequence FROM jetcopy.lanes ORDER BY lane";
    world.database.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_writers_share_a_stream_and_their_floor_is_what_status_metrics_and_acks_say() {
    let world = world().await;
    let config = world.config(&events(4, 50));
    world.publish("a", (1..=1_230).map(event)).await;
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(1_231)).await;
    // 1,231 is in block 24, which is the first lane's.
    assert_eq!(lanes(&world).await, [1_231, 1_100, 1_150, 1_200]);
    assert_eq!(daemon.metric("jetcopy_checkpoint_sequence", ""), 1_231);
    let monitored = "SELECT last_sequence FROM jetcopy.monitor_checkpoints()";
    assert_eq!(world.count(monitored).await, 1_231);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jetcopy/events#%'
                      AND datname = current_database()";
    assert_eq!(world.count(sessions).await, 3);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.0.code(), Some(0));
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.checkpoints WHERE owner IS NOT NULL").await, 0);
}

#[cfg(feature = "kill-points")]
#[tokio::test(flavor = "multi_thread")]
async fn four_writers_whose_daemon_dies_at_any_point_lose_nothing_and_write_nothing_twice() {
    use std::os::unix::process::ExitStatusExt;

    use jetcopy::kill_point::{AFTER_COMMIT, AFTER_DECODE, BEFORE_ACK, BEFORE_COMMIT, IN_COPY};
    let points =
        [(AFTER_DECODE, 777), (IN_COPY, 20), (BEFORE_COMMIT, 21), (AFTER_COMMIT, 22), (BEFORE_ACK, 10)];
    for (point, count) in points {
        let world = world().await;
        let config = world.config(&events(4, 20));
        let load = Load::start(&world);
        for count in [3, count] {
            let armed = format!("{point}:{count}:{}", Signal::SIGKILL);
            let daemon = Daemon::start_with(&config, &[("JETCOPY_KILL_POINT", &armed)]);
            assert_eq!(daemon.ended().await.0.signal(), Some(Signal::SIGKILL as i32), "{armed}");
        }
        let daemon = Daemon::start(&config);
        world.commits(&daemon).await;
        world.judge(&daemon, load).await;
    }
}

#[cfg(feature = "kill-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_freezes_in_its_transaction_is_ended_by_whoever_takes_the_shard_over() {
    let world = world().await;
    let config = world.config(&events(4, 20));
    let load = Load::start(&world);
    let armed = format!("{}:30:{}", jetcopy::kill_point::BEFORE_COMMIT, Signal::SIGSTOP);
    let frozen = Daemon::start_with(&config, &[("JETCOPY_KILL_POINT", &armed)]);
    eventually("the writers to freeze", || async { frozen.is_frozen() }).await;
    let other = Daemon::start(&config);
    world.commits(&other).await;
    frozen.signal(Signal::SIGCONT);
    frozen.says("pipeline is waiting").await;
    world.judge(&other, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_takes_all_lanes_over_when_the_first_is_killed() {
    let world = world().await;
    let config = world.config(&events(3, 20));
    let load = Load::start(&world);
    let writer = Daemon::start(&config);
    world.commits(&writer).await;
    let waiter = Daemon::start(&config);
    waiter.says("pipeline is waiting").await;
    writer.kill();
    waiter.says("pipeline is running").await;
    world.commits(&waiter).await;
    world.judge(&waiter, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_writers_changes_under_load_and_each_message_is_there_once() {
    let world = world().await;
    let load = Load::start(&world);
    for (writers, max_rows) in [(1, 20), (4, 20), (2, 20), (2, 30), (1, 20), (3, 7)] {
        let daemon = Daemon::start(&world.config(&events(writers, max_rows)));
        world.commits(&daemon).await;
        let lanes = if writers > 1 { i64::try_from(writers).unwrap() } else { 0 };
        let others = format!("SELECT count(*) FROM jetcopy.lanes WHERE block <> {max_rows}");
        eventually("the lanes to change", || async {
            let all = world.count("SELECT count(*) FROM jetcopy.lanes").await;
            all == lanes && world.count(&others).await == 0
        })
        .await;
        world.commits(&daemon).await;
        // What it was about to write is nobody's.
        daemon.kill();
    }
    let daemon = Daemon::start(&world.config(&events(4, 20)));
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_are_apart_are_made_even_before_their_number_changes_also_on_a_silent_stream() {
    for writers in [1, 3] {
        let world = world().await;
        world.publish("a", (1..=100).map(event)).await;
        let daemon = Daemon::start(&world.config(&events(2, 10)));
        world.drained("events", &daemon).await;
        daemon.signal(Signal::SIGTERM);
        daemon.ended().await;
        // As after a crash: the first lane lacks its last blocks, and some of one.
        world
            .database
            .batch_execute(
                "UPDATE jetcopy.lanes SET last_sequence = 45, last_timestamp = NULL WHERE lane = 0;
                 DELETE FROM events WHERE sequence > 45 AND (sequence - 1) / 10 % 2 = 0",
            )
            .await
            .unwrap();
        assert_eq!(world.checkpoint("events").await, 45);
        let daemon = Daemon::start(&world.config(&events(writers, 10)));
        daemon.says("completing what the writers before left out").await;
        let lanes = if writers > 1 { 3 } else { 0 };
        eventually("the lanes to change", || async {
            world.count("SELECT count(*) FROM jetcopy.lanes").await == lanes
        })
        .await;
        assert_eq!(world.checkpoint("events").await, 100);
        oracle(&world, &daemon, "events", "events", event(101)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stretches_that_were_deleted_hold_no_lane_up_however_long_they_are() {
    let world = world().await;
    world.publish("a", (1..=500).map(event)).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    // Two whole rounds of four lanes, the ends of some blocks, and whole blocks.
    for sequence in (95..=190).chain(208..=210).chain(221..=230).chain(301..=303) {
        stream.delete_message(sequence).await.unwrap();
    }
    let config = world.config(&events(4, 10));
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(501)).await;
    // Those that a lane lacks are gone by the time they are asked for.
    daemon.kill();
    world.publish("a", (502..=560).map(event)).await;
    for sequence in 502..=545 {
        stream.delete_message(sequence).await.unwrap();
    }
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(561)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_with_few_messages_among_many_of_others_come_once_and_the_floor_reaches_the_end() {
    let world = world().await;
    let narrow = events(3, 10).replace("format = ", "subjects = [\"STREAM.own.>\"]\nformat = ");
    let config = world.config(&narrow);
    let daemon = Daemon::start(&config);
    for round in 0..20 {
        world.publish("own.a", [event(round)]).await;
        world.publish("others", (0..round * 7).map(event)).await;
    }
    eventually("the floor to reach the stream's end", || async {
        world.checkpoint("events").await == world.last_sequence().await
    })
    .await;
    let own = "SELECT count(*) FROM (SELECT DISTINCT id FROM events) AS own";
    assert_eq!((world.count("SELECT count(*) FROM events").await, world.count(own).await), (20, 20));
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.losses").await, 0);
    daemon.kill();
    world.publish("own.a", [event(20)]).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_every_kind_in_every_lane_becomes_dead_letters_and_is_counted_once() {
    let world = World::new().await;
    let table = "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL CHECK (id % 17 <> 3),
                                      note text)";
    world.database.batch_execute(table).await.unwrap();
    let config = world.config(
        &events(4, 20)
            .replace("format = ", "poison = { max_per_batch = 100, max_per_minute = 1000 }\nformat = "),
    );
    // Refused by the decoder, and by the server.
    let message = |id| if id % 13 == 0 { vec![0xc1] } else { event(id) };
    world.publish("a", (1..=600).map(message)).await;
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", event(1)).await;
    let letters = world.count("SELECT count(*) FROM jetcopy.dead_letters").await;
    let expected = (1..=600).filter(|id| id % 13 == 0 || id % 17 == 3).count();
    assert_eq!(letters, i64::try_from(expected).unwrap());
    let tallied = "SELECT sum(times)::bigint FROM jetcopy.tallies WHERE event = 'dead_letter'";
    assert_eq!(world.count(tallied).await, letters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_one_lane_pauses_the_pipeline_until_it_is_accepted_and_all_lanes_use_up_what_is() {
    let world = world().await;
    let config = world.config(
        &events(4, 20).replace("format = ", "poison = { max_per_batch = 5, max_per_minute = 5 }\nformat = "),
    );
    let message = |id| if (100..=160).contains(&id) { vec![0xc1] } else { event(id) };
    world.publish("a", (1..=400).map(message)).await;
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is paused").await;
    world.run(&config, &["dead-letters", "accept", "100", "--pipeline", "events"]).await.well();
    oracle(&world, &daemon, "events", "events", event(401)).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 61);
    // A few are within the limits, by themselves.
    let used = 100 - world.count("SELECT accepted_letters FROM jetcopy.checkpoints").await;
    assert!((56..=61).contains(&used), "{used}");
}

/// Messages that are carried by three writers, and a daemon that still runs.
async fn carried() -> (World, PathBuf, Daemon) {
    let world = world().await;
    let config = world.config(&events(3, 10));
    let message = |id| if id == 77 { vec![0xc1] } else { event(id) };
    world.publish("a", (1..=200).map(message)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    (world, config, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_moves_all_lanes_back_and_what_follows_is_written_again() {
    let (world, config, daemon) = carried().await;
    world.run(&config, &["pause", "events"]).await.well();
    let done = world.run(&config, &["rewind", "events", "--to", "143", "--yes"]).await.well();
    assert!(done.contains("the checkpoint of events is now 143"), "{done}");
    assert_eq!(world.checkpoint("events").await, 143);
    world.database.batch_execute("DELETE FROM events WHERE sequence > 143").await.unwrap();
    world.run(&config, &["resume", "events"]).await.well();
    oracle(&world, &daemon, "events", "events", event(201)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_writers_of_its_own_and_brings_each_message_once() {
    let (world, config, _daemon) = carried().await;
    let said = world.run(&config, &["replay", "events", "--from", "15", "--to", "146"]).await.well();
    assert!(said.contains("131 rows, as many as events has for these messages"), "{said}");
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.lanes WHERE shard <> 'events'").await, 0);
    world.run(&config, &["audit", "events"]).await.well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_below_lanes_that_are_ahead_is_recorded_and_what_they_have_is_not_written_again() {
    let world = world().await;
    let config = world.config(&events(2, 10).replace("format = ", "on_loss = \"continue\"\nformat = "));
    world.publish("a", (1..=100).map(event)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;
    let apart = "UPDATE jetcopy.lanes SET last_sequence = 45, last_timestamp = NULL WHERE lane = 0;
                 DELETE FROM events WHERE sequence > 45 AND (sequence - 1) / 10 % 2 = 0";
    world.database.batch_execute(apart).await.unwrap();
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.purge().sequence(68).await.unwrap();
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    // 51 to 60 are the second lane's, which has them.
    let lost = "SELECT messages FROM jetcopy.losses WHERE first_sequence = 46 AND last_sequence = 67";
    assert_eq!(world.count(lost).await, 12);
    let tallied = "SELECT messages FROM jetcopy.tallies WHERE event = 'loss'";
    assert_eq!((world.count(tallied).await, daemon.metric("jetcopy_lost_messages_total", "")), (12, 12));
    let rows = "SELECT count(*) FROM (SELECT sequence FROM events GROUP BY 1 HAVING count(*) = 1) AS once";
    assert_eq!((world.count("SELECT count(*) FROM events").await, world.count(rows).await), (88, 88));
    for arguments in [&[][..], &["--offline"]] {
        assert_eq!(report(&config, arguments)["differences"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_are_refused_where_rows_depend_on_the_order_of_messages() {
    let world = world().await;
    let ordered = events(2, 10).replace(
        "[pipeline.table.columns]",
        "on_conflict = \"update\"\nkey = [\"id\"]\n[pipeline.table.columns]",
    );
    let refused = world.run(&world.config(&ordered), &["check"]).await;
    assert_ne!(refused.code, 0);
    assert!(
        refused.err.contains("pipeline[0].writers: must be 1: table events has on_conflict"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_lanes_hold_nobody_up_and_a_quiet_stream_is_acknowledged_to_its_end() {
    let world = world().await;
    let daemon = Daemon::start(&world.config(&events(8, 1_000)));
    for id in 1..=5 {
        world.publish("a", [event(id)]).await;
        world.drained("events", &daemon).await;
    }
    oracle(&world, &daemon, "events", "events", event(6)).await;
    assert_eq!(daemon.get("/readyz").0, 200);
    assert_eq!(json!(daemon.status()["held_up"]), serde_json::Value::Null);
}
