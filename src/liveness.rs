//! Whether a pipeline moves or waits for a known reason, for whoever would restart a daemon that hangs.
//!
//! Guarantees: a pipeline that commits, or to which nothing was delivered that is not committed, beats more often than
//! its [`Patience`] allows for; each wait inside it has a deadline, and the patience is made of those. One that does
//! not beat for longer hangs in a way that jetcopy does not know of. It decides nothing about the pipeline itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Config, ConnInfo, Pipeline};
use crate::lag::{PROBE, PROBE_TIMEOUT};
use crate::status::State;

/// What a start takes from NATS at most, without the database: a connection, and some requests of up to 10 s each.
const NATS_START: Duration = Duration::from_mins(1);

/// Steps of a start on the database besides reading each table: claim, record a loss, move the checkpoint twice.
const START_STEPS: u32 = 4;

/// How long a `COPY` of so many bytes may take: a second more for each MiB, which any link in use brings in less.
#[must_use]
pub fn copy_deadline(step_timeout: Duration, bytes: usize) -> Duration {
    step_timeout.saturating_add(Duration::from_secs(bytes as u64 >> 20))
}

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
            // A batch that fills waits for its age, nobody beats meanwhile. It may pass its size by one message.
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

/// When a pipeline moved last.
#[derive(Debug)]
pub struct Liveness {
    created: Instant,
    /// Milliseconds since then. Relaxed: the number is compared with the clock alone.
    beat_ms: AtomicU64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { created: Instant::now(), beat_ms: AtomicU64::new(0) }
    }
}

impl Liveness {
    /// Notes that it moves.
    pub fn beat(&self) {
        let ms = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(ms, Ordering::Relaxed);
    }

    /// How long ago it moved.
    #[must_use]
    pub fn since_beat(&self) -> Duration {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.created.elapsed().saturating_sub(beat)
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
    fn the_deadline_of_rows_grows_by_a_second_a_mebibyte() {
        let of = |bytes| copy_deadline(Duration::from_mins(1), bytes);
        assert_eq!([of(0), of(4 << 20)], [Duration::from_mins(1), Duration::from_secs(64)]);
        assert_eq!(copy_deadline(Duration::MAX, 1 << 30), Duration::MAX);
    }

    #[test]
    fn whoever_waits_for_a_known_reason_may_wait_without_end() {
        let known = State::Paused { reason: "no such table".into(), remedy: "make it".into() };
        assert_eq!(Patience::default().in_state(&known), None);
    }

    #[test]
    fn a_beat_is_now() {
        let liveness = Liveness::default();
        std::thread::sleep(Duration::from_millis(30));
        let before = liveness.since_beat();
        liveness.beat();
        assert!(before >= Duration::from_millis(30) && liveness.since_beat() < before);
    }
}
