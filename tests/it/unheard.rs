//! A log that nobody takes neither ends nor stops the daemon.

use std::fs::File;
use std::net::TcpListener;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually, oracle};

/// Carries 300 messages while `stderr` takes no lines, until some were dropped; then a stop ends it as ever.
async fn carries_on(stderr: impl Into<Stdio>, level: &str) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let daemon = Daemon::start_unheard(&world.config(EVENTS), stderr, level, &address);
    eventually("the page", || async { std::net::TcpStream::connect(&address).is_ok() }).await;
    let mut id = 0;
    eventually("lines to be dropped", || {
        let first = id + 1;
        id += 300;
        let (world, daemon) = (&world, &daemon);
        async move {
            world.publish("a", (first..first + 300).map(event)).await;
            dropped(daemon) > 0
        }
    })
    .await;
    oracle(&world, &daemon, "events", "events", event(id + 1)).await;
    daemon.signal(Signal::SIGTERM);
    let (status, _) = daemon.ended().await;
    assert!(status.success(), "{status}");
}

/// What the metric says.
fn dropped(daemon: &Daemon) -> u64 {
    let metrics = daemon.get("/metrics").1;
    let value = metrics.lines().find_map(|line| line.strip_prefix("jetcopy_log_lines_dropped_total "));
    value.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_does_not_end_the_daemon() {
    carries_on(File::options().write(true).open("/dev/full").unwrap(), "info").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_into_a_pipe_without_a_reader_does_not_end_the_daemon() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    carries_on(writer, "info").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_into_a_pipe_that_nobody_reads_does_not_stop_the_daemon() {
    let (_reader, writer) = std::io::pipe().unwrap();
    carries_on(writer, "trace,async_nats=trace").await;
}
