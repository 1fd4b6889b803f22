//! Whether rows will find their partitions: what the database adds on demand, and what somebody else has to
//! make.
//!
//! Guarantees: a table that others partition by time, and in which the next days have no partition, is a
//! warning before the pipeline that fills it pauses for that. What is partitioned by anything else than time
//! is not foreseen.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::report::Findings;
use crate::config::Config;
use crate::postgres::introspect::Table;
use crate::store::partitions::FIRST_WITHOUT;
use crate::store::{bounds, life};

/// Place of what concerns all tables.
const STORE: &str = "store";

/// What to do where the database keeps something else than the configuration names.
const FOLLOW: &str = "run `jetcopy migrate`, which applies [store] to the database";

/// How many days ahead somebody else's partitions should be there: a week in which nobody looks.
const DAYS_AHEAD: i32 = 7;

/// Compares what the configuration says about partitions on demand, and about the life of rows, with what the
/// database does.
pub(super) async fn of_database(client: &Client, config: &Config, report: &mut Findings) {
    let named = config.store.partitions;
    match bounds::kept(client).await {
        // Of an earlier version: its migrations say so.
        Ok(None) => {}
        Ok(Some(kept)) if kept == named.over(kept) => {}
        Ok(Some(kept)) => report.warn(
            STORE,
            format!("partitions are added within {kept}, but the configuration says {}", named.over(kept)),
            FOLLOW,
        ),
        Err(error) => report.failure(STORE, &error),
    }
    match life::kept(client).await {
        Ok(kept) => {
            for ((relation, _), text) in life::differences(&config.store.named, &kept) {
                report.warn(format!("{STORE}.{relation}"), text, FOLLOW);
            }
        }
        Err(error) => report.failure(STORE, &error),
    }
}

/// Looks whether the next days have partitions.
pub(super) async fn of_table(client: &Client, place: &str, table: &Table, report: &mut Findings) {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&table.qualified, Type::TEXT), (&DAYS_AHEAD, Type::INT4)];
    let found = client.query_typed_one(FIRST_WITHOUT, &parameters).await;
    match found.and_then(|row| row.try_get::<_, Option<String>>(0)) {
        // Without the migration or a privilege, other lines say so.
        Ok(None) | Err(_) => {}
        Ok(Some(day)) => report.warn(
            place,
            format!(
                "there is no partition for rows of {day}: the pipeline will pause there until there is one"
            ),
            "create the partitions of the next days, or a DEFAULT partition; with `jetcopy.time_table()`, \
             jetcopy adds them",
        ),
    }
}
