//! Two daemons on one pipeline: one writes, the other waits and takes over.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::{Daemon, EVENTS, Load, TABLE, World, eventually};

/// A world under load with a daemon that writes and one that waits for it.
async fn writer_and_waiter() -> (World, Load, Daemon, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let load = Load::start(&world);
    let writer = Daemon::start(&config);
    writer.says("pipeline is running").await;
    let waiter = Daemon::start(&config);
    waiter.says("pipeline is waiting").await;
    world.commits(&writer).await;
    (world, load, writer, waiter)
}

async fn owner(world: &World) -> String {
    let sql = "SELECT coalesce(owner, 'nobody') FROM jetcopy.checkpoints WHERE shard = 'events'";
    world.database.query_one(sql, &[]).await.unwrap().get(0)
}

/// That `daemon` waits, and says for whom.
fn waits_for(daemon: &Daemon, owner: &str) {
    let status = daemon.status();
    assert_eq!(status["state"], "waiting", "{status}");
    assert!(status["reason"].as_str().unwrap().contains(owner), "{status}");
    let (code, line) = daemon.get("/readyz");
    assert_eq!(code, 200, "a standby is ready");
    assert!(line.starts_with("events: waiting: ") && line.contains(owner), "{line}");
    assert_eq!(daemon.metric("jetcopy_pipeline_state", "state=\"waiting\""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_daemon_waits_and_takes_over_at_once_when_the_first_is_killed() {
    let (world, load, writer, waiter) = writer_and_waiter().await;
    let first = owner(&world).await;
    waits_for(&waiter, &first);
    assert_eq!(writer.get("/readyz").0, 200);
    // It looks again and again over one session, and says it once.
    let other = "FROM jetcopy.daemons WHERE daemon <> (SELECT owner FROM jetcopy.checkpoints)";
    let beat = format!("SELECT beat {other}");
    let before = world.count(&beat).await;
    eventually("some beats", || async { world.count(&beat).await >= before + 4 }).await;
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE right(application_name, 16) = (SELECT daemon {other})"
    );
    assert_eq!(world.count(&sessions).await, 1);
    assert_ne!(waiter.status()["nats_up"], false, "{}", waiter.status());
    waits_for(&waiter, &first);
    waiter.says_times("jetcopy::status", 1).await;
    assert_eq!(waiter.metric("jetcopy_resyncs_total", "cause=\"held\""), 1);
    assert_eq!(waiter.metric("jetcopy_messages_total", ""), 0);

    let killed = Instant::now();
    writer.kill();
    eventually("the second daemon to own the shard", || async { owner(&world).await != first }).await;
    world.commits(&waiter).await;
    println!("writer killed: first commit of the other after {:?}", killed.elapsed());
    assert_eq!(waiter.get("/readyz").0, 200);
    world.judge(&waiter, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_stopped_hands_the_shard_over_without_waiting_for_the_lease() {
    let (world, load, writer, waiter) = writer_and_waiter().await;
    let first = owner(&world).await;
    let stopped = Instant::now();
    writer.signal(Signal::SIGTERM);
    let (status, _) = writer.ended().await;
    assert_eq!(status.code(), Some(0));
    eventually("the second daemon to own the shard", || async {
        ![first.as_str(), "nobody"].contains(&owner(&world).await.as_str())
    })
    .await;
    world.commits(&waiter).await;
    println!("writer stopped: first commit of the other after {:?}", stopped.elapsed());
    world.judge(&waiter, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_froze_loses_the_shard_after_its_lease_and_writes_nothing_when_it_goes_on() {
    let (world, load, writer, waiter) = writer_and_waiter().await;
    let first = owner(&world).await;
    let frozen = Instant::now();
    writer.signal(Signal::SIGSTOP);
    eventually("the second daemon to own the shard", || async { owner(&world).await != first }).await;
    world.commits(&waiter).await;
    println!("writer frozen: first commit of the other after {:?}", frozen.elapsed());
    let second = owner(&world).await;

    writer.signal(Signal::SIGCONT);
    writer.says("pipeline is waiting").await;
    waits_for(&writer, &second);
    world.commits(&waiter).await;
    assert_eq!(owner(&world).await, second);
    assert_eq!(waiter.metric("jetcopy_resyncs_total", "cause=\"lost_epoch\""), 0);
    assert_eq!(writer.metric("jetcopy_resyncs_total", "cause=\"held\""), 1);
    waits_for(&writer, &second);
    writer.says_times("pipeline is waiting", 1).await;
    world.judge(&waiter, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_that_ask_for_a_free_shard_at_once_are_one_that_runs_and_one_that_waits() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(EVENTS);
    let free = format!(
        "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) VALUES ('events', \
         'events', '{}', 0, 0)",
        world.stream
    );
    world.database.batch_execute(&free).await.unwrap();
    // Neither can take it before both are there.
    let holder = jetcopy::testbed::connect(&world.own_url).await.unwrap();
    holder.batch_execute("BEGIN; SELECT FROM jetcopy.checkpoints FOR UPDATE").await.unwrap();
    let daemons = [Daemon::start(&config), Daemon::start(&config)];
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND \
                   wait_event_type = 'Lock'";
    // Who sees the other, and that it is to have the shard, does not ask for it.
    eventually("the row to be waited for", || async { world.count(waiting).await >= 1 }).await;
    let there = "SELECT count(*) FROM jetcopy.daemons";
    eventually("both to be there", || async { world.count(there).await == 2 }).await;
    holder.batch_execute("COMMIT").await.unwrap();
    for word in ["pipeline is running", "pipeline is waiting"] {
        eventually(word, || async { daemons.iter().any(|daemon| daemon.log().contains(word)) }).await;
    }
    for daemon in &daemons {
        assert!(!daemon.log().contains("another writer"), "{}", daemon.log());
    }
}
