//! What the configured pipelines read.
//!
//! Guarantees: this is the only place that makes the names of shards, streams and durable consumers out of
//! settings. Today a pipeline has one shard, and the array of length one says so: code that can handle only
//! one takes it apart (`let [shard] = …`) and stops compiling once there are more.

use super::{Config, Pipeline};
use crate::shard::Shard;

impl Pipeline {
    /// What it reads, stream by stream.
    #[must_use]
    pub fn shards(&self) -> [Shard; 1] {
        let mut shard = Shard::new(&self.name, &self.name, &self.stream);
        if let Some(durable) = &self.durable {
            shard.durable.clone_from(durable);
        }
        [shard]
    }
}

impl Config {
    /// The shards of all pipelines, in their order.
    pub fn shards(&self) -> impl Iterator<Item = (&Pipeline, Shard)> {
        self.pipelines.iter().flat_map(|pipeline| pipeline.shards().map(|shard| (pipeline, shard)))
    }
}
