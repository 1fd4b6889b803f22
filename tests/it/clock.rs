//! A clock that is set to another time makes no message older or younger.

use std::path::Path;
use std::time::Duration;

use jetcopy::testbed::{Need, faketime, skip};
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

/// A daemon that is shown another time than all others.
fn daemon_at(library: &Path, clock: &Path, config: &Path) -> Daemon {
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Daemon::start_with(config, &variables)
}

/// The last value of each key of a bucket.
const VALUES: &str = r#"
[[pipeline]]
name = "values"
stream = "STREAM"
format = "json"
[[pipeline.table]]
name = "values_by_key"
on_conflict = "update"
key = ["key"]
[pipeline.table.columns]
key = "$subject[1]"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn whether_max_age_dropped_messages_of_a_bucket_goes_by_the_servers_clock() {
    let Some(library) = faketime() else { return skip(Need::Faketime) };
    for (ahead, max_age, dropped) in [(3_600, 1_800, false), (-3_600, 1, true)] {
        let world = World::new().await;
        world
            .database
            .batch_execute("CREATE TABLE values_by_key (key text PRIMARY KEY, id bigint)")
            .await
            .unwrap();
        let mut stream = world.stream_config();
        stream.max_messages_per_subject = 1;
        stream.max_age = Duration::from_secs(max_age);
        stream.duplicate_window = Duration::from_secs(1);
        world.jetstream.update_stream(stream).await.unwrap();
        let (config, clock) = (world.config(VALUES), world.directory.path().join("clock"));
        set(&clock, ahead);
        let put = async |key: &str, id: u64| world.publish(key, [format!("{{\"id\": {id}}}")]).await;
        put("a", 1).await;
        let daemon = daemon_at(&library, &clock, &config);
        world.drained("values", &daemon).await;
        daemon.kill();
        // Only the last value of each key is left; or nothing is, of keys that have no newer one.
        for (id, key) in (2..).zip(["b", "c", "d"]) {
            put(if dropped { key } else { "a" }, id).await;
        }
        let first = async || {
            world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.first_sequence
        };
        eventually("the stream to have lost the others", async || {
            first().await > if dropped { 4 } else { 3 }
        })
        .await;
        put("a", 5).await;
        let daemon = daemon_at(&library, &clock, &config);
        if dropped {
            daemon.says("halted").await;
            let cause = "SELECT count(*) FROM jetcopy.losses WHERE cause = 'dropped' AND first_sequence = 2";
            assert_eq!(world.count(cause).await, 1, "{}", daemon.log());
        } else {
            world.drained("values", &daemon).await;
            assert_eq!(world.count("SELECT count(*) FROM jetcopy.losses").await, 0);
            assert_eq!(world.count("SELECT id FROM values_by_key WHERE key = 'a'").await, 5);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_daemons_clock_hides_no_lag_and_makes_none() {
    let Some(library) = faketime() else { return skip(Need::Faketime) };
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let clock = world.directory.path().join("clock");
    set(&clock, 3_600);
    let daemon = daemon_at(&library, &clock, &world.config(EVENTS));
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
