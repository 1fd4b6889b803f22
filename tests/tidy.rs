//! What the house rules say of files, held by counting.
//!
//! Guarantees: every rule holds without exception, but for that of long functions. Of these, exactly as many
//! exist as are allowed below: one more fails, and so does one less, so that the allowance only shrinks.
//!
//! It reads text, not syntax: it relies on `cargo fmt` for where an item ends, and on `use crate::…`,
//! `crate::…` or `super::…` for what a module imports. Code under `#[cfg(test)]` and files named `tests`
//! may import anything.

#![expect(clippy::unwrap_used, reason = "helpers of tests say what they expect, too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::Path;

/// Lines of a file, columns of a line and lines of a function, at most.
const LINES: usize = 500;
const COLUMNS: usize = 110;
const FUNCTION: usize = 80;

/// Breaches that are left, all of one rule. Lower the number with each that you mend; it is never raised.
const LONG_FUNCTIONS: usize = 0;

/// Which module owns which of jetcopy's tables: it and the migrations alone name them in a statement.
const OWNERS: [(&str, &[&str]); 9] = [
    ("checkpoint", &["checkpoints", "lanes"]),
    ("daemons", &["daemons"]),
    ("dead_letter", &["dead_letters", "settlements"]),
    ("loss", &["losses"]),
    ("migrate", &["schema_history"]),
    ("milestones", &["milestones"]),
    ("seal", &["seals"]),
    ("store", STORE),
    ("tally", &["tallies"]),
];
const STORE: &[&str] = &[
    "deletions",
    "partition_bounds",
    "partitioned_tables",
    "registry_files",
    "registry_operations",
    "rollups",
    "store_choice",
    "store_life",
    "store_place",
    "touched_buckets",
];

/// Documents that are generated (`make docs`): their lines are as long as what they are made of.
const GENERATED: [&str; 2] = ["docs/metrics.md", "docs/settings.md"];

/// The files with this extension in the directory `place` and below it, in the root alone where `place` is
/// empty: the path of each in the repository, and its text.
fn files(place: &str, extension: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut places, mut found) = (vec![root.join(place)], Vec::new());
    while let Some(directory) = places.pop() {
        for path in directory.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !place.is_empty() {
                places.push(path);
            } else if path.extension().is_some_and(|is| is == extension) {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn code() -> Vec<(String, String)> {
    ["src", "tests", "benches", "fuzz/fuzz_targets"].iter().flat_map(|place| files(place, "rs")).collect()
}

/// Fails unless exactly as many breaches are `found` as are allowed.
fn holds(rule: &str, allowed: usize, found: &[String]) {
    let list = found.join("\n");
    let (count, change) = (found.len(), if found.len() > allowed { "mend the new ones" } else { "lower it" });
    assert_eq!(count, allowed, "{list}\n{rule}: {count} are left, and the allowance is {allowed}: {change}");
}

/// A file of `src` without comments and without the items of its tests.
fn untested(text: &str) -> String {
    let (mut kept, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let end = line.replace("#[cfg(test)]", "}");
            let item = lines.by_ref().find(|line| !line.trim().starts_with("#[")).unwrap_or_default();
            if !item.ends_with(';') {
                lines.by_ref().find(|line| *line == end).unwrap();
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The modules of `src`: the path of each and its text, but for those of tests.
fn modules() -> Vec<(Vec<String>, String)> {
    let path = |name: &str| -> Vec<String> {
        name["src/".len()..name.len() - 3].split('/').map(Into::into).collect()
    };
    let all = files("src", "rs").into_iter().map(|(name, text)| (path(&name), untested(&text)));
    all.filter(|(path, _)| !["lib", "main"].contains(&&*path[0]) && !path.contains(&"tests".into())).collect()
}

/// The names that follow `prefix` where a path begins with it.
fn following<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let begins = |at: usize| !text[..at].ends_with(|before| is_part(before) || before == ':');
    let places = text.match_indices(prefix).filter(|(at, _)| begins(*at));
    let rests = places.map(|(at, _)| &text[at + prefix.len()..]);
    rests.map(|rest| rest.split(|letter| !is_part(letter)).next().unwrap()).collect()
}

#[test]
fn no_two_top_level_modules_import_each_other_in_a_circle() {
    let modules = modules();
    let mut imports: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    imports.extend(modules.iter().map(|(path, _)| (&*path[0], BTreeMap::new())));
    for (path, text) in &modules {
        let from_root = "super::".repeat(path.len());
        for name in following(text, "crate::").into_iter().chain(following(text, &from_root)) {
            assert!(!name.is_empty(), "{path:?}: one `use` for each module");
            if name != path[0] && imports.contains_key(name) {
                imports.get_mut(&*path[0]).unwrap().insert(name, path.join("/"));
            }
        }
    }
    // What imports nothing is in no circle, nor is what nobody imports; and so on with what is left.
    loop {
        let imported: BTreeSet<&str> = imports.values().flat_map(|of| of.keys().copied()).collect();
        let tied = imports.iter().filter(|(name, of)| !of.is_empty() && imported.contains(*name));
        let tied: BTreeSet<&str> = tied.map(|(name, _)| *name).collect();
        if tied.len() == imports.len() {
            break;
        }
        imports.retain(|name, _| tied.contains(name));
        for of in imports.values_mut() {
            of.retain(|name, _| tied.contains(name));
        }
    }
    assert!(imports.is_empty(), "these import each other, by these files: {imports:#?}");
}

#[test]
fn a_file_has_no_more_than_500_lines() {
    let long = code().into_iter().filter(|(_, text)| text.lines().count() > LINES);
    holds("files that are too long", 0, &long.map(|(name, _)| name).collect::<Vec<_>>());
}

/// The lines that are too wide and could be broken: no addresses, and no rows of a document's tables.
fn wide(files: &[(String, String)]) -> Vec<String> {
    let is_wide = |line: &str| line.chars().count() > COLUMNS && !line.contains("://");
    let is_row = |name: &str, line: &str| name.ends_with("md") && line.trim_start().starts_with('|');
    let mut found = Vec::new();
    for (name, text) in files {
        let wide = (1..).zip(text.lines()).filter(|(_, line)| is_wide(line) && !is_row(name, line));
        found.extend(wide.map(|(number, _): (usize, _)| format!("{name}:{number}")));
    }
    found
}

#[test]
fn a_line_of_code_has_no_more_than_110_columns() {
    holds("wide lines of code", 0, &wide(&code()));
}

#[test]
fn a_line_of_a_document_has_no_more_than_110_columns() {
    let mut documents = [files("", "md"), files("docs", "md")].concat();
    documents.retain(|(name, _)| !GENERATED.contains(&&**name));
    holds("wide lines of documents", 0, &wide(&documents));
}

#[test]
fn a_function_has_no_more_than_80_lines() {
    let mut long = Vec::new();
    for (name, text) in code() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let head = line.trim_start();
            let indent = &line[..line.len() - head.len()];
            let is_function =
                head.split('(').next().unwrap().split(' ').rev().skip(1).any(|word| word == "fn");
            if !is_function || head.starts_with("//") || head.ends_with(['}', ';']) {
                continue;
            }
            let is_end = |line: &str| line == "}" || line.starts_with(')') && line.ends_with(';');
            let mut rest = lines[at..].iter().map(|line| line.strip_prefix(indent).unwrap_or_default());
            let length = 1 + rest.position(is_end).unwrap();
            if length > FUNCTION {
                long.push(format!("{name}:{}: {length} lines", at + 1));
            }
        }
    }
    holds("long functions", LONG_FUNCTIONS, &long);
}

#[test]
fn each_file_of_the_sources_opens_with_what_it_guarantees() {
    let bare = files("src", "rs").into_iter().filter(|(_, text)| !text.starts_with("//! "));
    holds("files without an opening", 0, &bare.map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn each_table_of_jetcopys_is_named_in_sql_by_its_owner_alone() {
    let made = [files("migrations", "sql"), files("src", "rs")].concat();
    let made: BTreeSet<&str> =
        made.iter().flat_map(|(_, text)| following(text, "CREATE TABLE jetcopy.")).collect();
    let known = OWNERS.iter().flat_map(|(_, tables)| *tables).copied();
    assert_eq!(made, known.collect(), "each table has an owner");
    let mut foreign = Vec::new();
    for (path, text) in modules().iter().filter(|(path, _)| path[0] != "migrate") {
        let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "\\").collect();
        for pair in words.windows(2) {
            let is_sql =
                ["FROM", "INTO", "UPDATE", "JOIN", "USING"].iter().any(|verb| pair[0].ends_with(verb));
            let named = following(pair[1], "jetcopy.");
            let owner = OWNERS.iter().find(|(_, tables)| tables.iter().any(|table| named.contains(table)));
            if let Some((owner, _)) = owner.filter(|(owner, _)| is_sql && *owner != path[0]) {
                foreign.push(format!("{}.rs: {} is {owner}'s", path.join("/"), named[0]));
            }
        }
    }
    holds("statements on another module's table", 0, &foreign);
}
