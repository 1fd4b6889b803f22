//! A shard: one stream that one pipeline reads, and the names that go with it.
//!
//! Guarantees: whoever speaks of a position names the pipeline, the shard, the stream and the durable
//! consumer by the same value, which the configuration makes (`Pipeline::shards`). The name of a shard's
//! session fits an application name whole, and no two shards share one.
//!
//! Not guaranteed here: that no other process owns the shard; `checkpoint` sees to that.

use std::fmt;

/// Hexadecimal digits of the hash that tells shards apart whose names are cut short: a chance in four billion
/// that two of them are taken for one.
const HASH_DIGITS: usize = 8;

/// PostgreSQL keeps this many bytes of an application name.
const APPLICATION_NAME_MAX: usize = 63;

/// One stream that one pipeline reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Pipeline's name.
    pub pipeline: String,
    /// The shard's own, unique in the database; of a pipeline with a single shard, the pipeline's.
    pub name: String,
    /// Stream's name.
    pub stream: String,
    /// Durable consumer's name.
    pub durable: String,
}

impl Shard {
    /// A shard whose durable consumer is named after it.
    #[must_use]
    pub fn new(pipeline: &str, name: &str, stream: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            name: name.to_owned(),
            stream: stream.to_owned(),
            durable: format!("jetcopy-{name}"),
        }
    }

    /// How a command names it: `frames`, or `frames --shard 3`.
    #[must_use]
    pub fn argument(&self) -> String {
        match self.number() {
            Some(number) => format!("{} --shard {number}", self.pipeline),
            None => self.pipeline.clone(),
        }
    }

    /// What follows the pipeline's name in its own: of `frames-3`, `3`.
    #[must_use]
    pub fn number(&self) -> Option<&str> {
        self.name.strip_prefix(&self.pipeline)?.strip_prefix('-')
    }

    /// How the session of the daemon `instance` that writes the shard is named in `pg_stat_activity`, and so
    /// is its connection to NATS.
    ///
    /// It fits an application name whole, ends with the daemon's name, and no other shard's is the same: what
    /// does not fit is replaced by a hash of the whole name.
    #[must_use]
    pub fn session(&self, instance: &str) -> String {
        session(&self.name, instance)
    }

    /// The same of the session that writes a lane. That of the first is the shard's: it claims all of them.
    #[must_use]
    pub fn session_of(&self, instance: &str, lane: usize) -> String {
        if lane == 0 { self.session(instance) } else { session(&format!("{}#{lane}", self.name), instance) }
    }
}

/// The name of the session of `instance` for what goes by the name `shard`.
fn session(shard: &str, instance: &str) -> String {
    let room = APPLICATION_NAME_MAX - "jetcopy//".len() - instance.len().min(16);
    let instance: String = instance.chars().take(16).collect();
    if shard.is_ascii() && shard.len() <= room {
        return format!("jetcopy/{shard}/{instance}");
    }
    let kept: String = shard.chars().filter(char::is_ascii).take(room - HASH_DIGITS - 1).collect();
    format!("jetcopy/{kept}~{:0HASH_DIGITS$x}/{instance}", hash(shard))
}

/// As people read it: its name, after the pipeline's where it does not begin with that.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name != self.pipeline && self.number().is_none() {
            write!(f, "{}/", self.pipeline)?;
        }
        f.write_str(&self.name)
    }
}

/// FNV-1a: of names, which nobody forges. It is the same in every version, so that a daemon finds the
/// sessions that the one before it has left.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str, instance: &str) -> String {
        Shard::new("frames", name, "FRAMES").session(instance)
    }

    #[test]
    fn a_session_has_a_name_that_fits_whole_and_ends_with_its_daemon() {
        let long = session(&"x".repeat(200), "0123456789abcdef");
        assert_eq!(long.len(), APPLICATION_NAME_MAX);
        assert!(long.ends_with("/0123456789abcdef"), "{long}");
        assert_eq!(session("frames", "0123"), "jetcopy/frames/0123");
    }

    #[test]
    fn shards_whose_names_begin_alike_have_sessions_of_their_own() {
        let instance = "0123456789abcdef";
        let fits = "a".repeat(38);
        let names = [fits.clone(), format!("{fits}b"), format!("{fits}c"), "é".to_owned(), "è".to_owned()];
        let sessions: std::collections::BTreeSet<String> =
            names.iter().map(|name| session(name, instance)).collect();
        assert_eq!(sessions.len(), names.len(), "{sessions:?}");
        assert!(sessions.iter().all(|name| name.len() <= APPLICATION_NAME_MAX), "{sessions:?}");
    }
}
