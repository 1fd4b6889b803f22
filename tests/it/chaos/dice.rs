//! Random numbers from a seed: the same on every machine and with every version of every library.

use std::time::Duration;

#[path = "../../../benches/store/splitmix.rs"]
mod splitmix;

use splitmix::SplitMix64;

pub(crate) struct Dice(SplitMix64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// A number from `from` to below `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.next() % (to - from)
    }

    /// The same as a small number.
    pub(crate) fn small(&mut self, from: u32, to: u32) -> u32 {
        u32::try_from(self.between(from.into(), to.into())).unwrap()
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.0.next() % choices.len() as u64).unwrap()]
    }
}
