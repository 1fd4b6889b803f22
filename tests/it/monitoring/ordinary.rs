//! The shipped rules, as they are, over what happens every day: no alert fires.

use std::time::{Duration, Instant};

use jetcopy::testbed::Stop;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::stack::{Stack, gives};
use crate::support::{Daemon, EVENTS, Load, eventually, oracle};

/// How long all of it takes, and is watched.
const LIFE: Duration = Duration::from_mins(10);

/// All alerts but the one about the disk of the machine that the test happens to run on.
const FIRING: &str = "ALERTS{alertstate=\"firing\", alertname!=\"DiskNearlyFull\"}";

fn unhurried(text: &str) -> String {
    text.to_owned()
}

/// Lets it be quiet, or loaded, for so many seconds, and says so.
async fn pass(stack: &Stack, what: &str, seconds: u64) {
    println!("{what} for {seconds} s");
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        assert_eq!(names(&stack.query(FIRING)), [""; 0], "{what}");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn names(alerts: &[Value]) -> Vec<&str> {
    alerts.iter().map(|alert| alert["metric"]["alertname"].as_str().unwrap()).collect()
}

async fn burst(stack: &Stack, seconds: u64) {
    let load = Load::start(&stack.world);
    pass(stack, "a burst", seconds).await;
    load.stop().await;
    stack.world.drained("events", stack.daemon()).await;
}

/// Ends a daemon as an upgrade does.
async fn ends(daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;
}

async fn runs(daemon: &Daemon) {
    daemon.says("http=").await;
    eventually("the pipeline to run", || async { daemon.status()["state"] == "running" }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes: run `make alerts-calm`"]
async fn ten_minutes_of_ordinary_life_raise_no_alert() {
    let mut stack = Stack::start(unhurried).await;
    let start = Instant::now();
    let config = stack.world.config(EVENTS);
    for job in ["jetcopy", "postgres", "node"] {
        gives(&stack, &format!("up{{job=\"{job}\"}} == 1")).await;
    }
    burst(&stack, 30).await;
    pass(&stack, "silence", 70).await;
    burst(&stack, 20).await;

    println!("the daemon is started anew");
    ends(stack.daemon.take().unwrap()).await;
    let daemon = Daemon::start(&config);
    runs(&daemon).await;
    stack.scrape_daemon(&daemon);
    stack.daemon = Some(daemon);
    burst(&stack, 40).await;

    println!("NATS is started anew");
    stack.nats.stop(Stop::Fast);
    stack.nats.start_again().unwrap();
    stack.world.nats_answers().await;
    burst(&stack, 60).await;

    println!("PostgreSQL is started anew");
    stack.postgres.stop(Stop::Fast);
    tokio::time::sleep(Duration::from_secs(10)).await;
    stack.postgres.start_again().unwrap();
    stack.world.reconnect().await;
    burst(&stack, 60).await;

    println!("a standby takes over, and the daemon comes back as one");
    let standby = Daemon::start(&config);
    standby.says("pipeline is waiting").await;
    stack.scrape_daemons(&[stack.daemon(), &standby]);
    pass(&stack, "a standby beside the daemon", 70).await;
    ends(stack.daemon.take().unwrap()).await;
    runs(&standby).await;
    let back = Daemon::start(&config);
    back.says("pipeline is waiting").await;
    stack.scrape_daemons(&[&standby, &back]);
    stack.daemon = Some(standby);
    burst(&stack, 60).await;

    println!("an operator pauses the pipeline for a moment");
    stack.world.run(&config, &["pause", "events"]).await.well();
    let load = Load::start(&stack.world);
    pass(&stack, "a pause", 20).await;
    load.stop().await;
    stack.world.run(&config, &["resume", "events"]).await.well();
    let rest = LIFE.saturating_sub(start.elapsed()).as_secs();
    pass(&stack, "silence", rest).await;

    let ever = format!("count_over_time({FIRING}[{}s])", start.elapsed().as_secs());
    assert_eq!(names(&stack.query(&ever)), [""; 0]);
    // It was not silent because nothing was asked.
    let outages = format!("max_over_time(jetcopy_outages_total[{}s]) >= 1", start.elapsed().as_secs());
    assert!(!stack.query(&outages).is_empty());
    oracle(&stack.world, stack.daemon(), "events", "events", crate::support::event(1)).await;
}
