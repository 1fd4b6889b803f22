//! The one way to start, to recover and to replay: from the checkpoint that the database holds.
//!
//! Guarantees: a [`Ready`] generation owns the shard under a new epoch, its durable stands right after the
//! checkpoint, and the stream is the one that the checkpoint counts in.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{
    Context, ContextBuilder, GetStreamError, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::Stream;

use crate::approach::{Approach, Begin, Look};
use crate::checkpoint::{self, Claim, Claimed, LOCK_TIMEOUT};
use crate::clock;
use crate::config;
use crate::decode::{Decoder, PlanError};
use crate::exposure;
use crate::leftover::Mark;
use crate::loss::{self, Agreement, Cause, Loss, Verdict};
use crate::metrics::{PipelineMetrics, Resumes};
use crate::milestones;
use crate::nats::{self, Denial};
use crate::postgres::connect::{self, ConnectError, Session};
use crate::postgres::direct_compress::{self, DirectCompressError};
use crate::postgres::introspect::{self, IntrospectError};
use crate::postgres::privileges;
use crate::postgres::servers::Servers;
use crate::postgres::simple::{Timeout, within};
use crate::shard::Shard;
use crate::stored;
use crate::subscribe::{self, Placement};
use crate::tally::{self, Event};
use crate::unreadable::{self, Single};

mod judge;
mod questions;
mod start;

pub(crate) use judge::judge;
use questions::Durable;

/// How long stream and durable may take to answer before anything else is asked of them. A replicated one
/// without a leader does not answer at all, and a request lasts 10 s: asked again sooner, the next leader is
/// met sooner.
const LEADER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// All that a generation starts with.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The database, on which the shard is claimed.
    pub session: Session,
    /// The connection that the subscription lives on.
    pub nats: nats::Connection,
    /// The first messages after the checkpoint, where they were read one by one.
    pub singles: Vec<Single>,
    /// The durable, placed after the checkpoint and those.
    pub consumer: PullConsumer,
    /// Epoch and checkpoint.
    pub claim: Claim,
    /// The mapping, compiled against the tables as they are now.
    pub decoder: Decoder,
    /// The tables as they are now, in the order of the configuration.
    pub tables: Vec<introspect::Table>,
}

/// Why a generation cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No database session.
    #[error("no database connection")]
    Postgres(#[from] Arc<ConnectError>),
    /// The server of the session answers nobody any more.
    #[error("the database server at {host} no longer answers")]
    Silent {
        /// Host and port.
        host: String,
    },
    /// The stream answers, the durable does not.
    #[error("durable consumer {durable} has no leader")]
    Leaderless {
        /// Its name.
        durable: String,
    },
    /// No connection to NATS.
    #[error("no connection to NATS")]
    Nats(#[from] nats::ConnectError),
    /// The shard is not ours, or its row cannot be read.
    #[error("cannot claim the shard")]
    Checkpoint(#[from] checkpoint::Error),
    /// The database did not answer in time.
    #[error(transparent)]
    Timeout(#[from] Timeout),
    /// A target table cannot be used.
    #[error("cannot use the target table")]
    Introspect(#[from] IntrospectError),
    /// The rows of a target table cannot be compressed on their way in.
    #[error(transparent)]
    DirectCompress(#[from] DirectCompressError),
    /// Mapping and table do not go together.
    #[error("the mapping does not fit the table")]
    Plan(#[from] PlanError),
    /// The stream cannot be found or read.
    #[error("cannot open stream {stream}")]
    Stream {
        stream: String,
        /// What the client said.
        source: GetStreamError,
    },
    /// Nobody answers JetStream's requests, and the server has none.
    #[error("the NATS server has no JetStream")]
    NoJetStream,
    /// The server does not let the user do what is needed.
    #[error("the NATS server does not let jetcopy's user {0}")]
    Denied(Denial),
    /// It could not be found out how far a stream that was rolled back, restored or moved is the one that was
    /// read.
    #[error("cannot compare the stream's messages with what was committed")]
    Compare(#[source] stored::Error),
    /// The connection is lost again and again, and what comes next cannot be looked at.
    #[error(
        "the connection to NATS is lost at each attempt, and the next message cannot be read individually"
    )]
    Single(#[from] stored::Error),
    /// The stream drops what has been acknowledged, so it cannot be replayed.
    #[error(transparent)]
    Retention(#[from] subscribe::Retention),
    /// The server is older than what jetcopy works with.
    #[error("NATS server {version} is too old: jetcopy needs {} or later", subscribe::least_server())]
    OldServer { version: String },
    /// The stream no longer holds what the checkpoint needs.
    #[error("{0}")]
    Loss(Loss),
    /// The durable could not be placed.
    #[error("cannot place the durable consumer")]
    Place(#[from] subscribe::Error),
}

/// Connects, claims the shard, settles what the stream holds, and places the durable.
///
/// The durable is read before the shard is claimed: it tells whether the database is on the newest timeline,
/// and a daemon that does not reach the stream takes no shard from one that does.
pub(crate) async fn resync(
    settings: &config::Config,
    pipeline: &config::Pipeline,
    shard: &Shard,
    daemon: &str,
    begin: Begin<'_>,
    servers: &Arc<Servers>,
    metrics: &PipelineMetrics,
) -> Result<Ready, Error> {
    let name = shard.session(daemon);
    let ask = async || {
        let durable = begin.approach.durable(&settings.nats, shard, &name).await;
        metrics.nats_up.set((!matches!(durable, Err(Error::Nats(_)))).into());
        durable
    };
    // While NATS does not answer, no login is spent on the database.
    let asked = if begin.approach.unanswered.load(Ordering::Relaxed) { Some(ask().await?) } else { None };
    let session = servers.connect(&settings.postgres, &name).await;
    metrics.meets_database(session.is_ok());
    let session = session?;
    exposure::warn_once(exposure::of_database(&session));
    let durable = match asked {
        Some(durable) => durable,
        None => ask().await?,
    };
    if let (Some(noted), Some(history)) = (durable.info().and_then(Mark::history), session.history()) {
        servers.newest().remember(noted);
        if !servers.newest().admits(history) {
            let host = session.host().to_owned();
            return Err(Arc::new(connect::superseded(host, history.clone())).into());
        }
    }
    let (host, took, started) = (session.host().to_owned(), session.took(), Instant::now());
    let source = Source { settings, pipeline, shard, daemon, metrics, durable };
    tokio::select! {
        ready = source.ready(session, begin) => ready,
        () = servers.falls_silent(&settings.postgres, &host, took, || Some(started.elapsed())) => {
            Err(Error::Silent { host })
        }
    }
}

/// What the stream is settled with.
struct Source<'a> {
    settings: &'a config::Config,
    pipeline: &'a config::Pipeline,
    shard: &'a Shard,
    daemon: &'a str,
    metrics: &'a PipelineMetrics,
    /// The durable as it was found.
    durable: Durable,
}

/// The servers that it is settled on.
#[derive(Clone, Copy)]
struct Reached<'a> {
    session: &'a Session,
    nats: &'a nats::Connection,
}

/// The stream, settled with the checkpoint.
struct Read {
    singles: Vec<Single>,
    consumer: PullConsumer,
    claim: Claim,
}

impl Source<'_> {
    /// Claims the shard, reads the tables and settles the stream.
    async fn ready(self, session: Session, begin: Begin<'_>) -> Result<Ready, Error> {
        let Self { settings, shard, daemon, metrics, .. } = self;
        let step_timeout = settings.postgres.step_timeout;
        // The claim may wait for a lock.
        let claim = checkpoint::claim(&session, shard, daemon, self.pipeline.layout());
        let claim = within(step_timeout + LOCK_TIMEOUT, "claiming the shard", claim).await?;
        if let Err(error) = &claim
            && let Some(checkpoint) = error.checkpoint()
        {
            metrics.stands_at(checkpoint);
        }
        let Claimed { claim, follows } = claim?;
        // A rewind is meant: it leaves no time of the message that it goes back to. A commit does.
        // The position outlives a generation; nothing is known before the first.
        let known = metrics.position.known(follows);
        if begin.approach.moves_to(session.history()) || claim.since_us.is_some() {
            tell_replay(settings, &session, shard, claim.last_sequence, known, metrics).await?;
        }
        metrics.claimed(claim.epoch, claim.last_sequence);
        let recorded = async {
            let tallies = tally::read(&session.client, &shard.name).await;
            tallies.map_err(|source| checkpoint::Error::Database { action: "read the tallies of", source })
        };
        metrics.recorded(&within(step_timeout, "reading the tallies", recorded).await??);
        let (tables, decoder) = self.tables(&session).await?;

        let nats = nats::Connection::open(&settings.nats, &shard.session(daemon)).await;
        metrics.nats_up.set(nats.is_ok().into());
        let nats = nats?;
        exposure::warn_once(exposure::of_nats(&nats.client.server_info(), &settings.nats));
        let reached = Reached { session: &session, nats: &nats };
        let read = tokio::select! {
            read = self.read(reached, claim, known, begin) => read?,
            // What is not allowed is not answered.
            denial = nats.denied(Denial::is_needed) => return Err(Error::Denied(denial)),
        };
        let Read { singles, consumer, claim } = read;
        Ok(Ready { session, nats, singles, consumer, claim, decoder, tables })
    }

    /// The tables as they are, and the mapping for them.
    async fn tables(&self, session: &Session) -> Result<(Vec<introspect::Table>, Decoder), Error> {
        let Self { settings, pipeline, .. } = *self;
        let step_timeout = settings.postgres.step_timeout;
        let mut tables = Vec::with_capacity(pipeline.tables.len());
        let used = settings.tables();
        for table in &pipeline.tables {
            let found = introspect::introspect_beside(&session.client, &table.name, &used);
            let found = within(step_timeout, "reading the target table", found).await??;
            found.fits(table)?;
            tables.push(found);
            if table.direct_compress {
                let allowed = direct_compress::require(&session.client, &table.name);
                within(step_timeout, "asking about direct compress", allowed).await??;
            }
        }
        let decoder = Decoder::new(pipeline, &tables)?;
        for (index, (table, found)) in pipeline.tables.iter().zip(&tables).enumerate() {
            let allowed = privileges::require(&session.client, table, found, decoder.columns(index));
            within(step_timeout, "asking for the privileges on a table", allowed).await??;
        }
        Ok((tables, decoder))
    }

    /// Compares stream and checkpoint, looks at what comes next, and places the durable.
    /// The process knows that everything up to `known` was committed once.
    async fn read(
        &self,
        reached: Reached<'_>,
        claim: Claim,
        known: u64,
        begin: Begin<'_>,
    ) -> Result<Read, Error> {
        let Self { settings, pipeline, shard, metrics, ref durable, .. } = *self;
        let Reached { session, nats } = reached;
        let mark = Mark::new(settings, &shard.pipeline, session.history());
        let stream = open(nats, &prompt(nats), shard).await?;
        // Ages are measured from the first commit on. Where it does not answer now, the first probe hears it.
        clock::stream_info(&nats.client, &shard.stream, &metrics.clock).await.ok();
        subscribe::refuse_other_retention(&stream.cached_info().config)?;
        refuse_old_server(nats)?;
        if let Some(durable) = durable.info() {
            let created_ns = i64::try_from(durable.created.unix_timestamp_nanos()).unwrap_or(i64::MAX);
            let age = u64::try_from(metrics.clock.read().age_ns(created_ns)).unwrap_or(0);
            let first = claim.stream_created_ns.is_none();
            let age = Duration::from_nanos(age);
            subscribe::refuse_others(&stream, shard, durable, &mark, age, first).await?;
            self.note_begun(durable, begin.approach);
        }
        let claimed = claim.last_sequence;
        let claim = self.settle(reached, &stream, claim, begin.approach).await?;
        // Where it was moved just now, it is not the one that was claimed.
        metrics.resumes(None);
        metrics.committed_to(claim.last_sequence);
        let Begin { placement, approach } = begin;
        let placement = if matches!(durable, Durable::Silent) { Placement::Replace } else { placement };
        let singles = singles(nats, pipeline, shard, &claim, approach.look()).await?;
        let at_fault = singles.iter().any(|single| single.unreadable.is_some());
        approach.connected(&nats.client, &shard.pipeline, at_fault).await;
        let read = singles.last().map_or(claim.last_sequence, |single| single.message.sequence);
        let config = subscribe::consumer_config(pipeline, shard, DeliverPolicy::All);
        let config = pull::Config { metadata: mark.metadata(*approach.begun()), ..config };
        let placed = subscribe::place(&nats.client, &stream, shard, config, read, placement, &approach.known);
        let consumer = placed.await?;
        let first = approach.placed_first();
        if first {
            self.warn_of_giants(nats, &stream);
        }
        // After a power cut no process remembers, but what was acknowledged was committed.
        let counts = claim.since_us.is_some() && claim.last_sequence == claimed;
        if let (true, true, Some(durable)) = (first, counts, durable.info()) {
            let floor = durable.ack_floor.stream_sequence.min(stream.cached_info().state.last_sequence);
            tell_replay(settings, session, shard, claim.last_sequence.max(known), floor, metrics).await?;
        }
        Ok(Read { singles, consumer, claim })
    }

    /// Says where messages may come for which `max_buffered_bytes` is no bound.
    fn warn_of_giants(&self, nats: &nats::Connection, stream: &Stream) {
        let config = &stream.cached_info().config;
        let largest = subscribe::largest(config, nats.client.server_info().max_payload);
        if !subscribe::bounds(self.pipeline, largest) {
            tracing::warn!(
                pipeline = self.shard.pipeline,
                stream = self.shard.stream,
                %largest,
                max_buffered_bytes = %self.pipeline.buffered_bytes(),
                remedy = subscribe::BUFFER_MORE,
                "the stream accepts messages that can take more memory than max_buffered_bytes and 64 MiB"
            );
        }
    }

    /// Compares stream and checkpoint, which is moved where it is new or past a loss that somebody accepted.
    async fn settle(
        &self,
        reached: Reached<'_>,
        stream: &Stream,
        claim: Claim,
        approach: &Approach,
    ) -> Result<Claim, Error> {
        let Self { settings, pipeline, shard, metrics, .. } = *self;
        let Reached { session, nats } = reached;
        let step_timeout = settings.postgres.step_timeout;
        let read = async {
            let read = milestones::read(&session.client, &shard.name).await;
            read.map_err(|source| checkpoint::Error::Database { action: "read the milestones of", source })
        };
        let milestones = within(step_timeout, "reading the milestones", read).await??;
        let (facts, verdict) = judge(nats, pipeline, stream, &claim, &milestones, &metrics.clock).await?;
        let claim = if claim.known_sequence == checkpoint::UNKNOWN && claim.stream_created_ns.is_some() {
            let know = checkpoint::know(session, shard, &claim, facts.last_sequence);
            within(step_timeout, "recording the stream's gaps", know).await??
        } else {
            claim
        };
        metrics.resumes(match &verdict {
            Verdict::Lost(loss) => Some(Resumes::past(loss)),
            Verdict::Intact | Verdict::Moved(_) | Verdict::Fresh => None,
        });
        metrics.stream_holds(facts.first_sequence, facts.last_sequence);
        match verdict {
            Verdict::Intact => Ok(claim),
            Verdict::Moved(Agreement { proven, .. }) => {
                tracing::warn!(
                    pipeline = shard.pipeline,
                    stream = shard.stream,
                    proven,
                    checkpoint = claim.last_sequence,
                    created = %stream.cached_info().created,
                    "the stream was restored or moved, and holds what was committed; continuing"
                );
                let adopt = checkpoint::adopt(session, shard, &claim, facts.created_ns);
                Ok(within(step_timeout, "moving the checkpoint", adopt).await??)
            }
            Verdict::Fresh => {
                let (start, known) = (self.start(nats, stream, &facts, approach).await?, facts.last_sequence);
                let start =
                    checkpoint::relocate(session, shard, &claim, start, facts.created_ns, known, Some(0));
                Ok(within(step_timeout, "moving the checkpoint", start).await??)
            }
            Verdict::Lost(loss) => {
                let on_loss = pipeline.on_loss;
                let settled = loss::settle(session, shard, &loss, facts.created_ns, on_loss);
                let settled = within(step_timeout, "recording a loss", settled).await??;
                metrics.lost(loss.cause, settled.is_new, settled.messages);
                let Some(after) = settled.after else { return Err(Error::Loss(loss)) };
                tracing::error!(pipeline = shard.pipeline, %loss, after, "continuing past a loss");
                let known = match loss.cause {
                    Cause::Dropped | Cause::Superseded => claim.known_sequence,
                    Cause::Recreated | Cause::RolledBack => facts.last_sequence,
                };
                let forget = loss.forgets_after(after);
                let past =
                    checkpoint::relocate(session, shard, &claim, after, facts.created_ns, known, forget);
                Ok(within(step_timeout, "moving the checkpoint", past).await??)
            }
        }
    }
}

/// The first messages after the checkpoint, where a subscription might not get past them.
async fn singles(
    nats: &nats::Connection,
    pipeline: &config::Pipeline,
    shard: &Shard,
    claim: &Claim,
    look: Look,
) -> Result<Vec<Single>, Error> {
    if look == Look::No {
        return Ok(Vec::new());
    }
    // As much as a batch that fills beside one that is written.
    let bytes = usize::try_from(pipeline.buffered_bytes().as_u64() / 4).unwrap_or(usize::MAX);
    let anyway = look == Look::Anyway;
    let stretch = unreadable::stretch(&nats.client, pipeline, shard, claim.last_sequence, bytes, anyway);
    let found = tokio::select! {
        found = stretch => found.map_err(Error::from),
        denial = nats.denied(Denial::about_single) => Err(Error::Denied(denial)),
    };
    match found {
        Err(error) if look == (Look::ForUnreadable { needed: false }) => {
            tracing::debug!(pipeline = pipeline.name, %error, "cannot look at the next message");
            Ok(Vec::new())
        }
        found => found,
    }
}

/// Says how far the database went back behind what is `known` to have been committed, and counts it there: a
/// standby had not got all of it, a crash or a backup took it back.
async fn tell_replay(
    settings: &config::Config,
    session: &Session,
    shard: &Shard,
    checkpoint: u64,
    known: u64,
    metrics: &PipelineMetrics,
) -> Result<(), Error> {
    let Some(replayed @ 1..) = known.checked_sub(checkpoint) else { return Ok(()) };
    let told = async {
        let sql = tally::add(&shard.name, Event::Replay, "", 1, replayed);
        let counted = session.client.batch_execute(&sql).await;
        counted.map_err(|source| checkpoint::Error::Database { action: "count a replay behind", source })
    };
    within(settings.postgres.step_timeout, "counting a replay", told).await??;
    metrics.replayed_messages.inc_by(replayed);
    metrics.newest.is_now(Event::Replay);
    tracing::warn!(
        pipeline = shard.pipeline,
        host = session.host(),
        committed = known,
        checkpoint,
        replayed,
        "the database lacks transactions that it had committed; replaying from its checkpoint"
    );
    Ok(())
}

/// Requests that a leader answers in time, or nobody.
fn prompt(nats: &nats::Connection) -> Context {
    ContextBuilder::new().timeout(LEADER_TIMEOUT).build(nats.client.clone())
}

async fn open(nats: &nats::Connection, context: &Context, shard: &Shard) -> Result<Stream, Error> {
    let source = match context.get_stream(&shard.stream).await {
        Ok(stream) => return Ok(stream),
        Err(source) => source,
    };
    let request = StdError::source(&source).and_then(|cause| cause.downcast_ref::<RequestError>());
    let unheard = request.is_some_and(|request| request.kind() == RequestErrorKind::NoResponders);
    if unheard && !nats.client.server_info().jetstream {
        return Err(Error::NoJetStream);
    }
    Err(Error::Stream { stream: shard.stream.clone(), source })
}

/// Refuses servers of which nobody knows what they leave out of what they are asked for.
fn refuse_old_server(nats: &nats::Connection) -> Result<(), Error> {
    let (major, minor, patch) = subscribe::LEAST_SERVER;
    if nats.client.is_server_compatible(major, minor, patch) {
        return Ok(());
    }
    Err(Error::OldServer { version: nats.client.server_info().version })
}
