//! How far a pipeline is behind, and whether it stands still without knowing.
//!
//! Guarantees: a consumer that says it delivered messages which never came, that lost its pull requests with work
//! left, that was changed by somebody else or is gone, ends the generation within two probes. The lag metrics are as
//! old as the last probe at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, Info, PullConsumer};
use async_nats::jetstream::stream::{self, Stream};
use tokio::sync::Notify;

use crate::config;
use crate::metrics::{PipelineMetrics, gauge_value};
use crate::subscribe;

/// How often the consumer and the stream are asked about. Each probe is two small requests; a tail of messages that
/// was lost on an idle stream is noticed after two probes.
const PROBE: Duration = Duration::from_secs(2);

/// How long an answer may take before the connection counts as stuck.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What reader and writer have done, for whoever looks on.
#[derive(Debug, Default)]
pub struct Progress {
    delivered: AtomicU64,
    room: AtomicBool,
    committed_timestamp_ns: AtomicI64,
    first_commit: Notify,
}

impl Progress {
    /// Notes a delivery. Relaxed, as below: each number is only compared with itself a probe later.
    pub fn delivered(&self, consumer_sequence: u64) {
        self.delivered.store(consumer_sequence, Ordering::Relaxed);
    }

    /// Notes whether the reader has room for more: without it, what was delivered waits in the client.
    pub fn room(&self, room: bool) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// Notes a commit of all messages that the stream stored up to then.
    pub fn committed(&self, timestamp_ns: i64) {
        self.committed_timestamp_ns.store(timestamp_ns, Ordering::Relaxed);
        self.first_commit.notify_one();
    }

    /// Resolves after a commit.
    pub async fn first_commit(&self) {
        self.first_commit.notified().await;
    }

    fn standing(&self) -> Standing {
        Standing { received: self.delivered.load(Ordering::Relaxed), room: self.room.load(Ordering::Relaxed) }
    }
}

/// Where the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// Consumer sequence of the last delivery that was taken.
    received: u64,
    /// Whether it has room for more.
    room: bool,
}

/// Why a probe ends the generation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server counts deliveries that never came.
    #[error("the server delivered up to {server} on the durable, only {received} came")]
    Undelivered {
        /// Consumer sequence that the server delivered.
        server: u64,
        /// Consumer sequence that was received.
        received: u64,
    },
    /// The server holds messages and no pull request.
    #[error("the durable has messages to deliver and no pull request waits")]
    NoPull,
    /// Somebody changed the durable.
    #[error("the durable was changed")]
    Changed,
    /// An operator paused the durable in NATS.
    #[error(transparent)]
    Paused(#[from] subscribe::Error),
    /// The durable or the stream cannot be read.
    #[error("cannot read the durable consumer")]
    Consumer(#[source] async_nats::Error),
    /// The stream cannot be read.
    #[error("cannot read the stream")]
    Stream(#[from] stream::InfoError),
    /// No answer.
    #[error("JetStream did not answer within {} s", PROBE_TIMEOUT.as_secs())]
    Timeout,
}

/// Probes until something is wrong.
pub async fn run(
    consumer: PullConsumer,
    stream: Stream,
    pipeline: config::Pipeline,
    progress: Arc<Progress>,
    metrics: PipelineMetrics,
) -> Error {
    let mut before = None;
    let mut idle_ns = 0;
    let mut timer = tokio::time::interval(PROBE);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let probe = async {
            let consumer = consumer.get_info().await.map_err(|error| Error::Consumer(error.into()))?;
            Ok::<_, Error>((consumer, stream.get_info().await?))
        };
        let (consumer, stream) = match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(Ok(infos)) => infos,
            Ok(Err(error)) => return error,
            Err(_) => return Error::Timeout,
        };
        if let Err(paused) = subscribe::refuse_paused(&consumer) {
            return paused.into();
        }
        if !subscribe::matches(&consumer.config, &subscribe::consumer_config(&pipeline, DeliverPolicy::All)) {
            return Error::Changed;
        }
        report(&consumer, &stream, &progress, &metrics, &mut idle_ns);
        let now = Observation::new(&consumer, progress.standing());
        if before == Some(now)
            && let Some(error) = now.trouble()
        {
            return error;
        }
        before = Some(now);
    }
}

/// What a probe saw; trouble is only what two in a row saw alike, since a message may be on its way at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Observation {
    reader: Standing,
    /// Consumer sequence that the server delivered last.
    delivered: u64,
    /// Whether there are messages to deliver, room for them under `max_ack_pending`, and no pull request for them.
    starved: bool,
}

impl Observation {
    fn new(consumer: &Info, reader: Standing) -> Self {
        let unacked = i64::try_from(consumer.num_ack_pending).unwrap_or(i64::MAX);
        Self {
            reader,
            delivered: consumer.delivered.consumer_sequence,
            starved: consumer.num_waiting == 0
                && consumer.num_pending > 0
                && unacked < consumer.config.max_ack_pending,
        }
    }

    /// A reader without room says nothing: what it was sent waits in the client, and the client asks for no more.
    fn trouble(self) -> Option<Error> {
        let (server, received) = (self.delivered, self.reader.received);
        if !self.reader.room {
            None
        } else if server > received {
            Some(Error::Undelivered { server, received })
        } else {
            self.starved.then_some(Error::NoPull)
        }
    }
}

/// Sets the gauges. `idle_ns` is when nothing was left to do last: whatever waits now came later than that.
fn report(
    consumer: &Info,
    stream: &stream::Info,
    progress: &Progress,
    metrics: &PipelineMetrics,
    idle_ns: &mut i64,
) {
    let (first, last) = (stream.state.first_sequence, stream.state.last_sequence);
    metrics.pending_messages.set(gauge_value(consumer.num_pending));
    metrics.ack_pending_messages.set(gauge_value(consumer.num_ack_pending as u64));
    metrics.stream_first_sequence.set(gauge_value(first));
    metrics.stream_last_sequence.set(gauge_value(last));
    let checkpoint = u64::try_from(metrics.checkpoint_sequence.get()).unwrap_or(0);
    metrics.headroom_sequences.set(gauge_value((checkpoint + 1).saturating_sub(first)));

    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
        *idle_ns = now;
    }
    let done = progress.committed_timestamp_ns.load(Ordering::Relaxed).max(*idle_ns);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a lag")]
    let behind = if done == 0 { 0.0 } else { (now - done).max(0) as f64 / 1e9 };
    metrics.behind_seconds.set(behind);
}
