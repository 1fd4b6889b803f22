//! Who takes what of a message, as each table's walk over it needs to know.

use crate::decode::takers::Tables;
use crate::decode::walk::Wanted;

use super::{Table, ValueSource};

/// Lets everybody know what the others take.
pub(super) fn share(message: &mut Wanted, tables: &mut [Table]) {
    let mut always = Tables::NONE;
    for table in &*tables {
        if table.when.is_none() {
            always |= table.bit;
        }
        if table.each.is_none() && table.takes_rest() {
            message.take_rest(table.bit, &table.taken, table.has_rest());
        }
        if table.has_source(|from| matches!(from, ValueSource::Payload)) {
            message.cover(table.bit);
        }
    }
    let arrays: Vec<_> = tables
        .iter()
        .filter_map(|table| {
            let each = table.each.as_ref()?;
            let rest = table.takes_rest().then(|| (table.taken.clone(), table.has_rest()));
            Some((each.slot, each.element.clone(), table.bit, rest))
        })
        .collect();
    for table in tables {
        let Some(each) = &mut table.each else { continue };
        for (slot, element, bit, rest) in arrays.iter().filter(|(slot, ..)| *slot == each.slot) {
            if let Some((taken, deep)) = rest {
                each.element.take_rest(*bit, taken, *deep);
            }
            if *bit != table.bit {
                each.element.join(element);
            }
            each.element.cover(message.covered(*slot));
        }
        let before = arrays.iter().take_while(|(.., bit, _)| *bit != table.bit);
        before.filter(|(slot, ..)| *slot == each.slot).for_each(|(.., bit, _)| each.earlier |= *bit);
        let mut walked = always;
        walked |= table.bit;
        each.element.seal(walked);
    }
    message.seal(always);
}
