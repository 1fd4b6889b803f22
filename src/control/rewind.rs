//! `jetcopy rewind`: moves a checkpoint back, so that what follows is written again.
//!
//! Guarantees: it never moves a checkpoint forward, to where the stream holds nothing any more, or under a
//! daemon that writes; the plan is what is done, or nothing is. It takes no row away: those that are written
//! again are then there twice, unless a key refuses them, and the plan says which.

use async_nats::jetstream;
use jiff::Timestamp;
use postgres_protocol::escape::escape_identifier;

use super::{Error as Control, ask, claim, failed};
use crate::audit::contents::Contents;
use crate::checkpoint;
use crate::config::{Config, OnConflict, Pipeline, SEQUENCE};
use crate::dead_letter::of_shard;
use crate::identity;
use crate::milestones;
use crate::moment::Point;
use crate::nats;
use crate::postgres::connect::Session;
use crate::postgres::introspect::{self, IntrospectError};
use crate::shard::Shard;
use crate::stored::Opened;

/// How the servers know the sessions.
pub(crate) const CLIENT_NAME: &str = "jetcopy rewind";

/// What a rewind would do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The checkpoint as it is.
    pub from: u64,
    /// The checkpoint as it would be.
    pub to: u64,
    /// Messages that would be written again.
    pub messages: u64,
    /// The tables that they filled.
    pub tables: Vec<Doubled>,
    /// Dead letters that would be there twice.
    pub dead_letters: u64,
}

/// Rows that would be there twice.
#[derive(Debug, Clone)]
pub(crate) struct Doubled {
    /// The table as configured.
    pub table: String,
    /// How many; `None` where no column keeps `$sequence`.
    pub rows: Option<u64>,
    /// What removes them; `None` where it cannot be told which they are, or where a key keeps them from being
    /// doubled.
    pub delete: Option<String>,
    /// Whether `on_conflict` keeps them from being doubled.
    pub keyed: bool,
    /// Whether other shards fill the table with rows of the same sequences.
    pub sharded: bool,
}

/// Why nothing can be rewound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database or its schema.
    #[error(transparent)]
    Control(#[from] Control),
    /// No connection to NATS.
    #[error("no connection to NATS")]
    Nats(#[from] nats::ConnectError),
    /// The stream cannot be read.
    #[error("cannot read stream {stream}")]
    Stream {
        stream: String,
        /// What the client said.
        source: async_nats::Error,
    },
    /// A target table cannot be read.
    #[error("cannot read the target table")]
    Introspect(#[from] IntrospectError),
    /// Nothing was written yet.
    #[error("pipeline {0} has no checkpoint yet: it has written nothing")]
    NoCheckpoint(String),
    /// The stream is not the one that was read.
    #[error("the stream was recreated after the checkpoint, so there is nothing to go back to")]
    Recreated,
    /// It would go forward, or nowhere.
    #[error("the checkpoint is at {from}: {to} is not before it")]
    NotBack {
        from: u64,
        /// Where to.
        to: u64,
    },
    /// What would be written again is not there any more.
    #[error("the stream starts at sequence {first}: the checkpoint cannot go back further than {}",
        .first.saturating_sub(1))]
    Dropped {
        /// First sequence that the stream holds.
        first: u64,
    },
    /// A daemon writes.
    #[error("{owner} is running this pipeline: stop it, or run `jetcopy pause {pipeline}` first")]
    Live {
        /// The daemon, as in `jetcopy.checkpoints.owner`.
        owner: String,
        pipeline: String,
    },
    /// The checkpoint has moved since the plan was made.
    #[error("the checkpoint has moved in the meantime; nothing was changed")]
    Moved,
}

/// Opens the stream of `shard`.
pub(crate) async fn stream(client: async_nats::Client, shard: &Shard) -> Result<Opened, Error> {
    let stream = jetstream::new(client.clone()).get_stream(&shard.stream).await;
    stream
        .map(|stream| Opened { client, stream })
        .map_err(|source| Error::Stream { stream: shard.stream.clone(), source: source.into() })
}

/// The last sequence before `point`: messages from there on are at the point or later.
pub(crate) async fn before(stream: &Opened, shard: &Shard, point: Timestamp) -> Result<u64, Error> {
    let before_us = point.as_microsecond().saturating_sub(1);
    let failed = |source| Error::Stream { stream: shard.stream.clone(), source };
    identity::kept_sequence(stream, before_us).await.map_err(|error| failed(error.into()))
}

/// Looks at what going back to `point` would mean: a sequence is the new checkpoint; with a time, what was
/// stored then or later is written again.
pub(crate) async fn plan(
    config: &Config,
    pipeline: &Pipeline,
    shard: &Shard,
    session: &Session,
    point: Point,
) -> Result<Plan, Error> {
    let owner = checkpoint::live_owner(&session.client, shard).await;
    if let Some(owner) = owner.map_err(failed("read the checkpoint's owner"))? {
        return Err(Error::Live { owner, pipeline: shard.argument() });
    }
    let claim = claim(session, shard).await?;
    let Some(claim) = claim.filter(|claim| claim.stream_created_ns.is_some()) else {
        return Err(Error::NoCheckpoint(shard.to_string()));
    };
    let from = claim.last_sequence;
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await?;
    let stream = stream(connection.client.clone(), shard).await?;
    let info = stream.cached_info();
    let milestones = milestones::read(&session.client, &shard.name).await;
    let milestones = milestones.map_err(failed("read jetcopy.milestones"))?;
    let same = identity::is_same(&stream, &claim, &milestones).await;
    if !same.map_err(|error| Error::Stream { stream: shard.stream.clone(), source: error.into() })? {
        return Err(Error::Recreated);
    }
    let to = match point {
        Point::Sequence(sequence) => sequence,
        Point::Time(time) => before(&stream, shard, time).await?,
    };
    if to >= from {
        return Err(Error::NotBack { from, to });
    }
    let first = info.state.first_sequence;
    if first > to + 1 {
        return Err(Error::Dropped { first });
    }
    let unread = |source| Error::Stream { stream: shard.stream.clone(), source };
    // Of several writers, some may be ahead.
    let ahead = claim.lanes.greatest();
    let messages = Contents::new(&stream, &pipeline.subjects).count(to + 1, ahead).await.map_err(unread)?;

    let tables = doubled(config, pipeline, session, to, None).await?;
    let dead_letters = of_shard::count(&session.client, shard, to + 1, None).await;
    let dead_letters = dead_letters.map_err(failed("count the dead letters"))?;
    Ok(Plan { from, to, messages, tables, dead_letters })
}

/// The rows that would be there twice if what follows sequence `after` were written again; up to `last`,
/// where only that would be.
pub(crate) async fn doubled(
    config: &Config,
    pipeline: &Pipeline,
    session: &Session,
    after: u64,
    last: Option<u64>,
) -> Result<Vec<Doubled>, Error> {
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for table in &pipeline.tables {
        let qualified = introspect::introspect(&session.client, &table.name).await?.qualified;
        let keyed = table.on_conflict != OnConflict::Error;
        let mut others = config.pipelines.iter().filter(|other| other.name != pipeline.name);
        let sharded = pipeline.repeats_sequences();
        let is_others = others.any(|other| other.tables.iter().any(|found| found.name == table.name));
        let alone = !sharded && !is_others;
        let Some(column) = table.column_of(SEQUENCE).filter(|_| alone).map(escape_identifier) else {
            tables.push(Doubled { table: table.name.clone(), rows: None, delete: None, keyed, sharded });
            continue;
        };
        let which = match last {
            Some(last) => format!("FROM {qualified} WHERE {column} > {after} AND {column} <= {last}"),
            None => format!("FROM {qualified} WHERE {column} > {after}"),
        };
        let found = ask(session, "count the rows", &format!("SELECT count(*) {which}")).await?;
        tables.push(Doubled {
            table: table.name.clone(),
            rows: Some(found.number(0).unwrap_or(0)),
            delete: (!keyed).then(|| format!("DELETE {which};")),
            keyed,
            sharded,
        });
    }
    Ok(tables)
}

/// Does what `plan` says, unless anything has moved since.
pub(crate) async fn rewind(session: &Session, shard: &Shard, plan: &Plan) -> Result<(), Error> {
    let moved = checkpoint::move_back(&session.client, shard, plan.from, plan.to).await;
    if moved.map_err(failed("move the checkpoint back"))? { Ok(()) } else { Err(Error::Moved) }
}
