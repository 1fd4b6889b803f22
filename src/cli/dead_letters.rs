//! `jetcopy dead-letters`: lists, shows, retries, discards and exports messages that could not become rows.
//!
//! Guarantees: `list`, `show` and `export` change nothing; `retry` moves a message from the dead letters to
//! its tables in one transaction or leaves it with the new reason; nothing is discarded without `--yes`. All
//! of them work while a daemon runs.

use std::io::{self, Write as _};
use std::pin::pin;

use clap::Subcommand;
use futures_util::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::shards::{NoShard, Which};
use super::{Failure, columns};
use crate::config::Config;
use crate::control;
use crate::dead_letter::kept::{self, Filter, Order};
use crate::moment::Moment;
use crate::postgres::connect::{self, Session};
use crate::terminal::{self, say};
use crate::write::retry::{Outcome, Retrier};

mod show;

/// How the server knows the sessions.
const APPLICATION_NAME: &str = "jetcopy dead-letters";

/// Arguments of `jetcopy dead-letters`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List letters, newest first.
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Maximum number of letters.
        #[arg(long, value_name = "N", default_value_t = 50,
            value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
    },
    /// Show one letter and its payload: JSON, MessagePack and CBOR as JSON, anything else in hexadecimal.
    Show {
        /// The letter's id, as `list` shows it.
        #[arg(value_name = "ID")]
        id: i64,
    },
    /// Decode and write letters again; each is removed in the transaction that writes its rows.
    ///
    /// A letter that fails again stays, with the new reason. The mapping and tables are those of the current
    /// configuration.
    Retry {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Delete letters for good.
    Discard {
        #[command(flatten)]
        which: WhichArgs,
        /// Delete them. Without it, only count them and exit with 1.
        #[arg(long)]
        yes: bool,
    },
    /// Let the next N messages become dead letters beyond the limits of `poison`, once.
    ///
    /// This ends the pause after a flood: a running daemon resumes within a few seconds, otherwise the next
    /// one does. It replaces what was accepted before and not used up; 0 revokes it.
    Accept {
        /// Number of messages.
        #[arg(value_name = "N")]
        letters: u32,
        /// The pipeline.
        #[arg(long, value_name = "PIPELINE")]
        pipeline: String,
        /// Only this shard of it: its number or its name. Without it, each may write as many.
        #[arg(long, value_name = "SHARD")]
        shard: Option<String>,
    },
    /// Print letters with their payloads, one JSON object per line, oldest first.
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// Maximum number of letters.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        limit: Option<i64>,
        /// Write payloads in JSON, MessagePack or CBOR as JSON in `payload`; others in `payload_base64`.
        #[arg(long)]
        decode: bool,
    },
}

/// Which letters: those that match all filters.
#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Only letters of this pipeline.
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Only letters of this shard of the pipeline: its number or its name.
    #[arg(long, value_name = "SHARD", requires = "pipeline")]
    shard: Option<String>,
    /// Only letters of this kind: malformed, missing, type, range, `too_large`, unmatched, unreadable or
    /// refused.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only letters about this table, as the letter names it.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only letters that failed since then: a time such as 2026-07-01T12:00:00Z, or a duration before now
    /// such as 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
}

/// Letters to change: by id, by filters, or all of them.
#[derive(Debug, clap::Args)]
struct WhichArgs {
    /// Ids of the letters, as `list` shows them.
    #[arg(value_name = "ID", required_unless_present_any = ["pipeline", "kind", "table", "since", "all"])]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All letters.
    #[arg(long, conflicts_with_all = ["ids", "pipeline", "kind", "table", "since"])]
    all: bool,
    /// Maximum number of letters, oldest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

impl FilterArgs {
    fn filter(&self, limit: Option<i64>) -> Filter {
        Filter {
            ids: None,
            pipeline: self.pipeline.clone(),
            shard: self.shard.clone(),
            kind: self.kind.clone(),
            table: self.table.clone(),
            since_us: self.since.map(|since| since.0.as_microsecond()),
            limit,
        }
    }
}

impl WhichArgs {
    fn filter(&self) -> Filter {
        let ids = (!self.ids.is_empty()).then(|| self.ids.clone());
        Filter { ids, ..self.filter.filter(self.limit) }
    }
}

/// Why letters could not be read or changed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no database connection")]
    Connect(#[from] connect::ConnectError),
    #[error("cannot read or change jetcopy.dead_letters; is the schema migrated?")]
    Database(#[from] tokio_postgres::Error),
    #[error("there is no dead letter {0}")]
    Unknown(i64),
    #[error(transparent)]
    Retry(#[from] crate::write::retry::Error),
    #[error(transparent)]
    Pipeline(#[from] NoShard),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error("pipeline {0} has never run, so it has no flood to accept")]
    NeverRan(String),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Runs the command. `retry` fails where not every letter was stored, `discard` without `--yes`.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let done = match &args.action {
        Action::List { filter, limit } => list(config, &filter.filter(Some(*limit))).await.map(|()| true),
        Action::Show { id } => show_one(config, *id).await.map(|()| true),
        Action::Retry { which } => retry(config, &which.filter()).await,
        Action::Discard { which, yes } => discard(config, &which.filter(), *yes).await,
        Action::Accept { letters, pipeline, shard } => {
            let which = Which { pipeline: pipeline.clone(), shard: shard.clone() };
            accept(config, *letters, &which).await.map(|()| true)
        }
        Action::Export { filter, limit, decode } => {
            export(config, &filter.filter(*limit), *decode).await.map(|()| true)
        }
    };
    if done.map_err(Failure::failed)? { Ok(()) } else { Err(Failure::Told) }
}

async fn open(config: &Config) -> Result<Session, Error> {
    Ok(connect::connect(&config.postgres, APPLICATION_NAME).await?)
}

async fn list(config: &Config, filter: &Filter) -> Result<(), Error> {
    let session = connect::connect_any(&config.postgres, APPLICATION_NAME).await?;
    let mut letters = pin!(kept::select(&session.client, filter, Order::NewestFirst).await?);
    let mut rows = Vec::new();
    while let Some(letter) = letters.try_next().await? {
        rows.push(show::row(&letter));
    }
    if rows.is_empty() {
        match kept::ids(&session.client, &Filter::default()).await?.len() {
            0 => say!("no dead letters"),
            all => say!("no dead letter is like that; without these filters there are {all}"),
        }
    } else {
        say!("{}", columns::render(show::HEADER, show::RIGHT, &rows).trim_end());
    }
    session.close().await;
    Ok(())
}

async fn show_one(config: &Config, id: i64) -> Result<(), Error> {
    let session = connect::connect_any(&config.postgres, APPLICATION_NAME).await?;
    let filter = Filter { ids: Some(vec![id]), ..Filter::default() };
    let letter = pin!(kept::select(&session.client, &filter, Order::OldestFirst).await?).try_next().await?;
    say!("{}", show::text(&letter.ok_or(Error::Unknown(id))?).trim_end());
    session.close().await;
    Ok(())
}

/// The letters that a filter means. Of those that are named one by one, some must be there.
async fn meant(session: &Session, filter: &Filter) -> Result<Vec<i64>, Error> {
    let ids = kept::ids(&session.client, filter).await?;
    match filter.ids.as_deref() {
        Some([first, ..]) if ids.is_empty() => Err(Error::Unknown(*first)),
        _ => Ok(ids),
    }
}

/// Whether every letter was stored.
async fn retry(config: &Config, filter: &Filter) -> Result<bool, Error> {
    let session = open(config).await?;
    let ids = meant(&session, filter).await?;
    let mut retrier = Retrier::new(config, session);
    let (mut stored, mut rows, mut elements, mut left, mut gone) = (0, 0, 0, 0, 0);
    let bar = ProgressBar::new(ids.len() as u64).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} letters, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    for id in ids {
        match retrier.retry(id).await? {
            Outcome::Stored { rows: written, refused } => {
                stored += 1;
                rows += written;
                elements += refused;
            }
            Outcome::Refused { kind, message } => {
                left += 1;
                bar.suspend(|| say!("letter {id} was refused again: {kind}: {message}"));
            }
            Outcome::NotTried { why } => {
                left += 1;
                bar.suspend(|| say!("letter {id} was not tried: {why}"));
            }
            Outcome::Gone => gone += 1,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    say!("{stored} stored in {rows} rows, {left} still dead letters");
    if elements > 0 {
        say!("{elements} elements of the stored messages are now dead letters of their own");
    }
    if gone > 0 {
        say!("{gone} were retried or discarded by another process in the meantime");
    }
    retrier.into_session().close().await;
    Ok(left == 0)
}

/// Whether they were discarded.
async fn discard(config: &Config, filter: &Filter, yes: bool) -> Result<bool, Error> {
    let session = open(config).await?;
    let count = meant(&session, filter).await?.len();
    if yes {
        say!("{} dead letters discarded", kept::discard(&session.client, filter).await?);
    } else {
        say!("{count} dead letters would be discarded; nothing was changed; use --yes to do it");
    }
    session.close().await;
    Ok(yes)
}

/// Lets messages become dead letters beyond the limits.
async fn accept(config: &Config, letters: u32, which: &Which) -> Result<(), Error> {
    let (_, shards) = which.all(config)?;
    let session = open(config).await?;
    let mut ran = false;
    for shard in &shards {
        let Some(before) = control::accept(&session, shard, letters).await? else { continue };
        ran = true;
        say!("the next {letters} messages of pipeline {shard} may become dead letters beyond its limits");
        if before > 0 {
            say!("this replaces {before} that were accepted before and not used");
        }
    }
    session.close().await;
    if ran { Ok(()) } else { Err(Error::NeverRan(which.pipeline.clone())) }
}

async fn export(config: &Config, filter: &Filter, decode: bool) -> Result<(), Error> {
    let session = connect::connect_any(&config.postgres, APPLICATION_NAME).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    {
        let mut letters = pin!(kept::select(&session.client, filter, Order::OldestFirst).await?);
        while let Some(letter) = letters.try_next().await? {
            let line =
                serde_json::to_string(&show::Exported::new(&letter, decode)).map_err(io::Error::from)?;
            writeln!(out, "{}", terminal::json(&line))?;
        }
    }
    out.flush()?;
    session.close().await;
    Ok(())
}
