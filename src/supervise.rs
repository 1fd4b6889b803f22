//! Generations of every pipeline, one after the other, until the daemon stops.
//!
//! Guarantees: a pipeline that fails, pauses or halts does so alone; a stop lets every pipeline commit what
//! it has taken, for [`DRAIN`] at most. What was not committed by then is replayed at the next start, and
//! said. New settings restart only the pipelines that they change.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use crate::approach::Approach;
use crate::chain::chain;
use crate::config::{self, Config};
use crate::control;
use crate::lag::Outlook;
use crate::metrics::{Metrics, PipelineMetrics};
use crate::nats::Lost;
use crate::pipeline::{Failure, Pipeline};
use crate::postgres::servers::Servers;
use crate::postgres::simple::within;
use crate::recovery::{Action, Cause, Recovery, Server, lost_connection, reason, recovery};
use crate::resync;
use crate::retry::Backoff;
use crate::shard::Shard;
use crate::status::Patience;
use crate::status::{Registry, State};
use crate::store::maintain;
use crate::subscribe::Placement;

mod onlook;

/// How long a stop may take. It is below the 30 s that Kubernetes and the 90 s that systemd leave by default.
const DRAIN: Duration = Duration::from_secs(20);

/// How often something that a person must fix is looked at again: soon after it was fixed, and far from a
/// crash loop.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How often a daemon that waits for a shard asks for it: a takeover takes so much longer than the lease at
/// most.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How often a pipeline that an operator paused looks whether it was resumed. Each look is a connection, and
/// whoever resumes it waits for it.
const ASK_TO_GO_ON: Duration = Duration::from_secs(2);

/// A generation that committed and ran so long was healthy: its end starts the back-off from the beginning.
/// One that fails sooner, again and again, slows down, and so does its log.
const PRODUCTIVE: Duration = Duration::from_secs(1);

/// The same for one without a commit: longer than it would wait for a lock before it fails.
const HEALTHY: Duration = Duration::from_secs(15);

/// How pipelines ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What they had taken is committed.
    Drained,
    /// Something that was taken is not committed; it is replayed at the next start.
    Undrained,
}

/// New settings for pipelines that run.
#[derive(Debug)]
pub(crate) struct Reload {
    /// What takes the place of the present settings.
    pub config: Config,
    /// Notified when nothing of the previous settings runs any more: what they no longer hold has drained,
    /// and what takes its place was started.
    pub applied: oneshot::Sender<()>,
}

/// Runs all pipelines of `config` until `shutdown` resolves, then drains them. What comes in by `reloads`
/// takes the place of `config`, but for the sections that only a restart can change.
pub(crate) async fn run(
    config: Config,
    metrics: Metrics,
    registry: Registry,
    mut reloads: mpsc::Receiver<Reload>,
    shutdown: impl Future<Output = ()>,
) -> Ended {
    let instance = instance();
    let mut supervisor = Supervisor {
        settings: Arc::new(config),
        metrics,
        registry,
        instance: instance.clone(),
        servers: Arc::default(),
        slots: BTreeMap::new(),
        tasks: JoinSet::new(),
        ended: Ended::Drained,
        applied: Vec::new(),
    };
    let (settings, current) = watch::channel(Arc::clone(&supervisor.settings));
    // Ends when this function does.
    let mut maintenance = JoinSet::new();
    maintenance.spawn(maintain::run(current.clone(), supervisor.metrics.maintain()));
    maintenance.spawn(onlook::run(current, supervisor.registry.clone(), instance.clone()));
    for reads in wanted(&supervisor.settings) {
        supervisor.start(reads);
    }
    tracing::info!(instance, pipelines = supervisor.settings.pipelines.len(), "started");

    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            // A stop comes before new settings.
            biased;
            () = &mut shutdown => break,
            Some(Reload { config, applied }) = reloads.recv() => {
                supervisor.applied.push(applied);
                supervisor.reload(config);
                settings.send_replace(Arc::clone(&supervisor.settings));
            }
            Some(ended) = supervisor.tasks.join_next() => supervisor.settle(ended),
        }
        supervisor.tell_applied();
    }
    tracing::info!("stopping; committing what was read");
    for slot in supervisor.slots.values_mut() {
        slot.next = None;
        slot.stop.send_replace(true);
    }
    while let Some(ended) = supervisor.tasks.join_next().await {
        supervisor.settle(ended);
    }
    if supervisor.ended == Ended::Undrained {
        tracing::warn!("not all that was read could be committed; the rest is replayed at the next start");
    }
    supervisor.ended
}

/// The shards that run, by name.
struct Supervisor {
    settings: Arc<Config>,
    metrics: Metrics,
    registry: Registry,
    instance: String,
    /// Those of the present settings.
    servers: Arc<Servers>,
    slots: BTreeMap<String, Slot>,
    /// Each ends with its shard's name.
    tasks: JoinSet<(String, Ended)>,
    ended: Ended,
    /// Who waits for the end of a reload.
    applied: Vec<oneshot::Sender<()>>,
}

/// A pipeline, and the shard of it that is read.
#[derive(Clone, PartialEq)]
struct Reads {
    pipeline: config::Pipeline,
    shard: Shard,
}

/// What a daemon with these settings reads.
fn wanted(settings: &Config) -> Vec<Reads> {
    settings.shards().map(|(pipeline, shard)| Reads { pipeline: pipeline.clone(), shard }).collect()
}

/// A shard that runs or drains.
struct Slot {
    reads: Reads,
    stop: watch::Sender<bool>,
    /// What takes its place once it has drained.
    next: Option<Reads>,
}

impl Supervisor {
    fn start(&mut self, reads: Reads) {
        let Reads { pipeline, shard } = reads.clone();
        let (name, settings) = (shard.name.clone(), Arc::clone(&self.settings));
        let patience = Patience::of(&settings, &pipeline);
        let (servers, seen) = (Arc::clone(&self.servers), (&self.metrics, &self.registry));
        let pipeline = Pipeline::new(settings, pipeline, shard, &self.instance, servers, seen);
        pipeline.status.set_patience(patience);
        let (stop, stopped) = watch::channel(false);
        self.slots.insert(name.clone(), Slot { reads, stop, next: None });
        self.tasks.spawn(async move { (name, Box::pin(drained(pipeline, stopped)).await) });
    }

    /// Takes new settings over: stops what is gone, restarts what differs, starts what is new.
    fn reload(&mut self, config: Config) {
        let before = Arc::clone(&self.settings);
        let sections = [("http", config.http != before.http), ("log", config.log != before.log)];
        for (section, _) in sections.iter().filter(|(_, differs)| *differs) {
            tracing::warn!(section, "this section has changed; restart jetcopy to apply it");
        }
        let servers = config.nats != before.nats || config.postgres != before.postgres;
        if config.postgres != before.postgres {
            self.servers = Arc::default();
        }
        let wanted = wanted(&config);
        self.settings = Arc::new(Config { http: before.http.clone(), log: before.log.clone(), ..config });

        let (mut added, mut restarted, mut removed) = (0, 0, 0);
        for (name, slot) in &mut self.slots {
            let wanted = wanted.iter().find(|reads| reads.shard.name == *name);
            // One that drains already takes up what is wanted now, whatever it was to become.
            let differs = servers || *slot.stop.borrow() || wanted != Some(&slot.reads);
            if differs {
                slot.next = wanted.cloned();
                slot.stop.send_replace(true);
                if wanted.is_some() { restarted += 1 } else { removed += 1 }
            }
        }
        for reads in wanted {
            if !self.slots.contains_key(&reads.shard.name) {
                self.start(reads);
                added += 1;
            }
        }
        let unchanged = self.slots.len() - added - restarted - removed;
        tracing::info!(added, restarted, removed, unchanged, "configuration reloaded");
    }

    /// Tells who waits for the end of a reload, once no pipeline drains any more.
    fn tell_applied(&mut self) {
        if !self.slots.values().any(|slot| *slot.stop.borrow()) {
            for applied in self.applied.drain(..) {
                // Whoever no longer waits need not know.
                let _ = applied.send(());
            }
        }
    }

    /// A shard has ended: what takes its place is started.
    fn settle(&mut self, ended: Result<(String, Ended), JoinError>) {
        let (name, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a pipeline's task ended unexpectedly, which is a bug in jetcopy; \
                                         restart jetcopy");
                self.ended = Ended::Undrained;
                return;
            }
        };
        if ended == Ended::Undrained {
            self.ended = ended;
        }
        let Some(slot) = self.slots.remove(&name) else { return };
        let shard = slot.reads.shard;
        let stopping = slot.next.is_none() && !self.settings.shards().any(|(_, shard)| shard.name == name);
        let relabelled = slot.next.as_ref().is_some_and(|next| {
            (&next.shard.pipeline, &next.shard.stream) != (&shard.pipeline, &shard.stream)
        });
        if stopping || relabelled {
            self.registry.remove(&shard);
            self.metrics.remove(&shard);
        }
        if let Some(next) = slot.next {
            self.start(next);
        }
    }
}

/// Runs a pipeline to its end, for [`DRAIN`] at most after a stop, and looks on from outside while no
/// generation runs.
pub(crate) async fn drained(pipeline: Pipeline, stop: watch::Receiver<bool>) -> Ended {
    let (status, mut stopped) = (Arc::clone(&pipeline.status), stop.clone());
    let outlook = Outlook {
        settings: Arc::clone(&pipeline.settings),
        pipeline: pipeline.pipeline.clone(),
        shard: pipeline.shard.clone(),
        name: pipeline.owner.clone(),
        status: Arc::clone(&status),
        lag: Arc::clone(&pipeline.lag),
        metrics: pipeline.metrics.clone(),
    };
    let look_on = Box::pin(outlook.look_on());
    let late = async {
        // Whoever could ask for a stop is gone only with the runtime.
        drop(stopped.wait_for(|&stop| stop).await);
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = generations(pipeline, stop) => ended,
        never = look_on => match never {},
        () = late => {
            tracing::warn!(pipeline = status.name(), seconds = DRAIN.as_secs(), "not drained in time");
            status.set_state(State::Stopped);
            Ended::Undrained
        }
    }
}

/// Runs one generation after the other until a stop.
async fn generations(pipeline: Pipeline, mut stop: watch::Receiver<bool>) -> Ended {
    let (metrics, status) = (&pipeline.metrics, &pipeline.status);
    let (mut backoff, mut unanswered) = (Backoff::new(), Backoff::unanswered());
    let mut placement = Placement::Reset;
    // What starts and fails before it commits has not been running: else its state and its log would flap.
    let mut on_trial = false;
    // Why one waits for a shard or for an operator, and asks again and again: it still waits.
    let mut waits_for = None;
    // What waits for a person still does while it looks whether they came.
    let mut stays = false;
    let mut outages = Outages::default();
    let mut ended = Ended::Drained;
    metrics.resyncs(Cause::Start.label()).inc();
    loop {
        if !stays {
            status.set_state(State::Starting);
        }
        let (started, committed) = (Instant::now(), metrics.position.commits());
        let trial = on_trial.then_some(HEALTHY);
        let generation = Box::pin(pipeline.generation(placement, trial, stop.clone())).await;
        let ran = status.state() == State::Running;
        metrics.ended();
        pipeline.lag.ended();
        let Err(failure) = generation else { break };
        if *stop.borrow() {
            // What did not start has taken nothing.
            if started_well(&failure) {
                tracing::warn!(pipeline = status.name(), error = chain(&failure), "failed while it stopped");
                ended = Ended::Undrained;
            }
            break;
        }
        let recovery = recovery(&failure);
        tell_away(metrics, &recovery);
        let committed = metrics.position.commits() > committed;
        if outages.begins(&recovery, ran, committed || started.elapsed() >= HEALTHY) {
            metrics.outages.inc();
        }
        let lost = note_end(&pipeline.approach, &failure, committed);
        on_trial = !committed && started.elapsed() < HEALTHY && (on_trial || started_well(&failure));
        if started.elapsed() > if committed { PRODUCTIVE } else { HEALTHY } {
            backoff.reset();
            unanswered.reset();
        }
        if lost && committed {
            // What it did not get past comes first now.
            backoff.reset();
        }
        let waits = matches!(recovery.action, Action::Wait | Action::Hold { .. });
        if !(waits && waits_for == Some(recovery.cause)) {
            metrics.resyncs(recovery.cause.label()).inc();
        }
        waits_for = waits.then_some(recovery.cause);
        stays = recovery.stays();
        // What a start is refused for is mended once one is not; what stopped one that ran, once it commits.
        on_trial = match (&recovery.action, started_well(&failure)) {
            (_, false) if stays => false,
            (Action::Pause { .. }, true) => true,
            _ => on_trial,
        };
        let reason = reason(&failure, &recovery);
        placement = match recovery.action {
            Action::Recreate => Placement::Recreate,
            _ => Placement::Reset,
        };
        let pause = match recovery.action {
            Action::AtOnce if committed => Duration::ZERO,
            Action::Again | Action::AtOnce | Action::Recreate | Action::Reconnect => {
                let waits = if recovery.action == Action::Reconnect { &mut unanswered } else { &mut backoff };
                let pause = waits.pause();
                status.set_state(State::BackingOff { reason, retry_in: pause });
                pause
            }
            Action::Wait => {
                status.set_state(State::Waiting { reason });
                ASK_AGAIN
            }
            Action::Hold { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                ASK_TO_GO_ON
            }
            Action::Pause { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                LOOK_AGAIN
            }
            Action::PauseForFlood { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                tokio::select! {
                    _ = stop.wait_for(|&stop| stop) => break,
                    () = mended(&pipeline) => Duration::ZERO,
                }
            }
            Action::Halt { remedy } => {
                status.set_state(State::Halted { reason, remedy });
                LOOK_AGAIN
            }
        };
        tokio::select! {
            _ = stop.wait_for(|&stop| stop) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    status.set_state(State::Stopped);
    ended
}

/// Notes for the next generation how the last one ended; whether it lost its connection to NATS.
fn note_end(approach: &Approach, failure: &Failure, committed: bool) -> bool {
    let lost = lost_connection(failure);
    approach.ended(lost.is_some(), committed);
    let refused = matches!(failure, Failure::Resync(resync::Error::Nats(error)) if error.refuses_user());
    if refused || lost.is_some_and(Lost::refuses_user) {
        approach.explained();
    }
    lost.is_some()
}

fn tell_away(metrics: &PipelineMetrics, recovery: &Recovery) {
    match recovery.away() {
        Some(Server::Database) => metrics.meets_database(false),
        Some(Server::Nats) => metrics.nats_up.set(0),
        None => {}
    }
}

/// Tells outages from the attempts that each of them takes.
#[derive(Debug, Default)]
struct Outages {
    /// What stopped it is reported already.
    told: bool,
    /// Somebody took the shard: an operator who pauses it, or another daemon, does that without a failure.
    taken: bool,
}

impl Outages {
    /// Whether one begins with the failure of a generation that `ran`, and did `well` before.
    fn begins(&mut self, recovery: &Recovery, ran: bool, well: bool) -> bool {
        let taken = ran && !self.taken && recovery.cause == Cause::LostEpoch;
        let begins = ran && (well || !self.told) && !taken && recovery.is_failure();
        self.told = begins || (self.told && !well);
        self.taken = taken || (self.taken && !recovery.stays());
        begins
    }
}

/// Waits after a flood until dead letters are accepted, the pipeline is resumed, or the rules of a table have
/// changed. A database that does not answer is asked again.
async fn mended(pipeline: &Pipeline) {
    let postgres = &pipeline.settings.postgres;
    let tables: Vec<&str> = pipeline.pipeline.tables.iter().map(|table| table.name.as_str()).collect();
    loop {
        tokio::time::sleep(ASK_TO_GO_ON).await;
        let look = control::ends_flood(postgres, &pipeline.shard, &tables);
        if let Ok(Ok(true)) = within(postgres.step_timeout, "looking for what may end a flood", look).await {
            return;
        }
    }
}

/// Whether a generation failed after it had started.
fn started_well(failure: &Failure) -> bool {
    !matches!(failure, Failure::Resync(_) | Failure::Subscribe(_))
}

/// A name for this process that no other one has: 16 hexadecimal digits.
pub(crate) fn instance() -> String {
    // The hasher's keys are random per process.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
