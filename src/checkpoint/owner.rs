//! The name of whoever owns a shard.
//!
//! Guarantees: it fits an application name whole, and no two shards share one.

/// Hexadecimal digits of the hash that tells shards apart whose names are cut short: a chance in four billion that two of them
/// are taken for one.
const HASH_DIGITS: usize = 8;

/// PostgreSQL keeps this many bytes of an application name.
const APPLICATION_NAME_MAX: usize = 63;

/// The name under which this process owns a shard, and under which its backends appear in `pg_stat_activity`.
///
/// It fits an application name whole, so that one can be compared with the other, and no other shard's is the same: what
/// does not fit is replaced by a hash of the whole name.
#[must_use]
pub fn owner_name(shard: &str, instance: &str) -> String {
    let room = APPLICATION_NAME_MAX - "jetcopy//".len() - instance.len().min(16);
    let instance: String = instance.chars().take(16).collect();
    if shard.is_ascii() && shard.len() <= room {
        return format!("jetcopy/{shard}/{instance}");
    }
    let kept: String = shard.chars().filter(char::is_ascii).take(room - HASH_DIGITS - 1).collect();
    format!("jetcopy/{kept}~{:0HASH_DIGITS$x}/{instance}", hash(shard))
}

/// FNV-1a: of names, which nobody forges. It is the same in every version, so that a daemon finds the sessions that the one
/// before it has left.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_fits_an_application_name_and_keeps_its_instance() {
        let owner = owner_name(&"x".repeat(200), "0123456789abcdef");
        assert_eq!(owner.len(), APPLICATION_NAME_MAX);
        assert!(owner.ends_with("/0123456789abcdef"), "{owner}");
        assert_eq!(owner_name("frames", "0123"), "jetcopy/frames/0123");
    }

    #[test]
    fn shards_whose_names_begin_alike_have_owners_of_their_own() {
        let instance = "0123456789abcdef";
        let fits = "a".repeat(38);
        let names = [fits.clone(), format!("{fits}b"), format!("{fits}c"), "é".to_owned(), "è".to_owned()];
        let owners: std::collections::BTreeSet<String> =
            names.iter().map(|name| owner_name(name, instance)).collect();
        assert_eq!(owners.len(), names.len(), "{owners:?}");
        assert!(owners.iter().all(|owner| owner.len() <= APPLICATION_NAME_MAX), "{owners:?}");
    }
}
