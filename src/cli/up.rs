//! `jetcopy up`: from a stream to a running daemon, in one command, for trying.
//!
//! Guarantees: it does what `init`, `migrate`, `check` and `run` do, one after the other, and stops at the
//! first that fails. A configuration that is there is used, and not written again. The daemon takes the
//! process over, so that whoever started this one signals that one.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::{Failure, Settings, check, init, migrate, quiet};
use crate::terminal::say;

/// The daemon did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `jetcopy run`")]
struct Start(#[source] io::Error);

/// Runs the command; it only returns where it fails.
pub async fn run(settings: &Settings, args: &init::Args) -> Result<Infallible, Failure> {
    let found = settings.file().filter(|path| path.exists() && !args.force);
    let named = |file| Settings { config: Some(file), ..settings.clone() };
    let (settings, config) = if let Some(file) = found {
        let settings = named(file);
        let config = quiet(&settings)?;
        (settings, config)
    } else {
        // It has set up the log.
        let settings = named(init::make(settings, args).await?);
        let config = settings.load_quietly()?;
        (settings, config)
    };
    migrate::run(&config, &migrate::Args { status: false, yes: false }).await?;
    check::run(&config, &check::Args::default()).await?;
    say!("running until Ctrl-C; from now on, `jetcopy run` does it");
    let program = std::env::current_exe().map_err(|error| Failure::failed(Start(error)))?;
    Err(Failure::failed(Start(Command::new(program).arg("run").args(settings.arguments()).exec())))
}
