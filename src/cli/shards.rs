//! Which shards of a pipeline a command is for.
//!
//! Guarantees: without `--shard` it is all of them, or the only one; a command that can do with one only
//! names those that there are.

use super::UnknownPipeline;
use crate::config::{Config, Pipeline};
use crate::shard::Shard;

/// The pipeline, and its shards where not all are meant.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// The pipeline.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Only this shard of it: its number, or its name as `jetcopy status` shows it.
    #[arg(long, value_name = "SHARD")]
    pub shard: Option<String>,
}

/// No shard could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum NoShard {
    /// The configuration has no such pipeline.
    #[error(transparent)]
    Pipeline(#[from] UnknownPipeline),
    /// The pipeline has no such shard.
    #[error("pipeline {pipeline} has no shard {shard}; it has: {known}")]
    Unknown {
        /// The pipeline.
        pipeline: String,
        /// What was asked for.
        shard: String,
        /// What there is.
        known: String,
    },
    /// It is for one shard only.
    #[error("pipeline {pipeline} has several shards, and {what}: name one with --shard, of {known}")]
    Several {
        /// The pipeline.
        pipeline: String,
        /// Why that matters.
        what: &'static str,
        /// What there is.
        known: String,
    },
}

impl Which {
    /// The pipeline, and all shards that are meant.
    pub fn all<'c>(&self, config: &'c Config) -> Result<(&'c Pipeline, Vec<Shard>), NoShard> {
        let pipeline = UnknownPipeline::find(config, &self.pipeline)?;
        Ok((pipeline, chosen(pipeline, self.shard.as_deref())?))
    }

    /// The pipeline, and the only shard that is meant; `what` says why it can be one only.
    pub fn one<'c>(&self, config: &'c Config, what: &'static str) -> Result<(&'c Pipeline, Shard), NoShard> {
        let (pipeline, mut shards) = self.all(config)?;
        match (shards.pop(), shards.is_empty()) {
            (Some(shard), true) => Ok((pipeline, shard)),
            _ => Err(NoShard::Several { pipeline: pipeline.name.clone(), what, known: known(pipeline) }),
        }
    }

    /// The pipeline, and all shards that are meant; where a `sequence` is, which is one of a stream, the only
    /// one.
    pub fn counting<'c>(
        &self,
        config: &'c Config,
        sequence: Option<u64>,
    ) -> Result<(&'c Pipeline, Vec<Shard>), NoShard> {
        if sequence.is_none() {
            return self.all(config);
        }
        self.one(config, "a sequence is one of a stream").map(|(pipeline, shard)| (pipeline, vec![shard]))
    }
}

/// The shards of a pipeline; where one is named, by its name or its number, that one.
pub fn chosen(pipeline: &Pipeline, named: Option<&str>) -> Result<Vec<Shard>, NoShard> {
    let shards = pipeline.shards();
    let Some(named) = named else { return Ok(shards) };
    let is = |shard: &Shard| shard.name == named || shard.number() == Some(named);
    let found: Vec<Shard> = shards.into_iter().filter(is).collect();
    if found.is_empty() {
        let (pipeline, known) = (pipeline.name.clone(), known(pipeline));
        return Err(NoShard::Unknown { pipeline, shard: named.to_owned(), known });
    }
    Ok(found)
}

fn known(pipeline: &Pipeline) -> String {
    pipeline.shards().into_iter().map(|shard| shard.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn config() -> Config {
        let text = "[[pipeline]]\nname = \"frames\"\nstream = \"FRAMES_{shard}\"\nshards = 3\n\
                    before = \"FRAMES\"\n[[pipeline.table]]\nname = \"frames\"\n\
                    [[pipeline]]\nname = \"events\"\nstream = \"EVENTS\"\n\
                    [[pipeline.table]]\nname = \"events\"";
        Figment::from(Toml::string(text)).extract().unwrap()
    }

    fn which(pipeline: &str, shard: Option<&str>) -> Which {
        Which { pipeline: pipeline.into(), shard: shard.map(str::to_owned) }
    }

    #[test]
    fn all_shards_are_meant_unless_one_is_named_by_name_or_number() {
        let config = config();
        let names = |shard| {
            let (_, shards) = which("frames", shard).all(&config).unwrap();
            shards.into_iter().map(|shard| shard.name).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["frames", "frames-0", "frames-1", "frames-2"]);
        assert_eq!(names(Some("2")), ["frames-2"]);
        assert_eq!(names(Some("frames-2")), ["frames-2"]);
        assert_eq!(names(Some("frames")), ["frames"]);
    }

    #[test]
    fn who_needs_one_shard_is_told_which_there_are() {
        let config = config();
        assert_eq!(
            which("events", None).one(&config, "a sequence is one of a stream").unwrap().1.name,
            "events"
        );
        let error = which("frames", None).one(&config, "a sequence is one of a stream").unwrap_err();
        let said = "pipeline frames has several shards, and a sequence is one of a stream: name one with \
                    --shard, of frames, frames-0, frames-1, frames-2";
        assert_eq!(error.to_string(), said);
        let error = which("frames", Some("3")).all(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pipeline frames has no shard 3; it has: frames, frames-0, frames-1, frames-2"
        );
        assert!(which("other", None).all(&config).is_err());
    }
}
