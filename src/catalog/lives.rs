//! How long rows live: settings of tables and roll-ups, by name.
//!
//! Guarantees: values alone, some or all of them. What is not in here, the database keeps (`store/life.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{After, ROLLUPS, Refresh, Rollup, RollupLife, StoreTable, TABLES, TableLife, written};

/// The settings of a table.
pub const CHUNK_INTERVAL: &str = "chunk_interval";
/// See [`CHUNK_INTERVAL`].
pub const COMPRESS_AFTER: &str = "compress_after";
/// Of a table or a roll-up.
pub const RETENTION: &str = "retention";
/// The settings of a roll-up.
pub const EVERY: &str = "refresh.every";
/// See [`EVERY`].
pub const WINDOW: &str = "refresh.window";
/// See [`EVERY`].
pub const LAG: &str = "refresh.lag";

/// Dead letters, as `[store]` and the database name them: they have a retention and nothing else, and what it
/// takes is their payloads.
pub const DEAD_LETTERS: &str = "dead_letters";

/// How many buckets a refresh must span at least, or TimescaleDB refuses the policy.
const MIN_BUCKETS: u32 = 2;

/// A table or roll-up, and one of its settings.
pub type Key = (&'static str, &'static str);

/// Settings of tables and roll-ups: some, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives(pub(crate) BTreeMap<Key, After>);

impl Lives {
    /// The catalog's, all of them.
    #[must_use]
    pub fn defaults() -> Self {
        let tables = TABLES.iter().flat_map(|table| {
            let TableLife { chunk_interval, compress_after, retention } = table.life;
            [
                ((table.name, CHUNK_INTERVAL), After::Age(chunk_interval)),
                ((table.name, COMPRESS_AFTER), compress_after),
                ((table.name, RETENTION), retention),
            ]
        });
        let rollups = ROLLUPS.iter().flat_map(|rollup| {
            let RollupLife { refresh: Refresh { every, window, lag }, retention } = rollup.life;
            [
                ((rollup.name, EVERY), After::Age(every)),
                ((rollup.name, WINDOW), After::Age(window)),
                ((rollup.name, LAG), After::Age(lag)),
                ((rollup.name, RETENTION), retention),
            ]
        });
        Self(tables.chain(rollups).collect())
    }

    /// Sets one.
    pub fn set(&mut self, key: Key, after: After) {
        self.0.insert(key, after);
    }

    /// Sets one that may be absent.
    pub fn set_some(&mut self, key: Key, after: Option<After>) {
        self.0.extend(after.map(|after| (key, after)));
    }

    /// These, and the others where these say nothing.
    #[must_use]
    pub fn over(&self, others: &Self) -> Self {
        let mut lives = others.clone();
        lives.0.extend(self.0.iter().map(|(key, after)| (*key, *after)));
        lives
    }

    /// Every setting that is there.
    pub fn iter(&self) -> impl Iterator<Item = (Key, After)> {
        self.0.iter().map(|(key, after)| (*key, *after))
    }

    /// The life of a table's rows. They stay, unless it is said here when they go.
    #[must_use]
    pub fn table(&self, table: &StoreTable) -> TableLife {
        let TableLife { chunk_interval, compress_after, .. } = table.life;
        TableLife {
            chunk_interval: self.age(table.name, CHUNK_INTERVAL, chunk_interval),
            compress_after: self.after(table.name, COMPRESS_AFTER).unwrap_or(compress_after),
            retention: self.retention(table.name),
        }
    }

    /// The life of a roll-up's buckets. They stay, unless it is said here when they go.
    #[must_use]
    pub fn rollup(&self, rollup: &Rollup) -> RollupLife {
        let Refresh { every, window, lag } = rollup.life.refresh;
        RollupLife {
            refresh: Refresh {
                every: self.age(rollup.name, EVERY, every),
                window: self.age(rollup.name, WINDOW, window),
                lag: self.age(rollup.name, LAG, lag),
            },
            retention: self.retention(rollup.name),
        }
    }

    /// What is wrong with the spans of time that the roll-ups refresh: the key, and what would be right. What
    /// is not said here is not compared: the database may keep anything.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        ROLLUPS.iter().filter_map(|rollup| self.window(rollup)).collect()
    }

    fn window(&self, rollup: &Rollup) -> Option<(String, String)> {
        let age = |relation, setting| self.after(relation, setting).and_then(After::age);
        let window = age(rollup.name, WINDOW)?;
        let lag = age(rollup.name, LAG).unwrap_or_default();
        let least = lag.saturating_add(rollup.bucket.length() * MIN_BUCKETS);
        let (key, text) = match (age(rollup.source, RETENTION), age(rollup.name, RETENTION)) {
            (Some(kept), _) if window > kept => (
                WINDOW,
                format!(
                    "is {}, and {} keeps its rows for {}: the refresh would empty buckets whose rows were \
                     dropped; at most {}",
                    written(window),
                    rollup.source,
                    written(kept),
                    written(kept),
                ),
            ),
            (_, Some(kept)) if window > kept => (
                RETENTION,
                format!("is {}, less than refresh.window: dropped buckets would come again", written(kept)),
            ),
            _ if window < least => (
                WINDOW,
                format!(
                    "is {}: must be {MIN_BUCKETS} buckets more than refresh.lag, at least {}",
                    written(window),
                    written(least),
                ),
            ),
            _ => return None,
        };
        Some((format!("store.{}.{key}", rollup.name), text))
    }

    fn after(&self, relation: &'static str, setting: &'static str) -> Option<After> {
        self.0.get(&(relation, setting)).copied()
    }

    fn age(&self, relation: &'static str, setting: &'static str, otherwise: Duration) -> Duration {
        self.after(relation, setting).and_then(After::age).unwrap_or(otherwise)
    }

    pub(crate) fn retention(&self, relation: &'static str) -> After {
        self.after(relation, RETENTION).unwrap_or(After::Never)
    }

    /// Without what is of none of these relations.
    pub(crate) fn only(mut self, relations: &BTreeSet<&'static str>) -> Self {
        self.0.retain(|(relation, _), _| relations.contains(relation));
        self
    }
}
