//! What became of a table between two looks at it, for people.
//!
//! It compares what a mapping depends on. A renamed column is one that is gone and one that was added: the
//! catalog does not say more.

use super::{Column, ServerDefault, Table};

/// How a table differs from what it was.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Columns that were not there before, with their types.
    pub added: Vec<String>,
    /// Columns that are not there any more.
    pub gone: Vec<String>,
    /// Columns of another type, default or rule: as they were and as they are.
    pub changed: Vec<String>,
}

impl Changes {
    /// Compares a table with what it was; `None` where it is read in the same way as before.
    #[must_use]
    pub fn between(before: &Table, after: &Table) -> Option<Self> {
        if before.shape == after.shape {
            return None;
        }
        let (before, after) = (described(before), described(after));
        let was = |name: &str| before.iter().find(|(known, _)| *known == name);
        let mut changes = Self::default();
        for (name, text) in &after {
            match was(name) {
                None => changes.added.push(text.clone()),
                Some((_, old)) if old != text => changes.changed.push(format!("{old} → {text}")),
                Some(_) => {}
            }
        }
        let gone = before.iter().filter(|(name, _)| !after.iter().any(|(known, _)| known == name));
        changes.gone = gone.map(|(name, _)| (*name).to_owned()).collect();
        Some(changes)
    }
}

/// Every column with its name and all that counts.
fn described(table: &Table) -> Vec<(&str, String)> {
    let written = table.columns.iter().map(|column| (column.name.as_str(), describe(column)));
    let others = table.unsupported.iter().map(|column| {
        let text = format!("{} {}", column.name, column.type_name);
        (column.name.as_str(), text)
    });
    written.chain(others).collect()
}

fn describe(column: &Column) -> String {
    let not_null = if column.not_null { " NOT NULL" } else { "" };
    let default = match column.default {
        ServerDefault::None => "",
        ServerDefault::Constant(_) => " with a constant default",
        ServerDefault::Computed => " filled by the server",
    };
    format!("{} {}{not_null}{default}", column.name, column.type_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::types::Type;

    fn table(shape: i64, columns: &[(&str, &str, bool)]) -> Table {
        let column = |&(name, type_name, not_null): &(&str, &str, bool)| Column {
            name: name.to_owned(),
            ty: Type::Text,
            type_name: type_name.to_owned(),
            not_null,
            default: ServerDefault::None,
        };
        Table { shape: Some(shape), columns: columns.iter().map(column).collect(), ..Table::default() }
    }

    #[test]
    fn columns_that_came_went_or_changed_are_named() {
        let before = table(1, &[("id", "bigint", true), ("note", "text", false), ("same", "text", false)]);
        let after = table(2, &[("id", "real", false), ("same", "text", false), ("remark", "text", false)]);
        let changes = Changes::between(&before, &after).unwrap();
        assert_eq!(changes.added, ["remark text"]);
        assert_eq!(changes.gone, ["note"]);
        assert_eq!(changes.changed, ["id bigint NOT NULL → id real"]);
        assert_eq!(Changes::between(&before, &before), None);
    }

    #[test]
    fn a_table_that_was_exchanged_for_one_with_the_same_columns_has_changed_without_a_column() {
        let columns = [("id", "bigint", true)];
        let changes = Changes::between(&table(1, &columns), &table(2, &columns)).unwrap();
        assert_eq!(changes, Changes::default());
    }
}
