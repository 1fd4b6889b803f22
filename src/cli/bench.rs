//! `jetcopy bench`: load on the servers of the configuration or on private ones, and what comes of it.
//!
//! Guarantees: it reads and writes nothing but streams, tables and a schema of its own, and leaves nothing of
//! them, also after Ctrl-C or a failure; a second Ctrl-C ends it at once, and then `--clean` is left to do.
//! The figures go to standard output, all else to standard error.

mod chart;
mod html;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::signals::Shutdown;
use super::{Failure, Settings, quiet};
use crate::bench::place::clean;
use crate::bench::record::Sample;
use crate::bench::{Load, Plan, Servers, run as run_plan};
use crate::config::Log;
use crate::logging;

/// How long messages are published at a rate, where nothing else is said.
const DURATION: Duration = Duration::from_secs(30);
/// Messages of a backlog, where nothing else is said: some seconds of work.
const MESSAGES: u64 = 500_000;

/// Publishes into streams of its own, lets jetcopy carry them into tables of its own, and measures.
///
/// With a rate: latency from publish to commit and from publish to visible. Without one the streams are
/// filled first, then drained: how fast. Either way the CPU time and memory of the daemon, NATS and
/// PostgreSQL, where they are on this machine, and the write-ahead log that a row makes. Streams, tables and
/// schema are removed at the end.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Load")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Use private servers that end with the command; the configuration is not read.
    #[arg(long)]
    private: bool,
    /// Messages a second over all pipelines; without it, a backlog is drained as fast as that goes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long to publish at that rate, after two seconds that do not count [default: 30s].
    #[arg(long, requires = "rate", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Messages of the backlog over all pipelines [default: 500000].
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Bytes of a message.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Streams, each with a pipeline and a table of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pipelines: u32,
    /// Rows that jetcopy makes of a message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rows_per_message: u32,
    /// Rows that each table holds beforehand.
    #[arg(long, default_value_t = 0)]
    stored: u64,
    /// Leave the tables without their index on a bigint. What is visible is then told by the checkpoint,
    /// which commits with the rows.
    #[arg(long)]
    no_index: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// Write a report with plots into this file: one page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Only remove what runs have left that were killed, and do not run; a run that goes on would lose its
    /// place.
    #[arg(long, conflicts_with_all = ["private", "rate", "messages", "html", "json"])]
    clean: bool,
}

/// Runs the command.
pub async fn run(settings: &Settings, args: &Args) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    // Before anything starts: a report that cannot be written must not be found out after the run.
    let report = args.html.as_ref().map(std::fs::File::create).transpose().map_err(|error| {
        let path = args.html.as_deref().unwrap_or_else(|| std::path::Path::new(""));
        Failure::arguments(format!("cannot write {}: {error}", path.display()))
    })?;
    let servers = if args.private {
        logging::init(&Log { level: "warn".into(), ..Log::default() }).map_err(Failure::failed)?;
        tokio::select! {
            servers = Servers::private(false) => servers.map_err(Failure::failed)?,
            () = shutdown.clone().asked() => return Err(Failure::failed("interrupted before anything ran")),
        }
    } else {
        Servers::of(&quiet(settings)?)
    };
    if args.clean {
        let removed = clean(&servers).await.map_err(Failure::failed)?;
        print(&removed.iter().fold(String::new(), |text, name| text + "removed " + name + "\n"));
        return Ok(());
    }
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let outcome = run_plan(&servers, &program, &args.plan(), shutdown.asked(), &tell).await;
    // Stopping private servers blocks for a moment.
    tokio::task::spawn_blocking(move || drop(servers)).await.map_err(Failure::failed)?;
    let outcome = outcome.map_err(Failure::failed)?;
    if let Some(mut file) = report {
        file.write_all(html::page(&outcome).as_bytes()).map_err(Failure::failed)?;
    }
    if args.json {
        print(&(serde_json::to_string(&outcome).map_err(Failure::failed)? + "\n"));
    } else {
        print(&table::of(&outcome));
    }
    Ok(())
}

impl Args {
    fn plan(&self) -> Plan {
        let load = match self.rate {
            Some(rate) => {
                Load::Rate { per_second: f64::from(rate), duration: self.duration.unwrap_or(DURATION) }
            }
            None => Load::Backlog { messages: self.messages.unwrap_or(MESSAGES) },
        };
        Plan {
            pipelines: self.pipelines as usize,
            load,
            payload: self.payload,
            rows_per_message: self.rows_per_message as usize,
            index: !self.no_index,
            stored: self.stored,
        }
    }
}

/// A line a second, for who waits.
fn tell(sample: &Sample) {
    eprintln!("{:>7.1} s  published {:>9}  visible {:>9}", sample.seconds, sample.published, sample.visible);
}

/// Prints; that nobody reads any more is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
