//! How far a pipeline is behind, and whether it stands still without knowing.
//!
//! Guarantees: a consumer that says it delivered messages which never came, that lost its pull requests with work
//! left, that was changed by somebody else or is gone, ends the generation within two probes. The lag metrics are as
//! old as the last probe at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, Info, PullConsumer};
use async_nats::jetstream::stream::{self, Stream};

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
    committed_timestamp_ns: AtomicI64,
}

impl Progress {
    /// Notes a delivery. Relaxed, as below: each number is only compared with itself a probe later.
    pub fn delivered(&self, consumer_sequence: u64) {
        self.delivered.store(consumer_sequence, Ordering::Relaxed);
    }

    /// Notes a commit of all messages that the stream stored up to then.
    pub fn committed(&self, timestamp_ns: i64) {
        self.committed_timestamp_ns.store(timestamp_ns, Ordering::Relaxed);
    }

    fn consumer_sequence(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
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
    let mut suspect = Suspect::default();
    let mut idle_ns = 0;
    let mut timer = tokio::time::interval(PROBE);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let received = progress.consumer_sequence();
        let probe = async {
            let consumer = consumer.get_info().await.map_err(|error| Error::Consumer(error.into()))?;
            Ok::<_, Error>((consumer, stream.get_info().await?))
        };
        let (consumer, stream) = match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(Ok(infos)) => infos,
            Ok(Err(error)) => return error,
            Err(_) => return Error::Timeout,
        };
        if !subscribe::matches(&consumer.config, &subscribe::consumer_config(&pipeline, DeliverPolicy::All)) {
            return Error::Changed;
        }
        report(&consumer, &stream, &progress, &metrics, &mut idle_ns);
        if let Some(error) = suspect.judge(&consumer, received, progress.consumer_sequence()) {
            return error;
        }
    }
}

/// What looked wrong at the last probe; it is wrong when it still does at the next.
#[derive(Debug, Default)]
struct Suspect {
    /// Received when the server had already delivered more.
    behind_at: Option<u64>,
    no_pull: bool,
}

impl Suspect {
    /// `before` and `after`: what was received when the probe was asked and when it was answered.
    fn judge(&mut self, consumer: &Info, before: u64, after: u64) -> Option<Error> {
        let server = consumer.delivered.consumer_sequence;
        let still_behind = server > after && before == after;
        if still_behind && self.behind_at == Some(after) {
            return Some(Error::Undelivered { server, received: after });
        }
        self.behind_at = still_behind.then_some(after);

        // With room for more, messages to deliver and nothing coming, somebody ate the pull request.
        let room =
            i64::try_from(consumer.num_ack_pending).unwrap_or(i64::MAX) < consumer.config.max_ack_pending;
        let no_pull = consumer.num_waiting == 0 && consumer.num_pending > 0 && room && before == after;
        if no_pull && self.no_pull {
            return Some(Error::NoPull);
        }
        self.no_pull = no_pull;
        None
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
