//! What a daemon knows of its pipelines, and of the daemons beside it.
//!
//! Guarantees: each shard has one status for as long as it is configured, whoever asks for it first.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tell::Teller;
use super::{PipelineStatus, Snapshot, lock};
use crate::daemons::Fellow;
use crate::left_behind::LeftBehind;
use crate::metrics::PipelineMetrics;
use crate::shard::Shard;

/// The pipelines of a daemon; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    pipelines: Arc<Mutex<Vec<Arc<PipelineStatus>>>>,
    daemons: Arc<Mutex<Vec<Fellow>>>,
    left_behind: Arc<Mutex<Vec<LeftBehind>>>,
    teller: Teller,
}

impl Registry {
    /// The status of one shard of a pipeline; made at the first call, in state
    /// [`State::Starting`](super::State::Starting).
    #[must_use]
    pub fn add(&self, shard: &Shard, metrics: PipelineMetrics) -> Arc<PipelineStatus> {
        let mut pipelines = lock(&self.pipelines);
        if let Some(known) = pipelines.iter().find(|known| known.shard.name == shard.name) {
            return Arc::clone(known);
        }
        let status = Arc::new(PipelineStatus::new(shard.clone(), metrics, self.teller.clone()));
        pipelines.push(Arc::clone(&status));
        status
    }

    /// Removes one shard of a pipeline.
    pub fn remove(&self, shard: &Shard) {
        lock(&self.pipelines).retain(|known| known.shard.name != shard.name);
    }

    /// The status of the first shard of that name.
    #[must_use]
    pub fn get(&self, shard: &str) -> Option<Arc<PipelineStatus>> {
        lock(&self.pipelines).iter().find(|known| known.shard.name == shard).cloned()
    }

    /// The shard that has not moved for longer than any known reason explains, and for how long.
    #[must_use]
    pub fn frozen(&self) -> Option<(String, Duration)> {
        lock(&self.pipelines).iter().find_map(|status| Some((status.shard.name.clone(), status.frozen()?)))
    }

    /// Notes which daemons share the database.
    pub(crate) fn set_daemons(&self, daemons: Vec<Fellow>) {
        *lock(&self.daemons) = daemons;
    }

    /// The daemons that share the database, this one among them, as they were seen last.
    #[must_use]
    pub(crate) fn daemons(&self) -> Vec<Fellow> {
        lock(&self.daemons).clone()
    }

    /// Notes what nobody reads any more.
    pub(crate) fn set_left_behind(&self, left: Vec<LeftBehind>) {
        *lock(&self.left_behind) = left;
    }

    /// Shards that are no longer configured, with messages that nobody reads.
    #[must_use]
    pub(crate) fn left_behind(&self) -> Vec<LeftBehind> {
        lock(&self.left_behind).clone()
    }

    /// All pipelines, in the order in which they were added.
    #[must_use]
    pub fn pipelines(&self) -> Vec<Arc<PipelineStatus>> {
        lock(&self.pipelines).clone()
    }

    /// All pipelines as they are now, in the order in which they were added.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        lock(&self.pipelines).iter().map(|status| status.snapshot()).collect()
    }
}
