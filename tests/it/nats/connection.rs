//! What is on the way between NATS and the daemon is lost.
//!
//! One ack covers all that came before it, so a delivery that was lost on the way would be acknowledged with
//! the next one: consumer sequences that must be contiguous are what prevents it.

use std::time::Duration;

use super::{quiet, resyncs, shared};
use crate::support::{Daemon, EVENTS, Fault, Load, Lose, Proxy, Way, World, event, eventually, oracle};

/// How long deliveries vanish: dozens of batches.
const SWALLOWED: Duration = Duration::from_secs(1);

/// A world whose daemon reaches NATS through a proxy; the test itself does not.
async fn proxied() -> (World, Proxy) {
    let mut world = shared().await;
    let port = world.nats_url.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port).await;
    world.nats_url = proxy.through(&world.nats_url);
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_vanish_before_a_reset_are_read_again() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for round in 1..=3 {
        world.commits(&daemon).await;
        proxy.set(Way::ToClient, Fault::Swallow);
        // The time is the point: what the server sends in it is gone.
        tokio::time::sleep(SWALLOWED).await;
        proxy.heal();
        proxy.reset();
        let recovery = world.commits(&daemon).await;
        println!("deliveries swallowed for {SWALLOWED:?}, then a reset: first commit after {recovery:?}");
        assert!(resyncs(&daemon, "nats") >= round);
    }
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_lost_from_a_connection_that_stays_is_seen_by_the_next_and_never_acked_over() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;

    // Idle, so that whole messages vanish and the protocol stays in step.
    let before = proxy.swallowed();
    proxy.set(Way::ToClient, Fault::Drop);
    world.publish("a", (101..=150).map(event)).await;
    eventually("the deliveries to vanish", || async { proxy.swallowed() > before }).await;
    delivered(&world, 150).await;
    proxy.heal();
    world.publish("a", (151..=200).map(event)).await;
    oracle(&world, &daemon, "events", "events", event(201)).await;
    assert_eq!(resyncs(&daemon, "contiguity"), 1, "{}", daemon.get("/metrics").1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_delivery_lost_before_the_stream_falls_silent_is_found_by_the_probe() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;

    proxy.set(Way::ToClient, Fault::Drop);
    world.publish("a", (101..=110).map(event)).await;
    delivered(&world, 110).await;
    proxy.heal();
    let recovery = world.commits(&daemon).await;
    println!("the last deliveries lost, then silence: committed after {recovery:?}");
    oracle(&world, &daemon, "events", "events", event(111)).await;
    assert_eq!(resyncs(&daemon, "undelivered"), 1, "{}", daemon.get("/metrics").1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_given_up_in_either_direction() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for way in [Way::ToClient, Way::ToServer] {
        world.commits(&daemon).await;
        proxy.set(way, Fault::Swallow);
        let start = std::time::Instant::now();
        eventually("the daemon to notice", || async { daemon.status()["state"] == "backing_off" }).await;
        println!("half-open NATS connection, {way:?} swallowed: noticed after {:?}", start.elapsed());
        proxy.heal();
        let recovery = world.commits(&daemon).await;
        println!("half-open NATS connection, {way:?} swallowed: first commit {recovery:?} after it healed");
    }
    quiet(&daemon, 40);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_after_any_number_of_bytes_costs_nothing() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for way in [Way::ToServer, Way::ToClient] {
        // From the first line of the handshake to somewhere in the deliveries.
        for bytes in [1, 40, 300, 1_500, 4_000, 20_000] {
            world.commits(&daemon).await;
            let before = all_resyncs(&daemon);
            proxy.cut_until(way, bytes, || all_resyncs(&daemon) > before).await;
        }
    }
    let recovery = world.commits(&daemon).await;
    println!("NATS connection cut: first commit after {recovery:?}");
    quiet(&daemon, 150);
    world.judge(&daemon, load).await;
}

/// Restarts from the checkpoint, whatever caused them.
fn all_resyncs(daemon: &Daemon) -> i64 {
    let metrics = daemon.get("/metrics").1;
    let resyncs = metrics.lines().filter(|line| line.starts_with("jetcopy_resyncs_total{"));
    resyncs.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
}

/// Waits until the server has delivered everything up to `sequence`.
async fn delivered(world: &World, sequence: u64) {
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    eventually("the delivery", || async {
        stream.consumer_info("jetcopy-events").await.unwrap().delivered.stream_sequence >= sequence
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_is_lost_with_no_other_to_follow_is_sent_again() {
    let (world, proxy) = proxied().await;
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=100).map(event)).await;
    world.drained("events", &daemon).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let acked = async |to| {
        let durable = stream.consumer_info("jetcopy-events").await.unwrap();
        durable.ack_floor.stream_sequence == to
    };
    eventually("all to be acknowledged", async || acked(100).await).await;

    proxy.trap(b"+ACK\r\n", Lose::Message);
    world.publish("a", [event(101)]).await;
    proxy.sprung().await;
    assert!(!acked(101).await, "the ack was not lost");
    eventually("the last to be acknowledged", async || acked(101).await).await;
    daemon.needed_no_resync();
}
