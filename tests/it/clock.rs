//! A clock that is set to another time makes no message older or younger.

use std::path::Path;

use jetcopy::private::{Need, faketime, skip};
use serde_json::Value;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

/// Far beyond what any message of the test waits, and far below the hour by which the clock is set.
const MINUTES: f64 = 300.0;

/// Shows the daemon the time so many seconds from now.
fn set(clock: &Path, seconds: i32) {
    // Renamed, so that the library never reads half of it.
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(new, clock).unwrap();
}

fn behind(status: &Value) -> f64 {
    status["behind_seconds"].as_f64().unwrap_or(f64::NAN)
}

/// Sum and count of the time from storing to commit.
fn latency(daemon: &Daemon) -> (f64, f64) {
    let metrics = daemon.get("/metrics").1;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (value("jetcopy_publish_to_commit_seconds_sum"), value("jetcopy_publish_to_commit_seconds_count"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_daemons_clock_hides_no_lag_and_makes_none() {
    let Some(library) = faketime() else { return skip(Need::Faketime) };
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let clock = world.directory.path().join("clock");
    set(&clock, 3_600);
    let daemon = Daemon::start_with(
        &world.config(EVENTS),
        &[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    // It is shown another time.
    let now = |body: &str| serde_json::from_str::<Value>(body).unwrap()["now"].as_str().unwrap().to_owned();
    let shown: jiff::Timestamp = now(&daemon.get("/status").1).parse().unwrap();
    assert!(shown.duration_since(jiff::Timestamp::now()).as_secs_f64() > 3_000.0, "{shown}");

    world.database.batch_execute("BEGIN; LOCK TABLE events IN SHARE MODE").await.unwrap();
    set(&clock, -3_600);
    world.publish("a", (101..=120).map(event)).await;
    eventually("the lag to be seen", || async {
        let behind = behind(&daemon.status());
        assert!(behind.is_nan() || behind < MINUTES, "{behind}");
        behind > 5.0
    })
    .await;
    set(&clock, 3_600);
    let before = behind(&daemon.status());
    eventually("the lag to grow", || async {
        let behind = behind(&daemon.status());
        assert!((before..MINUTES).contains(&behind), "{behind} after {before}");
        behind > before + 3.0
    })
    .await;
    world.database.batch_execute("ROLLBACK").await.unwrap();
    oracle(&world, &daemon, "events", "events", event(121)).await;
    let (sum, count) = latency(&daemon);
    assert!(sum > 0.0 && sum < MINUTES * count, "{sum} s for {count} messages");
    assert!(behind(&daemon.status()) < MINUTES);
}
