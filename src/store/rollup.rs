//! Roll-ups where TimescaleDB does not keep them: tables that are filled from their source, bucket by bucket.
//!
//! Guarantees: a bucket holds what its source held when it was summed up last, and that is after each change
//! of the source that jetcopy made, within `refresh.window`; a bucket whose rows were dropped stays as it is.
//! All of a refresh is one transaction.
//!
//! What was touched is told in the transaction of the rows (`jetcopy.touch()`), and what is taken as told is
//! summed up from a later snapshot: no row falls between. Late rows that others write are seen where they
//! call it too.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{partitions::begin, place};
use crate::catalog::{BUCKET, Bucket, ROLLUPS, Rollup, RollupLife, Source};

/// Buckets that lie between two that changed, and are summed up along with them: cheaper than another
/// statement.
const JOINED: i64 = 10;

/// Where the roll-up stands, in seconds since the Unix epoch: filled to, now, rows dropped before; and
/// whether it is due. A cast alone would round: into the next bucket.
const STATE: &str =
    "SELECT floor(extract(epoch FROM filled_to))::int8, floor(extract(epoch FROM now()))::int8,
        coalesce((SELECT ceil(extract(epoch FROM nullif(dropped_before, '-infinity')))::int8
                  FROM jetcopy.partitioned_tables WHERE relation::oid = source::oid), 0),
        coalesce(refreshed_at + make_interval(secs => $2) <= now(), true)
    FROM jetcopy.rollups WHERE name = $1 FOR UPDATE";

const TAKE_TOUCHED: &str = "WITH taken AS (DELETE FROM jetcopy.touched_buckets
    WHERE rollup = $1 RETURNING buckets)
    SELECT DISTINCT floor(extract(epoch FROM bucket))::int8 FROM taken, pg_catalog.unnest(buckets) AS bucket
        WHERE isfinite(bucket)";

const TOUCH: &str =
    "SELECT jetcopy.touch($1, ARRAY(SELECT to_timestamp(n::float8) FROM pg_catalog.unnest($2::int8[]) AS n))";

const SETTLE: &str = "UPDATE jetcopy.rollups SET filled_to = greatest(filled_to, to_timestamp($2)), \
                        refreshed_at = now() WHERE name = $1";

/// What a refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Spans of buckets that were summed up, of them before those that were there.
    pub corrected: usize,
    /// Rows that were written.
    pub rows: u64,
    /// Rows whose buckets were older than the retention, and are gone.
    pub expired: u64,
}

/// What a run refreshes.
#[derive(Debug, Clone, Copy)]
pub struct When {
    /// Roll-ups that are not due yet, too.
    pub all: bool,
    /// The bucket that is not over yet, too: as it is at the refresh.
    pub real_time: bool,
}

/// Fills a roll-up; `None` where jetcopy does not keep it, or it is not due yet.
pub async fn refresh(
    client: &Client,
    rollup: &Rollup,
    life: &RollupLife,
    when: When,
) -> Result<Option<Refreshed>, tokio_postgres::Error> {
    client.batch_execute(&begin()).await?;
    client.batch_execute(place::ENTER).await?;
    let outcome = in_transaction(client, rollup, life, when).await;
    // An error of the connection itself makes this one fail too, and the first one is the one to tell.
    let ended = client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
    let outcome = outcome?;
    ended.map(|()| outcome)
}

async fn in_transaction(
    client: &Client,
    rollup: &Rollup,
    life: &RollupLife,
    when: When,
) -> Result<Option<Refreshed>, tokio_postgres::Error> {
    let every = life.refresh.every.as_secs_f64();
    let state = client.query_typed_opt(STATE, &[(&rollup.name, Type::TEXT), (&every, Type::FLOAT8)]).await?;
    let Some(state) = state else { return Ok(None) };
    let (filled_to, now): (Option<i64>, i64) = (state.try_get(0)?, state.try_get(1)?);
    let (dropped_before, due): (i64, bool) = (state.try_get(2)?, state.try_get(3)?);
    if !due && !when.all {
        return Ok(None);
    }
    let width = seconds(rollup.bucket.length());
    let floor = (now - seconds(life.refresh.window)).max(dropped_before);
    let floor = floor + (-floor).rem_euclid(width);
    let upto = (now - seconds(life.refresh.lag)).div_euclid(width) * width;
    let from = filled_to.unwrap_or(floor).max(floor).min(upto);

    let rows = client.query_typed(TAKE_TOUCHED, &[(&rollup.name, Type::TEXT)]).await?;
    let mut touched = BTreeSet::new();
    for row in rows {
        let bucket = row.try_get::<_, i64>(0)?.div_euclid(width) * width;
        if (floor..from).contains(&bucket) {
            touched.insert(bucket);
        }
    }
    let mut spans = spans(&touched, width);
    let corrected = spans.len();
    if from < upto {
        spans.push(from..upto);
    }
    let mut refreshed = Refreshed { corrected, rows: 0, expired: 0 };
    for span in &spans {
        client.batch_execute(&clear(rollup, span)).await?;
        refreshed.rows += client.execute_typed(&fill(rollup, span), &[]).await?;
    }
    for coarser in ROLLUPS.iter().filter(|coarser| coarser.source == rollup.name) {
        let width = seconds(coarser.bucket.length());
        let buckets: BTreeSet<i64> = spans
            .iter()
            .flat_map(|span| {
                (span.start.div_euclid(width)..=(span.end - 1).div_euclid(width)).map(|n| n * width)
            })
            .collect();
        let buckets: Vec<i64> = buckets.into_iter().collect();
        client.query_typed(TOUCH, &[(&coarser.name, Type::TEXT), (&buckets, Type::INT8_ARRAY)]).await?;
    }
    // What is filled already may go further, by a lag that was shorter.
    let over = filled_to.unwrap_or(upto).max(upto);
    let end = now.div_euclid(width) * width + width;
    refreshed.rows += running(client, rollup, &(over..end), when.real_time).await?;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let upto = upto as f64;
    client.execute_typed(SETTLE, &[(&rollup.name, Type::TEXT), (&upto, Type::FLOAT8)]).await?;
    if let Some(age) = life.retention.age() {
        let expire =
            format!("DELETE FROM {} WHERE {BUCKET} < now() - make_interval(secs => $1)", rollup.name);
        refreshed.expired = client.execute_typed(&expire, &[(&age.as_secs_f64(), Type::FLOAT8)]).await?;
    }
    Ok(Some(refreshed))
}

/// Sums up the buckets that are not over yet, or takes away what an earlier run has left of them; how many
/// rows were written. The next refresh replaces them: they lie behind where the roll-up is filled to.
async fn running(
    client: &Client,
    rollup: &Rollup,
    span: &Range<i64>,
    real_time: bool,
) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute(&clear(rollup, span)).await?;
    if real_time { client.execute_typed(&fill(rollup, span), &[]).await } else { Ok(0) }
}

/// Spans of buckets that hold all of `touched`, in order and apart.
fn spans(touched: &BTreeSet<i64>, width: i64) -> Vec<Range<i64>> {
    let mut spans: Vec<Range<i64>> = Vec::new();
    for &bucket in touched {
        match spans.last_mut() {
            Some(last) if bucket - last.end <= JOINED * width => last.end = bucket + width,
            Some(_) | None => spans.push(bucket..bucket + width),
        }
    }
    spans
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX / 2)
}

fn within(column: &str, span: &Range<i64>) -> String {
    format!(
        "{column} >= to_timestamp({}::float8) AND {column} < to_timestamp({}::float8)",
        span.start, span.end
    )
}

fn clear(rollup: &Rollup, span: &Range<i64>) -> String {
    format!("DELETE FROM {} WHERE {}", rollup.name, within(BUCKET, span))
}

fn fill(rollup: &Rollup, span: &Range<i64>) -> String {
    let (columns, values): (Vec<&str>, Vec<&str>) = rollup.values().unzip();
    let keys = rollup.keys.join(", ");
    let time = rollup.source().time();
    let unit = match rollup.bucket {
        Bucket::Minute => "minute",
        Bucket::Hour => "hour",
        Bucket::Day => "day",
    };
    let source = match rollup.source() {
        Source::Table(table) => table.name,
        Source::Rollup(finer) => finer.name,
    };
    format!(
        "INSERT INTO {} ({BUCKET}, {keys}, {}) SELECT date_trunc('{unit}', {time}, 'UTC'), {keys}, {} \
           FROM {source} \
         WHERE {} GROUP BY 1, {keys}",
        rollup.name,
        columns.join(", "),
        values.join(", "),
        within(time, span),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_near_each_other_are_one_span_and_others_are_apart() {
        let touched = BTreeSet::from([0, 60, 300, 6_000, 6_660]);
        assert_eq!(spans(&touched, 60), [0..360, 6_000..6_720]);
        assert_eq!(spans(&BTreeSet::from([0, 61 * 60]), 60), [0..60, 3_660..3_720]);
        assert_eq!(spans(&BTreeSet::new(), 60), []);
    }
}
