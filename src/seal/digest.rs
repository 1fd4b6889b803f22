//! What stands for the messages of a stretch: BLAKE3 over sequence, length and payload of each.
//!
//! Guarantees: it is the same however the messages came, in whatever batches. It does not cover subjects and
//! headers.

use std::fmt;

/// Bytes that are handed to the hash at once: enough for its widest instructions, which short messages alone
/// would never reach, and little to copy with a clone.
const SLICE: usize = 16 << 10;

/// The digest of the messages so far.
#[derive(Clone, Default)]
pub(crate) struct Digest {
    hasher: blake3::Hasher,
    /// What is not yet hashed.
    slice: Vec<u8>,
}

impl Digest {
    /// Adds a message.
    pub(crate) fn add(&mut self, sequence: u64, payload: &[u8]) {
        self.push(&sequence.to_le_bytes());
        self.push(&(payload.len() as u64).to_le_bytes());
        self.push(payload);
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while self.slice.len() + bytes.len() >= SLICE {
            let (fits, rest) = bytes.split_at(SLICE - self.slice.len());
            self.slice.extend_from_slice(fits);
            self.hasher.update(&self.slice);
            self.slice.clear();
            bytes = rest;
        }
        self.slice.extend_from_slice(bytes);
    }

    /// The digest up to here, in hexadecimal digits. It does not end it.
    pub(crate) fn hex(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.slice);
        hasher.finalize().to_hex().to_string()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}
