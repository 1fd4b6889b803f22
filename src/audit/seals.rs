//! What the ledger says, and whether tables and dead letters hold as much.
//!
//! Guarantees: all is read from the audit's snapshot; memory holds one entry a seal. Seals are followed from
//! the first; rows are counted for each stretch where a table keeps `$sequence`, else once for all. A count
//! says nothing of what is in a row: [`super::remake`] does.

use std::collections::VecDeque;

use postgres_protocol::escape::escape_literal;

use super::report::{SealMove, Sealed};
use super::snapshot::{Filled, Snapshot};
use super::{Difference, Error, Method, Report, retention};
use crate::config::{OnConflict, Pipeline};
use crate::dead_letter::of_shard;
use crate::postgres::simple;
use crate::seal::{Chain, Digest, Fault, Point, Stretch, hex};

/// How the dead letters are called in a report.
pub(super) const LETTERS: &str = "jetcopy.dead_letters";

/// Moves of the checkpoint that a report lists; the last ones matter.
const SHOWN: usize = 20;

/// The ledger of a shard.
pub(super) struct Seals {
    begins_after: u64,
    /// Stretches that were not written again since.
    pub(super) stretches: Vec<Stretch>,
    checkpoint: u64,
    moved_back: bool,
}

impl Seals {
    /// Follows the chain, and says what it holds and what is wrong about it.
    pub(super) async fn follow(snapshot: &Snapshot<'_>, report: &mut Report) -> Result<Self, Error> {
        let (mut chain, point) = snapshot.seals().await?;
        let Some(point) = point else { return Err(Error::NoCheckpoint(snapshot.shard().to_string())) };
        if point.several {
            chain = Chain::default();
            report.not_proven.push("what several writers have sealed".to_owned());
        } else {
            chain.end(&point);
        }
        for &(number, fault) in &chain.faults {
            report.add(Difference::Seal { number, fault: fault_name(fault).to_owned() });
        }
        let settled =
            snapshot.query("read jetcopy.settlements", &of_shard::settled_sql(snapshot.shard())).await?;
        let skip = chain.moves.len().saturating_sub(SHOWN);
        let of = |what: fn(&Stretch) -> u64| chain.stretches.iter().map(what).sum();
        report.ledger = Some(Sealed {
            begins_after: chain.begins_after,
            seals: chain.seals,
            ends_at: point.after,
            hash: chain.hash.as_deref().map(hex),
            messages: of(|stretch| stretch.messages),
            letters: of(|stretch| stretch.letters),
            superseded: of(|stretch| stretch.superseded),
            rows: rows(&chain.stretches),
            discarded: settled.number(0).unwrap_or(0),
            retried: settled.number(1).unwrap_or(0),
            moves: chain.moves.iter().skip(skip).map(SealMove::of).collect(),
            ..Sealed::default()
        });
        if report.method == Method::Seals && report.from <= chain.begins_after {
            report.not_proven.push(format!(
                "by the ledger, sequences up to {}: it begins after them",
                chain.begins_after.min(report.checkpoint)
            ));
        }
        let moved_back = chain.moves.iter().any(|moved| moved.to < moved.from);
        let Point { last_sequence, .. } = point;
        let (begins_after, stretches) = (chain.begins_after, chain.stretches);
        Ok(Self { begins_after, stretches, checkpoint: last_sequence, moved_back })
    }

    /// Compares the counts from `report.from` on with what dead letters and tables hold.
    pub(super) async fn count(
        &self,
        snapshot: &Snapshot<'_>,
        pipeline: &Pipeline,
        report: &mut Report,
    ) -> Result<(), Error> {
        let from = report.from;
        let all: Vec<&Stretch> = self.stretches.iter().filter(|stretch| stretch.from >= from).collect();
        let letters = format!("SELECT sequence, letters FROM {}", of_shard::stored_sql(snapshot.shard()));
        let expected: Vec<u64> = all.iter().map(|stretch| stretch.letters).collect();
        self.compare(snapshot, report, LETTERS, &all, &expected, &letters).await?;
        for place in &snapshot.places {
            let keyed = |entry: &usize| pipeline.tables[*entry].on_conflict == OnConflict::Update;
            if place.entries.iter().any(keyed) {
                continue;
            }
            if retention::deletions(snapshot, place).await?.is_some() {
                report.not_proven.push(format!("table {}: its counts, since rows were deleted", place.name));
                continue;
            }
            let retried = format!(
                "SELECT sequence, -rows FROM {} WHERE name = {}",
                of_shard::retried_sql(snapshot.shard()),
                escape_literal(&place.qualified)
            );
            match &place.column {
                Some(column) => self.count_each(snapshot, report, place, column, &retried).await?,
                None if from == 1 => self.count_all(snapshot, report, place, &retried).await?,
                None => {}
            }
        }
        Ok(())
    }

    /// A table that keeps sequences: stretch by stretch, but for those whose rows age may have dropped.
    async fn count_each(
        &self,
        snapshot: &Snapshot<'_>,
        report: &mut Report,
        place: &Filled,
        column: &str,
        retried: &str,
    ) -> Result<(), Error> {
        let expired = retention::expired_of(snapshot, place).await?;
        let counts = |stretch: &&Stretch| {
            let fills = stretch.rows.iter().any(|(table, _)| *table == place.qualified);
            let there = expired.is_none_or(|before| stretch.first_at_us.is_some_and(|at| at >= before));
            stretch.from >= report.from && fills && there
        };
        let kept: Vec<&Stretch> = self.stretches.iter().filter(counts).collect();
        let expected: Vec<u64> = kept.iter().map(|stretch| stored(stretch, place)).collect();
        let sql = format!(
            "SELECT {column}::bigint AS sequence, 1::bigint FROM {} UNION ALL {retried}",
            place.qualified
        );
        if let Some(ledger) = &mut report.ledger {
            ledger.counted += kept.len() as u64;
        }
        self.compare(snapshot, report, &place.name, &kept, &expected, &sql).await
    }

    /// A table that does not: rows that are missing show, those that others wrote do not.
    async fn count_all(
        &self,
        snapshot: &Snapshot<'_>,
        report: &mut Report,
        place: &Filled,
        retried: &str,
    ) -> Result<(), Error> {
        if self.begins_after > 0 || self.moved_back || retention::expired_of(snapshot, place).await?.is_some()
        {
            return Ok(());
        }
        let expected: u64 = self.stretches.iter().map(|stretch| stored(stretch, place)).sum();
        let sql = format!(
            "SELECT (SELECT count(*) FROM {}) \
               + (SELECT coalesce(sum(n), 0)::bigint FROM ({retried}) AS r (s, n))",
            place.qualified
        );
        let there = snapshot.query("count the rows", &sql).await?.number(0).unwrap_or(0);
        if there < expected {
            report.add(Difference::Count {
                table: place.name.clone(),
                first_sequence: 1,
                last_sequence: self.checkpoint,
                expected,
                there,
            });
        } else if there > expected {
            let more = there - expected;
            report.not_proven.push(format!(
                "table {}: {more} rows more than were committed: others may have written them",
                place.name
            ));
        }
        Ok(())
    }

    /// Compares what is `expected` in each stretch with the sum of what `sql` brings: a sequence and a count
    /// in each row.
    async fn compare(
        &self,
        snapshot: &Snapshot<'_>,
        report: &mut Report,
        table: &str,
        stretches: &[&Stretch],
        expected: &[u64],
        sql: &str,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (stretches.first(), stretches.last()) else { return Ok(()) };
        let mut edges: Vec<u64> = Vec::with_capacity(stretches.len() + 1);
        let mut buckets = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            if edges.last() != Some(&stretch.from) {
                edges.push(stretch.from);
            }
            buckets.push(edges.len());
            edges.push(stretch.to + 1);
        }
        let bounds: Vec<String> = edges.iter().map(u64::to_string).collect();
        let sql = format!(
            "SELECT pg_catalog.width_bucket(sequence, '{{{}}}'::bigint[]), sum(n)::bigint \
             FROM ({sql}) AS found (sequence, n) WHERE sequence BETWEEN {} AND {} GROUP BY 1",
            bounds.join(","),
            first.from,
            last.to,
        );
        let mut there = vec![0_i64; edges.len() + 1];
        for row in snapshot.query("count the rows of each stretch", &sql).await?.rows() {
            let bucket: usize = simple::number(row, 0).unwrap_or(0);
            there[bucket] = simple::number(row, 1).unwrap_or(0);
        }
        for ((stretch, bucket), &expected) in stretches.iter().zip(buckets).zip(expected) {
            let there = u64::try_from(there[bucket]).unwrap_or(0);
            if there != expected {
                report.add(Difference::Count {
                    table: table.to_owned(),
                    first_sequence: stretch.from,
                    last_sequence: stretch.to,
                    expected,
                    there,
                });
            }
        }
        Ok(())
    }
}

/// Digests made again of what the stream holds.
#[derive(Debug, Default)]
pub(super) struct Digests {
    stretches: VecDeque<Stretch>,
    digest: Digest,
    messages: u64,
}

impl Digests {
    /// Those of the stretches from `from` on.
    pub(super) fn new(seals: &Seals, from: u64) -> Self {
        let due = |stretch: &&Stretch| stretch.from >= from && stretch.digest.is_some();
        Self { stretches: seals.stretches.iter().filter(due).cloned().collect(), ..Self::default() }
    }

    /// Takes a message, which comes after those before.
    pub(super) fn add(&mut self, report: &mut Report, sequence: u64, payload: &[u8]) {
        while self.stretches.front().is_some_and(|first| first.to < sequence) {
            self.finish(report);
        }
        if self.stretches.front().is_some_and(|first| first.from <= sequence) {
            self.digest.add(sequence, payload);
            self.messages += 1;
        }
    }

    /// There are no more messages.
    pub(super) fn end(&mut self, report: &mut Report) {
        while !self.stretches.is_empty() {
            self.finish(report);
        }
    }

    fn finish(&mut self, report: &mut Report) {
        let Some(stretch) = self.stretches.pop_front() else { return };
        let digest = std::mem::take(&mut self.digest).hex();
        let messages = std::mem::take(&mut self.messages);
        let Some(ledger) = &mut report.ledger else { return };
        if messages != stretch.messages {
            ledger.undigested += 1;
        } else if stretch.digest.as_deref().map(hex) == Some(digest) {
            ledger.digests += 1;
            ledger.digested_messages += messages;
        } else {
            let (first_sequence, last_sequence) = (stretch.from, stretch.to);
            report.add(Difference::Digest { first_sequence, last_sequence });
        }
    }
}

fn stored(stretch: &Stretch, place: &Filled) -> u64 {
    stretch.rows.iter().filter(|(table, _)| *table == place.qualified).map(|(_, rows)| rows).sum()
}

fn rows(stretches: &[Stretch]) -> std::collections::BTreeMap<String, u64> {
    let mut rows = std::collections::BTreeMap::new();
    for (table, stored) in stretches.iter().flat_map(|stretch| &stretch.rows) {
        *rows.entry(table.clone()).or_default() += stored;
    }
    rows
}

fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Altered => "altered",
        Fault::Missing => "missing",
        Fault::Apart => "apart",
        Fault::Last => "last",
    }
}
