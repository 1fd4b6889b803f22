//! A query with its arguments.
//!
//! Guarantees: an argument is one that the query has, with a value of its kind; what is left out is not sent,
//! so that the function's default holds. Values travel beside the text of the statement, never in it.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};

use crate::moment::Moment;
use crate::postgres::interval;

use super::named::{self, Argument, Kind, QUERIES, Query};

/// A query with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    query: &'static Query,
    values: Vec<(&'static Argument, Value)>,
}

/// The value of an argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// A point in time.
    Time(Timestamp),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
}

/// Why words are not a call. Each says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no such query.
    #[error("there is no query {name}{}; `jetcopy query` lists all queries", meant(.nearest.as_deref()))]
    Query {
        /// What was asked for.
        name: String,
        /// The one of the nearest name.
        nearest: Option<String>,
    },
    /// The query has no such argument.
    #[error("query {query} has no argument {name}{}; its arguments: {known}", meant(.nearest.as_deref()))]
    Argument {
        /// The query.
        query: &'static str,
        /// What was given.
        name: String,
        /// The one of the nearest name.
        nearest: Option<String>,
        /// Those that it has.
        known: String,
    },
    /// It is no argument at all.
    #[error("query {query}: write arguments as NAME=VALUE, not {word:?}")]
    Form {
        /// The query.
        query: &'static str,
        /// What was given.
        word: String,
    },
    /// The value is not of the argument's kind.
    #[error("query {query}, argument {argument}: {value:?} is not {expected}")]
    Value {
        /// The query.
        query: &'static str,
        /// The argument.
        argument: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The argument was given before.
    #[error("query {query}: argument {argument} is given twice")]
    Twice {
        /// The query.
        query: &'static str,
        /// The argument.
        argument: &'static str,
    },
    /// The span ends before it begins, so that no row can lie in it.
    #[error("query {query}: since ({since}{}) is after until ({until}); {remedy}",
            if *.by_default { ", the default" } else { "" })]
    Span {
        /// The query.
        query: &'static str,
        /// Its beginning.
        since: Timestamp,
        /// Whether nobody gave it.
        by_default: bool,
        /// Its end.
        until: Timestamp,
        /// What would mend it.
        remedy: &'static str,
    },
    /// An argument without a default was left out.
    #[error("query {query} needs {argument}=…: {help}")]
    Missing {
        /// The query.
        query: &'static str,
        /// The argument.
        argument: &'static str,
        /// What it is.
        help: &'static str,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

impl Call {
    /// Reads a call from words: the query's name, then `NAME=VALUE` for each argument.
    pub fn parse<'w>(name: &str, words: impl IntoIterator<Item = &'w str>) -> Result<Self, CallError> {
        let query = named::query(name).ok_or_else(|| CallError::Query {
            name: name.to_owned(),
            nearest: nearest(name, QUERIES.iter().map(|query| query.name)),
        })?;
        let mut values: Vec<(&'static Argument, Value)> = Vec::new();
        for word in words {
            let (name, text) = word
                .split_once('=')
                .ok_or_else(|| CallError::Form { query: query.name, word: word.to_owned() })?;
            let argument = query
                .arguments
                .iter()
                .find(|argument| argument.name == name)
                .ok_or_else(|| unknown_argument(query, name))?;
            if values.iter().any(|(earlier, _)| earlier.name == argument.name) {
                return Err(CallError::Twice { query: query.name, argument: argument.name });
            }
            let value = Value::parse(argument.kind, text).map_err(|expected| CallError::Value {
                query: query.name,
                argument: argument.name,
                value: text.to_owned(),
                expected,
            })?;
            values.push((argument, value));
        }
        for argument in query.arguments {
            if argument.default.is_none() && !values.iter().any(|(given, _)| given.name == argument.name) {
                let (argument, help) = (argument.name, argument.help);
                return Err(CallError::Missing { query: query.name, argument, help });
            }
        }
        let call = Self { query, values };
        call.check_span()?;
        Ok(call)
    }

    /// Refuses a span that ends before it begins, also where its beginning is the default.
    fn check_span(&self) -> Result<(), CallError> {
        let given = |name: &str| {
            self.values.iter().find_map(|(argument, value)| match value {
                Value::Time(time) if argument.name == name => Some(*time),
                _ => None,
            })
        };
        let by_default = || {
            let since = self.query.arguments.iter().find(|argument| argument.name == "since")?;
            let ago = since.default?.strip_suffix(" ago")?;
            ago.parse().ok().map(|Moment(time)| time)
        };
        let Some(until) = given("until") else { return Ok(()) };
        let (since, is_default) = match given("since") {
            Some(since) => (since, false),
            None => match by_default() {
                Some(since) => (since, true),
                None => return Ok(()),
            },
        };
        if since <= until {
            return Ok(());
        }
        let remedy = if is_default { "give since, too" } else { "swap them" };
        Err(CallError::Span { query: self.query.name, since, by_default: is_default, until, remedy })
    }

    /// The query.
    #[must_use]
    pub fn query(&self) -> &'static Query {
        self.query
    }

    /// The statement, whose parameters are [`Self::parameters`] in order.
    #[must_use]
    pub fn statement(&self) -> String {
        let arguments: Vec<String> = self
            .values
            .iter()
            .zip(1..)
            .map(|((argument, _), place)| match argument.kind {
                // The driver has no interval: its text is read by the server.
                Kind::Span => format!("{} => CAST(${place}::text AS interval)", argument.name),
                Kind::Text
                | Kind::Texts
                | Kind::Time
                | Kind::Integer
                | Kind::Number
                | Kind::Flag
                | Kind::Width => format!("{} => ${place}", argument.name),
            })
            .collect();
        format!("SELECT * FROM jetcopy.{}({})", self.query.name, arguments.join(", "))
    }

    /// The values with their types.
    pub(super) fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(|(_, value)| value.parameter()).collect()
    }
}

fn unknown_argument(query: &'static Query, name: &str) -> CallError {
    let names: Vec<&'static str> = query.arguments.iter().map(|argument| argument.name).collect();
    CallError::Argument {
        query: query.name,
        name: name.to_owned(),
        nearest: nearest(name, names.iter().copied()),
        known: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
    }
}

impl Value {
    /// Reads a value; the error says what would be one.
    fn parse(kind: Kind, text: &str) -> Result<Self, &'static str> {
        match kind {
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Texts => Ok(Self::Texts(text.split(',').map(|part| part.trim().to_owned()).collect())),
            Kind::Time => text
                .parse()
                .map(|Moment(time)| Self::Time(time))
                .map_err(|_| "a time such as 2026-07-01T12:00:00Z, or a duration before now such as 2h"),
            // A month and a year have no fixed length, and buckets are of one.
            Kind::Span => humantime::parse_duration(text)
                .ok()
                .filter(|span| !span.is_zero() && !names_months(text))
                .map(Self::from)
                .ok_or("a duration such as 30s, 5m, 1h or 1d; months and years have no fixed length"),
            Kind::Integer => text
                .parse()
                .ok()
                .filter(|number| *number >= 0)
                .map(Self::Integer)
                .ok_or("a whole number, 0 or more"),
            Kind::Number => text.parse().map(Self::Number).map_err(|_| "a number"),
            Kind::Flag => text.parse().map(Self::Flag).map_err(|_| "true or false"),
            Kind::Width => match text {
                "1m" | "1h" | "1d" => Ok(Self::Text(text.to_owned())),
                _ => Err("1m, 1h or 1d"),
            },
        }
    }

    fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(value) => (value, Type::TEXT),
            Self::Texts(value) => (value, Type::TEXT_ARRAY),
            Self::Time(value) => (value, Type::TIMESTAMPTZ),
            Self::Integer(value) => (value, Type::INT8),
            Self::Number(value) => (value, Type::FLOAT8),
            Self::Flag(value) => (value, Type::BOOL),
        }
    }
}

/// Whether a span that `humantime` takes names a month or a year, which it takes for 30.44 and 365.25 days.
fn names_months(text: &str) -> bool {
    let units = text.split(|character: char| !character.is_ascii_alphabetic());
    units.into_iter().any(|unit| unit == "M" || unit.starts_with("mon") || unit.starts_with('y'))
}

impl From<Duration> for Value {
    /// As the server reads an interval.
    fn from(span: Duration) -> Self {
        Self::Text(interval::exact(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, words: &[&str]) -> Result<Call, CallError> {
        Call::parse(name, words.iter().copied())
    }

    fn error(name: &str, words: &[&str]) -> String {
        parse(name, words).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_is_not_sent() {
        let call = parse("series_downsampled", &["width=90s", "series=s 1"]).unwrap();
        assert_eq!(
            call.statement(),
            "SELECT * FROM jetcopy.series_downsampled(width => CAST($1::text AS interval), series => $2)"
        );
        assert_eq!(
            call.values.iter().map(|(_, value)| value).collect::<Vec<_>>(),
            [&Value::Text("90.000000 seconds".into()), &Value::Text("s 1".into())]
        );
    }

    #[test]
    fn a_span_that_ends_before_its_default_begins_is_refused_and_an_empty_one_is_not() {
        let said = error("recent_frames", &["until=2h"]);
        assert!(
            said.contains(", the default) is after until (") && said.ends_with("; give since, too"),
            "{said}"
        );
        assert!(parse("recent_frames", &["since=3h", "until=2h"]).is_ok());
        assert!(parse("recent_frames", &["since=2026-07-01", "until=2026-07-01"]).is_ok());
        // Its beginning by default is that of all rows.
        assert!(parse("series_rows", &["series=a", "until=1970-01-01"]).is_ok());
    }

    #[test]
    fn months_and_years_are_no_width_whatever_they_are_called() {
        for width in ["1M", "1month", "2 months", "1d 1y", "1year", "3 years"] {
            assert!(
                error("frequency_drift", &[&format!("width={width}")]).contains("no fixed length"),
                "{width}"
            );
        }
        for width in ["90s", "5m", "1 min", "15minutes", "1h", "1d 12h", "2weeks"] {
            assert!(parse("frequency_drift", &[&format!("width={width}")]).is_ok(), "{width}");
        }
    }

    #[test]
    fn an_error_names_the_query_and_the_argument_and_what_would_be_right() {
        for (name, words, expected) in [
            (
                "latest_frame",
                &[][..],
                "there is no query latest_frame; did you mean latest_frames?; `jetcopy query` lists",
            ),
            (
                "latest_frames",
                &["camra=1"],
                "query latest_frames has no argument camra; did you mean camera?; its arguments: camera, \
                 since",
            ),
            ("registry_totals", &["x=1"], "query registry_totals has no argument x; its arguments: none"),
            (
                "latest_frames",
                &["cam-1"],
                "query latest_frames: write arguments as NAME=VALUE, not \"cam-1\"",
            ),
            (
                "latest_frames",
                &["since=soon"],
                "query latest_frames, argument since: \"soon\" is not a time such as",
            ),
            ("frame_counts", &["width=2h"], "query frame_counts, argument width: \"2h\" is not 1m, 1h or 1d"),
            (
                "frames",
                &["camera=a", "max_rows=-1"],
                "query frames, argument max_rows: \"-1\" is not a whole number, 0 or more",
            ),
            (
                "frequency_drift",
                &["width=0s"],
                "query frequency_drift, argument width: \"0s\" is not a duration",
            ),
            (
                "find_files",
                &["project=a", "gone=maybe"],
                "query find_files, argument gone: \"maybe\" is not true or false",
            ),
            (
                "series_downsampled",
                &["series=a", "width=1month"],
                "query series_downsampled, argument width: \"1month\" is not a duration such as 30s, 5m, \
                 1h or 1d; months and years have no fixed length",
            ),
            (
                "frames",
                &["camera=a", "since=2026-07-02", "until=2026-07-01"],
                "query frames: since (2026-07-02T00:00:00Z) is after until (2026-07-01T00:00:00Z); swap them",
            ),
            ("frames", &["camera=a", "camera=b"], "query frames: argument camera is given twice"),
            ("frames", &[], "query frames needs camera=…: the camera"),
        ] {
            let said = error(name, words);
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
