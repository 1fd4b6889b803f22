//! Where a generation asks about its stream.
//!
//! Guarantees: an answer never waits behind deliveries, and no message takes a question along with its
//! connection.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::Stream;

use super::Error;
use crate::approach::Approach;
use crate::config;
use crate::nats::Connection;
use crate::shard::Shard;

/// How long a connection that is kept may take to answer, before another is opened: it may be half-open, and
/// a new one is there in milliseconds.
const STILL_THERE: Duration = Duration::from_secs(1);

impl Approach {
    /// The stream of `shard`, over a connection for questions about it: answers do not come behind
    /// deliveries there, and a message that ends the connection on which it is delivered takes no question
    /// along. The connection is kept from one generation to the next while it answers.
    pub(crate) async fn questions(
        &self,
        settings: &config::Nats,
        shard: &Shard,
        name: &str,
    ) -> Result<(Connection, Stream), Error> {
        let mut kept = self.questions.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_broken()) {
            let context = jetstream::new(connection.client.clone());
            let asked = tokio::time::timeout(STILL_THERE, context.get_stream(&shard.stream)).await;
            if let Ok(Ok(stream)) = asked {
                return Ok((connection.clone(), stream));
            }
        }
        let connection = kept.insert(Connection::open(settings, name).await?).clone();
        let stream = jetstream::new(connection.client.clone()).get_stream(&shard.stream).await;
        let failed = |source| Error::Stream { stream: shard.stream.clone(), source };
        Ok((connection, stream.map_err(failed)?))
    }
}
