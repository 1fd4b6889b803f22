//! Up to when rows of a pipeline's tables are dropped by their age, and which of them people have deleted.
//!
//! Guarantees: it says so only of tables that TimescaleDB's retention or `jetcopy maintain` drops rows of;
//! where the role may not see that, or an earlier version made the schema, it says nothing.

use postgres_protocol::escape::escape_literal;

use super::Error;
use super::snapshot::{Filled, Snapshot};
use crate::postgres::simple::{self, Answers};
use crate::store::delete::{DELETED_BEFORE, DELETED_SERIES};
use crate::store::partitions;

/// How much later than its row's time a message may be stored, in microseconds: an hour, so that what clocks,
/// queues and slow senders do at the edge makes no difference. Rows that come later than that are dropped
/// early, and look missing.
const LATE_US: i64 = 3_600_000_000;

/// What there is to be asked: the partitions that jetcopy keeps, and TimescaleDB's jobs.
const SOURCES: &str = "SELECT EXISTS (SELECT FROM pg_attribute \
       WHERE attrelid = to_regclass('jetcopy.partitioned_tables')::oid AND attname = 'dropped_before' \
       AND has_column_privilege(attrelid, attnum, 'SELECT') \
         AND has_column_privilege(attrelid, 'relation', 'SELECT')), \
     to_regclass('timescaledb_information.jobs') IS NOT NULL";

/// Messages stored before a time need not have their rows any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) table: String,
    /// The time, in microseconds since the Unix epoch.
    pub(super) before_us: i64,
}

/// The latest of these times, over all tables of the pipeline.
pub(super) async fn expired(snapshot: &Snapshot<'_>) -> Result<Option<Expired>, Error> {
    let mut latest: Option<Expired> = None;
    for place in &snapshot.places {
        let Some(before_us) = dropped_before(snapshot, place).await? else { continue };
        let before_us = before_us.saturating_add(LATE_US);
        if latest.as_ref().is_none_or(|latest| latest.before_us < before_us) {
            latest = Some(Expired { table: place.name.clone(), before_us });
        }
    }
    Ok(latest)
}

/// Rows of a table with times before this may have been dropped, by what is in force now; in microseconds
/// since the Unix epoch.
pub(super) async fn dropped_before(snapshot: &Snapshot<'_>, place: &Filled) -> Result<Option<i64>, Error> {
    const ACTION: &str = "read the retention of the tables";
    let sources = snapshot.query(ACTION, SOURCES).await?;
    let is = |column| sources.text(column) == Some("t");
    let table = format!("to_regclass({})::oid", escape_literal(&place.qualified));
    let mut latest: Option<i64> = None;
    if is(0) {
        let sql = partitions::dropped_before_sql(&table);
        latest = latest.max(last(&snapshot.query(ACTION, &sql).await?));
    }
    if is(1) {
        let sql = format!(
            "SELECT (extract(epoch FROM clock_timestamp() - CASE WHEN \
               jsonb_typeof(config -> 'drop_after'::text) = 'string' \
               THEN (config ->> 'drop_after'::text)::interval END) * 1000000::numeric)::bigint \
             FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention' \
             AND to_regclass(pg_catalog.format('%I.%I', hypertable_schema, hypertable_name))::oid = {table}"
        );
        latest = latest.max(last(&snapshot.query(ACTION, &sql).await?));
    }
    Ok(latest)
}

/// The same for messages, by when they were stored.
pub(super) async fn expired_of(snapshot: &Snapshot<'_>, place: &Filled) -> Result<Option<i64>, Error> {
    Ok(dropped_before(snapshot, place).await?.map(|before_us| before_us.saturating_add(LATE_US)))
}

/// What people have deleted from a table of the store, by `jetcopy.deletions`: the column that tells, and its
/// values: the time before which rows went, or the series that did.
pub(super) async fn deletions(
    snapshot: &Snapshot<'_>,
    place: &Filled,
) -> Result<Option<(&'static str, Vec<String>)>, Error> {
    const ACTION: &str = "read jetcopy.deletions";
    let sql = format!(
        "SELECT c.relname, coalesce(has_table_privilege(to_regclass('jetcopy.deletions')::oid, \
           'SELECT'::text), false) \
         FROM pg_class c WHERE c.oid = to_regclass({})::oid",
        escape_literal(&place.qualified)
    );
    let table = snapshot.query(ACTION, &sql).await?;
    if table.text(1) != Some("t") {
        return Ok(None);
    }
    let (sql, column) = match table.text(0) {
        Some("measurements") => (DELETED_BEFORE, "timestamp_utc"),
        Some("time_series_data_points") => (DELETED_SERIES, "series_id"),
        Some("time_series_metadata") => (DELETED_SERIES, "id"),
        Some(_) | None => return Ok(None),
    };
    let found = snapshot.query(ACTION, sql).await?;
    let values: Vec<String> = found.rows().filter_map(|row| row.get(0)).map(str::to_owned).collect();
    Ok((!values.is_empty()).then_some((column, values)))
}

/// The greatest number in the first column.
fn last(answers: &Answers) -> Option<i64> {
    answers.rows().filter_map(|row| simple::number(row, 0)).max()
}
