//! Generations of every pipeline, one after the other, until the daemon stops.
//!
//! Guarantees: a pipeline that fails, pauses or halts does so alone; a stop lets every pipeline commit what
//! it has taken, for [`DRAIN`] at most. What was not committed by then is replayed at the next start, and
//! said. New settings restart only the pipelines that they change.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use crate::config::{self, Config};
use crate::lag::{Line, Outlook};
use crate::membership::{Member, Membership, Shared};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::postgres::servers::Servers;
use crate::shard::Shard;
use crate::status::Patience;
use crate::status::{Registry, State};
use crate::store::maintain;

mod generations;
mod left_behind;
mod onlook;

use generations::generations;

/// How long a stop may take. It is below the 30 s that Kubernetes and the 90 s that systemd leave by default.
const DRAIN: Duration = Duration::from_secs(20);

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
    let servers = Arc::<Servers>::default();
    let (share, shared) = watch::channel(shares(&config, &servers));
    let (member, membership) = Member::join(&instance, shared, registry.clone());
    let line = Arc::new(Line::new(&config.nats, &instance));
    let mut supervisor = Supervisor {
        settings: Arc::new(config),
        metrics,
        registry,
        instance: instance.clone(),
        servers,
        line,
        membership,
        slots: BTreeMap::new(),
        tasks: JoinSet::new(),
        ended: Ended::Drained,
        applied: Vec::new(),
    };
    let (settings, current) = watch::channel(Arc::clone(&supervisor.settings));
    // Ends when this function does.
    let mut maintenance = JoinSet::new();
    maintenance.spawn(maintain::run(current.clone(), supervisor.metrics.maintain()));
    maintenance.spawn(onlook::run(current.clone(), supervisor.registry.clone(), instance.clone()));
    let (membership, registry) = (supervisor.membership.clone(), supervisor.registry.clone());
    maintenance.spawn(left_behind::run(current, membership, registry, supervisor.metrics.clone()));
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
                share.send_replace(shares(&supervisor.settings, &supervisor.servers));
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
    member.leave().await;
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
    /// How it looks on at what it does not read.
    line: Arc<Line>,
    membership: Membership,
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

/// What a daemon with these settings shares with others.
fn shares(settings: &Config, servers: &Arc<Servers>) -> Shared {
    let shards = settings.shards().map(|(_, shard)| shard.name).collect();
    Shared { postgres: settings.postgres.clone(), servers: Arc::clone(servers), shards }
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
        let knows = (Arc::clone(&self.servers), self.membership.clone());
        let seen = (&self.metrics, &self.registry);
        let pipeline = Pipeline::new(settings, pipeline, shard, &self.instance, knows, seen);
        pipeline.status.set_patience(patience);
        let (stop, stopped) = watch::channel(false);
        self.slots.insert(name.clone(), Slot { reads, stop, next: None });
        let line = Arc::clone(&self.line);
        self.tasks.spawn(async move { (name, Box::pin(drained(pipeline, line, stopped)).await) });
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
        if config.nats != before.nats {
            self.line = Arc::new(Line::new(&config.nats, &self.instance));
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
pub(crate) async fn drained(pipeline: Pipeline, line: Arc<Line>, stop: watch::Receiver<bool>) -> Ended {
    let (status, mut stopped) = (Arc::clone(&pipeline.status), stop.clone());
    let outlook = Outlook {
        line,
        pipeline: pipeline.pipeline.clone(),
        shard: pipeline.shard.clone(),
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

/// A name for this process that no other one has: 16 hexadecimal digits.
pub(crate) fn instance() -> String {
    // The hasher's keys are random per process.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
