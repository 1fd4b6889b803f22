//! A pipeline that an operator pauses stands still until it is resumed, over restarts, and loses nothing.

use std::time::{Duration, Instant};

use crate::support::{Daemon, EVENTS, Load, TABLE, World, event, eventually, oracle};

/// A world with a daemon under load.
async fn under_load() -> (World, std::path::PathBuf, Load, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let load = Load::start(&world);
    let daemon = Daemon::start(&config);
    daemon.says("pipeline is running").await;
    world.commits(&daemon).await;
    (world, config, load, daemon)
}

async fn is_paused(daemon: &Daemon) {
    eventually("the daemon to say that it is paused", || async { daemon.status()["state"] == "paused" })
        .await;
}

async fn is_running(daemon: &Daemon) {
    eventually("the daemon to run", || async { daemon.status()["state"] == "running" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_pause_has_answered_nothing_is_committed_until_resume_also_by_the_next_daemon() {
    let (world, config, load, daemon) = under_load().await;
    let said = world.run(&config, &["pause", "events"]).await.well();
    assert!(said.contains("pipeline events is paused"), "{said}");
    let checkpoint = world.checkpoint("events").await;
    is_paused(&daemon).await;
    let status = daemon.status();
    assert!(status["reason"].as_str().unwrap().contains("paused by operator"), "{status}");
    assert_eq!(status["remedy"], "run `jetcopy resume events`");
    load.publishes().await;
    assert_eq!(world.checkpoint("events").await, checkpoint);

    daemon.kill();
    let daemon = Daemon::start(&config);
    daemon.says("paused by operator").await;
    load.publishes().await;
    // It looks again and again, and says it once.
    let sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let before = world.count(sessions).await;
    eventually("it to look again", || async { world.count(sessions).await >= before + 3 }).await;
    daemon.says_times("paused by operator", 1).await;
    assert_eq!(daemon.metric("jetcopy_resyncs_total", "cause=\"paused\""), 1);
    let again = world.run(&config, &["pause", "events"]).await.well();
    assert!(again.contains("was already paused, by "), "{again}");
    assert_eq!(world.checkpoint("events").await, checkpoint);

    let said = world.run(&config, &["resume", "events"]).await.well();
    assert!(said.contains("pipeline events is resumed"), "{said}");
    let resumed = Instant::now();
    is_running(&daemon).await;
    assert!(resumed.elapsed() < Duration::from_secs(10), "{:?}", resumed.elapsed());
    let said = world.run(&config, &["resume", "events"]).await.well();
    assert!(said.contains("was not paused"), "{said}");
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_notices_a_pause() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", [event(1)]).await;
    world.drained("events", &daemon).await;
    world.run(&config, &["pause", "events"]).await.well();
    let paused = Instant::now();
    is_paused(&daemon).await;
    assert!(paused.elapsed() < Duration::from_secs(8), "{:?}", paused.elapsed());
    world.run(&config, &["resume", "events"]).await.well();
    is_running(&daemon).await;
    oracle(&world, &daemon, "events", "events", event(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_can_be_paused_before_it_ever_ran() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    world.publish("a", (1..=50).map(event)).await;
    world.run(&config, &["pause", "events"]).await.well();
    let daemon = Daemon::start(&config);
    daemon.says("paused by operator").await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 0);
    world.run(&config, &["resume", "events"]).await.well();
    oracle(&world, &daemon, "events", "events", event(51)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_not_configured_cannot_be_paused() {
    let world = World::new().await;
    let config = world.config(EVENTS);
    let answer = world.run(&config, &["pause", "frames"]).await;
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("the configuration has no pipeline frames; it has: events"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_is_paused_in_nats_shows_and_is_left_paused() {
    let (world, _, load, daemon) = under_load().await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let end = stream
        .consumer_info("jetcopy-events")
        .await
        .unwrap()
        .created
        .saturating_add(Duration::from_hours(1).try_into().unwrap());
    stream.pause_consumer("jetcopy-events", end).await.unwrap();
    is_paused(&daemon).await;
    let status = daemon.status();
    assert!(
        status["reason"].as_str().unwrap().contains("jetcopy-events is paused in NATS until "),
        "{status}"
    );
    let remedy = format!("run `nats consumer resume {} jetcopy-events`, or wait", world.stream);
    assert!(status["remedy"].as_str().unwrap().starts_with(&remedy), "{status}");
    let checkpoint = world.checkpoint("events").await;
    load.publishes().await;
    assert!(stream.consumer_info("jetcopy-events").await.unwrap().paused);
    assert_eq!(world.checkpoint("events").await, checkpoint);

    stream.resume_consumer("jetcopy-events").await.unwrap();
    world.commits(&daemon).await;
    is_running(&daemon).await;
    world.judge(&daemon, load).await;
}
