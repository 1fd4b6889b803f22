//! The daemon gets a signal at each named point of its way, and nothing is lost or doubled.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use async_nats::jetstream::consumer::{Consumer, pull};
use jetcopy::kill_point::{AFTER_COMMIT, AFTER_DECODE, BEFORE_ACK, BEFORE_COMMIT, IN_COPY};
use nix::sys::signal::Signal;

use crate::support::{Daemon, EVENTS, Load, TABLE, World, eventually};

/// Each point, and how often it is passed before the signal comes. The first passings of a transaction's
/// points are those of the first batches; a message in the middle of a batch is decoded in the midst of the
/// load.
const POINTS: [(&str, [u32; 2]); 5] = [
    (AFTER_DECODE, [1, 777]),
    (IN_COPY, [1, 20]),
    (BEFORE_COMMIT, [2, 21]),
    (AFTER_COMMIT, [2, 21]),
    (BEFORE_ACK, [1, 10]),
];

/// A daemon that gets `signal` at a point, to its end.
async fn ends_at(world: &World, point: &str, count: u32, signal: Signal) -> Daemon {
    let armed = format!("{point}:{count}:{signal}");
    let daemon = Daemon::start_with(&world.config(EVENTS), &[("JETCOPY_KILL_POINT", &armed)]);
    let (status, _) = daemon.ended().await;
    let (signalled, code) = (status.signal(), status.code());
    match signal {
        Signal::SIGKILL => assert_eq!(signalled, Some(signal as i32), "{armed}: {code:?}"),
        _ => assert_eq!(code, Some(0), "{armed}: {signalled:?}"),
    }
    daemon
}

async fn world() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_at_any_point_loses_nothing_and_writes_nothing_twice() {
    for (point, counts) in POINTS {
        let world = world().await;
        let load = Load::start(&world);
        for count in counts {
            ends_at(&world, point, count, Signal::SIGKILL).await;
        }
        let daemon = Daemon::start(&world.config(EVENTS));
        let recovery = world.commits(&daemon).await;
        println!("killed at {point}: first commit {recovery:?} after the restart");
        world.judge(&daemon, load).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_at_any_point_commits_and_acks_what_it_took_and_exits_with_0() {
    for (point, counts) in POINTS {
        let world = world().await;
        let load = Load::start(&world);
        for count in counts {
            let daemon = ends_at(&world, point, count, Signal::SIGTERM).await;
            let log = daemon.log();
            for line in [
                "shutting down; a second signal",
                "stopping; committing what was read",
                "pipeline has stopped",
            ] {
                assert_eq!(log.matches(line).count(), 1, "{point}: {line:?} in\n{log}");
            }
            let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
            let durable: Consumer<pull::Config> = stream.get_consumer("jetcopy-events").await.unwrap();
            assert_eq!(
                durable.cached_info().ack_floor.stream_sequence,
                world.checkpoint("events").await,
                "{point}"
            );
        }
        let daemon = Daemon::start(&world.config(EVENTS));
        world.judge(&daemon, load).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_freezes_in_a_transaction_loses_the_shard_and_cannot_commit_when_it_goes_on() {
    const COMMITS: i64 = 20;
    let world = world().await;
    let load = Load::start(&world);
    let config = world.config(EVENTS);
    // Its transaction holds the checkpoint's row, and its session stays.
    let armed = format!("{BEFORE_COMMIT}:{COMMITS}:{}", Signal::SIGSTOP);
    let frozen = Daemon::start_with(&config, &[("JETCOPY_KILL_POINT", &armed)]);
    let owner = "SELECT owner FROM jetcopy.checkpoints";
    eventually("the writer to freeze", || async { frozen.is_frozen() }).await;
    let first: String = world.database.query_one(owner, &[]).await.unwrap().get(0);

    let other = Daemon::start(&config);
    let started = Instant::now();
    other.says(&first).await;
    world.commits(&other).await;
    println!("writer frozen in a transaction: first commit of the other after {:?}", started.elapsed());
    frozen.signal(Signal::SIGCONT);
    frozen.says("pipeline is waiting").await;
    // It committed nothing after it froze: what it was about to commit is the other's now, once.
    assert!(frozen.metric("jetcopy_commits_total", "outcome=\"committed\"") < COMMITS);
    world.judge(&other, load).await;
}
