//! NATS is far away, or behind a thin line.

use std::time::{Duration, Instant};

use super::{resyncs, shared};
use crate::support::{Daemon, EVENTS, Line, World, event, eventually, oracle};

/// A world whose daemon reaches NATS over a line.
async fn over(away: Duration, rate: Option<u32>) -> (World, Line) {
    let mut world = shared().await;
    let port = world.nats_url.rsplit(':').next().unwrap().parse().unwrap();
    let line = Line::start(port, away, rate).await;
    world.nats_url = line.through(&world.nats_url);
    (world, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_far_away_is_asked_for_further_ahead() {
    // More than a second of what a debug build carries.
    const BACKLOG: u64 = 150_000;
    let config = EVENTS.replace("max_rows = 200", "max_rows = 20_000");
    let mut rates = Vec::new();
    for milliseconds in [0, 20, 100, 200] {
        let (world, _line) = over(Duration::from_millis(milliseconds), None).await;
        world.publish("a", (1..=BACKLOG).map(event)).await;
        let daemon = Daemon::start(&world.config(&config));
        daemon.says("http=").await;
        world.commits(&daemon).await;
        let (start, before) = (Instant::now(), world.checkpoint("events").await);
        world.drained("events", &daemon).await;
        #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
        let rate = (BACKLOG - before) as f64 / start.elapsed().as_secs_f64();
        println!("{milliseconds} ms away: {rate:.0} messages/s after the first commit");
        rates.push(rate);
        oracle(&world, &daemon, "events", "events", event(BACKLOG + 1)).await;
    }
    // Without more under way it cannot be more than 7,500 messages each way there and back. A busy machine
    // may not carry that many from nearby.
    assert!(rates[3] > f64::min(7_500.0 / 0.2, rates[0] / 2.0), "{rates:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_line_is_borne_and_what_arrives_is_a_sign_of_life() {
    let (world, _line) = over(Duration::from_millis(40), Some(1_250_000)).await;
    // Half a minute of the line, in messages of 20 kB.
    let note = "x".repeat(20_000);
    let large = |id: u64| rmp_serde::to_vec_named(&serde_json::json!({"id": id, "note": note})).unwrap();
    world.publish("a", (1..=1_800).map(large)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    daemon.says("http=").await;
    eventually("the pipeline to run", || async { daemon.get("/readyz").0 == 200 }).await;
    let last = world.last_sequence().await;
    while world.checkpoint("events").await < last {
        let (code, ready) = daemon.get("/readyz");
        assert_eq!(code, 200, "{ready}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.status()["resyncs"], 1, "{}", daemon.log());
    oracle(&world, &daemon, "events", "events", event(2_000)).await;
    assert_eq!(resyncs(&daemon, "jetstream"), 0);
}
