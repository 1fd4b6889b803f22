//! Whether a pipeline moves or waits for a known reason, for whoever would restart a daemon that hangs.
//!
//! Guarantees: a pipeline that commits, or to which nothing was delivered that is not committed, beats more
//! often than its [`Patience`](crate::status::Patience) allows for; each wait inside it has a deadline, and
//! the patience is made of those. One that does not beat for longer hangs in a way that jetcopy does not
//! know of. It decides nothing about the pipeline itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the consumer and the stream are asked about. Each probe is two small requests; a tail of
/// messages that was lost on an idle stream is noticed after two probes.
pub(crate) const PROBE: Duration = Duration::from_secs(2);

/// How long an answer may take before the connection counts as stuck.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a `COPY` of this many bytes may take: a second more for each MiB, which any link in use brings in
/// less.
#[must_use]
pub(crate) fn copy_deadline(step_timeout: Duration, bytes: usize) -> Duration {
    step_timeout.saturating_add(Duration::from_secs(bytes as u64 >> 20))
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

    #[test]
    fn the_deadline_of_rows_grows_by_a_second_a_mebibyte() {
        let of = |bytes| copy_deadline(Duration::from_mins(1), bytes);
        assert_eq!([of(0), of(4 << 20)], [Duration::from_mins(1), Duration::from_secs(64)]);
        assert_eq!(copy_deadline(Duration::MAX, 1 << 30), Duration::MAX);
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
