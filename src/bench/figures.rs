//! What a run has found, as `jetcopy bench --json` prints it.
//!
//! Guarantees: every figure is in the unit that its name says; a latency's share (p99) holds for that share
//! of the messages that were published after the warm-up.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::commits::Commit;
use super::load::Shape;
use super::process::{cores, machine};
use super::record::{Recorder, Sample};
use super::watch::Seen;
use super::{Load, Plan, micros};

/// Shares at which the curve of a latency is drawn.
const CURVE: [f64; 13] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1.0];

/// All figures of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Version of jetcopy.
    pub jetcopy: &'static str,
    /// Where the bench ran.
    pub machine: String,
    /// Messages a second that were asked for; without it the streams were filled first, then drained.
    pub rate: Option<f64>,
    /// How long they were asked for.
    pub duration_seconds: Option<f64>,
    /// Streams, pipelines and tables.
    pub pipelines: usize,
    /// Size of a message.
    pub message_bytes: usize,
    /// Rows of a message.
    pub rows_per_message: usize,
    /// Whether the tables had an index.
    pub index: bool,
    /// Rows in each table beforehand.
    pub stored: u64,
    /// Messages that the streams have stored, with those of the warm-up.
    pub published: u64,
    /// Acknowledged to the publishers in a second.
    pub published_per_second: f64,
    /// Rows in the tables, of these messages.
    pub rows: u64,
    /// Rows after the first commit over the time from the first to the last commit.
    pub rows_per_second: Option<f64>,
    /// What commits were timed by.
    pub timed_by: &'static str,
    /// From before a publish to the commit, by the server's timestamp.
    pub publish_to_commit_ms: Option<Latency>,
    /// From before a publish to after a `SELECT` in another session that shows the row.
    pub publish_to_visible_ms: Option<Latency>,
    /// 99 of 100 looks came within this time after the one before: what a latency may be too long by.
    pub look_p99_ms: Option<f64>,
    /// The daemon's process.
    pub daemon: Option<Used>,
    /// The NATS server's.
    pub nats: Option<Used>,
    /// PostgreSQL's, without the session that looks.
    pub postgres: Option<Used>,
    /// The bench's own, with its publishers.
    pub bench: Option<Used>,
    /// Write-ahead log of the whole server over the rows.
    pub wal_bytes_per_row: Option<f64>,
    /// What could not be measured, and why.
    pub left_out: Vec<String>,
    /// What went on, once a second.
    pub samples: Vec<Sample>,
}

/// What a process has used.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Used {
    /// User and system time.
    pub cpu_seconds: f64,
    /// The same over all cores of the machine; 1 is all of them all the time.
    pub cpu_share: f64,
    /// The same for a million rows.
    pub cpu_seconds_per_million_rows: f64,
    /// The most memory that a sample showed; of the daemon, that the kernel knows of.
    pub peak_memory_mib: f64,
}

/// How long something took, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the share of the messages that were within this time")]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
    /// Messages that it was measured of.
    pub messages: u64,
    /// More of the same, as pairs of share and milliseconds.
    pub curve: Vec<(f64, f64)>,
}

#[expect(clippy::cast_precision_loss, reason = "counts and microseconds stay far below 2^53")]
impl Outcome {
    pub(super) fn new(plan: &Plan, shape: &Shape, recorder: Recorder<'_>, published: u64) -> Self {
        let (rate, duration) = match plan.load {
            Load::Rate { per_second, duration } => (Some(per_second), Some(duration.as_secs_f64())),
            Load::Backlog { .. } => (None, None),
        };
        let (window, seconds) = recorder.window();
        let samples = recorder.samples;
        let ends = samples.first().zip(samples.last());
        // At a rate, what the acks of the window show; of a backlog, the caller knows better.
        let published_per_second = ends.map_or(0.0, |(first, last)| {
            (last.published - first.published) as f64 / window.max(f64::EPSILON)
        });
        let used = |process: usize| {
            seconds[process].map(|seconds| Used {
                cpu_seconds: rounded(seconds),
                cpu_share: rounded(seconds / window.max(f64::EPSILON) / cores() as f64),
                cpu_seconds_per_million_rows: 0.0,
                peak_memory_mib: samples
                    .iter()
                    .filter_map(|sample| sample.memory_mib[process])
                    .fold(0.0, f64::max),
            })
        };
        Self {
            jetcopy: env!("CARGO_PKG_VERSION"),
            machine: machine(),
            rate,
            duration_seconds: duration,
            pipelines: plan.pipelines,
            message_bytes: shape.size(),
            rows_per_message: shape.rows(),
            index: plan.index,
            stored: plan.stored,
            published,
            published_per_second: rounded(published_per_second),
            rows: 0,
            rows_per_second: None,
            timed_by: "looks",
            publish_to_commit_ms: None,
            publish_to_visible_ms: None,
            look_p99_ms: None,
            daemon: used(0),
            nats: used(1),
            postgres: used(2),
            bench: used(3),
            wal_bytes_per_row: None,
            left_out: recorder.left_out,
            samples,
        }
    }

    /// Adds what depends on the number of rows: at a rate, CPU time is that of the window's rows alone.
    pub(super) fn count(&mut self, rows: u64, wal_bytes: f64) {
        self.rows = rows;
        self.wal_bytes_per_row = (rows > 0).then(|| rounded(wal_bytes / rows as f64));
        let in_window = match (self.rate, self.samples.first(), self.samples.last()) {
            (Some(_), Some(first), Some(last)) => {
                (last.visible - first.visible) * self.rows_per_message as u64
            }
            _ => rows,
        };
        for used in
            [&mut self.daemon, &mut self.nats, &mut self.postgres, &mut self.bench].into_iter().flatten()
        {
            used.set_cpu(used.cpu_seconds, in_window);
        }
    }
}

impl Used {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(super) fn set_cpu(&mut self, seconds: f64, rows: u64) {
        self.cpu_seconds = rounded(seconds);
        self.cpu_seconds_per_million_rows = rounded(seconds / rows.max(1) as f64 * 1e6);
    }
}

impl Latency {
    /// By what was seen; `sent` holds when each message was sent, in microseconds since `start`, the first
    /// `skip` of each pipeline do not count. Samples get the latency of their second.
    pub(super) fn of_steps(
        seen: &Seen,
        sent: &[Vec<u64>],
        start: Instant,
        skip: usize,
        samples: &mut [Sample],
    ) -> Self {
        let mut all = histogram();
        let mut seconds: Vec<Histogram<u64>> = samples.iter().map(|_| histogram()).collect();
        // Samples begin with the first message that counts.
        let begin = sent.iter().filter_map(|sent| sent.get(skip)).min().copied().unwrap_or(0);
        for (steps, sent) in seen.steps.iter().zip(sent) {
            let mut from = 0;
            for &(at, upto) in steps {
                let at = micros(at.saturating_duration_since(start));
                let upto = usize::try_from(upto).unwrap_or(usize::MAX).min(sent.len());
                for &sent in sent.get(from.max(skip)..upto).unwrap_or_default() {
                    let took = at.saturating_sub(sent);
                    record(&mut all, took);
                    // The second sample ends the first second.
                    let second = Duration::from_micros(sent.saturating_sub(begin)).as_secs();
                    let second = usize::try_from(second).unwrap_or(usize::MAX).saturating_add(1);
                    if let Some(histogram) = seconds.get_mut(second) {
                        record(histogram, took);
                    }
                }
                from = upto;
            }
        }
        for (sample, histogram) in samples.iter_mut().zip(&seconds) {
            sample.visible_p99_ms =
                (!histogram.is_empty()).then(|| milliseconds(histogram.value_at_quantile(0.99)));
        }
        Self::of(&all)
    }

    /// By the commits of each pipeline.
    pub(super) fn of_commits(commits: &[Vec<Commit>], sent: &[Vec<u64>], skip: usize) -> Self {
        let mut all = histogram();
        for (commits, sent) in commits.iter().zip(sent) {
            for commit in commits {
                // Sequences count from 1.
                let index = |sequence: u64| usize::try_from(sequence).unwrap_or(usize::MAX);
                let range =
                    index(commit.first).saturating_sub(1).max(skip)..index(commit.last).min(sent.len());
                for &sent in sent.get(range).unwrap_or_default() {
                    record(&mut all, micros(commit.at).saturating_sub(sent));
                }
            }
        }
        Self::of(&all)
    }

    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |share| milliseconds(histogram.value_at_quantile(share));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: milliseconds(histogram.max()),
            messages: histogram.len(),
            curve: CURVE.map(|share| (share, at(share))).to_vec(),
        }
    }
}

/// Adds a time in microseconds.
pub(super) fn record(histogram: &mut Histogram<u64>, time: u64) {
    // It grows as it needs to; `saturating_record` would not let it.
    histogram.record(time).expect("a histogram that grows takes any time");
}

pub(super) fn histogram() -> Histogram<u64> {
    // Three digits, a tenth of a percent; any number up to five is taken.
    Histogram::new(3).expect("three digits are allowed")
}

/// Rows a second after the first commit of all.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn rate_of_commits(commits: &[Vec<Commit>]) -> Option<f64> {
    let all = || commits.iter().flatten();
    let first = all().min_by_key(|commit| commit.at)?;
    let seconds = all().map(|commit| commit.at).max()?.saturating_sub(first.at).as_secs_f64();
    let rows = all().map(|commit| commit.rows).sum::<u64>() - first.rows;
    (rows > 0 && seconds > 0.0).then(|| rounded(rows as f64 / seconds))
}

/// The same by what was seen: the commits between two looks count as one.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn rate_of_steps(seen: &Seen, rows_per_message: usize) -> Option<f64> {
    let all = || seen.steps.iter().flatten();
    let (first, at_first) = all().min()?;
    let seconds = (*all().map(|(at, _)| at).max()? - *first).as_secs_f64();
    let messages =
        seen.steps.iter().filter_map(|steps| steps.last()).map(|(_, upto)| upto).sum::<u64>() - at_first;
    (messages > 0 && seconds > 0.0).then(|| rounded(messages as f64 * rows_per_message as f64 / seconds))
}

/// Microseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
pub(super) fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// To four decimals: more would be noise.
#[must_use]
pub fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

/// The middle one, or the mean of the two in the middle; NaN of none.
#[must_use]
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match (figures.get(middle.wrapping_sub(1)), figures.get(middle)) {
        (Some(below), Some(middle)) if figures.len().is_multiple_of(2) => f64::midpoint(*below, *middle),
        (_, middle) => middle.copied().unwrap_or(f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(at: u64, first: u64, last: u64) -> Commit {
        Commit { at: Duration::from_millis(at), first, last, rows: last + 1 - first }
    }

    #[test]
    fn a_latency_lasts_from_when_a_message_was_sent_to_the_commit_that_holds_it() {
        let sent = [(0..100).map(|number| number * 1_000).collect::<Vec<u64>>()];
        let commits = [vec![commit(60, 1, 50), commit(110, 51, 100)]];
        let latency = Latency::of_commits(&commits, &sent, 0);
        assert_eq!(latency.messages, 100);
        assert!((latency.max - 60.0).abs() < 0.1, "{latency:?}");
        // The last message of each commit waited 11 ms, the first 60: half of them no more than 35.
        assert!((latency.p50 - 35.0).abs() < 0.1, "{latency:?}");
        assert_eq!(Latency::of_commits(&commits, &sent, 90).messages, 10);
    }

    #[test]
    fn what_was_seen_counts_from_the_look_that_showed_it_and_by_the_second_of_its_sending() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let seen = Seen { steps: vec![vec![(at(500), 1), (at(1_600), 3)]], looks: histogram() };
        let sent = [vec![0, 490_000, 1_500_000]];
        let mut samples = vec![Sample::default(); 3];
        let latency = Latency::of_steps(&seen, &sent, start, 0, &mut samples);
        assert_eq!(latency.messages, 3);
        assert!((latency.max - 1_110.0).abs() < 2.0, "{latency:?}");
        let p99 = |sample: usize| samples[sample].visible_p99_ms;
        assert!(p99(0).is_none() && p99(1).unwrap() > 1_100.0 && p99(2).unwrap() < 101.0, "{samples:?}");
    }

    #[test]
    fn a_rate_leaves_the_first_commit_out_since_nobody_knows_when_it_began() {
        let commits = [vec![commit(1_000, 1, 100), commit(2_000, 101, 200)], vec![commit(1_500, 1, 50)]];
        assert_eq!(rate_of_commits(&commits), Some(150.0));
        assert_eq!(rate_of_commits(&[vec![commit(1_000, 1, 100)]]), None);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }
}
