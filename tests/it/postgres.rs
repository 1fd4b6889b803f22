//! PostgreSQL or the way to it fails, and nothing is lost or doubled.
//!
//! Each test has load running through the fault and ends at the oracle.

use jetcopy::testbed::{PostgresOptions, TestPostgres};

use crate::support::{Daemon, TABLE, World, eventually};

mod behind;
mod chunks;
mod connection;
mod exceptions;
mod foreign;
mod hypertable;
mod left_out;
mod outage;
mod resources;
mod restart;
mod rewrites;
mod rules;
mod schema;
mod shape;
mod time;
mod unlogged;

/// The request that ends a batch's transaction, as the driver sends it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// A PostgreSQL of the test's own, which it may stop and change, and a world on it.
pub(crate) async fn own_server(settings: &[(&str, &str)]) -> (TestPostgres, World) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = PostgresOptions { settings, ..PostgresOptions::plain() };
    let postgres = TestPostgres::start(&options).unwrap();
    let world = World::with_postgres(&postgres).await;
    world.database.batch_execute(TABLE).await.unwrap();
    (postgres, world)
}

/// Restarts from the checkpoint that the database caused.
pub(crate) fn database_resyncs(daemon: &Daemon) -> i64 {
    daemon.metric("jetcopy_resyncs_total", "cause=\"database\"")
}

/// Waits until the daemon's only pipeline is in `state` for a reason that holds `reason`, and returns its
/// status.
pub(crate) async fn in_state(daemon: &Daemon, state: &str, reason: &str) -> serde_json::Value {
    daemon.says("http=").await;
    let mut found = serde_json::Value::Null;
    eventually(&format!("state {state}: {reason}"), || {
        found = daemon.status();
        let is =
            found["state"] == state && found["reason"].as_str().is_some_and(|text| text.contains(reason));
        async move { is }
    })
    .await;
    let (code, ready) = daemon.get("/readyz");
    assert_eq!(code, 503, "{ready}");
    found
}

/// Waits until the pipeline has run for so long that its next failure is one of its own, and not one in a
/// row.
async fn settled(daemon: &Daemon) {
    daemon.says("http=").await;
    eventually("a pipeline that runs well", || async {
        let status = daemon.status();
        // The page is served before the pipelines are there.
        let since = status["since"].as_str().map(|since| since.parse::<jiff::Timestamp>().unwrap());
        let seconds = since.map(|since| jiff::Timestamp::now().duration_since(since).as_secs_f64());
        status["state"] == "running" && seconds > Some(1.0)
    })
    .await;
}
