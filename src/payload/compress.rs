//! Payload → compressed payload, for who publishes.

use std::io::{self, Write as _};

use flate2::Compression as Level;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::compression::Codec;

/// `payload` by `codec`, at its usual level: Snappy in one block, deflate with zlib's header.
pub(crate) fn compress(codec: Codec, payload: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Level::default());
            encoder.write_all(payload)?;
            encoder.finish()
        }
        Codec::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Level::default());
            encoder.write_all(payload)?;
            encoder.finish()
        }
        Codec::Zstd => zstd::bulk::compress(payload, zstd::DEFAULT_COMPRESSION_LEVEL),
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(payload).map_err(io::Error::other),
    }
}
