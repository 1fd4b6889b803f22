//! How long to wait before the next attempt.
//!
//! The only user of `backoff`: whoever replaces that crate replaces this file.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// First pause: a failover or a restart is over within a second on a good day, and an attempt costs the servers a
/// login.
const FIRST: Duration = Duration::from_millis(50);

/// Longest pause: what an operator waits at most after having mended something.
const LONGEST: Duration = Duration::from_secs(5);

/// Jittered pauses that grow from [`FIRST`] to [`LONGEST`] and never end.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Starts with the first pause.
    #[must_use]
    pub fn new() -> Self {
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(FIRST)
                .with_multiplier(2.0)
                .with_randomization_factor(0.5)
                .with_max_interval(LONGEST)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        // Without a maximal elapsed time it always has one.
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// Starts with the first pause again.
    pub fn reset(&mut self) {
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
}
