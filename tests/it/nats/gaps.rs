//! Stream sequences jump: what the durable was made to pass over is read again, what was removed is not
//! missed.

use std::time::Instant;

use async_nats::jetstream::consumer::{FromConsumer as _, pull};
use futures_util::StreamExt as _;

use super::consumer::DURABLE;
use super::{events_with, losses, quiet, resyncs, shared};
use crate::support::{Daemon, EVENTS, Load, World, event, eventually, oracle};

/// Lets the durable deliver nothing but the subject `load` for a moment, so that it passes over messages of
/// another, which are the stream's last where nobody publishes more, and puts it back; whether it passed over
/// any before the daemon looked at it, which makes it anew.
async fn passes_over(world: &World) -> bool {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    // The daemon may be about to make it.
    let Ok(durable) = stream.get_consumer::<pull::Config>(DURABLE).await else { return false };
    let made = pull::Config::try_from_consumer_config(durable.cached_info().config.clone()).unwrap();
    let subject = |token: &str| format!("{}.{token}", world.stream);
    let narrow =
        pull::Config { filter_subject: subject("load"), filter_subjects: Vec::new(), ..made.clone() };
    let Ok(edited) = stream.update_consumer(narrow).await else { return false };
    let created = edited.cached_info().created;
    let before = world.last_sequence().await;
    // After the delivery of one that it takes it looks how far the stream goes.
    for (id, token) in (2_000_000_000..).zip(["load", "b", "b", "b", "b", "b", "b", "b", "b"]) {
        world.nats.publish(subject(token), event(id).into()).await.unwrap();
    }
    world.nats.flush().await.unwrap();
    eventually("the stream to store them", async || world.last_sequence().await >= before + 9).await;
    let info = stream.consumer_info(DURABLE).await;
    let passed = info.is_ok_and(|info| info.delivered.stream_sequence > before + 1);
    let put_back = stream.update_consumer(made).await;
    passed && put_back.is_ok_and(|put_back| put_back.cached_info().created == created)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edited_durable_passed_over_is_read_again_also_once_it_is_put_back() {
    for settings in ["", "subjects = [\"STREAM.load\", \"STREAM.b\", \"STREAM.fresh\"]"] {
        let world = shared().await;
        let daemon = Daemon::start(&world.config(&events_with(settings)));
        let load = Load::start(&world);
        world.commits(&daemon).await;
        // It does not pass over any each time. Where it does and nobody notices, the oracle misses messages.
        for _ in 0..100 {
            if resyncs(&daemon, "skipped") >= 3 {
                break;
            }
            passes_over(&world).await;
            let recovery = world.commits(&daemon).await;
            println!("the durable was edited: next commit after {recovery:?}");
        }
        assert!(resyncs(&daemon, "skipped") >= 3, "{}", daemon.log());
        world.judge(&daemon, load).await;
        assert!(losses(&world).await.is_empty());
        quiet(&daemon, 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edited_durable_leaves_behind_when_the_stream_falls_silent_is_found_by_the_probe() {
    for settings in ["", "subjects = [\"STREAM.load\", \"STREAM.b\", \"STREAM.fresh\"]"] {
        let world = shared().await;
        let daemon = Daemon::start(&world.config(&events_with(settings)));
        world.publish("b", (1..=500).map(event)).await;
        world.drained("events", &daemon).await;
        // Nearly always it then tells of none that is left.
        for _ in 0..10 {
            passes_over(&world).await;
            world.drained("events", &daemon).await;
            if resyncs(&daemon, "skipped") > 0 {
                break;
            }
        }
        assert!(resyncs(&daemon, "skipped") > 0, "{}", daemon.log());
        oracle(&world, &daemon, "events", "events", event(501)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_another_client_resets_before_the_first_pull_costs_nothing() {
    let world = shared().await;
    let settings = world.config(EVENTS);
    let daemon = Daemon::start(&settings);
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    daemon.kill();
    let request = format!("$JS.API.CONSUMER.RESET.{}.{DURABLE}", world.stream);
    let mut resets = world.nats.subscribe(request).await.unwrap();
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let mut skipped = 0;
    // The other's reset has to come between the daemon's own and its first pull, which it does nearly always.
    for round in 1..=10 {
        let last = world.last_sequence().await;
        world.publish("a", (last + 1..=last + 2_000).map(event)).await;
        let daemon = Daemon::start(&settings);
        resets.next().await.unwrap();
        stream.reset_consumer(DURABLE, Some(last + 1_000)).await.unwrap();
        // It sees its own request, and later those of the daemon, which it leaves alone.
        world.drained("events", &daemon).await;
        skipped += resyncs(&daemon, "skipped");
        oracle(&world, &daemon, "events", "events", event(last + 2_001)).await;
        daemon.kill();
        while futures_util::FutureExt::now_or_never(resets.next()).is_some() {}
        if skipped > 0 {
            println!("the other client's reset came in time in round {round}");
            return;
        }
    }
    panic!("no reset came before the first pull");
}

/// Publishes `pairs` messages each to two subjects in turn.
async fn in_turn(world: &World, pairs: u64) {
    for start in (1..=pairs).step_by(1_000) {
        // A thousand at a time: each call waits for all of its acks.
        for id in start..(start + 1_000).min(pairs + 1) {
            for token in ["a", "b"] {
                let subject = format!("{}.{token}", world.stream);
                world.nats.publish(subject, event(id).into()).await.unwrap();
            }
        }
        world.nats.flush().await.unwrap();
        let last = (start + 999).min(pairs) * 2;
        eventually("the stream to store them", async || world.last_sequence().await == last).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_which_every_other_message_was_removed_is_carried_without_a_loss_or_a_resync() {
    const PAIRS: u64 = 20_000;
    let world = shared().await;
    in_turn(&world, PAIRS).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.purge().filter(format!("{}.b", world.stream)).await.unwrap();
    let start = Instant::now();
    let settings = EVENTS.replace("max_rows = 200", "max_rows = 10_000");
    let daemon = Daemon::start(&world.config(&settings));
    world.publish("a", [event(PAIRS + 1)]).await;
    eventually("all to be there", async || world.count("SELECT count(*) FROM events").await == 20_001).await;
    println!("{PAIRS} messages with a removed one after each: {:?}", start.elapsed());
    oracle(&world, &daemon, "events", "events", event(1)).await;
    daemon.needed_no_resync();
    assert!(losses(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_pipeline_carries_every_other_message_of_a_backlog_without_a_resync() {
    const PAIRS: u64 = 20_000;
    let world = shared().await;
    in_turn(&world, PAIRS).await;
    let start = Instant::now();
    let settings = events_with("subjects = [\"STREAM.a\"]").replace("max_rows = 200", "max_rows = 10_000");
    let daemon = Daemon::start(&world.config(&settings));
    eventually("all to be there", async || world.count("SELECT count(*) FROM events").await == 20_000).await;
    println!("{PAIRS} messages of one subject among as many of another: {:?}", start.elapsed());
    let right = "SELECT count(*) FROM events WHERE sequence % 2 = 1 AND id = (sequence + 1) / 2";
    assert_eq!(world.count(right).await, 20_000);
    assert_eq!(world.count("SELECT count(DISTINCT sequence) FROM events").await, 20_000);
    daemon.needed_no_resync();
}
