//! `jetcopy maintain`: does once, now, what the daemon does every `store.maintain_interval`.
//!
//! Guarantees: a failed step does not keep the others from running, and makes the command fail. If the daemon
//! or another command is already doing it, it leaves the work to them.

use std::fmt::Write as _;
use std::io::Write as _;

use super::Failure;
use crate::config::Config;
use crate::store::maintain::{self, Kind, Line, Maintained, Outcome};
use crate::terminal;

/// Arguments of `jetcopy maintain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; a failed step is reported with the others, and makes it fail at the end.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let report = maintain::maintain(&config.postgres, &config.store, true).await.map_err(Failure::failed)?;
    let text = if args.json {
        terminal::json(&serde_json::to_string(&report).map_err(Failure::failed)?).into_owned() + "\n"
    } else {
        terminal::lines(&text(&report)).into_owned()
    };
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::failed)?;
    match report.outcome {
        Outcome::Done | Outcome::Busy => Ok(()),
        Outcome::Failed => Err(Failure::Told),
    }
}

fn text(report: &Maintained) -> String {
    if report.outcome == Outcome::Busy {
        return "another run is already doing it\n".to_owned();
    }
    if report.lines.is_empty() {
        return "nothing to do: the database has no tables of the store\n".to_owned();
    }
    let width = report.lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Line { name, kind, text: said } in &report.lines {
        let mark = match kind {
            Kind::Unchanged => "ok     ",
            Kind::Changed => "changed",
            Kind::Failed => "failed ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{mark}  {name:<width$}  {said}");
    }
    text
}
