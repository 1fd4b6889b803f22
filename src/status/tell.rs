//! What the log says of the states of pipelines.
//!
//! Guarantees: where many pipelines change to the same state at once, as all do at a failover, the first
//! [`ALOUD`] of them are named, and one line [`PAUSE`] later tells how many more did. Those that need a
//! person count as the same only if their reasons are. At debug level each is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::State;
use crate::shard::Shard;

/// Pipelines that are named: all that most daemons have.
const ALOUD: usize = 4;

/// How long the others are counted: a failover takes all pipelines of a daemon along within as much.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes the lines of all pipelines of a daemon; clones share what was said.
#[derive(Debug, Clone, Default)]
pub(super) struct Teller(Arc<Mutex<BTreeMap<String, Said>>>);

/// Lines of one kind.
#[derive(Debug)]
struct Said {
    since: Instant,
    /// What was in that state since.
    shards: BTreeSet<String>,
}

impl Teller {
    /// Says that the shard is in `state`, in which it may have been before since it ran last.
    pub(super) fn tell(&self, shard: &Shard, state: &State, repeated: bool) {
        let (pipeline, shard) = (shard.pipeline.as_str(), shard.name.as_str());
        let quiet = repeated || !self.aloud(shard, state);
        match state {
            State::Starting if quiet => tracing::debug!(pipeline, shard, "pipeline is starting again"),
            State::Starting => tracing::info!(pipeline, shard, "pipeline is starting"),
            State::Running if quiet => tracing::debug!(pipeline, shard, "pipeline is running"),
            State::Running => tracing::info!(pipeline, shard, "pipeline is running"),
            State::Waiting { reason } if quiet => {
                tracing::debug!(pipeline, shard, reason, "pipeline is waiting");
            }
            State::Waiting { reason } => tracing::info!(pipeline, shard, reason, "pipeline is waiting"),
            State::BackingOff { reason, retry_in } if quiet => {
                tracing::debug!(pipeline, shard, reason, ?retry_in, "pipeline failed again; backing off");
            }
            State::BackingOff { reason, retry_in } => {
                tracing::warn!(pipeline, shard, reason, ?retry_in, "pipeline failed; backing off");
            }
            State::Paused { reason, remedy } if quiet => {
                tracing::debug!(pipeline, shard, reason, remedy, "pipeline is still paused");
            }
            State::Paused { reason, remedy } => {
                tracing::error!(pipeline, shard, reason, remedy, "pipeline is paused");
            }
            State::Halted { reason, remedy } if quiet => {
                tracing::debug!(pipeline, shard, reason, remedy, "pipeline is still halted");
            }
            State::Halted { reason, remedy } => {
                tracing::error!(pipeline, shard, reason, remedy, "pipeline is halted");
            }
            State::Stopping if quiet => tracing::debug!(pipeline, shard, "pipeline is stopping"),
            State::Stopping => tracing::info!(pipeline, shard, "pipeline is stopping"),
            State::Stopped if quiet => tracing::debug!(pipeline, shard, "pipeline has stopped"),
            State::Stopped => tracing::info!(pipeline, shard, "pipeline has stopped"),
        }
    }

    /// Whether this pipeline is named; one that is not is counted.
    fn aloud(&self, shard: &str, state: &State) -> bool {
        let label = state.label();
        let kind = match state {
            State::Paused { reason, .. } | State::Halted { reason, .. } => format!("{label}: {reason}"),
            State::Starting
            | State::Running
            | State::Waiting { .. }
            | State::BackingOff { .. }
            | State::Stopping
            | State::Stopped => label.to_owned(),
        };
        let mut said = self.said();
        said.retain(|_, said| said.since.elapsed() < 2 * PAUSE);
        let lines =
            said.entry(kind.clone()).or_insert(Said { since: Instant::now(), shards: BTreeSet::new() });
        let first = lines.shards.insert(shard.to_owned()) && lines.shards.len() == ALOUD + 1;
        if lines.shards.len() <= ALOUD {
            return true;
        }
        if first {
            lines.since = Instant::now();
        }
        drop(said);
        let Ok(runtime) = Handle::try_current() else { return true };
        if first {
            let teller = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let said = teller.said().remove(&kind);
                let pipelines = said.map_or(0, |said| said.shards.len().saturating_sub(ALOUD));
                tracing::info!(state = label, pipelines, "as many more pipelines are in this state now");
            });
        }
        false
    }

    /// Plain data: what a panicking thread left behind is still whole.
    fn said(&self) -> MutexGuard<'_, BTreeMap<String, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_pipelines_of_many_are_named_and_the_others_counted() {
        let teller = Teller::default();
        let named = (0..64).filter(|shard| teller.aloud(&shard.to_string(), &State::Running)).count();
        assert_eq!(named, ALOUD);
        assert!(teller.aloud("9", &State::Starting), "another state");
        tokio::time::sleep(PAUSE + PAUSE / 2).await;
        assert!(teller.aloud("9", &State::Running), "another time");
    }

    #[tokio::test]
    async fn pipelines_that_need_a_person_for_another_reason_are_named() {
        let teller = Teller::default();
        let paused = |reason: &str| State::Paused { reason: reason.to_owned(), remedy: String::new() };
        assert_eq!((0..9).filter(|shard| teller.aloud(&shard.to_string(), &paused("a"))).count(), ALOUD);
        assert!(teller.aloud("8", &paused("b")));
    }
}
