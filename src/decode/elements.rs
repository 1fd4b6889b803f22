//! Arrays of a message → rows of a table, one an element.
//!
//! Guarantees: an element that cannot be stored takes the message along, or with `bad_element = "element"` is
//! refused by itself and leaves nothing behind. It recurses as deep as `for_each` names arrays within arrays.

use crate::batch::{Refused, TableRows};
use crate::config::BadElement;
use crate::encode::Fault;
use crate::payload::{Next, Reader, Value, with_reader};
use crate::poison::{Poison, PoisonKind};

use super::plan::{ForEach, Table};
use super::row::{Around, Origin, RowWriter};
use super::walk::{ROOT, Slots};
use super::wrong::{for_each, misfit, poison, too_large, unmatched};
use super::{Buffers, MOST_ELEMENTS, reuse};

impl<'a> RowWriter<'_, 'a> {
    /// Appends the rows of an array.
    pub(super) fn array(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        each: &mut ForEach,
        array: Option<Value<'a>>,
        around: Option<&Around<'_, 'a>>,
    ) -> Result<(), Poison> {
        self.repeats(table, &[], around);
        match array {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Array(raw)) => {
                each.found += 1;
                let mut slots = reuse(self.buffers.elements.pop().unwrap_or_default());
                let done = with_reader!(raw, |reader| {
                    let bytes = raw.bytes().len();
                    self.elements(table, rows, (each, around), &mut slots, (reader, bytes))
                });
                self.buffers.elements.push(reuse(slots));
                done
            }
            Some(other) => Err(for_each(table, each, other)),
        }
    }

    fn elements<R: Reader<'a>>(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        (each, around): (&mut ForEach, Option<&Around<'_, 'a>>),
        slots: &mut Slots<'a>,
        (mut reader, bytes): (R, usize),
    ) -> Result<(), Poison> {
        let malformed = |fault| poison(table, None, Fault::from(fault), None);
        let first = self.cost.rows();
        let Ok(Next::Array(mut array)) = reader.open(&mut Value::Null) else { return Ok(()) };
        let alone = each.bad == BadElement::Element && each.inner.is_none();
        let mut index = 0;
        while reader.element(&mut array).map_err(malformed)? {
            let before = alone.then(|| (reader.clone(), rows.end(), self.cost.rows()));
            if let Err(poison) = self.element(table, rows, (each, around), slots, &mut reader, index) {
                if poison.kind == PoisonKind::TooLarge {
                    self.cost.estimate(first, reader.position(), bytes);
                    return Err(poison);
                }
                let Some((start, end, cost)) = before else { return Err(poison) };
                let written = rows.data.len() - end.0;
                rows.truncate(end);
                if !self.cost.refused(cost, written) {
                    return Err(too_large(table));
                }
                self.refuse(poison, self.place)?;
                // It may not have been read to its end.
                reader = start;
                reader.value(1).map_err(malformed)?;
            }
            index += 1;
            self.place += u32::from(each.inner.is_none());
        }
        Ok(())
    }

    /// Appends the row of the next element, at `index` in its array, or the rows of the array in it.
    fn element<R: Reader<'a>>(
        &mut self,
        table: &Table,
        rows: &mut TableRows,
        (each, around): (&mut ForEach, Option<&Around<'_, 'a>>),
        slots: &mut Slots<'a>,
        reader: &mut R,
        index: u32,
    ) -> Result<(), Poison> {
        let malformed = |fault| poison(table, None, Fault::from(fault), None);
        each.element.walk(reader, slots, &mut self.buffers.key, 1).map_err(malformed)?;
        if self.by_element && around.is_none() && !self.takes(table, slots, index) {
            return Ok(());
        }
        if each.element.has_misfits()
            && let Some((slot, path)) = each.element.misfit(self.matched)
        {
            return Err(misfit(table, &format!("{}[]", each.path), path, slots[slot]));
        }
        match (slots[ROOT], &mut each.inner) {
            (Some(Value::Map(_) | Value::Array(_)), Some(inner)) => {
                let array = slots[inner.slot];
                self.array(table, rows, inner, array, Some(&Around { slots, around }))
            }
            (Some(Value::Map(raw) | Value::Array(raw)), None) => {
                let origin = Origin { element: slots, around, raw, place: self.place, entry: None };
                self.unpivoted(table, rows, origin)
            }
            (Some(other), _) => Err(for_each(table, each, other)),
            (None, _) => Ok(()),
        }
    }

    /// Whether `table` takes an element of the message, which is noted.
    fn takes(&mut self, table: &Table, slots: &Slots<'a>, place: u32) -> bool {
        let Buffers { key, taken, .. } = &mut *self.buffers;
        let takes = table.when.as_ref().is_none_or(|when| when.takes_element(slots, key));
        let place = place as usize;
        if taken.len() <= place {
            taken.resize(place + 1, false);
        }
        taken[place] |= takes;
        takes
    }

    /// Refuses the elements of the message that no table took.
    pub(super) fn refuse_untaken(&mut self, tables: &[Table]) -> Result<(), Poison> {
        // Places are those of the message's own elements only where rows are made of them.
        let mut each = tables.iter().filter(|table| table.takes).filter_map(|table| table.each.as_ref());
        let alone = each.all(|each| each.bad == BadElement::Element && each.inner.is_none());
        let taken = std::mem::take(&mut self.buffers.taken);
        let mut untaken = (0..).zip(&taken).filter(|(_, taken)| !**taken).map(|(place, _)| place);
        let refused = untaken.try_for_each(|place| {
            let poison = unmatched(Some(place));
            if alone { self.refuse(poison, place) } else { Err(poison) }
        });
        self.buffers.taken = taken;
        refused
    }

    /// Notes that an element is refused; the message as a whole, where too many are.
    #[cold]
    fn refuse(&mut self, mut poison: Poison, place: u32) -> Result<(), Poison> {
        let Some(room) = self.refused.room.checked_sub(1) else {
            poison.message = format!(
                "more than {MOST_ELEMENTS} of its elements cannot be stored; element {place}: {}",
                poison.message
            );
            return Err(poison);
        };
        self.refused.room = room;
        self.refused.list.push(Refused { message: self.index, element: Some(place), poison });
        Ok(())
    }
}
