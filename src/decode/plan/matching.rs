//! Which tables take a message, and what of it nobody takes.

use crate::decode::takers::Tables;
use crate::decode::value::Value;
use crate::decode::when::When;
use crate::decode::wrong::misfit;
use crate::decode::{Message, Poison};

use super::{Plan, Table};

impl Plan {
    /// Finds which tables take the message that was read into `slots`.
    #[inline]
    pub(in crate::decode) fn matched(&mut self, slots: &[Option<Value<'_>>], scratch: &mut String) -> Tables {
        if !self.conditional {
            return self.all;
        }
        let mut matched = Tables::NONE;
        for table in &mut self.tables {
            table.takes &= table.when.as_ref().is_none_or(|when| when.holds(slots, scratch));
            if table.takes {
                matched |= table.bit;
            }
        }
        matched
    }

    /// Refuses a message in which a path leads into a value that one cannot go into that way.
    #[inline]
    pub(in crate::decode) fn fits(&self, matched: Tables, slots: &[Option<Value<'_>>]) -> Result<(), Poison> {
        let Some((slot, path)) = self.message.misfit(matched) else { return Ok(()) };
        let needs = self.message.needs(slot);
        let table = self.tables.iter().find(|table| table.takes && table.bit.meets(needs));
        table.map_or(Ok(()), |table| Err(misfit(table, "", path, slots[slot])))
    }

    /// Counts what nobody took of the message that was read into `slots` and that the tables of `matched` took; nothing of
    /// one that became a dead letter.
    #[inline]
    pub(in crate::decode) fn settle(&mut self, matched: Option<Tables>, slots: &[Option<Value<'_>>]) {
        self.message.untaken.settle(matched);
        for table in &mut self.tables {
            if let Some(each) = &mut table.each {
                each.element.untaken.settle(matched.filter(|matched| !each.earlier.meets(*matched)));
            }
        }
        let Some(matched) = matched else { return };
        self.messages += 1;
        if !self.conditional {
            return;
        }
        for table in self.tables.iter_mut().filter(|table| table.takes) {
            table.taken_messages += 1;
        }
        for partial in &mut self.partial {
            if partial.vanishes(matched) && slots.get(partial.slot).is_some_and(Option::is_some) {
                partial.times += 1;
            }
        }
    }

    /// Finds which tables may take `message`, by its subject and its headers; whether any may.
    #[inline]
    pub(in crate::decode) fn admit(&mut self, message: &Message<'_>) -> bool {
        if !self.conditional {
            return true;
        }
        let mut any = false;
        for table in &mut self.tables {
            table.takes = table.when.as_ref().is_none_or(|when| when.may_hold(message));
            any |= table.takes;
        }
        any
    }

    /// Whether every table that may take the message at hand goes by its headers: then it need not have a payload.
    pub(in crate::decode) fn goes_by_headers(&self) -> bool {
        let by_headers = |table: &Table| table.when.as_ref().is_some_and(When::has_headers);
        self.tables.iter().all(|table| !table.takes || by_headers(table))
    }

    /// Whether some table takes `message` by a condition on its headers.
    pub(in crate::decode) fn asks_for(&self, message: &Message<'_>) -> bool {
        let whens = self.tables.iter().filter_map(|table| table.when.as_ref());
        whens.filter(|when| when.has_headers()).any(|when| when.may_hold(message))
    }
}
