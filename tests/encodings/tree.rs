//! Messages made from bytes: values that types find hard, in the places that mappings look at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::mapping::{Choices, NAMES};

/// A value that both formats can write.
#[derive(Debug)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    /// A number in JSON, by its digits; text in MessagePack.
    Decimal(&'static str),
    Text(String),
    Binary(Vec<u8>),
    /// A timestamp in MessagePack; the bytes in hexadecimal elsewhere.
    Extension(i8, Vec<u8>),
    Array(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// The deepest that values are nested; the decoder's own limit has tests of its own.
const DEPTH: usize = 4;

const INTEGERS: &[i64] = &[
    0,
    1,
    -1,
    255,
    32_767,
    32_768,
    -32_769,
    2_147_483_647,
    2_147_483_648,
    i64::MAX,
    i64::MIN,
    86_400,
    86_401,
    1_735_689_600,
    1_735_689_600_123,
    1_735_689_600_123_456,
    253_402_300_800,
    9_224_318_016_000,
    9_224_318_015_999_999,
    -210_866_803_200,
    -210_866_803_201,
];

const FLOATS: &[f64] = &[
    0.0,
    -0.0,
    1.5,
    1e15,
    1e38,
    3.5e38,
    1e-46,
    1e300,
    1_735_689_600.123_456_7,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    9.3e18,
    f64::MIN_POSITIVE,
];

const DECIMALS: &[&str] = &[
    "0.50",
    "-1e5",
    "1E+131071",
    "1e131072",
    "1e-16383",
    "-1e-16384",
    "1e400000",
    "0e1073741822",
    "0e1073741823",
    "10231E52701489638281",
    "0e-16383",
    "0e-16384",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "é",
    "\0",
    "a\u{0}b",
    "fine",
    "true",
    "f",
    "12",
    "-1",
    "+1",
    "1e5",
    "1e131071",
    "1e131072",
    "1e-16383",
    "1e-16384",
    "1e400000",
    "NaN",
    "infinity",
    "-Infinity",
    "0x1F",
    "1_000",
    " 1",
    "99999999999999999999.995",
    "2025-01-01",
    "2025-02-30",
    "2025-01-01T00:00:00Z",
    "2025-01-01T24:00:00Z",
    "2025-06-30T23:59:60Z",
    "2025-01-01T00:00:00.123456789+23:59",
    "2025-01-01 00:00:00",
    "0000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "24:00:00",
    "23:59:59.9999999",
    "24:00:00.1",
    "00:00",
    "P1Y2M3DT4H5M6.7S",
    "-P1W",
    "P999999999Y",
    "PT99999999999H",
    "P",
    "00000000-0000-0000-0000-000000000001",
    "{00000000000000000000000000000001}",
    "10.0.0.1",
    "10.0.0.1/8",
    "10.0.0.0/8",
    "10.0.0.1/33",
    "::1",
    "fe80::1%lo",
    "::ffff:1.2.3.4/128",
    "AP8=",
    "AP8",
    "\\xDEADBEEF",
    "!",
    "{\"a\": 1}",
    "{\"a\": \"\\u0000\"}",
    "[1,",
    "\u{feff}1",
];

impl Tree {
    /// A map with the keys that mappings take.
    pub(crate) fn message(choices: &mut Choices<'_>) -> Self {
        Self::Map(NAMES.iter().map(|name| ((*name).to_owned(), Self::new(choices, DEPTH))).collect())
    }

    /// A value by itself.
    pub(crate) fn value(choices: &mut Choices<'_>) -> Self {
        Self::new(choices, 1)
    }

    fn new(choices: &mut Choices<'_>, depth: usize) -> Self {
        let leaves = 10;
        match choices.below(if depth == 0 { leaves } else { leaves + 4 }) {
            0 => Self::Null,
            1 => Self::Bool(choices.one_in(2)),
            2 => Self::Int(choices.pick(INTEGERS)),
            3 => Self::UInt(u64::from_le_bytes([(); 8].map(|()| choices.byte()))),
            4 => Self::Float(choices.pick(FLOATS)),
            5 | 6 => Self::Text(choices.pick(TEXTS).to_owned()),
            7 => Self::Binary((0..choices.below(20)).map(|_| choices.byte()).collect()),
            8 => {
                let length = choices.pick(&[0, 4, 8, 12, 16]);
                Self::Extension(choices.pick(&[-1, -1, 0]), (0..length).map(|_| choices.byte()).collect())
            }
            9 => Self::Decimal(choices.pick(DECIMALS)),
            10 | 11 => Self::Array((0..choices.below(4)).map(|_| Self::new(choices, depth - 1)).collect()),
            _ => {
                let count = choices.below(4);
                let key =
                    |choices: &mut Choices<'_>| choices.pick(&["a", "b", "c", "", "\0", "é"]).to_owned();
                Self::Map((0..count).map(|_| (key(choices), Self::new(choices, depth - 1))).collect())
            }
        }
    }

    /// The message as published: now and then with a wrong byte, or cut short.
    pub(crate) fn encoded(&self, format: &str, choices: &mut Choices<'_>) -> Vec<u8> {
        let mut payload = Vec::new();
        match format {
            "json" => self.json(&mut payload),
            "ndjson" => {
                for _ in 0..choices.below(3) {
                    self.json(&mut payload);
                    payload.push(choices.pick(b"\n  \t"));
                }
            }
            "cbor" => ciborium::into_writer(&self.cbor(), &mut payload).expect("a vector takes all"),
            "raw" => self.bare(&mut payload),
            _ => self.msgpack(&mut payload).expect("a vector takes all"),
        }
        if !payload.is_empty() && choices.one_in(8) {
            let at = (choices.below(256) * 256 + choices.below(256)) % payload.len();
            if choices.one_in(2) {
                payload[at] = choices.byte();
            } else {
                payload.truncate(at);
            }
        }
        payload
    }

    /// Texts and bytes as they are, and all else as JSON.
    fn bare(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Binary(bytes) | Self::Extension(_, bytes) => out.extend_from_slice(bytes),
            other => other.json(out),
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        let scalar = match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::UInt(value) => (*value).into(),
            // JSON has no infinities: null.
            Self::Float(value) => (*value).into(),
            Self::Decimal(digits) => {
                out.extend_from_slice(digits.as_bytes());
                return;
            }
            Self::Text(text) => text.as_str().into(),
            Self::Binary(bytes) | Self::Extension(_, bytes) => STANDARD.encode(bytes).into(),
            Self::Array(elements) => {
                join(out, *b"[]", elements, |out, element| element.json(out));
                return;
            }
            Self::Map(entries) => {
                join(out, *b"{}", entries, |out, (key, value)| {
                    out.extend_from_slice(Json::from(key.as_str()).to_string().as_bytes());
                    out.push(b':');
                    value.json(out);
                });
                return;
            }
        };
        out.extend_from_slice(scalar.to_string().as_bytes());
    }

    fn cbor(&self) -> ciborium::Value {
        use ciborium::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::UInt(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Decimal(text) => (*text).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Binary(bytes) => Value::Bytes(bytes.clone()),
            // A time since the epoch, or a large number.
            Self::Extension(-1, bytes) => Value::Tag(1, Box::new((bytes.len() as u64).into())),
            Self::Extension(_, bytes) => Value::Tag(2, Box::new(Value::Bytes(bytes.clone()))),
            Self::Array(elements) => Value::Array(elements.iter().map(Self::cbor).collect()),
            Self::Map(entries) => {
                Value::Map(entries.iter().map(|(key, value)| (key.as_str().into(), value.cbor())).collect())
            }
        }
    }

    fn msgpack(&self, out: &mut Vec<u8>) -> Result<(), rmp::encode::ValueWriteError> {
        use rmp::encode as write;
        let length = |length: usize| u32::try_from(length).expect("generated values are short");
        match self {
            Self::Null => write::write_nil(out).map_err(rmp::encode::ValueWriteError::InvalidMarkerWrite)?,
            Self::Bool(value) => {
                write::write_bool(out, *value).map_err(rmp::encode::ValueWriteError::InvalidMarkerWrite)?;
            }
            Self::Int(value) => drop(write::write_sint(out, *value)?),
            Self::UInt(value) => drop(write::write_uint(out, *value)?),
            Self::Float(value) => write::write_f64(out, *value)?,
            Self::Decimal(text) => write::write_str(out, text)?,
            Self::Text(text) => write::write_str(out, text)?,
            Self::Binary(bytes) => write::write_bin(out, bytes)?,
            Self::Extension(kind, bytes) => {
                write::write_ext_meta(out, length(bytes.len()), *kind)?;
                out.extend_from_slice(bytes);
            }
            Self::Array(elements) => {
                write::write_array_len(out, length(elements.len()))?;
                elements.iter().try_for_each(|element| element.msgpack(out))?;
            }
            Self::Map(entries) => {
                write::write_map_len(out, length(entries.len()))?;
                for (key, value) in entries {
                    write::write_str(out, key)?;
                    value.msgpack(out)?;
                }
            }
        }
        Ok(())
    }
}

fn join<T>(out: &mut Vec<u8>, brackets: [u8; 2], items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(brackets[0]);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(brackets[1]);
}
