//! Whose fault it is that rows are refused: a message's, or something else's.
//!
//! Guarantees: nothing is believed at once. A message, or an element of it, is blamed only where
//!
//! - its rows fail alone, or together with those before it, which pass without it; and
//! - rows of another message for the same tables pass alone. If none does, something else is wrong, and
//!   nobody is blamed ([`Error::AllRefused`]).
//!
//! Who is blamed becomes a dead letter in the transaction that commits the others, so these pass once more.
//! Where there is nobody to compare with (the batch holds no other message for these tables, and no earlier
//! row is known), the class of the error decides alone. An error that is a row's by way of exception needs
//! more (`proof.rs`). A missing partition, a row that is there already, and whatever [`Stop::Elsewhere`]
//! stands for are never a message's fault, here neither.
//!
//! Each trial is a transaction that is rolled back. Sequences that defaults draw from leave gaps.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::attempt::Stop;
use super::neighbours::{ALL_NEIGHBOURS, NEIGHBOURS, nearest, neighbours};
use super::proof::{Proof, is_exception};
use super::refused::{Poisoned, Unit};
use super::{Error, Writer};
use crate::batch::{Batch, Excluded, Selection};
use crate::config::BadElement;
use crate::copy::CopyError;
use crate::postgres::sqlstate::{Decision, Step, decide};

/// How long neighbours are tried at all.
const SEARCH: Duration = Duration::from_secs(5);

/// How long a few messages that all fail, with nothing else in the batch, are taken for something that passes
/// by itself: longer than a deployment or a swap of tables takes. Then the error's class decides.
pub(super) const DOUBT: Duration = Duration::from_secs(20);

/// After how long an error that is never a message's fault is looked at more closely, and reported to a
/// person.
const LASTING: Duration = Duration::from_secs(30);

/// Why a search ends before it has found anything.
pub(super) enum Halt {
    /// A trial met something else, to be answered like an attempt that did.
    Stop(Stop),
    Error(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What counts as a refusal in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// What may be a row's fault.
    Suspects,
    /// Whatever the server answers: to find the row with which it begins.
    Anything,
}

/// A refusal: of which table, unless it was at COMMIT, and why.
pub(super) type Refusal = (Option<usize>, CopyError);

/// What other rows say about one that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They pass.
    Pass,
    /// There are none.
    None,
    /// They fail too; whether these were all there are.
    Fail { all: bool },
}

impl Writer {
    /// Finds the message or element that is at fault and lets it become a dead letter. The error where nobody
    /// is by now.
    pub(super) async fn blame(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        table: Option<usize>,
        error: CopyError,
    ) -> Result<Option<Error>, Halt> {
        let found = self.find(batch, poisoned, table, &error, Counts::Suspects).await?;
        let Some((unit, (table, error))) = found else {
            self.disprove(&error);
            return Ok(Some(self.not_found(table, error)));
        };
        let others = self.others(batch, poisoned, unit, table).await?;
        let is_exception = is_exception(&error);
        if is_exception {
            match self.prove(batch, poisoned, unit, (table, &error), others).await? {
                Proof::Proven => {}
                Proof::Young => {
                    let table = table.map(|table| self.targets[table].name.clone());
                    let sequence = batch.messages[unit.message as usize].sequence;
                    return Err(Error::Doubted { table, sequence, source: error.source }.into());
                }
                Proof::None => return Err(Halt::Stop(Stop::Elsewhere { table, error, relation: None })),
            }
        }
        let blamed = match others {
            Others::Pass | Others::None => true,
            Others::Fail { all } => all && self.memory().doubt(self.checkpoint) >= DOUBT,
        };
        if !blamed {
            let lasting = self.memory().doubt(self.checkpoint) >= LASTING;
            let table = table.map(|table| self.targets[table].name.clone());
            let sequence = batch.messages[unit.message as usize].sequence;
            return Err(Error::AllRefused { table, sequence, lasting, source: error.source }.into());
        }
        self.add_refused(poisoned, batch, unit, table, &error.source)?;
        self.charge(poisoned, unit);
        let present = poisoned.part.contains(&unit.message);
        if present && unit.element.is_some() && others == Others::Pass && !is_exception {
            self.blame_siblings(batch, poisoned, unit.message, &error).await?;
        }
        Ok(None)
    }

    /// Blames the other elements of a message that are refused for the same reason as one that was just
    /// blamed. Each costs a trial of their message alone, not of the whole part: many bad elements of one
    /// message come together. When they have cost too much, the next one takes all along.
    async fn blame_siblings(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        message: u32,
        like: &CopyError,
    ) -> Result<(), Halt> {
        let messages = message..message + 1;
        while !poisoned.excluded.messages.contains(&message) {
            // What is refused in another way, the next attempt meets.
            let Err(Stop::Suspect { table: Some(table), error }) =
                self.trial(batch, &poisoned.excluded, &messages).await?
            else {
                break;
            };
            let selection = Selection { table, excluded: &poisoned.excluded, within: messages.clone() };
            let row = error.row.and_then(|row| {
                self.targets[table].row_of(&batch.rows.tables[table], &selection, row).copied()
            });
            let Some(row) = row.filter(|_| error.source.code() == like.source.code()) else { break };
            let unit = self.unit_of(table, &row);
            if unit.element.is_none() {
                break;
            }
            self.add_refused(poisoned, batch, unit, Some(table), &error.source)?;
            self.charge(poisoned, unit);
        }
        Ok(())
    }

    /// Rows were refused, and all of them pass in a trial.
    fn not_found(&self, table: Option<usize>, error: CopyError) -> Error {
        let table = table.map(|table| self.targets[table].name.clone());
        Error::Unsettled { table, source: error.source }
    }

    /// What was refused, with the reason that it has when it is tried: one that fails alone, else the first
    /// with which those before it fail. `None` where all pass.
    async fn find(
        &self,
        batch: &mut Batch,
        poisoned: &Poisoned,
        table: Option<usize>,
        error: &CopyError,
        counts: Counts,
    ) -> Result<Option<(Unit, Refusal)>, Halt> {
        if let Some(unit) = table.and_then(|table| self.pinned(batch, table, error, poisoned))
            && let Some(refusal) = self.refused_alone(batch, poisoned, unit, counts).await?
        {
            return Ok(Some((unit, refusal)));
        }
        let Some((unit, refusal)) = self.bisect(batch, poisoned, counts).await? else { return Ok(None) };
        if let Some(alone) = self.refused_alone(batch, poisoned, unit, counts).await? {
            return Ok(Some((unit, alone)));
        }
        // Only together with others: once more, since what came and went meanwhile looks like it.
        let (from, excluded) = (poisoned.part.start, &poisoned.excluded);
        let before = self.refusal(batch, excluded, from..unit.message, counts).await?;
        let with = self.refusal(batch, excluded, from..unit.message + 1, counts).await?;
        Ok((before.is_none() && with.is_some()).then_some((unit, refusal)))
    }

    /// The message or element whose row the server named.
    fn pinned(&self, batch: &Batch, table: usize, error: &CopyError, poisoned: &Poisoned) -> Option<Unit> {
        let selection = Selection { table, excluded: &poisoned.excluded, within: poisoned.part.clone() };
        let row = self.targets[table].row_of(&batch.rows.tables[table], &selection, error.row?)?;
        Some(self.unit_of(table, row))
    }

    /// Why the server refuses these rows, in a transaction that is rolled back; `None` where it takes them.
    async fn refusal(
        &self,
        batch: &mut Batch,
        excluded: &Excluded,
        messages: Range<u32>,
        counts: Counts,
    ) -> Result<Option<Refusal>, Halt> {
        match (self.trial(batch, excluded, &messages).await?, counts) {
            (Ok(_), _) => Ok(None),
            (Err(Stop::Suspect { table, error }), _)
            | (Err(Stop::Elsewhere { table, error, .. }), Counts::Anything) => Ok(Some((table, error))),
            (Err(Stop::Unpartitioned { table, error }), Counts::Anything) => Ok(Some((Some(table), error))),
            (Err(stop), _) => Err(Halt::Stop(stop)),
        }
    }

    pub(super) async fn refused_alone(
        &self,
        batch: &mut Batch,
        poisoned: &Poisoned,
        unit: Unit,
        counts: Counts,
    ) -> Result<Option<Refusal>, Halt> {
        let messages = unit.message..unit.message + 1;
        let Some(element) = unit.element else {
            return self.refusal(batch, &poisoned.excluded, messages, counts).await;
        };
        let excluded = self.with_elements(batch, &poisoned.excluded, unit.message, &[element]);
        self.refusal(batch, &excluded, messages, counts).await
    }

    /// Finds the first message without which the part would pass so far, or the first element of it, by
    /// trials. `None` where the part passes.
    async fn bisect(
        &self,
        batch: &mut Batch,
        poisoned: &Poisoned,
        counts: Counts,
    ) -> Result<Option<(Unit, Refusal)>, Halt> {
        let (part, excluded) = (poisoned.part.clone(), &poisoned.excluded);
        let Some(mut refusal) = self.refusal(batch, excluded, part.clone(), counts).await? else {
            return Ok(None);
        };
        let (mut passes, mut fails) = (part.start, part.end);
        while fails - passes > 1 {
            let middle = passes + (fails - passes) / 2;
            match self.refusal(batch, excluded, part.start..middle, counts).await? {
                None => passes = middle,
                Some(found) => (fails, refusal) = (middle, found),
            }
        }
        let (element, refusal) = self.bisect_elements(batch, poisoned, passes, refusal, counts).await?;
        Ok(Some((Unit { message: passes, element }, refusal)))
    }

    /// Finds the first element without which `message`, refused for the reason given, would pass so far; none
    /// when it does not pass without elements, or when they have cost too much.
    async fn bisect_elements(
        &self,
        batch: &mut Batch,
        poisoned: &Poisoned,
        message: u32,
        mut refusal: Refusal,
        counts: Counts,
    ) -> Result<(Option<(usize, u32)>, Refusal), Halt> {
        let elements = self.elements(batch, &poisoned.excluded, message);
        let messages = poisoned.part.start..message + 1;
        if elements.is_empty() || self.is_costly(poisoned, message) {
            return Ok((None, refusal));
        }
        let none = self.with_elements(batch, &poisoned.excluded, message, &[]);
        if let Some(found) = self.refusal(batch, &none, messages.clone(), counts).await? {
            return Ok((None, found));
        }
        let (mut passes, mut fails) = (0, elements.len());
        while fails - passes > 1 {
            let middle = passes + (fails - passes) / 2;
            let some = self.with_elements(batch, &poisoned.excluded, message, &elements[..middle]);
            match self.refusal(batch, &some, messages.clone(), counts).await? {
                None => passes = middle,
                Some(found) => (fails, refusal) = (middle, found),
            }
        }
        Ok((Some(elements[passes]), refusal))
    }

    /// The elements of `message` that may be refused one by one, in the order of their rows.
    pub(super) fn elements(&self, batch: &Batch, excluded: &Excluded, message: u32) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        for (table, (target, rows)) in self.targets.iter().zip(&batch.rows.tables).enumerate() {
            if target.bad_element == BadElement::Message {
                continue;
            }
            let first = rows.rows.partition_point(|row| row.message < message);
            let rows = rows.rows[first..].iter().take_while(|row| row.message == message);
            found.extend(rows.filter(|row| !excluded.holds(table, row)).map(|row| (table, row.element)));
        }
        found.dedup();
        found
    }

    /// What is left out for `message` to have these of its elements only.
    fn with_elements(
        &self,
        batch: &Batch,
        excluded: &Excluded,
        message: u32,
        kept: &[(usize, u32)],
    ) -> Excluded {
        let kept: BTreeSet<&(usize, u32)> = kept.iter().collect();
        let others = self.elements(batch, excluded, message);
        let others = others.iter().filter(|element| !kept.contains(element));
        let mut excluded = excluded.clone();
        excluded.elements.extend(others.map(|&(table, element)| (table, message, element)));
        excluded
    }

    /// What other rows for the same tables say about `unit`, which is refused.
    pub(super) async fn others(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        unit: Unit,
        table: Option<usize>,
    ) -> Result<Others, Halt> {
        let tables = match table {
            Some(table) => vec![table],
            None => self.tables_of(batch, poisoned, unit.message),
        };
        if let Some((known, message)) = &poisoned.good
            && *message != unit.message
            && tables.iter().all(|table| known.contains(table))
        {
            return Ok(Others::Pass);
        }
        poisoned.good = None;
        let neighbours = neighbours(batch, poisoned, unit.message, &tables);
        let most = self.poison.lock().unwrap_or_else(PoisonError::into_inner).max_per_batch();
        let (mut failed, started) = (false, Instant::now());
        for message in nearest(&neighbours, unit.message, most.max(ALL_NEIGHBOURS)) {
            if started.elapsed() > SEARCH {
                break;
            }
            match self.passes(batch, &poisoned.excluded, message..message + 1, &tables).await? {
                Some(true) => {
                    poisoned.good = Some((tables, message));
                    return Ok(Others::Pass);
                }
                Some(false) => failed = true,
                None => {}
            }
        }
        // Rows may need those before them, as by a foreign key.
        let before = poisoned.part.start..unit.message;
        if failed
            && let Some(&message) = neighbours.iter().find(|message| before.contains(message))
            && self.passes(batch, &poisoned.excluded, before, &tables).await? == Some(true)
        {
            poisoned.good = Some((tables, message));
            return Ok(Others::Pass);
        }
        if let Some((table, element)) = unit.element {
            let elements = self.elements(batch, &poisoned.excluded, unit.message);
            let others = elements.iter().filter(|other| other.0 == table && other.1 != element);
            for &other in others.take(NEIGHBOURS) {
                let excluded = self.with_elements(batch, &poisoned.excluded, unit.message, &[other]);
                match self.passes(batch, &excluded, unit.message..unit.message + 1, &tables).await? {
                    Some(true) => return Ok(Others::Pass),
                    Some(false) => failed = true,
                    None => {}
                }
            }
        }
        Ok(match self.earlier_rows(&tables).await? {
            Some(true) => Others::Pass,
            Some(false) => Others::Fail { all: false },
            None if failed => Others::Fail { all: neighbours.len() <= NEIGHBOURS },
            None => Others::None,
        })
    }

    /// Whether these messages pass; `None` where rows for the tables in question were there already, which
    /// says nothing.
    async fn passes(
        &self,
        batch: &mut Batch,
        excluded: &Excluded,
        messages: Range<u32>,
        tables: &[usize],
    ) -> Result<Option<bool>, Halt> {
        match self.trial(batch, excluded, &messages).await? {
            Ok(copied) => Ok((!copied.skips(tables)).then_some(true)),
            Err(Stop::Suspect { .. }) => Ok(Some(false)),
            Err(stop) => Err(Halt::Stop(stop)),
        }
    }

    /// Whether rows pass that passed once, as earlier batches had them. `None` where none is known, or where
    /// they say nothing, since they are there already or too old for a partition.
    async fn earlier_rows(&self, tables: &[usize]) -> Result<Option<bool>, Halt> {
        let mut passed = None;
        for &table in tables {
            let Some(tuple) = self.memory().taken(table).map(<[u8]>::to_vec) else { return Ok(None) };
            match self.trial_of(table, tuple).await? {
                Ok(copied) if copied.skips(&[table]) => return Ok(None),
                Ok(_) => passed = Some(true),
                Err(Stop::Conflict { .. } | Stop::Unpartitioned { .. }) => return Ok(None),
                Err(Stop::Suspect { error, .. }) if is_conflict(&error) => return Ok(None),
                Err(Stop::Suspect { .. }) => return Ok(Some(false)),
                Err(stop) => return Err(Halt::Stop(stop)),
            }
        }
        Ok(passed)
    }

    /// The tables that a message has rows for.
    fn tables_of(&self, batch: &Batch, poisoned: &Poisoned, message: u32) -> Vec<usize> {
        let has_rows = |table: &usize| {
            let rows = &batch.rows.tables[*table].rows;
            let first = rows.partition_point(|row| row.message < message);
            let mut rows = rows[first..].iter().take_while(|row| row.message == message);
            rows.any(|row| !poisoned.excluded.holds(*table, row))
        };
        (0..self.targets.len()).filter(has_rows).collect()
    }

    /// An error that no row is at fault for ends the generation. One that lasts is looked at more closely:
    /// where it is one message that always meets it while others pass, a person should know which.
    pub(super) async fn elsewhere(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        table: Option<usize>,
        error: CopyError,
        relation: Option<String>,
    ) -> Error {
        let lasting = self.memory().doubt(self.checkpoint) >= LASTING;
        let begins_with = if lasting {
            // Whatever else is met meanwhile: the generation ends with what it had to say before.
            self.begins_with(batch, poisoned, table, &error).await.ok().flatten()
        } else {
            None
        };
        let sequence = begins_with.map(|message| batch.messages[message as usize].sequence);
        if relation.is_none() && sequence.is_none() {
            return self.not_written(table, error);
        }
        let table = table.map(|table| self.targets[table].name.clone());
        Error::Elsewhere { table, relation, sequence, source: error }
    }

    /// The message that fails alone, for whatever reason, while others pass.
    async fn begins_with(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        table: Option<usize>,
        error: &CopyError,
    ) -> Result<Option<u32>, Halt> {
        let found = self.find(batch, poisoned, table, error, Counts::Anything).await?;
        let Some((unit, (table, _))) = found else { return Ok(None) };
        let others = self.others(batch, poisoned, unit, table).await?;
        Ok((others == Others::Pass).then_some(unit.message))
    }
}

/// Whether a row is there already, or one that excludes it.
fn is_conflict(error: &CopyError) -> bool {
    // Which errors those are is known to the table of decisions alone.
    decide(&error.source, Step::CopyData { mergeable: true }) == Decision::Merge
}
