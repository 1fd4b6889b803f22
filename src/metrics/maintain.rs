//! Metrics of the store's maintenance.
//!
//! Guarantees: a run is counted when it has ended, well or not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounter, Registry};

use super::labelled::Labelled;
use super::names;

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
    pub(super) fn new(registry: &Registry) -> Self {
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
