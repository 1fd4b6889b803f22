//! Which message waits longest.

use async_nats::Client;
use async_nats::jetstream::stream;

use crate::config::Pipeline;
use crate::stored::{self, Seen};

/// When the stream stored the first message after the sequence `after` that `pipeline` reads, in nanoseconds since the Unix
/// epoch; `None` where it holds none. One that the client library cannot read counts like any other.
pub(crate) async fn oldest(
    client: &Client,
    stream: &stream::Info,
    pipeline: &Pipeline,
    after: u64,
) -> Result<Option<i64>, stored::Error> {
    let from = (after + 1).max(stream.state.first_sequence);
    let first: Option<Seen> = stored::first(client, &stream.config.name, from, &pipeline.subjects).await?;
    Ok(first.map(|message| message.timestamp_ns))
}
