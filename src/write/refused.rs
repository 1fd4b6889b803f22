//! What of a batch does not become rows, and what is kept of it.
//!
//! Guarantees: a message that is refused as a whole has one dead letter and no others. Of a batch that is written in parts,
//! only messages of the present part become dead letters: the checkpoint has not come to the others.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;

use super::flood::choose;
use super::{Error, Writer};
use crate::batch::{Batch, Excluded, Refused, Row, headers};
use crate::config::BadElement;
use crate::dead_letter::{DeadLetter, Headers, add_element};
use crate::decode::{MOST_ELEMENTS, Poison};
use crate::poison::Letters;

/// What of a part of a batch does not become rows, and what is kept of it.
pub(super) struct Poisoned {
    /// The messages that the transaction is about.
    pub(super) part: Range<u32>,
    /// A message whose rows for these tables passed alone: the others need not be asked again.
    pub(super) good: Option<(Vec<usize>, u32)>,
    pub(super) excluded: Excluded,
    pub(super) letters: Vec<DeadLetter>,
    /// The messages that these are of: what limits count.
    pub(super) messages: BTreeSet<u32>,
    /// Whether they are beyond what limits call normal, and accepted all the same.
    pub(super) accepted: bool,
    /// Elements of the last of them that the server has refused.
    elements: (u32, usize),
}

/// What is refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// Index of the message in its batch.
    pub(super) message: u32,
    /// Index of the table and place in the array, where only an element of the message is at fault.
    pub(super) element: Option<(usize, u32)>,
}

impl Writer {
    /// What is refused with a row of a table.
    pub(super) fn unit_of(&self, table: usize, row: &Row) -> Unit {
        let element = match self.targets[table].bad_element {
            BadElement::Message => None,
            BadElement::Element => Some((table, row.element)),
        };
        Unit { message: row.message, element }
    }

    /// What the decoder refused of a part.
    pub(super) fn refused_by_decoder(&self, batch: &Batch, part: Range<u32>) -> Result<Poisoned, Error> {
        let refused = &batch.rows.refused;
        let first = refused.partition_point(|refused| refused.message < part.start);
        let end = refused.partition_point(|refused| refused.message < part.end);
        let messages: BTreeSet<u32> = refused[first..end].iter().map(|refused| refused.message).collect();
        let mut poisoned = Poisoned {
            part,
            good: None,
            excluded: Excluded::default(),
            letters: Vec::new(),
            messages,
            accepted: false,
            elements: (0, 0),
        };
        let refused = &refused[first..end];
        self.admit(batch, &mut poisoned, |poisoned| {
            choose(refused, |refused| {
                let Poison { kind, table, column, .. } = &refused.poison;
                (kind.as_str(), table, column)
            })
            .map(|refused| of_decoder(poisoned, batch, refused))
            .collect()
        })?;
        for refused in refused.iter().take_while(|refused| refused.message < poisoned.part.end) {
            if refused.element.is_none() {
                poisoned.excluded.messages.insert(refused.message);
            }
            let letter = of_decoder(&poisoned, batch, refused);
            add_element(&mut poisoned.letters, letter);
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
        if !poisoned.part.contains(&unit.message) {
            return Ok(());
        }
        let place = unit.element;
        let unit = poisoned.whole_where_too_many(unit);
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
        let mut letter = reason(letter);
        if let (Some((_, place)), None) = (place, unit.element) {
            let why = &letter.message;
            letter.message =
                format!("more than {MOST_ELEMENTS} of its elements cannot be stored; element {place}: {why}");
        }
        add_element(&mut poisoned.letters, letter);
        poisoned.messages.insert(unit.message);
        self.admit(batch, poisoned, |poisoned| {
            let letters = choose(&poisoned.letters, |letter| {
                (letter.kind, &letter.sqlstate, &letter.table, &letter.column)
            });
            letters.cloned().collect()
        })
    }
}

impl Poisoned {
    /// What limits count.
    pub(super) fn counted(&self, batch: &Batch) -> Letters {
        let bytes = |&message: &u32| batch.payload(&batch.messages[message as usize]).len() as u64;
        Letters { messages: self.messages.len(), bytes: self.messages.iter().map(bytes).sum() }
    }

    /// How many accepted dead letters the transaction uses up.
    pub(super) fn uses(&self) -> u64 {
        if self.accepted { self.messages.len() as u64 } else { 0 }
    }

    /// The message as a whole, where more of its elements are refused than are looked for one by one.
    fn whole_where_too_many(&mut self, unit: Unit) -> Unit {
        if unit.element.is_none() {
            return unit;
        }
        let (message, count) = self.elements;
        self.elements = (unit.message, if message == unit.message { count + 1 } else { 1 });
        if self.elements.1 > MOST_ELEMENTS { Unit { element: None, ..unit } } else { unit }
    }

    /// What is kept of a message, without a reason yet. The letters of one message share its payload.
    fn original(&self, batch: &Batch, message: u32) -> DeadLetter {
        let headers = Headers::new(headers::read(batch.headers(message)));
        let message = &batch.messages[message as usize];
        let known = self.letters.iter().find(|letter| letter.sequence == message.sequence);
        DeadLetter {
            sequence: message.sequence,
            stored_at_ns: message.timestamp_ns,
            subject: batch.subject(message).to_owned(),
            headers,
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
            elements: Vec::new(),
        }
    }
}

/// The letter of what the decoder refused.
fn of_decoder(poisoned: &Poisoned, batch: &Batch, refused: &Refused) -> DeadLetter {
    let poison = &refused.poison;
    DeadLetter {
        kind: poison.kind.as_str(),
        message: poison.message.clone(),
        table: poison.table.clone(),
        column: poison.column.clone(),
        element: refused.element,
        ..poisoned.original(batch, refused.message)
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
