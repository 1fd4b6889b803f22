//! `jetcopy rewind`: moves a checkpoint back, so that the messages after it are written again.
//!
//! Guarantees: without `--yes` it only shows what would happen; with it, it does exactly that, or nothing if
//! a daemon is writing or anything has moved in the meantime. It deletes no row.

use super::Failure;
use super::shards::Which;
use crate::config::Config;
use crate::control;
use crate::control::rewind::{self, CLIENT_NAME, Doubled, Error, Plan};
use crate::dead_letter::of_shard;
use crate::moment::Point;
use crate::postgres::connect;
use crate::shard::Shard;
use crate::terminal::say;

/// Arguments of `jetcopy rewind`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline.
    #[command(flatten)]
    pub which: Which,
    /// Where to rewind to: a sequence, after which all messages are written again, or a time, from which on
    /// they are. A time is written as 2026-07-01T12:00:00Z, or as a duration before now: 2h.
    #[arg(long, value_name = "SEQ|TIME")]
    pub to: Point,
    /// Move the checkpoint. Without it, only show what would happen and exit with 1.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; without `--yes` it fails after it has shown the plan.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let what = "each has a checkpoint of its own";
    let (pipeline, shard) = args.which.one(config, what).map_err(Failure::failed)?;
    let done = async {
        let session = connect::connect(&config.postgres, CLIENT_NAME).await.map_err(control::Error::from)?;
        let plan = rewind::plan(config, pipeline, &shard, &session, args.to).await?;
        tell(&shard, &plan);
        if args.yes {
            rewind::rewind(&session, &shard, &plan).await?;
            say!("the checkpoint of {shard} is now {}", plan.to);
        } else {
            say!("nothing was changed; use --yes to do it");
        }
        session.close().await;
        Ok::<_, Error>(())
    };
    done.await.map_err(Failure::failed)?;
    if args.yes { Ok(()) } else { Err(Failure::Told) }
}

fn tell(shard: &Shard, plan: &Plan) {
    say!(
        "pipeline {shard}: checkpoint from {} back to {}; {} messages are written again",
        plan.from,
        plan.to,
        plan.messages
    );
    tell_doubled(&plan.tables);
    if plan.dead_letters > 0 {
        say!(
            "{} dead letters would be duplicated: retry them first, or\n  {}",
            plan.dead_letters,
            of_shard::discard_after(shard, plan.to)
        );
    }
}

/// Prints which rows would be duplicated.
pub(super) fn tell_doubled(tables: &[Doubled]) {
    for table in tables {
        let name = &table.table;
        match (table.keyed, table.rows, &table.delete) {
            (true, _, _) => say!("table {name}: on_conflict handles rows that already exist"),
            (false, Some(rows), Some(delete)) => {
                say!(
                    "table {name}: {rows} rows would be duplicated unless they are deleted first:\n  \
                     {delete}"
                );
            }
            (false, _, _) if table.sharded => say!(
                "table {name}: rows would be duplicated unless they are deleted first; no statement can name \
                 them by $sequence: all shards fill the table, and their sequences repeat"
            ),
            (false, _, _) => say!(
                "table {name}: rows would be duplicated unless they are deleted first; no column identifies \
                 them (none has $sequence, or another pipeline also fills the table)"
            ),
        }
    }
}
