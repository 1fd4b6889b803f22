//! One generation of a pipeline: from a resync to the first failure or the stop.
//!
//! The stages and their edges, each a bounded channel:
//!
//! ```text
//! subscription ─► read (decode, batch) ─[1]─► write (copy, commit) ─[4]─► ack
//!                      ▲                              │
//!                      └────────[2]── emptied ────────┘
//! ```
//!
//! With several writers there is a stage `write` for each lane, with channels of its own before it, and one
//! `ack` for all of them ([`writers`]).
//!
//! Guarantees: when any stage fails, all of them end, and the failure of that stage is what the generation
//! returns. When nothing more can be read, what was taken before is committed first, as far as
//! [`LAST_DELIVERIES`] lets it. On a stop they end in the order of the data: nothing more is pulled, what was
//! taken is committed and acknowledged.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::ack;
use crate::approach::{Approach, Begin};
use crate::batch::{Gap, Held};
use crate::config::{self, Config};
use crate::gaps::{Contents, Gaps};
use crate::lag::{self, Lag, Progress};
use crate::membership::Membership;
use crate::metrics::{Metrics, Motion, PipelineMetrics};
use crate::nats::{Connection, Denial, Lost, Trouble};
use crate::postgres::introspect::{self, Changes};
use crate::postgres::servers::Servers;
use crate::read::{self, Fit, Reader, Route};
use crate::resync::{self, Ready, resync};
use crate::shard::Shard;
use crate::status::{PipelineStatus, Registry, State};
use crate::subscribe::{self, Placement, Subscription};
use crate::write;
use crate::write::window::Window;

use writers::{Ways, Writers};

mod writers;

/// How long what has arrived over a connection that is lost may take to be taken and sent to the writer, and
/// each step of the writer after that: two pull requests are decoded in a fraction of it, and a writer that
/// is stuck does not keep the loss from being reported for longer.
const LAST_DELIVERIES: Duration = Duration::from_secs(5);

/// How long after something has failed the client may take to say that its connection has ended: it is a task
/// of this process, on a machine that may be busy.
const TROUBLE: Duration = Duration::from_millis(500);

/// Bytes that the batches of a pipeline may take together: what pull requests leave of `max_buffered_bytes`.
fn batch_bytes(pipeline: &config::Pipeline) -> usize {
    usize::try_from(pipeline.buffered_bytes().as_u64() / 2).unwrap_or(usize::MAX)
}

/// What stays the same over the generations of a pipeline.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "its settings are called a pipeline, too")]
pub(crate) struct Pipeline {
    pub settings: Arc<Config>,
    pub pipeline: config::Pipeline,
    /// The shard of it that is read.
    pub shard: Shard,
    /// Under which name this process owns the shard.
    pub daemon: String,
    /// How its session and its connection are named.
    pub session: String,
    /// How much poison there was lately.
    pub poison: Arc<Mutex<Window>>,
    /// What its writers have learnt, by lane.
    pub memories: Mutex<Vec<Arc<Mutex<write::Memory>>>>,
    /// What the daemon knows of its database's servers.
    pub servers: Arc<Servers>,
    /// What it knows of all shards.
    pub membership: Membership,
    /// What its generations hand on to each other.
    pub approach: Approach,
    /// How far behind it is.
    pub lag: Arc<Lag>,
    /// What it counts with.
    pub metrics: PipelineMetrics,
    /// Where it says how it is.
    pub status: Arc<PipelineStatus>,
    /// The last sequence that it writes; what follows ends it.
    pub until: u64,
    /// The tables as the last generation read them; at first, none.
    pub tables: Mutex<Vec<introspect::Table>>,
}

/// Why a generation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It could not start.
    #[error(transparent)]
    Resync(#[from] resync::Error),
    /// Nothing more can be read.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// Pulling could not be started.
    #[error(transparent)]
    Subscribe(#[from] subscribe::Error),
    /// The stream dropped messages before they were delivered; all before them is committed.
    #[error("the stream dropped sequences {} to {} before they were read", .0.from, .0.to)]
    Dropped(Gap),
    /// A batch could not be written.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// A probe found something wrong.
    #[error(transparent)]
    Lag(#[from] lag::Error),
    /// The connection to NATS may have cost deliveries.
    #[error("{0}")]
    Nats(Lost),
    /// The server does not let the user do what is needed.
    #[error("the NATS server does not let jetcopy's user {0}")]
    Denied(Denial),
    /// All is written that comes before another number of writers.
    #[error("the number of writers changes")]
    Settled,
    /// A stage panicked, which is a defect in jetcopy.
    #[error("a stage of the pipeline panicked")]
    Panicked(#[source] JoinError),
}

/// Stages that end well on a stop beside the writers: read, ack. The others only ever fail.
const ENDING_STAGES: usize = 2;

/// How a stage ended that did not fail.
enum Ended {
    /// All that it had is done.
    Well,
    /// The same; when the others are done with what it sent, the generation has failed all the same.
    Drained(Failure),
}

impl Pipeline {
    /// One that has run no generation yet, and reads `shard` in the process `instance`.
    #[must_use]
    pub(crate) fn new(
        settings: Arc<Config>,
        pipeline: config::Pipeline,
        shard: Shard,
        instance: &str,
        (servers, membership): (Arc<Servers>, Membership),
        (metrics, registry): (&Metrics, &Registry),
    ) -> Self {
        let tables: Vec<&str> = pipeline.tables.iter().map(|table| table.name.as_str()).collect();
        let handles = metrics.pipeline(&shard, &tables);
        Self {
            settings,
            daemon: instance.to_owned(),
            session: shard.session(instance),
            poison: Arc::new(Mutex::new(Window::new(pipeline.poison))),
            memories: Mutex::default(),
            servers,
            membership,
            approach: Approach::default(),
            lag: Arc::new(Lag::new(&handles)),
            status: registry.add(&shard, handles.clone()),
            metrics: handles,
            until: u64::MAX,
            tables: Mutex::default(),
            pipeline,
            shard,
        }
    }

    /// Runs one generation until it fails or `stop` says so.
    ///
    /// On `trial`, it counts as running only once it has committed, has nothing to commit, or lasted that
    /// long.
    pub(crate) async fn generation(
        &self,
        placement: Placement,
        trial: Option<Duration>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let mut stopped = stop.clone();
        let ready = tokio::select! {
            ready = self.resync(placement) => ready?,
            _ = stopped.wait_for(|&stop| stop) => return Ok(()),
        };
        self.metrics.motion.begin();
        self.tell_changes(&ready.tables);
        let (checkpoint, writers) = (ready.claim.last_sequence, ready.claim.lanes.count());
        let progress = Arc::new(Progress::new(Arc::clone(&self.lag), self.status.liveness(), checkpoint));
        let mut stages = Box::pin(self.start(ready, placement, Arc::clone(&progress), stop)).await?;
        let mut tried = pin!(async {
            if let Some(limit) = trial {
                // Either will do.
                let _ = tokio::time::timeout(limit, progress.proven()).await;
            }
        });
        let mut trusted = false;
        // A stage that fails takes those around it along, and they may be joined before it: only when each
        // has ended well did the generation. Dropping the set aborts what still runs.
        let mut outcome = Ok(());
        let mut running = ENDING_STAGES + writers;
        let mut stopping = false;
        while running > 0 {
            let ended = tokio::select! {
                // Running comes first, so that a generation without a trial has been that before it ends.
                biased;
                () = &mut tried, if !trusted && !stopping => {
                    trusted = true;
                    self.status.set_state(State::Running);
                    continue;
                }
                _ = stopped.wait_for(|&stop| stop), if !stopping => {
                    stopping = true;
                    self.status.set_state(State::Stopping);
                    continue;
                }
                ended = stages.join_next() => ended,
            };
            match ended {
                Some(Ok(Ok(Ended::Well))) => running -= 1,
                Some(Ok(Ok(Ended::Drained(failure)))) => {
                    running -= 1;
                    outcome = Err(failure);
                }
                Some(Ok(Err(failure))) => return Err(failure),
                Some(Err(error)) => return Err(Failure::Panicked(error)),
                None => break,
            }
        }
        outcome
    }

    async fn resync(&self, placement: Placement) -> Result<Ready, resync::Error> {
        let Self { settings, pipeline, shard, daemon, servers, metrics, .. } = self;
        let begin = Begin { placement, approach: &self.approach };
        resync(settings, pipeline, shard, daemon, begin, servers, metrics).await
    }

    /// Says what has become of the tables since the last generation read them.
    fn tell_changes(&self, tables: &[introspect::Table]) {
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for ((settings, before), after) in self.pipeline.tables.iter().zip(known.iter()).zip(tables) {
            let Some(Changes { added, gone, changed }) = Changes::between(before, after) else { continue };
            let (pipeline, table) = (self.shard.pipeline.as_str(), settings.name.as_str());
            let list = |names: Vec<String>| (!names.is_empty()).then(|| names.join(", "));
            let beside = added.is_empty() && gone.is_empty() && changed.is_empty();
            let (added, changed) = (list(added), list(changed));
            if beside {
                tracing::info!(
                    pipeline,
                    table,
                    "the table was replaced, or something other than its columns changed; reloaded its \
                     definition"
                );
            } else if gone.is_empty() {
                tracing::info!(
                    pipeline,
                    table,
                    added,
                    changed,
                    "the table has changed; reloaded its definition"
                );
            } else {
                let gone = gone.join(", ");
                tracing::warn!(
                    pipeline,
                    table,
                    gone,
                    added,
                    changed,
                    "the table has lost columns; reloaded its definition, and their values are no longer \
                     stored"
                );
            }
        }
        known.clear();
        known.extend_from_slice(tables);
    }

    async fn start(
        &self,
        ready: Ready,
        placement: Placement,
        progress: Arc<Progress>,
        stop: watch::Receiver<bool>,
    ) -> Result<JoinSet<Result<Ended, Failure>>, Failure> {
        let Ready { session, nats, singles, consumer, claim, decoder, tables } = ready;
        let (client, asked_by) = (nats.client.clone(), nats.client.clone());
        let (lanes, settles_at) = (claim.lanes.clone(), claim.settles_at(self.pipeline.layout()));
        self.tell_settling(&claim);
        let held = Arc::new(Held::new(batch_bytes(&self.pipeline), self.metrics.buffered.begin()));
        let sessions = self.sessions(session, lanes.count()).await?;
        let mut stages = JoinSet::new();
        let (held_by, seen_by) = (Arc::clone(&held), Arc::clone(&progress));
        let targets = || self.targets(&tables, &decoder);
        let writers = Writers::new(sessions, &claim, targets, &shape(&tables), held_by, seen_by);
        let Ways { batches, emptied: emptied_in, acks, acks_in } = self.write(writers, &stop, &mut stages);
        let limits =
            subscribe::limits(self.pipeline.buffered_bytes().as_u64(), client.server_info().max_payload);
        let read = singles.last().map_or(claim.last_sequence, |single| single.message.sequence);
        let questions = self.approach.questions(&self.settings.nats, &self.shard, &self.session);
        let (questions, asked) = questions.await?;
        let contents = Contents::new(&questions, &self.pipeline, &self.shard);
        let batch = subscribe::batch_limits(self.pipeline.batch, &consumer);
        let reader = Reader {
            singles,
            subscription: Subscription::start(&nats, &consumer, read, self.approach.window(), limits).await?,
            decoder,
            limits: batch,
            fit: Fit::new(batch, lanes.layout().block),
            tables: tables.len(),
            held,
            route: Route::new(lanes.clone(), acks),
            waiting: None,
            crossing: None,
            alone: false,
            questions,
            gaps: {
                let clock = Arc::clone(&self.metrics.clock);
                let (pipeline, shard) = (self.pipeline.clone(), self.shard.clone());
                Gaps::new(contents.clone(), asked, &consumer, pipeline, shard, &claim, clock)
            },
            last_sequence: claim.last_sequence,
            until: settles_at.map_or(self.until, |settles_at| self.until.min(settles_at)),
            settles: settles_at.is_some_and(|settles_at| settles_at <= self.until),
            progress: Arc::clone(&progress),
            metrics: self.metrics.clone(),
            status: Arc::clone(&self.status),
        };
        self.status.set_mapping(&self.pipeline.tables);

        let connection = nats.clone();
        stages.spawn(async move {
            Ok(match Box::pin(reader.run(batches, emptied_in, stop)).await? {
                read::Ended::Stopped => Ended::Well,
                read::Ended::Settled => Ended::Drained(Failure::Settled),
                read::Ended::Dropped(gap) => Ended::Drained(Failure::Dropped(gap)),
                // The client connects again by itself, and what is delivered then does not follow what came
                // before.
                read::Ended::Cut(error) => Ended::Drained(match lost(&connection).await {
                    Some(lost) => Failure::Nats(lost),
                    None => Failure::Read(error.into()),
                }),
            })
        });
        let metrics = self.metrics.clone();
        stages.spawn(async move {
            ack::run(client, acks_in, lanes, metrics).await;
            Ok(Ended::Well)
        });
        let connection = nats.clone();
        stages.spawn(async move { Err(Failure::Denied(connection.denied(Denial::is_needed).await)) });
        let (pipeline, metrics, connection) = (self.pipeline.clone(), self.metrics.clone(), nats.clone());
        let probe = lag::run(asked_by, consumer, contents, pipeline, placement, progress, metrics);
        stages.spawn(probed(probe, connection));
        let ended = ended(nats, self.metrics.motion.clone());
        stages.spawn(async move { Err(Failure::Nats(ended.await)) });
        Ok(stages)
    }
}

/// What rows of these tables look like.
fn shape(tables: &[introspect::Table]) -> String {
    let of_table = |table: &introspect::Table| {
        let columns = table.columns.iter().map(|column| format!("{} {:?}", column.name, column.ty));
        format!("{} {:?}", table.qualified, columns.collect::<Vec<_>>())
    };
    tables.iter().map(of_table).collect::<Vec<_>>().join(", ")
}

/// The end of a probe. A connection that ends takes the question along: that is not what ends the generation,
/// since what came over it is still to be committed, and what ended it to be looked at.
async fn probed(probe: impl Future<Output = lag::Error>, connection: Connection) -> Result<Ended, Failure> {
    let error = probe.await;
    match lost(&connection).await {
        Some(_) => std::future::pending().await,
        None => Err(error.into()),
    }
}

/// The end of a connection, once what came over it should be written: as long as the writer comes further, it
/// may be.
async fn ended(connection: Connection, motion: Motion) -> Lost {
    let lost = connection.broken().await;
    // The reader tells it as soon as it has taken what arrived; of dropped messages it meets the gap.
    if lost.trouble != Trouble::SlowConsumer {
        loop {
            tokio::time::sleep(LAST_DELIVERIES).await;
            if !motion.advances(LAST_DELIVERIES) {
                break;
            }
        }
    }
    lost
}

/// Whether a connection over which something failed has ended.
async fn lost(connection: &Connection) -> Option<Lost> {
    let lost = tokio::time::timeout(TROUBLE, connection.broken()).await.ok()?;
    (lost.trouble != Trouble::SlowConsumer).then_some(lost)
}
