//! What each pipeline is doing, and why it is not doing more.
//!
//! Guarantees: the log, `jetcopy_pipeline_state` and `/status` all see each change of state, because
//! [`PipelineStatus::set_state`] is the only way to make one. The numbers of a snapshot are read from the
//! metrics' own handles, so the two cannot differ. It decides nothing: `supervise` does.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::dead_letter::DeadLetter;
use crate::liveness::Liveness;
use crate::metrics::{HeldUp, Motion, PipelineMetrics, Stage};
use crate::shard::Shard;

mod letters;
mod numbers;
mod patience;
mod registry;
mod tell;
mod untaken;

pub use letters::{Newest, NewestLetter, reason};
pub use numbers::Numbers;
pub use patience::Patience;
pub use registry::Registry;
use tell::Teller;
pub use untaken::{EmptyColumn, EmptyTable, Untaken, UntakenField};
pub(crate) use untaken::{Kept, nearest};

/// How many different problems are remembered as logged; beyond that, they are logged again rather than
/// remembered without end.
const MOST_TOLD: usize = 64;

/// The state of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Connects and resyncs.
    Starting,
    /// Reads messages and commits them.
    Running,
    /// Another daemon holds the lease.
    Waiting {
        /// Who holds it.
        reason: String,
    },
    /// A generation failed; the next one starts by itself.
    BackingOff {
        /// What failed.
        reason: String,
        /// How long until the next attempt.
        #[serde(rename = "retry_in_seconds", serialize_with = "as_seconds")]
        retry_in: Duration,
    },
    /// Something that only an operator can fix; it is retried from time to time.
    Paused {
        /// What is wrong.
        reason: String,
        /// What would fix it.
        remedy: String,
    },
    /// Stopped instead of skipping lost messages; an operator decides.
    Halted {
        /// What is wrong.
        reason: String,
        /// What would fix it.
        remedy: String,
    },
    /// Commits what is buffered.
    Stopping,
    /// Has ended.
    Stopped,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl State {
    /// The labels of all states.
    pub const LABELS: [&'static str; 8] =
        ["starting", "running", "waiting", "backing_off", "paused", "halted", "stopping", "stopped"];

    /// The state as a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting { .. } => "waiting",
            Self::BackingOff { .. } => "backing_off",
            Self::Paused { .. } => "paused",
            Self::Halted { .. } => "halted",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Why it is in this state, if that is not obvious.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting { reason }
            | Self::BackingOff { reason, .. }
            | Self::Paused { reason, .. }
            | Self::Halted { reason, .. } => Some(reason),
            Self::Starting | Self::Running | Self::Stopping | Self::Stopped => None,
        }
    }

    /// What would fix it, if only an operator can.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Paused { remedy, .. } | Self::Halted { remedy, .. } => Some(remedy),
            Self::Starting
            | Self::Running
            | Self::Waiting { .. }
            | Self::BackingOff { .. }
            | Self::Stopping
            | Self::Stopped => None,
        }
    }

    /// The reason, if the state is a problem.
    fn trouble(&self) -> Option<&str> {
        match self {
            Self::BackingOff { reason, .. } | Self::Paused { reason, .. } | Self::Halted { reason, .. } => {
                Some(reason)
            }
            Self::Starting | Self::Running | Self::Waiting { .. } | Self::Stopping | Self::Stopped => None,
        }
    }
}

/// The status of one shard of a pipeline.
#[derive(Debug)]
pub struct PipelineStatus {
    shard: Shard,
    metrics: PipelineMetrics,
    teller: Teller,
    liveness: Arc<Liveness>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    state: State,
    patience: Patience,
    since: Timestamp,
    /// When it ran last, or was made; `None` while it runs.
    down_since: Option<Timestamp>,
    last_error: Option<LastError>,
    newest_dead_letters: Newest,
    flood: Vec<NewestLetter>,
    untaken: untaken::Kept,
    /// The problems that were already logged since the pipeline last ran: an outage alternates between a few.
    told: BTreeSet<String>,
}

/// The last problem of a pipeline, even when it is over.
#[derive(Debug, Clone, Serialize)]
pub struct LastError {
    /// What it was.
    pub message: String,
    /// When it was seen last, in RFC 3339.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
}

fn as_text<S: serde::Serializer>(timestamp: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(timestamp)
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn as_text_or_null<S: serde::Serializer>(
    timestamp: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    timestamp.map(|timestamp| timestamp.to_string()).serialize(serializer)
}

impl PipelineStatus {
    fn new(shard: Shard, metrics: PipelineMetrics, teller: Teller) -> Self {
        metrics.set_state(State::Starting.label(), &State::LABELS);
        Self {
            shard,
            metrics,
            teller,
            liveness: Arc::default(),
            current: Mutex::new(Current {
                state: State::Starting,
                patience: Patience::default(),
                since: Timestamp::now(),
                down_since: Some(Timestamp::now()),
                last_error: None,
                newest_dead_letters: Newest::default(),
                flood: Vec::new(),
                untaken: untaken::Kept::default(),
                told: BTreeSet::new(),
            }),
        }
    }

    /// The pipeline's name.
    #[must_use]
    #[expect(clippy::misnamed_getters, reason = "a shard has a name of its own")]
    pub fn name(&self) -> &str {
        &self.shard.pipeline
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Where its stages note their progress.
    #[must_use]
    pub fn liveness(&self) -> Arc<Liveness> {
        Arc::clone(&self.liveness)
    }

    /// Whether it moves.
    #[must_use]
    pub fn motion(&self) -> &Motion {
        &self.metrics.motion
    }

    /// Dead letters that it has stored since the daemon's start.
    #[must_use]
    pub fn dead_letters_since_start(&self) -> u64 {
        self.metrics.dead_letters_since_start()
    }

    /// Messages that it has committed since the daemon's start.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.metrics.messages.get()
    }

    /// Whether it cannot run here because NATS does not answer this daemon: one that waits for its shard
    /// looks from time to time, and one that ran waits `patience` for its return.
    #[must_use]
    pub fn lacks_nats(&self, patience: Duration) -> bool {
        let current = lock(&self.current);
        let waits = matches!(current.state, State::Waiting { .. });
        let since = current.down_since.map(|since| Timestamp::now().duration_since(since).unsigned_abs());
        self.metrics.nats_up.get() == Some(0) && (waits || since.is_some_and(|since| since > patience))
    }

    /// Notes how many of its dead letters lie in the table.
    pub fn set_dead_letters_in_table(&self, letters: i64) {
        self.metrics.dead_letters_in_table.set(letters);
    }

    /// Whether the database answered it last.
    #[must_use]
    pub fn meets_database(&self) -> bool {
        self.metrics.position.meets_database()
    }

    /// What holds it up while it runs.
    #[must_use]
    pub fn held_up(&self) -> Option<HeldUp> {
        let runs = lock(&self.current).state == State::Running;
        runs.then(|| self.metrics.motion.held_up()).flatten()
    }

    /// Sets how long it may show no beat, by its settings.
    pub fn set_patience(&self, patience: Patience) {
        lock(&self.current).patience = patience;
    }

    /// How long it has not moved, where no known reason explains that.
    fn frozen(&self) -> Option<Duration> {
        let current = lock(&self.current);
        let (patience, since) = (current.patience.in_state(&current.state)?, self.liveness.since_beat());
        (since > patience).then_some(since)
    }

    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> State {
        lock(&self.current).state.clone()
    }

    /// Enters `state`: sets the metric and logs one line.
    /// A problem that repeats (retries during a long outage) is logged once, then at debug level until the
    /// pipeline has run again.
    pub fn set_state(&self, state: State) {
        let mut current = lock(&self.current);
        // Inside the lock, so that nobody measures the new state by the old beat.
        self.liveness.beat();
        let now = Timestamp::now();
        if let Some(message) = state.trouble() {
            current.last_error = Some(LastError { message: message.to_owned(), at: now });
        }
        if current.state == state {
            return;
        }
        let repeated = match state.trouble() {
            Some(reason) => !current.told.insert(reason.to_owned()),
            None => !current.told.is_empty() && state == State::Starting,
        };
        if state == State::Running || current.told.len() > MOST_TOLD {
            current.told.clear();
        }
        self.metrics.set_state(state.label(), &State::LABELS);
        self.teller.tell(&self.shard, &state, repeated);
        if discriminant(&current.state) != discriminant(&state) {
            current.since = now;
        }
        current.down_since = match state {
            State::Running => None,
            _ => current.down_since.or(Some(now)),
        };
        current.state = state;
    }

    /// Notes a dead letter that was committed.
    pub fn note_dead_letter(&self, letter: &DeadLetter) {
        lock(&self.current).newest_dead_letters.add(letter, Timestamp::now());
    }

    /// Notes messages of the flood that stops it.
    pub fn set_flood(&self, samples: &[DeadLetter]) {
        let now = Timestamp::now();
        lock(&self.current).flood = samples.iter().map(|letter| NewestLetter::new(letter, now)).collect();
    }

    /// Notes that it has committed since.
    pub fn clear_flood(&self) {
        lock(&self.current).flood.clear();
    }

    /// The pipeline as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let current = lock(&self.current);
        let runs = current.state == State::Running;
        Snapshot {
            pipeline: self.shard.pipeline.clone(),
            shard: self.shard.name.clone(),
            stream: self.shard.stream.clone(),
            state: current.state.clone(),
            since: current.since,
            down_since: current.down_since,
            held_up: runs.then(|| self.metrics.motion.held_up()).flatten(),
            limit: runs.then(|| self.metrics.motion.limit()).flatten(),
            last_error: current.last_error.clone(),
            newest_dead_letters: current.newest_dead_letters.clone(),
            flood: current.flood.clone(),
            untaken: current.untaken.show(),
            numbers: Numbers::read(&self.metrics, &current.state),
        }
    }
}

/// A pipeline at one moment, as `/status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The pipeline's name.
    pub pipeline: String,
    /// The shard.
    pub shard: String,
    /// The stream.
    pub stream: String,
    /// The state with its reason and remedy.
    #[serde(flatten)]
    pub state: State,
    /// When the state was entered, in RFC 3339.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// Since when it does not run, through all the states since then; `None` while it runs.
    #[serde(serialize_with = "as_text_or_null")]
    pub down_since: Option<Timestamp>,
    /// What holds it up while it runs: work waits, and nothing has moved for seconds.
    pub held_up: Option<HeldUp>,
    /// The stage that it waits for at this moment, for longer than what is always under way.
    #[serde(skip)]
    pub limit: Option<Stage>,
    /// The last problem, even when it is over.
    pub last_error: Option<LastError>,
    /// The newest dead letters since the daemon's start, without a value of any message.
    pub newest_dead_letters: Newest,
    /// A few of the messages of the flood that stopped it, without a value of any; empty once it goes on.
    pub flood: Vec<NewestLetter>,
    /// What no column took, and what nothing filled.
    pub untaken: Untaken,
    /// Counts and positions.
    #[serde(flatten)]
    pub numbers: Numbers,
}

impl Snapshot {
    /// Whether this daemon does its job: it runs, and commits what waits, or it stands by for another.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.state {
            State::Running => self.held_up.is_none(),
            State::Waiting { .. } => true,
            State::Starting
            | State::BackingOff { .. }
            | State::Paused { .. }
            | State::Halted { .. }
            | State::Stopping
            | State::Stopped => false,
        }
    }
}

/// A status is plain data: it is still consistent after a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
