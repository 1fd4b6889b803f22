//! `jetcopy daemons`: which daemons share a database, and which of them has what.
//!
//! Guarantees: it needs only the database, and changes nothing.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use super::{Failure, columns};
use crate::config::Config;
use crate::daemons::Fellow;
use crate::postgres::connect::{self, Session};
use crate::terminal;

/// How the server knows the session.
const CLIENT_NAME: &str = "jetcopy daemons";

/// Arguments of `jetcopy daemons`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object; `daemons` holds one entry a daemon.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Shown {
    daemons: Vec<Fellow>,
    /// Shards that no daemon has.
    free: Vec<String>,
}

/// Runs the command; what it finds goes to standard output.
pub(crate) async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await.map_err(Failure::failed)?;
    let (daemons, free) = look(&session).await?;
    session.close().await;
    let shown = Shown { daemons, free };
    let text = if args.json {
        let text = serde_json::to_string(&shown).map_err(Failure::failed)? + "\n";
        terminal::json(&text).into_owned()
    } else {
        table(&shown)
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::failed)
}

/// The daemons, and the shards that none of them has.
pub(super) async fn look(session: &Session) -> Result<(Vec<Fellow>, Vec<String>), Failure> {
    crate::membership::fellows(&session.client).await.map_err(Failure::failed)
}

const HEADER: [&str; 7] = ["DAEMON", "HOST", "PROCESS", "VERSION", "UP", "MESSAGES/S", "SHARDS"];
const RIGHT: [bool; 7] = [false, false, true, false, true, true, false];

fn table(shown: &Shown) -> String {
    if shown.daemons.is_empty() {
        return "no daemon runs on this database\n".to_owned();
    }
    let rows: Vec<[String; 7]> = shown.daemons.iter().map(row).collect();
    let mut out = columns::render(HEADER, RIGHT, &rows);
    for daemon in &shown.daemons {
        let mut line = |what: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}", terminal::within(&format!("{}: {what}", daemon.daemon)));
        };
        if daemon.overdue {
            line(&format!("its lease has run out; it was heard {:.0} s ago", daemon.silent_seconds));
        }
        if let Some(by) = &daemon.drained_by {
            let at = daemon.drained_at.as_deref().unwrap_or("?");
            line(&format!("drained by {by} since {at} UTC"));
        }
        if !daemon.unable.is_empty() {
            line(&format!("cannot run {}", daemon.unable.join(", ")));
        }
        for held in &daemon.shards {
            line(&format!("has {} for {}", held.shard, age(held.seconds)));
        }
    }
    for shard in &shown.free {
        let _ = writeln!(out, "{}", terminal::within(&format!("nobody has {shard}")));
    }
    out
}

fn row(daemon: &Fellow) -> [String; 7] {
    [
        daemon.daemon.clone(),
        daemon.host.clone(),
        daemon.process.to_string(),
        daemon.version.clone(),
        age(daemon.up_seconds),
        format!("{:.0}", daemon.messages_per_second),
        format!("{} of {}", daemon.shards.len(), daemon.configured),
    ]
}

/// Whole seconds, in words.
fn age(seconds: f64) -> String {
    humantime::format_duration(std::time::Duration::from_secs_f64(seconds.max(0.0).floor())).to_string()
}
