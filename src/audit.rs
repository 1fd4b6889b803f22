//! The proof, for one pipeline, that every message up to the checkpoint is where it belongs once.
//!
//! Guarantees: everything is read from one snapshot of the database, so that a daemon may run meanwhile. Where a table
//! keeps `$sequence`, each sequence is judged by itself; memory stays small, since the server sorts and only tells of
//! gaps and of what is not as it should be. For each gap the stream is asked whether it holds a message there. Where a
//! table keeps `$element` too, so is each element but for the last ones of a message, whose number nobody keeps. Where no
//! table keeps `$sequence`, messages and rows are counted. What cannot be proven is said, and never taken for proven.
//!
//! What the tables drop by age is left out: messages that were stored before the age began ([`retention`]).
//!
//! It changes nothing. It cannot see what nobody kept: messages that the stream has dropped by now, rows whose values
//! were changed, dead letters that were deleted by hand (they look missing).

use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamError;

use crate::checkpoint::Claim;
use crate::config::{self, Config, OnConflict, OnUnmatched};
use crate::identity;
use crate::nats;
use crate::postgres::connect::{self, ConnectError};
use crate::postgres::introspect::{self, IntrospectError};
use crate::stored::Opened;

pub(crate) mod contents;
mod ledger;
mod report;
mod retention;

use contents::Contents;
use ledger::{Ledger, Loss, Place, Rule};
pub use report::{Counts, Difference, Method, Report};

/// How the servers know the sessions of an audit.
const CLIENT_NAME: &str = "jetcopy audit";

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No database session.
    #[error("no database connection")]
    Postgres(#[from] ConnectError),
    /// No connection to NATS.
    #[error("no connection to NATS")]
    Nats(#[from] nats::ConnectError),
    /// A target table cannot be read.
    #[error("cannot use the target table")]
    Introspect(#[from] IntrospectError),
    /// The database refused a question.
    #[error("cannot {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// The stream cannot be opened.
    #[error("cannot open stream {stream}")]
    Stream {
        /// Its name.
        stream: String,
        /// What the client said.
        source: GetStreamError,
    },
    /// The stream refused a question.
    #[error("cannot ask the stream what it holds")]
    Contents(#[source] async_nats::Error),
    /// Nothing was carried yet.
    #[error("pipeline {0} has no checkpoint yet: it has carried nothing")]
    NoCheckpoint(String),
}

/// Audits one pipeline from sequence `since` on.
pub async fn audit(
    config: &Config,
    pipeline: &config::Pipeline,
    since: Option<u64>,
) -> Result<Report, Error> {
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await?;
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await?;
    let stream = jetstream::new(connection.client.clone())
        .get_stream(&pipeline.stream)
        .await
        .map_err(|source| Error::Stream { stream: pipeline.stream.clone(), source })?;
    let stream = Opened { client: connection.client.clone(), stream };
    let mut places: Vec<Place> = Vec::new();
    for table in &pipeline.tables {
        let qualified = introspect::introspect(&session.client, &table.name).await?.qualified;
        let place = Place::new(table, qualified);
        if !places.iter_mut().any(|known| known.merge(&place)) {
            places.push(place);
        }
    }
    let ledger = Ledger::open(&session.client, &pipeline.name, places).await?;
    let report = Audit { config, pipeline, stream: &stream, ledger: &ledger }.run(since).await;
    // Closing the connection ends the snapshot.
    session.close().await;
    report
}

struct Audit<'a> {
    config: &'a Config,
    pipeline: &'a config::Pipeline,
    stream: &'a Opened,
    ledger: &'a Ledger<'a>,
}

impl Audit<'_> {
    async fn run(&self, since: Option<u64>) -> Result<Report, Error> {
        let pipeline = self.pipeline;
        let Some(position) = self.ledger.position().await? else {
            return Err(Error::NoCheckpoint(pipeline.name.clone()));
        };
        let mut report = Report::new(pipeline, position.checkpoint);
        let milestones = self.ledger.milestones(&position.shard).await?;
        let claim = Claim {
            epoch: 0,
            known_sequence: 0,
            accepted: 0,
            last_sequence: position.checkpoint,
            stream_created_ns: position.stream_created_us.map(|us| us.saturating_mul(1_000)),
            last_timestamp_us: position.last_timestamp_us,
        };
        let same = identity::is_same(self.stream, &claim, &milestones).await;
        if !same.map_err(|error| Error::Contents(error.into()))? {
            report.not_proven.push(
                "the stream was recreated after the checkpoint: nothing can be compared with it".to_owned(),
            );
            return Ok(report);
        }
        let from = since.unwrap_or(1);
        report.from = from.max(position.ambiguous_to + 1);
        if position.ambiguous_to >= from {
            self.counted_twice(&mut report, from, position.ambiguous_to).await?;
        }
        self.leave_out_expired(&mut report).await?;
        for place in &self.ledger.places {
            if let Some(other) = self.shares(&place.name) {
                report.not_proven.push(format!("table {}: pipeline {other} writes to it too", place.name));
                return Ok(report);
            }
            match (&place.column, place.rule) {
                (_, Rule::Once) => {}
                (_, Rule::AtMostOnce) => report.not_proven.push(format!(
                    "table {}: with on_conflict or `when` a message may have no row of its own",
                    place.name
                )),
                (Some(_), Rule::Any) if place.element.is_some() => report.not_proven.push(format!(
                    "table {}: how many elements a message had after the last one that is there is not kept anywhere",
                    place.name
                )),
                (Some(_), Rule::Any) => report.not_proven.push(format!(
                    "table {}: how many rows a message makes by for_each, unpivot or several entries is not kept anywhere",
                    place.name
                )),
                (None, Rule::Any) => report
                    .not_proven
                    .push(format!("table {}: its rows do not say which message they came from", place.name)),
            }
        }
        if self.ledger.places.iter().any(|place| place.column.is_some()) {
            self.by_sequence(&mut report).await?;
        } else {
            self.by_count(&mut report, since).await?;
        }
        Ok(report)
    }

    /// Sequences that two histories of the stream have each: a row of either is as it should be, two of one message are not. Which
    /// they are, the time tells at which the stream stored the message.
    async fn counted_twice(&self, report: &mut Report, from: u64, last: u64) -> Result<(), Error> {
        report.not_proven.push(format!(
            "sequences up to {last} counted twice, since the stream was recreated or rolled back"
        ));
        for place in self.ledger.places.iter().filter(|place| place.rule != Rule::Any) {
            let several = self.ledger.several(place, from, last).await?;
            match &place.time {
                Some(_) => {
                    for &(sequence, times) in &several {
                        report.add(Difference::Twice { sequence, table: place.name.clone(), times });
                    }
                }
                None if several.is_empty() => {}
                None => report.not_proven.push(format!(
                    "table {}: {} of these sequences have several rows; whether they are of the same message nobody can tell, \
                     since no column keeps $timestamp",
                    place.name,
                    several.len()
                )),
            }
        }
        Ok(())
    }

    /// Begins after the messages whose rows a table may have dropped by their age. What the stream itself has dropped is no
    /// difference anyway.
    async fn leave_out_expired(&self, report: &mut Report) -> Result<(), Error> {
        let Some(expired) = retention::expired(self.ledger).await? else { return Ok(()) };
        let last = identity::kept_sequence(self.stream, expired.before_us)
            .await
            .map_err(|error| Error::Contents(error.into()))?
            .min(report.checkpoint);
        if last >= self.stream.cached_info().state.first_sequence && last >= report.from {
            report.not_proven.push(format!(
                "sequences up to {last}: table {} drops its rows by age, and theirs may be gone",
                expired.table
            ));
            report.from = last + 1;
        }
        Ok(())
    }

    /// Another pipeline that fills the same table: its sequences cannot be told from this one's.
    fn shares(&self, table: &str) -> Option<&str> {
        let mut others = self.config.pipelines.iter().filter(|other| other.name != self.pipeline.name);
        others
            .find(|other| other.tables.iter().any(|found| found.name == table))
            .map(|other| other.name.as_str())
    }

    /// Whether the pipeline passes over markers: no table asks for any by a header.
    fn passes_over(&self) -> bool {
        let asks = |table: &config::Table| table.when.as_ref().is_some_and(|when| !when.headers.is_empty());
        !self.pipeline.tables.iter().any(asks)
    }

    async fn by_sequence(&self, report: &mut Report) -> Result<(), Error> {
        let kept = self.ledger.places.iter().filter(|place| place.column.is_some());
        report.method = Method::Sequences { tables: kept.clone().map(|place| place.name.clone()).collect() };
        // Without a table that has one row of every message, a message without a row is no difference. When each table takes
        // only messages of its kind, the tables together have one.
        let whole = |table: &config::Table| {
            table.for_each.is_none() && table.unpivot.is_none() && table.on_conflict == OnConflict::Error
        };
        let complete = kept.clone().any(|place| place.rule == Rule::Once)
            || self.pipeline.on_unmatched == OnUnmatched::DeadLetter
                && self.pipeline.tables.iter().all(whole)
                && self.ledger.places.iter().all(|place| place.column.is_some());
        for place in
            self.ledger.places.iter().filter(|place| place.column.is_none() && place.rule == Rule::Once)
        {
            report.not_proven.push(format!("table {}: no column keeps $sequence", place.name));
        }
        let losses = self.ledger.losses(report.from).await?;
        let contents = Contents::new(self.stream, &self.pipeline.subjects);
        let passes_over = self.passes_over();
        let mut gaps = Gaps { contents, losses, complete, passes_over };
        let mut next = report.from;
        let mut findings = std::pin::pin!(self.ledger.walk(report.from, report.checkpoint).await?);
        while let Some(finding) = ledger::next(&mut findings).await? {
            gaps.judge(report, finding.before + 1, finding.sequence.min(report.checkpoint + 1)).await?;
            next = finding.sequence + 1;
            report.counts.committed = finding.committed;
            report.counts.dead_letters = finding.dead_letters;
            finding.differences(self.ledger, report);
        }
        gaps.judge(report, next, report.checkpoint + 1).await?;
        for place in &self.ledger.places {
            let Some(element) = &place.element else { continue };
            let found = self.ledger.elements(place, element, report.from, report.checkpoint).await?;
            let mut found = std::pin::pin!(found);
            while let Some(wrong) = ledger::next(&mut found).await? {
                let ledger::Uneven { sequence, elements, there, times } = wrong;
                let table = place.name.clone();
                report.add(Difference::Elements { sequence, table, elements, there, times });
            }
        }
        Ok(())
    }

    async fn by_count(&self, report: &mut Report, since: Option<u64>) -> Result<(), Error> {
        let Some(place) = self.ledger.places.iter().find(|place| place.rule == Rule::Once) else {
            return Ok(());
        };
        let first = self.stream.cached_info().state.first_sequence;
        if first > 1 || since.is_some() || report.from > 1 {
            report.not_proven.push(format!(
                "table {}: no column keeps $sequence, and rows can only be counted against a stream that still holds \
                 all that it ever held (it begins at {first})",
                place.name
            ));
            return Ok(());
        }
        report.method = Method::Counts { table: place.name.clone() };
        let contents = Contents::new(self.stream, &self.pipeline.subjects);
        let messages = contents.count_to(report.checkpoint).await.map_err(Error::Contents)?;
        let deleted = self.stream.cached_info().state.deleted_count.unwrap_or(0);
        let (rows, dead_letters) = self.ledger.count(place).await?;
        report.counts.committed = rows;
        report.counts.dead_letters = dead_letters;
        if rows + dead_letters < messages && self.passes_over() {
            let markers = contents.markers_to(report.checkpoint).await.map_err(Error::Contents)?;
            report.counts.passed_over = markers;
        }
        let expected = messages.saturating_sub(report.counts.passed_over);
        // A message that was deleted from the stream may have been carried before.
        if !(expected..=expected + deleted).contains(&(rows + dead_letters)) {
            report.add(Difference::Count { messages, rows, dead_letters });
        }
        Ok(())
    }
}

/// What becomes of sequences that no table and no dead letter has.
struct Gaps<'a> {
    contents: Contents<'a>,
    losses: Vec<Loss>,
    complete: bool,
    /// Whether the pipeline passes over markers: no table asks for any by a header.
    passes_over: bool,
}

impl Gaps<'_> {
    /// Judges the sequences from `from` to below `to`.
    async fn judge(&mut self, report: &mut Report, mut from: u64, to: u64) -> Result<(), Error> {
        while from < to {
            let loss = self.losses.iter().position(|loss| loss.last >= from && loss.first < to);
            let range = loss.map_or(to..to, |index| {
                let loss = &self.losses[index];
                loss.first.max(from)..(loss.last + 1).min(to)
            });
            self.judge_unrecorded(report, from, range.start, &mut 0).await?;
            match loss.map(|index| (index, self.losses[index].superseded)) {
                // Of such a range some were carried, and some may be missing: the stream is asked.
                Some((index, Some(mut superseded))) => {
                    self.judge_unrecorded(report, range.start, range.end, &mut superseded).await?;
                    self.losses[index].superseded = Some(superseded);
                }
                Some((_, None)) | None => report.counts.lost += range.end - range.start,
            }
            from = range.end;
        }
        Ok(())
    }

    /// Judges a range of which so many are known to have been `superseded`; takes off what it found of them.
    async fn judge_unrecorded(
        &mut self,
        report: &mut Report,
        mut from: u64,
        to: u64,
        superseded: &mut u64,
    ) -> Result<(), Error> {
        let first = self.contents.first_sequence();
        let gone = first.clamp(from, to.max(from)) - from;
        report.counts.dropped_by_now += report.counts.others(gone, superseded);
        from += gone;
        if !self.complete {
            report.counts.not_judged += report.counts.others(to.saturating_sub(from), superseded);
            return Ok(());
        }
        while from < to {
            let found = self.contents.next(from).await.map_err(Error::Contents)?.filter(|&found| found < to);
            report.counts.not_in_stream += report.counts.others(found.unwrap_or(to) - from, superseded);
            let Some(sequence) = found else { break };
            if self.passes_over && self.contents.is_passed_over() {
                report.counts.passed_over += 1;
            } else {
                report.add(Difference::Missing { first_sequence: sequence, last_sequence: sequence });
            }
            from = sequence + 1;
        }
        Ok(())
    }
}

impl ledger::Finding {
    /// Adds what is wrong about one sequence.
    fn differences(&self, ledger: &Ledger<'_>, report: &mut Report) {
        let sequence = self.sequence;
        let kept = || ledger.places.iter().filter(|place| place.column.is_some()).zip(&self.rows);
        if sequence > report.checkpoint {
            report.add(Difference::Unknown { sequence });
            return;
        }
        if self.dead > 1 || self.dead > 0 && self.dead_elements > 0 {
            let table = "jetcopy.dead_letters".to_owned();
            report.add(Difference::Twice { sequence, table, times: self.dead + self.dead_elements });
        }
        if self.dead > 0 && self.rows.iter().any(|&rows| rows > 0) {
            report.add(Difference::RowAndDeadLetter { sequence });
        }
        for (place, &rows) in kept() {
            if rows > 1 && place.rule != Rule::Any {
                report.add(Difference::Twice { sequence, table: place.name.clone(), times: rows });
            }
            if rows == 0 && place.rule == Rule::Once && self.dead == 0 {
                report.add(Difference::Incomplete { sequence, table: place.name.clone() });
            }
        }
    }
}
