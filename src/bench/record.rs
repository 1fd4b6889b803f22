//! Samples of a run, once per second: messages, and what the processes use.
//!
//! Guarantees: what cannot be read is left out, with the reason given once. A sample costs some milliseconds
//! of reading `/proc`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::process::{Processes, Usage};
use super::watch::Watch;
use super::{Error, figures, sum};

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(1);

/// One look at everything; processes in the order of [`NAMES`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Since the first sample.
    pub seconds: f64,
    /// Messages that the streams have stored.
    pub published: u64,
    /// Messages whose rows are visible.
    pub visible: u64,
    /// Cores that each process has kept busy since the sample before.
    pub cores: [Option<f64>; NAMES.len()],
    /// Memory of each.
    pub memory_mib: [Option<f64>; NAMES.len()],
    /// 99 of 100 messages that were sent in the second before this sample were visible within this time.
    pub visible_p99_ms: Option<f64>,
}

/// Whose figures a sample holds. The last is the bench itself, with its publishers.
pub const NAMES: [&str; 4] = ["daemon", "NATS", "PostgreSQL", "bench"];

/// Takes samples.
pub struct Recorder<'r> {
    processes: [Option<Processes>; NAMES.len()],
    /// What cannot be read, and why.
    pub left_out: Vec<String>,
    acked: Arc<Vec<AtomicU64>>,
    progress: &'r (dyn Fn(&Sample) + Sync),
    /// All of them.
    pub samples: Vec<Sample>,
    /// When recording began.
    pub start: Instant,
    before: Option<(Instant, [Option<Usage>; NAMES.len()])>,
    window: [Option<(Instant, [Option<Usage>; NAMES.len()])>; 2],
}

impl<'r> Recorder<'r> {
    /// Records daemon, NATS and PostgreSQL, or says why not.
    pub(super) fn new(
        found: [Result<Processes, String>; NAMES.len() - 1],
        acked: Arc<Vec<AtomicU64>>,
        progress: &'r (dyn Fn(&Sample) + Sync),
    ) -> Self {
        let mut left_out = Vec::new();
        let [daemon, nats, postgres] = found.map(|found| found.map_err(|why| left_out.push(why)).ok());
        let own = Some(Processes::One(std::process::id()));
        Self {
            processes: [daemon, nats, postgres, own],
            left_out,
            acked,
            progress,
            samples: Vec::new(),
            start: Instant::now(),
            before: None,
            window: [None, None],
        }
    }

    /// From here on CPU time counts.
    pub(super) fn begin(&mut self, watch: &Watch) {
        self.start = Instant::now();
        self.sample(watch);
        self.window[0] = self.before;
    }

    /// Up to here.
    pub(super) fn end(&mut self, watch: &Watch) {
        self.sample(watch);
        self.window[1] = self.before;
    }

    /// Takes samples until `work` is done, whose error is its own.
    pub(super) async fn sampling<T>(
        &mut self,
        watch: &Watch,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                // The end of the work matters more than another sample.
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(PERIOD) => self.sample(watch),
            }
        }
    }

    fn sample(&mut self, watch: &Watch) {
        let now = Instant::now();
        let usages = self.processes.each_ref().map(|processes| processes.as_ref()?.usage().ok());
        let since = self.before.replace((now, usages));
        let mut cores = [None; NAMES.len()];
        if let Some((before, used)) = since {
            let seconds = (now - before).as_secs_f64().max(f64::EPSILON);
            for ((cores, now), before) in cores.iter_mut().zip(usages).zip(used) {
                *cores = now.zip(before).map(|(now, before)| {
                    figures::rounded((now.cpu_seconds - before.cpu_seconds).max(0.0) / seconds)
                });
            }
        }
        let sample = Sample {
            seconds: figures::rounded((now - self.start).as_secs_f64()),
            published: sum(&self.acked),
            visible: watch.seen().sum(),
            cores,
            memory_mib: usages.map(|usage| usage.map(|usage| figures::rounded(usage.memory_mib))),
            visible_p99_ms: None,
        };
        (self.progress)(&sample);
        self.samples.push(sample);
    }

    /// Length of the window in seconds, and the CPU seconds of each within it.
    #[must_use]
    pub(super) fn window(&self) -> (f64, [Option<f64>; NAMES.len()]) {
        let [Some((begin, used)), Some((end, usages))] = self.window else {
            return (0.0, [None; NAMES.len()]);
        };
        let mut seconds = [None; NAMES.len()];
        for ((seconds, now), before) in seconds.iter_mut().zip(usages).zip(used) {
            *seconds = now.zip(before).map(|(now, before)| (now.cpu_seconds - before.cpu_seconds).max(0.0));
        }
        ((end - begin).as_secs_f64(), seconds)
    }
}
