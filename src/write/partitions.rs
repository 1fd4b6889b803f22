//! What the rows of a batch need where TimescaleDB is not installed: partitions, and a word to the roll-ups.
//!
//! Guarantees: after [`Writer::add_partitions`] each day of the batch's rows has its partition, or its messages are dead
//! letters that say why not. It runs between two attempts to write the batch, in transactions of its own: the partitions
//! stay if the daemon dies, and the checkpoint does not move.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Span;
use jiff::civil::date;
use postgres_protocol::escape::escape_literal;
use tokio::time::timeout;
use tokio_postgres::{Error as DatabaseError, SimpleQueryMessage};

use super::refused::Poisoned;
use super::{Error, Writer, within};
use crate::batch::{Batch, Row, TableRows};
use crate::checkpoint;
use crate::copy::Target;
use crate::dead_letter::DeadLetter;
use crate::decode::PoisonKind;
use crate::metrics;
use crate::postgres::sqlstate::{Decision, Step, decide};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// 4713 BC, where PostgreSQL's dates begin; minus infinity is taken for it.
const FIRST_DAY: i64 = -2_451_545;

/// 9999-12-31, the last one that people write; what comes after it, up to infinity, is taken for it.
const LAST_DAY: i64 = 2_921_939;

/// Days asked for in one transaction. It holds about four locks for each partition that it makes, and the server has room
/// for some thousands over all sessions by default.
const DAYS_AT_ONCE: usize = 50;

/// What the server says about days, each counted from 2000-01-01.
enum Answer {
    /// No partition takes these; the others have theirs.
    LeftOut(BTreeSet<i64>),
    /// Somebody else partitions the table.
    Foreign,
}

/// SQL that tells the roll-ups which of their buckets the batch changes; empty where there are none.
pub(crate) fn touches(targets: &[Target], tables: &[TableRows]) -> String {
    let mut sql = String::new();
    for (target, rows) in targets.iter().zip(tables) {
        if target.time_column.is_none() || rows.rows.is_empty() {
            continue;
        }
        for rollup in &target.rollups {
            // Days that are no days of people have no buckets.
            let rows = rows.rows.iter().filter(|row| (FIRST_DAY + 1..LAST_DAY).contains(&day_of(row)));
            let buckets: BTreeSet<i64> = rows.map(|row| row.time.div_euclid(rollup.width)).collect();
            let list = buckets.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            // Writing to a string cannot fail.
            let _ = write!(
                sql,
                "SELECT jetcopy.touch({}, ARRAY(SELECT timestamptz '2000-01-01Z' + n * interval '{} us' \
                 FROM unnest('{{{list}}}'::int8[]) AS n)); ",
                escape_literal(&rollup.name),
                rollup.width,
            );
        }
    }
    sql
}

/// What came of adding partitions.
pub(super) enum Added {
    /// Every day has its partition.
    All,
    /// Some have none, and their messages are dead letters by now.
    LeftOut,
    /// Something is in the way, and passes.
    Busy(Error),
    /// Somebody else partitions the table.
    Foreign,
}

impl Writer {
    /// Adds the partitions that the rows for `table` need. Messages of days that get none become dead letters.
    pub(super) async fn add_partitions(
        &self,
        batch: &Batch,
        poisoned: &mut Poisoned,
        table: usize,
    ) -> Result<Added, Error> {
        let target = &self.targets[table];
        self.at(metrics::Step::Partitions(target.name.clone()));
        let days: Vec<i64> = match &target.time_column {
            Some(_) => {
                let rows = batch.rows.tables[table].rows.iter();
                let rows = rows.filter(|row| !poisoned.excluded.holds(table, row));
                let days: BTreeSet<i64> = rows.map(day_of).collect();
                days.into_iter().collect()
            }
            // The server writes the time, as a rule that of the moment.
            None => Vec::new(),
        };
        let mut left_out = BTreeSet::new();
        for some in days.chunks(DAYS_AT_ONCE).chain(days.is_empty().then_some(&[][..])) {
            match self.ask_for(&target.qualified, some).await? {
                Ok(Answer::LeftOut(days)) => left_out.extend(days),
                Ok(Answer::Foreign) => return Ok(Added::Foreign),
                Err(source) => {
                    let again = decide(&source, Step::Own) == Decision::Retry;
                    let error = Error::Partitions { table: target.name.clone(), source };
                    if !again {
                        return Err(error);
                    }
                    within(self.step_timeout, "roll back", checkpoint::rollback(&self.session)).await?;
                    return Ok(Added::Busy(error));
                }
            }
        }
        tracing::info!(
            pipeline = self.place.pipeline,
            table = target.name,
            days = days.len().max(1) - left_out.len(),
            left_out = left_out.len(),
            "rows had no partition: looked to it that their days have one"
        );
        if left_out.is_empty() {
            return Ok(Added::All);
        }
        self.leave_out(batch, poisoned, table, &left_out)?;
        Ok(Added::LeftOut)
    }

    /// Makes dead letters of the messages with rows of these days.
    fn leave_out(
        &self,
        batch: &Batch,
        poisoned: &mut Poisoned,
        table: usize,
        days: &BTreeSet<i64>,
    ) -> Result<(), Error> {
        let target = &self.targets[table];
        for row in &batch.rows.tables[table].rows {
            let day = day_of(row);
            if !days.contains(&day) || poisoned.excluded.holds(table, row) {
                continue;
            }
            self.exclude(poisoned, batch, self.unit_of(table, row), Some(table), |letter| DeadLetter {
                kind: PoisonKind::Range.as_str(),
                sqlstate: Some("23514".to_owned()),
                message: format!(
                    "no partition of {} takes {}, and jetcopy adds them for days up to 1,000 back and 7 ahead only",
                    target.name,
                    name_of(day),
                ),
                column: target.time_column.clone(),
                ..letter
            })?;
        }
        Ok(())
    }

    /// Asks the server for the partitions of some days, or of today where there are none.
    async fn ask_for(&self, table: &str, days: &[i64]) -> Result<Result<Answer, DatabaseError>, Error> {
        let list = days.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let days = if days.is_empty() {
            "ARRAY[(now() AT TIME ZONE 'UTC')::date]".to_owned()
        } else {
            format!("ARRAY(SELECT date '2000-01-01' + n FROM unnest('{{{list}}}'::int[]) AS n)")
        };
        let sql = format!(
            "{}SELECT array_to_string(ARRAY(SELECT day - date '2000-01-01' FROM unnest(left_out) AS day), ',') \
             FROM jetcopy.add_partitions({}::regclass, {days}) AS left_out WHERE left_out IS NOT NULL; \
             COMMIT",
            checkpoint::begin_sql(&self.session),
            escape_literal(table),
        );
        let answer = timeout(self.step_timeout, self.session.client.simple_query(&sql))
            .await
            .map_err(|_| Error::Timeout { action: "add partitions", after: self.step_timeout })?;
        Ok(answer.map(|messages| {
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) if !row.is_empty() => row.get(0),
                _ => None,
            });
            match row {
                Some(days) => Answer::LeftOut(days.split(',').filter_map(|day| day.parse().ok()).collect()),
                None => Answer::Foreign,
            }
        }))
    }
}

/// The day of a row, counted from 2000-01-01 in UTC.
fn day_of(row: &Row) -> i64 {
    row.time.div_euclid(DAY).clamp(FIRST_DAY, LAST_DAY)
}

/// A day for people.
fn name_of(day: i64) -> String {
    let name = Span::new().try_days(day).and_then(|days| date(2000, 1, 1).checked_add(days));
    match name {
        Ok(name) if day < LAST_DAY => name.to_string(),
        Ok(_) | Err(_) => "9999-12-31 or a later day".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_day_that_the_server_knows() {
        let of = |time| day_of(&Row { start: 0, message: 0, element: 0, time });
        assert_eq!([of(-1), of(0), of(DAY - 1), of(DAY)], [-1, 0, 0, 1]);
        assert_eq!([of(i64::MIN), of(i64::MAX)], [FIRST_DAY, LAST_DAY]);
        assert_eq!(name_of(FIRST_DAY), "-004713-11-24");
        assert_eq!(name_of(-10_957), "1970-01-01");
        assert_eq!(name_of(LAST_DAY - 1), "9999-12-30");
        assert_eq!(name_of(LAST_DAY), "9999-12-31 or a later day");
    }
}
