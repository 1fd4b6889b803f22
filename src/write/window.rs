//! How much poison is normal.
//!
//! Guarantees: messages that become dead letters beyond the limits of a batch or a minute are an error,
//! before they are stored: a flood of them is a mistake in the configuration or a change at the publisher,
//! and a person's to look at. A message counts once, however many of its elements are refused. One message
//! alone is never a flood by its bytes: no limit would ever let it through.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use crate::config::PoisonLimits;

const MINUTE: Duration = Duration::from_mins(1);

/// Counts the dead letters of a pipeline over its generations.
#[derive(Debug)]
pub(crate) struct Window {
    limits: PoisonLimits,
    stored: VecDeque<(Instant, Letters)>,
}

/// What becomes dead letters: messages and the bytes of their payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Letters {
    pub messages: usize,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// More dead letters than the limits call normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
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
    /// In a minute, by their size.
    #[error("messages of more than {limit} cannot be stored within a minute")]
    Bytes {
        /// `poison.max_bytes_per_minute`
        limit: ByteSize,
    },
}

impl Window {
    /// A window without any dead letters.
    #[must_use]
    pub(crate) fn new(limits: PoisonLimits) -> Self {
        Self { limits, stored: VecDeque::new() }
    }

    /// How many messages of a batch may become dead letters.
    #[must_use]
    pub(crate) fn max_per_batch(&self) -> usize {
        self.limits.max_per_batch
    }

    /// Whether a part of a batch in which something of `letters` is refused is still normal, after `before`
    /// such messages in its other parts.
    pub(crate) fn admit(&mut self, letters: Letters, before: usize, now: Instant) -> Result<(), Flood> {
        self.stored.retain(|&(at, _)| now.duration_since(at) < MINUTE);
        if letters.messages + before > self.limits.max_per_batch {
            return Err(Flood::Batch { limit: self.limits.max_per_batch });
        }
        if letters.messages == 0 {
            return Ok(());
        }
        let messages =
            letters.messages + self.stored.iter().map(|(_, before)| before.messages).sum::<usize>();
        if messages > self.limits.max_per_minute {
            return Err(Flood::Minute { limit: self.limits.max_per_minute });
        }
        let bytes = letters.bytes + self.stored.iter().map(|(_, before)| before.bytes).sum::<u64>();
        if messages > 1 && bytes > self.limits.max_bytes_per_minute.as_u64() {
            return Err(Flood::Bytes { limit: self.limits.max_bytes_per_minute });
        }
        Ok(())
    }

    /// Notes that a batch's dead letters were committed.
    pub(crate) fn stored(&mut self, letters: Letters, now: Instant) {
        if letters.messages > 0 {
            self.stored.push_back((now, letters));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        let max_bytes_per_minute = ByteSize::b(100);
        Window::new(PoisonLimits { max_per_batch: 3, max_per_minute: 5, max_bytes_per_minute })
    }

    fn letters(messages: usize, bytes: u64) -> Letters {
        Letters { messages, bytes }
    }

    #[test]
    fn a_batch_may_hold_as_many_dead_letters_as_its_limit() {
        let now = Instant::now();
        assert_eq!(window().admit(letters(3, 1), 0, now), Ok(()));
        assert_eq!(window().admit(letters(4, 1), 0, now), Err(Flood::Batch { limit: 3 }));
        assert_eq!(window().admit(letters(1, 1), 2, now), Ok(()));
        assert_eq!(window().admit(letters(1, 1), 3, now), Err(Flood::Batch { limit: 3 }));
    }

    #[test]
    fn the_minute_counts_what_was_stored_and_forgets_it_afterwards() {
        let (mut window, start) = (window(), Instant::now());
        window.stored(letters(3, 1), start);
        assert_eq!(window.admit(letters(2, 1), 0, start), Ok(()));
        assert_eq!(window.admit(letters(3, 1), 0, start), Err(Flood::Minute { limit: 5 }));
        assert_eq!(window.admit(letters(0, 0), 0, start), Ok(()));
        assert_eq!(window.admit(letters(3, 1), 0, start + MINUTE), Ok(()));
    }

    #[test]
    fn the_bytes_of_a_minute_are_bounded_and_one_message_alone_is_no_flood() {
        let (mut window, start) = (window(), Instant::now());
        let flood = Err(Flood::Bytes { limit: ByteSize::b(100) });
        assert_eq!(window.admit(letters(1, 1_000), 0, start), Ok(()));
        assert_eq!(window.admit(letters(2, 101), 0, start), flood);
        window.stored(letters(1, 60), start);
        assert_eq!(window.admit(letters(1, 40), 0, start), Ok(()));
        assert_eq!(window.admit(letters(1, 41), 0, start), flood);
        assert_eq!(window.admit(letters(1, 41), 0, start + MINUTE), Ok(()));
    }
}
