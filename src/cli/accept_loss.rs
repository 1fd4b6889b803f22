//! `jetcopy accept-loss`: lets a pipeline go on that halted because messages were lost.
//!
//! Guarantees: it shows what it accepts and changes nothing else; the running daemon, which looks every few seconds, or
//! the next one goes on past exactly these losses. It never makes a loss smaller or larger.

use tokio_postgres::SimpleQueryMessage;

use postgres_protocol::escape::escape_literal;

use super::UnknownPipeline;
use crate::config::Config;
use crate::postgres::connect::{self, ConnectError};

/// Arguments of `jetcopy accept-loss`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The halted pipeline.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Show the losses that are not accepted yet; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Why no loss was accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such pipeline.
    #[error(transparent)]
    Unknown(#[from] UnknownPipeline),
    /// No session.
    #[error("no database connection")]
    Connect(#[from] ConnectError),
    /// A statement was refused.
    #[error("cannot read or change jetcopy.losses; is the schema migrated?")]
    Database(#[from] tokio_postgres::Error),
}

/// Runs the command; a line a loss goes to standard output.
pub async fn run(config: &Config, args: &Args) -> Result<(), Error> {
    UnknownPipeline::find(config, &args.pipeline)?;
    let session = connect::connect(&config.postgres, "jetcopy accept-loss").await?;
    let open = format!("pipeline = {} AND accepted_at IS NULL", escape_literal(&args.pipeline));
    let columns =
        "detected_at, cause, first_sequence, coalesce(last_sequence::text, 'an unknown sequence'), stream";
    let statement = if args.dry_run {
        format!("SELECT {columns} FROM jetcopy.losses WHERE {open} ORDER BY id")
    } else {
        format!("UPDATE jetcopy.losses SET accepted_at = now() WHERE {open} RETURNING {columns}")
    };
    let verb = if args.dry_run { "open" } else { "accepted" };
    let mut losses = 0;
    for message in session.client.simple_query(&statement).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let column = |index| row.get(index).unwrap_or_default();
        println!(
            "{verb}: stream {}, sequences {} to {}, {}, detected {}",
            column(4),
            column(2),
            column(3),
            column(1),
            column(0)
        );
        losses += 1;
    }
    match (losses, args.dry_run) {
        (0, _) => println!("pipeline {} has no loss to accept", args.pipeline),
        (_, true) => println!("nothing was changed; without --dry-run these are accepted"),
        (_, false) => println!("the pipeline goes on past them, a running daemon within 10 s"),
    }
    session.close().await;
    Ok(())
}
