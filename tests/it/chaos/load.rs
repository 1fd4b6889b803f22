//! Messages that are published while everything breaks, and what is known of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream;
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;

/// 2,000 messages a second: enough that each moment holds some, little enough that the oracle, which looks at
/// all of them after each round, does not take longer than the faults.
const MESSAGES: i64 = 40;
const EVERY: Duration = Duration::from_millis(20);

/// Every so many messages one is cut short.
pub(super) const POISON_EVERY: i64 = 97;

/// What a row says.
pub(super) const NOTE: &str = "a line of text";

/// A message that becomes a row, or now and then one that becomes a dead letter.
pub(super) fn message(id: i64) -> Vec<u8> {
    let mut payload = rmp_serde::to_vec_named(&json!({"id": id, "note": NOTE, "extra": "more"})).unwrap();
    if id % POISON_EVERY == 0 {
        payload.pop();
    }
    payload
}

/// The subject of a message: a durable that somebody gives a filter to delivers every other one.
fn subject(stream: &str, id: i64) -> Subject {
    Subject::from(format!("{stream}.load.{}", if id % 2 == 0 { "even" } else { "odd" }))
}

/// What a load published.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Sequence and id of each message that the stream acknowledged.
    pub(super) acked: Vec<(i64, i64)>,
    /// Messages without an ack: they are in the stream or they are not.
    pub(super) unknown: usize,
}

/// A running load.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Carried>,
}

impl Load {
    /// Publishes messages with ids from `next` on.
    pub(super) fn start(jetstream: jetstream::Context, stream: String, next: Arc<AtomicI64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut carried = Carried::default();
            let mut every = tokio::time::interval(EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.load(Ordering::Relaxed) {
                every.tick().await;
                let mut acks = Vec::new();
                for _ in 0..MESSAGES {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    match jetstream.publish(subject(&stream, id), message(id).into()).await {
                        Ok(ack) => acks.push(async move { (ack.await, id) }),
                        Err(_) => carried.unknown += 1,
                    }
                }
                // Together: each waits for seconds while the server is away.
                for (ack, id) in join_all(acks).await {
                    match ack {
                        Ok(ack) => carried.acked.push((i64::try_from(ack.sequence).unwrap(), id)),
                        Err(_) => carried.unknown += 1,
                    }
                }
            }
            carried
        });
        Self { stop, task }
    }

    /// Ends it after the messages under way.
    pub(super) async fn stop(self) -> Carried {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
