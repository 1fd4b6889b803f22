//! How far a pipeline is behind, and whether it is stuck without knowing.
//!
//! Guarantees: a consumer that says it delivered messages which never came, that passed over the stream's
//! last messages, that lost its pull requests with work left, that was changed by somebody else or is gone,
//! ends the generation within two probes ([`standing`]). The lag metrics are as old as the last probe at
//! most, also while no generation runs, as long as NATS answers ([`Outlook`]).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::consumer::{Info, PullConsumer};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use async_nats::jetstream::stream;
use tokio::sync::{Notify, watch};

use crate::batch::Moved;
use crate::chain::chain;
use crate::clock::{self, Clock, monotonic_ns};
use crate::config;
use crate::gaps::{self, Contents};
use crate::linger::Linger;
use crate::liveness::{Liveness, PROBE, PROBE_TIMEOUT};
use crate::metrics::{PipelineMetrics, gauge_value};
use crate::subscribe::{self, Placement};

use forecast::{Forecast, KEEPING_UP, Limits, Observation as Seen};
use standing::{Observation, Rest};

mod behind;
mod forecast;
mod line;
mod outlook;
mod standing;

pub(crate) use behind::oldest;
pub(crate) use line::Line;
pub(crate) use outlook::Outlook;
pub(crate) use outlook::backlog;

/// How long after the first and the second probe of a generation the next one comes. The first may be before
/// anything is delivered, and like no other; the other two are far enough apart to be compared, and early
/// enough to say what is wrong before two missing heartbeats end the generation.
const FIRST: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(1_250)];

/// Nothing is known of what waits.
const UNKNOWN: i64 = i64::MIN;

/// What is known of a pipeline's lag over all its generations.
#[derive(Debug)]
pub(crate) struct Lag {
    /// Whatever is not committed, the stream stored no earlier than this, by the monotonic clock; or
    /// [`UNKNOWN`].
    waits_since_ns: AtomicI64,
    clock: Arc<Clock>,
    /// When a generation probed last.
    probed: Mutex<Option<Instant>>,
    /// A generation has ended.
    ended: Notify,
    forecast: Mutex<Forecast>,
}

impl Lag {
    /// Of a pipeline of which nothing is known yet.
    #[must_use]
    pub(crate) fn new(metrics: &PipelineMetrics) -> Self {
        Self {
            waits_since_ns: AtomicI64::new(UNKNOWN),
            clock: Arc::clone(&metrics.clock),
            probed: Mutex::default(),
            ended: Notify::new(),
            forecast: Mutex::default(),
        }
    }

    /// A generation has ended: nobody probes for it any more.
    pub(crate) fn ended(&self) {
        *self.probed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.ended.notify_one();
    }

    /// Whatever is not committed was stored at `timestamp_ns` at the earliest.
    fn waits_since(&self, timestamp_ns: i64) {
        self.waits_since_ns.fetch_max(self.clock.read().stored_at(timestamp_ns), Ordering::Relaxed);
    }

    /// Nothing waits.
    fn waits_for_nothing(&self) {
        self.waits_since_ns.fetch_max(monotonic_ns(), Ordering::Relaxed);
    }

    /// The first message that is not committed was stored at `timestamp_ns`: somebody has looked.
    fn waits_from(&self, timestamp_ns: i64) {
        self.waits_since_ns.store(self.clock.read().stored_at(timestamp_ns), Ordering::Relaxed);
    }

    /// How old, in seconds, the first message is that is not committed; 0 where there is none, `None` where
    /// nobody knows.
    fn behind(&self) -> Option<f64> {
        let since = self.waits_since_ns.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a lag")]
        (since != UNKNOWN).then(|| (monotonic_ns() - since).max(0) as f64 / 1e9)
    }

    /// Nobody knows any more what waits: what waited still does, where anything did.
    fn lost_sight(&self, metrics: &PipelineMetrics, stale: bool) {
        if stale {
            if metrics.position.backlog() == Some(0) {
                self.waits_since_ns.store(UNKNOWN, Ordering::Relaxed);
            }
            metrics.forget_lag();
        }
        match self.behind() {
            Some(behind) if metrics.position.backlog() != Some(0) => {
                metrics.behind_seconds.set_seconds(behind);
            }
            Some(_) => {}
            None => metrics.behind_seconds.forget(),
        }
    }

    /// Whether no generation has probed for longer than a running one lets pass.
    fn is_unwatched(&self) -> bool {
        let probed = *self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        probed.is_none_or(|last| last.elapsed() > 2 * PROBE)
    }
}

/// What reader and writer have done, for whoever looks on.
#[derive(Debug)]
pub(crate) struct Progress {
    lag: Arc<Lag>,
    /// Consumer sequence of the last delivery that was taken.
    delivered: AtomicU64,
    /// Stream sequence of the last message that was taken; before the first, the checkpoint.
    position: AtomicU64,
    /// Messages committed, counted like deliveries from the generation's beginning.
    committed: AtomicU64,
    /// Messages that came by no delivery; the first of those that are committed.
    fetched: AtomicU64,
    room: AtomicBool,
    /// Whether it is answered what the first message is that waits.
    asks: AtomicBool,
    /// The last stretch of the stream that a probe found to hold nothing of the pipeline's.
    moved: watch::Sender<Option<Moved>>,
    proven: Notify,
    liveness: Arc<Liveness>,
    /// How long a batch waits for more.
    pub linger: Linger,
}

impl Progress {
    /// Of a generation that begins after `checkpoint`: after a failover it may write again what was committed
    /// once.
    #[must_use]
    pub(crate) fn new(lag: Arc<Lag>, liveness: Arc<Liveness>, checkpoint: u64) -> Self {
        lag.waits_since_ns.store(UNKNOWN, Ordering::Relaxed);
        Self {
            lag,
            delivered: AtomicU64::new(0),
            position: AtomicU64::new(checkpoint),
            committed: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            room: AtomicBool::new(false),
            asks: AtomicBool::new(true),
            moved: watch::Sender::new(None),
            proven: Notify::new(),
            liveness,
            linger: Linger::default(),
        }
    }

    /// Notes that the writer came a step further with a batch.
    pub(crate) fn step(&self) {
        self.liveness.beat();
    }

    /// Notes a delivery, which the stream stored at `timestamp_ns`. Relaxed, as below: each number is only
    /// compared with itself a probe later.
    pub(crate) fn delivered(&self, consumer_sequence: u64, timestamp_ns: i64) {
        let before = self.delivered.load(Ordering::Relaxed);
        self.delivered.store(consumer_sequence, Ordering::Relaxed);
        if before == 0 {
            self.lag.waits_since(timestamp_ns);
        }
    }

    /// Notes a message, stored at `timestamp_ns`, that was read by itself before any delivery.
    pub(crate) fn fetched(&self, timestamp_ns: i64) {
        if self.fetched.fetch_add(1, Ordering::Relaxed) == 0 {
            self.lag.waits_since(timestamp_ns);
        }
    }

    /// Notes that the reader has come to the message at `sequence`.
    pub(crate) fn reached(&self, sequence: u64) {
        self.position.store(sequence, Ordering::Relaxed);
    }

    /// Tells of stretches of the stream, right after what was taken, in which nothing is the pipeline's.
    #[must_use]
    pub(crate) fn moves(&self) -> watch::Receiver<Option<Moved>> {
        self.moved.subscribe()
    }

    /// Notes whether the reader has room for more: without it, what was delivered waits in the client.
    pub(crate) fn room(&self, room: bool) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// Notes a commit of `messages`; all that the stream stored up to `timestamp_ns` is, where that is known.
    pub(crate) fn committed(&self, messages: u64, timestamp_ns: Option<i64>) {
        self.committed.fetch_add(messages, Ordering::Relaxed);
        if let Some(timestamp_ns) = timestamp_ns {
            self.lag.waits_since(timestamp_ns);
        }
        self.proven.notify_one();
    }

    /// Notes a delivery that was committed before.
    pub(crate) fn came_again(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves after a commit, or once nothing waits for one.
    pub(crate) async fn proven(&self) {
        self.proven.notified().await;
    }
}

/// Why a probe ends the generation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The server counts deliveries that never came.
    #[error("the server delivered up to {server} on the durable consumer, but only {received} arrived{hint}")]
    Undelivered {
        /// Consumer sequence that the server delivered.
        server: u64,
        /// Consumer sequence that was received.
        received: u64,
        /// What may be the cause, where so few came.
        hint: &'static str,
    },
    /// The durable has delivered all that it knows of, and the stream holds more.
    #[error("the stream holds message {sequence}, but the durable consumer skipped it")]
    Skipped {
        /// Stream sequence of the first such message.
        sequence: u64,
    },
    /// Acks do not count.
    #[error(
        "{unacknowledged} messages are unacknowledged, the maximum of the durable consumer, although all of \
         them are committed"
    )]
    Unacknowledged {
        /// Messages that the server takes for unacknowledged.
        unacknowledged: usize,
        /// What would fix it, where the durable was already recreated.
        remedy: Option<String>,
    },
    /// The stream does not say what it holds.
    #[error(transparent)]
    Contents(#[from] gaps::Error),
    /// The server holds messages and no pull request.
    #[error("the durable consumer has messages to deliver, but no pull request is waiting")]
    NoPull,
    /// Somebody changed the stream, which cannot be replayed any more.
    #[error(transparent)]
    Retention(subscribe::Retention),
    /// Somebody changed the durable.
    #[error("the durable consumer was changed")]
    Changed,
    /// An operator paused the durable in NATS.
    #[error(transparent)]
    Paused(#[from] subscribe::Error),
    /// Somebody deleted the durable, and the probe was sooner than the server's word to the pull request.
    #[error("the durable consumer was deleted")]
    Deleted,
    /// The durable cannot be read.
    #[error("cannot read the durable consumer")]
    Consumer(#[source] ConsumerInfoError),
    /// The stream cannot be read.
    #[error("cannot read the stream")]
    Stream(#[from] clock::Error),
    /// No answer.
    #[error("JetStream timed out after {} s", PROBE_TIMEOUT.as_secs())]
    Timeout,
}

impl Error {
    /// Whether there was no answer in time, from the client's own patience or the probe's.
    fn is_unanswered(&self) -> bool {
        matches!(self, Self::Timeout) || chain(self).contains("timed out")
    }
}

/// Probes until something is wrong.
pub(crate) async fn run(
    client: Client,
    consumer: PullConsumer,
    contents: Contents,
    pipeline: config::Pipeline,
    placement: Placement,
    progress: Arc<Progress>,
    metrics: PipelineMetrics,
) -> Error {
    let wanted = subscribe::allowed_config(&pipeline, &consumer);
    let mut before: Option<(Instant, Observation)> = None;
    let mut timer = tokio::time::interval(PROBE);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = FIRST.into_iter();
    loop {
        timer.tick().await;
        if let Some(next) = first.next() {
            timer.reset_after(next);
        }
        let probe = async {
            // The stream first: of what it held then, a consumer with nothing to deliver has delivered all.
            let stream = clock::stream_info(&client, contents.stream(), &metrics.clock).await?;
            let consumer = consumer.get_info().await.map_err(|error| match error.kind() {
                ConsumerInfoErrorKind::NotFound => Error::Deleted,
                _ => Error::Consumer(error),
            })?;
            let rest = standing::rest(&consumer, &stream, &contents, &progress).await?;
            Ok::<_, Error>((consumer, stream, rest))
        };
        let delivered = progress.delivered.load(Ordering::Relaxed);
        let answer = tokio::time::timeout(PROBE_TIMEOUT, probe).await.unwrap_or(Err(Error::Timeout));
        // An answer comes behind the messages that are on the way: while they arrive, the connection is none
        // that is stuck.
        let arrives = progress.delivered.load(Ordering::Relaxed) > delivered;
        let (consumer, stream, rest) = match answer {
            Ok(seen) => seen,
            Err(error) if arrives && error.is_unanswered() => {
                before = None;
                continue;
            }
            Err(error) => return error,
        };
        if let Err(refused) = subscribe::refuse_other_retention(&stream.config) {
            return Error::Retention(refused);
        }
        if let Err(paused) = subscribe::refuse_paused(&consumer) {
            return paused.into();
        }
        if !subscribe::matches(&consumer.config, &wanted) {
            return Error::Changed;
        }
        let first = waits(contents.client(), &stream, &consumer, &pipeline, &progress, &metrics).await;
        report(&consumer, &stream, first, &progress, &metrics);
        // A pipeline that reads all of a stream is behind by nothing but what was removed.
        if let (Rest::Nothing(moved), false) = (&rest, pipeline.subjects.is_empty()) {
            progress.moved.send_replace(Some(*moved));
        }
        let now = Observation::new(&consumer, &progress, &rest);
        // A message may be on its way for so long.
        let alike = before.filter(|(_, seen)| *seen == now);
        if let Some((since, _)) = alike
            && since.elapsed() >= PROBE / 2
            && let Some(error) = now.trouble()
        {
            return error.after(placement, &consumer);
        }
        before = alike.or(Some((Instant::now(), now)));
        if !pipeline.subjects.is_empty() {
            timer.reset_after(standing::soon(&stream));
        }
    }
}

impl Error {
    /// What it means for a durable that this generation placed so.
    fn after(self, placement: Placement, durable: &Info) -> Self {
        let (Self::Unacknowledged { unacknowledged, .. }, Placement::Recreate) = (&self, placement) else {
            return self;
        };
        let (stream, name) = (&durable.stream_name, &durable.name);
        Self::Unacknowledged {
            unacknowledged: *unacknowledged,
            remedy: Some(format!(
                "allow jetcopy's user to publish to $JS.ACK.{stream}.{name}.>, and make sure that no other \
                 client acknowledges messages of durable consumer {name}"
            )),
        }
    }
}

/// The sequence of the first message that waits, and how old it is, where that need be asked: before anything
/// has come of a generation, and while a pipeline is behind. What was committed last may be far older than
/// what waits now.
async fn waits(
    client: &Client,
    stream: &stream::Info,
    consumer: &Info,
    pipeline: &config::Pipeline,
    progress: &Progress,
    metrics: &PipelineMetrics,
) -> Option<u64> {
    let behind = progress.lag.behind();
    let late = behind.is_some_and(|behind| behind >= KEEPING_UP);
    let untold = behind.is_none() && consumer.num_pending > 0;
    if !(late || untold) || !progress.asks.load(Ordering::Relaxed) {
        return None;
    }
    let after = metrics.position.reads_after().unwrap_or(0);
    let Ok(Ok(first)) = tokio::time::timeout(PROBE, oldest(client, stream, pipeline, after)).await else {
        // Where single messages may not be read, no answer comes.
        progress.asks.store(untold, Ordering::Relaxed);
        return None;
    };
    let first = first?;
    progress.lag.waits_since(first.timestamp_ns);
    Some(first.sequence)
}

/// Sets the gauges of a running generation. `first` is the first message that waits, where that is known.
fn report(
    consumer: &Info,
    stream: &stream::Info,
    first: Option<u64>,
    progress: &Progress,
    metrics: &PipelineMetrics,
) {
    let fetched = progress.fetched.load(Ordering::Relaxed);
    let committed = progress.committed.load(Ordering::Relaxed);
    let received = progress.delivered.load(Ordering::Relaxed);
    let delivered = consumer.delivered.consumer_sequence;
    let in_flight = delivered.saturating_sub(received);
    let uncommitted = (received + fetched).saturating_sub(committed);
    // What has come since the server counted is not there any more.
    let pending = consumer.num_pending.saturating_sub(received.saturating_sub(delivered));
    metrics.pending_messages.set(gauge_value(pending));
    metrics.ack_pending_messages.set(gauge_value(consumer.num_ack_pending as u64));
    metrics.in_flight_messages.set(gauge_value(in_flight));
    metrics.uncommitted_messages.set(gauge_value(uncommitted));
    metrics.motion.waiting(pending + in_flight);
    if in_flight + uncommitted == 0 {
        // All that came is committed. That more comes is the server's part; `Observation` sees where it is
        // ours.
        progress.liveness.beat();
    }
    let backlog = pending + in_flight + uncommitted;
    if backlog == 0 {
        progress.proven.notify_one();
    }
    *progress.lag.probed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    let stands = Stands { backlog: Some(backlog), read: metrics.position.committed(), first };
    position(stream, &stands, &progress.lag, metrics);
}

/// Where a pipeline stands. What is not known is `None`.
struct Stands {
    /// Messages that are not committed.
    backlog: Option<u64>,
    /// All of those come after this sequence.
    read: Option<u64>,
    /// The first of them; else it is taken for the one after `read`.
    first: Option<u64>,
}

/// Sets the gauges that hold whether a generation runs or not.
fn position(stream: &stream::Info, stands: &Stands, lag: &Lag, metrics: &PipelineMetrics) {
    let Stands { backlog, read, first } = *stands;
    let state = &stream.state;
    metrics.stream_holds(state.first_sequence, state.last_sequence);
    let waits = match backlog {
        // Whatever it holds, it may drop.
        Some(0) => Some(state.last_sequence + 1).filter(|_| state.messages > 0),
        _ => first.or_else(|| read.map(|read| read + 1)),
    };
    let headroom = waits.map(|waits| waits.saturating_sub(state.first_sequence));
    metrics.headroom_sequences.know(headroom);

    if backlog == Some(0) {
        lag.waits_for_nothing();
    }
    let behind = lag.behind();
    metrics.behind_seconds.know_seconds(behind);
    metrics.waits(backlog);
    let (Some(backlog), Some(behind), Some(read)) = (backlog, behind, read) else {
        metrics.catch_up_seconds.forget();
        return;
    };
    let held = waits.map_or(0, |waits| (state.last_sequence + 1).saturating_sub(waits)).min(state.messages);
    let mut forecast = lag.forecast.lock().unwrap_or_else(PoisonError::into_inner);
    let last = state.last_sequence;
    forecast.add(Seen { at: Instant::now(), backlog, checkpoint: read, last, held, behind });
    metrics.catch_up_seconds.know_seconds(forecast.catch_up_seconds());
    metrics.headroom_seconds.set_seconds(forecast.headroom_seconds(&Limits::of(stream)));
}
