//! What a pipeline's ledger keeps of its messages.

use serde::Deserialize;

/// `ledger = { … }`: what is kept beside the counts of each commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// What stands for the messages.
    pub digest: Digest,
}

/// `ledger.digest`: what stands for the messages that were committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// A BLAKE3 hash over sequences and payloads.
    #[default]
    Blake3,
    /// Nothing.
    None,
}
