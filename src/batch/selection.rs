//! Which rows of a batch go out, and in which order.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Row, TableRows};

/// What of a batch does not become rows.
#[derive(Debug, Clone, Default)]
pub struct Excluded {
    /// Messages, by their index in the batch.
    pub messages: BTreeSet<u32>,
    /// Elements: index of the table, index of the message, place in the array.
    pub elements: BTreeSet<(usize, u32, u32)>,
}

/// Which rows of one table go out.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// Index of the table.
    pub table: usize,
    /// What does not.
    pub excluded: &'a Excluded,
    /// The range of messages that do.
    pub within: Range<u32>,
}

impl Excluded {
    /// Whether a row of table `table` is left out.
    #[must_use]
    pub fn holds(&self, table: usize, row: &Row) -> bool {
        self.messages.contains(&row.message) || self.elements.contains(&(table, row.message, row.element))
    }

    /// Whether all rows go out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.elements.is_empty()
    }
}

impl Selection<'_> {
    /// The rows to send, in the order to send them: sorted by time (stable, so rows of one time stay in
    /// stream order) unless `in_stream_order`. `None` stands for all of them as they lie, which is the common
    /// case.
    #[must_use]
    pub fn order(&self, rows: &TableRows, in_stream_order: bool) -> Option<Vec<u32>> {
        let rows = &rows.rows;
        let sorted = in_stream_order || rows.is_sorted_by_key(|row| row.time);
        let whole = rows.first().is_none_or(|row| row.message >= self.within.start)
            && rows.last().is_none_or(|row| row.message < self.within.end);
        if sorted && whole && self.excluded.is_empty() {
            return None;
        }
        let mut selected: Vec<u32> = (0u32..)
            .zip(rows)
            .filter(|(_, row)| self.within.contains(&row.message) && !self.excluded.holds(self.table, row))
            .map(|(index, _)| index)
            .collect();
        if !sorted {
            selected.sort_by_key(|&index| rows[index as usize].time);
        }
        Some(selected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two bytes a row.
    fn table(rows: &[(u32, u32, i64)]) -> TableRows {
        let rows = (0..).zip(rows).map(|(index, &(message, element, time))| Row {
            start: index * 2,
            message,
            element,
            time,
        });
        let rows: Vec<Row> = rows.collect();
        TableRows { data: vec![0; rows.len() * 2], rows }
    }

    fn order(
        table: &TableRows,
        in_stream_order: bool,
        excluded: &Excluded,
        within: Range<u32>,
    ) -> Option<Vec<u32>> {
        Selection { table: 1, excluded, within }.order(table, in_stream_order)
    }

    #[test]
    fn rows_in_time_order_are_sent_as_they_lie() {
        let table = table(&[(0, 0, 10), (1, 0, 10), (2, 0, 11)]);
        assert_eq!(order(&table, false, &Excluded::default(), 0..u32::MAX), None);
    }

    #[test]
    fn shuffled_rows_are_sorted_by_time_and_stay_in_stream_order_within_it() {
        let table = table(&[(0, 0, 30), (1, 0, 10), (2, 0, 20), (3, 0, 10)]);
        assert_eq!(order(&table, false, &Excluded::default(), 0..u32::MAX), Some(vec![1, 3, 2, 0]));
        assert_eq!(order(&table, true, &Excluded::default(), 0..u32::MAX), None);
    }

    #[test]
    fn excluded_messages_and_messages_outside_the_range_are_left_out() {
        let table = table(&[(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)]);
        let excluded = Excluded { messages: BTreeSet::from([2]), ..Excluded::default() };
        assert_eq!(order(&table, false, &excluded, 1..4), Some(vec![1, 3]));
        assert_eq!(table.range(4), 8..10);
    }

    #[test]
    fn an_excluded_element_is_left_out_of_its_own_table_with_all_its_rows() {
        let table = table(&[(0, 0, 0), (0, 1, 0), (0, 1, 0), (1, 1, 0)]);
        let excluded = |table| Excluded { elements: BTreeSet::from([(table, 0, 1)]), ..Excluded::default() };
        assert_eq!(order(&table, false, &excluded(1), 0..u32::MAX), Some(vec![0, 3]));
        assert_eq!(order(&table, false, &excluded(0), 0..u32::MAX), Some(vec![0, 1, 2, 3]));
    }
}
