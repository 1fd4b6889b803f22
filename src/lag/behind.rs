//! Which message waits longest.

use async_nats::Client;
use async_nats::jetstream::stream;

use crate::config::Pipeline;
use crate::stored::{self, Seen};

/// A message that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Oldest {
    pub(crate) sequence: u64,
    /// When the stream stored it, in nanoseconds since the Unix epoch.
    pub(crate) timestamp_ns: i64,
}

/// The first message after the sequence `after` that `pipeline` reads; `None` where the stream holds none.
/// One that the client library cannot read counts like any other.
pub(crate) async fn oldest(
    client: &Client,
    stream: &stream::Info,
    pipeline: &Pipeline,
    after: u64,
) -> Result<Option<Oldest>, stored::Error> {
    let from = (after + 1).max(stream.state.first_sequence);
    let first: Option<Seen> = stored::first(client, &stream.config.name, from, &pipeline.subjects).await?;
    Ok(first.map(|message| Oldest { sequence: message.sequence, timestamp_ns: message.timestamp_ns }))
}
