//! The handles of a pipeline's tables.
//!
//! Guarantees: where a reload changes which tables there are, those that stay go on counting, and the others
//! are shown no longer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::labelled::Labelled;
use super::{by_label, names};

/// The tables of a pipeline; clones share them.
#[derive(Debug, Clone)]
pub struct Tables {
    rows: IntCounterVec,
    left_out: IntCounterVec,
    messages: IntCounterVec,
    unfilled: IntGaugeVec,
    each: Arc<Mutex<Vec<Table>>>,
}

/// What is counted of an entry of the configuration; entries of one table share it.
#[derive(Debug, Clone)]
pub struct Table {
    name: String,
    /// Rows stored.
    pub rows: IntCounter,
    /// Rows that a trigger left out.
    pub left_out: IntCounter,
    /// Messages taken.
    pub messages: IntCounter,
    /// Columns without a value.
    pub unfilled: IntGauge,
}

impl Tables {
    pub(super) fn new(labelled: &Labelled<'_>, tables: &[&str]) -> Self {
        let made = Self {
            rows: labelled.counters(names::ROWS, names::TABLE),
            left_out: labelled.counters(names::ROWS_LEFT_OUT, names::TABLE),
            messages: labelled.counters(names::TABLE_MESSAGES, names::TABLE),
            unfilled: labelled.gauges(names::UNFILLED_COLUMNS, names::TABLE),
            each: Arc::default(),
        };
        made.are(tables);
        made
    }

    /// They are these from now on, in the order of the configuration.
    pub(super) fn are(&self, tables: &[&str]) {
        let mut each = self.each();
        let gone: BTreeSet<String> = each.iter().map(|table| table.name.clone()).collect();
        for name in gone.iter().filter(|name| !tables.contains(&name.as_str())) {
            // What is gone need not be there.
            let _ = self.rows.remove_label_values(&[name]);
            let _ = self.left_out.remove_label_values(&[name]);
            let _ = self.messages.remove_label_values(&[name]);
            let _ = self.unfilled.remove_label_values(&[name]);
        }
        *each = tables
            .iter()
            .map(|name| Table {
                name: (*name).to_owned(),
                rows: self.rows.with_label_values(&[name]),
                left_out: self.left_out.with_label_values(&[name]),
                messages: self.messages.with_label_values(&[name]),
                unfilled: self.unfilled.with_label_values(&[name]),
            })
            .collect();
    }

    /// Each entry of the configuration, in its order.
    pub fn each(&self) -> MutexGuard<'_, Vec<Table>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows stored over all tables that there are.
    #[must_use]
    pub fn all_rows(&self) -> u64 {
        by_label(&self.rows).values().sum()
    }
}
