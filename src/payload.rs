//! One value of a message, whatever format it came in.
//!
//! Guarantees: a [`Value`] borrows from the message and owns nothing, so that reading one costs no
//! allocation. The encoders see values only, never a format. It does not guarantee that its text is text:
//! [`Value::NotText`] is what a reader makes of bytes that are no UTF-8.

pub(crate) mod json;
pub(crate) mod msgpack;

/// A value as the message carries it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `null`, nil
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer that `i64` holds
    Int(i64),
    /// An integer above `i64::MAX`
    Uint(u64),
    /// A number in 32 bits
    Float32(f32),
    /// A number in 64 bits
    Float(f64),
    /// A number as its digits, in JSON's grammar: fractions, exponents, and integers beyond 64 bits
    Decimal(&'a str),
    /// Text
    Str(&'a str),
    /// Text as JSON writes it between its quotes, with at least one backslash
    Escaped(&'a str),
    /// What claims to be text and is not UTF-8
    NotText(&'a [u8]),
    /// Bytes
    Bytes(&'a [u8]),
    /// A point in time
    Timestamp {
        /// Since the Unix epoch, rounded down.
        seconds: i64,
        /// 0 to 999,999,999, on top of the seconds.
        nanos: u32,
    },
    /// Values in order
    Array(Raw<'a>),
    /// Keys with values
    Map(Raw<'a>),
}

/// An array or a map as it lies in the message; a reader has checked its form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw<'a> {
    /// MessagePack, from marker to last byte
    Msgpack(&'a [u8]),
    /// JSON
    Json {
        /// From bracket to bracket
        text: &'a str,
        /// Whether a number may be in it that `numeric`, and with it `jsonb`, does not hold, or that prints
        /// much longer
        wide: bool,
        /// Whether NaN or an infinity may be in it, which no other reader of JSON takes
        non_finite: bool,
    },
}

/// A key of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Key<'a> {
    /// Text without escapes; MessagePack's is not checked for UTF-8.
    Plain(&'a [u8]),
    /// Text as JSON writes it, with escapes
    Escaped(&'a str),
    /// What MessagePack allows beyond text; no path names it.
    Other(Value<'a>),
}

/// A key that is looked for, as it stands in messages.
#[derive(Debug, Clone)]
pub struct Spelled {
    /// Its text.
    pub key: Box<[u8]>,
    /// With its marker.
    msgpack: Box<[u8]>,
    /// Between a comma and a colon, without white space; empty where JSON would escape some of it.
    json: Box<[u8]>,
}

impl Spelled {
    /// The ways to write `key`.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self {
            key: key.as_bytes().into(),
            msgpack: msgpack::spelled(key),
            json: if json::plain_prefix(key.as_bytes()) == key.len() {
                format!(",\"{key}\":").into_bytes().into()
            } else {
                [].into()
            },
        }
    }
}

/// Whether `bytes` begins with `start`. Keys are short, and a call of the C library's comparison costs more
/// than these loads.
#[inline]
fn begins_with(bytes: &[u8], start: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..start.len()) else { return false };
    match start.len() {
        8..=16 => {
            bytes.first_chunk::<8>() == start.first_chunk::<8>()
                && bytes.last_chunk::<8>() == start.last_chunk::<8>()
        }
        4..=7 => {
            bytes.first_chunk::<4>() == start.first_chunk::<4>()
                && bytes.last_chunk::<4>() == start.last_chunk::<4>()
        }
        0..=3 => bytes.iter().eq(start),
        _ => bytes == start,
    }
}

/// An array or a map that a reader has entered.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// Entries still to come, where the format tells (MessagePack).
    pub remaining: u32,
    /// Whether none was read yet, where a separator must come between them (JSON).
    pub first: bool,
}

/// What came next in a message.
#[derive(Debug, Clone, Copy)]
pub enum Next {
    /// A value without parts, now read.
    Scalar,
    /// An array, now entered.
    Array(Open),
    /// A map, now entered.
    Map(Open),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub what: Wording,
    /// Where, in bytes from the payload's start.
    pub at: u32,
}

/// What is wrong with a message or a value, in words. Behind one thin pointer, since an error of no more than
/// two words leaves a function in registers, as does the success that it is not.
pub(crate) type Wording = &'static &'static str;

impl Malformed {
    /// At `at` bytes from the payload's start; a NATS message is far shorter than 4 GiB.
    #[must_use]
    pub fn new(what: Wording, at: usize) -> Self {
        Self { what, at: u32::try_from(at).unwrap_or(u32::MAX) }
    }
}

/// How deep arrays and maps may nest. It is what `serde_json` allows and far beyond what messages carry;
/// without a limit a few kilobytes of brackets would exhaust the server's stack when they reach a `jsonb`.
pub(crate) const MAX_DEPTH: usize = 128;

/// Wording of a breach of [`MAX_DEPTH`].
pub(crate) const TOO_DEEP: Wording = &"nested deeper than 128 levels";
/// Wording of bytes after a message.
pub(crate) const TRAILING: Wording = &"trailing bytes after the message";

/// Reads a message from front to back; one for each format.
///
/// A value is written where the caller wants it instead of being returned: a value that is moved right after
/// it was put together in pieces waits for those writes, which took a sixth of the decoder's time.
pub trait Reader<'a>: Sized {
    /// The format's name, for error messages.
    const NAME: &'static str;

    /// Reads what comes next into `value`, or enters it where it is an array or a map.
    fn open(&mut self, value: &mut Value<'a>) -> Result<Next, Malformed>;

    /// Reads to the next key, or past the map's end.
    fn key(&mut self, map: &mut Open) -> Result<Option<Key<'a>>, Malformed>;

    /// Passes over the next key if it is that one, spelled as usual; else stays where it is.
    fn pass_key(&mut self, map: &mut Open, key: &Spelled) -> bool;

    /// Reads to the next element, or past the array's end.
    fn element(&mut self, array: &mut Open) -> Result<bool, Malformed>;

    /// Reads what comes next into `value`, `depth` levels inside the message, passing over the parts of an
    /// array or a map.
    fn read(&mut self, depth: usize, value: &mut Value<'a>) -> Result<(), Malformed>;

    /// The same where speed is no matter.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        let mut value = Value::Null;
        self.read(depth, &mut value)?;
        Ok(value)
    }

    /// Checks that nothing follows.
    fn end(&mut self) -> Result<(), Malformed>;

    /// Offset of the next byte to read.
    fn position(&self) -> usize;

    /// The bytes from `start` to here.
    fn raw(&self, start: usize) -> Raw<'a>;
}

impl<'a> Raw<'a> {
    /// The elements of an array; nothing of a map.
    #[must_use]
    pub fn elements(self) -> Elements<'a> {
        match self {
            Self::Msgpack(bytes) => Elements::Msgpack(Each::new(msgpack::Reader::new(bytes))),
            Self::Json { text, .. } => Elements::Json(Each::new(json::Reader::new(text))),
        }
    }
}

/// The elements of an array.
#[derive(Debug)]
pub enum Elements<'a> {
    /// of a MessagePack array
    Msgpack(Each<msgpack::Reader<'a>>),
    /// of a JSON array
    Json(Each<json::Reader<'a>>),
}

/// A reader inside an array.
#[derive(Debug)]
pub struct Each<R> {
    reader: R,
    array: Option<Open>,
}

impl<'a, R: Reader<'a>> Each<R> {
    fn new(mut reader: R) -> Self {
        let array = match reader.open(&mut Value::Null) {
            Ok(Next::Array(array)) => Some(array),
            Ok(Next::Map(_) | Next::Scalar) | Err(_) => None,
        };
        Self { reader, array }
    }

    fn next(&mut self) -> Option<Result<Value<'a>, Malformed>> {
        let array = self.array.as_mut()?;
        let step = match self.reader.element(array) {
            Ok(true) => self.reader.value(1),
            Ok(false) => {
                self.array = None;
                return None;
            }
            Err(malformed) => Err(malformed),
        };
        if step.is_err() {
            self.array = None;
        }
        Some(step)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Value<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Msgpack(each) => each.next(),
            Self::Json(each) => each.next(),
        }
    }
}
