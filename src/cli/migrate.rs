//! `jetcopy migrate`: applies the pending migrations and the store's settings, or lists the migrations.

use super::Failure;
use crate::catalog::groups::{Group, Groups};
use crate::config::Config;
use crate::migrate::{self, Migrated};
use crate::postgres::connect;
use crate::store::timescale::{self, Applied, Change, Line};
use crate::store::{bounds, life};
use crate::terminal::say;

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy migrate";

/// Arguments of `jetcopy migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List all migrations and their state; change nothing.
    #[arg(long)]
    pub status: bool,

    /// Allow the configuration to shorten the retention of store tables, which drops rows.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; prints one line for each thing that it did or found.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    if args.status {
        for entry in migrate::status(&config.postgres).await.map_err(Failure::failed)? {
            say!("{entry}");
        }
        return Ok(());
    }
    let (postgres, store) = (&config.postgres, &config.store);
    let Migrated { applied, groups, found, strays, schemas, schema, again, foreign, timescaledb, lives } =
        migrate::migrate_with(postgres, store).await.map_err(Failure::failed)?;
    let names = |groups: &Groups| groups.iter().map(|group| group.name()).collect::<Vec<_>>().join(", ");
    if applied.is_empty() && !again.is_empty() {
        say!("recreated because they were gone: {}", again.join(", "));
    } else if applied.is_empty() {
        say!("nothing to migrate: all migrations are applied");
    } else {
        for entry in applied {
            say!("{entry}");
        }
        match timescaledb {
            _ if groups.is_empty() => say!(
                "no store tables were created: list their groups in [store] tables ({})",
                Group::ALL.map(Group::name).join(", ")
            ),
            Some(version) => say!("TimescaleDB {version}: new store tables are hypertables"),
            None => say!("TimescaleDB is not installed: new store tables have one partition per day"),
        }
    }
    if !found.is_empty() {
        say!(
            "store tables existed without schema jetcopy; their groups are now selected: {}. Their settings, \
             such as the retention, were lost: set them in [store]",
            names(&found)
        );
    }
    if !strays.is_empty() {
        let (are, groups) = (strays.join(", "), strays.iter().map(|name| Group::of(name)).collect());
        say!(
            "store tables {are} existed, but others of their groups did not: add {} to [store] tables to \
             create the rest",
            names(&groups)
        );
    }
    if !schemas.is_empty() {
        say!(
            "{} has tables named like the store's and is not in the search path: if they are the store's, \
             set it as [store] schema, and list their groups in [store] tables",
            schemas.join(", ")
        );
    }
    if let Some(schema) = schema.filter(|_| !groups.is_empty()) {
        say!("the store's tables are in schema {schema}");
    }
    for (table, differences) in foreign {
        say!(
            "{table} was not created by jetcopy and stays as it is; queries of the store that read it fail: \
             {}. See docs/store-operations.md (\"A table of the same name\")",
            differences.join(", ")
        );
    }
    for line in lives {
        say!("{line}");
    }
    keep_bounds(config).await?;
    for line in life::apply(postgres, &store.named, args.yes).await.map_err(Failure::failed)? {
        say!("{line}");
    }
    say(&timescale::apply(postgres).await.map_err(Failure::failed)?, &groups);
    Ok(())
}

/// Stores in the database how far from today partitions are added on demand.
async fn keep_bounds(config: &Config) -> Result<(), Failure> {
    let session = connect::connect(&config.postgres, APPLICATION_NAME).await.map_err(Failure::failed)?;
    let changed = bounds::keep(&session.client, config.store.partitions).await.map_err(Failure::failed)?;
    if let Some((before, now)) = changed {
        say!("partitions are now added on demand within {now}; it was {before} before");
    }
    session.close().await;
    Ok(())
}

fn say(applied: &Applied, groups: &Groups) {
    match applied {
        Applied::Absent => {}
        Applied::Unlicensed => say!(
            "TimescaleDB runs under the Apache license (timescaledb.license), without compression, retention \
             and continuous aggregates: nothing is applied, and the tables grow"
        ),
        Applied::Done(lines) => {
            let unchanged = lines.iter().filter(|line| matches!(line.change, Change::Unchanged(_))).count();
            // Nobody asked for the tables of other groups.
            let silent = |line: &&Line| match line.change {
                Change::Unchanged(_) => true,
                Change::Left(_) => !groups.contains(&Group::of(line.relation)),
                Change::Set(_) | Change::Altered { .. } | Change::Removed(_) => false,
            };
            for line in lines.iter().filter(|line| !silent(line)) {
                say!("{line}");
            }
            if unchanged > 0 {
                say!("{unchanged} store settings are already applied");
            }
        }
    }
}
