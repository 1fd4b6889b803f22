//! `jetcopy drain`: a daemon gives all its shards away, for maintenance.
//!
//! Guarantees: it needs only the database. A drained daemon keeps a shard that no other daemon can have, so
//! that nothing stops; what it gives away, it commits and acknowledges before, as on a stop. It lasts until
//! it is taken back, or the daemon is started again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Failure;
use super::daemons::look;
use super::pause::operator;
use crate::config::Config;
use crate::daemons::{self, Fellow};
use crate::postgres::connect;
use crate::terminal::say;

/// How the server knows the session.
const CLIENT_NAME: &str = "jetcopy drain";

/// How often it is looked whether all is given away.
const LOOK: Duration = Duration::from_millis(250);

/// Arguments of `jetcopy drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The daemon, by its name as in `jetcopy daemons`, the beginning of it, or its host's name.
    #[arg(value_name = "DAEMON")]
    pub(crate) daemon: String,
    /// Take it back: the daemon gets its share again.
    #[arg(long)]
    pub(crate) undo: bool,
    /// Wait that long for the daemon to give its shards away.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub(crate) wait: Duration,
}

/// Why nothing was drained, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// None, or several.
    #[error("{found} daemons are named {name} or run on a host of that name; `jetcopy daemons` lists them")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many match.
        found: usize,
    },
    /// It has ended meanwhile.
    #[error("daemon {0} is gone")]
    Gone(String),
    /// It still has some.
    #[error(
        "daemon {daemon} still has {}; is another daemon configured for them that is not drained, and able \
         to run them? `jetcopy daemons` shows that", shards.join(", ")
    )]
    Left {
        /// The daemon.
        daemon: String,
        /// What it has.
        shards: Vec<String>,
    },
}

/// Runs the command; what it did goes to standard output.
pub(crate) async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let session = connect::connect(&config.postgres, CLIENT_NAME).await.map_err(Failure::failed)?;
    let daemon = find(&look(&session).await?.0, &args.daemon)?.daemon.clone();
    let by = operator();
    let by = (!args.undo).then_some(by.as_str());
    if !daemons::drain(&session.client, &daemon, by).await.map_err(Failure::failed)? {
        return Err(Failure::failed(Error::Gone(daemon)));
    }
    if args.undo {
        say!("daemon {daemon} is no longer drained, and gets its share again");
        session.close().await;
        return Ok(());
    }
    say!(
        "daemon {daemon} is drained; `jetcopy drain {daemon} --undo` takes that back, and so does a restart"
    );
    let until = Instant::now() + args.wait;
    loop {
        let fellows = look(&session).await?.0;
        let Some(drained) = fellows.iter().find(|fellow| fellow.daemon == daemon) else {
            return Err(Failure::failed(Error::Gone(daemon)));
        };
        if drained.shards.is_empty() {
            say!("it has no shard any more");
            session.close().await;
            return Ok(());
        }
        if Instant::now() >= until {
            let shards = drained.shards.iter().map(|held| held.shard.clone()).collect();
            return Err(Failure::failed(Error::Left { daemon, shards }));
        }
        sleep(LOOK).await;
    }
}

/// The one daemon that is meant.
fn find<'f>(fellows: &'f [Fellow], name: &str) -> Result<&'f Fellow, Failure> {
    let meant: Vec<&Fellow> =
        fellows.iter().filter(|fellow| fellow.daemon.starts_with(name) || fellow.host == name).collect();
    match meant[..] {
        [one] if !name.is_empty() => Ok(one),
        _ => Err(Failure::failed(Error::Ambiguous { name: name.to_owned(), found: meant.len() })),
    }
}
