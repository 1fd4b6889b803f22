//! Whether payloads come compressed, and how.
//!
//! Guarantees: a message's payload is expanded only where the setting or its `Content-Encoding` says so, not
//! for how it begins.

use bytesize::ByteSize;
use serde::Deserialize;

/// How payloads are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// By the message's `Content-Encoding` header; without one, not at all.
    #[default]
    Auto,
    /// Not at all, whatever that header says.
    None,
    /// Each by gzip.
    Gzip,
    /// Each by zstd.
    Zstd,
    /// Each by Snappy, in blocks or framed.
    Snappy,
    /// Each by deflate, with zlib's header or bare.
    Deflate,
}

impl Compression {
    /// How a payload is compressed whose message has this `encoding` by its header; nothing is not compressed
    /// at all.
    #[inline]
    pub(crate) fn codec<'h>(self, encoding: impl FnOnce() -> Option<&'h str>) -> Option<Codec> {
        match self {
            Self::Auto => encoding().and_then(Codec::named),
            Self::None => None,
            Self::Gzip => Some(Codec::Gzip),
            Self::Zstd => Some(Codec::Zstd),
            Self::Snappy => Some(Codec::Snappy),
            Self::Deflate => Some(Codec::Deflate),
        }
    }

    /// The header that says it of one message.
    pub(crate) const HEADER: &str = "Content-Encoding";

    /// `max_decompressed_bytes`: as much as the rows of one message may take, by default.
    pub(crate) fn default_bound() -> ByteSize {
        ByteSize::mib(16)
    }
}

/// One way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Codec {
    Gzip,
    Zstd,
    /// One block, where it is jetcopy that compresses
    Snappy,
    /// With zlib's header, where it is jetcopy that compresses
    Deflate,
}

impl Codec {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Gzip, Self::Zstd, Self::Snappy, Self::Deflate];

    /// As it stands in `Content-Encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy",
            Self::Deflate => "deflate",
        }
    }

    /// The one that a `Content-Encoding` names.
    pub(crate) fn named(encoding: &str) -> Option<Self> {
        let encoding = encoding.trim();
        // HTTP's older name of gzip.
        let encoding = if encoding.eq_ignore_ascii_case("x-gzip") { "gzip" } else { encoding };
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(encoding))
    }

    /// The one whose first bytes `payload` has, of those that have some of their own.
    pub(crate) fn begun(payload: &[u8]) -> Option<Self> {
        match payload {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_known_in_any_case_and_by_its_older_name() {
        for (name, codec) in [
            ("gzip", Some(Codec::Gzip)),
            (" GZip ", Some(Codec::Gzip)),
            ("X-GZIP", Some(Codec::Gzip)),
            ("zstd", Some(Codec::Zstd)),
            ("Snappy", Some(Codec::Snappy)),
            ("deflate", Some(Codec::Deflate)),
            ("identity", None),
            ("utf-8", None),
            ("gzip, gzip", None),
            ("", None),
        ] {
            assert_eq!(Codec::named(name), codec, "{name:?}");
        }
    }
}
