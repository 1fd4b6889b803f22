//! `jetcopy replay`: copies part of the stream again, into tables beside the pipeline's own.
//!
//! Guarantees: with `--dry-run` it changes nothing; without it, it writes only to shadow tables. Ctrl-C stops
//! it cleanly; the same command continues where it was.

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use super::shards::Which;
use super::signals::Shutdown;

use crate::config::{Config, Pipeline};
use crate::control::{self, rewind};
use crate::moment::Point;
use crate::nats;
use crate::postgres::connect;
use crate::replay::{self, CLIENT_NAME, Compared, Ended, Plan, Request};
use crate::shard::Shard;
use crate::terminal::say;

/// Arguments of `jetcopy replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline whose stream, mapping and tables to use.
    #[command(flatten)]
    pub which: Which,
    /// Where to start: a sequence, or a time for the first message stored then or later.
    #[arg(long, value_name = "SEQ|TIME")]
    pub from: Point,
    /// Where to end: a sequence, or a time for the last message stored before it [default: the pipeline's
    /// checkpoint].
    #[arg(long, value_name = "SEQ|TIME")]
    pub to: Option<Point>,
    /// The table to fill: SHADOW or, if the pipeline fills several, TABLE=SHADOW. It is created like the
    /// original if it does not exist [default: the table's name and `_replay`].
    #[arg(long, value_name = "SHADOW")]
    pub into: Vec<String>,
    /// Keep the replay's checkpoint at the end: `jetcopy.take_registry` asks for it, by the name that is
    /// shown.
    #[arg(long)]
    pub keep_checkpoint: bool,
    /// Show what would be read and written; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the command; it fails if it was interrupted before the end.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let (pipeline, shard) = args.which.one(config, "this reads one stream").map_err(Failure::failed)?;
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    let ended = replay(config, (pipeline, &shard), args, shutdown).await.map_err(Failure::failed)?;
    match ended {
        None => Ok(()),
        Some(Ended::Whole { tables, dead_letters }) => {
            tables.iter().for_each(tell);
            let (replayed, original) = dead_letters;
            say!("dead letters: {replayed} of the replay, {original} of the pipeline in this range");
            Ok(())
        }
        Some(Ended::Interrupted(committed)) => {
            say!(
                "interrupted after sequence {committed}; the same command with this range continues from \
                 there"
            );
            Err(Failure::Told)
        }
    }
}

async fn replay(
    config: &Config,
    (pipeline, shard): (&Pipeline, &Shard),
    args: &Args,
    shutdown: Shutdown,
) -> Result<Option<Ended>, replay::Error> {
    let session = connect::connect(&config.postgres, CLIENT_NAME).await.map_err(control::Error::from)?;
    let connection = nats::Connection::open(&config.nats, CLIENT_NAME).await?;
    let stream = rewind::stream(connection.client.clone(), shard).await?;
    let request = Request {
        from: args.from,
        to: args.to,
        into: args.into.clone(),
        keep_checkpoint: args.keep_checkpoint,
    };
    let plan = replay::plan(config, pipeline, shard, &session, &stream, &request).await?;
    describe(shard, &plan);
    if args.dry_run {
        say!("nothing was changed");
        return Ok(None);
    }
    let bar = ProgressBar::new(plan.to + 1 - plan.from).with_style(
        ProgressStyle::with_template("{bar:40} {percent}% {pos}/{len} sequences, {per_sec}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let progress = |committed: u64| bar.set_position((committed + 1).saturating_sub(plan.from));
    let ended = replay::run(config, pipeline, &session, &stream, &plan, progress, shutdown.asked()).await;
    bar.finish_and_clear();
    session.close().await;
    ended.map(Some)
}

fn describe(shard: &Shard, plan: &Plan) {
    say!(
        "replay {}: stream {}, sequences {} to {}, {} messages; the stream holds {} to {}",
        plan.name,
        shard.stream,
        plan.from,
        plan.to,
        plan.messages,
        plan.stream.0,
        plan.stream.1
    );
    for shadow in &plan.shadows {
        let there = if shadow.exists { "which exists" } else { "which is created like it" };
        say!("table {}: into {}, {there}", shadow.table, shadow.shadow);
    }
    if let Some(committed) = plan.resumes_after {
        say!("continues after sequence {committed}, where it was interrupted");
    }
}

fn tell(compared: &Compared) {
    let Compared { table, shadow, replayed, original } = compared;
    match original {
        Some(original) if original == replayed => {
            say!("table {shadow}: {replayed} rows, as many as {table} has for these messages");
        }
        Some(original) => {
            say!("table {shadow}: {replayed} rows; {table} has {original} for these messages");
        }
        None => {
            say!(
                "table {shadow}: {replayed} rows; not compared, because no column of {table} has $sequence, \
                 or several shards have the same"
            );
        }
    }
}
