//! One value of a message, whatever format it came in.
//!
//! Guarantees: a [`Value`] borrows from the message and owns nothing, so that reading one costs no
//! allocation. Formats meet in this file only, in the list below: who decodes or encodes sees values and
//! [`Reader`]s, never a format. It does not guarantee that its text is text: [`Value::NotText`] is what a
//! reader makes of bytes that are no UTF-8.

use serde::Deserialize;

pub(crate) mod bare;
pub(crate) mod cbor;
pub(crate) mod compress;
pub(crate) mod compression;
pub(crate) mod expand;
pub(crate) mod influx;
pub(crate) mod json;
pub(crate) mod msgpack;
pub(crate) mod ndjson;

pub use compression::Compression;

/// Makes whatever is there once for each format of a list: of each, its setting and its module, which has
/// `Raw`, `Reader`, `MEDIA_TYPE`, `begins`, `raw` and `spelled`.
macro_rules! formats {
    ($d:tt $($(#[$doc:meta])* $format:ident = $module:ident,)+) => {
        /// How payloads are written.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Format {
            /// By the message's `Content-Type` header, else by its first byte.
            #[default]
            Auto,
            $($(#[$doc])* $format,)+
            /// InfluxDB's line protocol, which is packed as MessagePack first ([`influx`]).
            Influx,
        }

        /// Bytes in one of the formats: a payload, or an array or a map as it lies in one, whose form a
        /// reader has checked.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Raw<'a> {
            $($(#[$doc])* $format($module::Raw<'a>),)+
        }

        /// A key that is looked for, as it stands in messages.
        #[derive(Debug, Clone)]
        pub(crate) struct Spelled {
            /// Its text.
            pub(crate) key: Box<[u8]>,
            $($(#[$doc])* $module: Box<[u8]>,)+
        }

        impl Format {
            /// Every format, in the order in which a payload is tried.
            pub(crate) const ALL: &[Self] = &[$(Self::$format,)+];

            /// The format of a payload that is `declared` by a `Content-Type`, where it has one.
            #[inline]
            fn of<'h>(payload: &[u8], declared: impl FnOnce() -> Option<&'h str>) -> Self {
                if let Some(declared) = declared() {
                    $(if $module::MEDIA_TYPE.is_some_and(|of| declared.contains(of)) {
                        return Self::$format;
                    })+
                }
                $(if $module::begins(payload) {
                    return Self::$format;
                })+
                Self::Auto
            }

            /// `payload` as something to read: as configured, else as it is `declared` by a
            /// `Content-Type`, else by how it begins.
            #[inline]
            pub(crate) fn raw<'a, 'h>(
                self,
                payload: &'a [u8],
                declared: impl FnOnce() -> Option<&'h str>,
            ) -> Result<Raw<'a>, Unread> {
                let format = if self == Self::Auto { Self::of(payload, declared) } else { self };
                match format {
                    $(Self::$format => match $module::raw(payload) {
                        Ok(raw) => Ok(Raw::$format(raw)),
                        Err(fault) => Err(Unread { format: $module::Reader::NAME, fault }),
                    },)+
                    Self::Auto | Self::Influx => Err(Unread::unknown()),
                }
            }
        }

        impl<'a> Raw<'a> {
            /// The bytes.
            #[inline]
            pub(crate) fn bytes(self) -> &'a [u8] {
                match self {
                    $(Self::$format(raw) => raw.bytes(),)+
                }
            }
        }

        impl Spelled {
            /// The ways to write `key`; one that is empty is never met.
            pub(crate) fn new(key: &str) -> Self {
                Self { key: key.as_bytes().into(), $($module: $module::spelled(key),)+ }
            }
        }

        /// Does `$body` with a reader of `$raw`, whichever format that is in.
        macro_rules! with_reader {
            ($d raw:expr, |$d reader:ident| $d body:expr) => {
                match $d raw {
                    $($crate::payload::Raw::$format(raw) => {
                        let $d reader = $crate::payload::$module::Reader::of(raw);
                        $d body
                    })+
                }
            };
        }
    };
}

// In the order in which a `Content-Type` is looked at, and a payload that says nothing of its format is
// tried. Any byte begins something in MessagePack; NDJSON and bare values are never tried.
formats! { $
    /// JSON texts one after the other.
    Ndjson = ndjson,
    /// JSON.
    Json = json,
    /// CBOR.
    Cbor = cbor,
    /// MessagePack.
    Msgpack = msgpack,
    /// Bare values.
    Raw = bare,
}
#[expect(
    clippy::single_component_path_imports,
    reason = "gives the macro a path that other modules can name"
)]
pub(crate) use with_reader;

/// A payload that cannot be begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// The format's name.
    pub(crate) format: &'static str,
    pub(crate) fault: Malformed,
}

impl Unread {
    #[cold]
    fn unknown() -> Self {
        Self { format: "any format", fault: Malformed::new(&"it begins like none", 0) }
    }
}

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

/// A key of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Key<'a> {
    /// Text without escapes; MessagePack's is not checked for UTF-8.
    Plain(&'a [u8]),
    /// Text as JSON writes it, with escapes
    Escaped(&'a str),
    /// What MessagePack allows beyond text; no path names it.
    Other(Value<'a>),
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
pub(crate) struct Entered {
    /// Entries still to come, where the format tells (MessagePack).
    pub(crate) remaining: u32,
    /// Whether none was read yet, where a separator must come between them (JSON).
    pub(crate) first: bool,
}

/// What came next in a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// A value without parts, now read.
    Scalar,
    /// An array, now entered.
    Array(Entered),
    /// A map, now entered.
    Map(Entered),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
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
/// Wording of a payload without bytes, in a format in which that says nothing.
pub(crate) const EMPTY: Wording = &"the payload is empty";
/// Wording of bytes after a message.
pub(crate) const TRAILING: Wording = &"trailing bytes after the message";

/// Reads a message from front to back; one for each format.
///
/// A value is written where the caller wants it instead of being returned: a value that is moved right after
/// it was put together in pieces waits for those writes, which took a sixth of the decoder's time.
pub(crate) trait Reader<'a>: Clone {
    /// The format's name, for error messages.
    const NAME: &'static str;

    /// The format.
    const FORMAT: Format;

    /// Reads what comes next into `value`, or enters it where it is an array or a map.
    fn open(&mut self, value: &mut Value<'a>) -> Result<Next, Malformed>;

    /// Reads to the next key, or past the map's end.
    fn key(&mut self, map: &mut Entered) -> Result<Option<Key<'a>>, Malformed>;

    /// Passes over the next key if it is that one, spelled as usual; else stays where it is.
    fn pass_key(&mut self, map: &mut Entered, key: &Spelled) -> bool;

    /// Reads to the next element, or past the array's end.
    fn element(&mut self, array: &mut Entered) -> Result<bool, Malformed>;

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
    /// Gives each element of an array to `take`, until that fails; none of a map.
    pub(crate) fn each_element<E: From<Malformed>>(
        self,
        mut take: impl FnMut(Value<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        with_reader!(self, |reader| each_element(reader, &mut take))
    }
}

fn each_element<'a, E: From<Malformed>>(
    mut reader: impl Reader<'a>,
    take: &mut impl FnMut(Value<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let Next::Array(mut array) = reader.open(&mut Value::Null)? else { return Ok(()) };
    while reader.element(&mut array)? {
        take(reader.value(1)?)?;
    }
    Ok(())
}
