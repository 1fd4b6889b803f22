//! Messages that nobody reads any more: of shards whose checkpoints are there, and that the configuration no
//! longer names.
//!
//! Guarantees: a shard counts only if its pipeline is configured and its stream holds a message of the
//! pipeline's after its checkpoint. That is what `before` leaves when it is removed too soon, and a smaller
//! number of shards. Nothing is changed, claimed or read for it.
//!
//! Not looked at: pipelines that are not configured at all; see [`crate::leftover`].

use async_nats::Client;
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use serde::Serialize;

use crate::checkpoint::Place;
use crate::config::{Config, Pipeline};
use crate::stored::{self, Seen};

/// A shard that nobody reads, with messages that are left in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LeftBehind {
    pub(crate) pipeline: String,
    pub(crate) shard: String,
    pub(crate) stream: String,
    /// The last sequence that is committed.
    pub(crate) checkpoint: u64,
    /// Messages after it, at most: the pipeline may read some of the subjects only.
    pub(crate) messages: u64,
    /// What mends it.
    pub(crate) remedy: String,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The stream.
    #[error("cannot look at stream {stream}")]
    Stream { stream: String, source: GetStreamError },
    /// What it holds.
    #[error(transparent)]
    Message(#[from] stored::Error),
}

impl LeftBehind {
    /// What is wrong.
    pub(crate) fn text(&self) -> String {
        let Self { shard, stream, checkpoint, messages, .. } = self;
        format!(
            "stream {stream} still holds up to {messages} messages after sequence {checkpoint} that nobody \
             reads: shard {shard} is no longer configured"
        )
    }
}

fn remedy(place: &Place) -> String {
    if place.shard == place.pipeline {
        format!("add `before = \"{}\"` to the pipeline until the stream is empty", place.stream)
    } else {
        "raise `shards` again until the stream is empty, and let nothing publish to it".to_owned()
    }
}

/// The places of configured pipelines that none of their shards has.
fn strays<'a>(config: &'a Config, places: &'a [Place]) -> impl Iterator<Item = (&'a Pipeline, &'a Place)> {
    let configured = |place: &Place| config.shards().any(|(_, shard)| shard.name == place.shard);
    places.iter().filter(move |place| !configured(place)).filter_map(|place| {
        let pipeline = config.pipelines.iter().find(|pipeline| pipeline.name == place.pipeline)?;
        Some((pipeline, place))
    })
}

/// Whether there is anything to ask NATS about.
pub(crate) fn may_be(config: &Config, places: &[Place]) -> bool {
    strays(config, places).next().is_some()
}

/// What is left behind, of all places that there are.
pub(crate) async fn find(
    config: &Config,
    client: &Client,
    places: &[Place],
) -> Result<Vec<LeftBehind>, Error> {
    let context = jetstream::new(client.clone());
    let mut found = Vec::new();
    for (pipeline, place) in strays(config, places) {
        let stream = match context.get_stream(&place.stream).await {
            Ok(stream) => stream,
            // Nothing is left of it.
            Err(error) if is_gone(&error) => continue,
            Err(source) => return Err(Error::Stream { stream: place.stream.clone(), source }),
        };
        let state = &stream.cached_info().state;
        let from = (place.checkpoint + 1).max(state.first_sequence);
        let first: Option<Seen> = stored::first(client, &place.stream, from, &pipeline.subjects).await?;
        if first.is_some() {
            found.push(LeftBehind {
                pipeline: place.pipeline.clone(),
                shard: place.shard.clone(),
                stream: place.stream.clone(),
                checkpoint: place.checkpoint,
                messages: state.messages.min(state.last_sequence.saturating_sub(place.checkpoint)),
                remedy: remedy(place),
            });
        }
    }
    Ok(found)
}

fn is_gone(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
