//! The dead letters of one shard, for statements that other modules make.
//!
//! Guarantees: only letters of the shard are meant, by the pipeline first, which the index begins with.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use crate::postgres::simple::ask;
use crate::seal;
use crate::shard::Shard;

/// SQL that counts the letters from sequence `first` on, up to `last` where that is given.
#[must_use]
pub(crate) fn count_sql(shard: &Shard, first: u64, last: Option<u64>) -> String {
    let to = last.map(|last| format!(" AND sequence <= {last}")).unwrap_or_default();
    format!("SELECT count(*) FROM jetcopy.dead_letters WHERE {} AND sequence >= {first}{to}", own(shard))
}

/// Counts them.
pub(crate) async fn count(
    client: &Client,
    shard: &Shard,
    first: u64,
    last: Option<u64>,
) -> Result<u64, Error> {
    Ok(ask(client, &count_sql(shard, first, last)).await?.number(0).unwrap_or(0))
}

/// SQL that throws all of them away.
#[must_use]
pub(crate) fn discard_sql(shard: &Shard) -> String {
    format!("DELETE FROM jetcopy.dead_letters WHERE {}", own(shard))
}

/// The statement with which a person throws away those after sequence `after`.
#[must_use]
pub(crate) fn discard_after(shard: &Shard, after: u64) -> String {
    let Shard { pipeline, name, .. } = shard;
    let one = if name == pipeline { String::new() } else { format!(" AND shard = '{name}'") };
    format!("DELETE FROM jetcopy.dead_letters WHERE pipeline = '{pipeline}'{one} AND sequence > {after};")
}

/// SQL for the letters in a `FROM`, their columns `sequence`, `table_name`, `element` and `elements`; also of
/// those that a person has discarded, whose messages are settled all the same.
#[must_use]
pub(crate) fn known_sql(shard: &Shard) -> String {
    format!(
        "(SELECT sequence, table_name, element, elements FROM jetcopy.dead_letters WHERE {} \
         UNION ALL SELECT sequence, table_name, element, elements FROM {} \
           WHERE action = 'discarded') letters",
        own(shard),
        settlements(shard),
    )
}

/// SQL for how many letters of each `sequence` were stored by commits, whatever became of them: `letters`.
#[must_use]
pub(crate) fn stored_sql(shard: &Shard) -> String {
    format!(
        "(SELECT sequence, 1 AS letters FROM jetcopy.dead_letters WHERE {} \
         UNION ALL SELECT sequence, 1 - letters FROM {}) stored",
        own(shard),
        settlements(shard),
    )
}

/// SQL for the rows that retried letters have stored: `sequence`, `name` of the table, quoted, and `rows`.
#[must_use]
pub(crate) fn retried_sql(shard: &Shard) -> String {
    format!(
        "(SELECT s.sequence, t.name, t.rows FROM {} \
         CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(s.tables), pg_catalog.unnest(s.rows)) \
           AS t (name, rows)) retried",
        settlements(shard)
    )
}

/// SQL for how many letters were discarded, and how many retried.
#[must_use]
pub(crate) fn settled_sql(shard: &Shard) -> String {
    format!(
        "SELECT count(*) FILTER (WHERE action = 'discarded'), count(*) FILTER (WHERE action = 'retried') \
         FROM {}",
        settlements(shard)
    )
}

/// The settlements that hold: not those of messages that came again since.
fn settlements(shard: &Shard) -> String {
    let name = escape_literal(&shard.name);
    format!(
        "(SELECT * FROM jetcopy.settlements noted WHERE {} AND NOT {}) s",
        own(shard),
        seal::is_past_sql(&name, "noted.sequence", "noted.settled_at")
    )
}

fn own(shard: &Shard) -> String {
    format!("pipeline = {} AND shard = {}", escape_literal(&shard.pipeline), escape_literal(&shard.name))
}
