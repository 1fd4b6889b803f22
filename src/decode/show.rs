//! A payload for people.

use crate::config::NonFinite;
use crate::encode::Encoder;
use crate::encode::json::Nul;

use crate::payload::compression::{Codec, Compression};
use crate::payload::expand::Expander;
use crate::payload::{Format, Malformed, Reader, Value, with_reader};

/// The payload as JSON text, where it is an array or a map in one of the formats. What JSON has no word for
/// (bytes, NaN) becomes a string.
#[must_use]
pub fn as_json(payload: &[u8]) -> Option<String> {
    // As it begins, before whatever it could be beside that.
    let value = [Format::Auto].iter().chain(Format::ALL).find_map(|format| {
        let raw = format.raw(payload, || None).ok()?;
        // Any byte is a number in MessagePack, so only what has parts counts.
        with_reader!(raw, |reader| whole(reader)).ok().filter(|value| has_parts(*value))
    })?;
    let mut out = Vec::new();
    Encoder::new(NonFinite::Keep).json_writer(Nul::Keep).write(&mut out, value).ok()?;
    String::from_utf8(out).ok()
}

/// The same of a payload that may be compressed: by what its `Content-Encoding` names, else as it begins.
#[must_use]
pub fn expanded_as_json(payload: &[u8], encoding: Option<&str>) -> Option<String> {
    as_json(payload).or_else(|| {
        let codec = Compression::Auto.codec(|| encoding).or_else(|| Codec::begun(payload))?;
        let most = usize::try_from(Compression::default_bound().as_u64()).unwrap_or(usize::MAX);
        Expander::new(most).expand(codec, payload).ok().and_then(as_json)
    })
}

/// The only value; its reading bounds how deep it nests.
fn whole<'a, R: Reader<'a>>(mut reader: R) -> Result<Value<'a>, Malformed> {
    let value = reader.value(0)?;
    reader.end().map(|()| value)
}

fn has_parts(value: Value<'_>) -> bool {
    matches!(value, Value::Array(_) | Value::Map(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::compress::compress;

    #[test]
    fn messagepack_and_json_are_shown_as_json_and_other_bytes_are_not() {
        let packed = rmp_serde::to_vec_named(&serde_json::json!({"id": 7, "parts": [1.5, "a\nb"]})).unwrap();
        assert_eq!(as_json(&packed).unwrap(), r#"{"id":7,"parts":[1.5,"a\nb"]}"#);
        assert_eq!(as_json(b" {\"id\": 18446744073709551616}\n").unwrap(), r#"{"id": 18446744073709551616}"#);
        assert_eq!(
            as_json("\u{feff}{\"id\": [NaN,-Infinity]}\0".as_bytes()).unwrap(),
            r#"{"id": ["NaN","-Infinity"]}"#
        );
        for other in
            [&b""[..], b"\x01", b"plain text", b"{\"cut\":", &packed[..packed.len() - 1], b"\xff\xfe"]
        {
            assert_eq!(as_json(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_compressed_is_shown_expanded_by_its_header_or_as_it_begins() {
        let json = "{\"id\":7}";
        for codec in Codec::ALL {
            let payload = compress(codec, json.as_bytes()).unwrap();
            assert_eq!(expanded_as_json(&payload, Some(codec.name())).as_deref(), Some(json));
            let has_start = matches!(codec, Codec::Gzip | Codec::Zstd);
            assert_eq!(expanded_as_json(&payload, None).is_some(), has_start, "{codec:?}");
            assert_eq!(expanded_as_json(&payload[..payload.len() - 1], Some(codec.name())), None);
        }
    }

    #[test]
    fn what_nests_too_deep_is_not_shown() {
        let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
        assert_eq!(as_json(&deep), None);
        assert_eq!(as_json("[".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn bytes_become_a_string() {
        let message = [&[0x81, 0xa1, b'b', 0xc4, 2][..], &[0xff, 0]].concat();
        assert!(as_json(&message).unwrap().starts_with("{\"b\":\""));
    }
}
