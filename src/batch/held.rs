//! How much memory the batches of a generation take together.
//!
//! Guarantees: batches are counted from when they are sent until they are written, and the reader adds no
//! message for which there is no room beside them. Where nothing else is held there is room for any message
//! that is no poison, so that reading never stops for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What batches that were sent and are not written yet take.
#[derive(Debug)]
pub struct Held {
    limit: usize,
    bytes: AtomicUsize,
    /// What the reader also holds.
    filling: AtomicUsize,
    /// Both, for whoever looks on.
    shown: Arc<AtomicUsize>,
    all_written: Notify,
    written: Notify,
}

impl Held {
    /// Nothing, where `limit` bytes may be. What is held is told to `shown`, which is 0.
    #[must_use]
    pub fn new(limit: usize, shown: Arc<AtomicUsize>) -> Self {
        let (bytes, filling) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { limit, bytes, filling, shown, all_written: Notify::new(), written: Notify::new() }
    }

    /// Bytes that rows of a message of `message` bytes may take in a batch that holds `filling`; any number
    /// in the only one while that is empty.
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

    /// The reader holds so much that it has not sent.
    pub fn fills(&self, bytes: usize) {
        let before = self.filling.swap(bytes, Ordering::Relaxed);
        // Wraps where it is less than before.
        self.shown.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Counts a batch that is sent.
    pub fn sent(&self, bytes: usize) {
        self.fills(0);
        self.shown.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Counts a batch that is written.
    pub fn written(&self, bytes: usize) {
        self.shown.fetch_sub(bytes, Ordering::Relaxed);
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.all_written.notify_one();
        }
        self.written.notify_one();
    }

    /// Resolves when less is held than `before`, or nothing.
    pub async fn less(&self, before: usize) {
        while self.bytes.load(Ordering::Acquire) >= before.max(1) {
            self.written.notified().await;
        }
    }

    /// Bytes of the batches that were sent and are not written yet.
    #[must_use]
    pub fn now(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
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
        let held = Held::new(100, Arc::default());
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
