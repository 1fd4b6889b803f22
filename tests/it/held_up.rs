//! What is said of a pipeline that has work and does not move.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// Longer than it takes to be called held up.
const LOCKED: Duration = Duration::from_secs(7);

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// What `/status` says while `table` is locked for [`LOCKED`], with what `/readyz` says beside it and when.
async fn locked(world: &World, daemon: &Daemon) -> Vec<(Duration, Value, (u16, String))> {
    world.database.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.publish("a", (1..=10).map(|id| event(1_000_000 + id))).await;
    let (start, mut seen) = (Instant::now(), Vec::new());
    while start.elapsed() < LOCKED {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen.push((start.elapsed(), daemon.status(), daemon.get("/readyz")));
    }
    world.database.batch_execute("ROLLBACK").await.unwrap();
    seen
}

/// That the database is named as what limits from the second second on, and nothing else before.
fn limited_by_the_database(seen: &[(Duration, Value, (u16, String))]) {
    for (after, status, _) in seen {
        let limit = status["recent"]["limited_by"].as_str();
        let expected =
            if *after < Duration::from_secs(2) { [None, Some("database")] } else { [Some("database"); 2] };
        assert!(expected.contains(&limit), "after {after:?}: {status:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_makes_a_pipeline_unready_within_seconds_and_says_which_step_waits_for_whom() {
    let world = world().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    eventually("readiness", || async { daemon.get("/readyz").0 == 200 }).await;
    let application = "SET application_name = 'a forgotten session'";
    world.database.batch_execute(application).await.unwrap();
    let seen = locked(&world, &daemon).await;
    limited_by_the_database(&seen);
    for (after, status, (code, text)) in &seen {
        let held = status["held_up"]["stage"].as_str();
        if *after < Duration::from_secs(2) {
            assert_eq!((*code, held), (200, None), "after {after:?}: {text}");
        }
        if *after > Duration::from_secs(5) {
            assert_eq!((*code, held), (503, Some("database")), "after {after:?}: {text}");
            for part in
                ["running, but nothing has committed for", "locking events for", "a forgotten session (pid"]
            {
                assert!(text.contains(part), "{part} is not in {text}");
            }
            assert!(status["state"] == "running", "{status:#}");
        }
    }
    let metric = |stage| daemon.metric("jetcopy_held_up_seconds", &format!("stage=\"{stage}\""));
    eventually("readiness", || async { daemon.get("/readyz").0 == 200 }).await;
    assert_eq!((metric("database"), metric("nats")), (0, 0));
    daemon.says("no longer held up").await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_messages_behind_a_lock_are_limited_by_the_database_though_the_reader_has_room() {
    let world = world().await;
    let config = world.config(&EVENTS.replace("max_rows = 200, max_age = \"5ms\"", ""));
    let daemon = Daemon::start(&config);
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    limited_by_the_database(&locked(&world, &daemon).await);
    oracle(&world, &daemon, "events", "events", event(9_999)).await;
}

/// Sleeps so long before each statement or row.
fn slow(each: &str, seconds: f64) -> String {
    format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH {each} EXECUTE FUNCTION slow()"
    )
}

/// Looks for so long whether it is ready, and says how often it was not.
async fn unready(daemon: &Daemon, time: Duration) -> Vec<String> {
    let (start, mut seen) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let (code, text) = daemon.get("/readyz");
        if code != 200 {
            seen.push(text);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_slow_and_steady_stays_ready() {
    let world = world().await;
    world.database.batch_execute(&slow("STATEMENT", 2.0)).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    assert_eq!(unready(&daemon, Duration::from_secs(12)).await, [""; 0]);
    world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_copy_that_the_server_takes_row_by_row_stays_ready() {
    let world = world().await;
    let daemon = Daemon::start(&world.config(&EVENTS.replace("200", "2000")));
    world.publish("a", (1..=10).map(event)).await;
    world.drained("events", &daemon).await;
    world.database.batch_execute(&slow("ROW", 0.02)).await.unwrap();
    // At least ten seconds for a batch.
    world.publish("a", (11..=510).map(event)).await;
    assert_eq!(unready(&daemon, Duration::from_secs(8)).await, [""; 0]);
    assert_eq!(daemon.status()["recent"]["limited_by"], "database");
    world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(9_999)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_pipeline_and_one_whose_batch_fills_for_minutes_are_ready() {
    let world = world().await;
    let config = world.config(&EVENTS.replace("max_age = \"5ms\"", "max_age = \"10m\""));
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    assert_eq!(unready(&daemon, Duration::from_secs(4)).await, [""; 0]);
    world.publish("a", (1..=10).map(event)).await;
    eventually("the messages to be taken", || async { daemon.status()["uncommitted_messages"] == 10 }).await;
    assert_eq!(unready(&daemon, Duration::from_secs(5)).await, [""; 0]);
}
