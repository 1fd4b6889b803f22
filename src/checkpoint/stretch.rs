//! The checkpoint of a bounded stretch that is read once more.
//!
//! Guarantees: it begins right before the stretch, whatever an earlier replay of the same name has left, and
//! whoever wrote by that is fenced.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use super::lanes;
use crate::postgres::interval::timestamp;
use crate::postgres::simple::ask;
use crate::shard::Shard;

/// SQL that makes the checkpoint of `shard` stand after `last_sequence` of a stream that was created then.
#[must_use]
pub(crate) fn begin_stretch_sql(shard: &Shard, stream_created_ns: i64, last_sequence: u64) -> String {
    format!(
        "INSERT INTO jetcopy.checkpoints AS known \
           (shard, pipeline, stream, stream_created, last_sequence) \
         VALUES ({}, {}, {}, {}, {last_sequence}) \
         ON CONFLICT (shard) DO UPDATE SET stream_created = EXCLUDED.stream_created, \
           last_sequence = EXCLUDED.last_sequence, last_timestamp = NULL, epoch = known.epoch + 1; {}",
        escape_literal(&shard.name),
        escape_literal(&shard.pipeline),
        escape_literal(&shard.stream),
        timestamp(stream_created_ns),
        lanes::remove_sql(&escape_literal(&shard.name)),
    )
}

/// Ends the stretch: its checkpoint stays at `keep_at`, or goes.
pub(crate) async fn end_stretch(client: &Client, shard: &str, keep_at: Option<u64>) -> Result<(), Error> {
    let name = escape_literal(shard);
    let sql = match keep_at {
        // The stretch can end in messages that are deleted, or not the pipeline's.
        Some(last) => format!(
            "UPDATE jetcopy.checkpoints SET last_sequence = {last} WHERE shard = {name}; {}",
            lanes::remove_sql(&name)
        ),
        None => format!("DELETE FROM jetcopy.checkpoints WHERE shard = {name}"),
    };
    ask(client, &sql).await.map(drop)
}
