//! `jetcopy migrate`: applies the pending migrations, or lists them all.

use crate::config::Config;
use crate::migrate::{self, MigrateError, Report};

/// Arguments of `jetcopy migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List every migration and how it stands; change nothing.
    #[arg(long)]
    pub status: bool,
}

/// Runs the command; what it did or found goes to standard output, a line each.
pub async fn run(config: &Config, args: &Args) -> Result<(), MigrateError> {
    if args.status {
        for entry in migrate::status(&config.postgres).await? {
            println!("{entry}");
        }
        return Ok(());
    }
    let Report { applied, timescaledb } = migrate::migrate(&config.postgres).await?;
    if applied.is_empty() {
        println!("nothing to do: every migration is applied");
        return Ok(());
    }
    for entry in applied {
        println!("{entry}");
    }
    match timescaledb {
        Some(version) => println!("TimescaleDB {version}: new store tables are hypertables"),
        None => println!("TimescaleDB is not installed: new store tables have a partition a day"),
    }
    Ok(())
}
