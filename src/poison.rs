//! How much poison is normal.
//!
//! Guarantees: messages that become dead letters beyond the limits of a batch or a minute are an error, before they are
//! stored: a flood of them is a mistake in the configuration or a change at the publisher, and a person's to look at. A
//! message counts once, however many of its elements are refused.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::PoisonLimits;

const MINUTE: Duration = Duration::from_mins(1);

/// Counts the dead letters of a pipeline over its generations.
#[derive(Debug)]
pub struct Window {
    limits: PoisonLimits,
    stored: VecDeque<(Instant, usize)>,
}

/// More dead letters than the limits call normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    /// In one batch.
    #[error("more than {limit} messages of one batch cannot be stored")]
    Batch {
        /// `poison.max_per_batch`
        limit: usize,
    },
    /// In a minute.
    #[error("more than {limit} messages cannot be stored within a minute")]
    Minute {
        /// `poison.max_per_minute`
        limit: usize,
    },
}

impl Window {
    /// A window without any dead letters.
    #[must_use]
    pub fn new(limits: PoisonLimits) -> Self {
        Self { limits, stored: VecDeque::new() }
    }

    /// Whether a batch in which something of `letters` messages is refused is still normal.
    pub fn admit(&mut self, letters: usize, now: Instant) -> Result<(), Flood> {
        self.stored.retain(|&(at, _)| now.duration_since(at) < MINUTE);
        if letters > self.limits.max_per_batch {
            return Err(Flood::Batch { limit: self.limits.max_per_batch });
        }
        let before: usize = self.stored.iter().map(|&(_, letters)| letters).sum();
        if letters > 0 && before + letters > self.limits.max_per_minute {
            return Err(Flood::Minute { limit: self.limits.max_per_minute });
        }
        Ok(())
    }

    /// Notes that a batch's dead letters were committed.
    pub fn stored(&mut self, letters: usize, now: Instant) {
        if letters > 0 {
            self.stored.push_back((now, letters));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window::new(PoisonLimits { max_per_batch: 3, max_per_minute: 5 })
    }

    #[test]
    fn a_batch_may_hold_as_many_dead_letters_as_its_limit() {
        let now = Instant::now();
        assert_eq!(window().admit(3, now), Ok(()));
        assert_eq!(window().admit(4, now), Err(Flood::Batch { limit: 3 }));
    }

    #[test]
    fn the_minute_counts_what_was_stored_and_forgets_it_afterwards() {
        let (mut window, start) = (window(), Instant::now());
        window.stored(3, start);
        assert_eq!(window.admit(2, start), Ok(()));
        assert_eq!(window.admit(3, start), Err(Flood::Minute { limit: 5 }));
        assert_eq!(window.admit(0, start), Ok(()));
        assert_eq!(window.admit(3, start + MINUTE), Ok(()));
    }
}
