//! How far from today partitions are added on demand: set in `[store]`, kept in the database.
//!
//! Guarantees: only this module and the migrations name `jetcopy.partition_bounds`. What is written there is
//! in force at once, for every daemon on the database.
//!
//! It does not guard against two configurations that differ: the last `jetcopy migrate` that names them wins,
//! and the others' `jetcopy check` warns.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::catalog::bounds::{Bounds, Named};

/// The columns of the bounds, for a statement of somebody else that joins [`TABLE`].
pub const COLUMNS: &str = "days_back, days_ahead";

/// The one row.
pub const TABLE: &str = "jetcopy.partition_bounds";

const MIGRATED: &str = "SELECT to_regclass('jetcopy.partition_bounds') IS NOT NULL";

const READ: &str = "SELECT days_back, days_ahead FROM jetcopy.partition_bounds";

const WRITE: &str = "UPDATE jetcopy.partition_bounds SET days_back = $1, days_ahead = $2";

fn of(row: &Row) -> Result<Bounds, tokio_postgres::Error> {
    // The table holds none below 0.
    let days = |index| Ok(u32::try_from(row.try_get::<_, i32>(index)?).unwrap_or(0));
    Ok(Bounds { back: days(0)?, ahead: days(1)? })
}

/// What the database keeps; `None` where it is of an earlier version.
pub async fn kept(client: &Client) -> Result<Option<Bounds>, tokio_postgres::Error> {
    let migrated: bool = client.query_typed_one(MIGRATED, &[]).await?.try_get(0)?;
    if !migrated {
        return Ok(None);
    }
    client.query_typed_opt(READ, &[]).await?.map(|row| of(&row)).transpose()
}

/// Lets the database keep what is named; what it had before and has now, where that is something else.
pub async fn keep(client: &Client, named: Named) -> Result<Option<(Bounds, Bounds)>, tokio_postgres::Error> {
    let Some(before) = kept(client).await? else { return Ok(None) };
    let bounds = named.over(before);
    if before == bounds {
        return Ok(None);
    }
    let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
    let (back, ahead) = (days(bounds.back), days(bounds.ahead));
    client.execute_typed(WRITE, &[(&back, Type::INT4), (&ahead, Type::INT4)]).await?;
    Ok(Some((before, bounds)))
}
