//! `jetcopy bench`: puts load on the configured servers, or on a testbed, and measures.
//!
//! Guarantees: it touches only its own streams, tables and schema, and removes them at the end, also after
//! Ctrl-C or a failure; after a second Ctrl-C, which kills it, `--clean` removes them. The figures go to
//! standard output, everything else to standard error.

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

/// How long messages are published at a rate by default.
const DURATION: Duration = Duration::from_secs(30);
/// Messages of a backlog by default: a few seconds of work.
const MESSAGES: u64 = 500_000;

/// Publishes to its own streams, lets jetcopy write them to its own tables, and measures.
///
/// With a rate, it measures the latency from publish to commit and from publish to visible. Without one, it
/// fills the streams first and measures how fast they are drained. Either way it also measures the CPU time
/// and memory of the daemon, NATS and PostgreSQL where they run on this machine, and the write-ahead log per
/// row. Streams, tables and schema are removed at the end.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Use a temporary testbed of NATS and PostgreSQL; the configuration is not read.
    #[arg(long)]
    private: bool,
    /// Messages per second over all pipelines; without it, a backlog is drained as fast as possible.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long to publish at that rate, after a warm-up of two seconds [default: 30s].
    #[arg(long, value_name = "DURATION", requires = "rate", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Size of the backlog in messages, over all pipelines [default: 500000].
    #[arg(long, value_name = "N", conflicts_with = "rate",
        value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Size of a message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    payload: usize,
    /// Number of pipelines, each with its own stream and table.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=256))]
    pipelines: u32,
    /// Rows per message.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rows_per_message: u32,
    /// Rows in each table at the start.
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    stored: u64,
    /// Create the tables without their index on a bigint. What is visible is then read from the checkpoint,
    /// which commits with the rows.
    #[arg(long)]
    no_index: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// Write a report with charts to this file: one self-contained page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Remove what killed runs left behind, and exit. Breaks a bench that is running now.
    #[arg(long, conflicts_with_all = ["private", "rate", "messages", "html", "json"])]
    clean: bool,
}

/// Runs the command.
pub async fn run(settings: &Settings, args: &Args) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    // Before anything starts, so that a report that cannot be written fails before the run, not after it.
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
    // Stopping the testbed blocks for a moment.
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
            writers: 1,
        }
    }
}

/// One line per second, to show progress.
fn tell(sample: &Sample) {
    eprintln!("{:>7.1} s  published {:>9}  visible {:>9}", sample.seconds, sample.published, sample.visible);
}

/// Prints; a closed pipe is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
