//! The one list of named queries: what `jetcopy query` lists and runs, and what the API serves.
//!
//! Guarantees: each is a function of the same name in schema `jetcopy`, with these arguments and columns, in
//! order (a test compares them with the database). The SQL of a query is in the migrations and nowhere else.

/// A query of the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// Its name, and that of its function in schema `jetcopy`.
    pub name: &'static str,
    /// What it answers.
    pub help: &'static str,
    /// Where the API has it, below `/api/v1/`.
    pub path: &'static str,
    /// What it takes. One that is left out has the function's default.
    pub arguments: &'static [Argument],
    /// The columns of its rows with their types in SQL, as `name type, name type`.
    pub columns: &'static str,
}

impl Query {
    /// Each column of its rows and its type in SQL, in order.
    pub fn columns(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.columns.split(", ").filter_map(|column| column.split_once(' '))
    }
}

/// An argument of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it has when it is left out; `None`: it must be given.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

/// What values an argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Texts.
    Texts,
    /// A point in time.
    Time,
    /// A span of time.
    Span,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// The width of a roll-up's buckets.
    Width,
}

impl Kind {
    /// The type of the function's argument.
    #[must_use]
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Text | Self::Width => "text",
            Self::Texts => "text[]",
            Self::Time => "timestamp with time zone",
            Self::Span => "interval",
            Self::Integer => "bigint",
            Self::Number => "double precision",
            Self::Flag => "boolean",
        }
    }
}

/// The query of that name.
#[must_use]
pub fn query(name: &str) -> Option<&'static Query> {
    QUERIES.iter().find(|query| query.name == name)
}

const fn given(name: &'static str, kind: Kind, help: &'static str) -> Argument {
    Argument { name, kind, default: None, help }
}

const fn or(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Argument {
    Argument { name, kind, default: Some(default), help }
}

const fn since(default: &'static str) -> Argument {
    or("since", Kind::Time, default, "from this time on")
}

const UNTIL: Argument = or("until", Kind::Time, "no end", "before this time");
const CAMERA: Argument = or("camera", Kind::Text, "all", "only this camera");
const LABELLED: Argument = or("labelled", Kind::Text, "all", "only detections with this label");
const RECEIVER: Argument = or("receiver", Kind::Text, "all", "only this receiver (websdr_id)");
const TASK: Argument = or("task", Kind::Text, "all", "only this task");
const FREQUENCY: Argument =
    or("frequency", Kind::Number, "all", "only measurements at this frequency, in MHz");
const SERIES: Argument = given("series", Kind::Text, "the series");
const COLUMNS: Argument = or("columns", Kind::Texts, "all", "only these columns");
const ROLLUP: Argument = or("width", Kind::Width, "1m", "the roll-up to read: 1m, 1h or 1d");
const WIDTH: Argument = or("width", Kind::Span, "1h", "width of the buckets");
const PROJECT: Argument = or("project", Kind::Text, "all", "only this project");

const fn max_rows(default: &'static str) -> Argument {
    or("max_rows", Kind::Integer, default, "no more rows than these")
}

const FRAMES: &str = "time timestamptz, camera_id text, frame_id bigint, width integer, height integer, \
    codec text, fps float8, key_frame boolean, size_bytes bigint, processing_ms float8, brightness float8, \
    motion float8, attributes jsonb";
const MEASUREMENTS: &str = "timestamp_utc timestamptz, task_id text, websdr_id text, frequency_mhz float8, \
    sample_rate_khz float8, samples_count bigint, snr_db float8, frequency_offset_hz float8, \
    power_dbm float8, s3_path text, attributes jsonb, receiver_name text";
const FILES: &str = "project_id text, path text, name text, size_bytes bigint, content_type text, md5 text, \
    sha256 text, staged boolean, expires_at timestamptz, tags jsonb, status text, created_at timestamptz, \
    updated_at timestamptz";

/// Every query, in the order of the tables that they read.
pub static QUERIES: [Query; 28] = [
    Query {
        name: "latest_frames",
        help: "the latest frame of each camera, or of one",
        path: "frames/latest",
        arguments: &[CAMERA, since("1d ago")],
        columns: FRAMES,
    },
    Query {
        name: "frames",
        help: "frames of a camera, newest first",
        path: "frames",
        arguments: &[given("camera", Kind::Text, "the camera"), since("1h ago"), UNTIL, max_rows("1000")],
        columns: FRAMES,
    },
    Query {
        name: "recent_frames",
        help: "frames of all cameras, newest first",
        path: "frames/recent",
        arguments: &[since("1h ago"), UNTIL, max_rows("100")],
        columns: FRAMES,
    },
    Query {
        name: "detections",
        help: "detections by camera, label and confidence, newest first",
        path: "detections",
        arguments: &[
            CAMERA,
            LABELLED,
            or("min_confidence", Kind::Number, "any", "only detections at least as sure"),
            since("1h ago"),
            UNTIL,
            max_rows("100"),
        ],
        columns: "time timestamptz, camera_id text, frame_id bigint, track_id bigint, label text, \
            confidence float8, bbox_left float8, bbox_top float8, bbox_width float8, bbox_height float8, \
            attributes jsonb",
    },
    Query {
        name: "frame_counts",
        help: "frames, bytes and means, from the roll-ups: buckets that are over, with real_time all",
        path: "frames/counts",
        arguments: &[ROLLUP, CAMERA, since("1d ago"), UNTIL],
        columns: "bucket timestamptz, camera_id text, frames bigint, key_frames bigint, bytes bigint, \
            processing_ms_mean float8, processing_ms_max float8, brightness_mean float8, \
            motion_mean float8",
    },
    Query {
        name: "detection_counts",
        help: "detections and confidences over time, from the roll-ups; see frame_counts",
        path: "detections/counts",
        arguments: &[ROLLUP, CAMERA, LABELLED, since("1d ago"), UNTIL],
        columns: "bucket timestamptz, camera_id text, label text, detections bigint, \
            confidence_mean float8, confidence_max float8",
    },
    Query {
        name: "recent_measurements",
        help: "measurements by task and receiver, newest first",
        path: "measurements/recent",
        arguments: &[TASK, RECEIVER, since("the beginning"), UNTIL, max_rows("100"), FREQUENCY],
        columns: MEASUREMENTS,
    },
    Query {
        name: "session_measurements",
        help: "all measurements of a session (task), receiver by receiver",
        path: "measurements/session",
        arguments: &[given("task", Kind::Text, "the session"), since("the beginning"), UNTIL],
        columns: MEASUREMENTS,
    },
    Query {
        name: "snr_statistics",
        help: "signal-to-noise ratio per receiver: count, mean, min, max, spread",
        path: "measurements/statistics",
        arguments: &[RECEIVER, TASK, since("1d ago"), UNTIL],
        columns: "websdr_id text, measurements bigint, snr_db_mean float8, snr_db_min float8, \
            snr_db_max float8, snr_db_stddev float8, receiver_name text",
    },
    Query {
        name: "frequency_drift",
        help: "frequency offset over time, per receiver",
        path: "measurements/drift",
        arguments: &[RECEIVER, FREQUENCY, WIDTH, since("1d ago"), UNTIL, TASK],
        columns: "websdr_id text, bucket timestamptz, measurements bigint, offset_hz_mean float8, \
            offset_hz_min float8, offset_hz_max float8, drift_hz float8, receiver_name text",
    },
    Query {
        name: "measurement_days",
        help: "SNR and frequency offset per day and receiver, from the roll-up; see frame_counts",
        path: "measurements/days",
        arguments: &[RECEIVER, since("1y ago"), UNTIL],
        columns: "bucket timestamptz, websdr_id text, measurements bigint, snr_db_mean float8, \
            snr_db_min float8, snr_db_max float8, offset_hz_mean float8, offset_hz_min float8, \
            offset_hz_max float8, receiver_name text",
    },
    Query {
        name: "measurement_results",
        help: "measurements stored and refused, by task",
        path: "measurements/results",
        arguments: &[TASK, since("1d ago"), UNTIL],
        columns: "task_id text, stored bigint, refused bigint, refused_messages bigint",
    },
    Query {
        name: "receivers",
        help: "the receivers, by id",
        path: "receivers",
        arguments: &[RECEIVER, or("is_active", Kind::Flag, "all", "only those that are active, or are not")],
        columns: "id text, name text, location text, url text, active boolean, attributes jsonb, \
            created_at timestamptz, updated_at timestamptz",
    },
    Query {
        name: "series_columns",
        help: "the columns of a series",
        path: "series/columns",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL],
        columns: "column_name text",
    },
    Query {
        name: "series_rows",
        help: "points of a series, a row a value, newest first",
        path: "series/rows",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL, max_rows("1000")],
        columns: "timestamp timestamptz, column_name text, value float8",
    },
    Query {
        name: "series_wide",
        help: "points of a series, a row a time, newest first",
        path: "series/wide",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL, max_rows("1000")],
        columns: "timestamp timestamptz, values jsonb",
    },
    Query {
        name: "series_downsampled",
        help: "a series by buckets of time: count, mean, min, max",
        path: "series/downsampled",
        arguments: &[
            SERIES,
            given("width", Kind::Span, "width of the buckets"),
            COLUMNS,
            since("the beginning"),
            UNTIL,
        ],
        columns: "bucket timestamptz, column_name text, points bigint, mean float8, min float8, max float8",
    },
    Query {
        name: "series_last",
        help: "the last value of each column of a series",
        path: "series/last",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL],
        columns: "column_name text, timestamp timestamptz, value float8",
    },
    Query {
        name: "series_range",
        help: "when each column of a series begins and ends",
        path: "series/range",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL],
        columns: "column_name text, first_at timestamptz, last_at timestamptz",
    },
    Query {
        name: "find_projects",
        help: "projects by id and status",
        path: "projects",
        arguments: &[
            PROJECT,
            or("in_status", Kind::Text, "all", "only active, deleted or locked ones"),
            or("after", Kind::Text, "the first", "those after this id: the next page"),
            max_rows("100"),
        ],
        columns: "id text, name text, path text, size_bytes bigint, table_count bigint, \
            bucket_count bigint, status text, settings jsonb, created_at timestamptz, \
            updated_at timestamptz",
    },
    Query {
        name: "project_stats",
        help: "what a project adds up to, and what was done to it in the last day",
        path: "projects/stats",
        arguments: &[given("project", Kind::Text, "the project")],
        columns: "project_id text, name text, status text, size_bytes bigint, table_count bigint, \
            bucket_count bigint, files bigint, file_bytes bigint, staged_files bigint, \
            operations_1d bigint, failures_1d bigint, mean_duration_ms_1d float8, \
            last_operation timestamptz",
    },
    Query {
        name: "registry_totals",
        help: "what all projects add up to, and what was done in the last day",
        path: "projects/totals",
        arguments: &[],
        columns: "projects bigint, active_projects bigint, deleted_projects bigint, locked_projects bigint, \
            size_bytes bigint, table_count bigint, bucket_count bigint, files bigint, file_bytes bigint, \
            staged_files bigint, operations_1d bigint, failures_1d bigint, mean_duration_ms_1d float8, \
            last_operation timestamptz",
    },
    Query {
        name: "find_files",
        help: "files of a project by path, name or tag",
        path: "files",
        arguments: &[
            given("project", Kind::Text, "the project"),
            or("path_is", Kind::Text, "all", "only the file at this path"),
            or("name_is", Kind::Text, "all", "only files of this name"),
            or("tag", Kind::Text, "all", "only files with this tag"),
            or("gone", Kind::Flag, "false", "also those that are deleted or expired"),
            or("after", Kind::Text, "the first", "those after this path: the next page"),
            max_rows("100"),
        ],
        columns: FILES,
    },
    Query {
        name: "files_by_digest",
        help: "files of any project with this content",
        path: "files/digest",
        arguments: &[given("digest", Kind::Text, "the content's SHA-256")],
        columns: FILES,
    },
    Query {
        name: "expired_files",
        help: "staged files that have expired and are not marked yet",
        path: "files/expired",
        arguments: &[or("at", Kind::Time, "now", "expired by then"), max_rows("1000")],
        columns: FILES,
    },
    Query {
        name: "operations",
        help: "what was done, newest first",
        path: "operations",
        arguments: &[
            PROJECT,
            or("request", Kind::Text, "all", "only what was part of this request"),
            or("failed", Kind::Flag, "false", "only what failed"),
            since("7d ago"),
            UNTIL,
            max_rows("100"),
        ],
        columns: "timestamp timestamptz, request_id text, project_id text, operation text, resource text, \
            details jsonb, duration_ms float8, status text, error text",
    },
    Query {
        name: "operation_counts",
        help: "how often each operation was done and failed, over time",
        path: "operations/counts",
        arguments: &[PROJECT, WIDTH, since("1d ago"), UNTIL],
        columns: "bucket timestamptz, operation text, operations bigint, failures bigint, \
            duration_ms_mean float8, duration_ms_max float8",
    },
    Query {
        name: "registry_check",
        help: "files without project, and counts that disagree with the log",
        path: "registry/check",
        arguments: &[or("whole", Kind::Flag, "false", "from files and log, not from their running counts")],
        columns: "problem text, project_id text, path text, stored bigint, logged bigint",
    },
];
