//! A small pipeline under load: what most faults are tried on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use jetcopy::publish::{Outgoing, publish};

use super::{Daemon, World, eventually, oracle};

/// The pipeline `events` into the table of that name; small batches, so that a second holds many transactions.
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

/// Messages that a running load publishes in one go, every [`LOAD_EVERY`]: 4,000 a second, which two cores carry beside
/// servers and tests, and which makes dozens of transactions a second.
const LOAD_MESSAGES: u64 = 80;
const LOAD_EVERY: Duration = Duration::from_millis(20);

/// A message that becomes a row of `events`.
pub(crate) fn event(id: u64) -> Vec<u8> {
    rmp_serde::to_vec_named(&json!({"id": id, "note": "a line of text"})).unwrap()
}

/// Publishes events with acks until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    pub(crate) fn start(world: &World) -> Self {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&published));
        let (nats, subject) =
            (world.nats.clone(), async_nats::Subject::from(format!("{}.load", world.stream)));
        let task = tokio::spawn(async move {
            let mut every = tokio::time::interval(LOAD_EVERY);
            while !stopped.load(Ordering::Relaxed) {
                every.tick().await;
                let first = count.load(Ordering::Relaxed) + 1;
                let messages = (first..first + LOAD_MESSAGES).map(|id| Outgoing {
                    subject: subject.clone(),
                    headers: None,
                    payload: event(id).into(),
                });
                publish(&nats, futures_util::stream::iter(messages), 1_000, |_| {}).await.unwrap();
                count.fetch_add(LOAD_MESSAGES, Ordering::Relaxed);
            }
        });
        Self { stop, published, task }
    }

    /// Ends it after the messages under way.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.published.load(Ordering::Relaxed)
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
