//! Reads JSON texts that follow one another, one a line as a rule, as the elements of one array.
//!
//! Guarantees: those of [`json`], for each text. White space between the texts, which a line's end is, may be
//! missing, and a text may go over several lines. A payload of white space alone has no elements.

use super::json;
use super::{Entered, Format, Key, Malformed, Next, Reader as _, Spelled, Value};

/// What a `Content-Type` of it has in it.
pub(super) const MEDIA_TYPE: Option<&str> = Some("ndjson");

/// A payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw<'a>(json::Raw<'a>);

impl<'a> Raw<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0.bytes()
    }
}

/// Whether a payload begins so: it begins as one JSON text does.
pub(super) fn begins(_: &[u8]) -> bool {
    false
}

/// The text of a payload.
pub(super) fn raw(payload: &[u8]) -> Result<Raw<'_>, Malformed> {
    json::raw(payload).map(Raw)
}

/// Keys are met as JSON spells them.
pub(super) fn spelled(_: &str) -> Box<[u8]> {
    [].into()
}

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// Before the first text.
    Before,
    /// Within the texts.
    Within,
    /// Past the last one.
    After,
}

/// A place in a payload.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    whole: Raw<'a>,
    texts: json::Reader<'a>,
    place: Place,
}

/// Marks the array of all texts: those of JSON count nothing.
const TEXTS: u32 = u32::MAX;

impl<'a> Reader<'a> {
    /// Starts at the front of `raw`.
    pub(crate) fn of(raw: Raw<'a>) -> Self {
        Self { whole: raw, texts: json::Reader::of(raw.0), place: Place::Before }
    }

    /// Whether there is another text.
    fn more(&mut self) -> bool {
        let mut rest = self.texts.clone();
        let more = rest.end().is_err();
        if !more {
            (self.texts, self.place) = (rest, Place::After);
        }
        more
    }
}

impl<'a> super::Reader<'a> for Reader<'a> {
    const NAME: &'static str = "NDJSON";
    const FORMAT: Format = Format::Ndjson;

    fn open(&mut self, value: &mut Value<'a>) -> Result<Next, Malformed> {
        if self.place == Place::Before {
            self.place = Place::Within;
            return Ok(Next::Array(Entered { remaining: TEXTS, first: true }));
        }
        self.texts.open(value)
    }

    fn key(&mut self, map: &mut Entered) -> Result<Option<Key<'a>>, Malformed> {
        self.texts.key(map)
    }

    fn pass_key(&mut self, map: &mut Entered, key: &Spelled) -> bool {
        // Spelled in no way of its own.
        key.ndjson.is_empty() && self.texts.pass_key(map, key)
    }

    fn element(&mut self, array: &mut Entered) -> Result<bool, Malformed> {
        if array.remaining == TEXTS { Ok(self.more()) } else { self.texts.element(array) }
    }

    fn read(&mut self, depth: usize, value: &mut Value<'a>) -> Result<(), Malformed> {
        if self.place != Place::Before {
            return self.texts.read(depth, value);
        }
        self.place = Place::Within;
        while self.more() {
            self.texts.read(depth + 1, value)?;
        }
        *value = Value::Array(self.raw(0));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.texts.end()
    }

    fn position(&self) -> usize {
        self.texts.position()
    }

    fn raw(&self, start: usize) -> super::Raw<'a> {
        if self.place == Place::After { super::Raw::Ndjson(self.whole) } else { self.texts.raw(start) }
    }
}
