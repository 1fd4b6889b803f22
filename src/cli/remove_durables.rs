//! `jetcopy remove-durables`: removes durable consumers of pipelines that are no longer configured.
//!
//! Guarantees: without `--yes` it only shows them; one that may belong to another daemon is never removed
//! ([`crate::leftover`]).

use super::Failure;
use crate::config::Config;
use crate::leftover::{self, Leftover};
use crate::terminal::say;

/// Arguments of `jetcopy remove-durables`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only durable consumers of these pipelines [default: all that are left over].
    #[arg(value_name = "PIPELINE")]
    pub pipelines: Vec<String>,
    /// Also look on this stream, not only on those of the configuration.
    #[arg(long, value_name = "STREAM")]
    pub stream: Vec<String>,
    /// Remove them. Without it, only show what would be removed and exit with 1.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; prints one line per durable consumer. Without `--yes` it fails if there is something to
/// remove.
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
            say!("leftover: {}", line(left));
        } else if leftover::remove(config, left).await.map_err(Failure::failed)? {
            removed += 1;
            say!("removed: {}", line(left));
        } else {
            say!("kept: {}: it is in use now", line(left));
        }
    }
    if removable == 0 {
        say!("there are no durable consumers to remove");
        return Ok(());
    }
    if args.yes {
        say!("{removed} removed; their pipelines' checkpoints stay in the database");
        return Ok(());
    }
    say!("nothing was changed; use --yes to remove them");
    Err(Failure::Told)
}

/// A durable in a line.
pub(super) fn line(left: &Leftover) -> String {
    let Leftover { stream, durable, pipeline, messages, kept } = left;
    let kept = kept.as_ref().map_or_else(String::new, |kept| format!("; {kept}"));
    format!(
        "durable consumer {durable} on stream {stream}, of pipeline {pipeline}, which is not in this \
         configuration; {messages} messages wait for it{kept}"
    )
}
