//! Tables that others fill, too.
//!
//! Guarantees: where several shards of one pipeline fill a table, and nobody else of the configuration, the
//! rows that their ledgers count together are compared with those that it holds. Their sequences repeat, so
//! which of the shards a row is of, nobody can tell.

use postgres_protocol::escape::escape_literal;

use super::retention;
use super::seals;
use super::snapshot::{Filled, Snapshot, failed};
use super::{Difference, Error, Report};
use crate::checkpoint;
use crate::config::{self, Config, OnConflict};
use crate::dead_letter::of_shard;
use crate::seal::Chains;
use crate::shard::Shard;

/// Who else fills a table, whose sequences cannot be told from a shard's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Other {
    Pipeline(String),
    /// Another shard of the same pipeline.
    Shard(String),
}

/// Who else fills `table` beside `shard`.
pub(super) fn shares(
    config: &Config,
    pipeline: &config::Pipeline,
    shard: &Shard,
    table: &str,
) -> Option<Other> {
    let mut others = config.pipelines.iter().filter(|other| other.name != pipeline.name);
    let other = others.find(|other| other.tables.iter().any(|found| found.name == table));
    if let Some(other) = other {
        return Some(Other::Pipeline(other.name.clone()));
    }
    let mut shards = pipeline.shards().into_iter().filter(|_| pipeline.repeats_sequences());
    shards.find(|other| other != shard).map(|other| Other::Shard(other.to_string()))
}

impl Other {
    /// What that leaves open about a table where messages are looked up.
    pub(super) fn says(&self, table: &str) -> String {
        match self {
            Self::Pipeline(other) => format!("table {table}: pipeline {other} also writes to it"),
            Self::Shard(other) => format!(
                "table {table}: shard {other} also writes to it, and has the same sequences, so whose a row \
                 is cannot be told; --offline counts the rows of all shards together, --full compares the \
                 messages with the ledger"
            ),
        }
    }
}

/// Counts what the shards of a pipeline have stored in a table that no other pipeline fills: once for all, in
/// the audit of the first.
pub(super) async fn count(
    snapshot: &Snapshot<'_>,
    pipeline: &config::Pipeline,
    place: &Filled,
    report: &mut Report,
) -> Result<(), Error> {
    let shards = pipeline.shards();
    let name = &place.name;
    let first = shards.first().filter(|first| *first != snapshot.shard());
    if let Some(first) = first {
        report.not_proven.push(format!(
            "table {name}: whose a row is of several shards; its rows are counted in the audit of {first}"
        ));
        return Ok(());
    }
    let keyed = |entry: &usize| pipeline.tables[*entry].on_conflict == OnConflict::Update;
    let drops = retention::deletions(snapshot, place).await?.is_some()
        || retention::expired_of(snapshot, place).await?.is_some();
    if report.from > 1 || drops || place.entries.iter().any(keyed) {
        report.not_proven.push(format!("table {name}: the rows of all its shards together"));
        return Ok(());
    }
    let (mut expected, mut retried) = (0, String::new());
    for shard in &shards {
        const ACTION: &str = "read jetcopy.seals; is the schema migrated?";
        let client = snapshot.client();
        let mut chains = Chains::read(client, &shard.name).await.map_err(failed(ACTION))?;
        let points = checkpoint::seal_points(client, shard).await.map_err(failed(ACTION))?;
        let story = chains.end(&points);
        if story.begins_after > 0 || story.moves.iter().any(|moved| moved.to < moved.from) {
            report.not_proven.push(format!(
                "table {name}: the rows of all its shards together, since {shard} was moved back, or its \
                 ledger begins after sequence 1"
            ));
            return Ok(());
        }
        expected += story.stretches.iter().map(|stretch| seals::stored(stretch, place)).sum::<u64>();
        let (rows, of_table) = (of_shard::retried_sql(shard), escape_literal(&place.qualified));
        retried += " + (SELECT coalesce(sum(rows), 0)::bigint FROM ";
        retried += &rows;
        retried += " WHERE name = ";
        retried += &of_table;
        retried.push(')');
    }
    let sql = format!("SELECT count(*), 0::bigint{retried} FROM {}", place.qualified);
    let found = snapshot.query("count the rows", &sql).await?;
    let there: u64 = found.number(0).unwrap_or(0);
    expected += found.number::<u64>(1).unwrap_or(0);
    if there < expected {
        report.add(Difference::Together { table: name.clone(), expected, there });
    } else if there > expected {
        let more = there - expected;
        report.not_proven.push(format!(
            "table {name}: {more} rows more than all its shards committed: others may have written them"
        ));
    }
    report.not_proven.push(format!(
        "table {name}: whose a row is of several shards; {expected} rows of all together were committed, and \
         {there} are there"
    ));
    Ok(())
}
