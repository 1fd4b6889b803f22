//! `jetcopy remove-durables`: removes the durables that pipelines left behind which are not configured any
//! more.
//!
//! Guarantees: without `--yes` it only shows what there is; what may be another daemon's stays in any case
//! ([`crate::leftover`]).

use super::Failure;
use crate::config::Config;
use crate::leftover::{self, Leftover};
use crate::terminal::say;

/// Arguments of `jetcopy remove-durables`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of these pipelines only; without any, of all that are left.
    #[arg(value_name = "PIPELINE")]
    pub pipelines: Vec<String>,
    /// Look on this stream too; without it, on those of the configuration.
    #[arg(long, value_name = "STREAM")]
    pub stream: Vec<String>,
    /// Do it; without it, what would be removed is shown.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; a line a durable goes to standard output. Without `--yes` it fails where there is
/// something to remove.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    config.require_pipelines()?;
    let left = leftover::list(config, &args.stream).await.map_err(Failure::failed)?;
    let wanted = |left: &&Leftover| args.pipelines.is_empty() || args.pipelines.contains(&left.pipeline);
    let (mut removed, mut removable) = (0, 0);
    for left in left.iter().filter(wanted) {
        if left.kept.is_some() {
            say!("kept: {}", line(left));
            continue;
        }
        removable += 1;
        if !args.yes {
            say!("left: {}", line(left));
        } else if leftover::remove(config, left).await.map_err(Failure::failed)? {
            removed += 1;
            say!("removed: {}", line(left));
        } else {
            say!("kept: {}: somebody uses it now", line(left));
        }
    }
    if removable == 0 {
        say!("no durable is left to remove");
        return Ok(());
    }
    if args.yes {
        say!("{removed} removed; the positions of their pipelines stay in the database");
        return Ok(());
    }
    say!("nothing was changed; --yes removes them");
    Err(Failure::Told)
}

/// A durable in a line.
pub(super) fn line(left: &Leftover) -> String {
    let Leftover { stream, durable, pipeline, messages, kept } = left;
    let kept = kept.as_ref().map_or_else(String::new, |kept| format!("; {kept}"));
    format!(
        "durable {durable} on stream {stream}, of pipeline {pipeline}, which is not in this configuration; {messages} messages \
         wait on it{kept}"
    )
}
