//! The one list of the store's tables and roll-ups: what each is made of, and how long its rows live by
//! default.
//!
//! Guarantees: a roll-up stands after its source, its columns have the same names and types whether
//! TimescaleDB keeps it or jetcopy, and a mean of means never appears: each roll-up carries sums and counts,
//! and divides them itself.
//!
//! It holds no SQL of a whole statement. The migrations create the tables and roll-ups; tests compare them
//! with this list.

pub mod bounds;
pub mod groups;
pub mod lives;

use std::fmt;
use std::time::Duration;

/// Column that holds the start of a roll-up's bucket.
pub const BUCKET: &str = "bucket";

/// When something happens to rows, by their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// They stay as they are.
    Never,
    /// Once they are this old.
    Age(Duration),
}

impl After {
    /// The age, unless it is never.
    #[must_use]
    pub fn age(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Age(age) => Some(age),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => formatter.write_str("never"),
            Self::Age(age) => formatter.write_str(&written(*age)),
        }
    }
}

/// The life cycle of a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLife {
    /// The span of time that a chunk holds. Without TimescaleDB a partition holds a day, whatever this says.
    pub chunk_interval: Duration,
    /// When a chunk is compressed; only TimescaleDB does that.
    pub compress_after: After,
    /// When rows are dropped.
    pub retention: After,
}

/// The life cycle of a roll-up's buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollupLife {
    /// How it follows its source.
    pub refresh: Refresh,
    /// When buckets are dropped.
    pub retention: After,
}

/// How a roll-up follows its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// How often it does.
    pub every: Duration,
    /// How far back rows that came late are still taken in. Never more than the source's retention: a refresh
    /// of a bucket whose rows were dropped empties it.
    pub window: Duration,
    /// How old a bucket's end must be before the bucket appears.
    pub lag: Duration,
}

/// A table that pipelines fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreTable {
    /// Its name, in the schema where the migrations put it.
    pub name: &'static str,
    /// The column that chunks and partitions go by.
    pub time: &'static str,
    /// Columns that compressed rows are grouped by; none, where a group would have too few rows to compress.
    pub segment_by: &'static [&'static str],
    /// What an earlier version grouped them by, where that was another.
    pub once_segment_by: Option<&'static [&'static str]>,
    /// How rows of a group are ordered, in SQL.
    pub order_by: &'static str,
    /// The life cycle by default.
    pub life: TableLife,
}

/// Rows or buckets of a source, summed up by time and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollup {
    /// Its name, in the schema of its source.
    pub name: &'static str,
    /// A table or an earlier roll-up.
    pub source: &'static str,
    /// The span of time that it sums up.
    pub bucket: Bucket,
    /// Columns that it groups by, beside the bucket.
    pub keys: &'static [&'static str],
    /// The columns that follow the bucket and the keys, in order.
    pub aggregates: &'static [Aggregate],
    /// The life cycle by default.
    pub life: RollupLife,
}

/// A column of a roll-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregate {
    /// Its name.
    pub column: &'static str,
    /// Its type in SQL.
    pub sql_type: &'static str,
    /// Its value in SQL over rows of a table.
    pub of_rows: &'static str,
    /// Its value in SQL over buckets of a finer roll-up.
    pub of_buckets: &'static str,
}

/// The span of time that a roll-up sums up, aligned to UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Bucket {
    /// Its length.
    #[must_use]
    pub const fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::from_mins(1),
            Self::Hour => Duration::from_hours(1),
            Self::Day => days(1),
        }
    }

    /// Its length as SQL writes it, without the word `interval`.
    #[must_use]
    pub const fn interval(self) -> &'static str {
        match self {
            Self::Minute => "1 minute",
            Self::Hour => "1 hour",
            Self::Day => "1 day",
        }
    }
}

/// What a roll-up is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Rows.
    Table(&'static StoreTable),
    /// Buckets.
    Rollup(&'static Rollup),
}

impl Source {
    /// Its column of time.
    #[must_use]
    pub fn time(self) -> &'static str {
        match self {
            Self::Table(table) => table.time,
            Self::Rollup(_) => BUCKET,
        }
    }
}

impl Rollup {
    /// What it is made from.
    #[must_use]
    pub fn source(&self) -> Source {
        match (table(self.source), rollup(self.source)) {
            (Some(table), _) => Source::Table(table),
            (None, Some(rollup)) => Source::Rollup(rollup),
            (None, None) => unreachable!("a test looks at every source in the list"),
        }
    }

    /// The table at the end of its sources.
    #[must_use]
    pub fn table(&self) -> &'static StoreTable {
        match self.source() {
            Source::Table(table) => table,
            Source::Rollup(rollup) => rollup.table(),
        }
    }

    /// Each aggregate's column and its value in SQL over the source.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let of_rows = matches!(self.source(), Source::Table(_));
        self.aggregates.iter().map(move |aggregate| {
            (aggregate.column, if of_rows { aggregate.of_rows } else { aggregate.of_buckets })
        })
    }
}

/// The table of that name.
#[must_use]
pub fn table(name: &str) -> Option<&'static StoreTable> {
    TABLES.iter().find(|table| table.name == name)
}

/// The roll-up of that name.
#[must_use]
pub fn rollup(name: &str) -> Option<&'static Rollup> {
    ROLLUPS.iter().find(|rollup| rollup.name == name)
}

/// A span as settings write it, in the largest unit that it is a multiple of: people do not think in months
/// of 30.44 days.
#[must_use]
pub fn written(span: Duration) -> String {
    let seconds = span.as_secs();
    if span.subsec_nanos() > 0 || seconds == 0 {
        return humantime::format_duration(span).to_string();
    }
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

const fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

/// Frames and detections come by the million an hour: a week of them, compressed as soon as a replay is
/// unlikely.
const FAST: TableLife = TableLife {
    chunk_interval: days(1),
    compress_after: After::Age(days(1)),
    retention: After::Age(days(7)),
};

/// Every table, in the order of the migrations.
pub static TABLES: [StoreTable; 5] = [
    StoreTable {
        name: "frame_metadata",
        time: "time",
        segment_by: &["camera_id"],
        once_segment_by: None,
        order_by: "time DESC",
        life: FAST,
    },
    StoreTable {
        name: "detection_events",
        time: "time",
        // By label too, the newest detections of all cameras lay in as many batches as there are cameras and
        // labels.
        segment_by: &["camera_id"],
        once_segment_by: Some(&["camera_id", "label"]),
        order_by: "time DESC",
        life: FAST,
    },
    StoreTable {
        name: "measurements",
        time: "timestamp_utc",
        segment_by: &["websdr_id"],
        once_segment_by: None,
        order_by: "timestamp_utc DESC",
        life: TableLife {
            chunk_interval: days(1),
            compress_after: After::Age(days(7)),
            retention: After::Age(days(30)),
        },
    },
    StoreTable {
        name: "time_series_data_points",
        time: "timestamp",
        segment_by: &["series_id", "column_name"],
        once_segment_by: None,
        order_by: "timestamp DESC",
        life: TableLife {
            chunk_interval: days(1),
            compress_after: After::Age(days(1)),
            retention: After::Never,
        },
    },
    // Few rows, kept for whoever asks years later: chunks of a week hold enough of them to compress.
    StoreTable {
        name: "operations_log",
        time: "timestamp",
        // A project has few in a week: by project, a compressed row held some twenty, and a day of all
        // projects took them all.
        segment_by: &[],
        once_segment_by: Some(&["project_id"]),
        order_by: "timestamp DESC",
        life: TableLife {
            chunk_interval: days(7),
            compress_after: After::Age(days(30)),
            retention: After::Never,
        },
    },
];

/// A minute after its end a bucket has all but late rows. Those are taken in for six of the seven days that
/// rows live.
const MINUTELY: Refresh =
    Refresh { every: Duration::from_mins(1), window: days(6), lag: Duration::from_mins(1) };

/// The window is wider than that of the minutes, so that what changes there late arrives here.
const HOURLY: Refresh =
    Refresh { every: Duration::from_mins(10), window: days(14), lag: Duration::from_mins(5) };

/// The window is wider than that of the hours.
const DAILY: Refresh =
    Refresh { every: Duration::from_hours(1), window: days(28), lag: Duration::from_mins(15) };

/// Retention of the minutes, the hours and the days.
const KEPT: [After; 3] = [After::Age(days(30)), After::Age(days(365)), After::Never];

/// Every roll-up, each after its source.
pub static ROLLUPS: [Rollup; 7] = [
    Rollup {
        name: "frame_stats_1m",
        source: "frame_metadata",
        bucket: Bucket::Minute,
        keys: &["camera_id"],
        aggregates: &FRAME_STATS,
        life: RollupLife { refresh: MINUTELY, retention: KEPT[0] },
    },
    Rollup {
        name: "frame_stats_1h",
        source: "frame_stats_1m",
        bucket: Bucket::Hour,
        keys: &["camera_id"],
        aggregates: &FRAME_STATS,
        life: RollupLife { refresh: HOURLY, retention: KEPT[1] },
    },
    Rollup {
        name: "frame_stats_1d",
        source: "frame_stats_1h",
        bucket: Bucket::Day,
        keys: &["camera_id"],
        aggregates: &FRAME_STATS,
        life: RollupLife { refresh: DAILY, retention: KEPT[2] },
    },
    Rollup {
        name: "detection_stats_1m",
        source: "detection_events",
        bucket: Bucket::Minute,
        keys: &["camera_id", "label"],
        aggregates: &DETECTION_STATS,
        life: RollupLife { refresh: MINUTELY, retention: KEPT[0] },
    },
    Rollup {
        name: "detection_stats_1h",
        source: "detection_stats_1m",
        bucket: Bucket::Hour,
        keys: &["camera_id", "label"],
        aggregates: &DETECTION_STATS,
        life: RollupLife { refresh: HOURLY, retention: KEPT[1] },
    },
    Rollup {
        name: "detection_stats_1d",
        source: "detection_stats_1h",
        bucket: Bucket::Day,
        keys: &["camera_id", "label"],
        aggregates: &DETECTION_STATS,
        life: RollupLife { refresh: DAILY, retention: KEPT[2] },
    },
    Rollup {
        name: "measurements_daily",
        source: "measurements",
        bucket: Bucket::Day,
        keys: &["websdr_id"],
        aggregates: &MEASUREMENT_STATS,
        life: RollupLife { refresh: DAILY, retention: After::Never },
    },
];

const fn count(column: &'static str, of_rows: &'static str, of_buckets: &'static str) -> Aggregate {
    Aggregate { column, sql_type: "bigint", of_rows, of_buckets }
}

const fn float(column: &'static str, of_rows: &'static str, of_buckets: &'static str) -> Aggregate {
    Aggregate { column, sql_type: "double precision", of_rows, of_buckets }
}

/// Sums of whole numbers are `numeric` in SQL; none here outgrows a `bigint`.
static FRAME_STATS: [Aggregate; 13] = [
    count("frames", "count(*)", "sum(frames)::bigint"),
    count("key_frames", "count(*) FILTER (WHERE key_frame)", "sum(key_frames)::bigint"),
    count("bytes", "sum(size_bytes)::bigint", "sum(bytes)::bigint"),
    count("processing_ms_count", "pg_catalog.count(processing_ms)", "sum(processing_ms_count)::bigint"),
    float("processing_ms_sum", "sum(processing_ms)", "sum(processing_ms_sum)"),
    float(
        "processing_ms_mean",
        "sum(processing_ms) OPERATOR(pg_catalog./) nullif(pg_catalog.count(processing_ms), 0)",
        "sum(processing_ms_sum) OPERATOR(pg_catalog./) nullif(sum(processing_ms_count)::bigint, 0)",
    ),
    float("processing_ms_max", "max(processing_ms)", "max(processing_ms_max)"),
    count("brightness_count", "pg_catalog.count(brightness)", "sum(brightness_count)::bigint"),
    float("brightness_sum", "sum(brightness)", "sum(brightness_sum)"),
    float(
        "brightness_mean",
        "sum(brightness) OPERATOR(pg_catalog./) nullif(pg_catalog.count(brightness), 0)",
        "sum(brightness_sum) OPERATOR(pg_catalog./) nullif(sum(brightness_count)::bigint, 0)",
    ),
    count("motion_count", "pg_catalog.count(motion)", "sum(motion_count)::bigint"),
    float("motion_sum", "sum(motion)", "sum(motion_sum)"),
    float(
        "motion_mean",
        "sum(motion) OPERATOR(pg_catalog./) nullif(pg_catalog.count(motion), 0)",
        "sum(motion_sum) OPERATOR(pg_catalog./) nullif(sum(motion_count)::bigint, 0)",
    ),
];

static DETECTION_STATS: [Aggregate; 5] = [
    count("detections", "count(*)", "sum(detections)::bigint"),
    count("confidence_count", "pg_catalog.count(confidence)", "sum(confidence_count)::bigint"),
    float("confidence_sum", "sum(confidence)", "sum(confidence_sum)"),
    float(
        "confidence_mean",
        "sum(confidence) OPERATOR(pg_catalog./) nullif(pg_catalog.count(confidence), 0)",
        "sum(confidence_sum) OPERATOR(pg_catalog./) nullif(sum(confidence_count)::bigint, 0)",
    ),
    float("confidence_max", "max(confidence)", "max(confidence_max)"),
];

static MEASUREMENT_STATS: [Aggregate; 11] = [
    count("measurements", "count(*)", "sum(measurements)::bigint"),
    count("snr_db_count", "pg_catalog.count(snr_db)", "sum(snr_db_count)::bigint"),
    float("snr_db_sum", "sum(snr_db)", "sum(snr_db_sum)"),
    float(
        "snr_db_mean",
        "sum(snr_db) OPERATOR(pg_catalog./) nullif(pg_catalog.count(snr_db), 0)",
        "sum(snr_db_sum) OPERATOR(pg_catalog./) nullif(sum(snr_db_count)::bigint, 0)",
    ),
    float("snr_db_min", "min(snr_db)", "min(snr_db_min)"),
    float("snr_db_max", "max(snr_db)", "max(snr_db_max)"),
    count(
        "frequency_offset_hz_count",
        "pg_catalog.count(frequency_offset_hz)",
        "sum(frequency_offset_hz_count)::bigint",
    ),
    float("frequency_offset_hz_sum", "sum(frequency_offset_hz)", "sum(frequency_offset_hz_sum)"),
    float(
        "frequency_offset_hz_mean",
        "sum(frequency_offset_hz) OPERATOR(pg_catalog./) nullif(pg_catalog.count(frequency_offset_hz), 0)",
        "sum(frequency_offset_hz_sum) OPERATOR(pg_catalog./) nullif(sum(frequency_offset_hz_count)::bigint, \
         0)",
    ),
    float("frequency_offset_hz_min", "min(frequency_offset_hz)", "min(frequency_offset_hz_min)"),
    float("frequency_offset_hz_max", "max(frequency_offset_hz)", "max(frequency_offset_hz_max)"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_roll_up_stands_after_its_source_and_is_coarser() {
        for (index, rollup) in ROLLUPS.iter().enumerate() {
            match (table(rollup.source), ROLLUPS[..index].iter().find(|other| other.name == rollup.source)) {
                (Some(_), None) => {}
                (None, Some(finer)) => assert!(finer.bucket.length() < rollup.bucket.length()),
                other => panic!("{}: {other:?}", rollup.name),
            }
        }
    }

    #[test]
    fn a_span_is_written_in_the_largest_unit_that_fits() {
        for (seconds, text) in [(86_400 * 31, "31d"), (90_000, "25h"), (60, "1m"), (61, "61s"), (0, "0s")] {
            assert_eq!(written(Duration::from_secs(seconds)), text);
        }
        assert_eq!(written(Duration::from_millis(1_500)), "1s 500ms");
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> =
            TABLES.iter().map(|table| table.name).chain(ROLLUPS.iter().map(|rollup| rollup.name)).collect();
        assert_eq!(names.len(), TABLES.len() + ROLLUPS.len());
    }

    #[test]
    fn a_roll_up_of_a_roll_up_ends_at_the_table() {
        assert_eq!(rollup("frame_stats_1d").unwrap().table().name, "frame_metadata");
    }
}
