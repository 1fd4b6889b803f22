//! A preview for people: rows, dead letters, and last, where eyes are, what the mapping misses.
//!
//! Guarantees: no value moves a cursor or spans lines; what is wrong is marked by `!!` and by colour.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Shown;
use crate::cli::columns;
use crate::encode::printed;
use crate::preview::report::{Absent, Never, Report, Untaken};
use crate::preview::{Column, Letter, Made, Preview, Row};
use crate::terminal::within;

/// Characters of a value in a table; `--json` has all of it.
const CELL: usize = 40;

/// Characters of a value that has its own line.
const LINE: usize = 160;

/// Wider tables are shown a column a line.
const WIDE: usize = 120;

/// Dead letters alike, and fields that no column takes, that are shown; `--json` has all.
const NAMED: usize = 20;

/// Sequences that are named of letters alike.
const SEQUENCES: usize = 5;

const RED: u8 = 31;
const YELLOW: u8 = 33;

/// All of it.
pub(super) fn of(shown: &Shown<'_>, report: &Report, coloured: bool) -> String {
    let mut text = head(shown, report);
    for table in 0..shown.preview.tables.len() {
        text += &self::table(shown, table);
    }
    text += &letters(shown.made, coloured);
    if let Some(why) = &shown.unjudged {
        let _ = writeln!(
            text,
            "\nValues are as jetcopy sends them; the server did not judge them: {}",
            within(why)
        );
    }
    text + &misses(report, coloured)
}

fn head(shown: &Shown<'_>, report: &Report) -> String {
    let counted = report.counted;
    let range = match (shown.made.first(), shown.made.last()) {
        (Some(first), Some(last)) if first.sequence != last.sequence => {
            format!(", sequences {} to {}", first.sequence, last.sequence)
        }
        (Some(only), _) => format!(", sequence {}", only.sequence),
        _ => String::new(),
    };
    let mut text = format!(
        "{}: {} of {}{range}: {}, {}",
        shown.preview.pipeline.name,
        many(counted.messages, "message"),
        within(&shown.origin),
        many(counted.rows, "row"),
        many(counted.dead_letters, "dead letter"),
    );
    for (count, what) in
        [(counted.without_rows, "without rows"), (counted.passed_over, "passed over (markers)")]
    {
        if count > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {count} {what}");
        }
    }
    text + "\n"
}

fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The rows of one entry.
fn table(shown: &Shown<'_>, index: usize) -> String {
    let entry = &shown.preview.pipeline.tables[index];
    let found: Vec<(&Made, &Row)> = shown
        .made
        .iter()
        .flat_map(|made| made.rows.iter().map(move |row| (made, row)))
        .filter(|(_, row)| row.table == index)
        .collect();
    if found.is_empty() {
        return format!("\n{}: no rows\n", entry.name);
    }
    let about = shown.preview.columns(index);
    rows(&entry.name, &about, &found)
}

/// Rows as a table, or where that is too wide, a column a line.
fn rows(name: &str, about: &[Column<'_>], found: &[(&Made, &Row)]) -> String {
    let title = format!("\n{}: {}\n", within(name), many(found.len() as u64, "row"));
    let of_elements = found.iter().any(|(_, row)| row.element.is_some());
    let mut header = vec!["SEQ"];
    header.extend(of_elements.then_some("[]"));
    header.extend(about.iter().map(|column| column.name));
    let cells = |(made, row): &(&Made, &Row)| {
        let mut cells = vec![made.sequence.to_string()];
        cells.extend(of_elements.then(|| row.element.map_or_else(String::new, |at| at.to_string())));
        cells.extend(
            about.iter().zip(&row.fields).map(|(column, field)| cell(column, field.as_deref(), CELL)),
        );
        cells
    };
    let lines: Vec<Vec<String>> = found.iter().map(cells).collect();
    let right: Vec<bool> = (0..header.len()).map(|at| at == 0 || of_elements && at == 1).collect();
    let text = columns::lines(&header, &right, &lines);
    if text.lines().all(|line| line.chars().count() <= WIDE) {
        return title + &text;
    }
    let blocks = found.iter().map(|(made, row)| {
        let element = row.element.map_or_else(String::new, |at| format!(", element {at}"));
        let each = about.iter().zip(&row.fields).map(|(column, field)| {
            let from =
                if column.source == column.name { String::new() } else { format!("<- {}", column.source) };
            [
                format!("  {}", column.name),
                column.type_name.to_owned(),
                cell(column, field.as_deref(), LINE),
                from,
            ]
        });
        let each: Vec<_> = each.collect();
        let body = columns::render(["  COLUMN", "TYPE", "VALUE", "SOURCE"], [false; 4], &each);
        format!("sequence {}{element}\n{body}", made.sequence)
    });
    title + &blocks.collect::<String>()
}

/// A value, cut short.
fn cell(column: &Column<'_>, field: Option<&[u8]>, most: usize) -> String {
    let Some(field) = field else { return "NULL".to_owned() };
    let text = printed::text(column.ty, field).replace('\n', "\\n");
    let dots = if text.chars().nth(most).is_some() { "…" } else { "" };
    text.chars().take(most).collect::<String>() + dots
}

fn coloured(text: &str, colour: Option<u8>) -> String {
    match colour {
        Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

/// Letters with their messages.
type Letters<'m> = Vec<(&'m Made, &'m Letter)>;

/// Dead letters, those alike together.
fn letters(made: &[Made], in_colour: bool) -> String {
    let mut alike: BTreeMap<[&str; 4], Letters<'_>> = BTreeMap::new();
    for (made, letter) in made.iter().flat_map(|made| made.letters.iter().map(move |letter| (made, letter))) {
        let (table, column) = (letter.table.as_deref(), letter.column.as_deref());
        let key = [letter.kind, table.unwrap_or(""), column.unwrap_or(""), letter.reason.as_str()];
        alike.entry(key).or_default().push((made, letter));
    }
    if alike.is_empty() {
        return String::new();
    }
    let mut groups: Vec<_> = alike.into_values().collect();
    groups.sort_by_key(|group| group[0].0.sequence);
    let mut text = "\ndead letters\n".to_owned();
    for group in groups.iter().take(NAMED) {
        let (made, letter) = group[0];
        let _ = writeln!(text, "{}", coloured(&within(&line(group, letter)), in_colour.then_some(RED)));
        if group.len() == 1 {
            let _ = writeln!(text, "     subject {}", within(&made.subject));
        }
        if let Some(cure) = &letter.cure {
            let _ = writeln!(text, "     -> {}", within(cure));
        }
    }
    if let Some(more @ 1..) = groups.len().checked_sub(NAMED) {
        let _ = writeln!(text, "  and {more} more kinds: see --json");
    }
    text
}

fn line(group: &[(&Made, &Letter)], letter: &Letter) -> String {
    let element = letter.element.map_or_else(String::new, |element| format!(" element {element}"));
    let mut sequences: Vec<String> =
        group.iter().take(SEQUENCES).map(|(made, _)| made.sequence.to_string()).collect();
    if group.len() > SEQUENCES {
        sequences.push("…".to_owned());
    }
    let place = match (&letter.table, &letter.column) {
        (Some(table), Some(column)) => format!(" (table {table}, column {column})"),
        (Some(table), None) => format!(" (table {table})"),
        (None, _) => String::new(),
    };
    let times = if group.len() > 1 { format!("{} x, ", group.len()) } else { String::new() };
    format!(
        "  !! {times}sequence {}{element}: {}{place}: {}",
        sequences.join(", "),
        letter.kind,
        letter.reason
    )
}

/// A message that came by, and what it becomes.
pub(in crate::cli) fn live(preview: &Preview<'_>, made: &Made, bytes: usize, in_colour: bool) -> String {
    let head = format!("{} {} {}", made.sequence, made.subject, many(bytes as u64, "byte"));
    let mut text = format!("{}\n", within(&head));
    for row in &made.rows {
        let element = row.element.map_or_else(String::new, |at| format!("[{at}]"));
        let columns = preview.columns(row.table);
        let cells = columns.iter().zip(&row.fields);
        let cells =
            cells.map(|(column, field)| format!("{}={}", column.name, cell(column, field.as_deref(), CELL)));
        let cells = cells.collect::<Vec<_>>().join("  ");
        let name = &preview.pipeline.tables[row.table].name;
        let _ = writeln!(text, "  {}", within(&format!("{name}{element}  {cells}")));
    }
    for letter in &made.letters {
        let line = within(&line(&[(made, letter)], letter)).into_owned();
        let _ = writeln!(text, "{}", coloured(&line, in_colour.then_some(RED)));
        if let Some(cure) = &letter.cure {
            let _ = writeln!(text, "     -> {}", within(cure));
        }
    }
    if made.rows.is_empty() && made.letters.is_empty() {
        text += if made.passed_over.is_some() { "  passed over: a marker\n" } else { "  no rows\n" };
    }
    text
}

/// What there is to say at the end.
pub(in crate::cli) fn summary(report: &Report, in_colour: bool) -> String {
    let counted = report.counted;
    format!(
        "\n{}: {}, {}\n{}",
        many(counted.messages, "message"),
        many(counted.rows, "row"),
        many(counted.dead_letters, "dead letter"),
        misses(report, in_colour)
    )
}

/// What the mapping misses.
fn misses(report: &Report, in_colour: bool) -> String {
    let mut text = String::new();
    let mut add = |wrong: bool, line: &str, hint: Option<&str>| {
        let (mark, colour) = if wrong { ("!!", RED) } else { (" !", YELLOW) };
        let line = format!("  {mark} {}", within(line));
        let _ = writeln!(text, "{}", coloured(&line, in_colour.then_some(colour)));
        if let Some(hint) = hint {
            let _ = writeln!(text, "     -> {}", within(hint));
        }
    };
    let mean = |field: &Option<String>| field.as_ref().map(|field| format!("did you mean `{field}`?"));
    for Never { table, reason, meant, .. } in &report.never_matched {
        add(true, &format!("table {table} gets no rows: {reason}"), mean(meant).as_deref());
    }
    for Absent { table, column, source, messages, of, meant } in &report.absent {
        let from = if column == source { String::new() } else { format!(" (from `{source}`)") };
        let all = many(*of, "message");
        let line = format!("column {column} of table {table}{from}: no value in {messages} of {all}");
        add(messages == of, &line, mean(meant).as_deref());
    }
    let all = report.counted.messages;
    for Untaken { field, messages, times, example, meant } in report.untaken.iter().take(NAMED) {
        let mut line = format!("field `{field}` goes nowhere: in {messages} of {}", many(all, "message"));
        if times > messages {
            let _ = write!(line, ", {times} times");
        }
        if let Some(example) = example {
            let _ = write!(line, ", such as {example}");
        }
        let hint = meant.as_ref().map(|meant| format!("is it {meant}?"));
        add(hint.is_some(), &line, hint.as_deref());
    }
    if let Some(more @ 1..) = report.untaken.len().checked_sub(NAMED) {
        add(false, &format!("and {more} more fields go nowhere: see --json"), None);
    }
    if text.is_empty() {
        return if all == 0 {
            String::new()
        } else {
            "\nthe mapping misses nothing of these messages\n".into()
        };
    }
    format!("\nwhat the mapping misses\n{text}")
}
