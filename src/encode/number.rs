//! Numbers: what is taken for one, and `numeric`'s own form.
//!
//! Guarantees: integers and decimals keep every digit, or are refused; only a `real` or `double precision`
//! column rounds.

use super::Fault;
use super::copy_frame;
use crate::payload::{Value, Wording};

/// A number in digits: `-12.50e3`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

/// A NaN or an infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    NaN,
    Infinity,
    MinusInfinity,
}

impl Special {
    pub(super) fn float(self) -> f64 {
        match self {
            Self::NaN => f64::NAN,
            Self::Infinity => f64::INFINITY,
            Self::MinusInfinity => f64::NEG_INFINITY,
        }
    }
}

/// Larger exponents are out of every type's range, and the server reads none of 1,073,741,823 or more, even
/// of a zero; the limit keeps sums of them in range.
const MAX_EXPONENT: i64 = 1_000_000_000;
/// Digits after the point that `numeric` holds.
const MAX_SCALE: i64 = 16_383;
/// The weight of the first group of four digits that `numeric` holds: 131,072 digits before the point.
const MAX_WEIGHT: i64 = 32_767;
/// The digits of the longest `double precision`, with its zeros.
const LONGEST_FLOAT: u64 = 345;
/// 2⁶³, which `f64` holds exactly.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// Shared wording.
const INTEGER: Wording = &"an integer column needs whole numbers";
const TOO_LARGE: Wording =
    &"numeric, and with it jsonb, holds 131072 digits before the point and 16383 after it";
const NUMBER: Wording = &"a numeric column needs a number, or text that is one";

/// Reads a `boolean`.
pub(super) fn boolean(value: Value<'_>) -> Result<bool, Fault> {
    match value {
        Value::Bool(value) => Ok(value),
        Value::Int(0) => Ok(false),
        Value::Int(1) => Ok(true),
        // `True` is Python's.
        Value::Str(text) if matches!(text.trim_ascii(), "false" | "False" | "FALSE" | "0") => Ok(false),
        Value::Str(text) if text.trim_ascii().eq_ignore_ascii_case("off") => Ok(false),
        Value::Str(text) if text.trim_ascii().eq_ignore_ascii_case("on") => Ok(true),
        Value::Str(text) if matches!(text.trim_ascii(), "true" | "True" | "TRUE" | "1") => Ok(true),
        _ => Err(Fault::ty(&"a boolean column needs true, false, 1, 0, on or off")),
    }
}

/// Reads an integer.
#[inline]
pub(crate) fn integer(value: Value<'_>) -> Result<i64, Fault> {
    if let Value::Int(value) = value { Ok(value) } else { integral(value) }
}

fn integral(value: Value<'_>) -> Result<i64, Fault> {
    let too_large = || Fault::range(&"bigint holds -9223372036854775808 to 9223372036854775807");
    match value {
        Value::Int(value) => Ok(value),
        Value::Uint(_) => Err(too_large()),
        Value::Float32(value) => integral(Value::Float(value.into())),
        Value::Float(value) if value.fract() == 0.0 => {
            if (-TWO_63..TWO_63).contains(&value) {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                let value = value as i64;
                Ok(value)
            } else {
                Err(too_large())
            }
        }
        Value::Decimal(text) | Value::Str(text) => {
            let decimal = Decimal::parse(text.trim_ascii()).ok_or_else(|| Fault::ty(INTEGER))?;
            let (value, exact) = decimal.scaled(0).ok_or_else(too_large)?;
            if !exact {
                return Err(Fault::ty(INTEGER));
            }
            value.try_into().map_err(|_| too_large())
        }
        _ => Err(Fault::ty(INTEGER)),
    }
}

/// Reads a `double precision`.
#[inline]
pub(super) fn float8(value: Value<'_>) -> Result<f64, Fault> {
    match value {
        Value::Float(value) => Ok(value),
        Value::Float32(value) => Ok(value.into()),
        #[expect(clippy::cast_precision_loss, reason = "rounding is what a float column does")]
        Value::Int(value) => Ok(value as f64),
        #[expect(clippy::cast_precision_loss, reason = "rounding is what a float column does")]
        Value::Uint(value) => Ok(value as f64),
        Value::Decimal(text) | Value::Str(text) => {
            let text = text.trim_ascii();
            let value: f64 = text.parse().map_err(|_| Fault::ty(NUMBER))?;
            // Only digits overflow; an infinity by name is one.
            if value.is_infinite() && Decimal::parse(text).is_some() {
                return Err(Fault::range(&"double precision holds numbers up to 1.8e308"));
            }
            Ok(value)
        }
        _ => Err(Fault::ty(NUMBER)),
    }
}

/// Reads a `real`.
#[inline]
pub(super) fn float4(value: Value<'_>) -> Result<f32, Fault> {
    let (value, infinite) = match value {
        Value::Float32(value) => return Ok(value),
        // Rounded once, from the digits.
        Value::Decimal(text) | Value::Str(text) => {
            let text = text.trim_ascii();
            let value: f32 = text.parse().map_err(|_| Fault::ty(NUMBER))?;
            (value, Decimal::parse(text).is_none())
        }
        value => {
            let value = float8(value)?;
            #[expect(clippy::cast_possible_truncation, reason = "rounding is what a float column does")]
            let short = value as f32;
            (short, value.is_infinite())
        }
    };
    if value.is_infinite() && !infinite {
        return Err(Fault::range(&"real holds numbers up to 3.4e38"));
    }
    Ok(value)
}

/// The NaN or infinity that `value` is, also by name.
pub(super) fn special(value: Value<'_>) -> Option<Special> {
    let number = match value {
        Value::Float(number) => number,
        Value::Float32(number) => number.into(),
        Value::Str(text) if Decimal::parse(text.trim_ascii()).is_none() => text.trim_ascii().parse().ok()?,
        _ => return None,
    };
    if number.is_nan() {
        Some(Special::NaN)
    } else if number.is_infinite() {
        Some(if number > 0.0 { Special::Infinity } else { Special::MinusInfinity })
    } else {
        None
    }
}

/// Appends a `numeric`; `special` is what [`special`] said, `text` is scratch. It prints to as many
/// characters as it returns, or somewhat fewer.
pub(super) fn numeric(
    out: &mut Vec<u8>,
    value: Value<'_>,
    special: Option<Special>,
    text: &mut String,
) -> Result<u64, Fault> {
    if let Some(special) = special {
        let sign: u16 = match special {
            Special::NaN => 0xc000,
            Special::Infinity => 0xd000,
            Special::MinusInfinity => 0xf000,
        };
        return header(out, 0, 0, sign, 0).map(|()| 0);
    }
    text.clear();
    let digits = match value {
        Value::Decimal(digits) | Value::Str(digits) => digits.trim_ascii(),
        Value::Int(value) => {
            text.push_str(itoa::Buffer::new().format(value));
            text
        }
        Value::Uint(value) => {
            text.push_str(itoa::Buffer::new().format(value));
            text
        }
        Value::Float(value) => {
            text.push_str(zmij::Buffer::new().format_finite(value));
            text
        }
        Value::Float32(value) => {
            text.push_str(zmij::Buffer::new().format_finite(value));
            text
        }
        _ => return Err(Fault::ty(NUMBER)),
    };
    let decimal = Decimal::parse(digits).ok_or_else(|| Fault::ty(NUMBER))?;
    decimal.numeric(out)?;
    decimal.printed()
}

/// Refuses a number that `numeric`, and with it `jsonb`, does not hold; how many characters it prints to, or
/// somewhat more.
pub(super) fn fits_numeric(digits: &str) -> Result<u64, Fault> {
    Decimal::parse(digits).ok_or_else(|| Fault::ty(NUMBER))?.printed()
}

/// How many characters a number in binary prints to as a `numeric`, or somewhat more.
#[inline]
pub(super) fn printed(number: f64) -> u64 {
    if (1e-17..1e17).contains(&number.abs()) || number == 0.0 { 0 } else { LONGEST_FLOAT }
}

/// Appends a `numeric` without digits.
fn header(out: &mut Vec<u8>, digits: i16, weight: i16, sign: u16, scale: i16) -> Result<(), Fault> {
    copy_frame::sized(out, |out| {
        out.extend_from_slice(&digits.to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&scale.to_be_bytes());
        Ok(())
    })
}

impl<'a> Decimal<'a> {
    /// Reads a sign, digits with or without a point, and an exponent.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, bytes) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, bytes),
        };
        let (mantissa, exponent) = match bytes.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&bytes[..at], exponent(&bytes[at + 1..])?),
            None => (bytes, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        let digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
        (digits && !(whole.is_empty() && fraction.is_empty())).then_some(Self {
            negative,
            whole,
            fraction,
            exponent,
        })
    }

    /// The digits in order, without their point.
    fn digits(&self) -> impl DoubleEndedIterator<Item = u8> + Clone + use<'a> {
        self.whole.iter().chain(self.fraction).map(|byte| byte - b'0')
    }

    fn digit(&self, index: i64) -> i16 {
        let digit = usize::try_from(index).ok().and_then(|index| {
            self.whole.get(index).or_else(|| self.fraction.get(index.checked_sub(self.whole.len())?))
        });
        digit.map_or(0, |digit| i16::from(digit - b'0'))
    }

    /// Where the point is, in digits from the first.
    fn point(&self) -> i64 {
        length(self.whole) + self.exponent
    }

    /// The number times 10 to the `power`, rounded half away from zero, and whether that lost nothing; `None`
    /// where it is beyond 128 bits.
    pub(super) fn scaled(&self, power: i64) -> Option<(i128, bool)> {
        let (value, round, exact) = self.cut(power)?;
        let value = value.checked_add(round.into())?;
        Some((if self.negative { -value } else { value }, exact))
    }

    /// All its digits as a whole number, and the power of ten that this is multiplied by; `None` where it is
    /// beyond 128 bits.
    pub(super) fn whole(&self) -> Option<(i128, i64)> {
        let power = self.exponent - length(self.fraction);
        Some((self.scaled(-power)?.0, power))
    }

    /// The number times 10 to the `power`, rounded down; `None` where it is beyond 128 bits.
    pub(super) fn floor(&self, power: i64) -> Option<i128> {
        let (value, _, exact) = self.cut(power)?;
        Some(if self.negative { -value - i128::from(!exact) } else { value })
    }

    /// Of the number times 10 to the `power`, without its sign: the whole part, whether half or more is cut
    /// off, and whether nothing is.
    fn cut(&self, power: i64) -> Option<(i128, bool, bool)> {
        let point = self.point() + power;
        let mut value = 0_i128;
        let (mut round, mut exact) = (false, true);
        for (index, digit) in (0_i64..).zip(self.digits()) {
            if index < point {
                value = value.checked_mul(10)?.checked_add(digit.into())?;
            } else {
                round |= index == point && digit >= 5;
                exact &= digit == 0;
            }
        }
        let mut index = length(self.whole) + length(self.fraction);
        while value != 0 && index < point {
            value = value.checked_mul(10)?;
            index += 1;
        }
        Some((value, round, exact))
    }

    /// Writes the number with `places` digits after the point, rounded half away from zero, where it has
    /// more; whether it has.
    pub(super) fn rounded(&self, places: i64, out: &mut String) -> bool {
        let keep = self.point() + places;
        if keep >= length(self.whole) + length(self.fraction) {
            return false;
        }
        out.clear();
        if self.negative {
            out.push('-');
        }
        // Nothing is left before the first nine that is carried over, or before the end.
        let up =
            usize::try_from(keep).ok().and_then(|at| self.digits().nth(at)).is_some_and(|digit| digit >= 5);
        let kept = usize::try_from(keep).unwrap_or(0);
        let nines = if up {
            self.digits().take(kept).fold(0, |nines, digit| if digit == 9 { nines + 1 } else { 0 })
        } else {
            0
        };
        if kept == nines {
            out.push(if up { '1' } else { '0' });
        }
        for (index, digit) in self.digits().take(kept).enumerate() {
            let carried = u8::from(up && index + nines + 1 == kept);
            let digit = if index + nines >= kept { 0 } else { digit + carried };
            out.push(char::from(b'0' + digit));
        }
        out.push_str("e-");
        out.push_str(itoa::Buffer::new().format(places));
        true
    }

    /// Digits after the point, and the weights of the first and the last group of four digits that are not
    /// all 0, where there are such; a fault where `numeric` does not hold them.
    fn extent(&self) -> Result<(i16, Option<(i64, i64)>), Fault> {
        let too_large = || Fault::range(TOO_LARGE);
        let scale = (length(self.fraction) - self.exponent).max(0);
        if scale > MAX_SCALE || self.exponent >= MAX_EXPONENT {
            return Err(too_large());
        }
        let scale = i16::try_from(scale).map_err(|_| too_large())?;
        let Some(leading) = self.digits().position(|digit| digit != 0) else { return Ok((scale, None)) };
        let trailing = self.digits().rev().position(|digit| digit != 0).unwrap_or(0);
        let first = self.place(i64::try_from(leading).map_err(|_| too_large())?).div_euclid(4);
        let last = {
            let digits = length(self.whole) + length(self.fraction);
            self.place(digits - 1 - i64::try_from(trailing).map_err(|_| too_large())?).div_euclid(4)
        };
        if first > MAX_WEIGHT {
            return Err(too_large());
        }
        Ok((scale, Some((first, last))))
    }

    /// How many characters it prints to, or somewhat more; a fault where `numeric` does not hold it.
    fn printed(&self) -> Result<u64, Fault> {
        let (scale, groups) = self.extent()?;
        let whole = groups.map_or(0, |(first, _)| (4 * (first + 1)).max(0));
        Ok(scale.unsigned_abs().into()).map(|fraction: u64| fraction + whole.unsigned_abs())
    }

    /// The power of ten of a digit.
    fn place(&self, index: i64) -> i64 {
        self.point() - 1 - index
    }

    /// Appends the number as a `numeric`.
    fn numeric(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let too_large = || Fault::range(TOO_LARGE);
        let (scale, groups) = self.extent()?;
        let Some((first, last)) = groups else { return header(out, 0, 0, 0, scale) };
        let groups = i16::try_from(first - last + 1).map_err(|_| too_large())?;
        let weight = i16::try_from(first).map_err(|_| too_large())?;
        let sign: u16 = if self.negative { 0x4000 } else { 0 };
        copy_frame::sized(out, |out| {
            out.extend_from_slice(&groups.to_be_bytes());
            out.extend_from_slice(&weight.to_be_bytes());
            out.extend_from_slice(&sign.to_be_bytes());
            out.extend_from_slice(&scale.to_be_bytes());
            for group in (last..=first).rev() {
                let start = self.place(4 * group + 3);
                let value = (start..start + 4).fold(0, |value, index| value * 10 + self.digit(index));
                out.extend_from_slice(&value.to_be_bytes());
            }
            Ok(())
        })
    }
}

fn exponent(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0, |value, digit| (value * 10 + i64::from(digit - b'0')).min(MAX_EXPONENT));
    Some(if negative { -value } else { value })
}

/// A slice's length; slices are no longer than `isize::MAX`.
fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
