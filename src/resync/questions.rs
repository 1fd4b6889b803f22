//! Where a generation asks about its stream.
//!
//! Guarantees: an answer never waits behind deliveries, and no message takes a question along with its
//! connection. A stream or a durable without a leader is no answer, and known as that within seconds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::Stream;
use tokio::time::timeout;

use super::{Error, LEADER_TIMEOUT, open, prompt};
use crate::approach::Approach;
use crate::config;
use crate::nats::{Connection, Denial};
use crate::shard::Shard;
use crate::subscribe;

/// How long a connection that is kept may take to answer, before another is opened: it may be half-open, and
/// a new one is there in milliseconds.
const STILL_THERE: Duration = Duration::from_secs(1);

/// How long a durable of this process may take to answer, when its stream has just answered: one step more of
/// the same servers.
const LEADERLESS: Duration = Duration::from_millis(600);

/// When another is replaced: if a new one has no leader either, its servers need the time to elect one.
const REPLACE_AGAIN: Duration = Duration::from_secs(20);

/// A durable as it was found.
#[derive(Debug)]
pub(super) enum Durable {
    /// Like this.
    Found(Box<consumer::Info>),
    /// There is none.
    Missing,
    /// It has no leader, and is to be replaced: the servers take 4 to 9 s to elect one, a new durable has one
    /// at once.
    Silent,
}

impl From<Option<consumer::Info>> for Durable {
    fn from(found: Option<consumer::Info>) -> Self {
        found.map_or(Self::Missing, |found| Self::Found(Box::new(found)))
    }
}

impl Durable {
    /// What is known of it.
    pub(super) fn info(&self) -> Option<&consumer::Info> {
        match self {
            Self::Found(info) => Some(info),
            Self::Missing | Self::Silent => None,
        }
    }
}

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
            let asked = timeout(STILL_THERE, open(connection, &context, shard));
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

    /// The durable of `shard`.
    pub(super) async fn durable(
        &self,
        settings: &config::Nats,
        shard: &Shard,
        name: &str,
    ) -> Result<Durable, Error> {
        self.unanswered.store(true, Ordering::Relaxed);
        let (connection, stream) = self.questions(settings, shard, name).await?;
        let denied = connection.denied(Denial::is_needed);
        // One that this process placed is its own, and may be replaced.
        let replaceable = self.is_placed() && self.replaced().is_none_or(|at| at.elapsed() > REPLACE_AGAIN);
        let limit = if replaceable { LEADERLESS } else { LEADER_TIMEOUT };
        let found = tokio::select! {
            found = timeout(limit, subscribe::find(&stream, shard)) => match found {
                // Without a leader it does not answer, or its servers say so: those that have known each
                // other for more than 10 s do.
                Err(_) | Ok(Err(subscribe::Error::Leaderless { .. })) if replaceable => {
                    *self.replaced() = Some(Instant::now());
                    Ok(Durable::Silent)
                }
                Err(_) => Err(Error::Leaderless { durable: shard.durable.clone() }),
                Ok(found) => found.map(Durable::from).map_err(Error::from),
            },
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
