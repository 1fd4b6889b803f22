//! How much memory the batches of a generation take together.
//!
//! Guarantees: batches are counted from when they are sent until they are written, and the reader adds no message for which
//! there is no room beside them. Where nothing else is held there is room for any message that is no poison, so that
//! reading never stands still for good.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What batches that were sent and are not written yet take.
#[derive(Debug)]
pub struct Held {
    limit: usize,
    bytes: AtomicUsize,
    all_written: Notify,
}

impl Held {
    /// Nothing, where `limit` bytes may be.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: AtomicUsize::new(0), all_written: Notify::new() }
    }

    /// Bytes that rows of a message of `message` bytes may take in a batch that holds `filling`; any number in the only one
    /// while that is empty.
    #[must_use]
    pub fn room(&self, filling: usize, message: usize) -> usize {
        match self.bytes.load(Ordering::Acquire) {
            0 if filling == 0 => usize::MAX,
            held => self.limit.saturating_sub(held).saturating_sub(filling).saturating_sub(message),
        }
    }

    /// Whether a message that takes `bytes` takes more than half of what there is.
    #[must_use]
    pub fn is_most(&self, bytes: usize) -> bool {
        bytes > self.limit / 2
    }

    /// Counts a batch that is sent.
    pub fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Counts a batch that is written.
    pub fn written(&self, bytes: usize) {
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.all_written.notify_one();
        }
    }

    /// Resolves when nothing is held.
    pub async fn none(&self) {
        while self.bytes.load(Ordering::Acquire) > 0 {
            self.all_written.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_takes_room_until_it_is_written() {
        let held = Held::new(100);
        assert_eq!((held.room(0, 200), held.room(1, 9)), (usize::MAX, 90));
        held.sent(60);
        held.sent(30);
        assert_eq!((held.room(0, 0), held.room(7, 1), held.room(8, 3)), (10, 2, 0));
        held.written(60);
        assert_eq!(held.room(0, 0), 70);
        held.written(30);
        held.none().await;
        assert_eq!(held.room(0, 0), usize::MAX);
    }
}
