//! `[store]`: how long the rows of the store's tables live, and what becomes of them.
//!
//! Guarantees: settings hold every table and roll-up of the [`catalog`], with the catalog's defaults where nothing else
//! is set; a name that is not in it is an unknown key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::store::bounds::{self, Bounds};
use crate::store::catalog::{
    self, After, ROLLUPS, Refresh, Rollup, RollupLife, StoreTable, TABLES, TableLife, written,
};

/// The settings beside the tables and roll-ups.
const MAINTAIN_INTERVAL: &str = "maintain_interval";
const PARTITIONS_BACK: &str = "partitions_back";
const PARTITIONS_AHEAD: &str = "partitions_ahead";

/// Every key of `[store]`, for the message about an unknown one.
static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let tables = TABLES.iter().map(|table| table.name);
    let rollups = ROLLUPS.iter().map(|rollup| rollup.name);
    [MAINTAIN_INTERVAL, PARTITIONS_BACK, PARTITIONS_AHEAD].into_iter().chain(tables).chain(rollups).collect()
});

/// How many buckets a refresh must span at least, or TimescaleDB refuses the policy.
const MIN_BUCKETS: u32 = 2;

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// How often the daemon does what TimescaleDB's jobs would, where there is no TimescaleDB, and what they never do.
    pub maintain_interval: Duration,
    /// How far from today partitions are added on demand.
    pub partitions: Bounds,
    tables: BTreeMap<&'static str, TableLife>,
    rollups: BTreeMap<&'static str, RollupLife>,
}

impl Store {
    /// The life cycle of a table's rows.
    #[must_use]
    pub fn table(&self, table: &StoreTable) -> TableLife {
        self.tables.get(table.name).copied().unwrap_or(table.life)
    }

    /// The life cycle of a roll-up's buckets.
    #[must_use]
    pub fn rollup(&self, rollup: &Rollup) -> RollupLife {
        self.rollups.get(rollup.name).copied().unwrap_or(rollup.life)
    }

    /// Everything that is wrong with these settings: the key, and what would be right.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut positive = |key: String, value: Duration| {
            if value.is_zero() {
                found.push((key, "must be more than 0".to_owned()));
            }
        };
        positive(format!("store.{MAINTAIN_INTERVAL}"), self.maintain_interval);
        for (name, life) in &self.tables {
            positive(format!("store.{name}.chunk_interval"), life.chunk_interval);
            for (key, after) in [("compress_after", life.compress_after), ("retention", life.retention)] {
                after.age().into_iter().for_each(|age| positive(format!("store.{name}.{key}"), age));
            }
        }
        for (name, life) in &self.rollups {
            positive(format!("store.{name}.refresh.every"), life.refresh.every);
            life.retention.age().into_iter().for_each(|age| positive(format!("store.{name}.retention"), age));
        }
        for (key, days) in
            [(PARTITIONS_BACK, self.partitions.back), (PARTITIONS_AHEAD, self.partitions.ahead)]
        {
            if days > bounds::FARTHEST {
                found.push((format!("store.{key}"), format!("must be at most {}d", bounds::FARTHEST)));
            }
        }
        for rollup in &ROLLUPS {
            found.extend(self.window(rollup));
        }
        found
    }

    /// What is wrong with the span of time that a roll-up refreshes.
    fn window(&self, rollup: &Rollup) -> Option<(String, String)> {
        let RollupLife { refresh: Refresh { window, lag, .. }, retention } = self.rollup(rollup);
        let (key, text) = match (self.retention(rollup.source).age(), retention.age()) {
            (Some(kept), _) if window > kept => (
                "refresh.window",
                format!(
                    "is {}, and {} keeps its rows for {}: the refresh would empty buckets whose rows were dropped; at \
                     most {}",
                    written(window),
                    rollup.source,
                    written(kept),
                    written(kept),
                ),
            ),
            (_, Some(kept)) if window > kept => (
                "retention",
                format!("is {}, less than refresh.window: dropped buckets would come again", written(kept)),
            ),
            _ if window < lag.saturating_add(rollup.bucket.length() * MIN_BUCKETS) => (
                "refresh.window",
                format!(
                    "is {}: must be {MIN_BUCKETS} buckets more than refresh.lag, at least {}",
                    written(window),
                    written(lag.saturating_add(rollup.bucket.length() * MIN_BUCKETS)),
                ),
            ),
            _ => return None,
        };
        Some((format!("store.{}.{key}", rollup.name), text))
    }

    fn retention(&self, name: &str) -> After {
        let table = catalog::table(name).map(|table| self.table(table).retention);
        let rollup = catalog::rollup(name).map(|rollup| self.rollup(rollup).retention);
        table.or(rollup).unwrap_or(After::Never)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            // The finest roll-up has a bucket a minute.
            maintain_interval: Duration::from_mins(1),
            partitions: Bounds::default(),
            tables: TABLES.iter().map(|table| (table.name, table.life)).collect(),
            rollups: ROLLUPS.iter().map(|rollup| (rollup.name, rollup.life)).collect(),
        }
    }
}

/// By hand, so that the catalog alone says which names there are.
impl<'de> Deserialize<'de> for Store {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Settings;

        impl<'de> Visitor<'de> for Settings {
            type Value = Store;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("tables and roll-ups of the store")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Store, A::Error> {
                let mut store = Store::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == MAINTAIN_INTERVAL {
                        store.maintain_interval = duration(&mut map)?;
                    } else if key == PARTITIONS_BACK {
                        store.partitions.back = bounds::days(duration(&mut map)?);
                    } else if key == PARTITIONS_AHEAD {
                        store.partitions.ahead = bounds::days(duration(&mut map)?);
                    } else if let Some(life) = store.tables.get_mut(key.as_str()) {
                        map.next_value::<TableChange>()?.apply(life);
                    } else if let Some(life) = store.rollups.get_mut(key.as_str()) {
                        map.next_value::<RollupChange>()?.apply(life);
                    } else {
                        return Err(A::Error::unknown_field(&key, &KEYS));
                    }
                }
                Ok(store)
            }
        }

        deserializer.deserialize_map(Settings)
    }
}

fn duration<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Duration, A::Error> {
    Ok(map.next_value::<humantime_serde::Serde<Duration>>()?.into_inner())
}

/// `[store.frame_metadata]` and the like: what is not set stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TableChange {
    #[serde(with = "humantime_serde")]
    chunk_interval: Option<Duration>,
    compress_after: Option<Setting>,
    retention: Option<Setting>,
}

impl TableChange {
    fn apply(self, life: &mut TableLife) {
        let Self { chunk_interval, compress_after, retention } = self;
        life.chunk_interval = chunk_interval.unwrap_or(life.chunk_interval);
        life.compress_after = compress_after.map_or(life.compress_after, |Setting(after)| after);
        life.retention = retention.map_or(life.retention, |Setting(after)| after);
    }
}

/// `[store.frame_stats_1m]` and the like.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RollupChange {
    retention: Option<Setting>,
    refresh: RefreshChange,
}

/// `refresh = { … }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RefreshChange {
    #[serde(with = "humantime_serde")]
    every: Option<Duration>,
    #[serde(with = "humantime_serde")]
    window: Option<Duration>,
    #[serde(with = "humantime_serde")]
    lag: Option<Duration>,
}

impl RollupChange {
    fn apply(self, life: &mut RollupLife) {
        let Self { retention, refresh: RefreshChange { every, window, lag } } = self;
        life.retention = retention.map_or(life.retention, |Setting(after)| after);
        life.refresh.every = every.unwrap_or(life.refresh.every);
        life.refresh.window = window.unwrap_or(life.refresh.window);
        life.refresh.lag = lag.unwrap_or(life.refresh.lag);
    }
}

/// An age, or `never`.
#[derive(Debug)]
struct Setting(After);

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "never" {
            return Ok(Self(After::Never));
        }
        match humantime::parse_duration(&text) {
            Ok(age) => Ok(Self(After::Age(age))),
            Err(error) => {
                Err(D::Error::custom(format!("{error}; expected an age such as \"7d\", or \"never\"")))
            }
        }
    }
}
