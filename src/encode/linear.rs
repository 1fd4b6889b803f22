//! Numbers that are multiplied and added to, where a column asks for that.
//!
//! Guarantees: the result has every digit, in whatever way the number was written; only a column of `real` or
//! `double precision` rounds it, once. What has more digits than 128 bits hold is refused. NaN and the
//! infinities are calculated as floats are.

use std::fmt::Write as _;

use super::Fault;
use super::number::{self, Decimal};
use crate::payload::Value;

/// `scale` and `offset` of a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    scale: (Exact, f64),
    offset: (Exact, f64),
}

/// Digits, and the power of ten that they are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exact(i128, i64);

impl Exact {
    fn of(text: &str) -> Result<Self, Fault> {
        let decimal = Decimal::parse(text.trim_ascii())
            .ok_or_else(|| Fault::ty(&"`scale` and a numeric `offset` take a number, or text that is one"))?;
        decimal.whole().map(|(digits, power)| Self(digits, power)).ok_or_else(too_long)
    }

    /// Without zeros at the end of a fraction, which a `numeric` would show.
    fn shortest(mut self) -> Self {
        while self.1 < 0 && self.0 % 10 == 0 {
            self = Self(self.0 / 10, self.1 + 1);
        }
        self
    }

    fn times(self, other: Self) -> Option<Self> {
        Some(Self(self.0.checked_mul(other.0)?, self.1 + other.1))
    }

    fn plus(self, other: Self) -> Option<Self> {
        let (high, low) = if self.1 > other.1 { (self, other) } else { (other, self) };
        if high.0 == 0 {
            return Some(low);
        }
        let factor = 10_i128.checked_pow(u32::try_from(high.1 - low.1).ok()?)?;
        Some(Self(high.0.checked_mul(factor)?.checked_add(low.0)?, low.1))
    }
}

#[cold]
fn too_long() -> Fault {
    Fault::range(&"`scale` and a numeric `offset` give a number of more than 38 digits")
}

impl Linear {
    /// Multiplies by `scale` and then adds `offset`; both are finite.
    pub(crate) fn new(scale: f64, offset: f64) -> Option<Self> {
        let exact =
            |number: f64| Exact::of(zmij::Buffer::new().format_finite(number)).ok().map(Exact::shortest);
        Some(Self { scale: (exact(scale)?, scale), offset: (exact(offset)?, offset) })
    }

    /// What `value` becomes, in `out` where it has digits.
    pub(crate) fn apply<'v>(&self, value: Value<'_>, out: &'v mut String) -> Result<Value<'v>, Fault> {
        if let Some(special) = number::special(value) {
            return Ok(Value::Float(special.float() * self.scale.1 + self.offset.1));
        }
        let number = match value {
            Value::Int(number) => Exact(number.into(), 0),
            Value::Uint(number) => Exact(number.into(), 0),
            Value::Float(number) => Exact::of(zmij::Buffer::new().format_finite(number))?,
            Value::Float32(number) => Exact::of(zmij::Buffer::new().format_finite(number))?,
            Value::Decimal(text) | Value::Str(text) => Exact::of(text)?,
            _ => {
                return Err(Fault::ty(&"`scale` and a numeric `offset` take a number, or text that is one"));
            }
        };
        let made = number.times(self.scale.0).and_then(|number| number.plus(self.offset.0));
        let Exact(digits, power) = made.ok_or_else(too_long)?;
        out.clear();
        // Writing to a string cannot fail.
        let _ = write!(out, "{digits}e{power}");
        Ok(Value::Decimal(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_multiplied_and_added_to_without_losing_a_digit() {
        for (value, scale, offset, expected) in [
            (Value::Int(3), 0.1, 0.0, "3e-1"),
            (Value::Int(2_950), 0.1, -273.15, "2185e-2"),
            (Value::Float(0.1), 3.0, 0.0, "30e-2"),
            (Value::Float32(0.1), 10.0, 1.0, "200e-2"),
            (Value::Uint(u64::MAX), 1.0, 1.0, "184467440737095516160e-1"),
            (Value::Str(" 21.50\n"), 1000.0, 0.0, "21500000e-3"),
            (Value::Decimal("1e30"), -1.0, 0.0, "-10e29"),
            (Value::Decimal("0e99"), 1.0, 5.0, "50e-1"),
        ] {
            let mut out = String::new();
            let linear = Linear::new(scale, offset).unwrap();
            let made = linear.apply(value, &mut out).unwrap();
            let (Value::Decimal(made), wanted) = (made, expected) else { panic!("{made:?}") };
            let number = |text: &str| Decimal::parse(text).unwrap().whole().unwrap();
            let (made, wanted) = (number(made), number(wanted));
            let least = made.1.min(wanted.1);
            let digits =
                |(digits, power): (i128, i64)| digits * 10_i128.pow((power - least).try_into().unwrap());
            assert_eq!(digits(made), digits(wanted), "{value:?} * {scale} + {offset}");
        }
    }

    #[test]
    fn what_is_no_number_or_has_too_many_digits_is_refused_and_infinities_are_infinite() {
        let linear = Linear::new(-2.0, 1.0).unwrap();
        let mut out = String::new();
        for value in [Value::Bool(true), Value::Str("ON"), Value::Str(""), Value::Bytes(b"1")] {
            assert!(linear.apply(value, &mut out).unwrap_err().what.contains("take a number"));
        }
        for text in ["123456789012345678901234567890123456789", "1e40", "1e400000", "1e-400000"] {
            assert!(linear.apply(Value::Decimal(text), &mut out).unwrap_err().what.contains("38 digits"));
        }
        assert_eq!(linear.apply(Value::Str("Infinity"), &mut out), Ok(Value::Float(f64::NEG_INFINITY)));
        assert!(
            matches!(linear.apply(Value::Float(f64::NAN), &mut out), Ok(Value::Float(nan)) if nan.is_nan())
        );
    }
}
