//! The proof, for one pipeline, that every message up to the checkpoint is where it belongs once.
//!
//! Guarantees: everything is read from one snapshot of the database, so that a daemon may run meanwhile.
//! Where a table keeps `$sequence`, each sequence is judged by itself; memory stays small, since the server
//! sorts and only tells of gaps and of what is not as it should be. For each gap the stream is asked whether
//! it holds a message there. Where a table keeps `$element` too, so is each element but for the last ones of
//! a message, whose number nobody keeps. What sequences do not prove, rows do: the messages that the stream
//! holds are made into rows once more ([`remake`]), and the server compares these with what the tables hold
//! ([`compare`]). What cannot be proven is said, and never taken for proven.
//!
//! What the tables drop by age is left out: messages that were stored before the age began, and rows of such
//! times ([`retention`]).
//!
//! The ledger is followed in any case ([`seals`]): whether its seals are chains, and where messages are
//! read, whether they are those that were committed. Without the stream ([`offline`]) its counts are compared
//! with the tables.
//!
//! It changes nothing but what [`record`] records. It cannot see what nobody kept: messages that the stream
//! has dropped by now, and dead letters that were deleted manually (they look missing).

use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamError;

use crate::checkpoint;
use crate::config::{self, Config, OnConflict, OnUnmatched};
use crate::decode::{Decoder, PlanError};
use crate::identity;
use crate::lanes::Lanes;
use crate::loss::Recorded;
use crate::nats;
use crate::postgres::connect::{self, ConnectError, Session};
use crate::postgres::introspect::{self, IntrospectError};
use crate::shard::Shard;
use crate::stored::Opened;

mod compare;
pub(crate) mod contents;
mod remake;
mod report;
mod retention;
mod seals;
mod snapshot;
mod together;

use compare::Comparison;
use contents::Contents;
use remake::Remake;
pub(crate) use report::{Difference, Method, Report};
use seals::{Digests, Seals};
use snapshot::{Filled, Rule, Snapshot};
use together::{Other, shares};

/// How the servers know the sessions of an audit.
const CLIENT_NAME: &str = "jetcopy audit";

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
        stream: String,
        /// What the client said.
        source: GetStreamError,
    },
    /// The stream refused a question.
    #[error("cannot read what the stream holds")]
    Contents(#[source] async_nats::Error),
    /// Mapping and table do not go together.
    #[error("the mapping does not fit the table")]
    Plan(#[from] PlanError),
    /// The server does not take a row that a message makes, although no dead letter says so.
    #[error(
        "the server refuses a row for table {table} from sequence {sequence}, and there is no dead letter \
         for it; if it was discarded, audit with --since {}", sequence + 1
    )]
    Refused {
        table: String,
        sequence: u64,
        /// What the server said.
        source: tokio_postgres::Error,
    },
    /// Nothing was written yet.
    #[error("pipeline {0} has no checkpoint yet: it has written nothing")]
    NoCheckpoint(String),
}

/// What an audit looks at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scope {
    /// Sequences from here on.
    pub(crate) since: Option<u64>,
    /// The rows of tables whose sequences say all of where messages are, too, and what their messages are.
    pub(crate) full: bool,
}

/// Audits one shard of `pipeline` by the ledger alone, without its stream.
pub(crate) async fn offline(
    config: &Config,
    pipeline: &config::Pipeline,
    shard: &Shard,
    scope: Scope,
) -> Result<Report, Error> {
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await?;
    let (places, _) = filled(&session, pipeline).await?;
    let mut snapshot = Snapshot::open(&session.client, shard, places).await?;
    snapshot.change_nothing().await?;
    let Some(claim) = snapshot.claim().await? else {
        return Err(Error::NoCheckpoint(shard.to_string()));
    };
    let mut report = Report::new(shard, claim.last_sequence);
    report.method = Method::Seals;
    report.from = scope.since.unwrap_or(1);
    let seals = Seals::follow(&snapshot, &mut report).await?;
    let (alone, common) = std::mem::take(&mut snapshot.places)
        .into_iter()
        .partition::<Vec<_>, _>(|place| shares(config, pipeline, shard, &place.name).is_none());
    snapshot.places = alone;
    seals.count(&snapshot, pipeline, &mut report).await?;
    for place in &common {
        match shares(config, pipeline, shard, &place.name) {
            Some(Other::Shard(_)) => together::count(&snapshot, pipeline, place, &mut report).await?,
            other => report.not_proven.extend(other.map(|other| other.says(&place.name))),
        }
    }
    // Closing the connection ends the snapshot.
    session.close().await;
    Ok(report)
}

/// Records that nothing differs from what was committed up to `report.checkpoint`; whether it was recorded:
/// it has to follow on what was proven before.
pub(crate) async fn record(config: &Config, shard: &Shard, report: &Report) -> Result<bool, Error> {
    let session = connect::connect(&config.postgres, CLIENT_NAME).await?;
    let recorded = checkpoint::record_verified(&session.client, shard, report.from, report.checkpoint).await;
    session.close().await;
    recorded.map_err(|source| Error::Database { action: "record what was proven", source })
}

/// Audits one shard of `pipeline`.
pub(crate) async fn audit(
    config: &Config,
    pipeline: &config::Pipeline,
    shard: &Shard,
    scope: Scope,
) -> Result<Report, Error> {
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await?;
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await?;
    let stream = jetstream::new(connection.client.clone())
        .get_stream(&shard.stream)
        .await
        .map_err(|source| Error::Stream { stream: shard.stream.clone(), source })?;
    let stream = Opened { client: connection.client.clone(), stream };
    let (places, tables) = filled(&session, pipeline).await?;
    let decoder = Decoder::new(pipeline, &tables)?;
    let snapshot = Snapshot::open(&session.client, shard, places).await?;
    let audit = Audit { config, pipeline, shard, stream: &stream, snapshot: &snapshot };
    let report = audit.run(scope, &tables, decoder).await;
    // Closing the connection ends the snapshot.
    session.close().await;
    report
}

/// The tables that a pipeline fills, each once, and what each of its entries fills.
async fn filled(
    session: &Session,
    pipeline: &config::Pipeline,
) -> Result<(Vec<Filled>, Vec<introspect::Table>), Error> {
    let mut places: Vec<Filled> = Vec::new();
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for (entry, table) in pipeline.tables.iter().enumerate() {
        let found = introspect::introspect(&session.client, &table.name).await?;
        let place = Filled::new(entry, table, found.qualified.clone());
        if !places.iter_mut().any(|known| known.merge(&place)) {
            places.push(place);
        }
        tables.push(found);
    }
    Ok((places, tables))
}

struct Audit<'a> {
    config: &'a Config,
    pipeline: &'a config::Pipeline,
    shard: &'a Shard,
    stream: &'a Opened,
    snapshot: &'a Snapshot<'a>,
}

impl Audit<'_> {
    async fn run(
        &self,
        scope: Scope,
        tables: &[introspect::Table],
        decoder: Decoder,
    ) -> Result<Report, Error> {
        let pipeline = self.pipeline;
        // Tables are made before anything is read, and nothing is written after that but to them.
        let open = self.snapshot.places.iter().filter(|place| scope.full || !self.proven_by_sequence(place));
        let comparisons = if self.snapshot.on_standby().await? {
            Err(open.map(|place| place.name.as_str()).collect::<Vec<_>>())
        } else {
            Ok(Comparison::all(self.snapshot, open, pipeline, tables, &decoder).await?)
        };
        self.snapshot.change_nothing().await?;
        let Some(claim) = self.snapshot.claim().await? else {
            return Err(Error::NoCheckpoint(self.shard.to_string()));
        };
        let mut report = Report::new(self.shard, claim.last_sequence);
        report.from = scope.since.unwrap_or(1);
        let seals = Seals::follow(self.snapshot, &mut report).await?;
        report.from = report.from.max(seals.begun_after + 1);
        let milestones = self.snapshot.milestones().await?;
        let same = identity::is_same(self.stream, &claim, &milestones).await;
        if !same.map_err(|error| Error::Contents(error.into()))? {
            report.not_proven.push(
                "the stream was recreated after the checkpoint, so there is nothing to compare".to_owned(),
            );
            return Ok(report);
        }
        let from = report.from;
        let ambiguous_to = self.snapshot.ambiguous_to().await?;
        report.from = from.max(ambiguous_to + 1);
        if ambiguous_to >= from {
            self.counted_twice(&mut report, from, ambiguous_to).await?;
        }
        if self.are_shared(&mut report) {
            if scope.full {
                let digests = Digests::new(&seals, report.from);
                let mut remake = Remake::new(self, decoder, Vec::new(), digests, &seals.lanes);
                let from = report.from;
                remake.run(&mut report, from, false).await?;
                report.method = Method::Seals;
            }
            return Ok(report);
        }
        let begin = report.from;
        let by_sequence = self.snapshot.places.iter().any(|place| place.column.is_some());
        if by_sequence {
            self.leave_out_expired(&mut report).await?;
            self.by_sequence(&mut report, &seals.lanes).await?;
        }
        match comparisons {
            Ok(comparisons) if comparisons.is_empty() => {}
            Ok(comparisons) => {
                let complete = by_sequence && self.complete();
                let digests = Digests::new(&seals, begin);
                let mut remake = Remake::new(self, decoder, comparisons, digests, &seals.lanes);
                remake.run(&mut report, begin, complete).await?;
            }
            Err(open) => report.not_proven.push(format!(
                "{}: this server is a standby, where rows to compare with cannot be created: use the primary",
                open.join(", ")
            )),
        }
        Ok(report)
    }

    /// Whether others fill one of the tables, so that no row tells whose message it is of; says so.
    fn are_shared(&self, report: &mut Report) -> bool {
        let places = self.snapshot.places.iter();
        let shared = places.filter_map(|place| {
            Some(shares(self.config, self.pipeline, self.shard, &place.name)?.says(&place.name))
        });
        let before = report.not_proven.len();
        report.not_proven.extend(shared);
        report.not_proven.len() > before
    }

    /// Sequences that two histories of the stream have each: a row of either is as it should be, two of one
    /// message are not. Which they are, the time tells at which the stream stored the message.
    async fn counted_twice(&self, report: &mut Report, from: u64, last: u64) -> Result<(), Error> {
        report.not_proven.push(format!(
            "sequences up to {last}: used twice, because the stream was recreated or rolled back"
        ));
        for place in self.snapshot.places.iter().filter(|place| place.rule != Rule::Any) {
            let several = self.snapshot.several(place, from, last).await?;
            match &place.time {
                Some(_) => {
                    for &(sequence, times) in &several {
                        report.add(Difference::Twice { sequence, table: place.name.clone(), times });
                    }
                }
                None if several.is_empty() => {}
                None => report.not_proven.push(format!(
                    "table {}: {} of these sequences have several rows; without a column for $timestamp, it \
                     is unknown whether they are from the same message",
                    place.name,
                    several.len()
                )),
            }
        }
        Ok(())
    }

    /// Begins after the messages whose rows a table may have dropped by their age. What the stream itself has
    /// dropped is no difference anyway.
    async fn leave_out_expired(&self, report: &mut Report) -> Result<(), Error> {
        let Some(expired) = retention::expired(self.snapshot).await? else { return Ok(()) };
        let last = identity::kept_sequence(self.stream, expired.before_us)
            .await
            .map_err(|error| Error::Contents(error.into()))?
            .min(report.checkpoint);
        if last >= self.stream.cached_info().state.first_sequence && last >= report.from {
            report.not_proven.push(format!(
                "sequences up to {last}: table {} drops rows by age, and theirs may be gone",
                expired.table
            ));
            report.from = last + 1;
        }
        Ok(())
    }

    /// Whether the pipeline passes over markers: no table asks for any by a header.
    fn passes_over(&self) -> bool {
        let asks = |table: &config::Table| table.when.as_ref().is_some_and(|when| !when.headers.is_empty());
        !self.pipeline.tables.iter().any(asks)
    }

    /// Whether a message without a row in any table that keeps its sequence is a difference: some table has
    /// one row of every message, or each takes the messages of its kind and all together every one.
    fn complete(&self) -> bool {
        self.snapshot.places.iter().any(|place| place.column.is_some() && place.rule == Rule::Once)
            || self.divided()
    }

    /// Whether each message has one row in one of the tables, by its kind, and all of them keep its sequence.
    fn divided(&self) -> bool {
        let whole = |table: &config::Table| {
            table.for_each.is_none() && table.unpivot.is_none() && table.on_conflict == OnConflict::Error
        };
        self.pipeline.on_unmatched == OnUnmatched::DeadLetter
            && self.pipeline.tables.iter().all(whole)
            && self.snapshot.places.iter().all(|place| place.column.is_some() && place.rule != Rule::Any)
    }

    /// Whether sequences say all that there is to be said of a table.
    fn proven_by_sequence(&self, place: &Filled) -> bool {
        place.column.is_some() && (place.rule == Rule::Once || self.divided())
    }

    async fn by_sequence(&self, report: &mut Report, lanes: &Lanes) -> Result<(), Error> {
        let kept = self.snapshot.places.iter().filter(|place| place.column.is_some());
        report.method = Method::Sequences { tables: kept.map(|place| place.name.clone()).collect() };
        let complete = self.complete();
        let losses = self.snapshot.losses(report.from).await?;
        let contents = Contents::new(self.stream, &self.pipeline.subjects);
        let passes_over = self.passes_over();
        let mut gaps = Gaps { contents, losses, complete, passes_over };
        let mut next = report.from;
        let mut findings = std::pin::pin!(self.snapshot.walk(report.from, report.checkpoint).await?);
        while let Some(finding) = snapshot::next(&mut findings).await? {
            gaps.judge(report, finding.before + 1, finding.sequence.min(report.checkpoint + 1)).await?;
            next = finding.sequence + 1;
            report.counts.committed = finding.committed;
            report.counts.dead_letters = finding.dead_letters;
            finding.differences(self.snapshot, report, lanes);
        }
        gaps.judge(report, next, report.checkpoint + 1).await?;
        for place in &self.snapshot.places {
            let Some(element) = &place.element else { continue };
            let found = self.snapshot.elements(place, element, report.from, report.checkpoint).await?;
            let mut found = std::pin::pin!(found);
            while let Some(wrong) = snapshot::next(&mut found).await? {
                let snapshot::Uneven { sequence, elements, there, times } = wrong;
                let table = place.name.clone();
                report.add(Difference::Elements { sequence, table, elements, there, times });
            }
        }
        Ok(())
    }
}

/// What becomes of sequences that no table and no dead letter has.
struct Gaps<'a> {
    contents: Contents<'a>,
    losses: Vec<Recorded>,
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
                // Of such a range some were written, and some may be missing: the stream is asked.
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

    /// Judges a range with `superseded` messages known to be superseded; subtracts those that it found.
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

impl snapshot::Finding {
    /// Adds what is wrong about one sequence.
    fn differences(&self, snapshot: &Snapshot<'_>, report: &mut Report, lanes: &Lanes) {
        let sequence = self.sequence;
        let kept = || snapshot.places.iter().filter(|place| place.column.is_some()).zip(&self.rows);
        if !lanes.holds(sequence) {
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
