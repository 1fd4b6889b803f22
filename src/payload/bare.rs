//! Takes a payload as one value, whatever its bytes are.
//!
//! Guarantees: nothing is refused, and the value is the payload as it stands: text where it is UTF-8, else
//! [`Value::NotText`]. Which number or truth value a text is, is asked when a column takes it. Payloads are
//! read so only where a pipeline says it, since every payload would do.

use super::{Entered, Format, Key, Malformed, Next, Spelled, Value};

/// No `Content-Type` says it.
pub(super) const MEDIA_TYPE: Option<&str> = None;

/// A payload, or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Whether a payload begins as a bare value does: none says so.
pub(super) fn begins(_: &[u8]) -> bool {
    false
}

/// The payload.
#[expect(clippy::unnecessary_wraps, reason = "other formats refuse some")]
pub(super) fn raw(payload: &[u8]) -> Result<Raw<'_>, Malformed> {
    Ok(Raw(payload))
}

/// There are no keys: an empty one is never met.
pub(super) fn spelled(_: &str) -> Box<[u8]> {
    [].into()
}

/// A place in a payload: before its value, or after it.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `raw`.
    pub(crate) fn of(raw: Raw<'a>) -> Self {
        Self { payload: raw.0, at: 0 }
    }
}

impl<'a> super::Reader<'a> for Reader<'a> {
    const NAME: &'static str = "bare values";
    const FORMAT: Format = Format::Raw;

    fn open(&mut self, value: &mut Value<'a>) -> Result<Next, Malformed> {
        let bytes = &self.payload[self.at..];
        *value = str::from_utf8(bytes).map_or(Value::NotText(bytes), Value::Str);
        self.at = self.payload.len();
        Ok(Next::Scalar)
    }

    fn key(&mut self, _: &mut Entered) -> Result<Option<Key<'a>>, Malformed> {
        Ok(None)
    }

    fn pass_key(&mut self, _: &mut Entered, key: &Spelled) -> bool {
        !key.bare.is_empty()
    }

    fn element(&mut self, _: &mut Entered) -> Result<bool, Malformed> {
        Ok(false)
    }

    fn read(&mut self, _: usize, value: &mut Value<'a>) -> Result<(), Malformed> {
        self.open(value).map(|_| ())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        Ok(())
    }

    fn position(&self) -> usize {
        self.at
    }

    fn raw(&self, start: usize) -> super::Raw<'a> {
        super::Raw::Raw(Raw(&self.payload[start..self.at]))
    }
}
