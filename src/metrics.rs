//! Every metric: its name, its help text and its labels, and the handles that the stages count with.
//!
//! Guarantees: a handle is resolved once, so that counting an event is one atomic addition; asking twice for
//! the same pipeline and shard gives the same handles, so that a new generation goes on counting where the
//! last one ended; no label carries an error's text. It does not measure anything by itself: a gauge holds
//! what a stage last put there.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::Clock;
use crate::logging::Dropped;
use crate::marker::Marker;
use crate::shard::Shard;
use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

mod api;
mod buffered;
mod known;
mod labelled;
mod maintain;
mod motion;
pub mod names;
mod position;
mod recorded;
mod stage;
mod tables;
mod writing;

pub use api::ApiMetrics;
pub use buffered::Buffered;
pub use known::Known;
use labelled::{Collectors, Labelled, Told};
pub use maintain::MaintainMetrics;
pub use motion::{HELD_UP, HeldUp, Motion, Writing};
pub use position::{Position, Resumes};
pub use recorded::Newest;
pub use stage::{Stage, StageClock, StageSeconds, Timing};
pub use writing::{Step, WriteSeconds};

pub use tables::{Table, Tables};
use writing::WriteClock;

/// Buckets of `jetcopy_batch_rows`: powers of four, with the default `max_rows` as a bound of its own.
const ROWS_BUCKETS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 20_000.0, 65_536.0, 262_144.0];

/// Buckets of `jetcopy_commit_seconds`: a small batch commits within 2 ms, a step is given up after a minute.
/// Queries of the API take as long.
const COMMIT_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Buckets of `jetcopy_publish_to_commit_seconds`: 1 ms to 10 min, dense around the goals of 50 and 100 ms.
const LATENCY_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0,
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// All metrics of one daemon; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    maintain: MaintainMetrics,
    api: ApiMetrics,
    log_lines_dropped: IntCounter,
    left_behind: IntGauge,
    log: OnceLock<Dropped>,
    /// Handles by shard, with all that they are registered as.
    pipelines: Mutex<BTreeMap<String, (PipelineMetrics, Collectors)>>,
}

impl Metrics {
    /// An empty registry with `jetcopy_build_info` and the process's start time.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = Labelled::new(&registry, &[]);
        build
            .gauges(names::BUILD_INFO, names::VERSION)
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        build.float_gauge(names::PROCESS_START).set(since_epoch.as_secs_f64());
        let maintain = MaintainMetrics::new(&registry);
        let api = ApiMetrics::new(&registry);
        let log_lines_dropped = build.counter(names::LOG_LINES_DROPPED);
        let left_behind = build.gauge(names::LEFT_BEHIND);
        let (log, pipelines) = (OnceLock::new(), Mutex::default());
        let inner = Inner { registry, maintain, api, log_lines_dropped, left_behind, log, pipelines };
        Self { inner: Arc::new(inner) }
    }

    /// Tells from now on how many lines of the log nobody took; a process has one log.
    pub fn tell_dropped_lines(&self, dropped: Dropped) {
        self.inner.log.get_or_init(|| dropped);
    }

    /// Notes how many messages nobody reads any more.
    pub fn left_behind(&self, messages: u64) {
        self.inner.left_behind.set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// The handles of the store's maintenance.
    #[must_use]
    pub fn maintain(&self) -> MaintainMetrics {
        self.inner.maintain.clone()
    }

    /// The handles of the API.
    #[must_use]
    pub fn api(&self) -> ApiMetrics {
        self.inner.api.clone()
    }

    /// The handles of one shard of a pipeline; `tables` are its tables in the order of the configuration.
    /// Asked again with other tables, it goes on with those.
    #[must_use]
    pub fn pipeline(&self, shard: &Shard, tables: &[&str]) -> PipelineMetrics {
        let mut pipelines = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let (handles, _) = pipelines
            .entry(shard.name.clone())
            .or_insert_with(|| PipelineMetrics::new(&self.inner.registry, shard, tables));
        handles.tables.are(tables);
        handles.clone()
    }

    /// Shows one shard of a pipeline no longer; handles that are still out count unseen.
    pub fn remove(&self, shard: &Shard) {
        let mut pipelines = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, collectors)) = pipelines.remove(&shard.name) else { return };
        for collector in collectors.0 {
            self.inner
                .registry
                .unregister(collector)
                .expect("what is kept here was registered, and is unregistered once");
        }
    }

    /// All metrics in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        let pipelines = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.values().for_each(|(pipeline, _)| pipeline.settle());
        if let Some(dropped) = self.inner.log.get() {
            let told = self.inner.log_lines_dropped.get();
            self.inner.log_lines_dropped.inc_by(dropped.lines().saturating_sub(told));
        }
        drop(pipelines);
        let mut families = self.inner.registry.gather();
        for family in &mut families {
            // A gauge of what is not known is no number.
            family.mut_metric().retain(|metric| !metric.get_gauge().get_value().is_nan());
        }
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("the families in a registry always have a name and a type")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A count or position as a gauge holds it.
#[must_use]
pub fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The handles of one shard of a pipeline; clones share them. What each counts stands in [`names`].
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the family of its name in `names`, documented there")]
pub struct PipelineMetrics {
    pub messages: IntCounter,
    pub tables: Tables,
    pub untaken_fields: IntCounter,
    pub bytes: IntCounter,
    pub batches: BatchesClosed,
    pub commits: Commits,
    pub batch_rows: Histogram,
    pub commit_seconds: Histogram,
    /// For a whole batch: `local()` once a batch, `observe` each message, `flush`; one lock-free pass, no
    /// atomics per message.
    pub publish_to_commit_seconds: Histogram,
    pub stages: StageClock,
    /// Whether it moves.
    pub motion: Motion,
    held_up: HeldUpSeconds,
    pub pending_messages: Known,
    pub in_flight_messages: Known,
    pub uncommitted_messages: Known,
    pub ack_pending_messages: Known,
    pub stream_first_sequence: Known,
    pub stream_last_sequence: Known,
    pub checkpoint_sequence: Known,
    pub verified_through_sequence: Known,
    pub behind_seconds: Known,
    pub headroom_sequences: Known,
    pub headroom_seconds: Known,
    pub catch_up_seconds: Known,
    pub duplicates_skipped: IntCounter,
    pub replayed_messages: IntCounter,
    pub losses: IntCounter,
    pub lost_messages: IntCounter,
    pub superseded_messages: IntCounter,
    /// When the newest of what is counted in the database was.
    pub newest: Newest,
    pub outages: IntCounter,
    pub ack_failures: IntCounter,
    pub database_up: Known,
    pub nats_up: Known,
    pub buffered: Buffered,
    /// What ages are measured by.
    pub clock: Arc<Clock>,
    /// Where it stands: what decides reads this.
    pub position: Position,
    /// Dead letters that lie in the table, whoever put them there.
    pub dead_letters_in_table: Known,
    resyncs: IntCounterVec,
    dead_letters: IntCounterVec,
    /// Those that this process stored; no metric of its own.
    dead_letters_here: Arc<AtomicU64>,
    told: Told,
    passed_over: IntCounterVec,
    state: IntGaugeVec,
}

/// Seconds by the stage that holds a pipeline up.
#[derive(Debug, Clone)]
struct HeldUpSeconds {
    nats: Gauge,
    decode: Gauge,
    database: Gauge,
}

impl HeldUpSeconds {
    fn new(labelled: &Labelled<'_>) -> Self {
        let seconds = labelled.float_gauges(names::HELD_UP_SECONDS, names::STAGE);
        let of = |stage| seconds.with_label_values(&[stage]);
        Self { nats: of("nats"), decode: of("decode"), database: of("database") }
    }
}

/// Batches by the limit that closed them.
#[derive(Debug, Clone)]
pub struct BatchesClosed {
    /// `max_rows` was reached.
    pub rows: IntCounter,
    /// `max_bytes` was reached.
    pub bytes: IntCounter,
    /// `max_age` was reached.
    pub age: IntCounter,
    /// The daemon stops.
    pub shutdown: IntCounter,
    /// The next message is another writer's.
    pub block: IntCounter,
}

impl BatchesClosed {
    fn new(labelled: &Labelled<'_>) -> Self {
        let batches = labelled.counters(names::BATCHES, names::REASON);
        let by = |reason| batches.with_label_values(&[reason]);
        let (rows, bytes, age) = (by("rows"), by("bytes"), by("age"));
        Self { rows, bytes, age, block: by("block"), shutdown: by("shutdown") }
    }
}

/// Transactions by how they ended.
#[derive(Debug, Clone)]
pub struct Commits {
    /// All rows are in.
    pub committed: IntCounter,
    /// The good rows are in, the others are dead letters.
    pub poison: IntCounter,
    /// Nothing is in; the batch is replayed.
    pub failed: IntCounter,
    /// The connection ended during COMMIT; resync settles it.
    pub in_doubt: IntCounter,
    /// Another writer owns the shard.
    pub lost_epoch: IntCounter,
}

impl Commits {
    fn new(labelled: &Labelled<'_>) -> Self {
        let transactions = labelled.counters(names::COMMITS, names::OUTCOME);
        let that = |outcome| transactions.with_label_values(&[outcome]);
        Self {
            committed: that("committed"),
            poison: that("poison"),
            failed: that("failed"),
            in_doubt: that("in_doubt"),
            lost_epoch: that("lost_epoch"),
        }
    }
}

impl PipelineMetrics {
    fn new(registry: &Registry, shard: &Shard, tables: &[&str]) -> (Self, Collectors) {
        let Shard { pipeline, name, stream, durable: _ } = shard;
        let labels = [
            (names::PIPELINE, pipeline.as_str()),
            (names::SHARD, name.as_str()),
            (names::STREAM, stream.as_str()),
        ];
        let labelled = Labelled::new(registry, &labels);
        let told = Told::default();
        let stages = labelled.float_counters(names::STAGE_SECONDS, names::STAGE);
        let stages = StageClock::new(|stage| stages.with_label_values(&[stage]));
        let writes = labelled.float_counters(names::WRITE_SECONDS, names::STEP);
        let writes = WriteClock::new(|step| writes.with_label_values(&[step]));
        let handles = Self {
            messages: labelled.counter(names::MESSAGES),
            tables: Tables::new(&labelled, tables),
            untaken_fields: labelled.counter(names::UNTAKEN_FIELDS),
            bytes: labelled.counter(names::BYTES),
            batches: BatchesClosed::new(&labelled),
            commits: Commits::new(&labelled),
            batch_rows: labelled.histogram(names::BATCH_ROWS, ROWS_BUCKETS),
            commit_seconds: labelled.histogram(names::COMMIT_SECONDS, COMMIT_BUCKETS),
            publish_to_commit_seconds: labelled.histogram(names::PUBLISH_TO_COMMIT_SECONDS, LATENCY_BUCKETS),
            motion: Motion::new(stages.clone(), writes),
            stages,
            held_up: HeldUpSeconds::new(&labelled),
            pending_messages: labelled.known(names::PENDING_MESSAGES),
            in_flight_messages: labelled.known(names::IN_FLIGHT_MESSAGES),
            uncommitted_messages: labelled.known(names::UNCOMMITTED_MESSAGES),
            ack_pending_messages: labelled.known(names::ACK_PENDING_MESSAGES),
            stream_first_sequence: labelled.known(names::STREAM_FIRST_SEQUENCE),
            stream_last_sequence: labelled.known(names::STREAM_LAST_SEQUENCE),
            checkpoint_sequence: labelled.known(names::CHECKPOINT_SEQUENCE),
            verified_through_sequence: labelled.known(names::VERIFIED_THROUGH_SEQUENCE),
            behind_seconds: labelled.known(names::BEHIND_SECONDS),
            headroom_sequences: labelled.known(names::HEADROOM_SEQUENCES),
            headroom_seconds: labelled.known(names::HEADROOM_SECONDS),
            catch_up_seconds: labelled.known(names::CATCH_UP_SECONDS),
            duplicates_skipped: labelled.counter(names::DUPLICATES_SKIPPED),
            replayed_messages: labelled.told(&told, names::REPLAYED),
            losses: labelled.told(&told, names::LOSSES),
            lost_messages: labelled.told(&told, names::LOST_MESSAGES),
            superseded_messages: labelled.told(&told, names::SUPERSEDED),
            newest: Newest::new(&labelled, &told),
            outages: labelled.counter(names::OUTAGES),
            ack_failures: labelled.counter(names::ACK_FAILURES),
            database_up: labelled.known(names::DATABASE_UP),
            nats_up: labelled.known(names::NATS_UP),
            buffered: Buffered::new(labelled.gauge(names::BUFFERED_BYTES)),
            clock: Arc::default(),
            position: Position::default(),
            dead_letters_in_table: labelled.known(names::DEAD_LETTERS_IN_TABLE),
            resyncs: labelled.counters(names::RESYNCS, names::CAUSE),
            dead_letters: labelled.told_by(&told, names::DEAD_LETTERS, names::KIND),
            dead_letters_here: Arc::default(),
            told,
            passed_over: labelled.counters(names::PASSED_OVER, names::KIND),
            state: labelled.gauges(names::PIPELINE_STATE, names::STATE),
        };
        for kind in names::DEAD_LETTER_KINDS {
            handles.dead_letters.with_label_values(&[kind]);
        }
        for marker in Marker::ALL {
            handles.passed_over.with_label_values(&[marker.as_str()]);
        }
        (handles, labelled.made())
    }

    /// The same, as the writer of a lane uses them.
    #[must_use]
    pub fn of_lane(&self, lane: usize) -> Self {
        Self { motion: self.motion.of(lane), ..self.clone() }
    }

    /// Updates the metrics that change with time alone.
    fn settle(&self) {
        self.stages.settle();
        self.buffered.settle();
        self.newest.settle();
        let held = self.motion.held_up();
        let of = |stage| held.as_ref().filter(|held| held.stage == stage).map_or(0.0, |held| held.seconds);
        let HeldUpSeconds { nats, decode, database } = &self.held_up;
        for (gauge, stage) in [(nats, Stage::Nats), (decode, Stage::Decode), (database, Stage::Database)] {
            gauge.set(of(stage));
        }
    }

    /// The counter of resyncs of one cause. Looks a label up: for rare events.
    #[must_use]
    pub fn resyncs(&self, cause: &'static str) -> IntCounter {
        self.resyncs.with_label_values(&[cause])
    }

    /// The counter of messages that are passed over as such a marker. Looks a label up: for rare messages.
    #[must_use]
    pub fn passed_over(&self, marker: Marker) -> IntCounter {
        self.passed_over.with_label_values(&[marker.as_str()])
    }

    /// Messages passed over by kind, of the kinds that there were.
    #[must_use]
    pub fn passed_over_by_kind(&self) -> BTreeMap<String, u64> {
        by_label(&self.passed_over)
    }

    /// Dead letters by kind, of the kinds that there were.
    #[must_use]
    pub fn dead_letters_by_kind(&self) -> BTreeMap<String, u64> {
        by_label(&self.dead_letters)
    }

    /// Resyncs by cause, of the causes that there were.
    #[must_use]
    pub fn resyncs_by_cause(&self) -> BTreeMap<String, u64> {
        by_label(&self.resyncs)
    }

    /// Sets `current` among `all` states to 1 and the others to 0.
    pub(crate) fn set_state(&self, current: &'static str, all: &[&'static str]) {
        for state in all {
            self.state.with_label_values(&[state]).set(i64::from(*state == current));
        }
    }
}

/// The counters of a family by the one label that is not constant.
fn by_label(counters: &IntCounterVec) -> BTreeMap<String, u64> {
    let varies = counters.desc()[0].variable_labels[0].clone();
    let families = counters.collect();
    let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    metrics
        .filter_map(|metric| {
            let label = metric.get_label().iter().find(|label| label.name() == varies)?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole count")]
            let count = metric.get_counter().get_value() as u64;
            Some((label.value().to_owned(), count))
        })
        .filter(|&(_, count)| count > 0)
        .collect()
}

#[cfg(test)]
mod tests;
