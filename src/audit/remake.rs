//! The messages that the stream holds, made into rows once more as the daemon makes them.
//!
//! Guarantees: they are decoded by the same plan, one after the other, with what the dead letters hold left
//! out. What decoding refuses is in the dead letters, or a difference. They are read one by one over
//! JetStream's API, so that whatever the stream stores can be read, and in bounded memory; what they make is
//! kept by the server, in temporary tables.
//!
//! It goes by the configuration as it is: where that has changed since, what was stored before may look
//! different.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};

use super::compare::{Comparison, Unlike};
use super::report::{Compared, KEPT};
use super::seals::Digests;
use super::snapshot::{self, Letters};
use super::{Audit, Difference, Error, Method, Report};
use crate::batch::{Rows, TableRows};
use crate::decode::Decoder;
use crate::lanes::Lanes;
use crate::marker::Marker;
use crate::stored::{self, Stored};
use crate::unreadable::{self, Single};

/// Messages that are asked for at once: on one server over loopback, more gain nothing.
const AT_ONCE: u64 = 64;

/// After this many bytes in one go, messages are read one by one: the API wraps them in JSON, so that each
/// takes several times its size.
const LARGE: usize = 4 << 20;

/// Rows of this many bytes, or of this many messages, are sent to the server together.
const BATCH: (usize, usize) = (4 << 20, 5_000);

/// Makes and compares.
pub(super) struct Remake<'a> {
    audit: &'a Audit<'a>,
    decoder: Decoder,
    comparisons: Vec<Comparison<'a>>,
    digests: Digests,
    /// Where the writers stand: what they have not committed makes no row.
    lanes: &'a Lanes,
    /// What was made and is not yet with the server.
    rows: Rows,
    /// Of the messages whose rows these are.
    sequences: Vec<u64>,
    /// Entry, message and element of rows that are dead letters.
    excluded: BTreeSet<(usize, u32, u32)>,
    /// Rows made for each comparison.
    made: Vec<u64>,
    /// Messages that were read.
    read: u64,
    /// Messages whose rows cannot be told apart from those of a dead letter's element.
    ambiguous: BTreeSet<String>,
}

impl<'a> Remake<'a> {
    pub(super) fn new(
        audit: &'a Audit<'a>,
        decoder: Decoder,
        comparisons: Vec<Comparison<'a>>,
        digests: Digests,
        lanes: &'a Lanes,
    ) -> Self {
        let rows = Rows::new(audit.pipeline.tables.len());
        let made = vec![0; comparisons.len()];
        let (sequences, excluded, ambiguous) = Default::default();
        let read = 0;
        Self { audit, decoder, comparisons, digests, lanes, rows, sequences, excluded, made, read, ambiguous }
    }

    /// Makes the rows of the messages from `from` on that are committed, and compares them. `complete` says
    /// that messages without a row were found already.
    pub(super) async fn run(&mut self, report: &mut Report, from: u64, complete: bool) -> Result<(), Error> {
        let counted = report.method != Method::Nothing;
        let before = report.counts.clone();
        let (mut next, mut at_once) = (from.max(1), 1);
        let through = self.lanes.greatest();
        while next <= through {
            let last = through.min(next + at_once - 1);
            let (singles, then) = self.window(next, last).await?;
            next = then;
            let bytes: usize = singles.iter().map(|single| single.message.payload.len()).sum();
            at_once = if bytes > LARGE { 1 } else { AT_ONCE.min(at_once * 2) };
            let Some((first, last)) = singles.first().zip(singles.last()) else { continue };
            let (first, last) = (first.message.sequence, last.message.sequence);
            let letters = self.audit.snapshot.letters(first, last).await?;
            for single in &singles {
                self.digests.add(report, single.message.sequence, &single.message.payload);
                let none = Letters::default();
                self.make(report, single, letters.get(&single.message.sequence).unwrap_or(&none), complete);
            }
            let held: usize = self.rows.tables.iter().map(TableRows::bytes).sum();
            if held > BATCH.0 || self.sequences.len() > BATCH.1 {
                self.put().await?;
            }
        }
        self.put().await?;
        self.digests.end(report);
        if counted {
            // Sequences tell more of where messages are.
            let judged = self.comparisons.iter().all(Comparison::compares);
            report.counts = before;
            report.counts.not_judged *= u64::from(!judged);
        }
        self.compare(report, from, counted).await
    }

    /// The messages from `first` to `last`, and the sequence after them at which to go on.
    async fn window(&self, first: u64, last: u64) -> Result<(Vec<Single>, u64), Error> {
        let opened = self.audit.stream;
        let subjects = &self.audit.pipeline.subjects;
        let questions = (first..=last).map(|sequence| opened.first::<Stored>(sequence, subjects));
        let mut answers = stream::iter(questions).buffered(usize::try_from(AT_ONCE).unwrap_or(1));
        let mut singles: Vec<Single> = Vec::new();
        let (mut beyond, mut none) = (u64::MAX, true);
        while let Some(found) = answers.next().await {
            let Some(found) = found.map_err(contents)? else { continue };
            if found.sequence > last {
                beyond = beyond.min(found.sequence);
                continue;
            }
            none = false;
            let is_next = singles.last().is_none_or(|known| known.message.sequence < found.sequence);
            if is_next && self.lanes.holds(found.sequence) {
                let name = &opened.cached_info().config.name;
                singles.push(unreadable::judge(&opened.client, name, found).await.map_err(contents)?);
            }
        }
        let then = if none { beyond } else { last + 1 };
        Ok((singles, then))
    }

    /// Makes the rows of one message.
    fn make(&mut self, report: &mut Report, single: &Single, letters: &Letters, complete: bool) {
        let Single { message, unreadable } = single;
        let sequence = message.sequence;
        self.read += 1;
        let of_elements: u64 = letters.elements.values().sum();
        let twice = letters.elements.values().any(|&times| times > 1);
        if letters.whole > 1 || letters.whole > 0 && of_elements > 0 || twice {
            let table = "jetcopy.dead_letters".to_owned();
            report.add(Difference::Twice { sequence, table, times: letters.whole + of_elements });
        }
        if letters.whole > 0 {
            report.counts.dead_letters += 1;
            return;
        }
        let headers = message.headers.as_ref();
        let is_marker = headers.is_some_and(|headers| Marker::of(headers, &message.payload).is_some());
        if unreadable.is_none() && is_marker && !self.decoder.asks_for(message) {
            report.counts.passed_over += 1;
            return;
        }
        let index = u32::try_from(self.sequences.len()).unwrap_or(u32::MAX);
        let before: usize = self.rows.tables.iter().map(|table| table.rows.len()).sum();
        let refused = self.rows.refused.len();
        if unreadable.is_some() || self.decoder.decode(message, index, &mut self.rows).is_err() {
            if !complete {
                report.add(Difference::Missing { first_sequence: sequence, last_sequence: sequence });
            }
            return;
        }
        self.sequences.push(sequence);
        for found in self.rows.refused.iter().skip(refused) {
            let Some(element) = found.element else { continue };
            let table = found.poison.table.clone().unwrap_or_default();
            if !letters.elements.contains_key(&(table.clone(), element)) {
                report.add(Difference::Element { sequence, table, element });
            }
        }
        self.exclude(index, letters);
        let after: usize = self.rows.tables.iter().map(|table| table.rows.len()).sum();
        let rows = after > before || of_elements > 0;
        report.counts.committed += u64::from(rows);
        report.counts.without_rows += u64::from(!rows);
    }

    /// Leaves out the rows of elements that are dead letters.
    fn exclude(&mut self, index: u32, letters: &Letters) {
        for (table, element) in letters.elements.keys() {
            let mut ways = 0;
            for (entry, settings) in self.audit.pipeline.tables.iter().enumerate() {
                let rows = &self.rows.tables[entry];
                let makes = || {
                    let of_message = rows.rows.iter().rev().take_while(|row| row.message == index);
                    of_message.clone().any(|row| row.element == *element)
                };
                if settings.name == *table && settings.for_each.is_some() && makes() {
                    self.excluded.insert((entry, index, *element));
                    ways += 1;
                }
            }
            if ways > 1 {
                self.ambiguous.insert(table.clone());
            }
        }
    }

    /// Hands what was made over to the server.
    async fn put(&mut self) -> Result<(), Error> {
        for (comparison, made) in
            self.comparisons.iter().zip(&mut self.made).filter(|(known, _)| known.compares())
        {
            for &entry in &comparison.place.entries {
                let excluded = &self.excluded;
                let is_excluded =
                    |row: &crate::batch::Row| excluded.contains(&(entry, row.message, row.element));
                let rows = &self.rows.tables[entry];
                *made +=
                    comparison.put(self.audit.snapshot, entry, rows, &self.sequences, is_excluded).await?;
            }
        }
        for table in &mut self.rows.tables {
            table.truncate((0, 0));
        }
        self.rows.refused.clear();
        self.sequences.clear();
        self.excluded.clear();
        Ok(())
    }

    /// Lets the server compare, and says what was proven.
    async fn compare(&mut self, report: &mut Report, from: u64, counted: bool) -> Result<(), Error> {
        let info = self.audit.stream.get_info().await.map_err(|error| Error::Contents(error.into()))?;
        let deleted = info.state.deleted_count.unwrap_or(0);
        let gone = from.max(info.state.first_sequence).saturating_sub(1).min(report.checkpoint) + deleted;
        if self.read == 0 && gone > 0 {
            let sequences = format!("{gone} of the sequences");
            report
                .not_proven
                .push(format!("rows: the stream no longer holds {sequences}, and holds no others"));
            return Ok(());
        }
        if gone > 0 {
            report.not_proven.push(format!(
                "rows of {gone} messages that the stream no longer holds, or that come before --since: they \
                 are not decoded again"
            ));
        }
        for (comparison, &made) in self.comparisons.iter_mut().zip(&self.made) {
            if !comparison.compares() {
                report.not_proven.append(&mut comparison.left_out);
                continue;
            }
            let name = comparison.place.name.clone();
            let ambiguous = self.ambiguous.contains(&name);
            let may_be_more = if ambiguous { None } else { comparison.most(gone) };
            let mut surplus = Surplus::default();
            let found = comparison.unlike(self.audit.snapshot).await?;
            let mut found = std::pin::pin!(found);
            while let Some(unlike) = snapshot::next(&mut found).await? {
                surplus.judge(unlike, &name, comparison.by_key(), report);
            }
            if may_be_more.is_some_and(|most| surplus.rows > most) {
                report.differences += surplus.found - surplus.first.len() as u64;
                for difference in surplus.first {
                    report.add(difference);
                }
            } else if surplus.rows > 0 {
                report.not_proven.push(format!(
                    "table {name}: {} rows that the messages in the stream do not explain: others may have \
                     written them",
                    surplus.rows
                ));
            }
            report.not_proven.append(&mut comparison.left_out);
            report.compared.push(Compared { table: name, made, by_key: comparison.by_key() });
        }
        if !counted && !report.compared.is_empty() {
            report.method = Method::Rows;
        }
        Ok(())
    }
}

/// Rows beyond those that messages make, or others.
#[derive(Default)]
struct Surplus {
    rows: u64,
    /// Differences that these are, unless messages that are gone made them.
    found: u64,
    first: Vec<Difference>,
}

impl Surplus {
    /// Tells of what is missing, and keeps the rest.
    fn judge(&mut self, unlike: Unlike, table: &str, by_key: bool, report: &mut Report) {
        let Unlike { sequence, made, there, row } = unlike;
        let table = table.to_owned();
        if made > there {
            report.add(Difference::Rows { table, sequence, made, there, row });
            return;
        }
        let (rows, difference) = if by_key && made == 1 && there == 1 {
            (1, Difference::Differs { table, sequence, key: row })
        } else {
            (there - made, Difference::Rows { table, sequence, made, there, row })
        };
        self.rows += rows;
        self.found += 1;
        if self.first.len() < KEPT {
            self.first.push(difference);
        }
    }
}

fn contents(error: stored::Error) -> Error {
    Error::Contents(error.into())
}
