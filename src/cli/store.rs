//! `jetcopy store`: what the store's tables and roll-ups hold, what becomes of them, and what a person
//! deletes.
//!
//! Guarantees: without a command it changes nothing; one that deletes only says what would go, without
//! `--yes`.

use std::io::Write as _;
use std::time::Duration;

use super::Failure;
use crate::config::Config;
use crate::store::delete::{self, Extent, What};
use crate::store::report;
use crate::terminal;

/// Arguments of `jetcopy store`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Write one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
    /// What to do; without it, the store is shown.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What is done to the store.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Delete rows of the days that ended so long ago, and tell of it in jetcopy.deletions.
    DeleteOld {
        /// The table.
        #[arg(value_enum)]
        table: Deletable,
        /// How old: 30d deletes what is of days that ended 30 days ago.
        #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// Do it; without it, what would go is shown.
        #[arg(long)]
        yes: bool,
    },
    /// Delete a time series with its document and its points, and tell of it in jetcopy.deletions.
    DeleteSeries {
        /// The series.
        series: String,
        /// Do it; without it, what would go is shown.
        #[arg(long)]
        yes: bool,
    },
}

/// Tables whose old rows a person deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Deletable {
    /// Measurements of radio receivers.
    Measurements,
}

/// Runs the command.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    match &args.command {
        None => show(config, args.json).await,
        Some(Command::DeleteOld { table: Deletable::Measurements, older_than, yes }) => {
            remove(config, What::Measurements(*older_than), *yes).await
        }
        Some(Command::DeleteSeries { series, yes }) => remove(config, What::Series(series), *yes).await,
    }
}

async fn show(config: &Config, json: bool) -> Result<(), Failure> {
    let report = report::look(&config.postgres).await.map_err(Failure::failed)?;
    let text = if json {
        terminal::json(&serde_json::to_string(&report).map_err(Failure::failed)?).into_owned() + "\n"
    } else {
        terminal::lines(&report.text()).into_owned()
    };
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::failed)
}

/// Without `yes` it fails after it has shown what would go.
async fn remove(config: &Config, what: What<'_>, yes: bool) -> Result<(), Failure> {
    let Extent { rows, before } =
        delete::delete(&config.postgres, what, yes).await.map_err(Failure::failed)?;
    let what = match what {
        What::Measurements(_) => "measurements".to_owned(),
        What::Series(series) => format!("points of series {series}"),
    };
    let before = before.map(|before| format!(" from before {before}")).unwrap_or_default();
    if yes {
        println!("{rows} {what}{before} are deleted");
        return Ok(());
    }
    println!("{rows} {what}{before} would go; nothing was changed, --yes does it");
    Err(Failure::Told)
}
