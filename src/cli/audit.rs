//! `jetcopy audit`: proves that a pipeline lost nothing and stored nothing twice.
//! Guarantees: it changes nothing, and fails if it finds a difference. It says what it cannot prove; that is
//! no failure.

use std::io::{self, Write as _};

use super::Failure;
use super::shards::Which;
use crate::audit::audit;
use crate::config::Config;
use crate::terminal;

/// Arguments of `jetcopy audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline.
    #[command(flatten)]
    pub which: Which,
    /// First sequence to audit; of several shards, one must be named.
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// Print the report as a JSON object; of several shards, one after the other.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; the report goes to standard output. Differences make it fail.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let chosen = match args.since {
        Some(_) => args
            .which
            .one(config, "a sequence is one of a stream")
            .map(|(pipeline, shard)| (pipeline, vec![shard])),
        None => args.which.all(config),
    };
    let (pipeline, shards) = chosen.map_err(Failure::failed)?;
    let mut differences = 0;
    for shard in &shards {
        let report = audit(config, pipeline, shard, args.since).await.map_err(Failure::failed)?;
        let text = if args.json {
            let text = serde_json::to_string_pretty(&report).map_err(Failure::failed)? + "\n";
            terminal::json(&text).into_owned()
        } else {
            terminal::lines(&report.to_string()).into_owned()
        };
        io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::failed)?;
        differences += report.differences;
    }
    if differences == 0 { Ok(()) } else { Err(Failure::Told) }
}
