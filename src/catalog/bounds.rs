//! How far from today partitions are added on demand.
//!
//! Guarantees: values alone; the database keeps them (`store/bounds.rs`), and a configuration names them.

use std::fmt;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

/// The farthest that a setting may go: a century of partitions is more than any server plans a query over.
pub const FARTHEST: u32 = 36_525;

/// Days around today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `store.partitions_back`, in days.
    pub back: u32,
    /// `store.partitions_ahead`, in days.
    pub ahead: u32,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { back, ahead } = self;
        write!(f, "{back} days back and {ahead} ahead (store.partitions_back, store.partitions_ahead)")
    }
}

impl Bounds {
    /// Whether the day that is this many days from today is within them.
    #[must_use]
    pub fn hold(&self, from_today: i64) -> bool {
        (-i64::from(self.back)..=i64::from(self.ahead)).contains(&from_today)
    }
}

/// What a configuration says of the bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Named {
    /// `store.partitions_back`, in days.
    pub back: Option<u32>,
    /// `store.partitions_ahead`, in days.
    pub ahead: Option<u32>,
}

impl Named {
    /// These, and where nothing is named those.
    #[must_use]
    pub fn over(self, bounds: Bounds) -> Bounds {
        Bounds { back: self.back.unwrap_or(bounds.back), ahead: self.ahead.unwrap_or(bounds.ahead) }
    }
}

/// A duration in days, a part of one counted as one.
#[must_use]
pub fn days(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(DAY.as_nanos())).unwrap_or(u32::MAX)
}
