//! `jetcopy accept-loss`: lets a pipeline go on that halted because messages were lost.
//!
//! Guarantees: without `--yes` it only shows what would happen: where the pipeline would go on, and what
//! would come again. With it, it accepts what it shows and changes nothing else; the running daemon, which
//! looks every few seconds, or the next one goes on past exactly these losses. It never makes a loss smaller
//! or larger.

use super::Failure;
use super::shards::Which;
use crate::config::{Config, Pipeline};
use crate::control;
use crate::control::accept::{self, Again, CLIENT_NAME, Error, Plan};
use crate::loss::{Cause, Open};
use crate::postgres::connect;
use crate::shard::Shard;
use crate::terminal::say;

/// Arguments of `jetcopy accept-loss`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline.
    #[command(flatten)]
    pub which: Which,
    /// Resume after this sequence of the stream as it is now, instead of where jetcopy would; of several
    /// shards, one must be named.
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,
    /// Accept the losses. Without it, only show what would happen and exit with 1.
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Show what would happen and exit with 0.
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the command; a line a loss goes to standard output. With neither `--yes` nor `--dry-run` it fails
/// after it has shown what there is to accept.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let (pipeline, shards) = args.which.counting(config, args.after).map_err(Failure::failed)?;
    let mut done = true;
    for shard in &shards {
        done &= of_shard(config, pipeline, shard, args).await.map_err(Failure::failed)?;
    }
    if done { Ok(()) } else { Err(Failure::Told) }
}

/// Shows and accepts the losses of one shard; whether there is nothing left to say `--yes` to.
async fn of_shard(config: &Config, pipeline: &Pipeline, shard: &Shard, args: &Args) -> Result<bool, Error> {
    let session = connect::connect(&config.postgres, CLIENT_NAME).await.map_err(control::Error::from)?;
    let open = accept::open(&session, shard).await?;
    if open.is_empty() {
        say!("pipeline {shard} has no loss to accept");
        return Ok(true);
    }
    let tell_losses = |verb| {
        for Open { stream, first, last, cause, detected } in &open {
            say!("{verb}: stream {stream}, sequences {first} to {last}, {cause}, detected {detected}");
        }
    };
    tell_losses("open");
    match accept::plan(config, pipeline, shard, &session, args.after).await? {
        Some(plan) => tell(&shard.name, &plan),
        None => say!("none of them is holding up pipeline {shard} now"),
    }
    if args.yes {
        accept::accept(&session, shard, args.after).await?;
        tell_losses("accepted");
        say!("the pipeline resumes after them; a running daemon does so within 10 s");
    } else {
        say!("nothing was changed; use --yes to do it");
    }
    session.close().await;
    Ok(args.yes || args.dry_run)
}

fn tell(pipeline: &str, plan: &Plan) {
    let Plan { checkpoint, stream: (first, last), loss, after, messages, again, .. } = plan;
    say!("{loss}");
    say!("the stream holds sequences {first} to {last}; the checkpoint is at {checkpoint}");
    say!("pipeline {pipeline} would resume after sequence {after} and read {messages} messages");
    if let Some(proven) = plan.forked_after {
        say!(
            "the stream and the tables diverged somewhere after sequence {proven}: the stream existed, as a \
             mirror, before the last message was written, and may have stored its own messages since"
        );
    }
    match again {
        Again::Certain(0) => say!("none of them is in the tables"),
        Again::Certain(count) => say!("{count} of them were written before, and would be written again"),
        Again::Perhaps(0) => say!("none of them has the sequence of one that was written"),
        Again::Perhaps(count) => say!(
            "{count} of them have the sequences of written messages: if they are the same messages, they \
             would be written again. In that case, name the last one that is in the tables: --after {}",
            checkpoint.min(last)
        ),
    }
    super::rewind::tell_doubled(&plan.tables);
    if loss.cause == Cause::Recreated {
        say!(
            "no message that the stream still holds proves that it is the same stream as before. If it is, \
             each message has its old sequence and the time at which it was first stored"
        );
    }
}
