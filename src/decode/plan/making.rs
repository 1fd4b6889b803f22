//! Where the values of a table's columns lie, as the table is compiled.

use crate::config;
use crate::config::path::Step;
use crate::decode::rest::{Taken, leave_out};
use crate::decode::takers::Tables;
use crate::decode::walk::Wanted;

use super::{ForEach, ValueSource};

/// What the columns of a table are made from, as far as it is known.
pub(super) struct Making<'m> {
    pub(super) message: &'m mut Wanted,
    /// The arrays that lie within each other, from the outside; rows are made of the last one's elements.
    each: Vec<ForEach>,
    pub(super) unpivots: bool,
    /// Keys that columns take, or that other tables make rows of.
    pub(super) taken: Vec<Taken>,
    /// The table.
    pub(super) index: usize,
    pub(super) bit: Tables,
    /// Whether a message is one value.
    pub(super) bare: bool,
}

impl<'m> Making<'m> {
    /// `arrays` are those of all tables, of which this is the one at `index`.
    pub(super) fn new(
        mapping: &config::Table,
        message: &'m mut Wanted,
        arrays: &[Vec<Vec<Step>>],
        index: usize,
        bare: bool,
    ) -> Self {
        let (own, bit) = (&arrays[index], Tables::of(index));
        let mut each: Vec<ForEach> = Vec::new();
        for (level, steps) in own.iter().enumerate() {
            let around = each.last_mut().map_or(&mut *message, |around| &mut around.element);
            let slot = around.split(steps, bit);
            let path = path_of(mapping.for_each.as_deref().unwrap_or_default(), level);
            each.push(ForEach {
                slot,
                inner: None,
                steps: own[..=level].to_vec(),
                element: Wanted::new(&format!("{}[].", path.replace("[*]", "[]"))),
                path,
                bad: mapping.bad_element,
                earlier: Tables::NONE,
                found: 0,
            });
        }
        // What others make rows of is no rest of what they lie in.
        let mut taken = Vec::new();
        for (other, arrays) in arrays.iter().enumerate() {
            if let Some(steps) = arrays.strip_prefix(own.as_slice()).and_then(<[_]>::first) {
                leave_out(&mut taken, steps, Tables::of(other));
            }
        }
        Self { message, each, unpivots: mapping.unpivot.is_some(), taken, index, bit, bare }
    }

    /// How many arrays lie within each other.
    pub(super) fn levels(&self) -> usize {
        self.each.len()
    }

    /// Where the field of a `when` lies.
    pub(super) fn when(&mut self, of_element: bool) -> &mut Wanted {
        match self.each.first_mut() {
            Some(outermost) if of_element => &mut outermost.element,
            _ => self.message,
        }
    }

    /// Where the field at `path` lies, in the element or in the message; it is taken.
    pub(super) fn slot(&mut self, path: &[Step]) -> ValueSource {
        leave_out(&mut self.taken, path, Tables::ALL);
        match self.each.last_mut() {
            Some(each) => ValueSource::Element(each.element.whole(path, self.bit)),
            None => ValueSource::Message(self.message.whole(path, self.bit)),
        }
    }

    /// Where the field at `path` lies of what is `up` levels around the element; `None` where nothing is.
    pub(super) fn around(&mut self, up: usize, path: &[Step]) -> Option<ValueSource> {
        let level = self.levels().checked_sub(up)?;
        Some(match level.checked_sub(1) {
            None => ValueSource::Message(self.message.whole(path, self.bit)),
            Some(level) => ValueSource::Around(up, self.each[level].element.whole(path, self.bit)),
        })
    }

    /// The arrays, each in the one around it, once all columns are known.
    pub(super) fn arrays(&mut self) -> Option<ForEach> {
        let nest =
            |inner: Option<ForEach>, each: ForEach| Some(ForEach { inner: inner.map(Box::new), ..each });
        std::mem::take(&mut self.each).into_iter().rev().fold(None, nest)
    }
}

/// The part of `for_each` that leads to the array at `level`, counted from the outside.
fn path_of(for_each: &str, level: usize) -> String {
    let each = "[*]";
    let end = for_each.match_indices(each).nth(level).map_or(for_each.len(), |(at, _)| at);
    for_each[..end].to_owned()
}
