//! `jetcopy audit`: proves that a pipeline lost nothing and stored nothing twice.
//! Guarantees: it changes nothing but what `--record` says, and fails if it finds a difference. It says what
//! it cannot prove; that is no failure.

use std::io::{self, Write as _};

use super::Failure;
use super::shards::Which;
use crate::audit::{self, Method, Scope};
use crate::config::Config;
use crate::terminal;

/// Arguments of `jetcopy audit`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// The pipeline.
    #[command(flatten)]
    pub which: Which,
    /// First sequence to audit; of several shards, one must be named.
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// Go by the ledger and the tables alone, without the stream.
    #[arg(long, conflicts_with = "full")]
    pub offline: bool,
    /// Read each message that the stream holds: compare rows also where sequences tell that each is there,
    /// and messages with the digests of the ledger.
    #[arg(long)]
    pub full: bool,
    /// Record in jetcopy.checkpoints up to where there is no difference.
    #[arg(long)]
    pub record: bool,
    /// Print the report as a JSON object; of several shards, one after the other.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; the report goes to standard output. Differences make it fail.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let (pipeline, shards) = args.which.counting(config, args.since).map_err(Failure::failed)?;
    let scope = Scope { since: args.since, full: args.full };
    let mut differences = 0;
    for shard in &shards {
        let report = if args.offline {
            audit::offline(config, pipeline, shard, scope).await
        } else {
            audit::audit(config, pipeline, shard, scope).await
        };
        let report = report.map_err(Failure::failed)?;
        if args.record && report.differences == 0 && report.method != Method::Nothing {
            let recorded = audit::record(config, shard, &report).await.map_err(Failure::failed)?;
            if !recorded {
                tracing::warn!("not recorded: --since leaves a gap to what was proven before");
            }
        }
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
