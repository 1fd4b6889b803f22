//! The database is away for long while publishing goes on.

use std::time::Instant;

use jetcopy::testbed::Stop;
use serde_json::json;

use super::{database_resyncs, own_server};
use crate::support::{Daemon, EVENTS, Load, eventually};

/// What the daemon may hold of messages and rows.
const BUFFERED: usize = 8 << 20;

/// How much its memory may grow: what it may hold, as much again for what the allocator keeps, and some for
/// itself.
const GROWTH_KIB: u64 = 2 * (BUFFERED as u64 >> 10) + 24 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outage_costs_no_memory_no_redelivery_and_few_lines() {
    // An hour's worth of a stream that outgrows memory, at once: 128 MiB against 8 MiB that may be held.
    const MESSAGES: u64 = 8_000;
    const NOTE: usize = 16 * 1024;
    let (mut postgres, mut world) = own_server(&[]).await;
    let bounded = EVENTS.replace("max_age = \"5ms\" }", "max_age = \"5ms\", max_bytes = \"512KiB\" }");
    let bounded =
        bounded.replace("format =", &format!("max_buffered_bytes = \"{}MiB\"\nformat =", BUFFERED >> 20));
    let daemon = Daemon::start(&world.config(&bounded));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    let (memory, lines, resyncs) =
        (daemon.memory_kib(), daemon.log().lines().count(), database_resyncs(&daemon));

    postgres.stop(Stop::Immediate);
    let note = "x".repeat(NOTE);
    let large = |id: u64| rmp_serde::to_vec_named(&json!({"id": id, "note": note})).unwrap();
    world.publish("large", (0..MESSAGES).map(large)).await;
    eventually("twenty attempts", || async { database_resyncs(&daemon) >= resyncs + 20 }).await;
    eventually("the lag to be told while no generation runs", || async {
        let status = daemon.status();
        status["undelivered_messages"].as_u64() >= Some(MESSAGES)
            && status["behind_seconds"].as_f64() > Some(1.0)
    })
    .await;
    let during = daemon.memory_kib();
    let quiet = daemon.log().lines().count();
    assert!(quiet <= lines + 4, "the log floods:\n{}", daemon.log());

    postgres.start_again().unwrap();
    let started = Instant::now();
    world.reconnect().await;
    world.commits(&daemon).await;
    println!("long outage: first commit {:?} after the server answers", started.elapsed());
    world.judge(&daemon, load).await;
    let after = daemon.peak_memory_kib();
    println!("memory: {memory} KiB before, {during} KiB during the outage, {after} KiB at most");
    assert!(during <= memory + GROWTH_KIB, "{during} KiB after {memory} KiB");
    assert!(after <= memory + GROWTH_KIB, "{after} KiB after {memory} KiB");

    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let durable = stream.consumer_info("jetcopy-events").await.unwrap();
    assert_eq!(durable.num_redelivered, 0);
}
