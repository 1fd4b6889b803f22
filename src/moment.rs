//! A point in time, and a point in a stream, as people write them.
//!
//! Guarantees: a time without a zone is in UTC; a plain number is a sequence where a stream is meant.

use std::str::FromStr;

use jiff::{Timestamp, tz::TimeZone};

/// `2026-07-01T12:00:00Z`, `2026-07-01 12:00` (in UTC), `2026-07-01`, or how long ago: `90m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub Timestamp);

/// A place in a stream, as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Sequence(u64),
    Time(Timestamp),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self(time));
        }
        if let Some(time) =
            text.parse::<jiff::civil::DateTime>().ok().and_then(|time| time.to_zoned(TimeZone::UTC).ok())
        {
            return Ok(Self(time.timestamp()));
        }
        let ago = humantime::parse_duration(text).map_err(|_| {
            "use a time such as 2026-07-01T12:00:00Z, or a duration before now such as 2h".to_owned()
        })?;
        Timestamp::now().checked_sub(ago).map(Self).map_err(|error| error.to_string())
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(sequence) => Ok(Self::Sequence(sequence)),
            Err(_) => text.parse().map(|Moment(time)| Self::Time(time)).map_err(|_: String| {
                "use a sequence, a time such as 2026-07-01T12:00:00Z, or a duration before now such as 2h"
                    .to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_with_a_zone_and_without_one_as_utc() {
        let time = "2026-07-01T12:00:00Z".parse::<Timestamp>().unwrap();
        for text in
            ["2026-07-01T12:00:00Z", "2026-07-01T14:00:00+02:00", "2026-07-01 12:00", "2026-07-01T12:00:00"]
        {
            assert_eq!(text.parse::<Moment>().unwrap(), Moment(time), "{text}");
            assert_eq!(text.parse::<Point>().unwrap(), Point::Time(time), "{text}");
        }
        assert!("2026-07-01".parse::<Moment>().is_ok());
        assert!("noon".parse::<Moment>().unwrap_err().contains("2026-07-01T12:00:00Z"));
    }

    #[test]
    fn a_span_is_that_long_ago_and_a_plain_number_is_a_sequence() {
        let Moment(time) = "2h".parse().unwrap();
        let ago = Timestamp::now().duration_since(time).as_secs();
        assert!((7_199..=7_201).contains(&ago), "{ago}");
        assert_eq!("42".parse::<Point>().unwrap(), Point::Sequence(42));
        assert!(matches!("90m".parse::<Point>().unwrap(), Point::Time(_)));
    }
}
