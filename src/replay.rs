//! A stretch of a stream again, into tables beside the ones it is in.
//!
//! Guarantees: it is a pipeline of its own, by the same stages and with the same promise: its shard, its
//! checkpoint, its durable, its dead letters. What it replays is never written to a table that the pipeline
//! fills. It is bounded: nothing after the last sequence is written. One that was interrupted goes on where
//! it was, when the same stretch is asked for again; when it is done, its durable is gone, and so is its
//! checkpoint unless it is to be kept.
//!
//! It does not lock the stretch: what the stream drops meanwhile is a loss, and ends it.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio::sync::watch;

use crate::audit::contents::Contents;
use crate::checkpoint;
use crate::config::{self, Config, OnLoss, OnSuperseded, SEQUENCE};
use crate::control::rewind::{self, before};
use crate::control::{self, ask, failed};
use crate::dead_letter::of_shard;
use crate::lag::Line;
use crate::membership::{Member, Shared};
use crate::metrics::Metrics;
use crate::moment::Point;
use crate::nats;
use crate::pipeline::Pipeline;
use crate::postgres::connect::Session;
use crate::postgres::introspect::{self, IntrospectError};
use crate::postgres::servers::Servers;
use crate::shard::Shard;
use crate::status::{PipelineStatus, Registry, State};
use crate::stored::Opened;
use crate::supervise;

/// How the servers know the sessions that are not the pipeline's own.
pub(crate) const CLIENT_NAME: &str = "jetcopy replay";

/// What is added to a table's name for its shadow, where no name is given.
const SUFFIX: &str = "_replay";

/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// What to replay, and into what.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The first message.
    pub from: Point,
    /// The last one; without it, the pipeline's checkpoint.
    pub to: Option<Point>,
    /// `TABLE=SHADOW`, or just `SHADOW` where the pipeline fills one table.
    pub into: Vec<String>,
    /// Whether the checkpoint stays when all is there: whoever puts the shadows in the place of the tables
    /// needs it.
    pub keep_checkpoint: bool,
}

/// What a replay would do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The shard that is replayed.
    pub shard: Shard,
    /// Its name: pipeline, shard and part of its durable's.
    pub name: String,
    /// First sequence.
    pub from: u64,
    /// Last sequence.
    pub to: u64,
    /// First and last sequence that the stream holds.
    pub stream: (u64, u64),
    /// Messages from the first to the last.
    pub messages: u64,
    /// Tables and their shadows, in the order of the configuration.
    pub shadows: Vec<Shadow>,
    /// Where an interrupted replay of this stretch stands.
    pub resumes_after: Option<u64>,
    created_ns: i64,
    keep_checkpoint: bool,
}

/// A table and the one that is filled in its place.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "the table and its shadow are two names")]
pub(crate) struct Shadow {
    /// The table as configured.
    pub table: String,
    pub shadow: String,
    /// Whether the shadow is there already.
    pub exists: bool,
    qualified: String,
    /// The column that keeps `$sequence`, quoted.
    sequence: Option<String>,
}

/// What a replay has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The table as configured.
    pub table: String,
    pub shadow: String,
    /// Rows in the shadow.
    pub replayed: u64,
    /// Rows of the same messages in the table; `None` where no column keeps `$sequence`, or it is that of
    /// several shards.
    pub original: Option<u64>,
}

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it is there.
    Whole {
        /// Table by table.
        tables: Vec<Compared>,
        /// Dead letters of the replay, and of the pipeline in the same stretch.
        dead_letters: (u64, u64),
    },
    /// It was stopped; asked for again, it goes on after this sequence.
    Interrupted(u64),
}

/// Why nothing is replayed, or not all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database or its schema.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// NATS or the stream.
    #[error(transparent)]
    Stream(#[from] rewind::Error),
    /// No connection to NATS.
    #[error("no connection to NATS")]
    Nats(#[from] nats::ConnectError),
    /// A table cannot be used.
    #[error("cannot use the table")]
    Introspect(#[from] IntrospectError),
    /// There is nothing in the stretch.
    #[error("there is nothing to replay from {from} to {to}: the stream holds sequences {first} to {last}")]
    Empty {
        /// First sequence that was asked for.
        from: u64,
        to: u64,
        /// First sequence that the stream holds.
        first: u64,
        last: u64,
    },
    /// `--into` cannot be read.
    #[error(
        "--into {0} does not name a table of the pipeline: use TABLE=SHADOW, or SHADOW if it fills only one \
         table"
    )]
    Into(String),
    /// A shadow is a table that some pipeline fills.
    #[error("a pipeline fills {0}: name another table with --into")]
    Live(String),
    /// A shadow has rows of something else.
    #[error(
        "{0} already holds rows that are not from an interrupted replay of this range: empty it, or name \
         another table"
    )]
    NotEmpty(String),
    /// The pipeline of the replay needs a person.
    #[error("the replay is stuck: {reason}; {remedy}")]
    Stuck {
        reason: String,
        /// What would fix it.
        remedy: String,
    },
}

/// Looks at what `request` means; changes nothing.
pub(crate) async fn plan(
    config: &Config,
    pipeline: &config::Pipeline,
    shard: &Shard,
    session: &Session,
    stream: &Opened,
    request: &Request,
) -> Result<Plan, Error> {
    let info = stream.cached_info();
    let (first, last) = (info.state.first_sequence, info.state.last_sequence);
    let from = match request.from {
        Point::Sequence(sequence) => sequence,
        Point::Time(time) => before(stream, shard, time).await? + 1,
    };
    let to = match request.to {
        Some(Point::Sequence(sequence)) => sequence,
        // All that was stored before this time.
        Some(Point::Time(time)) => before(stream, shard, time).await?,
        None => checkpoint_of(session, &shard.name).await?.unwrap_or(last),
    };
    let (from, to) = (from.max(first), to.min(last));
    if from > to {
        return Err(Error::Empty { from, to, first, last });
    }
    let unread = |source| rewind::Error::Stream { stream: shard.stream.clone(), source };
    let messages = Contents::new(stream, &pipeline.subjects).count(from, to).await.map_err(unread)?;
    let name = format!("{}-replay-{from}-{to}", shard.name);
    let mut live = Vec::new();
    for table in config.pipelines.iter().flat_map(|pipeline| &pipeline.tables) {
        live.push(qualified(session, &table.name).await?);
    }
    let mut shadows: Vec<Shadow> = Vec::with_capacity(pipeline.tables.len());
    let mut filled = None;
    for (table, shadow) in pipeline.tables.iter().zip(shadow_names(pipeline, &request.into)?) {
        let there = qualified(session, &shadow).await?;
        // A name that is cut off at 63 bytes could be the table's own.
        if live.contains(&there) && there.is_some() {
            return Err(Error::Live(shadow));
        }
        let any = format!("SELECT FROM {shadow} LIMIT 1");
        if there.is_some() && ask(session, "read the shadow table", &any).await?.rows().next().is_some() {
            filled = Some(shadow.clone());
        }
        let column = table.column_of(SEQUENCE).filter(|_| !pipeline.repeats_sequences());
        shadows.push(Shadow {
            table: table.name.clone(),
            shadow,
            exists: there.is_some(),
            qualified: introspect::introspect(&session.client, &table.name).await?.qualified,
            sequence: column.map(escape_identifier),
        });
    }
    // Without rows in all the same tables there is nothing to go on from.
    let resumable = filled.is_some() && shadows.iter().all(|shadow| shadow.exists);
    let resumes_after = if resumable { checkpoint_of(session, &name).await? } else { None };
    if let (None, Some(filled)) = (resumes_after, filled) {
        return Err(Error::NotEmpty(filled));
    }
    let created_ns = i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    Ok(Plan {
        shard: shard.clone(),
        name,
        from,
        to,
        stream: (first, last),
        messages,
        shadows,
        resumes_after,
        created_ns,
        keep_checkpoint: request.keep_checkpoint,
    })
}

/// The shadow of each table.
fn shadow_names(pipeline: &config::Pipeline, into: &[String]) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = pipeline
        .tables
        .iter()
        .map(|table| match table.name.strip_suffix('"') {
            Some(open) => format!("{open}{SUFFIX}\""),
            None => format!("{}{SUFFIX}", table.name),
        })
        .collect();
    for given in into {
        let (table, shadow) = match given.split_once('=') {
            Some((table, shadow)) => (pipeline.tables.iter().position(|known| known.name == table), shadow),
            None => ((pipeline.tables.len() == 1).then_some(0), given.as_str()),
        };
        match table {
            Some(table) if !shadow.is_empty() => shadow.clone_into(&mut names[table]),
            _ => return Err(Error::Into(given.clone())),
        }
    }
    Ok(names)
}

/// Schema and name of a table as the server resolves them; `None` where there is none.
async fn qualified(session: &Session, name: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT n.nspname::text || '.' || c.relname::text FROM pg_class c JOIN pg_namespace n \
           ON n.oid = c.relnamespace \
         WHERE c.oid = to_regclass({})::oid",
        escape_literal(name)
    );
    let found = ask(session, "look for the shadow table", &sql).await?;
    Ok(found.text(0).map(str::to_owned))
}

async fn checkpoint_of(session: &Session, shard: &str) -> Result<Option<u64>, Error> {
    let found = checkpoint::last_sequence(&session.client, shard).await;
    Ok(found.map_err(failed("read the checkpoint"))?)
}

/// Replays until all is there or `stop` resolves; `progress` gets the committed sequence.
pub(crate) async fn run(
    config: &Config,
    pipeline: &config::Pipeline,
    session: &Session,
    stream: &Opened,
    plan: &Plan,
    mut progress: impl FnMut(u64),
    stop: impl Future<Output = ()>,
) -> Result<Ended, Error> {
    prepare(session, plan).await?;
    let (metrics, registry) = (Metrics::new(), Registry::default());
    let shadowed = shadowed(pipeline, plan);
    let shard = replayed(plan);
    let (settings, instance) = (Arc::new(config.clone()), supervise::instance());
    let servers: Arc<Servers> = Arc::default();
    let stretch = Shared {
        postgres: config.postgres.clone(),
        servers: Arc::clone(&servers),
        shards: vec![shard.name.clone()],
    };
    // Nobody changes it.
    let (_unchanged, stretch) = watch::channel(stretch);
    let (member, membership) = Member::join(&instance, stretch, registry.clone());
    let knows = (servers, membership);
    let replay = Pipeline::new(settings, shadowed, shard.clone(), &instance, knows, (&metrics, &registry));
    let generations = Pipeline { until: plan.to, ..replay };
    let (handles, status) = (generations.metrics.clone(), Arc::clone(&generations.status));
    let (halt, halted) = watch::channel(false);
    let mut contents = Contents::new(stream, &pipeline.subjects);
    let end = async {
        let mut timer = tokio::time::interval(LOOK);
        loop {
            timer.tick().await;
            let committed = handles.position.committed().unwrap_or(0).max(plan.from - 1);
            progress(committed);
            // All is there when the stream has no further message in the stretch.
            let next = contents
                .next(committed + 1)
                .await
                .map_err(|source| rewind::Error::Stream { stream: plan.shard.stream.clone(), source })?;
            if next.is_none_or(|next| next > plan.to) {
                return Ok(());
            }
            if let Some(stuck) = stuck(&status) {
                return Err(stuck);
            }
        }
    };
    let line = Arc::new(Line::new(&config.nats, &generations.daemon));
    let mut running = Box::pin(supervise::drained(generations, line, halted));
    let mut over = false;
    let ended: Result<(), Error> = tokio::select! {
        ended = end => ended,
        () = stop => Ok(()),
        // It has come past the last sequence by itself.
        _ = &mut running => {
            over = true;
            Ok(())
        }
    };
    halt.send_replace(true);
    if !over {
        running.await;
    }
    member.leave().await;
    ended?;
    finish(session, stream, pipeline, plan, &shard).await
}

/// Makes the shadows where they are not there yet, and the checkpoint, unless an interrupted replay goes on.
/// What one that was done with before left in the dead letters goes.
async fn prepare(session: &Session, plan: &Plan) -> Result<(), Error> {
    for Shadow { shadow, qualified, .. } in &plan.shadows {
        let sql = format!("CREATE TABLE IF NOT EXISTS {shadow} (LIKE {qualified} INCLUDING ALL)");
        ask(session, "create the shadow table", &sql).await?;
    }
    if plan.resumes_after.is_some() {
        return Ok(());
    }
    let shard = replayed(plan);
    let begin = checkpoint::begin_stretch_sql(&shard, plan.created_ns, plan.from - 1);
    let sql = format!("{begin}; {}", of_shard::discard_sql(&shard));
    ask(session, "create the replay's checkpoint", &sql).await?;
    Ok(())
}

/// The shard that a replay is.
fn replayed(plan: &Plan) -> Shard {
    Shard::new(&plan.name, &plan.name, &plan.shard.stream)
}

/// The pipeline with its shadows in the place of its tables.
fn shadowed(pipeline: &config::Pipeline, plan: &Plan) -> config::Pipeline {
    let mut shadowed = pipeline.clone();
    shadowed.name.clone_from(&plan.name);
    shadowed.stream.clone_from(&plan.shard.stream);
    (shadowed.shards, shadowed.before, shadowed.durable) = (None, None, None);
    shadowed.on_loss = OnLoss::Halt;
    // What the stream has thinned out since is not there for anybody.
    shadowed.on_superseded = Some(OnSuperseded::Ignore);
    for (table, shadow) in shadowed.tables.iter_mut().zip(&plan.shadows) {
        table.name.clone_from(&shadow.shadow);
    }
    shadowed
}

/// Why only a person can let it go on.
fn stuck(status: &PipelineStatus) -> Option<Error> {
    match status.state() {
        State::Paused { reason, remedy } | State::Halted { reason, remedy } => {
            Some(Error::Stuck { reason, remedy })
        }
        State::Starting
        | State::Running
        | State::Waiting { .. }
        | State::BackingOff { .. }
        | State::Stopping
        | State::Stopped => None,
    }
}

/// Compares where all is there, and clears up.
async fn finish(
    session: &Session,
    stream: &Opened,
    pipeline: &config::Pipeline,
    plan: &Plan,
    shard: &Shard,
) -> Result<Ended, Error> {
    let committed = checkpoint_of(session, &plan.name).await?.unwrap_or(plan.from - 1);
    let unread = |source| rewind::Error::Stream { stream: plan.shard.stream.clone(), source };
    let next = Contents::new(stream, &pipeline.subjects).next(committed + 1).await.map_err(unread)?;
    if next.is_some_and(|next| next <= plan.to) {
        return Ok(Ended::Interrupted(committed));
    }
    let mut tables = Vec::with_capacity(plan.shadows.len());
    for Shadow { table, shadow, qualified, sequence, .. } in &plan.shadows {
        let replayed = count(session, shadow, "").await?;
        let original = match sequence {
            Some(column) => {
                let stretch = format!("WHERE {column} BETWEEN {} AND {}", plan.from, plan.to);
                Some(count(session, qualified, &stretch).await?)
            }
            None => None,
        };
        tables.push(Compared { table: table.clone(), shadow: shadow.clone(), replayed, original });
    }
    let letters = async |shard: &Shard| {
        let count = of_shard::count(&session.client, shard, plan.from, Some(plan.to)).await;
        count.map_err(failed("count the rows"))
    };
    let dead_letters = (letters(shard).await?, letters(&plan.shard).await?);
    let keep_at = plan.keep_checkpoint.then_some(plan.to);
    let ended = checkpoint::end_stretch(&session.client, &shard.name, keep_at).await;
    ended.map_err(failed("close the replay's checkpoint"))?;
    // A cursor that nobody pulls from does no harm, and goes with the stream.
    if let Err(error) = stream.delete_consumer(&shard.durable).await {
        tracing::warn!(durable = shard.durable, %error, "cannot delete the replay's durable consumer");
    }
    Ok(Ended::Whole { tables, dead_letters })
}

async fn count(session: &Session, table: &str, which: &str) -> Result<u64, Error> {
    let found = ask(session, "count the rows", &format!("SELECT count(*) FROM {table} {which}")).await?;
    Ok(found.number(0).unwrap_or(0))
}
