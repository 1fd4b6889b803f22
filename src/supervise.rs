//! Generations of every pipeline, one after the other, until the daemon stops.
//!
//! Guarantees: a pipeline that fails, pauses or halts does so alone; a stop lets every pipeline commit what it has
//! taken, for [`DRAIN`] at most. What was not committed by then is replayed at the next start.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::checkpoint::{self, Place};
use crate::config::Config;
use crate::metrics::{Metrics, PipelineMetrics};
use crate::pipeline::{Failure, Pipeline};
use crate::poison::Window;
use crate::postgres::timeline::Newest;
use crate::recovery::{Action, chain, recovery};
use crate::retry::Backoff;
use crate::status::{Registry, State};
use crate::subscribe::Placement;

/// How long a stop may take. It is below the 30 s that Kubernetes and the 90 s that systemd leave by default.
const DRAIN: Duration = Duration::from_secs(20);

/// How often something that a person must mend is looked at again: soon after it was mended, and far from a crash
/// loop.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How often a daemon that waits for a shard asks for it: a takeover takes so much longer than the lease at most.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A generation that committed and ran so long was healthy: its end starts the back-off from the beginning. One that
/// fails sooner, again and again, slows down, and so does its log.
const PRODUCTIVE: Duration = Duration::from_secs(1);

/// The same for one without a commit: longer than it would wait for a lock before it fails.
const HEALTHY: Duration = Duration::from_secs(15);

/// Runs all pipelines of `config` until `shutdown` resolves, then drains them.
pub async fn run(config: Config, metrics: Metrics, registry: Registry, shutdown: impl Future<Output = ()>) {
    let settings = Arc::new(config);
    let (stop, stopped) = watch::channel(false);
    let instance = instance();
    let mut pipelines = JoinSet::new();
    for pipeline in &settings.pipelines {
        let tables: Vec<&str> = pipeline.tables.iter().map(|table| table.name.as_str()).collect();
        let shard = pipeline.name.clone();
        let handles = metrics.pipeline(&pipeline.name, &shard, &pipeline.stream, &tables);
        let status = registry.add(&pipeline.name, &shard, &pipeline.stream, handles.clone());
        let pipeline = Pipeline {
            settings: Arc::clone(&settings),
            pipeline: pipeline.clone(),
            owner: checkpoint::owner_name(&shard, &instance),
            place: Place { pipeline: pipeline.name.clone(), shard, stream: pipeline.stream.clone() },
            poison: Arc::new(Mutex::new(Window::new(pipeline.poison))),
            newest: Newest::default(),
            metrics: handles,
            status,
        };
        pipelines.spawn(generations(pipeline, stopped.clone()));
    }
    tracing::info!(instance, pipelines = settings.pipelines.len(), "started");

    let ended = async { while pipelines.join_next().await.is_some() {} };
    let mut ended = std::pin::pin!(ended);
    tokio::select! {
        () = shutdown => {}
        () = &mut ended => return,
    }
    tracing::info!("stopping: committing what has been taken");
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::warn!(
            seconds = DRAIN.as_secs(),
            "not all could be committed in time; the rest is replayed at the next start"
        );
    }
}

/// Runs one generation after the other until a stop.
async fn generations(pipeline: Pipeline, mut stop: watch::Receiver<bool>) {
    let (metrics, status) = (&pipeline.metrics, &pipeline.status);
    let (mut backoff, mut unanswered) = (Backoff::new(), Backoff::unanswered());
    let mut placement = Placement::Reset;
    // What starts and fails before it commits has not been running: else its state and its log would go to and fro.
    let mut on_trial = false;
    metrics.resyncs("start").inc();
    loop {
        // One that waits for a shard asks for it again and again: it still waits.
        let waiting = matches!(status.state(), State::Waiting { .. });
        if !waiting {
            status.set_state(State::Starting);
        }
        let (started, committed) = (Instant::now(), commits(metrics));
        let trial = on_trial.then_some(HEALTHY);
        let failure = match pipeline.generation(placement, trial, stop.clone()).await {
            Ok(()) => break,
            Err(failure) => failure,
        };
        metrics.database_up.set(0);
        metrics.nats_up.set(0);
        let recovery = recovery(&failure);
        let committed = commits(metrics) > committed;
        let started_well = !matches!(failure, Failure::Resync(_) | Failure::Subscribe(_));
        on_trial = !committed && started.elapsed() < HEALTHY && (on_trial || started_well);
        if started.elapsed() > if committed { PRODUCTIVE } else { HEALTHY } {
            backoff.reset();
            unanswered.reset();
        }
        if !(waiting && recovery.action == Action::Wait) {
            metrics.resyncs(recovery.cause).inc();
        }
        let reason = chain(&failure);
        placement = match recovery.action {
            Action::Recreate => Placement::Recreate,
            _ => Placement::Reset,
        };
        let pause = match recovery.action {
            Action::Again | Action::Recreate | Action::Reconnect => {
                let waits = if recovery.action == Action::Reconnect { &mut unanswered } else { &mut backoff };
                let pause = waits.pause();
                status.set_state(State::BackingOff { reason, retry_in: pause });
                pause
            }
            Action::Wait => {
                status.set_state(State::Waiting { reason });
                ASK_AGAIN
            }
            Action::Pause { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                LOOK_AGAIN
            }
            Action::PauseForGood { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                Duration::MAX
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
}

/// Transactions that the server has committed.
fn commits(metrics: &PipelineMetrics) -> u64 {
    metrics.commits.committed.get() + metrics.commits.poison.get()
}

/// A name for this process that no other one has: 16 hexadecimal digits.
fn instance() -> String {
    // The hasher's keys are random per process.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
