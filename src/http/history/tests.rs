//! Samples agree with the counters that they were taken of, and are bounded.

use super::*;
use crate::http::history::recent::READINGS;
use crate::metrics::{Metrics, PipelineMetrics, Step};
use crate::shard::Shard;

struct Daemon {
    metrics: Metrics,
    registry: Registry,
    history: History,
    now: Instant,
}

impl Daemon {
    fn new() -> Self {
        Self {
            metrics: Metrics::new(),
            registry: Registry::default(),
            history: History::default(),
            now: Instant::now(),
        }
    }

    fn add(&self, name: &str) -> PipelineMetrics {
        let handles = self.metrics.pipeline(&Shard::new(name, name, "FRAMES"), &["frame_metadata"]);
        self.registry.add(&Shard::new(name, name, "FRAMES"), handles.clone()).set_state(State::Running);
        handles
    }

    fn sample(&mut self) {
        self.now += EVERY;
        self.history.sample(&self.registry.snapshots(), self.now);
    }

    fn series(&self) -> Series {
        self.history.since(0).pipelines.remove(0)
    }
}

#[test]
fn a_sample_holds_the_rates_since_the_one_before() {
    let mut daemon = Daemon::new();
    let frames = daemon.add("frames");
    daemon.sample();
    frames.messages.inc_by(5_000);
    frames.tables.each()[0].rows.inc_by(10_000);
    frames.commits.committed.inc_by(2);
    frames.commit_seconds.observe(0.02);
    frames.commit_seconds.observe(0.04);
    frames.batch_rows.observe(4_000.0);
    frames.batch_rows.observe(6_000.0);
    frames.behind_seconds.set_seconds(2.5);
    daemon.sample();
    let series = daemon.series();
    assert_eq!(series.messages_per_second, [0.0, 1_000.0]);
    assert_eq!(series.rows_per_second, [0.0, 2_000.0]);
    assert_eq!(series.commit_seconds, [None, Some(0.03)]);
    assert_eq!(series.batch_rows, [None, Some(5_000.0)]);
    assert_eq!(series.behind_seconds, [None, Some(2.5)]);
}

#[test]
fn no_more_than_a_quarter_of_an_hour_is_kept() {
    let mut daemon = Daemon::new();
    let frames = daemon.add("frames");
    for _ in 0..KEPT + 20 {
        frames.dead_letter("range");
        daemon.sample();
    }
    let series = daemon.series();
    assert_eq!(series.dead_letters_since_start.len(), KEPT);
    assert_eq!(series.dead_letters_since_start.last(), Some(&(KEPT as u64 + 20)));
    assert_eq!(daemon.history.lock().pipelines[0].readings.len(), recent::READINGS);
}

#[test]
fn whoever_asks_again_gets_only_what_is_new() {
    let mut daemon = Daemon::new();
    daemon.add("frames");
    (0..3).for_each(|_| daemon.sample());
    let next = daemon.history.since(0).next;
    assert!(daemon.history.since(next).pipelines[0].running.is_empty());
    daemon.sample();
    assert_eq!(daemon.history.since(next).pipelines[0].running, [true]);
    assert_eq!(daemon.history.since(u64::MAX).pipelines[0].running.len(), 0);
}

#[test]
fn a_pipeline_that_comes_later_has_fewer_samples_and_one_that_is_gone_has_none() {
    let mut daemon = Daemon::new();
    daemon.add("frames");
    daemon.sample();
    daemon.add("events");
    daemon.sample();
    let since = daemon.history.since(0);
    assert_eq!(since.pipelines[0].running.len(), 2);
    assert_eq!(since.pipelines[1].running.len(), 1);
    daemon.registry = Registry::default();
    daemon.add("events");
    daemon.sample();
    let since = daemon.history.since(0);
    assert_eq!(since.pipelines.iter().map(|series| series.pipeline.as_str()).collect::<Vec<_>>(), ["events"]);
}

#[test]
fn more_writers_help_where_the_database_limits_and_waiting_is_most_of_it() {
    let mut daemon = Daemon::new();
    let frames = daemon.add("frames");
    frames.behind_seconds.set_seconds(3.0);
    let during = |daemon: &mut Daemon, step: fn(String) -> Step| {
        daemon.sample();
        let timing = frames.stages.start();
        timing.enter(Stage::Database);
        let writing = frames.motion.write();
        frames.motion.step(step("events".into()));
        std::thread::sleep(Duration::from_millis(5));
        frames.motion.step(Step::Ack);
        drop((writing, timing));
        daemon.history.recent(&daemon.registry.snapshots().remove(0))
    };
    let copies = during(&mut daemon, Step::Copy);
    assert_eq!((copies.waits, copies.more_writers_help), (Some(0.0), false));
    (0..READINGS).for_each(|_| daemon.sample());
    let begins = during(&mut daemon, Step::Begin);
    assert_eq!((begins.waits, begins.more_writers_help), (Some(1.0), true));
    frames.behind_seconds.set_seconds(0.0);
    assert!(!daemon.history.recent(&daemon.registry.snapshots().remove(0)).more_writers_help);
}

#[test]
fn what_limits_is_where_the_reading_stage_spends_its_time_while_it_is_behind() {
    let mut daemon = Daemon::new();
    let frames = daemon.add("frames");
    daemon.sample();
    let timing = frames.stages.start();
    timing.enter(Stage::Database);
    std::thread::sleep(Duration::from_millis(5));
    drop(timing);
    let snapshot = || daemon.registry.snapshots().remove(0);
    assert_eq!(daemon.history.recent(&snapshot()).limited_by, None, "it keeps up");
    frames.behind_seconds.set_seconds(3.0);
    let recent = daemon.history.recent(&snapshot());
    assert_eq!(recent.limited_by, Some(Stage::Database));
    assert!((recent.stages.database - 1.0).abs() < 1e-9);
    let backs_off = State::BackingOff { reason: "database is away".into(), retry_in: Duration::ZERO };
    daemon.registry.add(&Shard::new("frames", "frames", "FRAMES"), frames.clone()).set_state(backs_off);
    assert_eq!(daemon.history.recent(&snapshot()).limited_by, None, "it does not run");
}

#[test]
fn before_the_first_sample_nothing_is_said() {
    let daemon = Daemon::new();
    let frames = daemon.add("frames");
    frames.messages.inc_by(7);
    let recent = daemon.history.recent(&daemon.registry.snapshots()[0]);
    assert!(recent.messages_per_second.abs() < f64::EPSILON);
    assert_eq!(recent.commit_seconds, None);
}
