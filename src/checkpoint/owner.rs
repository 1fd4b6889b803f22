//! Who owns a shard now.
//!
//! Guarantees: one that another daemon holds, or an operator has paused, is told apart from one that is free,
//! and the checkpoint's row is there afterwards.

use postgres_protocol::escape::escape_literal;

use super::{Error, text};
use crate::postgres::connect::Session;
use crate::shard::Shard;

/// Who had the shard before, empty where nobody did; an error where an operator paused it or another daemon
/// holds it. A checkpoint that does not exist yet is created at sequence 0 without a stream.
pub(super) async fn look(session: &Session, shard: &Shard, owner: &str) -> Result<String, Error> {
    let name = escape_literal(&shard.name);
    let database = |action| move |source| Error::Database { action, source };
    let look = format!(
        "SELECT coalesce(owner, ''), coalesce(lease_until > now(), false) AND EXISTS (\
           SELECT FROM pg_stat_activity WHERE application_name = owner), \
           to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), coalesce(paused_by, ''), \
           last_sequence \
         FROM jetcopy.checkpoints WHERE shard = {name}"
    );
    let rows = session.client.simple_query(&look).await.map_err(database("read"))?;
    let before = if let Some(owner) = text(&rows, 0) {
        owner
    } else {
        // Only where there is none: also with DO NOTHING the insert would wait for a transaction that moves
        // the row, and a frozen daemon's never ends.
        let create = format!(
            "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) \
             VALUES ({name}, {}, {}, 0, 0) ON CONFLICT (shard) DO NOTHING",
            escape_literal(&shard.pipeline),
            escape_literal(&shard.stream),
        );
        session.client.simple_query(&create).await.map_err(database("create"))?;
        String::new()
    };
    let checkpoint = text(&rows, 4).and_then(|text| text.parse().ok()).unwrap_or(0);
    if let Some(since) = text(&rows, 2) {
        let by = text(&rows, 3).unwrap_or_default();
        return Err(Error::Paused { pipeline: shard.pipeline.clone(), by, since, checkpoint });
    }
    if text(&rows, 1).as_deref() == Some("t") && before != owner {
        return Err(Error::Held { owner: before, checkpoint });
    }
    Ok(before)
}
