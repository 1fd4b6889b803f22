//! The lag of a pipeline of which no generation runs.
//!
//! Guarantees: while the database is away or a person is needed, the lag metrics go on telling what the stream holds, as
//! long as NATS answers: that is when it matters how long the stream keeps what was not read. It only reads, over a
//! connection of its own that lasts no longer than it is needed, and no failure of it is anything but silence.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::stream::Stream;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{Lag, PROBE_TIMEOUT, position};
use crate::config::{self, Config};
use crate::metrics::{PipelineMetrics, gauge_value};
use crate::nats;
use crate::pipeline::Pipeline;

/// How often it is looked whether a generation probes, and probed where none does. Slower than a generation's own
/// probes: a pipeline that stands still for hours is not worth more.
const LOOK: Duration = Duration::from_secs(4);

/// How long an answer may take before the next look asks anew.
const ANSWER: Duration = Duration::from_secs(2);

/// What is needed to look on.
#[derive(Debug)]
pub struct Outlook {
    settings: Arc<Config>,
    pipeline: config::Pipeline,
    /// How its connection is called.
    name: String,
    lag: Arc<Lag>,
    metrics: PipelineMetrics,
}

impl Outlook {
    /// Of that pipeline.
    #[must_use]
    pub fn new(pipeline: &Pipeline) -> Self {
        Self {
            settings: Arc::clone(&pipeline.settings),
            pipeline: pipeline.pipeline.clone(),
            name: pipeline.owner.clone(),
            lag: Arc::clone(&pipeline.lag),
            metrics: pipeline.metrics.clone(),
        }
    }

    /// Looks on for as long as the pipeline is there.
    pub async fn look_on(self) -> Infallible {
        let Self { settings, pipeline, name, lag, metrics } = &self;
        let mut connection: Option<nats::Connection> = None;
        let mut timer = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            if !lag.is_unwatched() {
                connection = None;
                continue;
            }
            let looked = timeout(PROBE_TIMEOUT, async {
                let connected = match connection.take() {
                    Some(connected) => connected,
                    None => nats::Connection::open(&settings.nats, name).await.ok()?,
                };
                let context = ContextBuilder::new().timeout(ANSWER).build(connected.client.clone());
                look(&context, pipeline, lag, metrics).await?;
                Some(connected)
            });
            // One that did not answer is left: it may never, and a new one says soon whether anybody does.
            connection = looked.await.ok().flatten();
            tracing::debug!(pipeline = pipeline.name, answered = connection.is_some(), "looked on");
        }
    }
}

async fn look(
    context: &Context,
    pipeline: &config::Pipeline,
    lag: &Lag,
    metrics: &PipelineMetrics,
) -> Option<()> {
    let stream = context.get_stream(&pipeline.stream).await.ok()?;
    let checkpoint = u64::try_from(metrics.checkpoint_sequence.get()).unwrap_or(0);
    let (pending, unacknowledged, read) = match stream.consumer_info(&pipeline.durable_name()).await {
        Ok(info) => (info.num_pending, info.num_ack_pending as u64, info.ack_floor.stream_sequence),
        Err(_) => (stream.cached_info().state.last_sequence.saturating_sub(checkpoint), 0, 0),
    };
    let (backlog, read) = (pending + unacknowledged, read.max(checkpoint));
    // Asked each time: another daemon may be at work on it.
    if backlog > 0
        && let Some(oldest) = oldest(&stream, read + 1).await
    {
        lag.waits_since(oldest);
    }
    // A generation may have begun meanwhile: its own numbers are better.
    if lag.is_unwatched() {
        metrics.pending_messages.set(gauge_value(pending));
        metrics.ack_pending_messages.set(gauge_value(unacknowledged));
        // What was delivered and not committed will be delivered again: nothing is on its way.
        metrics.in_flight_messages.set(0);
        metrics.uncommitted_messages.set(0);
        position(stream.cached_info(), backlog, read, lag, metrics);
    }
    Some(())
}

/// When the stream stored its first message from `sequence` on, in nanoseconds since the Unix epoch.
async fn oldest(stream: &Stream, sequence: u64) -> Option<i64> {
    let from = sequence.max(stream.cached_info().state.first_sequence);
    let message = stream.raw_message_builder().sequence(from).next_by_subject(">").send().await.ok()?;
    i64::try_from(message.time.unix_timestamp_nanos()).ok()
}
