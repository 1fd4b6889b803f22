//! `jetcopy migrate`: applies the pending migrations and the store's settings, or lists the migrations.

use super::Failure;
use crate::catalog::groups::{Group, Groups};
use crate::config::Config;
use crate::migrate::{self, Report};
use crate::postgres::connect;
use crate::store::timescale::{self, Applied, Change, Line};
use crate::store::{bounds, life};
use crate::terminal::say;

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy migrate";

/// Arguments of `jetcopy migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List every migration and how it stands; change nothing.
    #[arg(long)]
    pub status: bool,

    /// Shorten the retention of the store's tables where the configuration says so, though it drops rows.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command; what it did or found goes to standard output, a line each.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    if args.status {
        for entry in migrate::status(&config.postgres).await.map_err(Failure::failed)? {
            say!("{entry}");
        }
        return Ok(());
    }
    let (postgres, store) = (&config.postgres, &config.store);
    let Report { applied, groups, found, strays, schemas, schema, again, foreign, timescaledb, lives } =
        migrate::migrate_with(postgres, store).await.map_err(Failure::failed)?;
    let names = |groups: &Groups| groups.iter().map(|group| group.name()).collect::<Vec<_>>().join(", ");
    if applied.is_empty() && !again.is_empty() {
        say!("gone, and created again: {}", again.join(", "));
    } else if applied.is_empty() {
        say!("nothing to migrate: every migration is applied");
    } else {
        for entry in applied {
            say!("{entry}");
        }
        match timescaledb {
            _ if groups.is_empty() => say!(
                "no tables of the store: [store] tables names groups of them to create ({})",
                Group::ALL.map(Group::name).join(", ")
            ),
            Some(version) => say!("TimescaleDB {version}: new store tables are hypertables"),
            None => say!("TimescaleDB is not installed: new store tables have a partition a day"),
        }
    }
    if !found.is_empty() {
        say!(
            "tables of the store were there without schema jetcopy, and their groups are chosen: {}; what was kept of them is gone, \
             such as how long rows live: [store] says it anew",
            names(&found)
        );
    }
    if !strays.is_empty() {
        let (are, groups) = (strays.join(", "), strays.iter().map(|name| Group::of(name)).collect());
        say!(
            "of the store, {are} were there, and others of their groups were not: name {} in [store] tables to have them all",
            names(&groups)
        );
    }
    if !schemas.is_empty() {
        say!(
            "tables named like the store's lie in {}, which is not in the search path: where they are, name it in [store] schema, \
             and their groups in [store] tables",
            schemas.join(", ")
        );
    }
    if let Some(schema) = schema.filter(|_| !groups.is_empty()) {
        say!("the store's tables are in schema {schema}");
    }
    for (table, differences) in foreign {
        say!(
            "{table} is not the store's own and stays as it is, so that the store's queries that read it fail: {}; \
             docs/store-operations.md shows how to fix it (\"A table of the same name\")",
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

/// Lets the database keep how far partitions are added on demand.
async fn keep_bounds(config: &Config) -> Result<(), Failure> {
    let session = connect::connect(&config.postgres, APPLICATION_NAME).await.map_err(Failure::failed)?;
    let changed = bounds::keep(&session.client, config.store.partitions).await.map_err(Failure::failed)?;
    if let Some((before, now)) = changed {
        say!("partitions are added on demand within {now}; before, it was {before}");
    }
    session.close().await;
    Ok(())
}

fn say(applied: &Applied, groups: &Groups) {
    match applied {
        Applied::Absent => {}
        Applied::Unlicensed => say!(
            "TimescaleDB runs under the Apache licence (timescaledb.license), which has no compression, no retention \
             and no continuous aggregates: nothing is applied, and the tables grow"
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
                say!("{unchanged} settings of the store are applied already");
            }
        }
    }
}
