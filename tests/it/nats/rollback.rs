//! The server loses the end of the stream, as a power failure makes it do: it syncs its files every two
//! minutes.
//!
//! The database then holds rows whose messages are no longer in the stream, and the sequences of those are
//! given to new messages.

use std::path::Path;
use std::process::Command;

use jetcopy::testbed::{Stop, TestNats};

use super::{accept_loss, each_id_once, halted, losses, own_nats, quiet};
use crate::support::{Daemon, EVENTS, World, event};

/// Messages before the moment to which the stream is rolled back, and those after it.
const KEPT: u64 = 1_000;
const GONE: u64 = 500;

/// Replaces a directory tree.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A stream of [`KEPT`] messages whose daemon has committed [`GONE`] more, rolled back while the server is
/// down.
async fn rolled_back(world: &World, nats: &mut TestNats, daemon: &Daemon) {
    let saved = world.directory.path().join("saved");
    world.publish("a", (1..=KEPT).map(event)).await;
    world.drained("events", daemon).await;
    nats.stop(Stop::Fast);
    copy(&nats.store(), &saved);
    nats.start_again().unwrap();
    world.nats_answers().await;
    world.publish("a", (KEPT + 1..=KEPT + GONE).map(event)).await;
    world.drained("events", daemon).await;
    nats.stop(Stop::Kill);
    copy(&saved, &nats.store());
}

fn loss() -> (i64, Option<i64>, String) {
    let sequence = |sequence: u64| i64::try_from(sequence).unwrap();
    (sequence(KEPT + 1), Some(sequence(KEPT + GONE)), "rolled_back".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_rolled_back_behind_the_checkpoint_halts_and_none_of_its_new_messages_is_passed_over() {
    let (world, mut nats, _postgres) = own_nats().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    rolled_back(&world, &mut nats, &daemon).await;
    nats.start_again().unwrap();
    halted(&daemon, "rolled back").await;
    assert_eq!(losses(&world).await, [loss()]);
    // New messages take the sequences of those that are gone, below the checkpoint and then above it.
    world.nats_answers().await;
    world.publish("a", (KEPT + GONE + 1..=KEPT + GONE + 100).map(event)).await;
    accept_loss(&config);
    world.drained("events", &daemon).await;
    world.publish("a", (KEPT + GONE + 101..=KEPT + 3 * GONE).map(event)).await;
    world.drained("events", &daemon).await;
    each_id_once(&world, KEPT + 3 * GONE).await;
    assert_eq!(losses(&world).await, [loss()]);
    quiet(&daemon, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_rolled_back_and_grown_past_the_checkpoint_is_not_taken_for_what_it_was() {
    let (world, mut nats, _postgres) = own_nats().await;
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    rolled_back(&world, &mut nats, &daemon).await;
    daemon.kill();
    nats.start_again().unwrap();
    let published = KEPT + 3 * GONE;
    world.nats_answers().await;
    world.publish("a", (KEPT + GONE + 1..=published).map(event)).await;

    let daemon = Daemon::start(&config);
    halted(&daemon, "rolled back").await;
    assert_eq!(losses(&world).await, [loss()]);
    assert_eq!(world.checkpoint("events").await, KEPT + GONE);
    accept_loss(&config);
    world.drained("events", &daemon).await;
    each_id_once(&world, published).await;
}
