//! Where a column's value comes from, and what is done to it.
//!
//! Guarantees: types only; [`super::validate`] has the rules between settings.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};

use super::{Parse, TimeUnit};

/// `{ from = …, default = … }` with what is done to the value, `{ constant = … }` or `{ skip = true }`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting by itself")]
pub struct DetailedSource {
    /// A path or `$source`, or several of which the first that is there counts; by default the column's own
    /// name.
    pub from: Option<Sources>,
    /// Whether white space around a text is left out.
    pub trim: bool,
    /// Of a text, so many characters from that one on, counted from 0.
    pub substring: Option<(u32, u32)>,
    /// Characters that a text keeps at most.
    pub truncate: Option<u32>,
    /// Whether a text becomes lower case.
    pub lower: bool,
    /// Whether a text becomes upper case.
    pub upper: bool,
    /// What an empty text is.
    pub empty: Option<Empty>,
    /// Value of the message → value of the column; others are refused.
    pub map: Option<BTreeMap<String, figment::value::Value>>,
    /// What a number is multiplied by.
    pub scale: Option<f64>,
    /// What is added to a number, after `scale`; or the offset of a time in text that carries none, such as
    /// `+02:00`.
    pub offset: Option<Offset>,
    /// Unit of a numeric time.
    pub unit: Option<TimeUnit>,
    /// Which text is JSON that is taken as what it says; where it is not said, arrays and objects in text
    /// are.
    pub parse: Option<Parse>,
    /// Decimal digits after the point that a number keeps.
    pub round: Option<u8>,
    /// Binary digits after the point that a number keeps.
    pub round_bits: Option<u8>,
    /// Value for an absent or null field.
    pub default: Option<figment::value::Value>,
    /// The same value in every row.
    pub constant: Option<figment::value::Value>,
    /// The column is left alone: the server fills it in new rows, and no message changes it.
    pub skip: bool,
}

impl DetailedSource {
    /// Whether something is done to a text.
    #[must_use]
    pub fn changes_text(&self) -> bool {
        self.trim
            || self.lower
            || self.upper
            || self.substring.is_some()
            || self.truncate.is_some()
            || self.empty.is_some()
    }

    /// Whether something is calculated with a number.
    #[must_use]
    pub fn calculates(&self) -> bool {
        self.scale.is_some() || matches!(self.offset, Some(Offset::Number(_)))
    }

    /// Whether something is done to a value before the column takes it.
    #[must_use]
    pub fn has_functions(&self) -> bool {
        self.changes_text() || self.calculates() || self.map.is_some()
    }
}

/// `from`: one source, or several in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(pub Vec<String>);

/// `offset`
#[derive(Debug, Clone, PartialEq)]
pub enum Offset {
    /// Of times.
    Time(String),
    /// Of numbers.
    Number(f64),
}

/// `empty`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Empty {
    /// It is null.
    Null,
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Sources;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a path such as \"a.b[0]\", or an array of them")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Sources, E> {
                Ok(Sources(vec![path.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, paths: A) -> Result<Sources, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(paths)).map(Sources)
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;

        impl Visitor<'_> for TextOrNumber {
            type Value = Offset;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number, or for times an offset such as \"+02:00\"")
            }

            fn visit_str<E: Error>(self, offset: &str) -> Result<Offset, E> {
                Ok(Offset::Time(offset.to_owned()))
            }

            fn visit_f64<E: Error>(self, offset: f64) -> Result<Offset, E> {
                Ok(Offset::Number(offset))
            }

            #[expect(clippy::cast_precision_loss, reason = "nobody writes an offset of 16 digits")]
            fn visit_i64<E: Error>(self, offset: i64) -> Result<Offset, E> {
                Ok(Offset::Number(offset as f64))
            }
        }

        deserializer.deserialize_any(TextOrNumber)
    }
}
