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
    let mut arrays = Vec::new();
    for table in &mut *tables {
        let rest = table.takes_rest().then(|| (table.taken.clone(), table.has_rest()));
        let bit = table.bit;
        if let Some(each) = &mut table.each {
            each.all(&mut |each| {
                let rest = rest.clone().filter(|_| each.inner.is_none());
                arrays.push((each.steps.clone(), each.element.clone(), bit, rest));
            });
        }
    }
    for table in tables {
        let bit = table.bit;
        let Some(each) = &mut table.each else { continue };
        let mut covered = message.covered(each.slot);
        each.all(&mut |each| {
            for (_, element, other, rest) in arrays.iter().filter(|(steps, ..)| *steps == each.steps) {
                if let Some((taken, deep)) = rest {
                    each.element.take_rest(*other, taken, *deep);
                }
                if *other != bit {
                    each.element.join(element);
                }
            }
            each.element.cover(covered);
            let before = arrays.iter().take_while(|(.., other, _)| *other != bit);
            before
                .filter(|(steps, ..)| *steps == each.steps)
                .for_each(|(.., other, _)| each.earlier |= *other);
            let mut walked = always;
            walked |= bit;
            each.element.seal(walked);
            if let Some(inner) = &each.inner {
                covered = each.element.covered(inner.slot);
            }
        });
    }
    message.seal(always);
}
