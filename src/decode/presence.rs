//! Which columns a row has a field of its message for: what `absent = "keep"` goes by, and what is told of
//! columns that nothing ever fills.
//!
//! A field that is null is there: it says that the column is to become NULL. But it fills nothing.

use crate::encode::types::Type;

use super::plan::{Table, ValueSource};
use super::row::{Origin, RowWriter};
use crate::payload::Value;

impl<'a> RowWriter<'_, 'a> {
    /// Appends a field of `bytea` with a bit for each column, the first one lowest, as `get_bit` counts them.
    #[cold]
    pub(super) fn say_present(&self, out: &mut Vec<u8>, table: &Table, origin: &Origin<'_, 'a>) {
        let bytes = table.columns.len().div_ceil(8);
        // A tuple holds 1,600 columns at most.
        out.extend_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes());
        let start = out.len();
        out.resize(start + bytes, 0);
        for (place, column) in table.columns.iter().enumerate() {
            let present = match &column.from {
                ValueSource::Message(slot) => self.slots[*slot].is_some(),
                ValueSource::Element(slot) => origin.element[*slot].is_some(),
                ValueSource::Around(up, slot) => origin.around(*up, *slot).is_some(),
                ValueSource::Made(made) => self.first(made, origin, &Type::Text).is_some(),
                from if from.may_lack() => self.about_message(from, &Type::Text).is_some(),
                _ => true,
            };
            out[start + place / 8] |= u8::from(present) << (place % 8);
        }
    }

    /// Notes which of the columns that no message filled this row fills. The fewer are left, the less it
    /// costs; commonly none is after some messages.
    #[inline(never)]
    pub(super) fn note_filled(&mut self, table: &Table, origin: &Origin<'_, 'a>) {
        let mut unfilled = std::mem::take(&mut self.buffers.unfilled[table.index]);
        unfilled.retain(|place| {
            let value = match &table.columns[*place].from {
                ValueSource::Message(slot) => self.slots[*slot],
                ValueSource::Element(slot) => origin.element[*slot],
                ValueSource::Around(up, slot) => origin.around(*up, *slot),
                ValueSource::Made(made) => self.first(made, origin, &Type::Text),
                from => self.about_message(from, &Type::Text),
            };
            matches!(value, None | Some(Value::Null))
        });
        self.buffers.unfilled[table.index] = unfilled;
    }
}
