//! `[store]`: how long the rows of the store's tables are kept, and how they are stored.
//!
//! Guarantees: it contains only what the configuration sets; the database keeps the rest (`store/life.rs`). A
//! name that is not in the [`catalog`] is an unknown key.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::catalog::bounds::{self, Named};
use crate::catalog::groups::{Group, Groups};
use crate::catalog::lives::{self, Lives};
use crate::catalog::{self, After, ROLLUPS, Rollup, RollupLife, StoreTable, TABLES, TableLife};

/// The settings beside the tables and roll-ups.
const MAINTAIN_INTERVAL: &str = "maintain_interval";
const CHOICE: &str = "tables";
const SCHEMA: &str = "schema";
const REAL_TIME: &str = "real_time";
const PARTITIONS_BACK: &str = "partitions_back";
const PARTITIONS_AHEAD: &str = "partitions_ahead";

/// Every key of `[store]`, for the message about an unknown one.
static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let tables = TABLES.iter().map(|table| table.name);
    let rollups = ROLLUPS.iter().map(|rollup| rollup.name);
    [CHOICE, SCHEMA, REAL_TIME, MAINTAIN_INTERVAL, PARTITIONS_BACK, PARTITIONS_AHEAD]
        .into_iter()
        .chain(tables)
        .chain(rollups)
        .chain([lives::DEAD_LETTERS])
        .collect()
});

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// How often the daemon does what TimescaleDB's jobs would, where there is no TimescaleDB, and what they
    /// never do.
    pub maintain_interval: Duration,
    /// Which groups of tables `jetcopy migrate` creates, where it is named.
    pub groups: Option<Groups>,
    /// In which schema they are created, where it is named.
    pub schema: Option<String>,
    /// Whether roll-ups have the bucket that is not over yet, where it is named.
    pub real_time: Option<bool>,
    /// How far from today partitions are added on demand, where it is named.
    pub partitions: Named,
    /// What is named of the tables and roll-ups. The database keeps the rest.
    pub named: Lives,
}

impl Store {
    /// The life cycle that a table's rows get when jetcopy creates it.
    #[must_use]
    pub fn table(&self, table: &StoreTable) -> TableLife {
        self.first().table(table)
    }

    /// The life cycle that a roll-up's buckets get when jetcopy creates it.
    #[must_use]
    pub fn rollup(&self, rollup: &Rollup) -> RollupLife {
        self.first().rollup(rollup)
    }

    fn first(&self) -> Lives {
        self.named.over(&Lives::defaults())
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
        for ((relation, setting), after) in
            self.named.iter().filter(|((_, setting), _)| *setting != lives::LAG)
        {
            after.age().into_iter().for_each(|age| positive(format!("store.{relation}.{setting}"), age));
        }
        for (key, days) in
            [(PARTITIONS_BACK, self.partitions.back), (PARTITIONS_AHEAD, self.partitions.ahead)]
        {
            if days.is_some_and(|days| days > bounds::FARTHEST) {
                found.push((format!("store.{key}"), format!("must be at most {}d", bounds::FARTHEST)));
            }
        }
        if let Some(wrong) = self.schema.as_deref().and_then(wrong_schema) {
            found.push((format!("store.{SCHEMA}"), wrong.to_owned()));
        }
        found.extend(self.named.problems());
        found
    }
}

/// Why the store's tables cannot lie in a schema.
fn wrong_schema(name: &str) -> Option<&'static str> {
    // PostgreSQL cuts longer names short.
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Some("must be 1 to 63 bytes long");
    }
    let own = name == "jetcopy" || name == "information_schema" || name.starts_with("pg_");
    own.then_some(
        "belongs to jetcopy or the server: use a schema of its own for the store's tables, or public",
    )
}

impl Default for Store {
    fn default() -> Self {
        Self {
            // The finest roll-up has a bucket a minute.
            maintain_interval: Duration::from_mins(1),
            groups: None,
            schema: None,
            real_time: None,
            partitions: Named::default(),
            named: Lives::default(),
        }
    }
}

/// Manual, so that only the catalog says which names there are.
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
                    if key == CHOICE {
                        store.groups = Some(map.next_value::<Choice>()?.0);
                    } else if key == SCHEMA {
                        store.schema = Some(map.next_value()?);
                    } else if key == REAL_TIME {
                        store.real_time = Some(map.next_value()?);
                    } else if key == MAINTAIN_INTERVAL {
                        store.maintain_interval = duration(&mut map)?;
                    } else if key == PARTITIONS_BACK {
                        store.partitions.back = Some(bounds::days(duration(&mut map)?));
                    } else if key == PARTITIONS_AHEAD {
                        store.partitions.ahead = Some(bounds::days(duration(&mut map)?));
                    } else if let Some(table) = catalog::table(&key) {
                        map.next_value::<TableChange>()?.name(table.name, &mut store.named);
                    } else if key == lives::DEAD_LETTERS {
                        map.next_value::<LettersChange>()?.name(&mut store.named);
                    } else if let Some(rollup) = catalog::rollup(&key) {
                        map.next_value::<RollupChange>()?.name(rollup.name, &mut store.named);
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

/// `tables = [...]`, or `"none"`.
struct Choice(Groups);

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Word(String),
            Groups(Vec<String>),
        }

        let expected = || {
            let names: Vec<String> = Group::ALL.iter().map(|group| format!("\"{}\"", group.name())).collect();
            D::Error::custom(format!("expected \"none\", or a list of {}", names.join(", ")))
        };
        let names = match Either::deserialize(deserializer).map_err(|_| expected())? {
            Either::Word(word) if word == "none" => Vec::new(),
            Either::Word(_) => return Err(expected()),
            Either::Groups(names) => names,
        };
        let group = |name: &String| Group::ALL.into_iter().find(|group| group.name() == name);
        names.iter().map(|name| group(name).ok_or_else(expected)).collect::<Result<Groups, _>>().map(Self)
    }
}

/// `[store.frame_metadata]` and the like: what is not set is not named.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TableChange {
    #[serde(with = "humantime_serde")]
    chunk_interval: Option<Duration>,
    compress_after: Option<Setting>,
    retention: Option<Setting>,
}

impl TableChange {
    fn name(self, table: &'static str, named: &mut Lives) {
        let Self { chunk_interval, compress_after, retention } = self;
        named.set_some((table, lives::CHUNK_INTERVAL), chunk_interval.map(After::Age));
        named.set_some((table, lives::COMPRESS_AFTER), compress_after.map(|Setting(after)| after));
        named.set_some((table, lives::RETENTION), retention.map(|Setting(after)| after));
    }
}

/// `[store.dead_letters]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LettersChange {
    retention: Option<Setting>,
}

impl LettersChange {
    fn name(self, named: &mut Lives) {
        named.set_some((lives::DEAD_LETTERS, lives::RETENTION), self.retention.map(|Setting(after)| after));
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
    fn name(self, rollup: &'static str, named: &mut Lives) {
        let Self { retention, refresh: RefreshChange { every, window, lag } } = self;
        named.set_some((rollup, lives::RETENTION), retention.map(|Setting(after)| after));
        named.set_some((rollup, lives::EVERY), every.map(After::Age));
        named.set_some((rollup, lives::WINDOW), window.map(After::Age));
        named.set_some((rollup, lives::LAG), lag.map(After::Age));
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
