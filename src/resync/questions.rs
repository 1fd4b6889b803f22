//! Where a generation asks about its stream.
//!
//! Guarantees: an answer never waits behind deliveries, and no message takes a question along with its
//! connection. A stream or a durable without a leader is no answer, and known as that within seconds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::Stream;

use super::{Error, open, prompt};
use crate::approach::Approach;
use crate::config;
use crate::nats::{Connection, Denial};
use crate::shard::Shard;
use crate::subscribe;

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
            let context = prompt(connection);
            let asked = tokio::time::timeout(STILL_THERE, open(connection, &context, shard));
            if let Ok(Ok(stream)) = asked.await {
                return Ok((connection.clone(), stream));
            }
        }
        *kept = None;
        let connection = Connection::open(settings, name).await?;
        let context = prompt(&connection);
        let stream = tokio::select! {
            stream = open(&connection, &context, shard) => stream?,
            // What is not allowed is not answered.
            denial = connection.denied(Denial::is_needed) => return Err(Error::Denied(denial)),
        };
        Ok((kept.insert(connection).clone(), stream))
    }

    /// The durable of `shard`, where there is one.
    pub(super) async fn durable(
        &self,
        settings: &config::Nats,
        shard: &Shard,
        name: &str,
    ) -> Result<Option<consumer::Info>, Error> {
        self.unanswered.store(true, Ordering::Relaxed);
        let (connection, stream) = self.questions(settings, shard, name).await?;
        let denied = connection.denied(Denial::is_needed);
        let found = tokio::select! {
            found = subscribe::find(&stream, shard) => found.map_err(Error::from),
            denial = denied => Err(Error::Denied(denial)),
        };
        if found.is_err() {
            // Its next connection may be to a server that knows more, or allows more.
            *self.questions.lock().await = None;
        }
        self.unanswered.store(found.is_err(), Ordering::Relaxed);
        found
    }
}
