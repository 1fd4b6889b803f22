//! The server stops, and its sessions are ended.

use std::cell::Cell;
use std::time::Instant;

use jetcopy::testbed::{Stop, TestPostgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{database_resyncs, own_server, settled};
use crate::support::{Daemon, EVENTS, Load, World, eventually};

/// Ends the daemon's sessions; how many there were.
async fn end_sessions(world: &World, and: &str) -> i64 {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name LIKE 'jetcopy/%' AND datname = current_database() {and}"
    );
    world.count(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_in_any_way_and_started_again_holds_each_message_once() {
    let (mut postgres, mut world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for stop in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        world.commits(&daemon).await;
        postgres.stop(stop);
        eventually("the daemon to notice", || async { daemon.status()["state"] == "backing_off" }).await;
        assert_eq!(daemon.metric("jetcopy_database_up", ""), 0);
        postgres.start_again().unwrap();
        let started = Instant::now();
        world.reconnect().await;
        world.commits(&daemon).await;
        println!("{stop:?} stop and restart: first commit {:?} after the server answers", started.elapsed());
    }
    let troubles = daemon.log().lines().filter(|line| line.contains("backing off")).count();
    assert!(troubles <= 12, "the log floods:\n{}", daemon.log());
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_a_crash_takes_back_are_read_again() {
    let (mut postgres, mut world) =
        own_server(&[("synchronous_commit", "off"), ("wal_writer_delay", "10s")]).await;
    let mut daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;
    // Neither the table nor what is known of the pipeline at all is to be taken back.
    world.database.batch_execute("CHECKPOINT").await.unwrap();
    for _ in 0..3 {
        let log_writer = freeze_log_writer(&world).await;
        world.commits(&daemon).await;
        // Lest it reads again before the checkpoint is looked at.
        daemon.kill();
        let committed = world.checkpoint("events").await;
        crash(&mut postgres, log_writer);
        world.reconnect().await;
        let kept = world.checkpoint("events").await;
        assert!(kept < committed, "the crash left all of {committed}");
        daemon = Daemon::start(&world.config(EVENTS));
        world.commits(&daemon).await;
    }
    // The next daemon knows how much was taken back, and so does one that is still there.
    let replayed = || daemon.metric("jetcopy_replayed_messages_total", "");
    let before = replayed();
    assert!(before > 0);
    let log_writer = freeze_log_writer(&world).await;
    world.commits(&daemon).await;
    crash(&mut postgres, log_writer);
    world.reconnect().await;
    world.commits(&daemon).await;
    assert!(replayed() > before);
    daemon.says("the database lacks transactions that it had committed").await;
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_claim_a_crash_takes_back_knows_what_it_had_committed() {
    let (mut postgres, mut world) =
        own_server(&[("synchronous_commit", "off"), ("wal_writer_delay", "10s")]).await;
    let first = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&first).await;
    world.database.batch_execute("CHECKPOINT").await.unwrap();
    let log_writer = freeze_log_writer(&world).await;
    first.kill();
    let kept = world.checkpoint("events").await;
    let second = Daemon::start(&world.config(EVENTS));
    for _ in 0..3 {
        world.commits(&second).await;
    }
    let committed = world.checkpoint("events").await;
    crash(&mut postgres, log_writer);
    world.reconnect().await;
    // The row names the daemon that is dead, and the other one waits until that one's lease is over.
    world.commits(&second).await;
    second.says("the database lacks transactions that it had committed").await;
    let replayed = u64::try_from(second.metric("jetcopy_replayed_messages_total", "")).unwrap();
    assert!(replayed >= committed - kept, "{replayed} of {committed} - {kept}");
    world.judge(&second, load).await;
}

/// Stops the process that writes the log of asynchronous commits: a crash takes back those that follow. It is
/// stopped where it waits, since with a lock in its hands it would stop the other processes too.
async fn freeze_log_writer(world: &World) -> Pid {
    let frozen = Cell::new(None);
    eventually("the log writer to be stopped where it waits", || async {
        let writer = "SELECT pid, wait_event IS NOT DISTINCT FROM 'WalWriterMain' FROM pg_stat_activity
                      WHERE backend_type = 'walwriter'";
        let pid = Pid::from_raw(world.database.query_one(writer, &[]).await.unwrap().get(0));
        kill(pid, Signal::SIGSTOP).unwrap();
        let waits: bool = world.database.query_one(writer, &[]).await.unwrap().get(1);
        if waits {
            frozen.set(Some(pid));
        } else {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        waits
    })
    .await;
    frozen.get().unwrap()
}

/// Kills the server, with the frozen process that would not notice, and starts it again.
fn crash(postgres: &mut TestPostgres, log_writer: Pid) {
    postgres.stop(Stop::Kill);
    kill(log_writer, Signal::SIGKILL).unwrap();
    postgres.start_again().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_an_administrator_ends_cost_no_row() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for _ in 0..6 {
        settled(&daemon).await;
        assert!(end_sessions(&world, "").await > 0);
        let recovery = world.commits(&daemon).await;
        println!("session ended: first commit after {recovery:?}");
        // And once more while it has hardly begun.
        eventually("a session to end", || async { end_sessions(&world, "").await > 0 }).await;
    }
    world.commits(&daemon).await;
    assert!(database_resyncs(&daemon) >= 12);
    world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_within_commit_are_settled() {
    let (_postgres, world) = own_server(&[]).await;
    // A deferred trigger makes COMMIT long enough to meet.
    let slow = "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql
                    AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER linger AFTER UPDATE OF last_sequence ON jetcopy.checkpoints
                    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION linger()";
    world.database.batch_execute(slow).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for _ in 0..5 {
        world.commits(&daemon).await;
        eventually("a session within COMMIT", || async {
            end_sessions(&world, "AND query = 'COMMIT' AND state = 'active'").await > 0
        })
        .await;
    }
    world.commits(&daemon).await;
    assert!(daemon.metric("jetcopy_commits_total", "outcome=\"in_doubt\"") >= 5);
    world.database.batch_execute("DROP TRIGGER linger ON jetcopy.checkpoints").await.unwrap();
    world.judge(&daemon, load).await;
}
