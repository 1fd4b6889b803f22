//! What of a batch the decoder refused.
//!
//! Guarantees: how much memory the list takes is known at any time.

use std::ops::Deref;

use crate::poison::Poison;

/// A message, or an element of it, that does not become rows.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Index of the message in [`Batch::messages`](super::Batch::messages).
    pub message: u32,
    /// Place of the element in its array, where it is one element of the table that the poison names.
    pub element: Option<u32>,
    /// Why.
    pub poison: Poison,
}

/// All of them, in stream order.
#[derive(Debug, Default)]
pub struct Refusals {
    list: Vec<Refused>,
    bytes: usize,
}

impl Refused {
    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        let Poison { kind: _, message, table, column } = &self.poison;
        let names = table.iter().chain(column).map(String::len).sum::<usize>();
        size_of::<Self>() + message.len() + names
    }
}

impl Refusals {
    /// Adds one.
    pub fn push(&mut self, refused: Refused) {
        self.bytes += refused.bytes();
        self.list.push(refused);
    }

    /// Drops all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        let dropped: usize = self.list.iter().skip(count).map(Refused::bytes).sum();
        self.bytes -= dropped;
        self.list.truncate(count);
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Deref for Refusals {
    type Target = [Refused];

    fn deref(&self) -> &[Refused] {
        &self.list
    }
}
