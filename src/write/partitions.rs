//! What the rows of a batch need where TimescaleDB is not installed: partitions, and a word to the roll-ups.
//!
//! Guarantees: after [`Writer::add_partitions`] each day of the batch's rows has its partition, or its
//! messages are dead letters that say why not. It runs between two attempts to write the batch, in
//! transactions of its own: the partitions stay if the daemon dies, and the checkpoint does not move.
//!
//! A partition that is missing is the table's fault, not a message's: where somebody else partitions the
//! table, or has a partition in the way, the pipeline pauses until it is there. Only a day beyond
//! `store.partitions_back` and `store.partitions_ahead` is the message's, as of a wrong clock, whoever
//! partitions the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Span;
use jiff::civil::date;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error as DatabaseError;

use super::refused::Poisoned;
use super::{Error, Writer, within};
use crate::batch::{Batch, Row, TableRows};
use crate::catalog::bounds::Bounds;
use crate::checkpoint;
use crate::copy::{CopyError, Target};
use crate::dead_letter::DeadLetter;
use crate::metrics;
use crate::poison::PoisonKind;
use crate::postgres::connect::Session;
use crate::postgres::interval;
use crate::postgres::simple::ask;
use crate::postgres::sqlstate::{self, Decision, Step, decide};
use crate::store::bounds;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// 4713 BC, where PostgreSQL's dates begin; minus infinity is taken for it.
const FIRST_DAY: i64 = -2_451_545;

/// 9999-12-31, the last one that people write; what comes after it, up to infinity, is taken for it.
const LAST_DAY: i64 = 2_921_939;

/// Days asked for in one transaction. It holds about four locks for each partition that it makes, and the
/// server has room for some thousands over all sessions by default.
const DAYS_AT_ONCE: usize = 50;

/// What the server says about the partitions of some days, each counted from 2000-01-01.
#[derive(Debug)]
pub(crate) struct Answer {
    /// No partition takes these, and jetcopy adds none; the others have theirs, as far as that can be told.
    without: BTreeSet<i64>,
    /// Whether jetcopy partitions the table.
    ours: bool,
    /// Today.
    today: i64,
    /// How far from today jetcopy adds partitions, as the database has it.
    bounds: Bounds,
}

impl Answer {
    /// The days without a partition that are beyond the bounds.
    fn beyond(&self) -> impl Iterator<Item = i64> {
        self.without.iter().copied().filter(|day| !self.bounds.hold(day - self.today))
    }

    /// Why rows of a day beyond the bounds are refused.
    fn reason(&self, table: &str, day: i64) -> String {
        let (day, bounds) = (name_of(day), self.bounds);
        if self.ours {
            format!("no partition of {table} covers {day}, and jetcopy adds partitions only within {bounds}")
        } else {
            format!("no partition of {table} covers {day}, and jetcopy waits only for days within {bounds}")
        }
    }

    /// Why rows are refused, where there is a day beyond the bounds among theirs.
    pub(crate) fn refusal(&self, table: &str) -> Option<String> {
        self.beyond().next().map(|day| self.reason(table, day))
    }
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
                "SELECT jetcopy.touch({}, ARRAY(SELECT timestamptz '2000-01-01Z' + n::float8 * interval '{}' \
                 FROM pg_catalog.unnest('{{{list}}}'::int8[]) AS n)); ",
                escape_literal(&rollup.name),
                interval::exact(Duration::from_micros(rollup.width.unsigned_abs())),
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
    /// Somebody else partitions the table, and has none for a row.
    Foreign,
}

impl Writer {
    /// Adds the partitions that the rows for `table` need. Messages of days that are too far away become dead
    /// letters.
    pub(super) async fn add_partitions(
        &self,
        batch: &Batch,
        poisoned: &mut Poisoned,
        table: usize,
    ) -> Result<Added, Error> {
        let target = &self.targets[table];
        self.at(metrics::Step::Partitions(target.name.clone()));
        let rows = of_part(batch, poisoned, table).iter();
        let days = days(target, rows.filter(|row| !poisoned.excluded.holds(table, row)));
        let (mut ours, mut beyond) = (true, BTreeMap::new());
        for some in days.chunks(DAYS_AT_ONCE).chain(days.is_empty().then_some(&[][..])) {
            let asked = ask_for(&self.session, &target.qualified, some);
            match within(self.step_timeout, "adding partitions", asked).await? {
                Ok(answer) => {
                    self.follows_settings(target, &answer)?;
                    ours &= answer.ours;
                    beyond.extend(answer.beyond().map(|day| (day, answer.reason(&target.name, day))));
                }
                Err(source) => {
                    let again = decide(&source, Step::Own) == Decision::Retry;
                    let error = Error::Partitions { table: target.name.clone(), source };
                    if !again {
                        return Err(error);
                    }
                    within(self.step_timeout, "during rollback", checkpoint::rollback(&self.session))
                        .await??;
                    return Ok(Added::Busy(error));
                }
            }
        }
        tracing::info!(
            pipeline = self.shard.pipeline,
            table = target.name,
            days = days.len().max(1) - beyond.len(),
            left_out = beyond.len(),
            added = ours,
            "rows had no partition; made sure that their days have one"
        );
        if !beyond.is_empty() {
            self.leave_out(batch, poisoned, table, &beyond)?;
            return Ok(Added::LeftOut);
        }
        Ok(if ours { Added::All } else { Added::Foreign })
    }

    /// Whether the database adds partitions as far as the configuration says: a row that only the latter
    /// wants is no dead letter.
    fn follows_settings(&self, target: &Target, answer: &Answer) -> Result<(), Error> {
        let set = self.partitions.over(answer.bounds);
        match answer.beyond().find(|day| set.hold(day - answer.today)) {
            None => Ok(()),
            Some(day) => {
                Err(Error::Bounds { table: target.name.clone(), day: name_of(day), kept: answer.bounds, set })
            }
        }
    }

    /// Makes dead letters of the messages with rows of these days, for these reasons.
    fn leave_out(
        &self,
        batch: &Batch,
        poisoned: &mut Poisoned,
        table: usize,
        days: &BTreeMap<i64, String>,
    ) -> Result<(), Error> {
        // Those of a later part have their turn: a letter now would be a second one.
        for row in of_part(batch, poisoned, table) {
            let Some(reason) = days.get(&day_of(row)) else { continue };
            if poisoned.excluded.holds(table, row) {
                continue;
            }
            self.exclude(poisoned, batch, self.unit_of(table, row), Some(table), |letter| DeadLetter {
                column: self.targets[table].time_column.clone(),
                ..beyond_bounds(letter, reason.clone())
            })?;
        }
        Ok(())
    }

    /// Why rows cannot be written for which a partition is missing that jetcopy does not make.
    pub(super) fn no_partition(&self, table: usize, error: CopyError) -> Error {
        let CopyError { source, .. } = error;
        let key = sqlstate::partition_key(&source).unwrap_or("some rows").to_owned();
        Error::NoPartition { table: self.targets[table].name.clone(), key, source }
    }
}

/// The rows of the part of a batch that is being written.
fn of_part<'b>(batch: &'b Batch, poisoned: &Poisoned, table: usize) -> &'b [Row] {
    let rows = &batch.rows.tables[table];
    &rows.rows[rows.of_messages(&poisoned.part)]
}

/// The letter of a message with a row of a day that is too far away.
pub(crate) fn beyond_bounds(original: DeadLetter, reason: String) -> DeadLetter {
    DeadLetter {
        kind: PoisonKind::Range.as_str(),
        sqlstate: Some("23514".to_owned()),
        message: reason,
        ..original
    }
}

/// The days of rows for a table; none where the server writes the time, as a rule that of the moment.
pub(crate) fn days<'r>(target: &Target, rows: impl Iterator<Item = &'r Row>) -> Vec<i64> {
    match &target.time_column {
        Some(_) => rows.map(day_of).collect::<BTreeSet<i64>>().into_iter().collect(),
        None => Vec::new(),
    }
}

/// Adds the partitions of some days to a table, or of today where there are none, in a transaction of its
/// own, as far as that is jetcopy's to do.
pub(crate) async fn ask_for(session: &Session, table: &str, days: &[i64]) -> Result<Answer, DatabaseError> {
    let list = days.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let days = if days.is_empty() {
        "ARRAY[(now() AT TIME ZONE 'UTC')::date]".to_owned()
    } else {
        format!("ARRAY(SELECT date '2000-01-01' + n FROM pg_catalog.unnest('{{{list}}}'::int[]) AS n)")
    };
    let sql = format!(
        "{}SELECT pg_catalog.array_to_string(ARRAY(SELECT day - date '2000-01-01' \
         FROM pg_catalog.unnest(coalesce(left_out, \
             jetcopy.days_without_partition(relation, days))) AS day), ','), left_out IS NOT NULL, \
             (now() AT TIME ZONE 'UTC')::date - date '2000-01-01', {} \
         FROM {}, (SELECT {}::regclass AS relation, {days} AS days) AS asked, \
             jetcopy.add_partitions(relation, days) AS left_out; \
         COMMIT",
        checkpoint::begin_sql(session),
        bounds::COLUMNS,
        bounds::TABLE,
        escape_literal(table),
    );
    let answers = ask(&session.client, &sql).await?;
    // The table of the bounds has one row, and its columns are never null.
    let number = |index| answers.number::<i64>(index).unwrap_or_default();
    let text = |index| answers.text(index).unwrap_or_default();
    let days = |index| u32::try_from(number(index)).unwrap_or_default();
    Ok(Answer {
        without: text(0).split(',').filter_map(|day| day.parse().ok()).collect(),
        ours: text(1) == "t",
        today: number(2),
        bounds: Bounds { back: days(3), ahead: days(4) },
    })
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
