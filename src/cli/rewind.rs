//! `jetcopy rewind`: a checkpoint goes back, and what follows is carried again.
//!
//! Guarantees: without `--yes` it only shows what would happen; with it, it does just that, or nothing where
//! a daemon writes or anything moved meanwhile. It takes no row away.

use super::{Failure, UnknownPipeline};
use crate::config::Config;
use crate::control;
use crate::control::rewind::{self, CLIENT_NAME, Doubled, Error, Plan};
use crate::moment::Point;
use crate::postgres::connect;
use crate::terminal::say;

/// Arguments of `jetcopy rewind`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// The new checkpoint: what follows this sequence, or was stored at this time or later, is carried again.
    /// A time is written as 2026-07-01T12:00:00Z, or as how long ago: 2h.
    #[arg(long, value_name = "SEQ|TIME")]
    pub to: Point,
    /// Do it; without it, what would happen is shown.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; without `--yes` it fails after it has shown the plan.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let pipeline = UnknownPipeline::find(config, &args.pipeline).map_err(Failure::failed)?;
    let done = async {
        let session = connect::connect(&config.postgres, CLIENT_NAME).await.map_err(control::Error::from)?;
        let [shard] = pipeline.shards();
        let plan = rewind::plan(config, pipeline, &shard, &session, args.to).await?;
        tell(&pipeline.name, &plan);
        if args.yes {
            rewind::rewind(&session, &shard, &plan).await?;
            say!("the checkpoint of {} stands at {} now", pipeline.name, plan.to);
        } else {
            say!("nothing was changed; --yes does it");
        }
        session.close().await;
        Ok::<_, Error>(())
    };
    done.await.map_err(Failure::failed)?;
    if args.yes { Ok(()) } else { Err(Failure::Told) }
}

fn tell(pipeline: &str, plan: &Plan) {
    say!(
        "pipeline {pipeline}: checkpoint from {} back to {}; {} messages are carried again",
        plan.from,
        plan.to,
        plan.messages
    );
    tell_doubled(&plan.tables);
    if plan.dead_letters > 0 {
        say!(
            "{} dead letters would be there twice: retry them first, or\n  \
             DELETE FROM jetcopy.dead_letters WHERE pipeline = '{pipeline}' AND sequence > {};",
            plan.dead_letters,
            plan.to
        );
    }
}

/// Says which rows would be there twice.
pub(super) fn tell_doubled(tables: &[Doubled]) {
    for table in tables {
        let name = &table.table;
        match (table.keyed, table.rows, &table.delete) {
            (true, _, _) => say!("table {name}: on_conflict settles rows that are there already"),
            (false, Some(rows), Some(delete)) => {
                say!(
                    "table {name}: {rows} rows would be there twice unless they are removed first:\n  {delete}"
                );
            }
            (false, _, _) => say!(
                "table {name}: rows would be there twice unless they are removed first; which they are, no column \
                 tells (none keeps $sequence, or another pipeline fills the table too)"
            ),
        }
    }
}
