//! `[[pipeline.table]]`: which messages fill a table, and with what.
//!
//! Guarantees: types and defaults only; [`super::validate`] has the rules between settings.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::path::is_of_root;
use super::values::DetailedSource;

/// `[[pipeline.table]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Table name, schema-qualified where needed.
    pub name: String,
    /// Which messages it takes; without it, all.
    pub when: Option<When>,
    /// Path of an array in the message: one row an element.
    pub for_each: Option<String>,
    /// What an element that cannot be stored takes along.
    #[serde(default)]
    pub bad_element: BadElement,
    /// Whether TimescaleDB compresses the rows on their way in.
    #[serde(default)]
    pub direct_compress: bool,
    /// Whether rows may go to another server, which commits by itself.
    #[serde(default)]
    pub foreign: Foreign,
    /// Whether rows may go where a crash of the server empties the table.
    #[serde(default)]
    pub unlogged: Unlogged,
    /// Which fields of the element, or of the message, make a row each.
    pub unpivot: Option<Unpivot>,
    /// What to do about rows that are already there.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// Columns of the unique key that `on_conflict` goes by.
    #[serde(default)]
    pub key: Vec<String>,
    /// With `on_conflict = "update"`: what a field that a message lacks does to the row that is there; null
    /// where it is not said.
    pub absent: Option<Absent>,
    /// With `on_conflict = "update"`: a row never replaces one whose value in this column is greater.
    pub newer_by: Option<String>,
    /// Column → source; what is not named takes the field of its own name.
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnSource>,
}

impl Table {
    /// Whether what it holds depends on the order in which messages are written.
    pub(super) fn goes_by_order(&self) -> bool {
        self.on_conflict == OnConflict::Update && self.newer_by.is_none()
    }

    /// Whether it makes a row of each element of a message that is an array.
    pub(crate) fn splits_root(&self) -> bool {
        self.for_each.as_deref().is_some_and(is_of_root)
    }

    /// Whether it takes only some of those elements.
    pub(crate) fn takes_some_elements(&self) -> bool {
        self.splits_root() && self.when.as_ref().is_some_and(|when| when.field.is_some())
    }
}

/// `when = { … }`: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// What the subject must match; `*` and `>` are wildcards as in NATS.
    pub subject: Option<String>,
    /// Header → what it must be.
    pub headers: BTreeMap<String, HeaderIs>,
    /// Path of a field of the message that must be there and not be null.
    pub field: Option<String>,
    /// What it must be: text, a whole number, true or false, or one of several in an array.
    pub equals: Option<figment::value::Value>,
}

/// What a header must be, for a `when`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderIs {
    /// `true`: there, whatever its value; `false`: not there.
    There(bool),
    /// One of these texts.
    OneOf(Vec<String>),
}

/// `unpivot = { … }`: one of the three.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unpivot {
    /// These fields, each a path.
    pub fields: Vec<String>,
    /// All entries of the map at this path.
    pub map: Option<String>,
    /// All fields that no column takes.
    pub rest: bool,
}

/// `bad_element`: what is a dead letter when an element of `for_each` cannot be stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadElement {
    /// The message, with all its rows in all its tables.
    #[default]
    Message,
    /// The element, in this table.
    Element,
}

/// `foreign`: what of a foreign table, or of a partitioned table with a foreign partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// It is refused at start.
    #[default]
    Refuse,
    /// Its rows may come twice: the other server commits before this one, and stays committed where this one
    /// fails.
    AtLeastOnce,
}

/// `unlogged`: what of an unlogged table, or of a partitioned table with an unlogged partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlogged {
    /// It is refused at start.
    #[default]
    Refuse,
    /// Its rows may be lost: a crash of the server empties it and leaves the checkpoint, and no standby has
    /// them.
    AtMostOnce,
}

/// `on_conflict`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// A row that is already there is poison.
    #[default]
    Error,
    /// The row that is there stays.
    Ignore,
    /// The row with the highest sequence wins.
    Update,
}

/// `absent`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Its column keeps the value that is there.
    Keep,
    /// Its column becomes NULL, or the default.
    Null,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnSource {
    /// A path or `$source`.
    From(String),
    /// The same with options, or a constant.
    Detailed(DetailedSource),
}

impl ColumnSource {
    /// The sources that are named, in order; none is the field of the column's own name.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let (one, more) = match self {
            Self::From(path) => (Some(path.as_str()), None),
            Self::Detailed(detailed) => (None, detailed.from.as_ref()),
        };
        one.into_iter().chain(more.into_iter().flat_map(|sources| &sources.0).map(String::as_str))
    }

    /// Whether the column takes exactly what lies at `source`.
    #[must_use]
    pub fn is(&self, source: &str) -> bool {
        let changes = matches!(self, Self::Detailed(detailed) if detailed.has_functions());
        !changes && self.named().eq([source])
    }

    /// Whether the column is left alone.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        matches!(self, Self::Detailed(source) if source.skip)
    }
}

/// `parse`: which text in a column of `json` or `jsonb` is taken as what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parse {
    /// All; one that is no JSON is poison.
    Json,
    /// None: a text is a string.
    Never,
}

/// Unit of a numeric time; fractions are allowed in floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds since the Unix epoch.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// Manual and not `untagged`, so that an unknown key in the detailed form is named.
impl<'de> Deserialize<'de> for ColumnSource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ColumnSource;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(
                    "a path such as \"a.b[0]\", or { from, default } with functions such as unit or trim, \
                     { constant } or { skip }",
                )
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Self::Value, E> {
                Ok(ColumnSource::From(path.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                DetailedSource::deserialize(map).map(ColumnSource::Detailed)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for HeaderIs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = HeaderIs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, an array of strings, true (present) or false (absent)")
            }

            fn visit_bool<E: serde::de::Error>(self, there: bool) -> Result<Self::Value, E> {
                Ok(HeaderIs::There(there))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(HeaderIs::OneOf(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, texts: A) -> Result<Self::Value, A::Error> {
                let texts = serde::de::value::SeqAccessDeserializer::new(texts);
                Vec::deserialize(texts).map(HeaderIs::OneOf)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
