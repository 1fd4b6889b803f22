//! Reads MessagePack in place.
//!
//! Guarantees: no input makes it panic, recurse or allocate; what it passes over is checked for form
//! (markers, lengths, depth) but not for UTF-8. A timestamp extension (type −1) is a [`Value::Timestamp`];
//! any other extension is its bytes.

use rmp::Marker;

use super::{EMPTY, Entered, Format, Key, MAX_DEPTH, Malformed, Next, Spelled, Value, Wording, begins_with};

/// The extension type of a timestamp, from the specification.
const TIMESTAMP: i8 = -1;

/// What a `Content-Type` of MessagePack has in it.
pub(super) const MEDIA_TYPE: Option<&str> = Some("msgpack");

/// MessagePack: a payload, or from marker to last byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw<'a>(pub(crate) &'a [u8]);

impl<'a> Raw<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Whether a payload begins as MessagePack does: anything may.
pub(super) fn begins(_: &[u8]) -> bool {
    true
}

/// The bytes of a payload.
#[inline]
pub(super) fn raw(payload: &[u8]) -> Result<Raw<'_>, Malformed> {
    if payload.is_empty() { Err(Malformed::new(EMPTY, 0)) } else { Ok(Raw(payload)) }
}

/// `key` as the shortest marker writes it.
pub(super) fn spelled(key: &str) -> Box<[u8]> {
    let mut bytes = Vec::new();
    // Writing to a vector cannot fail.
    let _ = rmp::encode::write_str(&mut bytes, key);
    bytes.into()
}

/// A place in a MessagePack message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a marker announces.
enum Head {
    /// A value without parts, which has been read.
    Scalar,
    Array(u32),
    Map(u32),
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
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..length)) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.malformed(&"cut short")),
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(taken) => {
                self.at += N;
                Ok(*taken)
            }
            None => Err(self.malformed(&"cut short")),
        }
    }

    #[inline]
    fn u8(&mut self) -> Result<u8, Malformed> {
        self.fixed().map(u8::from_be_bytes)
    }

    #[inline]
    fn u16(&mut self) -> Result<u16, Malformed> {
        self.fixed().map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_be_bytes)
    }

    #[inline]
    fn string(&mut self, length: u32, value: &mut Value<'a>) -> Result<Head, Malformed> {
        let bytes = self.take(length as usize)?;
        match str::from_utf8(bytes) {
            Ok(text) => *value = Value::Str(text),
            Err(_) => *value = Value::NotText(bytes),
        }
        Ok(Head::Scalar)
    }

    fn binary(&mut self, length: u32, value: &mut Value<'a>) -> Result<Head, Malformed> {
        *value = Value::Bytes(self.take(length as usize)?);
        Ok(Head::Scalar)
    }

    fn extension(&mut self, length: u32, value: &mut Value<'a>) -> Result<Head, Malformed> {
        let kind = self.fixed().map(i8::from_be_bytes)?;
        let bytes = self.take(length as usize)?;
        *value = if kind == TIMESTAMP {
            timestamp(bytes).ok_or_else(|| self.malformed(&"an invalid timestamp"))?
        } else {
            Value::Bytes(bytes)
        };
        Ok(Head::Scalar)
    }

    #[inline]
    fn head(&mut self, value: &mut Value<'a>) -> Result<Head, Malformed> {
        match Marker::from_u8(self.u8()?) {
            Marker::FixPos(number) => *value = Value::Int(number.into()),
            Marker::FixNeg(number) => *value = Value::Int(number.into()),
            Marker::FixStr(length) => return self.string(length.into(), value),
            Marker::FixMap(entries) => return Ok(Head::Map(entries.into())),
            Marker::FixArray(elements) => return Ok(Head::Array(elements.into())),
            Marker::Null => *value = Value::Null,
            Marker::False => *value = Value::Bool(false),
            Marker::True => *value = Value::Bool(true),
            Marker::U8 => *value = Value::Int(self.u8()?.into()),
            Marker::U16 => *value = Value::Int(self.u16()?.into()),
            Marker::U32 => *value = Value::Int(self.u32()?.into()),
            Marker::U64 => {
                let number = self.fixed().map(u64::from_be_bytes)?;
                match i64::try_from(number) {
                    Ok(number) => *value = Value::Int(number),
                    Err(_) => *value = Value::Uint(number),
                }
            }
            Marker::I8 => *value = Value::Int(self.fixed().map(i8::from_be_bytes)?.into()),
            Marker::I16 => *value = Value::Int(self.fixed().map(i16::from_be_bytes)?.into()),
            Marker::I32 => *value = Value::Int(self.fixed().map(i32::from_be_bytes)?.into()),
            Marker::I64 => *value = Value::Int(self.fixed().map(i64::from_be_bytes)?),
            Marker::F32 => *value = Value::Float32(self.fixed().map(f32::from_be_bytes)?),
            Marker::F64 => *value = Value::Float(self.fixed().map(f64::from_be_bytes)?),
            Marker::Str8 => {
                let length = self.u8()?;
                return self.string(length.into(), value);
            }
            Marker::Str16 => {
                let length = self.u16()?;
                return self.string(length.into(), value);
            }
            Marker::Str32 => {
                let length = self.u32()?;
                return self.string(length, value);
            }
            Marker::Array16 => return Ok(Head::Array(self.u16()?.into())),
            Marker::Array32 => return Ok(Head::Array(self.u32()?)),
            Marker::Map16 => return Ok(Head::Map(self.u16()?.into())),
            Marker::Map32 => return Ok(Head::Map(self.u32()?)),
            marker => return self.opaque(marker, value),
        }
        Ok(Head::Scalar)
    }

    /// Bytes and extensions: the rarer markers, kept out of the way of the others.
    #[cold]
    fn opaque(&mut self, marker: Marker, value: &mut Value<'a>) -> Result<Head, Malformed> {
        match marker {
            Marker::Bin8 => {
                let length = self.u8()?;
                self.binary(length.into(), value)
            }
            Marker::Bin16 => {
                let length = self.u16()?;
                self.binary(length.into(), value)
            }
            Marker::Bin32 => {
                let length = self.u32()?;
                self.binary(length, value)
            }
            Marker::FixExt1 => self.extension(1, value),
            Marker::FixExt2 => self.extension(2, value),
            Marker::FixExt4 => self.extension(4, value),
            Marker::FixExt8 => self.extension(8, value),
            Marker::FixExt16 => self.extension(16, value),
            Marker::Ext8 => {
                let length = self.u8()?;
                self.extension(length.into(), value)
            }
            Marker::Ext16 => {
                let length = self.u16()?;
                self.extension(length.into(), value)
            }
            Marker::Ext32 => {
                let length = self.u32()?;
                self.extension(length, value)
            }
            _ => Err(self.malformed(&"a byte that MessagePack does not use as a marker")),
        }
    }

    /// Passes over the `values` values of an array or a map (twice its entries) at `depth`.
    #[inline]
    fn skip(&mut self, values: u64, depth: usize) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return Err(self.malformed(super::TOO_DEEP));
        }
        let mut left = values;
        while left > 0 {
            left -= 1;
            match self.pass()? {
                Head::Scalar => {}
                Head::Array(elements) => return self.skip_nested(left, elements.into(), depth),
                Head::Map(entries) => return self.skip_nested(left, 2 * u64::from(entries), depth),
            }
        }
        Ok(())
    }

    /// The same once something nested was met: `inside` values in it, and then `left` values around it.
    fn skip_nested(&mut self, left: u64, inside: u64, depth: usize) -> Result<(), Malformed> {
        // Values still to come on each level. It takes a kilobyte to clear, which a flat array or map need
        // not pay.
        let mut levels = [0_u64; MAX_DEPTH];
        let mut level = depth;
        levels[level] = left;
        let mut entered = Some(inside);
        loop {
            if let Some(values) = entered.take() {
                level += 1;
                *levels.get_mut(level).ok_or_else(|| self.malformed(super::TOO_DEEP))? = values;
            }
            if levels[level] == 0 {
                if level == depth {
                    return Ok(());
                }
                level -= 1;
                continue;
            }
            levels[level] -= 1;
            entered = match self.pass()? {
                Head::Scalar => None,
                Head::Array(elements) => Some(elements.into()),
                Head::Map(entries) => Some(2 * u64::from(entries)),
            };
        }
    }

    /// Like [`Reader::head`], for a value that nobody looks at: strings stay unchecked.
    #[inline]
    fn pass(&mut self) -> Result<Head, Malformed> {
        let marker = self.bytes.get(self.at).copied();
        if let Some(known @ 1..) = marker.map(|marker| PASSED[usize::from(marker)]) {
            self.take(known.into())?;
            return Ok(Head::Scalar);
        }
        let length = match marker.map(Marker::from_u8) {
            Some(Marker::Str8) => {
                self.at += 1;
                self.u8()?.into()
            }
            Some(Marker::Str16) => {
                self.at += 1;
                self.u16()?.into()
            }
            Some(Marker::Str32) => {
                self.at += 1;
                self.u32()?
            }
            _ => return self.head(&mut Value::Null),
        };
        self.take(length as usize)?;
        Ok(Head::Scalar)
    }
}

/// How long a value is with its marker, where the marker says it: all numbers, and strings of less than 32
/// bytes. 0 for others.
const PASSED: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut marker = u8::MAX;
    loop {
        lengths[marker as usize] = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 1,
            0xa0..=0xbf => 1 + (marker & 0x1f),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            _ => 0,
        };
        if marker == 0 {
            break lengths;
        }
        marker -= 1;
    }
};

impl<'a> super::Reader<'a> for Reader<'a> {
    const NAME: &'static str = "MessagePack";
    const FORMAT: Format = Format::Msgpack;

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
        if map.remaining == 0 {
            return Ok(None);
        }
        map.remaining -= 1;
        let length = match self.bytes.get(self.at).copied().map(Marker::from_u8) {
            Some(Marker::FixStr(length)) => {
                self.at += 1;
                u32::from(length)
            }
            Some(Marker::Str8) => {
                self.at += 1;
                self.u8()?.into()
            }
            _ => {
                return Ok(Some(match self.value(1)? {
                    Value::Str(text) => Key::Plain(text.as_bytes()),
                    other => Key::Other(other),
                }));
            }
        };
        self.take(length as usize).map(|key| Some(Key::Plain(key)))
    }

    #[inline]
    fn pass_key(&mut self, map: &mut Entered, key: &Spelled) -> bool {
        let passes = map.remaining > 0
            && self.bytes.get(self.at..).is_some_and(|rest| begins_with(rest, &key.msgpack));
        if passes {
            map.remaining -= 1;
            self.at += key.msgpack.len();
        }
        passes
    }

    #[inline]
    fn element(&mut self, array: &mut Entered) -> Result<bool, Malformed> {
        let more = array.remaining > 0;
        array.remaining = array.remaining.saturating_sub(1);
        Ok(more)
    }

    #[inline]
    fn read(&mut self, depth: usize, value: &mut Value<'a>) -> Result<(), Malformed> {
        let start = self.at;
        match self.head(value)? {
            Head::Scalar => {}
            Head::Array(elements) => {
                self.skip(elements.into(), depth)?;
                *value = Value::Array(self.raw(start));
            }
            Head::Map(entries) => {
                self.skip(2 * u64::from(entries), depth)?;
                *value = Value::Map(self.raw(start));
            }
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
        super::Raw::Msgpack(Raw(&self.bytes[start..self.at]))
    }
}

/// The three forms of a timestamp: 32, 64 and 96 bits.
fn timestamp(bytes: &[u8]) -> Option<Value<'static>> {
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(*bytes.first_chunk()?)), 0),
        8 => {
            let both = u64::from_be_bytes(*bytes.first_chunk()?);
            (i64::try_from(both & ((1 << 34) - 1)).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanos, seconds) = bytes.split_first_chunk()?;
            (i64::from_be_bytes(*seconds.first_chunk()?), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    (nanos < 1_000_000_000).then_some(Value::Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_passed_over_as_far_as_it_is_read() {
        for marker in 0..=u8::MAX {
            let bytes: Vec<u8> = std::iter::once(marker).chain([1; 300]).collect();
            let reader = |bytes| Reader::of(Raw(bytes));
            let (mut read, mut passed) = (reader(&bytes), reader(&bytes));
            let (head, past) = (read.head(&mut Value::Null), passed.pass());
            assert_eq!(head.is_ok(), past.is_ok(), "{marker:#x}");
            assert_eq!(head.is_ok().then_some(read.at), past.is_ok().then_some(passed.at), "{marker:#x}");
            let mut short = reader(&bytes[..usize::from(PASSED[usize::from(marker)]).saturating_sub(1)]);
            assert!(PASSED[usize::from(marker)] == 0 || short.pass().is_err(), "{marker:#x}");
        }
    }
}
