//! Durables of pipelines that are no longer configured: a pipeline that is removed or renamed leaves its own
//! behind.
//!
//! Guarantees: only what jetcopy marked as its own when it made it is looked at, and what this configuration
//! names is never among it. What may be another daemon's is never removed: one that somebody pulls from,
//! whose shard somebody holds or has paused, or that belongs to another database. A durable is a cursor: the
//! position lies in the database, and a pipeline that is configured again makes itself another.
//!
//! Not looked at: durables of versions that did not mark them; `nats consumer rm` removes those.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self};
use futures_util::TryStreamExt as _;
use serde::Serialize;
use tokio::time::timeout;

use crate::checkpoint::{self, Keeper};
use crate::config::{Config, ConnInfo, HostInfo};
use crate::nats;
use crate::postgres::connect;
use crate::postgres::timeline::History;
use crate::shard::Shard;

/// How the servers know the sessions.
const CLIENT_NAME: &str = "jetcopy durables";

/// How long the list of a stream's consumers may take; where it is not allowed, no answer comes.
const ANSWER: Duration = Duration::from_secs(3);

/// The key in a durable's metadata that names its pipeline.
const PIPELINE: &str = "jetcopy.pipeline";
/// The key that names the database.
const DATABASE: &str = "jetcopy.database";
/// The key that names the cluster, of which there may be several at addresses that read the same.
const SYSTEM: &str = "jetcopy.system";
/// The key that names the newest timeline of that cluster on which the pipeline was placed: a daemon that
/// starts over knows by it that a primary is one from before a failover.
pub(crate) const TIMELINE: &str = "jetcopy.timeline";
/// The key that names the sequence after which a pipeline with `start = "new"` began: if a failover takes its
/// checkpoint away, it begins there again.
pub(crate) const BEGUN: &str = "jetcopy.begun";

/// A durable whose pipeline this configuration does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Leftover {
    pub stream: String,
    pub durable: String,
    /// The pipeline that it was made for.
    pub pipeline: String,
    /// Messages that it holds back as not acknowledged, or has yet to deliver.
    pub messages: u64,
    /// Why it is not removed; `None` where it may be.
    pub kept: Option<String>,
}

/// Why durables cannot be listed or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection to NATS.
    #[error(transparent)]
    Nats(#[from] nats::ConnectError),
    /// No connection to the database, where leases are.
    #[error(transparent)]
    Postgres(#[from] connect::ConnectError),
    /// The database does not say who holds what.
    #[error("cannot read the checkpoints")]
    Checkpoints(#[from] tokio_postgres::Error),
    /// The stream's durables cannot be listed or removed.
    #[error("cannot {action} on stream {stream}")]
    Stream {
        /// What was to be done.
        action: &'static str,
        stream: String,
        /// What the client said.
        source: async_nats::Error,
    },
    /// No answer.
    #[error(
        "listing the durable consumers of stream {stream} timed out after {} s: the user needs permission \
         for $JS.API.CONSUMER.LIST.{stream}",
        ANSWER.as_secs()
    )]
    Unanswered { stream: String },
}

/// What a durable is marked with: whose it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark(HashMap<String, String>);

/// Whose a durable is that stands under a pipeline's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The pipeline's own.
    Own,
    /// That of another pipeline, or of one of this name that writes to another database.
    Elsewhere {
        pipeline: String,
        /// The database, for people.
        database: String,
    },
    /// None of jetcopy's, as far as it says.
    Unmarked,
}

impl Mark {
    /// That of a durable of `pipeline`, whose database writes on `history`, where that is known.
    #[must_use]
    pub(crate) fn new(config: &Config, pipeline: &str, history: Option<&History>) -> Self {
        let own = [(PIPELINE, pipeline.to_owned()), (DATABASE, database(config))];
        let told = history
            .into_iter()
            .flat_map(|history| [(SYSTEM, history.system.clone()), (TIMELINE, history.timeline.to_string())]);
        Self(own.into_iter().chain(told).map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The history that a durable tells of.
    #[must_use]
    pub(crate) fn history(durable: &Info) -> Option<History> {
        let metadata = &durable.config.metadata;
        let timeline = metadata.get(TIMELINE)?.parse().ok()?;
        Some(History { system: metadata.get(SYSTEM)?.clone(), timeline })
    }

    /// After which sequence the pipeline of a durable began, where it tells.
    pub(crate) fn begun(durable: &Info) -> Option<u64> {
        durable.config.metadata.get(BEGUN)?.parse().ok()
    }

    /// Whose `durable` is.
    pub(crate) fn owner(&self, durable: &Info) -> Owner {
        let metadata = &durable.config.metadata;
        let (own, found) = (|key: &str| self.0.get(key), |key: &str| metadata.get(key));
        let Some(pipeline) = found(PIPELINE) else { return Owner::Unmarked };
        let differs = |key: &str| found(key).is_some() && own(key).is_some() && found(key) != own(key);
        let named = found(DATABASE).map_or("", String::as_str);
        let database = if differs(PIPELINE) || differs(DATABASE) {
            named.to_owned()
        } else if differs(SYSTEM) {
            format!("{named} of another cluster (system identifier {})", metadata[SYSTEM])
        } else {
            return Owner::Own;
        };
        Owner::Elsewhere { pipeline: pipeline.clone(), database }
    }

    /// As it is written into the metadata of a durable whose pipeline began after the sequence `begun`.
    #[must_use]
    pub(crate) fn metadata(&self, begun: Option<u64>) -> HashMap<String, String> {
        let begun = begun.map(|sequence| (BEGUN.to_owned(), sequence.to_string()));
        self.0.clone().into_iter().chain(begun).collect()
    }
}

/// The database as its address names it: hosts in one order, without who connects.
fn database(config: &Config) -> String {
    let Ok(info) = ConnInfo::resolve(&config.postgres.url) else { return String::new() };
    let hosts: BTreeSet<String> = info.hosts.iter().map(HostInfo::label).collect();
    format!("{}/{}", hosts.into_iter().collect::<Vec<_>>().join(","), info.dbname)
}

/// Lists what was left on the streams of the configuration, and on `more`.
pub(crate) async fn list(config: &Config, more: &[String]) -> Result<Vec<Leftover>, Error> {
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await?;
    let context = jetstream::new(connection.client.clone());
    let read = config.shards().map(|(_, shard)| shard.stream);
    let streams: BTreeSet<String> = read.chain(more.iter().cloned()).collect();
    let mut found = Vec::new();
    for name in &streams {
        let failed = |source: async_nats::Error| Error::Stream {
            action: "list the durables",
            stream: name.clone(),
            source,
        };
        let stream = context.get_stream(name).await.map_err(|error| failed(error.into()))?;
        let listed = timeout(ANSWER, stream.consumers().try_collect::<Vec<Info>>()).await;
        let listed = listed.map_err(|_| Error::Unanswered { stream: name.clone() })?;
        found.extend(listed.map_err(|error| failed(error.into()))?);
    }
    let mut left: Vec<Leftover> = found.iter().filter_map(|durable| leftover(config, durable)).collect();
    if left.iter().any(|left| left.kept.is_none()) {
        look_for_owners(config, &mut left).await?;
    }
    Ok(left)
}

/// What a durable is to this configuration; `None` where it is its own, or none of jetcopy's.
fn leftover(config: &Config, durable: &Info) -> Option<Leftover> {
    let metadata = &durable.config.metadata;
    let pipeline = metadata.get(PIPELINE)?;
    let own = |shard: &Shard| {
        shard.pipeline == *pipeline || (shard.stream == durable.stream_name && shard.durable == durable.name)
    };
    if config.shards().any(|(_, shard)| own(&shard)) {
        return None;
    }
    let elsewhere = metadata.get(DATABASE).filter(|named| **named != database(config));
    let kept = if durable.num_waiting > 0 {
        Some("a client pulls from it".to_owned())
    } else {
        elsewhere.map(|named| format!("its pipeline writes to {named}: use a configuration of that database"))
    };
    Some(Leftover {
        stream: durable.stream_name.clone(),
        durable: durable.name.clone(),
        pipeline: pipeline.clone(),
        messages: durable.num_pending + durable.num_ack_pending as u64,
        kept,
    })
}

/// Keeps what a daemon holds, or an operator has paused.
async fn look_for_owners(config: &Config, left: &mut [Leftover]) -> Result<(), Error> {
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await?;
    for left in left.iter_mut().filter(|left| left.kept.is_none()) {
        for keeper in checkpoint::keepers(&session.client, &left.pipeline).await? {
            left.kept = Some(match keeper {
                Keeper::Daemon(owner) => format!("{owner} is running its pipeline"),
                Keeper::Operator => "its pipeline is paused, so it may be resumed".to_owned(),
            });
        }
    }
    session.close().await;
    Ok(())
}

/// Removes what [`list`] found and nothing keeps. It is looked at once more: who has begun to pull meanwhile
/// keeps it.
pub(crate) async fn remove(config: &Config, left: &Leftover) -> Result<bool, Error> {
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await?;
    let failed = |source: async_nats::Error| Error::Stream {
        action: "remove a durable",
        stream: left.stream.clone(),
        source,
    };
    let context = jetstream::new(connection.client.clone());
    let stream: Stream<()> =
        context.get_stream_no_info(&left.stream).await.map_err(|error| failed(error.into()))?;
    let now = stream.consumer_info(&left.durable).await.map_err(|error| failed(error.into()))?;
    if leftover(config, &now).is_none_or(|now| now.kept.is_some()) {
        return Ok(false);
    }
    stream.delete_consumer(&left.durable).await.map_err(|error| failed(error.into()))?;
    Ok(true)
}
