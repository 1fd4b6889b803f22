//! What a flood of dead letters leaves in the checkpoint.
//!
//! Guarantees: it is kept in a transaction of its own, and only while the shard is ours; the next move of the
//! checkpoint clears it.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use super::begin_sql;
use crate::postgres::connect::Session;
use crate::postgres::simple::ask;
use crate::shard::Shard;

/// Keeps what is to be told of a flood, a JSON object, with the rules that it was met under, SQL for a text.
pub(crate) async fn keep_flood(
    session: &Session,
    shard: &Shard,
    epoch: i64,
    flood: &str,
    rules: &str,
) -> Result<(), Error> {
    let sql = format!(
        "{}UPDATE jetcopy.checkpoints \
         SET flood = {}::jsonb || pg_catalog.jsonb_build_object('rules', {rules}) \
         WHERE shard = {} AND epoch = {epoch}; COMMIT",
        begin_sql(session),
        escape_literal(flood),
        escape_literal(&shard.name),
    );
    ask(&session.client, &sql).await.map(drop)
}

/// Whether a shard that a flood stopped is to try again: letters are accepted, somebody resumed it, or the
/// rules, SQL for a text, are others than those that the flood was met under.
pub(crate) async fn ends_flood(client: &Client, shard: &Shard, rules: &str) -> Result<bool, Error> {
    let sql = format!(
        "SELECT accepted_letters > 0 OR flood IS NULL OR flood ->> 'rules'::text IS DISTINCT FROM {rules} \
         FROM jetcopy.checkpoints WHERE shard = {}",
        escape_literal(&shard.name)
    );
    Ok(ask(client, &sql).await?.text(0) == Some("t"))
}
