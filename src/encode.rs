//! Values → PostgreSQL's binary encodings.
//!
//! Guarantees: [`Encoder::field`] appends one well-formed field of the column's type, or says why the value
//! does not fit ([`Fault`]); it allocates nothing once its scratch buffers have grown. What only the server's
//! schema knows (enum labels, the length of a `varchar`, the precision of a `numeric`) it leaves to the
//! server, since that may change while the daemon runs.
//!
//! What becomes what, where it is not plain:
//!
//! - `bool` also takes 0, 1 and the texts `true`, `True` and `TRUE`, `on`, `On` and `ON`, and their
//!   counterparts; integers take whole
//!   floats and numbers in text; floats and `numeric` take numbers in text, with or without white space
//!   around them. A decimal is never cut to fit an integer.
//! - Times take RFC 3339 text, MessagePack timestamps, `infinity` in any case, and numbers with a `unit`,
//!   also as digits in text; what is finer than a microsecond is rounded to the nearest, never a date to the
//!   next day. A `timestamptz` wants an offset, in the text or in the mapping; `timestamp`, `date` and `time`
//!   are in UTC where the text has one.
//! - `text` takes every value: what is no text becomes its JSON, bytes become base64.
//! - `bytea` takes bytes, or text as base64.
//! - `json` and `jsonb` take every value; bytes become base64, timestamps RFC 3339, keys text. A text that is
//!   an array or an object in JSON becomes that, unless `parse` says otherwise.

pub mod array;
pub mod copy_frame;
pub mod json;
pub(crate) mod linear;
pub mod net;
pub mod number;
pub mod printed;
pub mod round;
pub mod time;
pub mod types;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

use crate::config::{NonFinite, Parse};
use crate::payload::{Value, Wording};
use crate::poison::PoisonKind;
use copy_frame::TooLong;
use jiff::tz::Offset;
use time::Times;
use types::Type;

/// Why a value is no field of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub kind: PoisonKind,
    /// What was expected, or what is wrong.
    pub what: Wording,
}

/// What a field turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// A value
    Value,
    /// NULL
    Null,
}

/// Encodes fields; keeps the buffers that this takes.
#[derive(Debug)]
pub struct Encoder {
    non_finite: NonFinite,
    /// Text as it is put together.
    text: String,
    /// Text whose escapes have been resolved.
    unescaped: String,
    /// Digits of a number as it is rounded.
    digits: String,
    /// Keys of the objects that were written.
    keys: json::Keys,
    /// Arrays and maps that were written.
    texts: json::Texts,
    /// How long what is appended to may become while an array or JSON is written.
    bound: usize,
    /// Characters that the large numbers of the row print to.
    printed: u64,
}

/// Characters that the large numbers of a row may print to: `1e7999` takes six in a message and 8,000 in a
/// text. The server makes texts of less than 1 GiB, of a value as of a row that it dumps; the rest of the row
/// has room beside this.
const MOST_PRINTED: u64 = 256 * 1024 * 1024;

/// Base64 as RFC 4648 has it; on the way in, padding may be left out.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Fault {
    #[cold]
    pub(crate) fn ty(what: Wording) -> Self {
        Self { kind: PoisonKind::Type, what }
    }

    #[cold]
    pub(crate) fn range(what: Wording) -> Self {
        Self { kind: PoisonKind::Range, what }
    }

    #[cold]
    pub(crate) fn malformed(what: Wording) -> Self {
        Self { kind: PoisonKind::Malformed, what }
    }

    #[cold]
    fn too_large() -> Self {
        Self {
            kind: PoisonKind::TooLarge,
            what: &"the row takes more memory than the rows of one message may",
        }
    }
}

impl From<TooLong> for Fault {
    fn from(_: TooLong) -> Self {
        Self::range(&"the value is longer than PostgreSQL's limit of 1 GiB for a field")
    }
}

impl Encoder {
    /// An encoder that treats NaN and infinities by `non_finite`.
    #[must_use]
    pub fn new(non_finite: NonFinite) -> Self {
        Self {
            non_finite,
            text: String::new(),
            unescaped: String::new(),
            digits: String::new(),
            keys: json::Keys::default(),
            texts: json::Texts::default(),
            bound: usize::MAX,
            printed: 0,
        }
    }

    /// Begins with the next row.
    #[inline]
    pub(crate) fn begin_row(&mut self) {
        self.printed = 0;
    }

    /// Lets arrays and JSON end with a fault that is [too large](PoisonKind::TooLarge) once what they are
    /// appended to is longer than `bytes`: a byte of a message may become twelve of an array.
    pub(crate) fn bound(&mut self, bytes: usize) {
        self.bound = bytes;
    }

    /// Gives back what a giant has left in the buffers.
    #[cold]
    pub(crate) fn shrink(&mut self) {
        self.text = String::new();
        self.unescaped = String::new();
        self.digits = String::new();
    }

    /// Whether `bytes` more are within the bound.
    #[inline]
    fn fits(&self, out: &[u8], bytes: usize) -> Result<(), Fault> {
        if out.len().saturating_add(bytes) > self.bound { Err(Fault::too_large()) } else { Ok(()) }
    }

    /// What writes JSON text.
    pub(crate) fn json_writer(&mut self, nul: json::Nul) -> json::Writer<'_> {
        let Self { non_finite, bound, keys, texts, printed, .. } = self;
        json::Writer { non_finite: *non_finite, nul, keys, texts, bound: *bound, printed }
    }

    /// Appends `value` as a field of type `ty`; a column of times reads it by `times`. On a fault, what was
    /// appended is of no use.
    pub fn field(
        &mut self,
        out: &mut Vec<u8>,
        ty: &Type,
        times: Times,
        value: Value<'_>,
    ) -> Result<Written, Fault> {
        match value {
            Value::Null => {
                copy_frame::null(out);
                return Ok(Written::Null);
            }
            Value::NotText(_) => return Err(Fault::malformed(&"text that is not UTF-8")),
            Value::Escaped(escaped) if !matches!(ty, Type::Json | Type::Jsonb) => {
                return self.escaped(out, ty, times, escaped);
            }
            _ => {}
        }
        match ty {
            Type::Bool => copy_frame::bool(out, number::boolean(value)?),
            Type::Int2 => {
                let value = number::integer(value)?.try_into();
                copy_frame::int2(out, value.map_err(|_| Fault::range(&"smallint holds -32768 to 32767"))?);
            }
            Type::Int4 => {
                let value = number::integer(value)?.try_into();
                copy_frame::int4(
                    out,
                    value.map_err(|_| Fault::range(&"integer holds -2147483648 to 2147483647"))?,
                );
            }
            Type::Int8 => copy_frame::int8(out, number::integer(value)?),
            Type::Float4 => {
                let number = number::float4(value)?;
                if !number.is_finite() && self.is_null()? {
                    return Ok(null(out));
                }
                copy_frame::int4(out, number.to_bits().cast_signed());
            }
            Type::Float8 => {
                let number = number::float8(value)?;
                if !number.is_finite() && self.is_null()? {
                    return Ok(null(out));
                }
                copy_frame::int8(out, number.to_bits().cast_signed());
            }
            Type::Numeric => {
                let special = number::special(value);
                if special.is_some() && self.is_null()? {
                    return Ok(null(out));
                }
                let printed = number::numeric(out, value, special, &mut self.text)?;
                print(&mut self.printed, printed)?;
            }
            Type::Rounded { of, to } => return round::field(self, out, of, *to, value),
            Type::Text => self.text(out, value)?,
            Type::Bytea => {
                self.fits(out, bytes_of(value))?;
                bytea(out, value)?;
            }
            Type::Uuid => uuid(out, value)?,
            Type::Timestamptz => copy_frame::int8(out, time::timestamp(value, times)?),
            Type::Timestamp => {
                let times = Times { offset: Some(Offset::UTC), ..times };
                copy_frame::int8(out, time::timestamp(value, times)?);
            }
            Type::Date => copy_frame::int4(out, time::date(value, times.unit)?),
            Type::Time => copy_frame::int8(out, time::time(value, times.unit)?),
            Type::Interval => interval(out, time::interval(value, times.unit)?)?,
            Type::Json => return self.json(out, value, false, times.parse),
            Type::Jsonb => return self.json(out, value, true, times.parse),
            Type::Inet { cidr } => net::inet(out, value, *cidr)?,
            Type::Array { element, element_oid } => {
                array::array(self, out, element, *element_oid, times, value)?;
            }
        }
        Ok(Written::Value)
    }

    /// What a NaN or an infinity becomes: NULL, or what it is.
    #[cold]
    fn is_null(&self) -> Result<bool, Fault> {
        match self.non_finite {
            NonFinite::Keep => Ok(false),
            NonFinite::Null => Ok(true),
            NonFinite::Refuse => Err(Fault::range(json::NON_FINITE)),
        }
    }

    /// Resolves the escapes of JSON's text and continues with the result.
    #[cold]
    fn escaped(
        &mut self,
        out: &mut Vec<u8>,
        ty: &Type,
        times: Times,
        escaped: &str,
    ) -> Result<Written, Fault> {
        let mut text = std::mem::take(&mut self.unescaped);
        text.clear();
        let most = self.bound.saturating_sub(out.len());
        let written = match crate::payload::json::unescape_within(escaped, &mut text, most) {
            Ok(()) if text.len() > most => Err(Fault::too_large()),
            Ok(()) => self.field(out, ty, times, Value::Str(&text)),
            Err(crate::payload::json::LoneSurrogate) => Err(Fault::malformed(json::LONE_SURROGATE)),
        };
        self.unescaped = text;
        written
    }

    fn text(&mut self, out: &mut Vec<u8>, value: Value<'_>) -> Result<(), Fault> {
        match value {
            Value::Str(text) => {
                if memchr::memchr(0, text.as_bytes()).is_some() {
                    return Err(Fault::range(&"text in PostgreSQL cannot hold the character NUL"));
                }
                self.fits(out, text.len())?;
                copy_frame::text(out, text)?;
            }
            Value::Bytes(bytes) => {
                self.fits(out, bytes.len())?;
                copy_frame::sized(out, |out| json::base64(out, bytes))?;
            }
            Value::Timestamp { seconds, nanos } => {
                copy_frame::sized(out, |out| json::timestamp(out, seconds, nanos))?;
            }
            // Not a column of numbers: NaN is its name, whatever the setting says.
            Value::Float(number) if !number.is_finite() => {
                copy_frame::text(out, json::name_of(number))?;
            }
            Value::Float32(number) if !number.is_finite() => {
                copy_frame::text(out, json::name_of(number.into()))?;
            }
            _ => copy_frame::sized(out, |out| self.json_writer(json::Nul::Keep).write(out, value))?,
        }
        Ok(())
    }

    fn json(
        &mut self,
        out: &mut Vec<u8>,
        value: Value<'_>,
        binary: bool,
        parse: Option<Parse>,
    ) -> Result<Written, Fault> {
        if let Value::Str(text) | Value::Escaped(text) = value
            && may_be_json(text, parse)
        {
            return self.text_as_json(out, value, binary, parse);
        }
        self.json_of(out, value, binary)
    }

    /// Appends a text that may be JSON as what it says, or else as a string.
    #[cold]
    fn text_as_json(
        &mut self,
        out: &mut Vec<u8>,
        value: Value<'_>,
        binary: bool,
        parse: Option<Parse>,
    ) -> Result<Written, Fault> {
        let mut unescaped = std::mem::take(&mut self.unescaped);
        unescaped.clear();
        let most = self.bound.saturating_sub(out.len());
        let text = match value {
            Value::Str(text) => Some(text),
            Value::Escaped(text) => {
                let done = crate::payload::json::unescape_within(text, &mut unescaped, most);
                if unescaped.len() > most {
                    return Err(Fault::too_large());
                }
                done.is_ok().then_some(unescaped.as_str())
            }
            _ => None,
        };
        let meant = text
            .and_then(crate::payload::json::whole)
            .filter(|meant| parse == Some(Parse::Json) || matches!(meant, Value::Array(_) | Value::Map(_)));
        let written = match meant {
            // In text, null is a value of JSON's.
            Some(Value::Null) => self.json_text(out, Value::Null, binary),
            Some(meant) => self.json_of(out, meant, binary),
            None if parse == Some(Parse::Json) => Err(Fault::ty(
                &"by `parse = \"json\"`, and in format = \"raw\" from `$payload`, it takes text that is JSON \
                  as a whole",
            )),
            None => self.json_of(out, value, binary),
        };
        self.unescaped = unescaped;
        written
    }

    #[inline]
    fn json_of(&mut self, out: &mut Vec<u8>, value: Value<'_>, binary: bool) -> Result<Written, Fault> {
        if matches!(value, Value::Float(_) | Value::Float32(_))
            && number::special(value).is_some()
            && self.is_null()?
        {
            return Ok(null(out));
        }
        self.json_text(out, value, binary)
    }

    #[inline]
    fn json_text(&mut self, out: &mut Vec<u8>, value: Value<'_>, binary: bool) -> Result<Written, Fault> {
        let nul = if binary { json::Nul::Refuse } else { json::Nul::Keep };
        copy_frame::sized(out, |out| {
            if binary {
                out.push(copy_frame::JSONB_VERSION);
            }
            self.json_writer(nul).write(out, value)
        })?;
        Ok(Written::Value)
    }
}

/// Adds to what the large numbers of a row print to.
#[inline]
fn print(printed: &mut u64, more: u64) -> Result<(), Fault> {
    *printed += more;
    if *printed > MOST_PRINTED {
        return Err(Fault::range(
            &"the numbers of the row would print to more than 256 MiB, which can be stored, but neither read \
              nor dumped",
        ));
    }
    Ok(())
}

/// Whether a text is worth a look at whether it is JSON that is to be taken as what it says. Escapes may hide
/// how it begins.
#[inline]
fn may_be_json(text: &str, parse: Option<Parse>) -> bool {
    match parse {
        Some(Parse::Json) => true,
        Some(Parse::Never) => false,
        None => matches!(text.as_bytes().first(), Some(b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' | b'\\')),
    }
}

/// Bytes of a text or of bytes.
fn bytes_of(value: Value<'_>) -> usize {
    match value {
        // In base64, four stand for three.
        Value::Str(text) => text.len() / 4 * 3,
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

fn null(out: &mut Vec<u8>) -> Written {
    copy_frame::null(out);
    Written::Null
}

fn interval(out: &mut Vec<u8>, interval: time::Interval) -> Result<(), TooLong> {
    copy_frame::sized(out, |out| {
        out.extend_from_slice(&interval.micros.to_be_bytes());
        out.extend_from_slice(&interval.days.to_be_bytes());
        out.extend_from_slice(&interval.months.to_be_bytes());
        Ok(())
    })
}

fn bytea(out: &mut Vec<u8>, value: Value<'_>) -> Result<(), Fault> {
    match value {
        Value::Bytes(bytes) => copy_frame::bytes(out, bytes)?,
        Value::Str(text) => copy_frame::sized(out, |out| {
            let start = out.len();
            out.resize(start + base64::decoded_len_estimate(text.len()), 0);
            let written = BASE64
                .decode_slice(text, &mut out[start..])
                .map_err(|_| Fault::ty(&"bytea takes bytes, or text in base64"))?;
            out.truncate(start + written);
            Ok::<_, Fault>(())
        })?,
        _ => return Err(Fault::ty(&"bytea takes bytes, or text in base64")),
    }
    Ok(())
}

fn uuid(out: &mut Vec<u8>, value: Value<'_>) -> Result<(), Fault> {
    let parsed = match value {
        Value::Str(text) => uuid::Uuid::try_parse(text).ok(),
        Value::Bytes(bytes) => uuid::Uuid::from_slice(bytes).ok(),
        _ => None,
    };
    let uuid = parsed.ok_or_else(|| Fault::ty(&"uuid takes its text form or 16 bytes"))?;
    copy_frame::bytes(out, uuid.as_bytes())?;
    Ok(())
}
