//! A primary that neither answers nor goes away: its processes are stopped.

use std::fs;
use std::time::{Duration, Instant};

use jetcopy::testbed::TestPostgres;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Pair, end_sessions, marks_at};
use crate::support::{Daemon, EVENTS, Load, eventually};

/// A server whose processes stand still for as long as this lives.
pub(super) struct Frozen(Vec<Pid>);

impl Frozen {
    pub(super) fn new(server: &TestPostgres) -> Self {
        let pid = server.pid().unwrap();
        let mut frozen = Self(Vec::new());
        frozen.stop(pid);
        // The postmaster stands still: nothing more begins.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().for_each(|child| frozen.stop(child.parse().unwrap()));
        frozen
    }

    fn stop(&mut self, pid: u32) {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        // One that has just ended needs no stop.
        if kill(pid, Signal::SIGSTOP).is_ok() {
            self.0.push(pid);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for &pid in &self.0 {
            let _ = kill(pid, Signal::SIGCONT);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_given_up_with_the_default_settings_and_the_next_one_written_to() {
    let mut pair = Pair::start().await;
    pair.world.database_url = pair.url_of_both();
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;

    let frozen = Frozen::new(&pair.primary);
    let start = Instant::now();
    eventually("the daemon to notice", || async { daemon.status()["state"] != "running" }).await;
    println!("a frozen primary: noticed after {:?}", start.elapsed());
    assert_eq!(daemon.get("/readyz").0, 503);
    daemon.says("no longer answers").await;
    // It is searched for without end, and the frozen one keeps nobody from the other.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(daemon.get("/readyz").0, 503);
    let promoted = pair.promote().await;
    pair.world.commits(&daemon).await;
    println!("a frozen primary: first commit {:?} after the promotion was asked for", promoted.elapsed());
    assert!(promoted.elapsed() < Duration::from_secs(5));

    // It thaws, takes writes, and is the first in the URL.
    drop(frozen);
    let old = pair.primary.database_url(pair.world.own_url.rsplit('/').next().unwrap());
    let before = marks_at(&old).await;
    for _ in 0..2 {
        end_sessions(&pair.world).await;
        pair.world.commits(&daemon).await;
    }
    assert_eq!(marks_at(&old).await, before, "the old primary was written to");
    pair.world.judge(&daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_slow_and_lets_others_in_is_not_given_up() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&pair.world.config(EVENTS));
    let load = Load::start(&pair.world);
    pair.world.commits(&daemon).await;
    // Longer than it takes to give up a server that answers nobody.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                  'BEGIN PERFORM pg_sleep(8); RETURN NULL; END';
                CREATE TRIGGER slow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    pair.world.database.batch_execute(slow).await.unwrap();
    let resyncs = crate::postgres::database_resyncs(&daemon);
    pair.world.commits(&daemon).await;
    pair.world.commits(&daemon).await;
    assert_eq!(crate::postgres::database_resyncs(&daemon), resyncs);
    pair.world.database.batch_execute("DROP TRIGGER slow ON events").await.unwrap();
    pair.world.judge(&daemon, load).await;
}
