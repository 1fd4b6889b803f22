//! Numbers with fewer digits after the point, where a column asks for that.
//!
//! Guarantees: what is rounded is the nearest number with so many digits, and away from zero where two are as
//! near; one that has no more digits stays as it is, and so do NaN and the infinities. Columns that ask for
//! nothing do not pass by here.
//!
//! Decimal digits are for people and for `numeric`. Binary ones are for compression: TimescaleDB keeps of a
//! float the bits in which it differs from the one before, and a decimal such as 0.1 has no bits that are
//! zero.

use super::number::{self, Decimal};
use super::time::Times;
use super::types::Type;
use super::{Encoder, Fault, Written};
use crate::payload::Value;

/// What a number is rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// So many decimal digits after the point.
    Decimals(u8),
    /// So many binary digits after the point: multiples of one over two to that power.
    Bits(u8),
}

/// From here on, all floats are whole.
const WHOLE: f64 = 4_503_599_627_370_496.0;

impl Rounding {
    /// The float nearest to what `number` is rounded to. Up to 10 to the 22nd, the scale is exact, and so the
    /// quotient is that nearest float.
    fn float(self, number: f64) -> f64 {
        let scale = match self {
            Self::Decimals(digits) => 10_f64.powi(digits.into()),
            Self::Bits(bits) => 2_f64.powi(bits.into()),
        };
        let scaled = number * scale;
        if scaled.abs() < WHOLE {
            // No negative zero.
            scaled.round() / scale + 0.0
        } else {
            number
        }
    }
}

impl Type {
    /// The type whose numbers are rounded; `None` where it has no such numbers.
    #[must_use]
    pub fn rounded(&self, to: Rounding) -> Option<Self> {
        match (self, to) {
            (Self::Float4 | Self::Float8, _) | (Self::Numeric, Rounding::Decimals(_)) => {
                Some(Self::Rounded { of: Box::new(self.clone()), to })
            }
            (Self::Array { element, element_oid }, _) => {
                let element = Box::new(element.rounded(to)?);
                Some(Self::Array { element, element_oid: *element_oid })
            }
            _ => None,
        }
    }
}

/// Appends `value` as a field of type `of`, rounded.
#[inline(never)]
pub(super) fn field(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    of: &Type,
    to: Rounding,
    value: Value<'_>,
) -> Result<Written, Fault> {
    let mut digits = std::mem::take(&mut encoder.digits);
    let rounded = match (of, to) {
        (Type::Float4, _) => number::float4(value).map(|number| {
            #[expect(clippy::cast_possible_truncation, reason = "it was a real before")]
            let short = to.float(number.into()) as f32;
            Value::Float32(short)
        }),
        (Type::Float8, _) => number::float8(value).map(|number| Value::Float(to.float(number))),
        (_, Rounding::Decimals(places)) => Ok(decimal(value, places, &mut digits)),
        (_, Rounding::Bits(_)) => Ok(value),
    };
    let written = rounded.and_then(|value| encoder.field(out, of, Times::default(), value));
    encoder.digits = digits;
    written
}

/// A number for a `numeric` with this many digits after the point, in `out` where it has more.
fn decimal<'v>(value: Value<'v>, places: u8, out: &'v mut String) -> Value<'v> {
    match value {
        Value::Float(number) if number.is_finite() => {
            let mut buffer = zmij::Buffer::new();
            round_digits(buffer.format_finite(number), places, value, out)
        }
        Value::Float32(number) if number.is_finite() => {
            let mut buffer = zmij::Buffer::new();
            round_digits(buffer.format_finite(number), places, value, out)
        }
        Value::Decimal(text) | Value::Str(text) => round_digits(text.trim_ascii(), places, value, out),
        // Whole, or no number.
        _ => value,
    }
}

fn round_digits<'v>(text: &str, places: u8, value: Value<'v>, out: &'v mut String) -> Value<'v> {
    match Decimal::parse(text) {
        Some(number) if number.rounded(places.into(), out) => Value::Decimal(out),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_becomes_the_nearest_with_so_many_digits() {
        for (to, number, rounded) in [
            (Rounding::Decimals(4), 0.123_456_789, 0.1235),
            (Rounding::Decimals(0), -2.5, -3.0),
            (Rounding::Decimals(2), 1e15 + 0.125, 1e15 + 0.125),
            (Rounding::Decimals(15), 1e300, 1e300),
            (Rounding::Bits(4), 291.557, 291.5625),
            (Rounding::Bits(0), 0.5, 1.0),
            (Rounding::Bits(52), 0.75, 0.75),
            (Rounding::Decimals(3), f64::INFINITY, f64::INFINITY),
        ] {
            assert_eq!(to.float(number).to_bits(), rounded.to_bits(), "{number} to {to:?}");
        }
        assert!(Rounding::Decimals(3).float(f64::NAN).is_nan());
        assert_eq!(Rounding::Decimals(1).float(-0.01).to_bits(), 0, "a negative zero");
    }

    #[test]
    fn a_decimal_of_any_length_keeps_so_many_digits_after_the_point() {
        for (text, places, rounded) in [
            ("1.005", 2, Some("101e-2")),
            ("-0.994999999999999999999999999999999999999999999", 2, Some("-099e-2")),
            (
                "99999999999999999999999999999999999999999999.96",
                1,
                Some("1000000000000000000000000000000000000000000000e-1"),
            ),
            ("0.004", 2, Some("000e-2")),
            ("0.5", 0, Some("1e-0")),
            ("1e-400", 3, Some("0e-3")),
            ("12345e-4", 2, Some("123e-2")),
            ("1.25", 2, None),
            ("1e30", 0, None),
        ] {
            let mut out = String::new();
            let changed = Decimal::parse(text).unwrap().rounded(places, &mut out);
            assert_eq!(changed.then_some(out.as_str()), rounded, "{text}");
        }
    }
}
