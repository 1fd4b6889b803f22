//! `jetcopy query`: the named queries of the store.
//! Guarantees: it changes nothing, so a standby is enough; wrong arguments are reported, with what would be
//! right, before anything is asked.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

use super::{Failure, columns};
use crate::config::Config;
use crate::store::query::answer::Texts;
use crate::store::query::call::Call;
use crate::store::query::named::{self, QUERIES, Query};
use crate::store::query::{Bounds, Options, Store};
use crate::terminal;

/// Arguments of `jetcopy query`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The query to run; without it, all queries are listed.
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
    /// The query's arguments. A time is 2026-07-01T12:00:00Z or a duration before now (2h); a list is
    /// comma-separated.
    #[arg(value_name = "NAME=VALUE")]
    pub arguments: Vec<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// With --format csv: put ' before text that a spreadsheet would read as a formula (=, +, -, @, tab).
    #[arg(long)]
    pub guard_formulas: bool,
    /// Show the query's arguments without running it.
    #[arg(long, requires = "query")]
    pub describe: bool,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// A JSON array of objects.
    Json,
    /// Comma-separated values with a header row.
    Csv,
}

/// Runs the command; the answer goes to standard output.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let Some(name) = &args.query else {
        return print(&list());
    };
    if args.describe
        && let Some(query) = named::query(name)
    {
        return print(&describe(query));
    }
    let call = Call::parse(name, args.arguments.iter().map(String::as_str)).map_err(Failure::arguments)?;
    let options = Options { connections: 1, ..Options::default() };
    let store = Store::open(&config.postgres, &options).map_err(Failure::failed)?;
    let answer = store.ask(&call, &Bounds::default()).await.map_err(Failure::failed)?;
    let text = match args.format {
        Format::Table => table(&answer.texts(false)),
        Format::Json => terminal::json(&answer.json()).into_owned(),
        Format::Csv => {
            let text = csv(&answer.texts(args.guard_formulas)).map_err(Failure::failed)?;
            // A file has what the database has.
            if io::stdout().is_terminal() { terminal::lines(&text).into_owned() } else { text }
        }
    };
    print(&text)
}

/// Aligned columns, and the number of rows.
fn table(Texts { columns, right, rows }: &Texts) -> String {
    let count = match rows.len() {
        0 => return "no rows\n".to_owned(),
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    };
    let header: Vec<&str> = columns.iter().map(String::as_str).collect();
    format!("{}{count}\n", columns::lines(&header, right, rows))
}

/// Comma-separated; nothing where there are no rows.
fn csv(Texts { columns, rows, .. }: &Texts) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !rows.is_empty() {
        writer.write_record(columns)?;
    }
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Prints; a reader that closes the pipe, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn list() -> String {
    let rows: Vec<[String; 3]> = QUERIES
        .iter()
        .map(|query| {
            let arguments = query.arguments.iter().map(|argument| match argument.default {
                None => format!("{}=…", argument.name),
                Some(_) => format!("[{}]", argument.name),
            });
            [query.name.to_owned(), query.help.to_owned(), arguments.collect::<Vec<_>>().join(" ")]
        })
        .collect();
    columns::render(["QUERY", "DESCRIPTION", "ARGUMENTS"], [false; 3], &rows)
}

fn describe(query: &Query) -> String {
    let rows: Vec<[String; 3]> = query
        .arguments
        .iter()
        .map(|argument| {
            let default = argument.default.map_or_else(|| "required".to_owned(), str::to_owned);
            [argument.name.to_owned(), default, argument.help.to_owned()]
        })
        .collect();
    let table = columns::render(["ARGUMENT", "DEFAULT", "DESCRIPTION"], [false; 3], &rows);
    format!("{}: {}\n\n{}", query.name, query.help, if rows.is_empty() { "" } else { &table })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_a_table_with_their_number_or_comma_separated_below_their_names() {
        let rows = |rows: &[[&str; 2]]| Texts {
            columns: vec!["a, b".into(), "c".into()],
            right: vec![false, true],
            rows: rows.iter().map(|row| row.iter().map(|&cell| cell.into()).collect()).collect(),
        };
        let some = rows(&[["x", ""], ["y", "10"]]);
        assert_eq!(table(&some), "a, b   c\nx\ny     10\n2 rows\n");
        assert_eq!(csv(&some).unwrap(), "\"a, b\",c\nx,\ny,10\n");
        assert_eq!(table(&rows(&[])), "no rows\n");
        assert_eq!(csv(&rows(&[])).unwrap(), "");
    }

    #[test]
    fn the_list_has_every_query_with_what_it_takes() {
        let text = list();
        assert_eq!(text.lines().count(), QUERIES.len() + 1);
        assert!(text.contains("camera=… [since] [until] [max_rows]"), "{text}");
    }

    #[test]
    fn a_description_names_defaults_and_what_must_be_given() {
        let text = describe(named::query("frames").unwrap());
        assert!(text.starts_with("frames: frames of a camera, newest first\n\nARGUMENT"), "{text}");
        assert!(text.contains("camera    required  the camera\n"), "{text}");
        assert!(text.contains("since     1h ago    from this time on\n"), "{text}");
    }
}
