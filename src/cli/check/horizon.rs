//! How old a message can be when its rows are written, and what compression makes of rows that old.
//!
//! Guarantees: a hypertable whose chunks are compressed before the stream has dropped their messages is told
//! of, be it the store's or not. It goes by the policy that the database has, not by `[store]`.

use std::time::Duration;

use async_nats::jetstream::stream::Info;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::report::Findings;
use crate::catalog::written;
use crate::postgres::introspect::Table;

/// When chunks of a table are compressed, in microseconds.
const COMPRESS_AFTER: &str =
    "SELECT (extract(epoch FROM (j.config ->> 'compress_after'::text)::interval) * 1000000::numeric)::bigint
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN timescaledb_information.jobs j ON j.hypertable_schema = n.nspname AND j.hypertable_name = c.relname
    WHERE c.oid = to_regclass($1)::oid AND j.proc_name = 'policy_compression'";

/// The age of the oldest message that the stream may hold or, where it has no limit, that it holds now.
pub(super) fn of_stream(info: &Info) -> Duration {
    let (limit, state) = (info.config.max_age, &info.state);
    if !limit.is_zero() || state.messages == 0 {
        return limit;
    }
    let age = jiff::Timestamp::now().as_nanosecond() - state.first_timestamp.unix_timestamp_nanos();
    // Seconds will do, and read better.
    Duration::from_secs(u64::try_from(age / 1_000_000_000).unwrap_or(0))
}

/// Compares it with the compression policy of a table, on a server with TimescaleDB.
pub(super) async fn judge(
    client: &Client,
    place: &str,
    table: &Table,
    horizon: Duration,
    report: &mut Findings,
) {
    let compress_after = match compress_after(client, &table.qualified).await {
        Ok(Some(age)) if age < horizon => age,
        Ok(_) => return,
        Err(error) => return report.failure(place, &error),
    };
    let cost = if table.unique_keys.is_empty() {
        "replayed rows stay uncompressed until the compression job runs again"
    } else {
        "for the unique key, each replayed row is looked up in compressed rows, which is many times slower"
    };
    report.warn(
        place,
        format!(
            "chunks are compressed after {}, but replayed messages of the stream are up to {} old: {cost}",
            written(compress_after),
            written(horizon)
        ),
        "raise compress_after above the stream's age (in [store] for the store's own tables), lower the \
         stream's max_age, or accept it",
    );
}

async fn compress_after(client: &Client, table: &str) -> Result<Option<Duration>, Error> {
    let row = client.query_typed_opt(COMPRESS_AFTER, &[(&table, Type::TEXT)]).await?;
    let micros: Option<i64> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    Ok(micros.and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros))
}

#[cfg(test)]
mod tests;
