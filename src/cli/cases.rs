//! `jetcopy test`: cases of the mapping, beside the configuration, without a server.
//!
//! Guarantees: rows and dead letters are made by the decoder of the daemon ([`crate::preview`]), from tables
//! that `jetcopy check --save-schema` wrote down; no server is asked. A case that passes has the rows that it
//! names, no others, and no dead letter that it does not name.
//!
//! Not guaranteed: what only the server knows of a value, such as the labels of an enumeration; `jetcopy
//! preview` shows that.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::Config;
use crate::postgres::introspect::saved::Saved;
use crate::terminal;

mod case;
mod judge;
mod report;

/// How files with cases end.
const SUFFIX: &str = ".test.toml";

/// The schema beside the cases, where nothing else is said.
const SCHEMA: &str = "jetcopy.schema.json";

/// Arguments of `jetcopy test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files with cases [default: all that end in .test.toml beside the configuration].
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The tables, as `jetcopy check --save-schema` wrote them [default: `schema` in the file with the cases,
    /// or jetcopy.schema.json beside it].
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Also write the results to a file as XML, in the form of `JUnit`.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Print the results as a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// There is nothing to test, or results cannot be written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no file ends in {SUFFIX} in {}: write one, or name files", .0.display())]
    None(PathBuf),
    #[error("cannot look into {directory}", directory = .directory.display())]
    List { directory: PathBuf, source: io::Error },
    #[error("cannot write {path}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Runs the command; a case that fails makes it fail.
pub fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    config.require_pipelines()?;
    let files =
        if args.files.is_empty() { beside(config.origin.file.as_deref())? } else { args.files.clone() };
    let mut results = Vec::new();
    for path in &files {
        let file = case::read(path).map_err(Failure::arguments)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let schema = match (&args.schema, &file.schema) {
            (Some(schema), _) => schema.clone(),
            (None, Some(schema)) => directory.join(schema),
            (None, None) => directory.join(SCHEMA),
        };
        let saved = Saved::read(&schema).map_err(Failure::arguments)?;
        results.push(judge::all(config, &saved, path, directory, &file).map_err(Failure::arguments)?);
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, report::junit(&results))
            .map_err(|source| Failure::failed(Error::Write { path: path.clone(), source }))?;
    }
    let mut out = io::stdout().lock();
    let text = if args.json {
        terminal::json(&report::json(&results)).into_owned()
    } else {
        report::text(&results, out.is_terminal())
    };
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Failure::failed(error)),
        Ok(()) | Err(_) => {}
    }
    if results.iter().all(report::Results::passed) { Ok(()) } else { Err(Failure::Told) }
}

/// The files with cases beside the configuration.
fn beside(place: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let directory = place.and_then(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let list = |source| Failure::arguments(Error::List { directory: directory.to_owned(), source });
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX)) {
            found.push(path.strip_prefix("./").map(Path::to_owned).unwrap_or(path));
        }
    }
    found.sort();
    if found.is_empty() { Err(Failure::arguments(Error::None(directory.to_owned()))) } else { Ok(found) }
}
