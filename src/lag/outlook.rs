//! The lag of a pipeline of which no generation runs.
//!
//! Guarantees: while the database is away or a person is needed, the lag metrics go on telling what the
//! stream holds, as long as NATS answers: that is when it matters how long the stream keeps what was not
//! read. It only reads, over the daemon's [`Line`], and no failure of it is anything but silence.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer;
use async_nats::jetstream::context::{ConsumerInfoErrorKind, Context, ContextBuilder};
use async_nats::jetstream::stream;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{Lag, Line, Stands, oldest, position};
use crate::clock;
use crate::config;
use crate::liveness::PROBE_TIMEOUT;
use crate::metrics::PipelineMetrics;
use crate::nats::Connection;
use crate::shard::Shard;
use crate::status::{PipelineStatus, State};

/// How often it is looked whether a generation probes, and probed where none does; and once as soon as one
/// has ended. Slower than a generation's own probes: a pipeline that is stuck for hours is not worth
/// more.
const LOOK: Duration = Duration::from_secs(4);

/// How long an answer may take before the next look asks again.
const ANSWER: Duration = Duration::from_secs(2);

/// What NATS said longer ago says nothing of now: three looks.
const STALE: Duration = Duration::from_secs(12);

/// What is needed to look on.
#[derive(Debug)]
pub(crate) struct Outlook {
    /// How NATS is asked.
    pub line: Arc<Line>,
    /// Settings of the pipeline.
    pub pipeline: config::Pipeline,
    /// The shard of it that is looked at.
    pub shard: Shard,
    /// Whether another daemon holds its lease.
    pub status: Arc<PipelineStatus>,
    /// What is known of its lag.
    pub lag: Arc<Lag>,
    /// Where the lag is shown.
    pub metrics: PipelineMetrics,
}

impl Outlook {
    /// Looks on for as long as the pipeline is there.
    pub(crate) async fn look_on(self) -> Infallible {
        let Self { pipeline, lag, metrics, .. } = &self;
        let (mut connection, mut answered): (Option<Arc<Connection>>, _) = (None, Instant::now());
        let mut timer = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = lag.ended.notified() => timer.reset(),
            }
            if !lag.is_unwatched() {
                (connection, answered) = (None, Instant::now());
                continue;
            }
            let asked = match connection.take() {
                Some(connection) => Some(connection),
                None => self.open().await,
            };
            // One that did not answer is left: it may never, and a new one says soon whether anybody does.
            connection = match asked {
                Some(connection) => self.ask(connection).await,
                None => None,
            };
            match &connection {
                Some(_) => answered = Instant::now(),
                None if lag.is_unwatched() => lag.lost_sight(metrics, answered.elapsed() > STALE),
                None => {}
            }
            tracing::debug!(pipeline = pipeline.name, answered = connection.is_some(), "looked on");
        }
    }

    /// The daemon's connection, where there is one in time.
    async fn open(&self) -> Option<Arc<Connection>> {
        let opened = timeout(PROBE_TIMEOUT, self.line.connection()).await;
        self.metrics.nats_up.set(matches!(opened, Ok(Ok(_))).into());
        opened.ok()?.ok()
    }

    /// Looks over a connection, which is kept where it has answered.
    async fn ask(&self, connection: Arc<Connection>) -> Option<Arc<Connection>> {
        let Self { line, pipeline, shard, status, lag, metrics } = self;
        let context = ContextBuilder::new().timeout(ANSWER).build(connection.client.clone());
        let looked = look(&connection.client, &context, pipeline, shard, status, lag, metrics);
        if let Ok(Some(())) = timeout(PROBE_TIMEOUT, looked).await {
            return Some(connection);
        }
        line.leave(&connection).await;
        None
    }
}

async fn look(
    client: &Client,
    context: &Context,
    pipeline: &config::Pipeline,
    shard: &Shard,
    status: &PipelineStatus,
    lag: &Lag,
    metrics: &PipelineMetrics,
) -> Option<()> {
    let info = clock::stream_info(client, &shard.stream, &metrics.clock).await.ok()?;
    let stream = context.get_stream_no_info(&shard.stream).await.ok()?;
    let durable = match stream.consumer_info(&shard.durable).await {
        Ok(info) => Some(info),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
        Err(_) => return None,
    };
    // While another daemon writes, its durable knows better than a checkpoint that was read a second ago.
    let elsewhere = matches!(status.state(), State::Waiting { .. });
    let floor = durable.as_ref().map(|durable| durable.ack_floor.stream_sequence);
    let read = match (metrics.position.reads_after(), floor) {
        (Some(after), Some(floor)) if elsewhere => Some(after.max(floor)),
        (Some(after), _) => Some(after),
        // The database was not met yet. What was acknowledged was committed.
        (None, floor) => floor,
    };
    let oldest = match read {
        Some(read) => oldest(client, &info, pipeline, read).await.ok(),
        None => None,
    };
    let backlog = match (oldest, read, &durable) {
        (Some(None), ..) => Some(0),
        (_, Some(read), durable) => backlog(&info.state, pipeline, read, durable.as_ref()),
        (_, None, _) => None,
    };
    // A generation may have begun meanwhile: its own numbers are better.
    if lag.is_unwatched() {
        let oldest = oldest.flatten();
        if let Some(oldest) = oldest {
            lag.waits_from(oldest.timestamp_ns);
        }
        metrics.pending_messages.know(durable.as_ref().map(|durable| durable.num_pending));
        metrics.ack_pending_messages.know(durable.as_ref().map(|durable| durable.num_ack_pending as u64));
        // What was delivered and not committed will be delivered again: nothing is on its way.
        metrics.in_flight_messages.set(0);
        metrics.uncommitted_messages.set(0);
        let first = oldest.map(|oldest| oldest.sequence);
        position(&info, &Stands { backlog, read, first }, lag, metrics);
    }
    Some(())
}

/// Messages after `read` that the pipeline is still to write, where that can be told.
pub(crate) fn backlog(
    state: &stream::State,
    pipeline: &config::Pipeline,
    read: u64,
    durable: Option<&consumer::Info>,
) -> Option<u64> {
    let (first, last) = (state.first_sequence, state.last_sequence);
    // Nothing is removed in between: each sequence is a message.
    let whole = state.messages == (last + 1).saturating_sub(first);
    if pipeline.subjects.is_empty() && whole {
        return Some(last.saturating_sub(read.max(first.saturating_sub(1))));
    }
    match durable {
        Some(durable) if durable.ack_floor.stream_sequence <= read => {
            Some(durable.num_pending + durable.num_ack_pending as u64)
        }
        // The durable stands elsewhere: it was recreated, or the checkpoint went back.
        _ if pipeline.subjects.is_empty() => Some(state.messages.min(last.saturating_sub(read))),
        _ => None,
    }
}
