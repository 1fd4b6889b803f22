//! The last quarter of an hour of every pipeline, in memory.
//! Guarantees: memory is bounded by [`KEPT`] samples of a few dozen bytes per pipeline; a pipeline that is
//! gone is forgotten at the next sample. Samples are read from snapshots, so they agree with `/status` and
//! the metrics. They are lost with the process: use Prometheus for the long term.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::metrics::Stage;
use crate::status::{Registry, Snapshot, State};

mod recent;

use recent::Reading;
pub(crate) use recent::Recent;

/// How often a sample is taken: a change shows soon, and a quarter of an hour fits a small chart point by
/// point.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// Samples that are kept: 15 minutes.
pub(crate) const KEPT: usize = 180;

/// The history of all pipelines; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    rings: Arc<Mutex<Rings>>,
}

#[derive(Debug, Default)]
struct Rings {
    /// Samples taken since the start: the number of the next one.
    taken: u64,
    pipelines: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    pipeline: String,
    shard: String,
    /// Readings of the last seconds, which the rates are taken between.
    readings: VecDeque<Reading>,
    samples: VecDeque<Sample>,
}

/// One sample of one pipeline.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    messages_per_second: f32,
    rows_per_second: f32,
    behind_seconds: Option<f32>,
    lag: [Option<i64>; 3],
    /// `None` when nothing was committed meanwhile.
    commit_seconds: Option<f32>,
    batch_rows: Option<f32>,
    dead_letters_since_start: u64,
    running: bool,
    limited_by: Option<Stage>,
}

/// What is kept of one pipeline, series by series, the oldest sample first.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Series {
    pub pipeline: String,
    pub shard: String,
    /// Messages read from the stream.
    pub messages_per_second: Vec<f32>,
    /// Rows committed.
    pub rows_per_second: Vec<f32>,
    /// Age of the oldest uncommitted message; here and below, `null` if unknown.
    pub behind_seconds: Vec<Option<f32>>,
    /// Messages that the server has yet to deliver.
    pub undelivered_messages: Vec<Option<i64>>,
    /// Messages on their way to the pipeline.
    pub in_flight_messages: Vec<Option<i64>>,
    /// Messages read and not committed.
    pub uncommitted_messages: Vec<Option<i64>>,
    /// Mean time of a commit; `null` where there was none.
    pub commit_seconds: Vec<Option<f32>>,
    /// Mean rows of a batch; `null` where there was none.
    pub batch_rows: Vec<Option<f32>>,
    /// Dead letters since the daemon's start.
    pub dead_letters_since_start: Vec<u64>,
    /// Whether it was running.
    pub running: Vec<bool>,
    /// The stage that limited it; `null` if it kept up or did not run.
    pub limited_by: Vec<Option<Stage>>,
}

/// The history from one sample on.
#[derive(Debug, Serialize)]
pub(crate) struct Since {
    /// Seconds between two samples.
    pub every_seconds: f64,
    /// Samples that are kept of each pipeline.
    pub kept: usize,
    /// Number of the next sample: ask with `after` for what is new then.
    pub next: u64,
    /// One entry a pipeline; each ends with the sample before `next`.
    pub pipelines: Vec<Series>,
}

impl History {
    /// Samples for ever.
    pub(crate) async fn keep(&self, registry: &Registry) {
        let mut timer = tokio::time::interval(EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.sample(&registry.snapshots(), Instant::now());
        }
    }

    /// Takes one sample of each pipeline.
    fn sample(&self, pipelines: &[Snapshot], now: Instant) {
        let mut rings = self.lock();
        rings.taken += 1;
        rings.pipelines.retain(|ring| pipelines.iter().any(|snapshot| ring.is_of(snapshot)));
        for snapshot in pipelines {
            let place = rings.pipelines.iter().position(|ring| ring.is_of(snapshot));
            let place = place.unwrap_or_else(|| {
                rings.pipelines.push(Ring::new(snapshot));
                rings.pipelines.len() - 1
            });
            rings.pipelines[place].sample(snapshot, now);
        }
    }

    /// What a pipeline did in the last seconds, up to this snapshot.
    #[must_use]
    pub(crate) fn recent(&self, snapshot: &Snapshot) -> Recent {
        let now = Reading::new(snapshot, Instant::now());
        let rings = self.lock();
        let before = rings.pipelines.iter().find(|ring| ring.is_of(snapshot));
        Recent::between(before.and_then(|ring| ring.readings.front()).unwrap_or(&now), &now, snapshot)
    }

    /// All samples with a number of `after` or more; all that are kept for 0.
    #[must_use]
    pub(crate) fn since(&self, after: u64) -> Since {
        let rings = self.lock();
        let wanted = usize::try_from(rings.taken.saturating_sub(after)).unwrap_or(usize::MAX);
        Since {
            every_seconds: EVERY.as_secs_f64(),
            kept: KEPT,
            next: rings.taken,
            pipelines: rings.pipelines.iter().map(|ring| ring.series(wanted)).collect(),
        }
    }

    /// Samples are plain data: what a panicking thread left behind is still whole.
    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn new(snapshot: &Snapshot) -> Self {
        Self {
            pipeline: snapshot.pipeline.clone(),
            shard: snapshot.shard.clone(),
            readings: VecDeque::with_capacity(recent::READINGS),
            samples: VecDeque::with_capacity(KEPT),
        }
    }

    fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.pipeline == snapshot.pipeline && self.shard == snapshot.shard
    }

    fn sample(&mut self, snapshot: &Snapshot, at: Instant) {
        let now = Reading::new(snapshot, at);
        let recent = Recent::between(self.readings.back().unwrap_or(&now), &now, snapshot);
        if self.readings.len() == recent::READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(now);
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        let numbers = &snapshot.numbers;
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are more than a chart shows")]
        let short = |value: f64| value as f32;
        self.samples.push_back(Sample {
            messages_per_second: short(recent.messages_per_second),
            rows_per_second: short(recent.rows_per_second),
            behind_seconds: numbers.behind_seconds.map(short),
            lag: [numbers.undelivered_messages, numbers.in_flight_messages, numbers.uncommitted_messages],
            commit_seconds: recent.commit_seconds.map(short),
            batch_rows: recent.batch_rows.map(short),
            dead_letters_since_start: numbers.dead_letters_since_start,
            running: snapshot.state == State::Running,
            limited_by: recent.limited_by,
        });
    }

    /// Its last `wanted` samples.
    fn series(&self, wanted: usize) -> Series {
        let mut series =
            Series { pipeline: self.pipeline.clone(), shard: self.shard.clone(), ..Series::default() };
        for sample in self.samples.iter().skip(self.samples.len().saturating_sub(wanted)) {
            let Sample { lag: [undelivered, in_flight, uncommitted], .. } = *sample;
            series.messages_per_second.push(sample.messages_per_second);
            series.rows_per_second.push(sample.rows_per_second);
            series.behind_seconds.push(sample.behind_seconds);
            series.undelivered_messages.push(undelivered);
            series.in_flight_messages.push(in_flight);
            series.uncommitted_messages.push(uncommitted);
            series.commit_seconds.push(sample.commit_seconds);
            series.batch_rows.push(sample.batch_rows);
            series.dead_letters_since_start.push(sample.dead_letters_since_start);
            series.running.push(sample.running);
            series.limited_by.push(sample.limited_by);
        }
        series
    }
}

#[cfg(test)]
mod tests;
