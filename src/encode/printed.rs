//! Fields of a binary `COPY` → text, as the server prints them.
//!
//! Guarantees: what [`Encoder::field`](super::Encoder::field) writes, and what the server sends in binary of
//! the same types, is printed as the server's output function does with `TimeZone = 'UTC'`, `DateStyle =
//! 'ISO'` and `IntervalStyle = 'postgres'`; only a `boolean` is `true` or `false`. A `jsonb` is printed as it
//! is written, which the server does in another order and with other spaces. A field that is none of its type
//! is printed in hexadecimal, so nothing panics.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::value::RawValue;

use super::copy_frame::JSONB_VERSION;
use super::types::Type;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// Days from 0000-03-01 to 2000-01-01.
const DAYS_TO_2000: i64 = 730_425;

/// The field of a column of type `ty` as text.
#[must_use]
pub fn text(ty: &Type, field: &[u8]) -> String {
    printed(ty, field).unwrap_or_else(|| hex(field))
}

/// The field as a JSON text: numbers, truth and JSON as what they are, arrays as arrays, all else as a
/// string.
#[must_use]
pub fn json(ty: &Type, field: &[u8]) -> Box<RawValue> {
    let text = text(ty, field);
    let quoted = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap_or_else(|_| "null".to_owned());
        RawValue::from_string(quoted).unwrap_or_else(|_| RawValue::NULL.to_owned())
    };
    match ty {
        Type::Bool
        | Type::Int2
        | Type::Int4
        | Type::Int8
        | Type::Float4
        | Type::Float8
        | Type::Numeric
        | Type::Rounded { .. }
        | Type::Json
        | Type::Jsonb => RawValue::from_string(text.clone()).unwrap_or_else(|_| quoted(&text)),
        Type::Array { element, .. } => match elements(field) {
            Some(fields) => {
                let each = |field: Option<&[u8]>| {
                    field.map_or_else(|| "null".to_owned(), |field| json(element, field).get().to_owned())
                };
                let list = fields.into_iter().map(each).collect::<Vec<_>>().join(",");
                RawValue::from_string(format!("[{list}]")).unwrap_or_else(|_| quoted(&text))
            }
            None => quoted(&text),
        },
        Type::Text
        | Type::Bytea
        | Type::Uuid
        | Type::Timestamptz
        | Type::Timestamp
        | Type::Date
        | Type::Time
        | Type::Interval
        | Type::Inet { .. } => quoted(&text),
    }
}

fn printed(ty: &Type, field: &[u8]) -> Option<String> {
    Some(match ty {
        Type::Bool => (whole::<1>(field)? != [0]).to_string(),
        Type::Int2 => i16::from_be_bytes(whole(field)?).to_string(),
        Type::Int4 => i32::from_be_bytes(whole(field)?).to_string(),
        Type::Int8 => i64::from_be_bytes(whole(field)?).to_string(),
        // As many digits as the server prints before it goes over to an exponent.
        Type::Float4 => {
            let number = f32::from_be_bytes(whole(field)?);
            let bits = number.to_bits();
            let binary = ((bits & 0x7f_ffff).into(), (bits >> 23 & 0xff).cast_signed(), 23, 127);
            let digits = |places| match places {
                None => format!("{number:e}"),
                Some(places) => format!("{number:.places$e}"),
            };
            float(number.into(), binary, &digits, 6)
        }
        Type::Float8 => {
            let number = f64::from_be_bytes(whole(field)?);
            let bits = number.to_bits();
            let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
            let digits = |places| match places {
                None => format!("{number:e}"),
                Some(places) => format!("{number:.places$e}"),
            };
            float(number, (bits & 0xf_ffff_ffff_ffff, exponent, 52, 1_023), &digits, 15)
        }
        Type::Numeric => numeric(field)?,
        Type::Rounded { of, .. } => printed(of, field)?,
        Type::Text | Type::Json => str::from_utf8(field).ok()?.to_owned(),
        Type::Jsonb => str::from_utf8(field.strip_prefix(&[JSONB_VERSION])?).ok()?.to_owned(),
        Type::Bytea => hex(field),
        Type::Uuid => uuid::Uuid::from_slice(field).ok()?.to_string(),
        Type::Timestamptz => timestamp(i64::from_be_bytes(whole(field)?), "+00"),
        Type::Timestamp => timestamp(i64::from_be_bytes(whole(field)?), ""),
        Type::Date => match i32::from_be_bytes(whole(field)?) {
            i32::MAX => "infinity".to_owned(),
            i32::MIN => "-infinity".to_owned(),
            days => {
                let (date, era) = date(days.into());
                date + era
            }
        },
        Type::Time => time(i64::from_be_bytes(whole(field)?)),
        Type::Interval => interval(field)?,
        Type::Inet { .. } => inet(field)?,
        Type::Array { element, .. } => array(element, &elements(field)?),
    })
}

fn whole<const N: usize>(field: &[u8]) -> Option<[u8; N]> {
    field.try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Mantissa and exponent as they are stored, the bits of the former, and the bias of the latter.
type Binary = (u64, i32, i32, i32);

/// A number by its shortest digits, of which `digits` gives as many after the first one as it is asked for;
/// from an exponent of `most` on with an exponent.
fn float(number: f64, binary: Binary, digits: &dyn Fn(Option<usize>) -> String, most: i32) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let mut scientific = digits(None);
    if lies_between(&scientific, binary) {
        let places = scientific.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
        scientific = digits(Some(places));
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..most).contains(&exponent) {
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return format!("{sign}0.{}{digits}", "0".repeat(zeros));
    }
    let whole = usize::try_from(exponent + 1).unwrap_or(0);
    let zeros = whole.saturating_sub(digits.len());
    let (before, after) = digits.split_at(whole.min(digits.len()));
    let point = if after.is_empty() { "" } else { "." };
    format!("{sign}{before}{}{point}{after}", "0".repeat(zeros))
}

/// Whether digits lie half-way between the number and its neighbour. Read back, they are the even one of the
/// two; the server takes no digits that depend on that.
fn lies_between(scientific: &str, (mantissa, exponent, width, bias): Binary) -> bool {
    let Some((digits, power)) = scientific.split_once('e') else { return false };
    let after = digits.split_once('.').map_or(0, |(_, after)| after.len());
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let (Ok(digits), Ok(power), Ok(after)) =
        (digits.parse::<u64>(), power.parse::<i32>(), i32::try_from(after))
    else {
        return false;
    };
    let (mantissa, exponent) = match exponent {
        0 => (mantissa, 1 - bias - width),
        _ => (mantissa | 1 << width, exponent - bias - width),
    };
    // An odd number without fives, and how often two and five are in it.
    let parts = |mut number: u64, mut twos: i32, mut fives: i32| {
        while number != 0 && number.is_multiple_of(2) {
            (number, twos) = (number / 2, twos + 1);
        }
        while number != 0 && number.is_multiple_of(5) {
            (number, fives) = (number / 5, fives + 1);
        }
        (number, twos, fives)
    };
    let decimal = parts(digits, power - after, power - after);
    // The neighbour below a power of two is half as far away.
    let halves = [
        parts(2 * mantissa + 1, exponent - 1, 0),
        parts((2 * mantissa).saturating_sub(1), exponent - 1, 0),
        parts((4 * mantissa).saturating_sub(1), exponent - 2, 0),
    ];
    digits != 0 && halves.contains(&decimal)
}

/// Digits in groups of four, before and after the point.
fn numeric(field: &[u8]) -> Option<String> {
    let (head, digits) = field.split_at_checked(8)?;
    let part = |at: usize| head.get(at..at + 2).and_then(whole::<2>).map(u16::from_be_bytes);
    let (weight, sign, scale) = (part(2)?.cast_signed(), part(4)?, usize::from(part(6)?));
    match sign {
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let group = |at: i32| {
        let at = usize::try_from(at).ok()?.checked_mul(2)?;
        digits.get(at..at + 2).and_then(whole::<2>).map(u16::from_be_bytes)
    };
    let mut text = String::from(if sign == 0x4000 { "-" } else { "" });
    if weight < 0 {
        text.push('0');
    }
    for at in 0..=i32::from(weight) {
        let digits = group(at).unwrap_or(0);
        // Writing to a string cannot fail.
        let _ = if at == 0 { write!(text, "{digits}") } else { write!(text, "{digits:04}") };
    }
    if scale > 0 {
        // Where the first digit is far behind the point, the groups of zeros before it are not there.
        let mut at = i32::from(weight) + 1;
        let mut fraction = "0000".repeat(usize::try_from(-at).unwrap_or(0));
        at = at.max(0);
        while fraction.len() < scale {
            let _ = write!(fraction, "{:04}", group(at).unwrap_or(0));
            at += 1;
        }
        fraction.truncate(scale);
        text = text + "." + &fraction;
    }
    Some(text)
}

fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let (date, era) = date(micros.div_euclid(DAY_US));
            format!("{date} {}{zone}{era}", time(micros.rem_euclid(DAY_US)))
        }
    }
}

/// The date so many days after 2000-01-01, and what follows it where it is before the year 1.
fn date(days: i64) -> (String, &'static str) {
    // Years that begin in March, in cycles of 400: the leap day is the last one.
    let days = days + DAYS_TO_2000;
    let (cycle, of_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + cycle * 400 + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

fn time(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{}", fraction(micros % 1_000_000))
}

/// Microseconds after a point, without zeros at the end.
fn fraction(micros: i64) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

fn interval(field: &[u8]) -> Option<String> {
    let micros = i64::from_be_bytes(whole(field.get(..8)?)?);
    let days = i32::from_be_bytes(whole(field.get(8..12)?)?);
    let months = i32::from_be_bytes(whole(field.get(12..)?)?);
    let mut parts = Vec::new();
    let mut negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let (plus, plural) =
            (if negative && value > 0 { "+" } else { "" }, if value == 1 { "" } else { "s" });
        parts.push(format!("{plus}{value} {unit}{plural}"));
        negative = value < 0;
    }
    if micros != 0 || parts.is_empty() {
        let sign = match (micros < 0, negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let micros = micros.unsigned_abs();
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let rest = fraction(i64::try_from(rest).unwrap_or(0));
        parts.push(format!(
            "{sign}{:02}:{:02}:{:02}{rest}",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        ));
    }
    Some(parts.join(" "))
}

fn inet(field: &[u8]) -> Option<String> {
    let (&[_, bits, cidr, _], octets) = field.split_first_chunk::<4>()?;
    let (address, width) = match octets.len() {
        4 => (Ipv4Addr::from(whole::<4>(octets)?).to_string(), 32),
        16 => (Ipv6Addr::from(whole::<16>(octets)?).to_string(), 128),
        _ => return None,
    };
    Some(if cidr == 0 && bits == width { address } else { format!("{address}/{bits}") })
}

/// The elements of an array of one dimension or none.
fn elements(field: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let dimensions = i32::from_be_bytes(whole(field.get(..4)?)?);
    if dimensions == 0 {
        return Some(Vec::new());
    }
    if dimensions != 1 {
        return None;
    }
    let mut rest = field.get(20..)?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (element, after) = after.split_at_checked(length.unwrap_or(0))?;
        found.push(length.map(|_| element));
        rest = after;
    }
    Some(found)
}

fn array(element: &Type, fields: &[Option<&[u8]>]) -> String {
    let each = |field: Option<&[u8]>| {
        let Some(field) = field else { return "NULL".to_owned() };
        let text = match element {
            Type::Bool => if field == [0] { "f" } else { "t" }.to_owned(),
            element => text(element, field),
        };
        let is_space = |character: char| matches!(character, ' ' | '\t'..='\r');
        let plain = !text.is_empty()
            && !text.eq_ignore_ascii_case("null")
            && !text.contains(['{', '}', ',', '"', '\\'])
            && !text.contains(is_space);
        if plain { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
    };
    format!("{{{}}}", fields.iter().copied().map(each).collect::<Vec<_>>().join(","))
}
