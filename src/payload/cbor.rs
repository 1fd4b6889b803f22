//! Reads CBOR (RFC 8949) in place.
//!
//! Guarantees: no input makes it panic, recurse or allocate; what it passes over is checked for form (heads,
//! lengths, depth) but not for UTF-8. Lengths may be indefinite, of arrays and maps; text and bytes in pieces
//! are not read, and neither are whole numbers beyond 64 bits. Of tags, 1 (seconds since the epoch) makes a
//! [`Value::Timestamp`], and 2 or 3 a whole number; of any other, the value is that of what it tags.
//! `undefined` is null.

use super::{EMPTY, Entered, Format, Key, MAX_DEPTH, Malformed, Next, Spelled, Value, Wording, begins_with};

/// What a `Content-Type` of CBOR has in it.
pub(super) const MEDIA_TYPE: Option<&str> = Some("cbor");

/// The tag that says that CBOR follows, as it is written.
const SELF_DESCRIBED: &[u8] = &[0xd9, 0xd9, 0xf7];

/// Ends an array or a map of indefinite length.
const BREAK: u8 = 0xff;

/// Marks an array or a map of indefinite length.
const INDEFINITE: u32 = u32::MAX;

/// Tags that say what a value means.
const EPOCH: u64 = 1;
const POSITIVE: u64 = 2;
const NEGATIVE: u64 = 3;

/// Wording of a number that no value holds.
const BEYOND: Wording = &"a whole number beyond 64 bits, which is not read";

/// CBOR: a payload, or from head to last byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Whether a payload says that it is CBOR. In MessagePack it would begin a text, which is no message.
#[inline]
pub(super) fn begins(payload: &[u8]) -> bool {
    payload.starts_with(SELF_DESCRIBED)
}

/// The bytes of a payload.
#[inline]
pub(super) fn raw(payload: &[u8]) -> Result<Raw<'_>, Malformed> {
    if payload.is_empty() { Err(Malformed::new(EMPTY, 0)) } else { Ok(Raw(payload)) }
}

/// `key` as text with its shortest head.
pub(super) fn spelled(key: &str) -> Box<[u8]> {
    let length = key.len();
    let head = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..24), _) => vec![0x60 | short],
        (Ok(byte), _) => vec![0x78, byte],
        (_, Ok(word)) => [&[0x79][..], &word.to_be_bytes()].concat(),
        // No key is that long; one that is, is met otherwise.
        _ => return [].into(),
    };
    [head.as_slice(), key.as_bytes()].concat().into()
}

/// A place in a CBOR message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a head announces.
enum Head {
    /// A value without parts, which has been read.
    Scalar,
    /// Elements, or [`INDEFINITE`].
    Array(u32),
    /// Entries, or [`INDEFINITE`].
    Map(u32),
}

/// What is still to come of an array or a map that is passed over.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// So many values.
    Values(u64),
    /// Elements up to a break.
    Elements,
    /// Entries up to a break, the next key first.
    Key,
    /// The value of a key.
    Value,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `raw`.
    #[inline]
    pub(crate) fn of(raw: Raw<'a>) -> Self {
        Self { bytes: raw.0, at: 0 }
    }

    #[cold]
    fn malformed(&self, what: Wording) -> Malformed {
        Malformed::new(what, self.at)
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let taken = usize::try_from(length).ok().and_then(|length| self.bytes[self.at..].get(..length));
        let taken = taken.ok_or_else(|| self.malformed(&"cut short"))?;
        self.at += taken.len();
        Ok(taken)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.bytes[self.at..].first_chunk::<N>().ok_or_else(|| self.malformed(&"cut short"))?;
        self.at += N;
        Ok(*taken)
    }

    /// The number in a head, whose lowest five bits are `info`.
    #[inline]
    fn argument(&mut self, info: u8) -> Result<u64, Malformed> {
        match info {
            0..24 => Ok(info.into()),
            24 => self.fixed().map(|[byte]| u64::from(byte)),
            25 => self.fixed().map(|bytes| u64::from(u16::from_be_bytes(bytes))),
            26 => self.fixed().map(|bytes| u64::from(u32::from_be_bytes(bytes))),
            27 => self.fixed().map(u64::from_be_bytes),
            31 => Err(self
                .malformed(&"text or bytes in pieces, which are not read, or a head that CBOR does not use")),
            _ => Err(self.malformed(&"a head that CBOR does not use")),
        }
    }

    /// How many elements or entries, each of at least `bytes` bytes.
    #[inline]
    fn count(&mut self, info: u8, bytes: u64) -> Result<u32, Malformed> {
        if info == 31 {
            return Ok(INDEFINITE);
        }
        let count = self.argument(info)?;
        let room = (self.bytes.len() - self.at) as u64;
        match u32::try_from(count) {
            Ok(count) if u64::from(count) * bytes <= room => Ok(count),
            _ => Err(self.malformed(&"cut short")),
        }
    }

    #[inline]
    fn head(&mut self, value: &mut Value<'a>) -> Result<Head, Malformed> {
        let mut tag = None;
        loop {
            let [initial] = self.fixed()?;
            let info = initial & 31;
            match initial >> 5 {
                0 => {
                    let number = self.argument(info)?;
                    *value = i64::try_from(number).map_or(Value::Uint(number), Value::Int);
                }
                1 => {
                    let Ok(number) = i64::try_from(self.argument(info)?) else {
                        return Err(self.malformed(BEYOND));
                    };
                    *value = Value::Int(-1 - number);
                }
                2 => {
                    let length = self.argument(info)?;
                    *value = Value::Bytes(self.take(length)?);
                }
                3 => {
                    let length = self.argument(info)?;
                    let bytes = self.take(length)?;
                    *value = str::from_utf8(bytes).map_or(Value::NotText(bytes), Value::Str);
                }
                4 => return self.count(info, 1).map(Head::Array),
                5 => return self.count(info, 2).map(Head::Map),
                6 => {
                    tag = Some(self.argument(info)?);
                    continue;
                }
                _ => self.simple(info, value)?,
            }
            if let Some(tag) = tag {
                self.tagged(tag, value)?;
            }
            return Ok(Head::Scalar);
        }
    }

    fn simple(&mut self, info: u8, value: &mut Value<'a>) -> Result<(), Malformed> {
        *value = match info {
            20 => Value::Bool(false),
            21 => Value::Bool(true),
            22 | 23 => Value::Null,
            // A writer shortens what loses nothing by it, so the digits that count are those of 64 bits.
            25 => Value::Float(half(self.fixed().map(u16::from_be_bytes)?).into()),
            26 => Value::Float(self.fixed().map(f32::from_be_bytes)?.into()),
            27 => Value::Float(self.fixed().map(f64::from_be_bytes)?),
            31 => return Err(self.malformed(&"a misplaced break")),
            _ => return Err(self.malformed(&"a simple value that CBOR does not define")),
        };
        Ok(())
    }

    /// Makes of `value` what its innermost tag says it means.
    #[cold]
    fn tagged(&self, tag: u64, value: &mut Value<'a>) -> Result<(), Malformed> {
        let seconds = match (tag, *value) {
            (EPOCH, Value::Int(seconds)) => {
                *value = Value::Timestamp { seconds, nanos: 0 };
                return Ok(());
            }
            (EPOCH, Value::Float(seconds)) => seconds,
            (POSITIVE | NEGATIVE, Value::Bytes(bytes)) => {
                let number = whole(bytes).ok_or_else(|| self.malformed(BEYOND))?;
                *value = match (tag, i64::try_from(number)) {
                    (POSITIVE, Ok(number)) => Value::Int(number),
                    (POSITIVE, Err(_)) => Value::Uint(number),
                    (_, Ok(number)) => Value::Int(-1 - number),
                    (_, Err(_)) => return Err(self.malformed(BEYOND)),
                };
                return Ok(());
            }
            _ => return Ok(()),
        };
        *value = timestamp(seconds).ok_or_else(|| self.malformed(&"an invalid time since the epoch"))?;
        Ok(())
    }

    /// Whether a break ends what was entered, which is then passed.
    #[inline]
    fn breaks(&mut self) -> bool {
        let breaks = self.bytes.get(self.at) == Some(&BREAK);
        self.at += usize::from(breaks);
        breaks
    }

    /// Passes over what is `left` of an array or a map at `depth`.
    fn skip(&mut self, left: Left, depth: usize) -> Result<(), Malformed> {
        let mut levels = [Left::Values(0); MAX_DEPTH];
        let mut level = depth;
        *levels.get_mut(level).ok_or_else(|| self.malformed(super::TOO_DEEP))? = left;
        loop {
            let (ends, then) = match levels[level] {
                Left::Values(0) => (true, Left::Values(0)),
                Left::Values(left) => (false, Left::Values(left - 1)),
                Left::Elements => (self.breaks(), Left::Elements),
                Left::Key => (self.breaks(), Left::Value),
                Left::Value => (false, Left::Key),
            };
            if ends {
                if level == depth {
                    return Ok(());
                }
                level -= 1;
                continue;
            }
            levels[level] = then;
            if let Some(inside) = Left::of(&self.head(&mut Value::Null)?) {
                level += 1;
                *levels.get_mut(level).ok_or_else(|| self.malformed(super::TOO_DEEP))? = inside;
            }
        }
    }
}

impl Left {
    /// What is to come after a head.
    fn of(head: &Head) -> Option<Self> {
        match *head {
            Head::Scalar => None,
            Head::Array(INDEFINITE) => Some(Self::Elements),
            Head::Map(INDEFINITE) => Some(Self::Key),
            Head::Array(elements) => Some(Self::Values(elements.into())),
            Head::Map(entries) => Some(Self::Values(2 * u64::from(entries))),
        }
    }
}

impl<'a> super::Reader<'a> for Reader<'a> {
    const NAME: &'static str = "CBOR";
    const FORMAT: Format = Format::Cbor;

    #[inline]
    fn open(&mut self, value: &mut Value<'a>) -> Result<Next, Malformed> {
        Ok(match self.head(value)? {
            Head::Scalar => Next::Scalar,
            Head::Array(remaining) => Next::Array(Entered { remaining, first: true }),
            Head::Map(remaining) => Next::Map(Entered { remaining, first: true }),
        })
    }

    #[inline]
    fn key(&mut self, map: &mut Entered) -> Result<Option<Key<'a>>, Malformed> {
        match map.remaining {
            0 => return Ok(None),
            INDEFINITE if self.breaks() => return Ok(None),
            INDEFINITE => {}
            _ => map.remaining -= 1,
        }
        if let Some(initial @ 0x60..=0x7b) = self.bytes.get(self.at).copied() {
            self.at += 1;
            let length = self.argument(initial & 31)?;
            return self.take(length).map(|key| Some(Key::Plain(key)));
        }
        Ok(Some(match self.value(1)? {
            Value::Str(text) => Key::Plain(text.as_bytes()),
            other => Key::Other(other),
        }))
    }

    #[inline]
    fn pass_key(&mut self, map: &mut Entered, key: &Spelled) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let passes = map.remaining > 0 && !key.cbor.is_empty() && begins_with(rest, &key.cbor);
        if passes {
            map.remaining -= u32::from(map.remaining != INDEFINITE);
            self.at += key.cbor.len();
        }
        passes
    }

    #[inline]
    fn element(&mut self, array: &mut Entered) -> Result<bool, Malformed> {
        match array.remaining {
            0 => return Ok(false),
            INDEFINITE => return Ok(!self.breaks()),
            _ => array.remaining -= 1,
        }
        Ok(true)
    }

    #[inline]
    fn read(&mut self, depth: usize, value: &mut Value<'a>) -> Result<(), Malformed> {
        let start = self.at;
        let head = self.head(value)?;
        if let Some(inside) = Left::of(&head) {
            self.skip(inside, depth)?;
            let raw = self.raw(start);
            *value = if matches!(head, Head::Map(_)) { Value::Map(raw) } else { Value::Array(raw) };
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        if self.at < self.bytes.len() {
            return Err(self.malformed(super::TRAILING));
        }
        Ok(())
    }

    #[inline]
    fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn raw(&self, start: usize) -> super::Raw<'a> {
        super::Raw::Cbor(Raw(&self.bytes[start..self.at]))
    }
}

/// A number in 16 bits (RFC 8949, appendix D).
fn half(bits: u16) -> f32 {
    let (exponent, mantissa) = ((bits >> 10) & 0x1f, f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => mantissa * 2_f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + mantissa / 1024.0) * 2_f32.powi(i32::from(exponent) - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The number that `bytes` are, the highest first, where 64 bits hold it.
fn whole(bytes: &[u8]) -> Option<u64> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    (digits.len() <= 8).then(|| digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A point in time from seconds since the epoch.
fn timestamp(seconds: f64) -> Option<Value<'static>> {
    let nanos = ((seconds - seconds.floor()) * 1e9).round();
    let whole = seconds.floor();
    // Beyond these bounds no type of the server holds it, and within them both conversions are exact.
    if !(-1e13..1e13).contains(&whole) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e9, and within 1e13")]
    let (seconds, nanos) = (whole as i64, nanos as u32);
    Some(match nanos {
        1_000_000_000 => Value::Timestamp { seconds: seconds + 1, nanos: 0 },
        nanos => Value::Timestamp { seconds, nanos },
    })
}
