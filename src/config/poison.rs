//! How many dead letters of a pipeline are normal.

use bytesize::ByteSize;
use serde::Deserialize;

/// `poison = { … }`: beyond these a pipeline pauses instead of filling the dead-letter table.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoisonLimits {
    /// Messages that become dead letters in one batch.
    pub max_per_batch: usize,
    /// Messages that become dead letters in any minute.
    pub max_per_minute: usize,
    /// Bytes of their payloads in any minute.
    pub max_bytes_per_minute: ByteSize,
}

impl Default for PoisonLimits {
    fn default() -> Self {
        // A full batch of the largest messages that a NATS server takes by default, 1 MB each.
        Self { max_per_batch: 100, max_per_minute: 1_000, max_bytes_per_minute: ByteSize::mib(100) }
    }
}
