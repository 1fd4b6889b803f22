//! Where a new pipeline begins.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::moment::Point;

/// `start`: at which message a pipeline begins that has no checkpoint yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first that the stream holds.
    #[default]
    All,
    /// At the first that is published from then on.
    New,
    /// At that message, or the first of that time or later.
    At(Point),
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Start;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(
                    "\"all\", \"new\", a sequence from 1, or a time in quotes such as \
                     \"2026-07-01T12:00:00Z\"",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Start, E> {
                match (text, text.parse::<Timestamp>()) {
                    ("all", _) => Ok(Start::All),
                    ("new", _) => Ok(Start::New),
                    (_, Ok(time)) => Ok(Start::At(Point::Time(time))),
                    (_, Err(_)) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: Error>(self, sequence: u64) -> Result<Start, E> {
                match sequence {
                    0 => Err(E::invalid_value(Unexpected::Unsigned(0), &self)),
                    sequence => Ok(Start::At(Point::Sequence(sequence))),
                }
            }

            fn visit_i64<E: Error>(self, sequence: i64) -> Result<Start, E> {
                match u64::try_from(sequence) {
                    Ok(sequence) => self.visit_u64(sequence),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(sequence), &self)),
                }
            }
        }
        deserializer.deserialize_any(Reads)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("the first message that the stream holds"),
            Self::New => formatter.write_str("the first message that is published once it runs"),
            Self::At(Point::Sequence(sequence)) => write!(formatter, "sequence {sequence}"),
            Self::At(Point::Time(time)) => write!(formatter, "the first message of {time} or later"),
        }
    }
}
