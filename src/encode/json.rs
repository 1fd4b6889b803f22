//! JSON text for `json`, `jsonb` and `text` columns.
//!
//! Guarantees: what is written is valid JSON; a JSON message's own text is copied as it stands. With
//! [`Nul::Refuse`] it holds no `\u0000`, no lone surrogate and no number beyond `numeric`, none of which a
//! `jsonb` takes. It may then order the members of an object as `jsonb` does.

use std::io::Write as _;

use base64::Engine as _;
use memchr::memchr;

use super::{BASE64, Fault, number};
use crate::config::NonFinite;
use crate::payload::json::{self, LoneSurrogate, plain_prefix, unescape_one};
use crate::payload::{Entered, Key, Malformed, Next, Raw, Reader, Value, Wording, with_reader};
pub(crate) use keys::Keys;
pub(crate) use members::Members;
use texts::Found;
pub(crate) use texts::Texts;

mod keys;
mod members;
mod named;
mod texts;

/// Shared wording.
pub(super) const NON_FINITE: Wording = &"the setting `non_finite` rejects NaN and infinities";
pub(crate) const LONE_SURROGATE: Wording =
    &"half a surrogate pair (\\ud800 to \\udfff alone), which is not text";
const NUL: Wording = &"jsonb cannot hold the character NUL (\\u0000)";

/// A text of at least this many bytes is scanned before it is written, since a control character of one byte
/// becomes six.
const LONG: usize = 64 * 1024;

/// Bytes of `\u0000`.
const ESCAPED: usize = 6;

/// What to do about the character NUL in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nul {
    /// Write it as `\u0000`.
    Keep,
    /// Refuse it, and with it half surrogates in text that is copied, and numbers that `numeric` does not
    /// hold: for a `jsonb`.
    Refuse,
}

/// Writes values as JSON text.
pub(crate) struct Writer<'k> {
    /// What NaN and infinities become.
    pub(crate) non_finite: NonFinite,
    /// What the character NUL is.
    pub(crate) nul: Nul,
    /// Keys that were written before.
    pub(crate) keys: &'k mut Keys,
    /// Arrays and maps that were written before.
    pub(crate) texts: &'k mut Texts,
    /// How long what is appended to may become.
    pub(crate) bound: usize,
    /// Characters that the large numbers of the row print to.
    pub(crate) printed: &'k mut u64,
}

impl Writer<'_> {
    /// Appends `value`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, value: Value<'_>) -> Result<(), Fault> {
        match value {
            Value::Array(Raw::Json(raw)) | Value::Map(Raw::Json(raw)) => {
                let json::Raw { text, wide, non_finite } = raw;
                if wide && self.nul == Nul::Refuse {
                    fit_numeric(&mut json::Reader::new(text), self.printed)?;
                }
                if non_finite {
                    // NaN and infinities may become as short as half of them.
                    self.fits(out, text.len() / 2)?;
                    return copy(out, &named::replaced(text, self.non_finite)?, self.nul);
                }
                self.fits(out, text.len())?;
                copy(out, text, self.nul)
            }
            Value::Array(raw) | Value::Map(raw) => {
                with_reader!(raw, |reader| self.repeated(out, raw.bytes(), reader))
            }
            scalar => self.scalar(out, &scalar),
        }
    }

    /// Whether `bytes` more are within the bound.
    #[inline]
    fn fits(&self, out: &[u8], bytes: usize) -> Result<(), Fault> {
        if out.len().saturating_add(bytes) > self.bound { Err(Fault::too_large()) } else { Ok(()) }
    }

    /// Appends an array or a map, which may have been written before.
    fn repeated<'r, R: Reader<'r>>(
        &mut self,
        out: &mut Vec<u8>,
        bytes: &[u8],
        mut reader: R,
    ) -> Result<(), Fault> {
        let kind = (R::FORMAT, self.nul);
        let set = match self.texts.find(bytes, kind) {
            Found::Text(text) => {
                out.extend_from_slice(text);
                return Ok(());
            }
            Found::Set(set) => Some(set),
            Found::Nothing => None,
        };
        let (start, printed) = (out.len(), *self.printed);
        self.next(out, &mut reader)?;
        // One that prints long is looked at each time.
        if let Some(set) = set
            && *self.printed == printed
        {
            self.texts.keep(set, bytes, kind, &out[start..]);
        }
        Ok(())
    }

    /// Appends `key` and a colon; its rank among the members of an object.
    #[inline]
    pub(crate) fn key(&mut self, out: &mut Vec<u8>, key: Key<'_>) -> Result<u64, Fault> {
        if let Key::Plain(key) = key
            && let Some(known) = self.keys.find(key)
        {
            out.extend_from_slice(known.text());
            return Ok(known.rank);
        }
        self.new_key(out, key)
    }

    fn new_key(&mut self, out: &mut Vec<u8>, key: Key<'_>) -> Result<u64, Fault> {
        let start = out.len();
        match key {
            Key::Plain(text) => {
                let text = str::from_utf8(text).map_err(|_| Fault::malformed(&"a key that is not UTF-8"))?;
                string(out, text, self.nul)?;
            }
            Key::Escaped(text) => self.scalar(out, &Value::Escaped(text))?,
            Key::Other(value @ (Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Null)) => {
                out.push(b'"');
                self.scalar(out, &value)?;
                out.push(b'"');
            }
            Key::Other(
                value @ (Value::Str(_) | Value::Bytes(_) | Value::Timestamp { .. } | Value::NotText(_)),
            ) => self.scalar(out, &value)?,
            Key::Other(_) => {
                return Err(Fault::ty(
                    &"JSON keys are text, but this map has a key that is a fraction, an array or a map",
                ));
            }
        }
        out.push(b':');
        if let Key::Plain(key) = key {
            self.keys.keep(key, &out[start..]);
        }
        // Between the quotes, of which the last has a colon after it.
        Ok(members::rank(out.get(start + 1..out.len() - 2).unwrap_or_default()))
    }

    /// Appends what comes next. It recurses as deep as the value nests, which its first reading has limited.
    #[inline]
    fn next<'r>(&mut self, out: &mut Vec<u8>, reader: &mut impl Reader<'r>) -> Result<(), Fault> {
        let mut value = Value::Null;
        match reader.open(&mut value)? {
            Next::Scalar => self.scalar(out, &value),
            Next::Array(array) => self.array(out, reader, array),
            Next::Map(map) => self.object(out, reader, map),
        }
    }

    fn array<'r>(
        &mut self,
        out: &mut Vec<u8>,
        reader: &mut impl Reader<'r>,
        mut array: Entered,
    ) -> Result<(), Fault> {
        out.push(b'[');
        let mut separator = false;
        while reader.element(&mut array)? {
            if std::mem::replace(&mut separator, true) {
                out.push(b',');
            }
            self.next(out, reader)?;
            if out.len() > self.bound {
                return Err(Fault::too_large());
            }
        }
        out.push(b']');
        Ok(())
    }

    fn object<'r>(
        &mut self,
        out: &mut Vec<u8>,
        reader: &mut impl Reader<'r>,
        mut map: Entered,
    ) -> Result<(), Fault> {
        out.push(b'{');
        let mut members = Members::default();
        while let Some(key) = reader.key(&mut map)? {
            let start = out.len();
            let rank = self.key(out, key)?;
            members.add(rank, start);
            self.next(out, reader)?;
            out.push(b',');
            if out.len() > self.bound {
                return Err(Fault::too_large());
            }
        }
        members.end(out, self.nul == Nul::Refuse);
        out.push(b'}');
        Ok(())
    }

    #[inline]
    fn scalar(&mut self, out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), Fault> {
        match *value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Value::Uint(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Value::Float(number) if number.is_finite() => {
                if self.nul == Nul::Refuse {
                    super::print(self.printed, number::printed(number))?;
                }
                out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
            }
            Value::Float32(number) if number.is_finite() => {
                if self.nul == Nul::Refuse {
                    super::print(self.printed, number::printed(number.into()))?;
                }
                out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
            }
            Value::Float(number) => not_finite(out, number, self.non_finite)?,
            Value::Float32(number) => not_finite(out, number.into(), self.non_finite)?,
            Value::Decimal(digits) => {
                if self.nul == Nul::Refuse {
                    super::print(self.printed, number::fits_numeric(digits)?)?;
                }
                out.extend_from_slice(digits.as_bytes());
            }
            Value::Str(text) if text.len() > LONG => {
                let more = |byte| match byte {
                    b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
                    byte if byte < b' ' => ESCAPED - 1,
                    _ => 0,
                };
                self.fits(out, text.len() + text.bytes().map(more).sum::<usize>())?;
                string(out, text, self.nul)?;
            }
            Value::Str(text) => string(out, text, self.nul)?,
            Value::Escaped(text) => {
                self.fits(out, text.len())?;
                out.push(b'"');
                copy(out, text, self.nul)?;
                out.push(b'"');
            }
            Value::NotText(_) => return Err(Fault::malformed(&"text that is not UTF-8")),
            Value::Bytes(bytes) => {
                self.fits(out, bytes.len())?;
                out.push(b'"');
                base64(out, bytes)?;
                out.push(b'"');
            }
            Value::Timestamp { seconds, nanos } => {
                out.push(b'"');
                timestamp(out, seconds, nanos)?;
                out.push(b'"');
            }
            Value::Array(_) | Value::Map(_) => self.write(out, *value)?,
        }
        Ok(())
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::malformed(malformed.what)
    }
}

#[cold]
fn not_finite(out: &mut Vec<u8>, number: f64, non_finite: NonFinite) -> Result<(), Fault> {
    match non_finite {
        NonFinite::Keep => {
            out.push(b'"');
            out.extend_from_slice(name_of(number).as_bytes());
            out.push(b'"');
        }
        NonFinite::Null => out.extend_from_slice(b"null"),
        NonFinite::Refuse => return Err(Fault::range(NON_FINITE)),
    }
    Ok(())
}

/// The name of a NaN or an infinity, as PostgreSQL writes it.
pub(super) fn name_of(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// Appends bytes as base64.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Fault> {
    let too_long = || Fault::from(super::TooLong);
    let length = base64::encoded_len(bytes.len(), true).ok_or_else(too_long)?;
    let start = out.len();
    out.resize(start + length, 0);
    BASE64.encode_slice(bytes, &mut out[start..]).map_err(|_| too_long())?;
    Ok(())
}

/// Appends a point in time in RFC 3339.
pub(super) fn timestamp(out: &mut Vec<u8>, seconds: i64, nanos: u32) -> Result<(), Fault> {
    let range = || Fault::range(&"a timestamp in text must be between the years -9999 and 9999");
    let nanos = i32::try_from(nanos).map_err(|_| range())?;
    let timestamp = jiff::Timestamp::new(seconds, nanos).map_err(|_| range())?;
    write!(out, "{timestamp}").map_err(|_| range())
}

/// Refuses what comes next where a number in it is beyond `numeric`. It recurses as deep as the value nests,
/// which its first reading has limited.
fn fit_numeric(reader: &mut json::Reader<'_>, printed: &mut u64) -> Result<(), Fault> {
    let mut value = Value::Null;
    match reader.open(&mut value)? {
        Next::Scalar => {
            if let Value::Decimal(digits) = value {
                super::print(printed, number::fits_numeric(digits)?)?;
            }
        }
        Next::Array(mut array) => {
            while reader.element(&mut array)? {
                fit_numeric(reader, printed)?;
            }
        }
        Next::Map(mut map) => {
            while reader.key(&mut map)?.is_some() {
                fit_numeric(reader, printed)?;
            }
        }
    }
    Ok(())
}

/// Appends JSON text as it stands.
fn copy(out: &mut Vec<u8>, text: &str, nul: Nul) -> Result<(), Fault> {
    if nul == Nul::Refuse {
        let mut rest = text;
        while let Some(backslash) = memchr(b'\\', rest.as_bytes()) {
            let (character, length) = unescape_one(&rest[backslash + 1..])
                .map_err(|LoneSurrogate| Fault::malformed(LONE_SURROGATE))?;
            if character == '\0' {
                return Err(Fault::range(NUL));
            }
            rest = &rest[backslash + 1 + length..];
        }
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends text between quotes.
#[inline]
fn string(out: &mut Vec<u8>, text: &str, nul: Nul) -> Result<(), Fault> {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 3);
    out.push(b'"');
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(byte) = rest.get(plain) else { break };
        match byte {
            0 if nul == Nul::Refuse => return Err(Fault::range(NUL)),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(*byte)]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
    Ok(())
}
