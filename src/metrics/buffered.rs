//! The memory that a generation holds.
//!
//! Guarantees: what one generation counts late is never taken for what the next one holds, nor for something
//! where none runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;

use super::gauge_value;

/// Bytes held by the present generation; clones share them.
#[derive(Debug, Clone)]
pub struct Buffered {
    gauge: IntGauge,
    /// What the present generation counts with.
    bytes: Arc<Mutex<Arc<AtomicUsize>>>,
}

impl Buffered {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self { gauge, bytes: Arc::default() }
    }

    /// What a generation that begins counts with. Nothing is held yet, and what the one before counts is not
    /// looked at.
    #[must_use]
    pub fn begin(&self) -> Arc<AtomicUsize> {
        let bytes = Arc::default();
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&bytes);
        bytes
    }

    /// Bytes held now.
    #[must_use]
    pub fn get(&self) -> i64 {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).load(Ordering::Relaxed);
        gauge_value(bytes as u64)
    }

    pub(super) fn settle(&self) {
        self.gauge.set(self.get());
    }
}
