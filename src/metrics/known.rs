//! A gauge of something that need not be known.
//!
//! Guarantees: what nobody has found out yet, or can no longer tell, is neither 0 nor the last that was
//! known: it is absent from `/metrics` and `null` in `/status`.

use prometheus::Gauge;

/// The handle; clones share the value.
#[derive(Debug, Clone)]
pub struct Known(Gauge);

impl Known {
    /// With nothing known.
    pub(super) fn new(gauge: Gauge) -> Self {
        gauge.set(f64::NAN);
        Self(gauge)
    }

    /// It is `value`. A gauge holds a whole number exactly up to 2^53.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub fn set(&self, value: i64) {
        self.0.set(value as f64);
    }

    /// It is so many seconds, or none that anybody foresees: infinite.
    pub fn set_seconds(&self, value: f64) {
        self.0.set(value);
    }

    /// It is that count, where it is known.
    pub fn know(&self, count: Option<u64>) {
        match count {
            Some(count) => self.set(super::gauge_value(count)),
            None => self.forget(),
        }
    }

    /// The same of seconds.
    pub fn know_seconds(&self, seconds: Option<f64>) {
        self.set_seconds(seconds.unwrap_or(f64::NAN));
    }

    /// It is not known any more.
    pub fn forget(&self) {
        self.0.set(f64::NAN);
    }

    /// The value, where it is known.
    #[must_use]
    pub fn get(&self) -> Option<i64> {
        #[expect(clippy::cast_possible_truncation, reason = "whole where it was set as such")]
        self.seconds().map(|value| value as i64)
    }

    /// The same of seconds.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        Some(self.0.get()).filter(|value| !value.is_nan())
    }
}
