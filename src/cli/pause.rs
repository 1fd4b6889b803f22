//! `jetcopy pause` and `jetcopy resume`: an operator stops a pipeline and starts it again.
//!
//! Guarantees: they need only the database, and a pause survives restarts. Once `pause` has answered, nothing
//! more is committed; after `resume`, a running daemon continues within a few seconds. NATS keeps what
//! arrives in the meantime, as long as the stream's limits allow.

use nix::unistd::{Uid, User};

use super::shards::{NoShard, Which};
use crate::checkpoint::Resumed;
use crate::config::Config;
use crate::control;
use crate::postgres::connect;
use crate::terminal::say;

/// Arguments of `jetcopy pause` and `jetcopy resume`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline.
    #[command(flatten)]
    pub which: Which,
}

/// Why nothing was paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such pipeline or shard.
    #[error(transparent)]
    Unknown(#[from] NoShard),
    /// The database refused.
    #[error(transparent)]
    Control(#[from] control::Error),
}

/// Runs `jetcopy pause`; what it did goes to standard output.
pub async fn pause(config: &Config, args: &Args) -> Result<(), Error> {
    let (_, shards) = args.which.all(config)?;
    let session = connect::connect(&config.postgres, "jetcopy pause").await.map_err(control::Error::from)?;
    let by = operator();
    for shard in &shards {
        let again = shard.argument();
        match control::pause(&session, shard, &by).await? {
            Some(before) => {
                say!("pipeline {shard} was already paused, by {} since {} UTC", before.by, before.since);
            }
            None => say!(
                "pipeline {shard} is paused and commits nothing more; `jetcopy resume {again}` resumes it"
            ),
        }
    }
    session.close().await;
    Ok(())
}

/// Runs `jetcopy resume`; what it did goes to standard output.
pub async fn resume(config: &Config, args: &Args) -> Result<(), Error> {
    let (_, shards) = args.which.all(config)?;
    let session = connect::connect(&config.postgres, "jetcopy resume").await.map_err(control::Error::from)?;
    for shard in &shards {
        let name = shard.argument();
        match control::resume(&session, shard).await? {
            Resumed { flood: Some(reason), .. } => say!(
                "pipeline {shard} is resumed; a running daemon tries again within a few seconds. A flood of \
                 dead letters had stopped it, and will stop it again unless the cause is fixed: {reason}\n\
                 `jetcopy dead-letters accept N --pipeline {name}` lets the next N messages become \
                 dead letters"
            ),
            Resumed { paused: true, .. } => {
                say!("pipeline {shard} is resumed; a running daemon continues within a few seconds");
            }
            Resumed { .. } => say!("pipeline {shard} was not paused"),
        }
    }
    session.close().await;
    Ok(())
}

/// Who runs this program, and where: `alice@db1`.
pub(super) fn operator() -> String {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(host) => format!("{user}@{}", host.trim()),
        Err(_) => user,
    }
}
