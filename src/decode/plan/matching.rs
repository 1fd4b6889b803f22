//! Which tables take a message, and what of it nobody takes.

use crate::decode::takers::Tables;
use crate::decode::when::When;
use crate::decode::wrong::{array, misfit};
use crate::message::Message;
use crate::payload::Value;
use crate::poison::Poison;

use super::{Plan, Table};

impl Plan {
    /// Finds which tables may take `message`, by its subject and its headers; whether any may.
    #[inline]
    pub(in crate::decode) fn admit(&mut self, message: &Message) -> bool {
        !self.conditional || self.admit_some(message)
    }

    #[inline(never)]
    fn admit_some(&mut self, message: &Message) -> bool {
        let mut any = false;
        for table in &mut self.tables {
            table.takes = table.when.as_ref().is_none_or(|when| when.may_hold(message));
            any |= table.takes;
        }
        any
    }

    /// Finds which tables take the message that was read into `slots`.
    #[inline]
    pub(in crate::decode) fn matched(&mut self, slots: &[Option<Value<'_>>], scratch: &mut String) -> Tables {
        if self.conditional { self.matched_some(slots, scratch) } else { self.all }
    }

    #[inline(never)]
    fn matched_some(&mut self, slots: &[Option<Value<'_>>], scratch: &mut String) -> Tables {
        let mut matched = Tables::NONE;
        for table in &mut self.tables {
            table.takes &= table.when.as_ref().is_none_or(|when| when.holds(slots, scratch));
            if table.takes {
                matched |= table.bit;
            }
        }
        matched
    }

    /// Why a message is refused in which a path leads into a value that one cannot go into that way.
    #[cold]
    pub(in crate::decode) fn unfit(&self, matched: Tables, slots: &[Option<Value<'_>>]) -> Option<Poison> {
        let (slot, path) = self.message.misfit(matched)?;
        let needs = self.message.needs(slot);
        let table = self.tables.iter().find(|table| table.takes && table.bit.meets(needs))?;
        Some(misfit(table, "", path, slots[slot]))
    }

    /// Why a message that is an array is refused: a table takes it that makes no rows of it.
    #[cold]
    pub(in crate::decode) fn no_array(&self) -> Option<Poison> {
        let table = self.tables.iter().find(|table| table.takes && !table.splits_root())?;
        Some(array(table))
    }

    /// Counts what nobody took of the message that was read into `slots` and that the tables of `matched`
    /// took; nothing of one that became a dead letter.
    #[inline]
    pub(in crate::decode) fn settle(&mut self, matched: Option<Tables>, slots: &[Option<Value<'_>>]) {
        self.message.untaken.settle(matched);
        if self.splits {
            self.settle_elements(matched);
        }
        if let Some(matched) = matched {
            self.messages += 1;
            if self.conditional {
                self.settle_some(matched, slots);
            }
        }
    }

    #[inline(never)]
    fn settle_elements(&mut self, matched: Option<Tables>) {
        for each in self.tables.iter_mut().filter_map(|table| table.each.as_mut()) {
            each.all(&mut |each| {
                each.element.untaken.settle(matched.filter(|matched| !each.earlier.meets(*matched)));
            });
        }
    }

    #[inline(never)]
    fn settle_some(&mut self, matched: Tables, slots: &[Option<Value<'_>>]) {
        for table in self.tables.iter_mut().filter(|table| table.takes) {
            table.taken_messages += 1;
        }
        for partial in &mut self.partial {
            if partial.vanishes(matched) && slots.get(partial.slot).is_some_and(Option::is_some) {
                partial.times += 1;
            }
        }
    }

    /// Whether every table that may take the message at hand goes by its headers: then it need not have a
    /// payload.
    pub(in crate::decode) fn goes_by_headers(&self) -> bool {
        let by_headers = |table: &Table| table.when.as_ref().is_some_and(When::has_headers);
        self.tables.iter().all(|table| !table.takes || by_headers(table))
    }

    /// For each table, the places of the columns that messages may lack.
    pub(in crate::decode) fn may_lack(&self) -> Vec<Vec<usize>> {
        let of_table = |table: &Table| {
            let columns = table.columns.iter().enumerate();
            columns.filter(|(_, column)| column.from.may_lack()).map(|(place, _)| place).collect()
        };
        self.tables.iter().map(of_table).collect()
    }

    /// Whether some table takes `message` by a condition on its headers.
    pub(in crate::decode) fn asks_for(&self, message: &Message) -> bool {
        let whens = self.tables.iter().filter_map(|table| table.when.as_ref());
        whens.filter(|when| when.has_headers()).any(|when| when.may_hold(message))
    }
}
