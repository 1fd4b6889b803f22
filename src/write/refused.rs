//! What of a batch does not become rows, and what is kept of it.
//!
//! Guarantees: what is found is a message, or with `bad_element = "element"` an element of it, whose rows the server
//! refuses together with those before it: by the line that the error names, else by bisection over prefixes of the
//! batch, in transactions that are rolled back. A message that is refused as a whole has one dead letter and no others.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::Instant;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Error, Writer, within};
use crate::batch::{Batch, Excluded, Row, Selection};
use crate::checkpoint;
use crate::config::BadElement;
use crate::copy::CopyError;
use crate::dead_letter::{DeadLetter, Headers};
use crate::metrics;
use crate::postgres::sqlstate::{Decision, Step, decide};

/// What of a batch does not become rows, and what is kept of it.
#[derive(Default)]
pub(super) struct Poisoned {
    pub(super) excluded: Excluded,
    pub(super) letters: Vec<DeadLetter>,
}

/// What is refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// Index of the message in its batch.
    message: u32,
    /// Index of the table and place in the array, where only an element of the message is at fault.
    element: Option<(usize, u32)>,
}

impl Writer {
    /// Finds the message whose row the server refused and lets it become a dead letter; the error where the server takes
    /// all rows by now.
    pub(super) async fn refuse(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        table: usize,
        error: CopyError,
    ) -> Result<Option<Error>, Error> {
        let unit = match self.pinned(batch, table, &error, poisoned) {
            Some(unit) => Some(unit),
            None => self.bisect(batch, poisoned).await?,
        };
        match unit {
            Some(unit) => {
                self.add_refused(poisoned, batch, unit, Some(table), &error.source)?;
                Ok(None)
            }
            None => Ok(Some(Error::Copy { table: self.targets[table].name.clone(), source: error })),
        }
    }

    /// The message or element whose row the server named.
    fn pinned(&self, batch: &Batch, table: usize, error: &CopyError, poisoned: &Poisoned) -> Option<Unit> {
        let selection = Selection { table, excluded: &poisoned.excluded, within: 0..u32::MAX };
        let target = &self.targets[table];
        let row = target.row_of(&batch.rows.tables[table], &selection, error.row?)?;
        Some(self.unit_of(table, row))
    }

    /// What is refused with a row of a table.
    pub(super) fn unit_of(&self, table: usize, row: &Row) -> Unit {
        let element = match self.targets[table].bad_element {
            BadElement::Message => None,
            BadElement::Element => Some((table, row.element)),
        };
        Unit { message: row.message, element }
    }

    /// Finds the first message without which the batch would pass so far, or the first element of it, by trials that are
    /// rolled back. `None` when the batch passes now.
    pub(super) async fn bisect(&self, batch: &mut Batch, poisoned: &Poisoned) -> Result<Option<Unit>, Error> {
        let excluded = &poisoned.excluded;
        let all = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        if self.passes(batch, excluded, all).await? {
            return Ok(None);
        }
        let (mut passes, mut fails) = (0, all);
        while fails - passes > 1 {
            let middle = passes + (fails - passes) / 2;
            if self.passes(batch, excluded, middle).await? {
                passes = middle;
            } else {
                fails = middle;
            }
        }
        Ok(Some(Unit { message: passes, element: self.bisect_elements(batch, excluded, passes).await? }))
    }

    /// Finds the first element without which `message` would pass so far; `None` when it does not pass without elements.
    async fn bisect_elements(
        &self,
        batch: &mut Batch,
        excluded: &Excluded,
        message: u32,
    ) -> Result<Option<(usize, u32)>, Error> {
        let elements = self.elements(batch, excluded, message);
        let without = |from: usize| {
            let left_out = elements[from..].iter().map(|&(table, element)| (table, message, element));
            let mut excluded = excluded.clone();
            excluded.elements.extend(left_out);
            excluded
        };
        if elements.is_empty() || !self.passes(batch, &without(0), message + 1).await? {
            return Ok(None);
        }
        let (mut passes, mut fails) = (0, elements.len());
        while fails - passes > 1 {
            let middle = passes + (fails - passes) / 2;
            if self.passes(batch, &without(middle), message + 1).await? {
                passes = middle;
            } else {
                fails = middle;
            }
        }
        Ok(Some(elements[passes]))
    }

    /// The elements of `message` that may be refused one by one, in the order of their rows.
    fn elements(&self, batch: &Batch, excluded: &Excluded, message: u32) -> Vec<(usize, u32)> {
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

    /// Whether the server takes the rows of the first `messages` messages.
    async fn passes(&self, batch: &mut Batch, excluded: &Excluded, messages: u32) -> Result<bool, Error> {
        self.at(metrics::Step::Search);
        self.begin_trial(&batch.rows.tables).await?;
        let outcome = match self.copy_all(batch, excluded, 0..messages).await? {
            Ok(_) => self.statement("SET CONSTRAINTS ALL IMMEDIATE").await?.map_err(|e| (e, Step::Commit)),
            Err((table, error)) if error.step == Step::CopyStart => {
                return Err(Error::Copy { table: self.targets[table].name.clone(), source: error });
            }
            Err((_, error)) => Err((error.source, error.step)),
        };
        let passes = match outcome {
            Ok(()) => true,
            Err((error, step)) => match decide(&error, step) {
                Decision::PoisonRow | Decision::AddPartition => false,
                Decision::Retry
                | Decision::Reconnect
                | Decision::BackOff
                | Decision::Merge
                | Decision::Pause => return Err(Error::Trial(error)),
            },
        };
        within(self.step_timeout, "roll back", checkpoint::rollback(&self.session)).await?;
        Ok(passes)
    }

    async fn statement(&self, sql: &str) -> Result<Result<(), tokio_postgres::Error>, Error> {
        timeout(self.step_timeout, self.session.client.batch_execute(sql))
            .await
            .map_err(|_| Error::Timeout { action: "look for the refused row", after: self.step_timeout })
    }

    pub(super) fn refused_by_decoder(&self, batch: &Batch) -> Result<Poisoned, Error> {
        let mut poisoned = Poisoned::default();
        self.admit(batch.rows.refused.len())?;
        for refused in &batch.rows.refused {
            let poison = &refused.poison;
            if refused.element.is_none() {
                poisoned.excluded.messages.insert(refused.message);
            }
            let letter = DeadLetter {
                kind: poison.kind.as_str(),
                message: poison.message.clone(),
                table: poison.table.clone(),
                column: poison.column.clone(),
                element: refused.element,
                ..poisoned.original(batch, refused.message)
            };
            poisoned.letters.push(letter);
        }
        Ok(poisoned)
    }

    pub(super) fn add_refused(
        &self,
        poisoned: &mut Poisoned,
        batch: &Batch,
        unit: Unit,
        table: Option<usize>,
        error: &tokio_postgres::Error,
    ) -> Result<(), Error> {
        self.exclude(poisoned, batch, unit, table, |letter| refused_letter(letter, error))
    }

    /// Lets a message or an element become a dead letter, with the reason that `reason` adds to it.
    pub(super) fn exclude(
        &self,
        poisoned: &mut Poisoned,
        batch: &Batch,
        unit: Unit,
        table: Option<usize>,
        reason: impl FnOnce(DeadLetter) -> DeadLetter,
    ) -> Result<(), Error> {
        let mut letter = poisoned.original(batch, unit.message);
        let table = if let Some((table, element)) = unit.element {
            poisoned.excluded.elements.insert((table, unit.message, element));
            letter.element = Some(element);
            Some(table)
        } else {
            poisoned.excluded.messages.insert(unit.message);
            // Those of its elements; the message is now refused with all of them.
            poisoned.letters.retain(|other| other.sequence != letter.sequence);
            table
        };
        // There are so many fewer left to find.
        self.metrics.motion.moved();
        letter.table = table.map(|table| self.targets[table].name.clone());
        poisoned.letters.push(reason(letter));
        self.admit(poisoned.letters.len())
    }

    fn admit(&self, letters: usize) -> Result<(), Error> {
        let mut window = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(window.admit(letters, Instant::now())?)
    }
}

impl Poisoned {
    /// What is kept of a message, without a reason yet. The letters of one message share its payload.
    fn original(&self, batch: &Batch, message: u32) -> DeadLetter {
        let message = &batch.messages[message as usize];
        let known = self.letters.iter().find(|letter| letter.sequence == message.sequence);
        DeadLetter {
            sequence: message.sequence,
            stored_at_ns: message.timestamp_ns,
            subject: batch.subject(message).to_owned(),
            headers: message.headers.as_ref().map(Headers::from),
            payload: match known {
                Some(letter) => letter.payload.clone(),
                None => Bytes::copy_from_slice(batch.payload(message)),
            },
            kind: "",
            sqlstate: None,
            message: String::new(),
            table: None,
            column: None,
            element: None,
        }
    }
}

/// The letter of a message with a row that the server refused.
pub(crate) fn refused_letter(original: DeadLetter, error: &tokio_postgres::Error) -> DeadLetter {
    let mut letter = DeadLetter { kind: "refused", ..original };
    match error.as_db_error() {
        Some(refusal) => {
            letter.sqlstate = Some(refusal.code().code().to_owned());
            refusal.message().clone_into(&mut letter.message);
            if let Some(detail) = refusal.detail() {
                // Writing to a string cannot fail.
                let _ = write!(letter.message, " ({detail})");
            }
            letter.column = refusal.column().map(str::to_owned);
        }
        None => letter.message = error.to_string(),
    }
    letter
}
