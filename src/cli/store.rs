//! `jetcopy store`: what the store's tables and roll-ups hold, and what becomes of them.

use std::io::Write as _;

use super::Failure;
use crate::config::Config;
use crate::store::report;
use crate::terminal;

/// Arguments of `jetcopy store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let report = report::look(&config.postgres).await.map_err(Failure::failed)?;
    let text = if args.json {
        terminal::json(&serde_json::to_string(&report).map_err(Failure::failed)?).into_owned() + "\n"
    } else {
        terminal::lines(&report.text()).into_owned()
    };
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::failed)
}
