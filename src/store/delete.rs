//! Manual deletion from the store: old measurements, and a series with its points.
//!
//! Guarantees: rows are deleted and recorded in `jetcopy.deletions` in one transaction, by functions of the
//! schema, which psql can call too. What would be deleted is counted beforehand, by the same conditions.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::config;
use crate::postgres::connect::{self, ConnectError, Session};

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy store";

/// Measurements that are so old, and the first day that stays: as `jetcopy.delete_old_measurements()` has it.
const OLD: &str =
    "SELECT count(*), date_trunc('day', now() - make_interval(secs => $1), 'UTC') FROM measurements
    WHERE timestamp_utc < date_trunc('day', now() - make_interval(secs => $1), 'UTC')";

const DELETE_OLD: &str = "SELECT jetcopy.delete_old_measurements(make_interval(secs => $1))";

/// Points of a series.
const SERIES: &str = "SELECT count(*) FROM time_series_data_points WHERE series_id = $1";

const DELETE_SERIES: &str = "SELECT jetcopy.delete_series($1)";

/// Before when measurements were deleted.
pub(crate) const DELETED_BEFORE: &str =
    "SELECT max(before) FROM jetcopy.deletions WHERE what = 'measurements'";

/// The series that were deleted.
pub(crate) const DELETED_SERIES: &str = "SELECT DISTINCT pg_catalog.substr(what, 8) FROM jetcopy.deletions \
     WHERE what LIKE 'series %' ORDER BY 1";

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The database lacks the table or the function: migrate it.
    #[error("the database lacks the store of this version of jetcopy: run `jetcopy migrate`")]
    Outdated(#[source] tokio_postgres::Error),
    /// The role lacks a privilege: grant it.
    #[error(
        "permission denied: the role needs SELECT and DELETE on the store's tables, and INSERT on \
         jetcopy.deletions"
    )]
    Forbidden(#[source] tokio_postgres::Error),
    /// The database says why.
    #[error("nothing was deleted")]
    Refused(#[source] tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_FUNCTION) => Self::Outdated(error),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Forbidden(error),
            _ => Self::Refused(error),
        }
    }
}

/// What goes, or would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// Measurements of the days that ended so long ago.
    Measurements(Duration),
    /// A series, with its document and its points.
    Series(&'a str),
}

/// How much it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Rows: measurements, or points.
    pub rows: i64,
    /// The times of the rows are before this, where that is what was asked for.
    pub before: Option<Timestamp>,
}

/// Counts, and with `delete` deletes.
pub async fn delete(config: &config::Postgres, what: What<'_>, delete: bool) -> Result<Extent, Error> {
    let session = connect::connect(config, APPLICATION_NAME).await?;
    let extent = run(&session, what, delete).await;
    session.close().await;
    extent
}

async fn run(session: &Session, what: What<'_>, delete: bool) -> Result<Extent, Error> {
    let seconds;
    let (count, change, parameter): (_, _, (&(dyn ToSql + Sync), Type)) = match &what {
        What::Measurements(age) => {
            seconds = age.as_secs_f64();
            (OLD, DELETE_OLD, (&seconds, Type::FLOAT8))
        }
        What::Series(id) => (SERIES, DELETE_SERIES, (id, Type::TEXT)),
    };
    let parameters = [parameter];
    let row = session.client.query_typed_one(count, &parameters).await?;
    let before = if row.len() > 1 { Some(row.try_get(1)?) } else { None };
    let mut rows = row.try_get(0)?;
    if delete {
        rows = session.client.query_typed_one(change, &parameters).await?.try_get(0)?;
    }
    Ok(Extent { rows, before })
}
