//! What of a batch does not become rows, and what is kept of it.
//!
//! Guarantees: a message that is refused as a whole has one dead letter and no others. Of a batch that is
//! written in parts, only messages of the present part become dead letters: the checkpoint has not come to
//! the others. A message of which too many elements are refused, or more than are looked for within the
//! bounds of [`super::search`], is refused as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::flood::choose;
use super::window::Letters;
use super::{Error, Writer};
use crate::batch::{Batch, Excluded, Refused, Row, headers};
use crate::config::BadElement;
use crate::dead_letter::{DeadLetter, Headers, Raw, add_element, refused_letter};
use crate::decode::MOST_ELEMENTS;
use crate::poison::Poison;

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
    /// Those of which elements were refused after the decoder.
    elements: BTreeMap<u32, OneByOne>,
    /// The message that was blamed last.
    pub(super) blamed: Option<u32>,
    /// Rows that were sent when a message was last charged for some.
    charged: u64,
}

/// A message whose elements are refused one by one.
#[derive(Debug)]
struct OneByOne {
    /// How many of them.
    found: usize,
    /// Rows that may still be sent to find more.
    left: u64,
    /// The first of them.
    first: Option<DeadLetter>,
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
            elements: BTreeMap::new(),
            blamed: None,
            charged: self.search.sent(),
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
        let unsearched = self.is_costly(poisoned, unit.message)
            && (unit.element.is_some() || !self.elements(batch, &poisoned.excluded, unit.message).is_empty());
        self.exclude_as(poisoned, batch, unit, unsearched, table, |letter| refused_letter(letter, error))
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
        self.exclude_as(poisoned, batch, unit, false, table, reason)
    }

    /// The same, with `unsearched` where no more elements of the message are looked for.
    fn exclude_as(
        &self,
        poisoned: &mut Poisoned,
        batch: &Batch,
        unit: Unit,
        unsearched: bool,
        table: Option<usize>,
        reason: impl FnOnce(DeadLetter) -> DeadLetter,
    ) -> Result<(), Error> {
        if !poisoned.part.contains(&unit.message) {
            return Ok(());
        }
        let known = poisoned.elements.entry(unit.message);
        let found = known.or_insert_with(|| OneByOne::new(self.search.share())).found;
        let whole = unsearched || (unit.element.is_some() && found == MOST_ELEMENTS);
        let place = unit.element.map(|(_, place)| place);
        let unit = if whole { Unit { element: None, ..unit } } else { unit };
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
        // That many fewer are left to find.
        self.metrics.motion.moved();
        letter.table = table.map(|table| self.targets[table].name.clone());
        let mut letter = reason(letter);
        if let Some(known) = poisoned.elements.get_mut(&unit.message) {
            if unit.element.is_some() {
                known.found += 1;
                known.first.get_or_insert_with(|| letter.clone());
            } else if whole {
                letter = known.whole(letter, place);
            }
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

    /// Whether no more elements of a message are looked for.
    pub(super) fn is_costly(&self, poisoned: &Poisoned, message: u32) -> bool {
        poisoned.elements.get(&message).map_or_else(|| self.search.share(), |known| known.left) == 0
    }

    /// Charges what was sent since the last time: to a message where elements of it were looked for.
    pub(super) fn charge(&self, poisoned: &mut Poisoned, unit: Unit) {
        poisoned.blamed = Some(unit.message);
        let sent = self.search.sent();
        let cost = sent - std::mem::replace(&mut poisoned.charged, sent);
        if unit.element.is_some() {
            let known = poisoned.elements.entry(unit.message);
            let known = known.or_insert_with(|| OneByOne::new(self.search.share()));
            known.left = known.left.saturating_sub(cost);
            self.search.charge(cost);
        }
    }
}

impl Poisoned {
    /// Leaves the messages from `end` on to another part.
    pub(super) fn cut(&mut self, batch: &Batch, end: u32) {
        let sequence = batch.messages[end as usize].sequence;
        self.messages.split_off(&end);
        self.letters.retain(|letter| letter.sequence < sequence);
        self.part.end = end;
    }

    /// What limits count.
    pub(super) fn counted(&self, batch: &Batch) -> Letters {
        let bytes = |&message: &u32| batch.payload(&batch.messages[message as usize]).len() as u64;
        Letters { messages: self.messages.len(), bytes: self.messages.iter().map(bytes).sum() }
    }

    /// How many accepted dead letters the transaction uses up.
    pub(super) fn uses(&self) -> u64 {
        if self.accepted { self.messages.len() as u64 } else { 0 }
    }

    /// What is kept of a message, without a reason yet. The letters of one message share its headers and its
    /// payload.
    fn original(&self, batch: &Batch, message: u32) -> DeadLetter {
        let block = batch.headers(message);
        let message = &batch.messages[message as usize];
        let known = self.letters.iter().find(|letter| letter.sequence == message.sequence);
        DeadLetter {
            sequence: message.sequence,
            stored_at_ns: message.timestamp_ns,
            subject: batch.subject(message).to_owned(),
            headers: match known {
                Some(letter) => letter.headers.clone(),
                None => Headers::new(headers::read(block)),
            },
            raw: match known {
                Some(letter) => letter.raw.clone(),
                None => Raw::new(batch.subject(message), block),
            },
            payload: match known {
                Some(letter) => letter.payload.clone(),
                None => batch.shared_payload(message),
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

impl OneByOne {
    fn new(left: u64) -> Self {
        Self { found: 0, left, first: None }
    }

    /// The letter of the message as a whole, where one more element is refused than are looked for; by
    /// `letter`, which may be the one at `place`.
    fn whole(&self, letter: DeadLetter, place: Option<u32>) -> DeadLetter {
        if let Some(first) = &self.first {
            let (found, place, why) = (self.found, first.element.unwrap_or_default(), &first.message);
            let message = format!(
                "more than {found} of its elements cannot be stored, too many to test one by one; element \
                 {place}: {why}"
            );
            return DeadLetter { message, element: None, ..first.clone() };
        }
        let place = place.map_or_else(String::new, |place| format!("element {place}: "));
        let message = format!(
            "too much of its batch cannot be stored to test its elements one by one; {place}{}",
            letter.message
        );
        DeadLetter { message, ..letter }
    }
}

/// The letter of what the decoder refused.
fn of_decoder(poisoned: &Poisoned, batch: &Batch, refused: &Refused) -> DeadLetter {
    let poison = &refused.poison;
    let mut letter = DeadLetter {
        kind: poison.kind.as_str(),
        message: poison.message.clone(),
        table: poison.table.clone(),
        column: poison.column.clone(),
        element: refused.element,
        ..poisoned.original(batch, refused.message)
    };
    letter.keep_raw(poison, batch.headers(refused.message));
    letter
}
