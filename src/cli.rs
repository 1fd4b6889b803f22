//! The commands, one file each, and what they share: settings, failures and exit codes.
//!
//! Guarantees: an error is printed once, on standard error, with its causes; the exit code tells an invalid
//! configuration from a failure.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

use crate::config::{Config, Log};
use crate::logging;
use failure::tell;
pub use failure::{Failure, UnknownPipeline};
use settings::QUIET;
pub use settings::Settings;

pub mod accept_loss;
pub mod audit;
pub mod bench;
pub mod cases;
pub mod check;
mod columns;
pub mod completions;
pub mod daemons;
pub mod dead_letters;
pub mod demo;
pub mod drain;
mod failure;
pub mod healthcheck;
mod heap;
pub mod init;
pub mod maintain;
pub mod migrate;
mod notify;
pub mod pause;
pub mod preview;
pub mod publish;
pub mod query;
pub mod remove_durables;
pub mod replay;
pub mod rewind;
pub mod run;
mod settings;
pub mod shards;
pub mod signals;
pub mod split;
pub mod status;
pub mod store;
pub mod stream;
pub mod tap;
pub mod up;

/// What `--help` ends with.
const AFTER_HELP: &str = "\
Examples:
  jetcopy stream add FRAMES --subjects 'frames.>'
      create a stream
  jetcopy init --stream FRAMES
      propose tables and a configuration for a stream, from its messages
  jetcopy up --stream FRAMES
      the same, then migrate, check and run
  jetcopy migrate --config jetcopy.toml
      create jetcopy's own schema and the store tables
  jetcopy check --config jetcopy.toml
      find problems before they occur
  jetcopy preview frames --config jetcopy.toml
      show the rows that the last messages would become, and what the mapping misses
  jetcopy test --config jetcopy.toml
      test the mapping by the cases in *.test.toml, without servers
  jetcopy run --config jetcopy.toml
      move messages until SIGTERM or Ctrl-C
  jetcopy audit --config jetcopy.toml frames
      prove that each message is in its tables once or in the dead letters once
  jetcopy status --watch
      show what each pipeline is doing, every two seconds
  jetcopy drain db1
      let the daemon on db1 give its shards to the others; `jetcopy daemons` shows who has what
  jetcopy dead-letters retry --pipeline frames
      retry what could not be stored, once the mapping or table is fixed
  jetcopy replay frames --from 2026-07-01 --to 2026-07-02
      copy one day again, into tables beside the pipeline's own
  jetcopy query latest_frames --config jetcopy.toml
      query the store; `jetcopy query` lists the queries
  jetcopy publish 'frames.{camera_id}' frames.ndjson
      publish one message per line
  jetcopy bench --config jetcopy.toml --rate 1000 --html report.html
      measure latency, CPU and memory at that rate, using its own streams and tables

Flags override the environment, which overrides the file. In the environment, two
underscores separate levels: JETCOPY_POSTGRES__URL.

Exit codes:
  0    success; run: shut down cleanly
  1    failure: a server refused or was unreachable, check found an error, a case of test failed,
       audit found a difference, a dead letter could not be stored, a step of maintain failed, a
       replay or bench was interrupted, or --yes was missing
  2    invalid arguments or configuration; nothing was attempted
  3    run: stopped before everything read was committed; nothing is lost, the next run reads
       the rest again
  130  killed by a second Ctrl-C (143: SIGTERM); nothing is lost, the next run resumes from the
       checkpoint";

/// Exit code of a failure.
const FAILED: u8 = 1;

/// Exit code of wrong arguments (clap's own) and of a wrong configuration.
const WRONG_CONFIG: u8 = 2;

/// Exit code of a stop before everything that was read was committed.
const UNDRAINED: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    name = "jetcopy",
    version,
    about = "Moves messages from NATS JetStream into PostgreSQL and TimescaleDB.",
    long_about = "Moves messages from NATS JetStream into PostgreSQL and TimescaleDB. It pulls them in \
                  order, decodes them straight into binary COPY, commits the rows and the stream position in \
                  one transaction, and only then acknowledges them. Each message ends up in its tables \
                  exactly once, or in jetcopy.dead_letters exactly once.",
    after_help = AFTER_HELP,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Move messages until SIGTERM or Ctrl-C.
    Run {
        #[command(flatten)]
        settings: Settings,
    },
    /// Propose tables and a configuration for a stream, from its messages, and make them.
    Init {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: init::Args,
    },
    /// Do what `init`, `migrate`, `check` and `run` do, one after the other.
    ///
    /// Without a configuration, it proposes one as `jetcopy init` does. What fails stops it.
    Up {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: init::Args,
    },
    /// Find problems with this configuration and these servers before they occur.
    Check {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: check::Args,
    },
    /// Show the rows that messages would become, and what the mapping misses; writes nothing.
    Preview {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: preview::Args,
    },
    /// Show new messages as they come, and the rows that they become; writes nothing.
    Tap {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: tap::Args,
    },
    /// Test the mapping by cases beside the configuration, without servers.
    Test {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: cases::Args,
    },
    /// Bring the database schema to the version that this program expects.
    Migrate {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: migrate::Args,
    },
    /// Show what each pipeline is doing, from NATS and the database if the daemon is down.
    Status {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: status::Args,
    },
    /// List, show, retry, discard or export dead letters.
    DeadLetters {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: dead_letters::Args,
    },
    /// Maintain the store once, now: partitions, roll-ups and retention where TimescaleDB does not do it.
    Maintain {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: maintain::Args,
    },
    /// Show what the store holds (sizes, rows, compression, chunks or partitions, jobs), or delete from it.
    Store {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: store::Args,
    },
    /// Pause a pipeline until it is resumed; survives restarts.
    Pause {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: pause::Args,
    },
    /// Resume a paused pipeline.
    Resume {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: pause::Args,
    },
    /// Show the daemons that share this database: which shards each has, since when, and how busy it is.
    Daemons {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: daemons::Args,
    },
    /// Let a daemon give all its shards to the others, for maintenance, or take that back.
    Drain {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: drain::Args,
    },
    /// Make a stream that jetcopy can read.
    Stream {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: stream::Args,
    },
    /// Split a stream into several, for a pipeline with shards: create them, and show the account's mapping.
    Split {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: split::Args,
    },
    /// Copy part of the stream again, into tables beside the pipeline's own.
    Replay {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: replay::Args,
    },
    /// Move a pipeline's checkpoint back, so that the messages after it are written again.
    Rewind {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: rewind::Args,
    },
    /// Remove durable consumers of pipelines that are no longer configured.
    RemoveDurables {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: remove_durables::Args,
    },
    /// Resume a pipeline that halted because messages were lost.
    AcceptLoss {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: accept_loss::Args,
    },
    /// Prove that each message of a pipeline is in its tables once or in the dead letters once.
    Audit {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: audit::Args,
    },
    /// Run a named query on the store; without a name, list the queries.
    Query {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        args: query::Args,
    },
    /// Publish NDJSON or CSV records to a stream.
    Publish {
        #[command(flatten)]
        args: publish::Args,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show everything at work on a temporary testbed.
    Demo(demo::Args),
    /// Measure latency, throughput, CPU and memory under load.
    Bench {
        #[command(flatten)]
        args: bench::Args,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print a shell completion script.
    Completions(completions::CompletionsArgs),
    /// Check that the daemon on this machine answers.
    Healthcheck {
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the manual page, or write all pages to a directory.
    Man(completions::ManArgs),
}

/// Runs the program with the process's own arguments.
#[must_use]
pub fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(error)) => {
            tell(&error);
            ExitCode::from(WRONG_CONFIG)
        }
        Err(Failure::Arguments(error)) => {
            tell(error.as_ref());
            ExitCode::from(WRONG_CONFIG)
        }
        Err(Failure::Failed(error)) => {
            tell(error.as_ref());
            ExitCode::from(FAILED)
        }
        Err(Failure::Undrained) => ExitCode::from(UNDRAINED),
        Err(Failure::Told) => ExitCode::from(FAILED),
    }
}

fn start(command: Command) -> Result<(), Failure> {
    if let Command::Run { .. } = command {
        heap::settle();
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(dispatch(command))
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { settings } => run::run(&settings).await,
        Command::Init { settings, args } => Box::pin(init::run(&settings, &args)).await,
        Command::Up { settings, args } => match Box::pin(up::run(&settings, &args)).await? {},
        Command::Check { settings, args } => check::run(&quiet(&settings)?, &args).await,
        Command::Preview { settings, args } => preview::run(&quiet(&settings)?, &args).await,
        Command::Tap { settings, args } => tap::run(&quiet(&settings)?, &args).await,
        Command::Test { settings, args } => cases::run(&quiet(&settings)?, &args),
        Command::Migrate { settings, args } => migrate::run(&quiet(&settings)?, &args).await,
        Command::Status { settings, args } => status::run(&quiet(&settings)?, &args).await,
        Command::DeadLetters { settings, args } => dead_letters::run(&quiet(&settings)?, &args).await,
        Command::Maintain { settings, args } => maintain::run(&quiet(&settings)?, &args).await,
        Command::Store { settings, args } => store::run(&quiet(&settings)?, &args).await,
        Command::Pause { settings, args } => {
            pause::pause(&quiet(&settings)?, &args).await.map_err(Failure::failed)
        }
        Command::Resume { settings, args } => {
            pause::resume(&quiet(&settings)?, &args).await.map_err(Failure::failed)
        }
        Command::Daemons { settings, args } => daemons::run(&quiet(&settings)?, &args).await,
        Command::Drain { settings, args } => drain::run(&quiet(&settings)?, &args).await,
        Command::Stream { settings, args } => stream::run(&quiet(&settings)?, &args).await,
        Command::Split { settings, args } => split::run(&quiet(&settings)?, &args).await,
        Command::Replay { settings, args } => replay::run(&quiet(&settings)?, &args).await,
        Command::Rewind { settings, args } => rewind::run(&quiet(&settings)?, &args).await,
        Command::RemoveDurables { settings, args } => remove_durables::run(&quiet(&settings)?, &args).await,
        Command::AcceptLoss { settings, args } => accept_loss::run(&quiet(&settings)?, &args).await,
        Command::Audit { settings, args } => audit::run(&quiet(&settings)?, &args).await,
        Command::Query { settings, args } => query::run(&quiet(&settings)?, &args).await,
        Command::Publish { settings, args } => {
            publish::run(&quiet(&settings)?.nats, &args).await.map(drop).map_err(Failure::failed)
        }
        Command::Demo(args) => {
            logging::init(&Log { level: QUIET.into(), ..Log::default() }).map_err(Failure::failed)?;
            demo::run(&args).await.map(drop)
        }
        Command::Bench { settings, args } => Box::pin(bench::run(&settings, &args)).await,
        Command::Completions(args) => {
            completions::completions(Cli::command(), &args);
            Ok(())
        }
        Command::Healthcheck { settings } => {
            healthcheck::run(&quiet(&settings)?.http).await.map_err(Failure::failed)
        }
        Command::Man(args) => completions::man(Cli::command(), &args).map_err(Failure::failed),
    }
}

/// The configuration of a command that answers and exits, with a log of problems only.
fn quiet(settings: &Settings) -> Result<Config, Failure> {
    let config = settings.load_quietly()?;
    logging::init(&config.log).map_err(Failure::failed)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
