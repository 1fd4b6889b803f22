//! The dead letters of one shard, for statements that other modules make.
//!
//! Guarantees: only letters of the shard are meant, by the pipeline first, which the index begins with.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use crate::postgres::simple::ask;
use crate::shard::Shard;

/// SQL for the letters in a `FROM`: their columns `sequence`, `table_name`, `element` and `elements`.
#[must_use]
pub(crate) fn letters_sql(shard: &Shard) -> String {
    format!(
        "(SELECT sequence, table_name, element, elements FROM jetcopy.dead_letters WHERE {}) letters",
        own(shard)
    )
}

/// SQL that counts those from sequence `first` on, up to `last` where that is given.
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

fn own(shard: &Shard) -> String {
    format!("pipeline = {} AND shard = {}", escape_literal(&shard.pipeline), escape_literal(&shard.name))
}
