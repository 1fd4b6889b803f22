//! Finds paths that cannot lead to a value, whatever the messages are.
//!
//! Guarantees: a problem names its key and what would be right. A path that it accepts may still lead
//! nowhere: that depends on the messages.

use super::Problems;
use crate::config::Table;
use crate::config::path::{Source, Step, arrays_of, is_of_root, path_of, source};

/// Looks at every path of a table by itself.
pub(super) fn check(table: &Table, at: &dyn Fn(&str) -> String, found: &mut Problems) {
    let in_element = table.for_each.is_some();
    if let Some(for_each) = &table.for_each {
        match arrays_of(for_each) {
            _ if for_each.trim().is_empty() => {
                found.add(at("for_each"), "must name the array to make rows from, or be removed");
            }
            Ok(_) if for_each.split(['.', '[']).any(|part| part == "*") => found.add(
                at("for_each"),
                format!(
                    "`{for_each}`: `*` is no step: [*] goes through an array, as in frames[*].detections"
                ),
            ),
            Ok(arrays) => from_the_top(for_each, &arrays[0], at("for_each"), false, found),
            Err(problem) => found.add(at("for_each"), problem),
        }
    }
    if let Some(field) = table.when.as_ref().and_then(|when| when.field.as_ref()) {
        a_path(field, at("when.field"), table.splits_root(), found);
    }
    if let Some(unpivot) = &table.unpivot {
        if let Some(map) = &unpivot.map {
            a_path(map, at("unpivot.map"), in_element, found);
        }
        for field in &unpivot.fields {
            a_path(field, at("unpivot.fields"), in_element, found);
        }
    }
    for (column, from) in &table.columns {
        let key = at(&format!("columns.{column}"));
        for path in from.named() {
            let key = key.clone();
            if path.trim().is_empty() {
                found.add(key, "the path is empty");
                continue;
            }
            match source(path) {
                Ok(Source::Field(steps)) => from_the_top(path, &steps, key, in_element, found),
                Ok(Source::Outer(up, steps)) => {
                    from_the_top(path, &steps, key, up < levels(table), found);
                }
                Ok(_) => {}
                Err(problem) => found.add(key, problem),
            }
        }
    }
}

/// Looks for paths that go into an array as if it were a map, since `for_each` makes rows of that array.
pub(super) fn contradictions(tables: &[Table], at: &dyn Fn(&str) -> String, found: &mut Problems) {
    for array in tables {
        let Some(Ok(arrays)) = array.for_each.as_deref().map(arrays_of) else { continue };
        let for_each = &arrays[0];
        for (index, table) in tables.iter().enumerate() {
            // Messages of another kind may hold something else there.
            if array.when.is_some() && array.when != table.when {
                continue;
            }
            for (key, path, steps) in of_message(table) {
                let into_it = steps.starts_with(for_each);
                if into_it && matches!(steps.get(for_each.len()), Some(Step::Key(_))) {
                    let whole = array.for_each.as_deref().unwrap_or_default();
                    let text = if is_of_root(whole) && std::ptr::eq(array, table) {
                        format!(
                            "`{path}` would be a field of the message, which for_each = \"{whole}\" takes \
                             for an array: remove a ^"
                        )
                    } else if is_of_root(whole) {
                        format!(
                            "`{path}` is a field of the message, but table {} makes rows from the message as \
                             an array: give the two different `when`s, by subject or header",
                            array.name
                        )
                    } else {
                        format!(
                            "`{path}` treats an array as a map: table {} makes rows from it, with for_each \
                             = \"{whole}\". To make rows of an array in each of its elements, write [*] \
                             between the two, as in frames[*].detections",
                            array.name,
                        )
                    };
                    found.add(at(&format!("table[{index}].{key}")), text);
                }
            }
        }
    }
}

/// How many arrays lie within each other.
fn levels(table: &Table) -> usize {
    table.for_each.as_deref().and_then(|for_each| arrays_of(for_each).ok()).map_or(0, |arrays| arrays.len())
}

/// The paths of a table that begin at the message: key, text and steps.
fn of_message(table: &Table) -> Vec<(String, &str, Vec<Step>)> {
    // Of a message that is an array, it is a field of each element.
    let when = table.when.as_ref().filter(|_| !table.splits_root());
    let when = when.and_then(|when| when.field.as_deref());
    let mut paths: Vec<(String, &str)> = Vec::new();
    let levels = levels(table);
    if levels == 1 {
        paths.extend(table.for_each.as_deref().map(|path| ("for_each".to_owned(), path)));
    }
    paths.extend(when.map(|path| ("when.field".to_owned(), path)));
    if let (Some(unpivot), None) = (&table.unpivot, &table.for_each) {
        paths.extend(unpivot.map.as_deref().map(|path| ("unpivot.map".to_owned(), path)));
        paths.extend(unpivot.fields.iter().map(|path| ("unpivot.fields".to_owned(), path.as_str())));
    }
    for (column, from) in &table.columns {
        let outer = from.named().filter_map(|text| {
            let path = text.trim_start_matches('^');
            (text.len() - path.len() == levels).then_some(path)
        });
        paths.extend(outer.map(|path| (format!("columns.{column}"), path)));
    }
    let steps = |(key, path): (String, _)| path_of(path).ok().map(|steps| (key, path, steps));
    paths.into_iter().filter_map(steps).collect()
}

fn a_path(path: &str, key: String, in_element: bool, found: &mut Problems) {
    match path_of(path) {
        Ok(steps) => from_the_top(path, &steps, key, in_element, found),
        Err(problem) => found.add(key, problem),
    }
}

/// A message is a map; only an element may be an array.
fn from_the_top(path: &str, steps: &[Step], key: String, in_element: bool, found: &mut Problems) {
    if !in_element && matches!(steps.first(), Some(Step::Index(_))) {
        found.add(key, format!("`{path}` starts with an index, but a message is a map: name a field first"));
    }
}
