//! `jetcopy migrate`: applies the pending migrations and the store's settings, or lists the migrations.

use super::Failure;
use crate::config::Config;
use crate::migrate::{self, Report};
use crate::postgres::connect;
use crate::store::bounds;
use crate::store::timescale::{self, Applied, Change};

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy migrate";

/// Arguments of `jetcopy migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List every migration and how it stands; change nothing.
    #[arg(long)]
    pub status: bool,
}

/// Runs the command; what it did or found goes to standard output, a line each.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    if args.status {
        for entry in migrate::status(&config.postgres).await.map_err(Failure::failed)? {
            println!("{entry}");
        }
        return Ok(());
    }
    let Report { applied, timescaledb } =
        migrate::migrate(&config.postgres).await.map_err(Failure::failed)?;
    if applied.is_empty() {
        println!("nothing to migrate: every migration is applied");
    } else {
        for entry in applied {
            println!("{entry}");
        }
        match timescaledb {
            Some(version) => println!("TimescaleDB {version}: new store tables are hypertables"),
            None => println!("TimescaleDB is not installed: new store tables have a partition a day"),
        }
    }
    keep_bounds(config).await?;
    say(&timescale::apply(&config.postgres, &config.store).await.map_err(Failure::failed)?);
    Ok(())
}

/// Lets the database keep how far partitions are added on demand.
async fn keep_bounds(config: &Config) -> Result<(), Failure> {
    let session = connect::connect(&config.postgres, APPLICATION_NAME).await.map_err(Failure::failed)?;
    let before = bounds::keep(&session.client, config.store.partitions).await.map_err(Failure::failed)?;
    if let Some(before) = before {
        println!(
            "partitions are added on demand within {}; before, it was {before}",
            config.store.partitions
        );
    }
    session.close().await;
    Ok(())
}

fn say(applied: &Applied) {
    match applied {
        Applied::Absent => {}
        Applied::Unlicensed => println!(
            "TimescaleDB runs under the Apache licence (timescaledb.license), which has no compression, no retention \
             and no continuous aggregates: nothing of [store] was applied, and the tables grow"
        ),
        Applied::Done(lines) => {
            let unchanged = lines.iter().filter(|line| matches!(line.change, Change::Unchanged(_))).count();
            for line in lines.iter().filter(|line| !matches!(line.change, Change::Unchanged(_))) {
                println!("{line}");
            }
            if unchanged > 0 {
                println!("{unchanged} settings of [store] are applied already");
            }
        }
    }
}
