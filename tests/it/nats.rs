//! NATS fails, and people do things to the stream and the durable: nothing is lost or doubled, and what
//! nobody can prevent is recorded.

mod cluster;
mod connection;
mod consumer;
mod distance;
mod gaps;
mod limits;
mod markers;
mod owners;
mod rollback;
mod server;
mod snapshot;
mod stream;
mod unreadable;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres};

use crate::support::{Daemon, EVENTS, TABLE, World, eventually};

/// A world on a NATS server of its own, with the table of [`EVENTS`].
async fn own_nats() -> (World, TestNats, Arc<TestPostgres>) {
    let nats = TestNats::start(&NatsOptions::default()).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::on(&nats, &postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    (world, nats, postgres)
}

/// A world on the shared servers, with the table of [`EVENTS`].
async fn shared() -> World {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world
}

/// [`EVENTS`] with further settings.
fn events_with(settings: &str) -> String {
    EVENTS.replace("format = \"msgpack\"", &format!("format = \"msgpack\"\n{settings}"))
}

fn resyncs(daemon: &Daemon, cause: &str) -> i64 {
    daemon.metric("jetcopy_resyncs_total", &format!("cause=\"{cause}\""))
}

/// Waits until the pipeline is halted, and checks that it says why and what to do, everywhere.
async fn halted(daemon: &Daemon, reason: &str) {
    daemon.says("http=").await;
    eventually("the pipeline to halt", || async { daemon.status()["state"] == "halted" }).await;
    let status = daemon.status();
    assert!(status["reason"].as_str().unwrap().contains(reason), "{status}");
    assert!(status["remedy"].as_str().unwrap().contains("jetcopy accept-loss"), "{status}");
    let (code, ready) = daemon.get("/readyz");
    assert!(code == 503 && ready.contains("halted") && ready.contains("accept-loss"), "{code} {ready}");
    assert!(daemon.metric("jetcopy_losses_total", "") >= 1);
}

/// First and last sequence and cause of each recorded loss.
async fn losses(world: &World) -> Vec<(i64, Option<i64>, String)> {
    let sql = "SELECT first_sequence, last_sequence, cause FROM jetcopy.losses ORDER BY id";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn accept_loss(config: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.args(["accept-loss", "events", "--yes", "--config"]).arg(config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// That the table holds each id from 1 to `last` once, whatever sequences their messages had.
async fn each_id_once(world: &World, last: u64) {
    let last = i64::try_from(last).unwrap();
    let sql = "SELECT id, count(e.id) FROM generate_series(1, $1::bigint) AS published (id)
               FULL JOIN events e USING (id) GROUP BY id HAVING count(e.id) <> 1 OR id > $1 ORDER BY id \
                   LIMIT 10";
    let rows = world.database.query(sql, &[&last]).await.unwrap();
    let differences: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(
        differences.is_empty(),
        "ids of 1 to {last} that are not there once (id, times): {differences:?}"
    );
}

/// That the daemon's log has few lines: a change of state says so once, however long it lasts.
fn quiet(daemon: &Daemon, lines: usize) {
    let log = daemon.log();
    assert!(log.lines().count() <= lines, "more than {lines} lines");
}
