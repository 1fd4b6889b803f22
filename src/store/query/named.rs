//! The one list of named queries: what `jetcopy query` lists and runs, and what the typed methods of the store call.
//!
//! Guarantees: each is a function of the same name in schema `jetcopy`, with these arguments in this order (a test compares
//! them with the database). The SQL of a query is in the migrations and nowhere else.

/// A query of the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// Its name, and that of its function in schema `jetcopy`.
    pub name: &'static str,
    /// What it answers.
    pub help: &'static str,
    /// What it takes. One that is left out has the function's default.
    pub arguments: &'static [Argument],
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
const SERIES: Argument = given("series", Kind::Text, "the series");
const COLUMNS: Argument = or("columns", Kind::Texts, "all", "only these columns");
const ROLLUP: Argument = or("width", Kind::Width, "1m", "the roll-up to read: 1m, 1h or 1d");
const WIDTH: Argument = or("width", Kind::Span, "1h", "width of the buckets");
const PROJECT: Argument = or("project", Kind::Text, "all", "only this project");

const fn max_rows(default: &'static str) -> Argument {
    or("max_rows", Kind::Integer, default, "no more rows than these")
}

/// Every query, in the order of the tables that they read.
pub static QUERIES: [Query; 23] = [
    Query {
        name: "latest_frames",
        help: "the latest frame of each camera, or of one",
        arguments: &[CAMERA, since("1d ago")],
    },
    Query {
        name: "frames",
        help: "frames of a camera, newest first",
        arguments: &[given("camera", Kind::Text, "the camera"), since("1h ago"), UNTIL, max_rows("1000")],
    },
    Query {
        name: "detections",
        help: "detections by camera, label and confidence, newest first",
        arguments: &[
            CAMERA,
            LABELLED,
            or("min_confidence", Kind::Number, "any", "only detections at least as sure"),
            since("1h ago"),
            UNTIL,
            max_rows("100"),
        ],
    },
    Query {
        name: "frame_counts",
        help: "frames, bytes and means over time, from the roll-ups",
        arguments: &[ROLLUP, CAMERA, since("1d ago"), UNTIL],
    },
    Query {
        name: "detection_counts",
        help: "detections and confidences over time, from the roll-ups",
        arguments: &[ROLLUP, CAMERA, LABELLED, since("1d ago"), UNTIL],
    },
    Query {
        name: "recent_measurements",
        help: "measurements by task and receiver, newest first",
        arguments: &[TASK, RECEIVER, since("the beginning"), UNTIL, max_rows("100")],
    },
    Query {
        name: "session_measurements",
        help: "all measurements of a session (task), receiver by receiver",
        arguments: &[given("task", Kind::Text, "the session"), since("the beginning"), UNTIL],
    },
    Query {
        name: "snr_statistics",
        help: "signal-to-noise ratio per receiver: count, mean, min, max, spread",
        arguments: &[RECEIVER, TASK, since("1d ago"), UNTIL],
    },
    Query {
        name: "frequency_drift",
        help: "frequency offset over time, per receiver",
        arguments: &[
            RECEIVER,
            or("frequency", Kind::Number, "all", "only measurements at this frequency, in MHz"),
            WIDTH,
            since("1d ago"),
            UNTIL,
        ],
    },
    Query {
        name: "measurement_days",
        help: "signal-to-noise ratio and frequency offset per day and receiver, from the roll-up",
        arguments: &[RECEIVER, since("1y ago"), UNTIL],
    },
    Query {
        name: "series_columns",
        help: "the columns of a series",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL],
    },
    Query {
        name: "series_rows",
        help: "points of a series, a row a value, newest first",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL, max_rows("1000")],
    },
    Query {
        name: "series_wide",
        help: "points of a series, a row a time, newest first",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL, max_rows("1000")],
    },
    Query {
        name: "series_downsampled",
        help: "a series by buckets of time: count, mean, min, max",
        arguments: &[
            SERIES,
            given("width", Kind::Span, "width of the buckets"),
            COLUMNS,
            since("the beginning"),
            UNTIL,
        ],
    },
    Query {
        name: "series_last",
        help: "the last value of each column of a series",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL],
    },
    Query {
        name: "series_range",
        help: "when each column of a series begins and ends",
        arguments: &[SERIES, COLUMNS, since("the beginning"), UNTIL],
    },
    Query {
        name: "find_projects",
        help: "projects by id and status",
        arguments: &[
            PROJECT,
            or("in_status", Kind::Text, "all", "only active, deleted or locked ones"),
            or("after", Kind::Text, "the first", "those after this id: the next page"),
            max_rows("100"),
        ],
    },
    Query {
        name: "find_files",
        help: "files of a project by path, name or tag",
        arguments: &[
            given("project", Kind::Text, "the project"),
            or("path_is", Kind::Text, "all", "only the file at this path"),
            or("name_is", Kind::Text, "all", "only files of this name"),
            or("tag", Kind::Text, "all", "only files with this tag"),
            or("gone", Kind::Flag, "false", "also those that are deleted or expired"),
            or("after", Kind::Text, "the first", "those after this path: the next page"),
            max_rows("100"),
        ],
    },
    Query {
        name: "files_by_digest",
        help: "files of any project with this content",
        arguments: &[given("digest", Kind::Text, "the content's SHA-256")],
    },
    Query {
        name: "expired_files",
        help: "staged files that have expired and are not marked yet",
        arguments: &[or("at", Kind::Time, "now", "expired by then"), max_rows("1000")],
    },
    Query {
        name: "operations",
        help: "what was done, newest first",
        arguments: &[
            PROJECT,
            or("request", Kind::Text, "all", "only what was part of this request"),
            or("failed", Kind::Flag, "false", "only what failed"),
            since("7d ago"),
            UNTIL,
            max_rows("100"),
        ],
    },
    Query {
        name: "operation_counts",
        help: "how often each operation was done and failed, over time",
        arguments: &[PROJECT, WIDTH, since("1d ago"), UNTIL],
    },
    Query {
        name: "registry_check",
        help: "files without project, and counts that disagree with the log",
        arguments: &[],
    },
];
