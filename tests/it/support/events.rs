//! A small pipeline under load: what most faults are tried on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, Subject};
use serde_json::json;
use tokio::task::JoinHandle;

use jetcopy::publish::{Outgoing, publish};

use super::{Daemon, World, eventually, oracle};

/// The pipeline `events` into the table of that name; small batches, so that a second holds many
/// transactions.
pub(crate) const EVENTS: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "msgpack"
batch = { max_rows = 200, max_age = "5ms" }

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
"#;

/// The table of [`EVENTS`].
pub(crate) const TABLE: &str =
    "CREATE TABLE events (sequence bigint NOT NULL, id bigint NOT NULL, note text)";

/// Messages that a running load publishes in one go, every [`LOAD_EVERY`]: 4,000 a second, which two cores
/// carry beside servers and tests, and which makes dozens of transactions a second.
const LOAD_MESSAGES: u64 = 80;
const LOAD_EVERY: Duration = Duration::from_millis(20);

/// How long acks may take before the load publishes again: longer than any healthy server's on a loaded
/// machine, and short beside an outage.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// A message that becomes a row of `events`.
pub(crate) fn event(id: u64) -> Vec<u8> {
    rmp_serde::to_vec_named(&json!({"id": id, "note": "a line of text"})).unwrap()
}

/// Publishes events with acks until it is stopped. What is not acked is published again under its id, so that
/// the stream holds each once, whatever happens to the server.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    pub(crate) fn start(world: &World) -> Self {
        Self::at(world, LOAD_MESSAGES, 1)
    }

    /// So many messages every [`LOAD_EVERY`], with ids from `first` on.
    pub(crate) fn at(world: &World, messages: u64, first: u64) -> Self {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(first - 1)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&published));
        let (nats, subject) = (world.nats.clone(), Subject::from(format!("{}.load", world.stream)));
        let task = tokio::spawn(async move {
            let mut every = tokio::time::interval(LOAD_EVERY);
            while !stopped.load(Ordering::Relaxed) {
                every.tick().await;
                let first = count.load(Ordering::Relaxed) + 1;
                while !published_in_time(&nats, &subject, first..first + messages).await {}
                count.fetch_add(messages, Ordering::Relaxed);
            }
        });
        Self { stop, published, task }
    }

    /// Waits until more is published, and says how long that took.
    pub(crate) async fn publishes(&self) -> Duration {
        let (start, before) = (Instant::now(), self.published.load(Ordering::Relaxed));
        eventually("the load to go on", async || self.published.load(Ordering::Relaxed) > before).await;
        start.elapsed()
    }

    /// Ends it after the messages under way; the last id.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.published.load(Ordering::Relaxed)
    }
}

/// Whether all of these were acked within [`ACK_TIMEOUT`].
async fn published_in_time(nats: &async_nats::Client, subject: &Subject, ids: Range<u64>) -> bool {
    let messages = ids.map(|id| {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id.to_string());
        Outgoing { subject: subject.clone(), headers: Some(headers), payload: event(id).into() }
    });
    let publishing = publish(nats, futures_util::stream::iter(messages), 1_000, |_| {});
    match tokio::time::timeout(ACK_TIMEOUT, publishing).await {
        Ok(Ok(_)) => true,
        Ok(Err(_)) => {
            // Nobody stores it at the moment.
            tokio::time::sleep(LOAD_EVERY).await;
            false
        }
        Err(_) => false,
    }
}

impl World {
    /// Waits until more is committed than at the call, and says how long that took.
    pub(crate) async fn commits(&self, daemon: &Daemon) -> Duration {
        let (start, before) = (Instant::now(), self.checkpoint("events").await);
        eventually(&format!("a commit after {before}"), || async {
            assert!(daemon.is_running(), "the daemon has ended");
            self.checkpoint("events").await > before
        })
        .await;
        start.elapsed()
    }

    /// Ends the load and asks the oracle about [`EVENTS`].
    pub(crate) async fn judge(&self, daemon: &Daemon, load: Load) {
        let published = load.stop().await;
        assert!(published > 0);
        oracle(self, daemon, "events", "events", event(published + 1)).await;
    }
}
