//! How much work goes into finding what the server refuses.
//!
//! Guarantees: the work for one batch is bounded, whatever is in it: by a number of rows for its elements,
//! and by that of its bad messages for the rest. It is counted in rows that are sent, not in time, so that
//! the same batch comes to the same dead letters however busy the server is.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows that may be sent for the refused elements of one batch: two or three seconds of `COPY`. A message may
/// take half of what those before it have left, so that there is something for each.
const ELEMENTS: u64 = 2_000_000;

/// What a `COPY` costs beside its rows, as a number of rows: it takes some round trips, and so does its
/// transaction.
const COPY: u64 = 150;

/// Rows that may be sent for one part of a batch before what is left to find is looked for in smaller parts.
/// Each trial of a search sends a good share of its part: in a smaller one each of many bad messages is found
/// with less.
const PART: u64 = 250_000;

/// Into how many.
const PARTS: u32 = 8;

/// What the search has cost since a batch began.
#[derive(Debug)]
pub(crate) struct Search {
    /// Rows that were sent.
    sent: AtomicU64,
    /// Rows that may still be sent for elements.
    elements: AtomicU64,
    /// Messages that became dead letters with the parts of the batch that are committed.
    pub(super) letters: usize,
    /// Messages that the next part may have.
    pub(super) limit: u32,
}

impl Default for Search {
    fn default() -> Self {
        Self { sent: AtomicU64::new(0), elements: AtomicU64::new(ELEMENTS), letters: 0, limit: u32::MAX }
    }
}

impl Search {
    /// A `COPY` of this many rows.
    pub(super) fn copies(&self, rows: usize) {
        // Relaxed, as below: one task writes, and the numbers are compared with themselves.
        self.sent.fetch_add(rows as u64 + COPY, Ordering::Relaxed);
    }

    /// Rows that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Where a part of a batch is to end now, if it has cost too much since `sent` rows had been sent: not
    /// before `last`, the message that was blamed last.
    pub(super) fn divide(&mut self, part: &Range<u32>, last: u32, sent: u64) -> Option<u32> {
        let messages = (part.end.saturating_sub(part.start) / PARTS).max(1);
        let end = (part.start + messages).max(last + 1);
        if self.sent() - sent <= PART || end >= part.end {
            return None;
        }
        self.limit = messages;
        Some(end)
    }

    /// A part was committed, `letters` of its messages as dead letters: the next may be larger.
    pub(super) fn committed(&mut self, letters: usize) {
        self.letters += letters;
        self.limit = self.limit.saturating_mul(2);
    }

    /// Rows that may be sent for the elements of one more message.
    pub(super) fn share(&self) -> u64 {
        let share = self.elements.load(Ordering::Relaxed) / 2;
        if share < COPY { 0 } else { share }
    }

    /// So many were sent for a message.
    pub(super) fn charge(&self, rows: u64) {
        let left = self.elements.load(Ordering::Relaxed);
        self.elements.store(left.saturating_sub(rows), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_takes_its_share_leaves_one_for_the_next_and_all_of_them_are_bounded() {
        let search = Search::default();
        let mut all = 0;
        while search.share() > 0 {
            all += search.share();
            search.charge(search.share());
        }
        assert!((ELEMENTS - 2 * COPY..=ELEMENTS).contains(&all), "{all}");
    }

    #[test]
    fn a_part_that_costs_much_ends_earlier_but_behind_what_was_found_and_the_next_ones_grow_again() {
        let mut search = Search::default();
        let sent = search.sent();
        (0..200).for_each(|_| search.copies(1_000));
        assert_eq!(search.divide(&(0..100), 0, sent), None);
        search.copies(20_000);
        assert_eq!((search.divide(&(50..150), 3, sent), search.limit), (Some(62), 12));
        assert_eq!(search.divide(&(0..100), 80, sent), Some(81));
        assert_eq!(search.divide(&(0..100), 99, sent), None);
        assert_eq!((search.divide(&(0..3), 0, sent), search.limit), (Some(1), 1));
        assert_eq!(search.divide(&(0..100), 3, search.sent()), None);
        (0..40).for_each(|_| search.committed(1));
        assert_eq!((search.limit, search.letters), (u32::MAX, 40));
    }
}
