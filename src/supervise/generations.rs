//! Generations of one shard, one after the other, until a stop.
//!
//! Guarantees: a generation runs only while the shard is this daemon's to run, as far as that is known; one
//! that is to be handed over ends as on a stop, and the next one waits until it is this daemon's turn again.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Ended;
use crate::approach::Approach;
use crate::chain::chain;
use crate::checkpoint;
use crate::control;
use crate::membership::Turn;
use crate::metrics::PipelineMetrics;
use crate::nats::Lost;
use crate::pipeline::{Failure, Pipeline};
use crate::postgres::simple::within;
use crate::recovery::{Action, Cause, Recovery, Server, lost_connection, reason, recovery};
use crate::resync;
use crate::retry::Backoff;
use crate::status::State;
use crate::subscribe::Placement;

/// How often something that a person must fix is looked at again: soon after it was fixed, and far from a
/// crash loop.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How long a pipeline that waits for its shard waits where nobody says that it is its turn: meanwhile its
/// checkpoint moves, and one whose claim was refused tries again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How often it is looked for what may end a flood. Each look is a connection, and whoever ends it waits.
const ASK_TO_GO_ON: Duration = Duration::from_secs(2);

/// A generation that committed and ran so long was healthy: its end starts the back-off from the beginning.
/// One that fails sooner, again and again, slows down, and so does its log.
const PRODUCTIVE: Duration = Duration::from_secs(1);

/// The same for one without a commit: longer than it would wait for a lock before it fails.
const HEALTHY: Duration = Duration::from_secs(15);

/// Runs one generation after the other until a stop.
pub(super) async fn generations(pipeline: Pipeline, mut stop: watch::Receiver<bool>) -> Ended {
    let status = &pipeline.status;
    pipeline.metrics.resyncs(Cause::Start.label()).inc();
    let mut course = Course::new(&pipeline);
    let mut ended = Ended::Drained;
    let first = tokio::select! {
        _ = stop.wait_for(|&stop| stop) => false,
        () = pipeline.membership.known() => true,
    };
    let mut goes_on = first;
    while goes_on {
        let ran = course.run(&mut stop).await;
        match ran.outcome {
            // What did not start has taken nothing.
            Err(failure) if *stop.borrow() && started_well(&failure) => {
                tracing::warn!(pipeline = status.name(), error = chain(&failure), "failed while it stopped");
                ended = Ended::Undrained;
                break;
            }
            _ if *stop.borrow() => break,
            Ok(End::HandedOver) => course.handed_over(),
            Ok(End::OfItself) => break,
            Err(failure) => {
                let recovery = recovery(&failure);
                course.note(&failure, &recovery, &ran.facts);
                let pause = course.settle(&failure, recovery, &ran.facts);
                goes_on = course.wait(pause, &mut stop).await;
            }
        }
    }
    status.set_state(State::Stopped);
    ended
}

/// How a generation ended that did not fail.
enum End {
    /// Because of a stop, or since nothing more is to be read.
    OfItself,
    /// Another daemon is to have the shard.
    HandedOver,
}

/// How a generation went.
struct Ran {
    outcome: Result<End, Failure>,
    facts: Facts,
}

struct Facts {
    started: Instant,
    /// Whether it counted as running when it ended.
    ran: bool,
    /// Whether it has committed.
    committed: bool,
}

impl Facts {
    fn lasted(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What is waited for before the next generation.
enum Pause {
    For(Duration),
    /// For the shard, or for whoever paused it.
    Turn(Turn),
    /// For the end of a flood.
    Flood,
}

/// What one generation leaves to the next.
struct Course<'p> {
    pipeline: &'p Pipeline,
    backoff: Backoff,
    unanswered: Backoff,
    placement: Placement,
    /// What starts and fails before it commits has not been running: else its state and its log would flap.
    on_trial: bool,
    /// Why one waits for a shard or for an operator, and asks again and again: it still waits.
    waits_for: Option<Cause>,
    /// What waits for a person still does while it looks whether they came.
    stays: bool,
    outages: Outages,
}

impl<'p> Course<'p> {
    fn new(pipeline: &'p Pipeline) -> Self {
        Self {
            pipeline,
            backoff: Backoff::new(),
            unanswered: Backoff::unanswered(),
            placement: Placement::Reset,
            on_trial: false,
            waits_for: None,
            stays: false,
            outages: Outages::default(),
        }
    }

    fn shard(&self) -> &'p str {
        &self.pipeline.shard.name
    }

    /// Runs a generation if the shard is this daemon's to run.
    async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Ran {
        let Pipeline { metrics, status, lag, .. } = self.pipeline;
        let mut facts = Facts { started: Instant::now(), ran: false, committed: false };
        if let Some(refusal) = self.refusal() {
            let failure = Failure::Resync(resync::Error::Checkpoint(refusal));
            return Ran { outcome: Err(failure), facts };
        }
        if !self.stays {
            status.set_state(State::Starting);
        }
        let commits = metrics.position.commits();
        let outcome = self.generation(stop).await;
        facts.ran = status.state() == State::Running;
        facts.committed = metrics.position.commits() > commits;
        metrics.ended();
        lag.ended();
        Ran { outcome, facts }
    }

    /// Why it is not this daemon's turn, as the claim would say it.
    fn refusal(&self) -> Option<checkpoint::Error> {
        let Pipeline { metrics, shard, .. } = self.pipeline;
        let checkpoint = self.pipeline.membership.checkpoint(&shard.name).unwrap_or(0);
        let refusal = match self.pipeline.membership.turn(&shard.name) {
            Turn::Run => return None,
            Turn::LetGo => {
                self.pipeline.membership.release(&shard.name);
                checkpoint::Error::Held { owner: self.pipeline.daemon.clone(), checkpoint }
            }
            Turn::Wait { owner } => checkpoint::Error::Held { owner, checkpoint },
            Turn::Paused(checkpoint::Paused { by, since }) => {
                checkpoint::Error::Paused { pipeline: shard.argument(), by, since, checkpoint }
            }
        };
        metrics.meets_database(true);
        metrics.stands_at(checkpoint);
        Some(refusal)
    }

    /// Runs a generation until it fails, or ends because of a stop or because the shard is handed over.
    async fn generation(&self, stop: &mut watch::Receiver<bool>) -> Result<End, Failure> {
        let trial = self.on_trial.then_some(HEALTHY);
        let (end, ending) = watch::channel(false);
        let mut generation = Box::pin(self.pipeline.generation(self.placement, trial, ending));
        tokio::select! {
            ended = &mut generation => return ended.map(|()| End::OfItself),
            _ = stop.wait_for(|&stop| stop) => {}
            () = self.pipeline.membership.lets_go(self.shard()) => {
                tracing::info!(
                    pipeline = self.pipeline.status.name(),
                    shard = self.shard(),
                    "handing the shard over to another daemon"
                );
            }
        }
        end.send_replace(true);
        generation.await.map(|()| End::HandedOver)
    }

    /// Another daemon is to have the shard.
    fn handed_over(&mut self) {
        (self.waits_for, self.stays, self.on_trial) = (None, false, false);
        self.backoff.reset();
        self.unanswered.reset();
    }

    /// Counts a failure, and notes what follows from it for the next generation.
    fn note(&mut self, failure: &Failure, recovery: &Recovery, facts: &Facts) {
        let Pipeline { metrics, approach, .. } = self.pipeline;
        tell_away(metrics, recovery);
        let (committed, lasted) = (facts.committed, facts.lasted());
        if self.outages.begins(recovery, facts.ran, committed || lasted >= HEALTHY) {
            metrics.outages.inc();
        }
        let lost = note_end(approach, failure, committed);
        self.on_trial = !committed && lasted < HEALTHY && (self.on_trial || started_well(failure));
        if lasted > if committed { PRODUCTIVE } else { HEALTHY } {
            self.backoff.reset();
            self.unanswered.reset();
        }
        if lost && committed {
            // What it did not get past comes first now.
            self.backoff.reset();
        }
        let waits = matches!(recovery.action, Action::Wait | Action::Hold { .. });
        if !(waits && self.waits_for == Some(recovery.cause)) {
            metrics.resyncs(recovery.cause.label()).inc();
        }
        self.waits_for = waits.then_some(recovery.cause);
        self.stays = recovery.stays();
        // What a start is refused for is mended once one is not; what stopped one that ran, once it commits.
        self.on_trial = match (&recovery.action, started_well(failure)) {
            (_, false) if self.stays => false,
            (Action::Pause { .. }, true) => true,
            _ => self.on_trial,
        };
        self.placement = match recovery.action {
            Action::Recreate => Placement::Recreate,
            _ => Placement::Reset,
        };
    }

    /// Shows what is done about a failure, and says what to wait for.
    fn settle(&mut self, failure: &Failure, recovery: Recovery, facts: &Facts) -> Pause {
        let status = &self.pipeline.status;
        let reason = reason(failure, &recovery);
        match recovery.action {
            Action::AtOnce if facts.committed => Pause::For(Duration::ZERO),
            Action::Again | Action::AtOnce | Action::Recreate | Action::Reconnect => {
                let reconnects = recovery.action == Action::Reconnect;
                let waits = if reconnects { &mut self.unanswered } else { &mut self.backoff };
                let pause = waits.pause();
                status.set_state(State::BackingOff { reason, retry_in: pause });
                Pause::For(pause)
            }
            Action::Wait => {
                status.set_state(State::Waiting { reason });
                Pause::Turn(self.pipeline.membership.turn(self.shard()))
            }
            Action::Hold { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                match self.pipeline.membership.turn(self.shard()) {
                    // Not by `jetcopy pause`, or not known yet.
                    Turn::Run => Pause::For(ASK_TO_GO_ON),
                    turn => Pause::Turn(turn),
                }
            }
            Action::Pause { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                Pause::For(LOOK_AGAIN)
            }
            Action::PauseForFlood { remedy } => {
                status.set_state(State::Paused { reason, remedy });
                Pause::Flood
            }
            Action::Halt { remedy } => {
                status.set_state(State::Halted { reason, remedy });
                Pause::For(LOOK_AGAIN)
            }
        }
    }

    /// Waits; whether another generation is to follow.
    async fn wait(&self, pause: Pause, stop: &mut watch::Receiver<bool>) -> bool {
        let over = async {
            match pause {
                Pause::For(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.pipeline.membership.lets_go(self.shard()) => {}
                },
                Pause::Turn(turn) => tokio::select! {
                    () = tokio::time::sleep(ASK_AGAIN) => {}
                    () = self.pipeline.membership.turns_from(self.shard(), &turn) => {}
                },
                Pause::Flood => tokio::select! {
                    () = mended(self.pipeline) => {}
                    () = self.pipeline.membership.lets_go(self.shard()) => {}
                },
            }
        };
        tokio::select! {
            _ = stop.wait_for(|&stop| stop) => false,
            () = over => true,
        }
    }
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
