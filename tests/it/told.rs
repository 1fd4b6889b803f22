//! What a pipeline went through is told from the database: from a daemon's first moment on, and after a
//! restart.

use std::path::Path;

use serde_json::Value;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

async fn running(config: &Path) -> Daemon {
    let daemon = Daemon::start(config);
    daemon.says("http=").await;
    eventually("the pipeline to run", || async { daemon.status()["state"] == "running" }).await;
    daemon
}

/// How long ago the newest was, as the first scrape says; infinite where there was none.
fn age(daemon: &Daemon, event: &str) -> f64 {
    let metrics = daemon.get("/metrics").1;
    let label = format!("event=\"{event}\"");
    let series = |line: &&str| line.starts_with("jetcopy_newest_event_age_seconds{") && line.contains(&label);
    metrics.lines().find(series).unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

fn shown(daemon: &Daemon, field: &str) -> Value {
    daemon.status()[field].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_the_first_second_are_told_with_their_age_and_a_restart_forgets_none() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = running(&config).await;
    let total = |daemon: &Daemon| daemon.metric("jetcopy_dead_letters_total", "kind=\"malformed\"");
    // There from the start on.
    assert!(daemon.get("/metrics").1.contains("kind=\"too_large\""));
    assert_eq!((total(&daemon), age(&daemon, "dead_letter")), (0, f64::INFINITY));
    daemon.kill();

    world.publish("a", ["cut", "cut"]).await;
    let daemon = running(&config).await;
    world.drained("events", &daemon).await;
    eventually("the letters", || async { total(&daemon) == 2 }).await;
    assert!(age(&daemon, "dead_letter") < 60.0);
    daemon.kill();
    world.database.batch_execute("DELETE FROM jetcopy.dead_letters").await.unwrap();
    let daemon = running(&config).await;
    assert_eq!((total(&daemon), shown(&daemon, "dead_letters_since_start")), (2, 0.into()));
    assert!(age(&daemon, "dead_letter") < 120.0);
    assert!(age(&daemon, "loss").is_infinite());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_a_daemon_meets_at_its_start_is_told_and_a_restart_does_not_forget_it() {
    let world = world().await;
    let config = world.config(&EVENTS.replace("format =", "on_loss = \"continue\"\nformat ="));
    let daemon = running(&config).await;
    world.publish("a", (1..=10).map(event)).await;
    world.drained("events", &daemon).await;
    daemon.kill();
    world.publish("a", (11..=30).map(event)).await;
    world.jetstream.get_stream(&world.stream).await.unwrap().purge().await.unwrap();
    for _ in 0..2 {
        let daemon = running(&config).await;
        eventually("the loss", || async { daemon.metric("jetcopy_losses_total", "") == 1 }).await;
        assert_eq!((shown(&daemon, "losses"), shown(&daemon, "lost_messages")), (1.into(), 20.into()));
        assert!(age(&daemon, "loss") < 120.0);
        daemon.kill();
    }
    let daemon = running(&config).await;
    oracle(&world, &daemon, "events", "events", event(31)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_took_from_the_database_is_told_by_a_daemon_that_remembers_nothing() {
    let world = world().await;
    let config = world.config(EVENTS);
    let daemon = running(&config).await;
    world.publish("a", (1..=100).map(event)).await;
    oracle(&world, &daemon, "events", "events", event(101)).await;
    daemon.kill();
    // As a server comes back that had not written its last commits to disk.
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let stored_us = stream.get_raw_message(1).await.unwrap().time.unix_timestamp_nanos() / 1_000;
    let back = format!(
        "DELETE FROM events WHERE sequence > 1; DELETE FROM jetcopy.milestones;
        UPDATE jetcopy.checkpoints SET last_sequence = 1,
            last_timestamp = timestamptz 'epoch' + {stored_us} * interval '1 us'"
    );
    world.database.batch_execute(&back).await.unwrap();
    for _ in 0..2 {
        let daemon = running(&config).await;
        eventually("the replay", || async { daemon.metric("jetcopy_replayed_messages_total", "") == 100 })
            .await;
        assert!(age(&daemon, "replay") < 120.0);
        daemon.kill();
    }
    let daemon = running(&config).await;
    oracle(&world, &daemon, "events", "events", event(102)).await;
    assert_eq!(shown(&daemon, "replayed_messages"), 100);
}
