//! The groups of the store's tables that a configuration chooses from.
//!
//! Guarantees: every table, roll-up and view of the store is in one group.

use std::collections::BTreeSet;

/// A group of tables, with their roll-ups and views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Frames and detections.
    Frames,
    /// Measurements of radio receivers.
    Measurements,
    /// Time series.
    Series,
    /// The registry of projects and files.
    Registry,
}

/// Groups that are chosen.
pub type Groups = BTreeSet<Group>;

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Frames, Self::Measurements, Self::Series, Self::Registry];

    /// Its name in `[store] tables`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Measurements => "measurements",
            Self::Series => "series",
            Self::Registry => "registry",
        }
    }

    /// The group of a table, roll-up or view of the store.
    #[must_use]
    pub fn of(relation: &str) -> Self {
        match relation {
            "measurements" | "measurements_daily" | "websdrs" => Self::Measurements,
            "time_series_metadata" | "time_series_data_points" => Self::Series,
            "projects" | "files" | "operations_log" | "stats" => Self::Registry,
            _ => Self::Frames,
        }
    }
}
