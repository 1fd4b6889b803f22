//! How long a pipeline may show no beat, by its settings and its state.
//!
//! Guarantees: it is longer than every deadline involved, and unlimited if the state itself is the known
//! reason why nothing moves.

use std::time::Duration;

use super::State;
use crate::config::{Config, ConnInfo, Pipeline};
use crate::liveness::{PROBE, PROBE_TIMEOUT, copy_deadline};

/// What a start takes from NATS at most, without the database: a connection, and some requests of up to 10 s
/// each.
const NATS_START: Duration = Duration::from_mins(1);

/// Steps of a start on the database besides reading each table: claim, record a loss, move the checkpoint
/// twice.
const START_STEPS: u32 = 4;

/// How long a pipeline may show no beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// While it starts: it beats when that is over.
    starting: Duration,
    /// While it runs: between two steps on the database, or two probes of an idle stream.
    running: Duration,
}

impl Patience {
    /// Made of the deadlines that the settings give to each wait.
    #[must_use]
    pub fn of(config: &Config, pipeline: &Pipeline) -> Self {
        let step = config.postgres.step_timeout;
        // A host may be asked with TLS and without it.
        let attempts = ConnInfo::resolve(&config.postgres.url).map_or(1, |info| 2 * info.hosts.len());
        let connect = config.postgres.connect_timeout * u32::try_from(attempts).unwrap_or(u32::MAX);
        let bytes = usize::try_from(pipeline.batch.max_bytes.as_u64()).unwrap_or(usize::MAX / 2);
        let tables = u32::try_from(pipeline.tables.len()).unwrap_or(u32::MAX);
        Self {
            starting: connect + step.saturating_mul(tables.saturating_add(START_STEPS)) + NATS_START,
            // A batch that fills waits for its age, nobody beats meanwhile. It may pass its size by one
            // message.
            running: copy_deadline(step, 2 * bytes) + pipeline.batch.longest_age() + PROBE + PROBE_TIMEOUT,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(running: Duration) -> Self {
        Self { running, ..Self::default() }
    }

    /// What it is in `state`; `None` where the state itself is the known reason.
    #[must_use]
    pub fn in_state(self, state: &State) -> Option<Duration> {
        match state {
            State::Starting => Some(self.starting),
            State::Running => Some(self.running),
            // The first four end by a timer of the supervisor, a stop by its own deadline.
            State::Waiting { .. }
            | State::BackingOff { .. }
            | State::Paused { .. }
            | State::Halted { .. }
            | State::Stopping
            | State::Stopped => None,
        }
    }
}

impl Default for Patience {
    /// That of the default settings with one table.
    fn default() -> Self {
        let step = Config::default().postgres.step_timeout;
        Self { starting: step * (START_STEPS + 1) + NATS_START, running: step + PROBE + PROBE_TIMEOUT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(toml: &str) -> Patience {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jetcopy.toml");
        let pipeline = "[[pipeline]]\nname = \"a\"\nstream = \"A\"\nbatch = { max_age = \"10m\" }\n\
                        [[pipeline.table]]\nname = \"a\"\n[[pipeline.table]]\nname = \"b\"\n";
        std::fs::write(&path, format!("{toml}\n{pipeline}")).unwrap();
        let config = Config::load(Some(&path), &crate::config::Overrides::default()).unwrap();
        Patience::of(&config, &config.pipelines[0])
    }

    #[test]
    fn patience_exceeds_every_deadline_on_the_way() {
        let patience = patience(
            "[postgres]\nurl = \"postgres://a:1,b:2/c\"\nstep_timeout = \"7s\"\nconnect_timeout = \"3s\"",
        );
        let running = patience.in_state(&State::Running).unwrap();
        assert_eq!(running, Duration::from_secs(7 + 8 + 600 + 12));
        let starting = patience.in_state(&State::Starting).unwrap();
        assert_eq!(starting, Duration::from_secs(2 * 2 * 3 + 6 * 7 + 60));
    }

    #[test]
    fn whoever_waits_for_a_known_reason_may_wait_without_end() {
        let known = State::Paused { reason: "no such table".into(), remedy: "make it".into() };
        assert_eq!(Patience::default().in_state(&known), None);
    }
}
