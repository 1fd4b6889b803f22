//! Messages that were committed, by sequence and time: what a stream is known by.
//!
//! Guarantees: a milestone is written in the transaction that commits its message, so that none says more
//! than the tables hold. Of the last [`DENSE`] there is each, of older ones one in 16, 256, 4,096: some
//! dozens a shard, and two more a day.
//!
//! Not guaranteed: that any is near a certain place. Between two of them, times alone tell
//! ([`crate::identity`]).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Client;

use crate::postgres::interval::timestamp;
use crate::postgres::simple::{self, ask};

/// How often one is written while there is something to commit: two small statements in a round trip that is
/// there anyway, so seldom that a drain does not feel it.
const EVERY: Duration = Duration::from_secs(10);

/// How many stay of each step of age.
const DENSE: i64 = 16;

/// A message that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Milestone {
    pub sequence: u64,
    /// When the stream stored it, in microseconds since the Unix epoch.
    pub stored_us: i64,
}

/// When a writer is to write one: with its first commit, then every ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Due(Mutex<Option<Instant>>);

impl Due {
    /// Whether one is due.
    #[must_use]
    pub(crate) fn is_due(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| last.elapsed() >= EVERY)
    }

    /// One was committed.
    pub(crate) fn written(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// SQL that adds a milestone and thins out the older ones, for the transaction that commits its message.
/// Statements end with semicolons.
#[must_use]
pub(crate) fn add(shard: &str, sequence: u64, timestamp_ns: i64) -> String {
    let (shard, time) = (escape_literal(shard), timestamp(timestamp_ns));
    let (second, third) = (DENSE * DENSE, DENSE * DENSE * DENSE);
    format!(
        "INSERT INTO jetcopy.milestones (shard, number, sequence, stored_at) \
         SELECT {shard}, coalesce(max(number), 0) + 1, {sequence}, {time} FROM jetcopy.milestones \
         WHERE shard = {shard}; \
         DELETE FROM jetcopy.milestones USING (SELECT max(number) AS newest FROM jetcopy.milestones \
           WHERE shard = {shard}) last WHERE shard = {shard} AND number % {DENSE}::bigint <> 1 \
           AND number <= newest - {DENSE} \
           OR shard = {shard} AND number % {second}::bigint <> 1 AND number <= newest - {second} \
           OR shard = {shard} AND number % {third}::bigint <> 1 AND number <= newest - {third}; "
    )
}

/// SQL that adds the milestones that a query brings: `shard`, `sequence`, `stored_at`. It ends with a
/// semicolon.
#[must_use]
pub(crate) fn add_of(query: &str) -> String {
    format!(
        "INSERT INTO jetcopy.milestones (shard, number, sequence, stored_at) \
         SELECT shard, \
           1 + (SELECT coalesce(max(number), 0) FROM jetcopy.milestones known WHERE known.shard = at.shard), \
           sequence, stored_at \
         FROM ({query}) at ON CONFLICT DO NOTHING;"
    )
}

/// SQL that forgets the milestones of a shard after `sequence`: they are of another history. It ends with a
/// semicolon.
#[must_use]
pub(crate) fn forget_after(shard: &str, sequence: u64) -> String {
    format!(
        "DELETE FROM jetcopy.milestones WHERE shard = {} AND sequence > {sequence}; ",
        escape_literal(shard)
    )
}

/// The milestones of a shard.
pub(crate) async fn read(client: &Client, shard: &str) -> Result<Vec<Milestone>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT sequence, (extract(epoch FROM stored_at) * 1000000::numeric)::bigint FROM jetcopy.milestones \
         WHERE shard = {}",
        escape_literal(shard)
    );
    let milestone =
        |row| Some(Milestone { sequence: simple::number(row, 0)?, stored_us: simple::number(row, 1)? });
    Ok(ask(client, &sql).await?.rows().filter_map(milestone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Postgres;
    use crate::migrate::migrate;
    use crate::testbed::{TestPostgres, connect};

    #[tokio::test]
    async fn of_new_milestones_all_stay_and_of_old_ones_some() {
        let server = TestPostgres::shared().unwrap();
        let url = server.create_database().await.unwrap();
        migrate(&Postgres { url: url.clone(), ..Postgres::default() }).await.unwrap();
        let client = connect(&url).await.unwrap();
        for sequence in 1..=600_u64 {
            let time = i64::try_from(sequence).unwrap() * 1_000;
            client.batch_execute(&add("other's", 7, 7_000)).await.unwrap();
            client.batch_execute(&add("it's", sequence, time)).await.unwrap();
        }
        let mut kept = read(&client, "it's").await.unwrap();
        kept.sort_unstable_by_key(|milestone| milestone.sequence);
        assert!(kept.iter().all(|kept| kept.stored_us == i64::try_from(kept.sequence).unwrap()), "{kept:?}");
        let kept: Vec<u64> = kept.iter().map(|milestone| milestone.sequence).collect();
        let all = [1, 257].into_iter().chain((353..=577).step_by(16)).chain(585..=600);
        assert_eq!(kept, all.collect::<Vec<u64>>());
        client.batch_execute(&forget_after("it's", 257)).await.unwrap();
        assert_eq!(read(&client, "it's").await.unwrap().len(), 2);
        assert!(!read(&client, "other's").await.unwrap().is_empty());
    }
}
