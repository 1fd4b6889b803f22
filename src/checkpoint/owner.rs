//! Whoever owns a shard: their name, and who does now.
//!
//! Guarantees: the name fits an application name whole, and no two shards share one.

use postgres_protocol::escape::escape_literal;

use super::{Error, Place, text};
use crate::postgres::connect::Session;

/// Hexadecimal digits of the hash that tells shards apart whose names are cut short: a chance in four billion
/// that two of them are taken for one.
const HASH_DIGITS: usize = 8;

/// PostgreSQL keeps this many bytes of an application name.
const APPLICATION_NAME_MAX: usize = 63;

/// The name under which this process owns a shard, and under which its backends appear in `pg_stat_activity`.
///
/// It fits an application name whole, so that one can be compared with the other, and no other shard's is the
/// same: what does not fit is replaced by a hash of the whole name.
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

/// Who had the shard before, empty where nobody did; an error where an operator paused it or another daemon
/// holds it. A checkpoint that does not exist yet is created at sequence 0 without a stream.
pub(super) async fn look(session: &Session, place: &Place, owner: &str) -> Result<String, Error> {
    let shard = escape_literal(&place.shard);
    let database = |action| move |source| Error::Database { action, source };
    let look = format!(
        "SELECT coalesce(owner, ''), coalesce(lease_until > now(), false) AND EXISTS (\
           SELECT FROM pg_stat_activity WHERE application_name = owner), \
           to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), coalesce(paused_by, ''), last_sequence \
         FROM jetcopy.checkpoints WHERE shard = {shard}"
    );
    let rows = session.client.simple_query(&look).await.map_err(database("read"))?;
    let before = if let Some(owner) = text(&rows, 0) {
        owner
    } else {
        // Only where there is none: also with DO NOTHING the insert would wait for a transaction that moves
        // the row, and a frozen daemon's never ends.
        let create = format!(
            "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) \
             VALUES ({shard}, {}, {}, 0, 0) ON CONFLICT (shard) DO NOTHING",
            escape_literal(&place.pipeline),
            escape_literal(&place.stream),
        );
        session.client.simple_query(&create).await.map_err(database("create"))?;
        String::new()
    };
    let checkpoint = text(&rows, 4).and_then(|text| text.parse().ok()).unwrap_or(0);
    if let Some(since) = text(&rows, 2) {
        let by = text(&rows, 3).unwrap_or_default();
        return Err(Error::Paused { pipeline: place.pipeline.clone(), by, since, checkpoint });
    }
    if text(&rows, 1).as_deref() == Some("t") && before != owner {
        return Err(Error::Held { owner: before, checkpoint });
    }
    Ok(before)
}

/// FNV-1a: of names, which nobody forges. It is the same in every version, so that a daemon finds the
/// sessions that the one before it has left.
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
