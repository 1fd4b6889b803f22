//! Numbers that look random and are the same in every run.

#[path = "splitmix.rs"]
mod splitmix;

use splitmix::SplitMix64;

/// A few instructions a number, and good enough that nothing compresses by its pattern.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// From 0 up to 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.0.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From `low` up to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    /// From 0 to `below` − 1.
    pub(crate) fn index(&mut self, below: usize) -> usize {
        (self.share() * below as f64) as usize
    }

    pub(crate) fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.index(list.len())]
    }

    /// Whether it happens, which it does with this likelihood.
    pub(crate) fn happens(&mut self, likelihood: f64) -> bool {
        self.share() < likelihood
    }

    /// Of mean 0 and deviation 1, near enough to a normal one: the sum of four uniform ones.
    pub(crate) fn normal(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.share()).sum();
        (sum - 2.0) * 3.0_f64.sqrt()
    }

    /// Of mean 1, with the long tail of waiting times.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.share()).ln()
    }
}

/// Rounded to so many decimals, as a sender that writes decimal numbers has it.
pub(crate) fn decimals(value: f64, places: i32) -> f64 {
    let scale = 10.0_f64.powi(places);
    (value * scale).round() / scale
}
