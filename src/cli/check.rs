//! `jetcopy check`: what would go wrong, before it does.
//!
//! Guarantees: it looks at everything that it can reach, also after an error, and changes nothing. A finding names its
//! place and, unless all is well, a remedy. It cannot see what changes later, nor what only rows and messages bring.

use std::io::{self, IsTerminal as _, Write as _};

use super::Failure;
use crate::config::Config;
use report::Report;

mod database;
mod jetstream;
mod report;
mod subject;

/// How the servers know the sessions of a check.
const CLIENT_NAME: &str = "jetcopy check";

/// Arguments of `jetcopy check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the findings as a JSON array of {level, place, text, remedy}.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; findings go to standard output. Errors among them make it fail.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    config.require_pipelines()?;
    let mut report = Report::default();
    report.ok("config", format!("valid; pipelines: {}", names(config)));
    jetstream::look(config, &mut report).await;
    database::look(config, &mut report).await;
    let mut out = io::stdout().lock();
    let text = if args.json { report.json() } else { report.text(out.is_terminal()) };
    out.write_all(text.as_bytes()).map_err(Failure::failed)?;
    if report.errors() == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn names(config: &Config) -> String {
    config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = text + ": " + &error.to_string();
        cause = error.source();
    }
    text
}
