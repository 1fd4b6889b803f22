//! How long to wait before the next attempt.
//!
//! The only user of `backoff`: whoever replaces that crate replaces this file.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// First pause: a failover or a restart is over within a second on a good day, and an attempt costs the
/// servers a login.
const FIRST: Duration = Duration::from_millis(50);

/// Longest pause: what an operator waits at most after having mended something.
const LONGEST: Duration = Duration::from_secs(5);

/// Longest pause while nobody answers: an attempt costs next to nothing then, since the pipelines of a daemon
/// share it, and after a failover the first commit is to follow within half a second.
const LONGEST_UNANSWERED: Duration = Duration::from_millis(200);

/// Jittered pauses that grow from [`FIRST`] to a longest one and never end.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    /// For attempts that fail at some cost. Starts with the first pause.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::up_to(LONGEST)
    }

    /// For servers that do not answer.
    #[must_use]
    pub(crate) fn unanswered() -> Self {
        Self::up_to(LONGEST_UNANSWERED)
    }

    fn up_to(longest: Duration) -> Self {
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(FIRST)
                .with_multiplier(2.0)
                .with_randomization_factor(0.5)
                .with_max_interval(longest)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        // Without a maximal elapsed time it always has one.
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts with the first pause again.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new();
        assert!(backoff.pause() <= FIRST * 2);
        let late = (0..50).map(|_| backoff.pause()).last().unwrap();
        assert!(late >= LONGEST / 2 && late <= LONGEST * 2, "{late:?}");
        backoff.reset();
        assert!(backoff.pause() <= FIRST * 2);
    }

    #[test]
    fn a_server_that_does_not_answer_is_asked_again_within_a_second() {
        let mut backoff = Backoff::unanswered();
        let longest = (0..50).map(|_| backoff.pause()).max().unwrap();
        assert!(longest < Duration::from_secs(1) && longest >= LONGEST_UNANSWERED / 2, "{longest:?}");
    }
}
