//! The messages of a batch that one which is refused is compared with.
//!
//! Guarantees: the nearest come first and some of all right after them, so that a good one among many bad
//! ones is met early. It looks at the batch alone and asks no server.

use std::collections::{BTreeMap, BTreeSet};

use super::refused::Poisoned;
use crate::batch::Batch;

/// Neighbours that are tried first: one of them is good as a rule.
pub(super) const NEIGHBOURS: usize = 8;

/// Neighbours that are tried at all, unless more messages of a batch may be bad. Where more are bad than
/// that, their number alone is for a person to look at.
pub(super) const ALL_NEIGHBOURS: usize = 128;

/// Up to `most` of `messages`, which are in order: the next ones on both sides of `of`, then some of all,
/// then those after it and before it.
pub(super) fn nearest(messages: &[u32], of: u32, most: usize) -> Vec<u32> {
    let next = messages.partition_point(|&message| message < of);
    let apart = messages.len().div_ceil(NEIGHBOURS).max(1);
    let places = [next, next.wrapping_sub(1)].into_iter().chain((0..messages.len()).step_by(apart));
    let places = places.chain(next..messages.len()).chain((0..next).rev());
    let mut known = BTreeSet::new();
    let found = places.filter_map(|place| messages.get(place)).copied();
    found.filter(|&message| known.insert(message)).take(most).collect()
}

/// The other messages of the batch with rows for all of these tables, in stream order.
pub(super) fn neighbours(batch: &Batch, poisoned: &Poisoned, message: u32, tables: &[usize]) -> Vec<u32> {
    let mut found: BTreeMap<u32, usize> = BTreeMap::new();
    for &table in tables {
        let rows = batch.rows.tables[table].rows.iter();
        let mut messages: Vec<u32> =
            rows.filter(|row| !poisoned.excluded.holds(table, row)).map(|row| row.message).collect();
        messages.dedup();
        for message in messages {
            *found.entry(message).or_default() += 1;
        }
    }
    let all = found.into_iter().filter(|&(other, count)| other != message && count == tables.len());
    all.map(|(other, _)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_neighbours_are_tried_first_and_some_of_all_after_them() {
        assert_eq!(nearest(&[], 5, 9), [0; 0]);
        assert_eq!(nearest(&[7], 5, 9), [7]);
        assert_eq!(nearest(&[1, 2, 7, 9], 5, 9), [7, 2, 1, 9]);
        let all: Vec<u32> = (0..1000).collect();
        let found = nearest(&all, 500, ALL_NEIGHBOURS);
        assert_eq!(found[..3], [500, 499, 0]);
        assert_eq!(found.len(), ALL_NEIGHBOURS);
        assert!(found[..NEIGHBOURS].iter().any(|&message| message > 600));
        let some: Vec<u32> = (0..30).collect();
        assert_eq!(nearest(&some, 15, ALL_NEIGHBOURS).len(), 30);
        let mut all_of_all = nearest(&all, 500, all.len());
        all_of_all.sort_unstable();
        assert_eq!(all_of_all, all);
    }
}
