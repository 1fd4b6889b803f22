//! Times: `timestamptz`, `timestamp`, `date`, `time`, `interval`.
//!
//! Guarantees: whole numbers in a unit are converted exactly; what is finer than a microsecond is rounded to
//! the nearest, but never a `date` to the next day. Second 60 is the next minute's 0, as PostgreSQL has it,
//! and refused with a fraction. A number without a unit is refused: a guess that is wrong by a thousand shows
//! only much later. With a unit, digits in text are a number too.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use jiff::{Span, Timestamp};

use super::Fault;
use super::copy_frame::EPOCH_US;
use super::number::Decimal;
use crate::config::{Parse, TimeUnit};
use crate::payload::{Value, Wording};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;
/// The first microsecond that a timestamp holds: 4714-11-24 BC, from 2000.
const MIN_TIMESTAMP: i64 = -211_813_488_000_000_000;
/// The first microsecond beyond a timestamp: the year 294277, from 2000.
const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;

/// The first day that a date holds: 4714-11-24 BC, from 2000.
const MIN_DATE: i32 = -2_451_545;
/// The first day beyond a date: the year 5874898, from 2000.
const END_DATE: i32 = 2_145_031_949;

/// Shared wording.
const TIMES: Wording = &"a time column needs RFC 3339 text, a timestamp or a number with a unit";
const UNIT: Wording =
    &"a number is a time only with a unit: set `unit` of this column to \"s\", \"ms\", \"us\" or \"ns\"";
const TIMESTAMP_RANGE: Wording = &"a timestamp must be between 4714 BC and 294276 AD";

/// Wording for what was taken for a number already.
const DIGITS: Wording = &"a time column needs a number with a unit";

/// How a column reads its values: times, and text in one of JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Unit of a number.
    pub unit: Option<TimeUnit>,
    /// Offset of a text that carries none; without it, such a text is no `timestamptz`.
    pub offset: Option<Offset>,
    /// Which text is JSON.
    pub parse: Option<Parse>,
}

/// An `interval`: its three parts do not add up to one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) micros: i64,
    pub(super) days: i32,
    pub(super) months: i32,
}

/// Microseconds since 2000; a text must carry its offset where `times` has none.
#[inline]
pub(super) fn timestamp(value: Value<'_>, times: Times) -> Result<i64, Fault> {
    let micros = match value {
        Value::Int(value) if times.unit == Some(TimeUnit::Us) => i128::from(value),
        Value::Str(text) => match infinity(text) {
            Some(positive) => return Ok(if positive { i64::MAX } else { i64::MIN }),
            None => text_or_digits(text, times)?,
        },
        Value::Timestamp { seconds, nanos } => moment(seconds, nanos, Round::Nearest),
        value => amount(value, times.unit, TIMES, Round::Nearest)?,
    };
    // A float may have saturated.
    match i64::try_from(micros.saturating_sub(EPOCH_US.into())) {
        Ok(since_2000) if (MIN_TIMESTAMP..END_TIMESTAMP).contains(&since_2000) => Ok(since_2000),
        _ => Err(Fault::range(TIMESTAMP_RANGE)),
    }
}

/// Days since 2000.
pub(super) fn date(value: Value<'_>, unit: Option<TimeUnit>) -> Result<i32, Fault> {
    if let Value::Str(text) = value
        && let Some(positive) = infinity(text)
    {
        return Ok(if positive { i32::MAX } else { i32::MIN });
    }
    let micros = match digits_in(value, unit) {
        Value::Str(text) => match text.parse::<Date>() {
            // The parser of dates also takes a date and a time and drops the latter.
            Ok(date) if text.len() <= DATE_LENGTH => {
                civil_micros(date.to_datetime(Time::midnight()), Offset::UTC, Round::Down)?
            }
            _ => text_micros(text, Some(Offset::UTC), Round::Down)?,
        },
        Value::Timestamp { seconds, nanos } => moment(seconds, nanos, Round::Down),
        value => amount(value, unit, TIMES, Round::Down)?,
    };
    let days = micros.div_euclid(DAY_US.into()) - i128::from(EPOCH_US / DAY_US);
    match i32::try_from(days) {
        Ok(days) if (MIN_DATE..END_DATE).contains(&days) => Ok(days),
        _ => Err(Fault::range(&"a date must be between 4714 BC and 5874897 AD")),
    }
}

/// Whether a text is an infinity, and whether it is the one above all times.
fn infinity(text: &str) -> Option<bool> {
    let (positive, name) = text.strip_prefix('-').map_or((true, text), |name| (false, name));
    name.eq_ignore_ascii_case("infinity").then_some(positive)
}

/// `2024-01-31`
const DATE_LENGTH: usize = 10;

/// Microseconds since midnight.
pub(super) fn time(value: Value<'_>, unit: Option<TimeUnit>) -> Result<i64, Fault> {
    let expected: Wording =
        &"time needs text such as 12:34:56.789, or a number with a unit, counted from midnight";
    let micros = match digits_in(value, unit) {
        Value::Str(text) => {
            let time = match text.parse::<Time>() {
                Ok(time) if !text.contains(['T', 't', ' ']) => time,
                _ => return Err(Fault::ty(expected)),
            };
            let nanos = time.duration_since(Time::midnight()).as_nanos();
            Round::Nearest.micros(nanos + sixty(text, time.subsec_nanosecond())?)
        }
        Value::Timestamp { seconds, nanos } => {
            moment(seconds, nanos, Round::Nearest).rem_euclid(DAY_US.into())
        }
        value => amount(value, unit, expected, Round::Nearest)?,
    };
    match i64::try_from(micros) {
        // 24:00:00 is a time of day of its own.
        Ok(micros) if (0..=DAY_US).contains(&micros) => Ok(micros),
        _ => Err(Fault::range(&"a time of day must be between 00:00:00 and 24:00:00")),
    }
}

/// An ISO 8601 duration, or a number with a unit.
pub(super) fn interval(value: Value<'_>, unit: Option<TimeUnit>) -> Result<Interval, Fault> {
    let expected: Wording = &"interval needs an ISO 8601 duration such as P1DT2H, or a number with a unit";
    let range = |_| Fault::range(&"the interval is out of range");
    let value = digits_in(value, unit);
    if let Value::Str(text) = value {
        let span: Span = text.parse().map_err(|_| Fault::ty(expected))?;
        let nanos = i128::from(span.get_hours()) * 3_600_000_000_000
            + i128::from(span.get_minutes()) * 60_000_000_000
            + i128::from(span.get_seconds()) * 1_000_000_000
            + i128::from(span.get_milliseconds()) * 1_000_000
            + i128::from(span.get_microseconds()) * 1_000
            + i128::from(span.get_nanoseconds());
        return Ok(Interval {
            micros: Round::Nearest.micros(nanos).try_into().map_err(range)?,
            days: span.get_weeks() * 7 + span.get_days(),
            months: i32::from(span.get_years()) * 12 + span.get_months(),
        });
    }
    let micros = amount(value, unit, expected, Round::Nearest)?.try_into().map_err(range)?;
    Ok(Interval { micros, days: 0, months: 0 })
}

/// Microseconds since the Unix epoch of a time in text.
#[inline(never)]
fn text_or_digits(text: &str, times: Times) -> Result<i128, Fault> {
    match number_in(text, times.unit) {
        Some(number) => amount(number, times.unit, DIGITS, Round::Nearest),
        None => text_micros(text, times.offset, Round::Nearest),
    }
}

/// The number that a text is, where a number would have a unit.
fn number_in(text: &str, unit: Option<TimeUnit>) -> Option<Value<'_>> {
    let text = text.trim_ascii();
    (unit.is_some() && Decimal::parse(text).is_some()).then_some(Value::Decimal(text))
}

/// The same of any value.
fn digits_in(value: Value<'_>, unit: Option<TimeUnit>) -> Value<'_> {
    match value {
        Value::Str(text) => number_in(text, unit).unwrap_or(value),
        value => value,
    }
}

/// A number of units, in microseconds.
fn amount(value: Value<'_>, unit: Option<TimeUnit>, expected: Wording, round: Round) -> Result<i128, Fault> {
    if !matches!(
        value,
        Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::Float32(_) | Value::Decimal(_)
    ) {
        return Err(Fault::ty(expected));
    }
    let unit = unit.ok_or_else(|| Fault::ty(UNIT))?;
    match value {
        Value::Int(value) => Ok(whole(value.into(), unit, round)),
        Value::Uint(value) => Ok(whole(value.into(), unit, round)),
        Value::Float32(value) => fraction(value.into(), unit, round),
        Value::Float(value) => fraction(value, unit, round),
        Value::Decimal(text) => {
            let power = match unit {
                TimeUnit::S => 6,
                TimeUnit::Ms => 3,
                TimeUnit::Us => 0,
                TimeUnit::Ns => -3,
            };
            let decimal = Decimal::parse(text).ok_or_else(|| Fault::ty(expected))?;
            let micros = match round {
                Round::Nearest => decimal.scaled(power).map(|(micros, _)| micros),
                Round::Down => decimal.floor(power),
            };
            micros.ok_or_else(|| Fault::range(TIMESTAMP_RANGE))
        }
        _ => Err(Fault::ty(expected)),
    }
}

fn whole(value: i128, unit: TimeUnit, round: Round) -> i128 {
    match unit {
        TimeUnit::S => value * 1_000_000,
        TimeUnit::Ms => value * 1_000,
        TimeUnit::Us => value,
        TimeUnit::Ns => round.micros(value),
    }
}

fn fraction(value: f64, unit: TimeUnit, round: Round) -> Result<i128, Fault> {
    let micros = match unit {
        TimeUnit::S => value * 1e6,
        TimeUnit::Ms => value * 1e3,
        TimeUnit::Us => value,
        TimeUnit::Ns => value / 1e3,
    };
    if !micros.is_finite() {
        return Err(Fault::range(&"NaN and infinities are not times"));
    }
    // Whatever saturates here is far out of every type's range.
    let micros = match round {
        Round::Nearest => micros.round(),
        Round::Down => micros.floor(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "rounded; saturates")]
    let micros = micros as i128;
    Ok(micros)
}

/// What becomes of what is finer than a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Half a microsecond is rounded up.
    Nearest,
    /// A date is the day that a moment lies in.
    Down,
}

impl Round {
    fn micros(self, nanos: i128) -> i128 {
        match self {
            Self::Nearest => (nanos + 500).div_euclid(1_000),
            Self::Down => nanos.div_euclid(1_000),
        }
    }
}

fn moment(seconds: i64, nanos: u32, round: Round) -> i128 {
    i128::from(seconds) * 1_000_000 + round.micros(nanos.into())
}

/// Microseconds since the Unix epoch of a date and time in text, at `offset` where it carries none.
fn text_micros(text: &str, offset: Option<Offset>, round: Round) -> Result<i128, Fault> {
    let clock = || text.find(['T', 't', ' ']).map_or("", |at| &text[at + 1..]);
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        let nanos = timestamp.as_nanosecond();
        return Ok(round.micros(nanos + sixty(clock(), timestamp.subsec_nanosecond())?));
    }
    match (text.parse::<DateTime>(), offset) {
        (Ok(civil), Some(offset)) => {
            let more = sixty(clock(), civil.subsec_nanosecond())?;
            Ok(civil_micros(civil, offset, round)? + more / 1_000)
        }
        (Ok(_), None) => Err(Fault::ty(
            &"a timestamptz needs RFC 3339 text with an offset, such as a Z at its end; or set `offset` of \
              this column",
        )),
        (Err(_), _) => Err(Fault::ty(&"a time column needs RFC 3339 text such as 2024-01-31T12:34:56.789Z")),
    }
}

fn civil_micros(civil: DateTime, offset: Offset, round: Round) -> Result<i128, Fault> {
    let timestamp = offset.to_timestamp(civil).map_err(|_| Fault::range(TIMESTAMP_RANGE))?;
    Ok(round.micros(timestamp.as_nanosecond()))
}

/// What the time of day in a text is more than what the parser took it for: it reads second 60 as 59, with
/// the fraction.
fn sixty(clock: &str, fraction: i32) -> Result<i128, Fault> {
    let clock = clock.trim_start_matches(['T', 't']);
    let end = clock.find(|c: char| c != ':' && !c.is_ascii_digit()).unwrap_or(clock.len());
    // Before 1970, the parser counts down.
    let fraction = fraction.rem_euclid(1_000_000_000);
    let mut digits = clock[..end].bytes().filter(u8::is_ascii_digit);
    match (digits.nth(4), digits.next()) {
        (Some(b'6'), Some(_)) if fraction >= 500 => {
            Err(Fault::range(&"second 60 is the next minute's 0, and cannot have a fraction"))
        }
        (Some(b'6'), Some(_)) => Ok(i128::from(1_000_000_000 - fraction)),
        _ => Ok(0),
    }
}
