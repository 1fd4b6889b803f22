//! TimescaleDB's direct compress: rows of a `COPY` are compressed on their way in.
//!
//! Guarantees: a table for which [`require`] found nothing takes compressed rows, and otherwise the reason is
//! one that a person can act on. The server itself only warns and stores such rows uncompressed, which nobody
//! would notice.
//!
//! It takes no lock: a unique index that is created later turns direct compress off without harm to the rows,
//! and is reported at the next start.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Turns it on for a `COPY` in a transaction.
pub const ON: &str = "SET LOCAL timescaledb.enable_direct_compress_copy = on";

/// Turns it off again for what follows in the transaction, where the server would warn with every batch.
pub const OFF: &str = "SET LOCAL timescaledb.enable_direct_compress_copy = off";

/// What the server lacks. Direct compress came with 2.21, and takes tables with continuous aggregates since
/// 2.24.
const LOOK_AT_SERVER: &str = "SELECT CASE
        WHEN split_part(e.extversion, '-', 1) !~ '^[0-9]+([.][0-9]+)*$'
            OR string_to_array(split_part(e.extversion, '-', 1), '.')::int[] OPERATOR(pg_catalog.<) '{2,24}'
            THEN 'it needs TimescaleDB 2.24 or later, and this is ' || e.extversion
        WHEN current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale'
            THEN 'TimescaleDB runs under the Apache licence (timescaledb.license), which has no compression'
    END FROM pg_extension e WHERE e.extname = 'timescaledb'";

/// What the table has or lacks.
const LOOK_AT_TABLE: &str = "SELECT CASE
        WHEN h.hypertable_name IS NULL THEN 'it is not a hypertable'
        WHEN NOT h.compression_enabled
            THEN
                'compression is not enabled for it (`jetcopy migrate` enables it for the store''s own; else: '
                || 'ALTER TABLE … SET (timescaledb.compress))'
        WHEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion))
            THEN
                'it has a unique index or exclusion constraint, which cannot be checked for compressed rows'
        WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname::text NOT LIKE 'ts\\_%')
            THEN 'it has triggers or foreign keys, which compressed rows would bypass'
    END
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN timescaledb_information.hypertables h ON h.hypertable_schema = n.nspname
        AND h.hypertable_name = c.relname
    WHERE c.oid = to_regclass($1)::oid";

/// Why rows cannot be compressed on their way in.
#[derive(Debug, thiserror::Error)]
pub enum DirectCompressError {
    /// Server or table do not allow it.
    #[error("table {table}: direct_compress cannot be used: {reason}; fix that, or remove direct_compress")]
    Refused {
        /// Name as configured.
        table: String,
        /// What stands against it.
        reason: String,
    },
    /// The server did not answer the question.
    #[error("table {table}: cannot query the server about direct compress")]
    Query {
        /// Name as configured.
        table: String,
        /// What the server or the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
}

/// Refuses a server or a table that would store the rows uncompressed. The table is there.
pub async fn require(client: &Client, table: &str) -> Result<(), DirectCompressError> {
    let failed = |source| DirectCompressError::Query { table: table.to_owned(), source };
    let refused = |reason: String| Err(DirectCompressError::Refused { table: table.to_owned(), reason });
    let Some(server) = client.query_typed_opt(LOOK_AT_SERVER, &[]).await.map_err(failed)? else {
        return refused("TimescaleDB is not installed".into());
    };
    if let Some(reason) = server.try_get(0).map_err(failed)? {
        return refused(reason);
    }
    let found = client.query_typed_one(LOOK_AT_TABLE, &[(&table, Type::TEXT)]).await.map_err(failed)?;
    match found.try_get(0).map_err(failed)? {
        Some(reason) => refused(reason),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
