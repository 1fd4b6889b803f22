//! What became of messages, to be told now and then.

use super::Decoder;
use super::plan::{Column, Table};

/// What became of the messages since it was last told; dead letters are counted elsewhere.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages that became rows, or that no table took.
    pub messages: u64,
    /// One entry a configured table.
    pub tables: Vec<TableTally>,
    /// Fields that no column took: their paths, and how often each was there.
    pub fields: Vec<(String, u64)>,
    /// How often others were there, for whose names there was no room.
    pub others: u64,
}

/// The same of one table.
#[derive(Debug, Default)]
pub struct TableTally {
    /// Messages that it took.
    pub taken: u64,
    /// Those of them that had the array of its `for_each`; all, where it has none.
    pub found: u64,
    /// The columns that messages may lack, where one was filled that was not when that was last told.
    pub columns: Option<Vec<ColumnTally>>,
}

/// A column that messages may lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnTally {
    /// Its name.
    pub column: String,
    /// Where its value comes from, as configured.
    pub source: String,
    /// Whether some message had a value for it.
    pub filled: bool,
}

impl Decoder {
    /// Tells what became of the messages since the last time.
    pub fn tell(&mut self) -> Tally {
        let plan = &mut self.plan;
        let mut tally = Tally::default();
        let mut told = |name: &str, times| tally.fields.push((name.to_owned(), times));
        tally.others = plan.message.untaken.tell(&mut told);
        for partial in plan.partial.iter_mut().filter(|partial| partial.times > 0) {
            told(&partial.path, std::mem::take(&mut partial.times));
        }
        for each in plan.tables.iter_mut().filter_map(|table| table.each.as_mut()) {
            each.all(&mut |each| tally.others += each.element.untaken.tell(&mut told));
        }
        tally.tables.resize_with(plan.tables.len(), TableTally::default);
        let messages = std::mem::take(&mut plan.messages);
        tally.messages = messages;
        for (table, tally) in plan.tables.iter_mut().zip(&mut tally.tables) {
            let taken = std::mem::take(&mut table.taken_messages);
            tally.taken = if plan.conditional { taken } else { messages };
            tally.found = match &mut table.each {
                // An array in the elements of another may be there several times.
                Some(each) => std::mem::take(&mut each.innermost().found).min(tally.taken),
                None => tally.taken,
            };
            let unfilled = &self.buffers.unfilled[table.index];
            let changed = table.told_unfilled.replace(unfilled.len()) != Some(unfilled.len());
            tally.columns = changed.then(|| columns(table, unfilled));
        }
        tally
    }

    /// Tells what became of one message, the only one since the last time: which columns it filled, too.
    pub fn tell_of_one(&mut self) -> Tally {
        for table in &mut self.plan.tables {
            table.told_unfilled = None;
        }
        let tally = self.tell();
        self.buffers.unfilled = self.plan.may_lack();
        tally
    }
}

/// Those that messages may lack: the others have a value for every message.
fn columns(table: &Table, unfilled: &[usize]) -> Vec<ColumnTally> {
    let of = |(place, (name, column)): (usize, (&String, &Column))| {
        let tally = || ColumnTally {
            column: name.clone(),
            source: column.source.clone(),
            filled: !unfilled.contains(&place),
        };
        column.from.may_lack().then(tally)
    };
    table.names.iter().zip(&table.columns).enumerate().filter_map(of).collect()
}
