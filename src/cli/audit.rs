//! `jetcopy audit`: proves that a pipeline lost nothing and stored nothing twice.
//!
//! Guarantees: it changes nothing, and it fails when it finds a difference. What it cannot prove it says; that is no
//! failure.

use std::io::{self, Write as _};

use super::{Failure, UnknownPipeline};
use crate::audit::audit;
use crate::config::Config;

/// Arguments of `jetcopy audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// First sequence to look at.
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// Print the report as a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; the report goes to standard output. Differences make it fail.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let pipeline = UnknownPipeline::find(config, &args.pipeline).map_err(Failure::failed)?;
    let report = audit(config, pipeline, args.since).await.map_err(Failure::failed)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(Failure::failed)?;
        writeln!(out).map_err(Failure::failed)?;
    } else {
        write!(out, "{report}").map_err(Failure::failed)?;
    }
    if report.differences == 0 { Ok(()) } else { Err(Failure::Told) }
}
