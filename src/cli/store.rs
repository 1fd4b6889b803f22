//! `jetcopy store`: shows what the store's tables and roll-ups hold and what maintains them, and deletes
//! rows.
//!
//! Guarantees: without a subcommand it changes nothing; without `--yes`, a subcommand only shows what it
//! would delete.

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
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
    /// What to do; without it, the store is shown.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What is done to the store.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Delete rows of days that ended long enough ago; recorded in jetcopy.deletions.
    DeleteOld {
        /// The table to delete from.
        #[arg(value_enum)]
        table: Deletable,
        /// Minimum age: 30d deletes the rows of days that ended at least 30 days ago.
        #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// Delete them. Without it, only show what would be deleted and exit with 1.
        #[arg(long)]
        yes: bool,
    },
    /// Delete a time series with its document and points; recorded in jetcopy.deletions.
    DeleteSeries {
        /// The series to delete.
        series: String,
        /// Delete them. Without it, only show what would be deleted and exit with 1.
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

/// Without `yes` it fails after it has shown what would be deleted.
async fn remove(config: &Config, what: What<'_>, yes: bool) -> Result<(), Failure> {
    let Extent { rows, before } =
        delete::delete(&config.postgres, what, yes).await.map_err(Failure::failed)?;
    let what = match what {
        What::Measurements(_) => "measurements".to_owned(),
        What::Series(series) => format!("points of series {series}"),
    };
    let before = before.map(|before| format!(" from before {before}")).unwrap_or_default();
    if yes {
        println!("deleted {rows} {what}{before}");
        return Ok(());
    }
    println!("{rows} {what}{before} would be deleted; nothing was changed; use --yes to do it");
    Err(Failure::Told)
}
