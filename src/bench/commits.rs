//! When the server committed which rows, by its own commit timestamps.
//!
//! Guarantees: times are on this machine's clock; the servers' clocks may differ, and the difference is
//! measured. The server takes a commit's time before it waits for the disk.

use std::time::{Duration, SystemTime};

use super::Error;
use crate::postgres::connect::Session;

/// Questions for the server's clock, of which the quickest answer counts.
const ATTEMPTS: usize = 10;

/// One transaction's rows in one table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Commit {
    /// Time since `start`; negative times are none.
    pub at: Duration,
    /// The first sequence whose rows it holds.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many rows.
    pub rows: u64,
}

/// Whether the server keeps commit timestamps.
pub async fn are_kept(session: &Session) -> Result<bool, Error> {
    let failed = Error::database("ask for track_commit_timestamp");
    let row = session.client.query_typed_one("SELECT current_setting('track_commit_timestamp')", &[]).await;
    let value: String = row.map_err(&failed)?.try_get(0).map_err(&failed)?;
    Ok(value == "on")
}

/// The commits that filled `table`, in the order of sequences; `None` where the server has forgotten some of
/// their times.
pub async fn of(session: &Session, table: &str, start: SystemTime) -> Result<Option<Vec<Commit>>, Error> {
    let behind = clock_difference(session).await?;
    let failed = Error::database("read the times of the commits");
    let sql = format!(
        "SELECT extract(epoch FROM pg_xact_commit_timestamp(transaction::xid))::float8, first, last, rows
         FROM (SELECT xmin::text AS transaction, min(seq) AS first, max(seq) AS last, count(*) AS rows
               FROM {table} WHERE seq > 0 GROUP BY 1) AS commits
         ORDER BY first"
    );
    let rows = session.client.query_typed(&sql, &[]).await.map_err(&failed)?;
    let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut commits = Vec::with_capacity(rows.len());
    for row in rows {
        let number = |column| row.try_get(column).map(|number: i64| u64::try_from(number).unwrap_or(0));
        let Some(at) = row.try_get::<_, Option<f64>>(0).map_err(&failed)? else { return Ok(None) };
        commits.push(Commit {
            at: Duration::try_from_secs_f64(at - behind - start).unwrap_or_default(),
            first: number(1).map_err(&failed)?,
            last: number(2).map_err(&failed)?,
            rows: number(3).map_err(&failed)?,
        });
    }
    Ok(Some(commits))
}

/// How far the server's clock is ahead of this machine's, in seconds; wrong by half a round trip at most.
async fn clock_difference(session: &Session) -> Result<f64, Error> {
    let failed = Error::database("ask for the server's clock");
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut best = (f64::INFINITY, 0.0);
    for _ in 0..ATTEMPTS {
        let asked = now();
        let row =
            session.client.query_typed_one("SELECT extract(epoch FROM clock_timestamp())::float8", &[]).await;
        let answered = now();
        let server: f64 = row.map_err(&failed)?.try_get(0).map_err(&failed)?;
        if answered - asked < best.0 {
            best = (answered - asked, server - f64::midpoint(asked, answered));
        }
    }
    Ok(best.1)
}
