//! What the configured pipelines read.
//!
//! Guarantees: this is the only place that makes the names of shards, streams and durable consumers out of
//! settings. The names of a pipeline's shards begin with its own, and are as good for a durable consumer, a
//! metric's label and an application name.

use super::{Config, Pipeline};
use crate::lanes::Layout;
use crate::shard::Shard;

/// What stands for a shard's number in `stream`.
pub(super) const PLACEHOLDER: &str = "{shard}";

impl Pipeline {
    /// What it reads, stream by stream: the stream that its shards take the place of comes first.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let named = |mut shard: Shard| {
            if let Some(durable) = &self.durable {
                shard.durable.clone_from(durable);
            }
            shard
        };
        let whole = |stream: &String| Shard::new(&self.name, &self.name, stream);
        if !self.is_sharded() {
            return vec![named(whole(&self.stream))];
        }
        let numbered = (0..self.shards.unwrap_or(1)).map(|number| {
            let stream = self.stream.replace(PLACEHOLDER, &number.to_string());
            Shard::new(&self.name, &format!("{}-{number}", self.name), &stream)
        });
        self.before.iter().map(whole).chain(numbered).map(named).collect()
    }

    /// Whether its shards have numbers.
    #[must_use]
    pub fn is_sharded(&self) -> bool {
        self.stream.contains(PLACEHOLDER)
    }

    /// Whether a sequence can be that of several messages: each of its streams counts for itself.
    #[must_use]
    pub fn repeats_sequences(&self) -> bool {
        self.is_sharded() && (self.before.is_some() || self.shards.is_some_and(|shards| shards > 1))
    }

    /// How the sequences of a shard are shared out among its writers: each has about a batch at a time.
    #[must_use]
    pub(crate) fn layout(&self) -> Layout {
        match self.writers {
            0 | 1 => Layout::SINGLE,
            lanes => Layout::new(lanes, self.batch.max_rows as u64),
        }
    }
}

impl Config {
    /// The shards of all pipelines, in their order.
    pub fn shards(&self) -> impl Iterator<Item = (&Pipeline, Shard)> {
        self.pipelines
            .iter()
            .flat_map(|pipeline| pipeline.shards().into_iter().map(move |shard| (pipeline, shard)))
    }
}
