//! Every metric: its name, its help text and its labels, and the handles that the stages count with.
//!
//! Guarantees: a handle is resolved once, so that counting an event is one atomic addition; asking twice for the same
//! pipeline and shard gives the same handles, so that a new generation goes on counting where the last one ended; no
//! label carries an error's text. It does not measure anything by itself: a gauge holds what a stage last put there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::logging::Dropped;
use crate::marker::Marker;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

mod known;
mod motion;
pub mod names;
mod position;
mod stage;

pub use known::Known;
pub use motion::{HELD_UP, HeldUp, Motion, Step, Writing};
use names::Family;
pub use position::Resumes;
pub use stage::{Stage, StageClock, StageSeconds, Timing};

/// Buckets of `jetcopy_batch_rows`: powers of four, with the default `max_rows` as a bound of its own.
const ROWS_BUCKETS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 20_000.0, 65_536.0, 262_144.0];

/// Buckets of `jetcopy_commit_seconds`: a small batch commits within 2 ms, a step is given up after a minute.
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
    log_lines_dropped: IntCounter,
    log: OnceLock<Dropped>,
    /// Handles by pipeline and shard, with all that they are registered as.
    pipelines: Mutex<BTreeMap<(String, String), (PipelineMetrics, Collectors)>>,
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
        let log_lines_dropped = build.counter(names::LOG_LINES_DROPPED);
        let (log, pipelines) = (OnceLock::new(), Mutex::default());
        Self { inner: Arc::new(Inner { registry, maintain, log_lines_dropped, log, pipelines }) }
    }

    /// Tells from now on how many lines of the log nobody took; a process has one log.
    pub fn tell_dropped_lines(&self, dropped: Dropped) {
        self.inner.log.get_or_init(|| dropped);
    }

    /// The handles of the store's maintenance.
    #[must_use]
    pub fn maintain(&self) -> MaintainMetrics {
        self.inner.maintain.clone()
    }

    /// The handles of one shard of a pipeline; `tables` are its tables in the order of the configuration.
    #[must_use]
    pub fn pipeline(&self, pipeline: &str, shard: &str, stream: &str, tables: &[&str]) -> PipelineMetrics {
        let mut pipelines = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let (handles, _) = pipelines
            .entry((pipeline.to_owned(), shard.to_owned()))
            .or_insert_with(|| PipelineMetrics::new(&self.inner.registry, pipeline, shard, stream, tables));
        handles.clone()
    }

    /// Shows one shard of a pipeline no longer; handles that are still out count unseen.
    pub fn remove(&self, pipeline: &str, shard: &str) {
        let mut pipelines = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, collectors)) = pipelines.remove(&(pipeline.to_owned(), shard.to_owned())) else {
            return;
        };
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

/// What a registry holds of one pipeline.
struct Collectors(Vec<Box<dyn Collector>>);

impl fmt::Debug for Collectors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Collectors").field(&self.0.len()).finish()
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
    /// One counter a table, in the order of the configuration.
    pub rows: Vec<IntCounter>,
    pub rows_left_out: Vec<IntCounter>,
    pub untaken_fields: IntCounter,
    /// One counter a table, as in `rows`.
    pub table_messages: Vec<IntCounter>,
    /// One gauge a table, as in `rows`.
    pub unfilled_columns: Vec<IntGauge>,
    pub bytes: IntCounter,
    pub batches: BatchesClosed,
    pub commits: Commits,
    pub batch_rows: Histogram,
    pub commit_seconds: Histogram,
    /// For a whole batch: `local()` once a batch, `observe` each message, `flush`; one lock-free pass, no atomics
    /// per message.
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
    pub behind_seconds: Known,
    pub headroom_sequences: Known,
    pub headroom_seconds: Known,
    pub catch_up_seconds: Known,
    pub duplicates_skipped: IntCounter,
    pub replayed_messages: IntCounter,
    pub losses: IntCounter,
    pub lost_messages: IntCounter,
    pub superseded_messages: IntCounter,
    pub ack_failures: IntCounter,
    pub database_up: Known,
    pub nats_up: Known,
    pub buffered_bytes: IntGauge,
    /// Messages that are not committed, wherever they are; no metric of its own.
    pub backlog: Known,
    resumes: Arc<Mutex<Option<Resumes>>>,
    /// Dead letters that lie in the table, whoever put them there.
    pub dead_letters_in_table: Known,
    resyncs: IntCounterVec,
    dead_letters: IntCounterVec,
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

impl PipelineMetrics {
    fn new(
        registry: &Registry,
        pipeline: &str,
        shard: &str,
        stream: &str,
        tables: &[&str],
    ) -> (Self, Collectors) {
        let labels = [(names::PIPELINE, pipeline), (names::SHARD, shard), (names::STREAM, stream)];
        let labelled = Labelled::new(registry, &labels);
        let rows = labelled.counters(names::ROWS, names::TABLE);
        let rows_left_out = labelled.counters(names::ROWS_LEFT_OUT, names::TABLE);
        let table_messages = labelled.counters(names::TABLE_MESSAGES, names::TABLE);
        let unfilled_columns = labelled.gauges(names::UNFILLED_COLUMNS, names::TABLE);
        let batches = labelled.counters(names::BATCHES, names::REASON);
        let commits = labelled.counters(names::COMMITS, names::OUTCOME);
        let stages = labelled.float_counters(names::STAGE_SECONDS, names::STAGE);
        let stages = StageClock::new(|stage| stages.with_label_values(&[stage]));
        let held_up = labelled.float_gauges(names::HELD_UP_SECONDS, names::STAGE);
        let handles = Self {
            messages: labelled.counter(names::MESSAGES),
            rows: tables.iter().map(|table| rows.with_label_values(&[table])).collect(),
            rows_left_out: tables.iter().map(|table| rows_left_out.with_label_values(&[table])).collect(),
            untaken_fields: labelled.counter(names::UNTAKEN_FIELDS),
            table_messages: tables.iter().map(|table| table_messages.with_label_values(&[table])).collect(),
            unfilled_columns: tables
                .iter()
                .map(|table| unfilled_columns.with_label_values(&[table]))
                .collect(),
            bytes: labelled.counter(names::BYTES),
            batches: BatchesClosed {
                rows: batches.with_label_values(&["rows"]),
                bytes: batches.with_label_values(&["bytes"]),
                age: batches.with_label_values(&["age"]),
                shutdown: batches.with_label_values(&["shutdown"]),
            },
            commits: Commits {
                committed: commits.with_label_values(&["committed"]),
                poison: commits.with_label_values(&["poison"]),
                failed: commits.with_label_values(&["failed"]),
                in_doubt: commits.with_label_values(&["in_doubt"]),
                lost_epoch: commits.with_label_values(&["lost_epoch"]),
            },
            batch_rows: labelled.histogram(names::BATCH_ROWS, ROWS_BUCKETS),
            commit_seconds: labelled.histogram(names::COMMIT_SECONDS, COMMIT_BUCKETS),
            publish_to_commit_seconds: labelled.histogram(names::PUBLISH_TO_COMMIT_SECONDS, LATENCY_BUCKETS),
            motion: Motion::new(stages.clone()),
            stages,
            held_up: HeldUpSeconds {
                nats: held_up.with_label_values(&["nats"]),
                decode: held_up.with_label_values(&["decode"]),
                database: held_up.with_label_values(&["database"]),
            },
            pending_messages: labelled.known(names::PENDING_MESSAGES),
            in_flight_messages: labelled.known(names::IN_FLIGHT_MESSAGES),
            uncommitted_messages: labelled.known(names::UNCOMMITTED_MESSAGES),
            ack_pending_messages: labelled.known(names::ACK_PENDING_MESSAGES),
            stream_first_sequence: labelled.known(names::STREAM_FIRST_SEQUENCE),
            stream_last_sequence: labelled.known(names::STREAM_LAST_SEQUENCE),
            checkpoint_sequence: labelled.known(names::CHECKPOINT_SEQUENCE),
            behind_seconds: labelled.known(names::BEHIND_SECONDS),
            headroom_sequences: labelled.known(names::HEADROOM_SEQUENCES),
            headroom_seconds: labelled.known(names::HEADROOM_SECONDS),
            catch_up_seconds: labelled.known(names::CATCH_UP_SECONDS),
            duplicates_skipped: labelled.counter(names::DUPLICATES_SKIPPED),
            replayed_messages: labelled.counter(names::REPLAYED),
            losses: labelled.counter(names::LOSSES),
            lost_messages: labelled.counter(names::LOST_MESSAGES),
            superseded_messages: labelled.counter(names::SUPERSEDED),
            ack_failures: labelled.counter(names::ACK_FAILURES),
            database_up: labelled.known(names::DATABASE_UP),
            nats_up: labelled.known(names::NATS_UP),
            buffered_bytes: labelled.gauge(names::BUFFERED_BYTES),
            backlog: Known::new(Gauge::new("backlog", "not exported").expect("the name is a constant")),
            resumes: Arc::default(),
            dead_letters_in_table: labelled.known(names::DEAD_LETTERS_IN_TABLE),
            resyncs: labelled.counters(names::RESYNCS, names::CAUSE),
            dead_letters: labelled.counters(names::DEAD_LETTERS, names::KIND),
            passed_over: labelled.counters(names::PASSED_OVER, names::KIND),
            state: labelled.gauges(names::PIPELINE_STATE, names::STATE),
        };
        (handles, Collectors(labelled.made.into_inner()))
    }

    /// Brings what goes on by itself up to now.
    fn settle(&self) {
        self.stages.settle();
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

    /// The counter of dead letters of one kind. Looks a label up: for rare events.
    #[must_use]
    pub fn dead_letters(&self, kind: &'static str) -> IntCounter {
        self.dead_letters.with_label_values(&[kind])
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
        .collect()
}

/// The handles of the store's maintenance; clones share them.
#[derive(Debug, Clone)]
pub struct MaintainMetrics {
    /// Runs that another daemon was at.
    pub busy: IntCounter,
    done: IntCounter,
    failed: IntCounter,
    last_run: Gauge,
    seconds: Gauge,
}

impl MaintainMetrics {
    fn new(registry: &Registry) -> Self {
        let labelled = Labelled::new(registry, &[]);
        let runs = labelled.counters(names::MAINTAIN_RUNS, names::OUTCOME);
        Self {
            busy: runs.with_label_values(&["busy"]),
            done: runs.with_label_values(&["done"]),
            failed: runs.with_label_values(&["failed"]),
            last_run: labelled.float_gauge(names::MAINTAIN_LAST_RUN),
            seconds: labelled.float_gauge(names::MAINTAIN_SECONDS),
        }
    }

    /// Notes a run that has just ended.
    pub fn ran(&self, well: bool, took: Duration) {
        (if well { &self.done } else { &self.failed }).inc();
        self.last_run.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.seconds.set(took.as_secs_f64());
    }
}

/// Makes and registers metrics that share their constant labels.
struct Labelled<'a> {
    registry: &'a Registry,
    labels: &'a [(&'static str, &'a str)],
    made: RefCell<Vec<Box<dyn Collector>>>,
}

impl<'a> Labelled<'a> {
    fn new(registry: &'a Registry, labels: &'a [(&'static str, &'a str)]) -> Self {
        Self { registry, labels, made: RefCell::default() }
    }

    fn opts(&self, family: Family) -> Opts {
        self.labels
            .iter()
            .fold(Opts::new(family.name, family.help), |opts, (name, value)| opts.const_label(*name, *value))
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("names and labels are constants that a test makes once");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("each pipeline and shard is registered once, with the same label names");
        self.made.borrow_mut().push(Box::new(metric.clone()));
        metric
    }

    fn counter(&self, family: Family) -> IntCounter {
        self.register(IntCounter::with_opts(self.opts(family)))
    }

    fn counters(&self, family: Family, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(family), &[label]))
    }

    fn float_counters(&self, family: Family, label: &str) -> CounterVec {
        self.register(CounterVec::new(self.opts(family), &[label]))
    }

    fn gauge(&self, family: Family) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(family)))
    }

    fn gauges(&self, family: Family, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(family), &[label]))
    }

    fn known(&self, family: Family) -> Known {
        Known::new(self.float_gauge(family))
    }

    fn float_gauges(&self, family: Family, label: &str) -> GaugeVec {
        self.register(GaugeVec::new(self.opts(family), &[label]))
    }

    fn float_gauge(&self, family: Family) -> Gauge {
        self.register(Gauge::with_opts(self.opts(family)))
    }

    fn histogram(&self, family: Family, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts { common_opts: self.opts(family), buckets: buckets.to_vec() };
        self.register(Histogram::with_opts(opts))
    }
}

#[cfg(test)]
mod tests;
