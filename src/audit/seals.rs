//! What the ledger says, and whether tables and dead letters hold as much.
//!
//! Guarantees: all is read from the audit's snapshot; memory holds one entry a seal. Seals are followed from
//! the first of each chain; rows are counted for each stretch where a table keeps `$sequence`, else once for
//! all. A count says nothing of what is in a row: [`super::remake`] does.

use std::collections::{BTreeMap, VecDeque};

use postgres_protocol::escape::escape_literal;

use super::report::{Part, SealMove, Sealed, WriterEnd};
use super::snapshot::{Filled, Snapshot};
use super::{Difference, Error, Method, Report, retention};
use crate::config::{OnConflict, Pipeline};
use crate::dead_letter::of_shard;
use crate::lanes::Lanes;
use crate::postgres::simple;
use crate::seal::{Digest, Fault, Share, Story, Stretch, hex};

/// How the dead letters are called in a report.
pub(super) const LETTERS: &str = "jetcopy.dead_letters";

/// Moves of the checkpoint that a report lists; the last ones matter.
const SHOWN: usize = 20;

/// The ledger of a shard.
pub(super) struct Seals {
    begins_after: u64,
    /// After which sequence the pipeline began, where it was not before the first message.
    pub(super) begun_after: u64,
    /// Stretches that were not written again since, each lane's in the order of the stream.
    pub(super) stretches: Vec<Stretch>,
    /// Where the writers stand.
    pub(super) lanes: Lanes,
    moved_back: bool,
}

impl Seals {
    /// Follows the chains, and says what they hold and what is wrong about them.
    pub(super) async fn follow(snapshot: &Snapshot<'_>, report: &mut Report) -> Result<Self, Error> {
        let (mut chains, points) = snapshot.seals().await?;
        let Some(first) = points.first() else {
            return Err(Error::NoCheckpoint(snapshot.shard().to_string()));
        };
        let story = chains.end(&points);
        for &(lane, number, fault) in &chains.faults {
            let writer = (chains.ends.len() > 1).then_some(lane);
            report.add(Difference::Seal { number, writer, fault: fault_name(fault).to_owned() });
        }
        let lanes = match first.open.share.of {
            Some((_, block)) => Lanes::new(block, points.iter().map(|point| point.last_sequence).collect()),
            None => Lanes::single(first.last_sequence),
        };
        let settled =
            snapshot.query("read jetcopy.settlements", &of_shard::settled_sql(snapshot.shard())).await?;
        let skip = story.moves.len().saturating_sub(SHOWN);
        let of = |what: fn(&Stretch) -> u64| story.stretches.iter().map(what).sum();
        let several = chains.ends.len() > 1;
        report.ledger = Some(Sealed {
            begins_after: story.begins_after,
            seals: chains.seals,
            ends_at: points.iter().map(|point| point.after).min().unwrap_or(0),
            hash: chains.ends.iter().find(|_| !several).and_then(|end| end.hash.as_deref()).map(hex),
            writers: chains.ends.iter().filter(|_| several).map(WriterEnd::of).collect(),
            messages: of(|stretch| stretch.messages),
            letters: of(|stretch| stretch.letters),
            superseded: of(|stretch| stretch.superseded),
            rows: rows(&story.stretches),
            discarded: settled.number(0).unwrap_or(0),
            retried: settled.number(1).unwrap_or(0),
            moves: story.moves.iter().skip(skip).map(SealMove::of).collect(),
            ..Sealed::default()
        });
        if report.method == Method::Seals && report.from <= story.begins_after {
            report.not_proven.push(format!(
                "by the ledger, sequences up to {}: it begins after them",
                story.begins_after.min(report.checkpoint)
            ));
        }
        let begun = story.moves.first().filter(|first| first.kind == "begun" && first.from == 0);
        let begun_after = begun.map_or(0, |begun| begun.to);
        let moved_back = story.moves.iter().any(|moved| moved.to < moved.from);
        let Story { begins_after, stretches, .. } = story;
        Ok(Self { begins_after, begun_after, stretches, lanes, moved_back })
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
                last_sequence: self.lanes.greatest(),
                part: None,
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
    /// in each row. It is asked once for all stretches of as many writers.
    async fn compare(
        &self,
        snapshot: &Snapshot<'_>,
        report: &mut Report,
        table: &str,
        stretches: &[&Stretch],
        expected: &[u64],
        sql: &str,
    ) -> Result<(), Error> {
        let mut layouts: BTreeMap<Option<(u64, u64)>, BTreeMap<u64, Buckets>> = BTreeMap::new();
        for (index, stretch) in stretches.iter().enumerate() {
            let Share { lane, of } = stretch.share;
            layouts.entry(of).or_default().entry(lane).or_default().add(index, stretch);
        }
        let mut found = vec![0_i64; stretches.len()];
        for (of, lanes) in layouts {
            let sql = buckets_sql(of, &lanes, sql);
            for row in snapshot.query("count the rows of each stretch", &sql).await?.rows() {
                let (lane, bucket) = (simple::number(row, 0).unwrap_or(0), simple::number(row, 1));
                let at = |buckets: &Buckets| buckets.stretches.get(&bucket.unwrap_or(0)).copied();
                if let Some(index) = lanes.get(&lane).and_then(at) {
                    found[index] = simple::number(row, 2).unwrap_or(0);
                }
            }
        }
        for ((stretch, there), &expected) in stretches.iter().zip(found).zip(expected) {
            let there = u64::try_from(there).unwrap_or(0);
            if there != expected {
                report.add(Difference::Count {
                    table: table.to_owned(),
                    first_sequence: stretch.from,
                    last_sequence: stretch.to,
                    part: Part::of(stretch.share),
                    expected,
                    there,
                });
            }
        }
        Ok(())
    }
}

/// The stretches of one lane, as `width_bucket()` tells them apart.
#[derive(Debug, Default)]
struct Buckets {
    edges: Vec<u64>,
    /// By bucket, which it is.
    stretches: BTreeMap<u64, usize>,
}

impl Buckets {
    /// Adds the stretch of this index, which comes after those before.
    fn add(&mut self, index: usize, stretch: &Stretch) {
        if self.edges.last() != Some(&stretch.from) {
            self.edges.push(stretch.from);
        }
        self.stretches.insert(self.edges.len() as u64, index);
        self.edges.push(stretch.to + 1);
    }
}

/// SQL that sums up what `sql` brings by lane and bucket.
fn buckets_sql(of: Option<(u64, u64)>, lanes: &BTreeMap<u64, Buckets>, sql: &str) -> String {
    let lane = match of {
        Some((count, block)) => {
            format!("((sequence - 1) / {}::bigint % {}::bigint)", block.max(1), count.max(1))
        }
        None => "0::bigint".to_owned(),
    };
    let bucket = |(lane, buckets): (&u64, &Buckets)| {
        let edges: Vec<String> = buckets.edges.iter().map(u64::to_string).collect();
        let edges = edges.join(",");
        format!(" WHEN {lane} THEN pg_catalog.width_bucket(sequence, '{{{edges}}}'::bigint[])")
    };
    let buckets = lanes.iter().map(bucket).collect::<Vec<_>>().concat();
    let first = lanes.values().filter_map(|buckets| buckets.edges.first()).min().copied().unwrap_or(0);
    let last = lanes.values().filter_map(|buckets| buckets.edges.last()).max().copied().unwrap_or(0);
    format!(
        "SELECT {lane}, CASE {lane}{buckets} END, sum(n)::bigint \
         FROM ({sql}) AS found (sequence, n) WHERE sequence BETWEEN {first} AND {} GROUP BY 1, 2",
        last.saturating_sub(1),
    )
}

/// Digests made again of what the stream holds.
#[derive(Debug, Default)]
pub(super) struct Digests(BTreeMap<Share, Digested>);

/// Those of one lane.
#[derive(Debug, Default)]
struct Digested {
    stretches: VecDeque<Stretch>,
    digest: Digest,
    messages: u64,
}

impl Digests {
    /// Those of the stretches from `from` on.
    pub(super) fn new(seals: &Seals, from: u64) -> Self {
        let mut lanes: BTreeMap<Share, Digested> = BTreeMap::new();
        let due = |stretch: &&Stretch| stretch.from >= from && stretch.digest.is_some();
        for stretch in seals.stretches.iter().filter(due) {
            lanes.entry(stretch.share).or_default().stretches.push_back(stretch.clone());
        }
        Self(lanes)
    }

    /// Takes a message, which comes after those before.
    pub(super) fn add(&mut self, report: &mut Report, sequence: u64, payload: &[u8]) {
        for lane in self.0.values_mut() {
            while lane.stretches.front().is_some_and(|first| first.to < sequence) {
                lane.finish(report);
            }
            if lane.stretches.front().is_some_and(|first| first.holds(sequence)) {
                lane.digest.add(sequence, payload);
                lane.messages += 1;
            }
        }
    }

    /// There are no more messages.
    pub(super) fn end(&mut self, report: &mut Report) {
        for lane in self.0.values_mut() {
            while !lane.stretches.is_empty() {
                lane.finish(report);
            }
        }
    }
}

impl Digested {
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
            let part = Part::of(stretch.share);
            report.add(Difference::Digest { first_sequence, last_sequence, part });
        }
    }
}

/// The rows of a stretch that a table has stored.
pub(super) fn stored(stretch: &Stretch, place: &Filled) -> u64 {
    stretch.rows.iter().filter(|(table, _)| *table == place.qualified).map(|(_, rows)| rows).sum()
}

fn rows(stretches: &[Stretch]) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
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
        Fault::Shared => "shared",
        Fault::Left => "left",
        Fault::Ends => "ends",
        Fault::Last => "last",
    }
}
