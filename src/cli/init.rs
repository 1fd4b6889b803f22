//! `jetcopy init`: from a stream to tables and a configuration for it.
//!
//! Guarantees: nothing is written before what is proposed was shown, and somebody said yes; no file is
//! overwritten without `--force`; on NATS nothing is made or changed, no consumer either.

use std::io;
use std::path::{Path, PathBuf};

use async_nats::jetstream;
use async_nats::jetstream::stream::{Info, RetentionPolicy};
use futures_util::TryStreamExt as _;
use tokio_postgres::error::SqlState;

use super::{Failure, Settings};
use crate::config::{Config, find_file};
use crate::init::sample::{self, Sample};
use crate::init::{self, Proposal, Tried, onto, propose, write};
use crate::logging;
use crate::migrate;
use crate::nats::Connection;
use crate::postgres::connect::{self, Session};
use crate::postgres::introspect;
use crate::stored::Opened;
use crate::terminal::say;

mod ask;

/// How the servers know the sessions.
const CLIENT_NAME: &str = "jetcopy init";

/// The configuration that is written where no other is named.
const FILE: &str = "jetcopy.toml";

/// Characters of a pipeline's name at most.
const LONGEST_NAME: usize = 40;

/// Arguments of `jetcopy init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The stream [default: the only one; on a terminal, it is asked for].
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// The pipeline's name, and that of its first table [default: like the stream].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Map onto this table, which is there, instead of making tables.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Make ordinary tables, also where TimescaleDB is installed.
    #[arg(long, conflicts_with = "table")]
    no_hypertable: bool,
    /// A file that holds the database's password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How many messages to look at: half of them the last ones, the others spread over the stream.
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    sample: u64,
    /// Write the files and make the tables without asking.
    #[arg(long)]
    yes: bool,
    /// Overwrite files that are there.
    #[arg(long)]
    pub(super) force: bool,
}

/// Why there is no proposal, or it is not carried out.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}: is there already; --force overwrites it, and --config FILE names another", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot list the streams; --stream names one")]
    List(#[source] jetstream::context::StreamsError),
    #[error("there is no stream: `jetcopy stream add NAME --subjects 'name.>'` makes one")]
    None,
    #[error("--stream is needed to choose a stream: {0}")]
    Several(String),
    #[error("cannot open stream {0}; `jetcopy stream add` makes one")]
    Open(String, #[source] jetstream::context::GetStreamError),
    #[error("stream {0} has not limits retention, which jetcopy needs: it removes what a replay needs")]
    Retention(String),
    #[error("stream {0} holds no message to look at: publish one, or write the mapping by hand")]
    Empty(String),
    #[error("cannot read messages of stream {0}")]
    Read(String, #[source] crate::stored::Error),
    #[error("{0} is no name of a pipeline: --name needs letters, digits, `-` and `_`, up to 40 of them")]
    Name(String),
    #[error(
        "table {table}: no field is called like {columns}, and the database has no default for it: name the \
         source in [pipeline.table.columns], or let the column be NULL"
    )]
    Left { table: String, columns: String },
    #[error("none of the messages would become a row: nothing was written; write the mapping by hand")]
    Unfit,
    #[error("a proposed table is there already: --table TABLE maps onto it, and --name NAME proposes others")]
    There(#[source] init::Error),
}

/// Runs the command, and says what comes next.
pub async fn run(settings: &Settings, args: &Args) -> Result<(), Failure> {
    let target = make(settings, args).await?;
    let named = if settings.config.is_some() || find_file().as_deref() != Some(target.as_path()) {
        format!(" --config {}", target.display())
    } else {
        String::new()
    };
    let test = if files(&target)[2].exists() { format!(" `jetcopy test{named}`,") } else { String::new() };
    say!("next: `jetcopy check{named}`,{test} `jetcopy run{named}`");
    Ok(())
}

/// Makes tables and files; returns the configuration's.
pub(super) async fn make(settings: &Settings, args: &Args) -> Result<PathBuf, Failure> {
    let target = settings.config.clone().unwrap_or_else(|| FILE.into());
    if let Some(found) = files(&target).into_iter().find(|path| path.exists() && !args.force) {
        return Err(Failure::arguments(Error::Exists(found)));
    }
    let config = servers(settings, args, &target)?;
    let connection = Connection::open(&config.nats, CLIENT_NAME).await.map_err(Failure::failed)?;
    let session = connect::connect(&config.postgres, CLIENT_NAME).await.map_err(Failure::failed)?;
    let (info, sample) = sampled(&connection, args).await.map_err(Failure::failed)?;
    let proposal = proposal(args, &info, &sample, &session).await?;
    let tried = proposal.tried(&session.client, &sample).await.map_err(|error| match &error {
        init::Error::Refused(refusal) if refusal.code() == Some(&SqlState::DUPLICATE_TABLE) => {
            Failure::failed(Error::There(error))
        }
        _ => Failure::failed(error),
    })?;
    let text = format!(
        "# Written by `jetcopy init` for stream {}; docs/settings.md has all settings.\n\n{}\n{}",
        proposal.stream,
        write::servers(&config),
        tried.pipeline
    );
    show(&proposal, &sample, &tried, (&target, &text));
    if tried.report.counted.rows == 0 {
        return Err(Failure::failed(Error::Unfit));
    }
    if !args.yes && !ask::yes(&question(&proposal, &target)).map_err(Failure::failed)? {
        say!("nothing was written; use --yes to do it");
        return Err(Failure::Told);
    }
    apply(&config, &session, &tried).await?;
    write_files(&target, &text, &tried).map_err(Failure::failed)?;
    session.close().await;
    Ok(target)
}

/// The files that are written: the configuration, the statements, a case, and the tables for it.
fn files(target: &Path) -> [PathBuf; 4] {
    let beside = |end: &str| target.with_extension(end);
    [target.to_owned(), beside("sql"), beside("test.toml"), beside("schema.json")]
}

/// Where the servers are: by the file if it is there, the environment, flags, or answers.
fn servers(settings: &Settings, args: &Args, target: &Path) -> Result<Config, Failure> {
    let settings =
        Settings { config: Some(target.to_owned()).filter(|path| path.exists()), ..settings.clone() };
    let mut config = settings.load_named_quietly()?;
    logging::init(&config.log).map_err(Failure::failed)?;
    if let Some(path) = &args.password_file {
        config.postgres.password_file = Some(path.clone());
    }
    if !args.yes {
        for (place, what, url) in [
            (&config.origin.nats, "NATS servers", &mut config.nats.url),
            (&config.origin.postgres, "PostgreSQL", &mut config.postgres.url),
        ] {
            if place.starts_with(crate::config::DEFAULT) {
                *url = ask::text(what, url).map_err(Failure::failed)?;
            }
        }
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Failure::Config(crate::config::ConfigError::Invalid(problems)));
        }
    }
    Ok(config)
}

/// The stream and messages of it.
async fn sampled(connection: &Connection, args: &Args) -> Result<(Info, Sample), Error> {
    let context = jetstream::new(connection.client.clone());
    let name = match &args.stream {
        Some(name) => name.clone(),
        None => chosen(&context).await?,
    };
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(source) => return Err(Error::Open(name, source)),
    };
    let info = stream.cached_info().clone();
    if info.config.retention != RetentionPolicy::Limits {
        return Err(Error::Retention(name));
    }
    let opened = Opened { client: connection.client.clone(), stream };
    let count = usize::try_from(args.sample).unwrap_or(usize::MAX);
    let sample = sample::read(&opened, count).await.map_err(|source| Error::Read(name.clone(), source))?;
    if sample.singles.is_empty() {
        return Err(Error::Empty(name));
    }
    Ok((info, sample))
}

/// The only stream, or the one that somebody chooses.
async fn chosen(context: &jetstream::Context) -> Result<String, Error> {
    let mut streams: Vec<Info> = context.streams().try_collect().await.map_err(Error::List)?;
    streams.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    match streams.as_slice() {
        [] => return Err(Error::None),
        [only] => return Ok(only.config.name.clone()),
        _ => {}
    }
    let lines = streams.iter().map(|info| {
        let (messages, subjects) = (info.state.messages, info.config.subjects.join(", "));
        format!("{} ({messages} messages, {subjects})", info.config.name)
    });
    let lines: Vec<String> = lines.collect();
    if !ask::is_possible() {
        return Err(Error::Several(lines.join("; ")));
    }
    say!("streams:\n  {}", lines.join("\n  "));
    ask::text("stream", &streams[0].config.name).map_err(|_| Error::Several(lines.join("; ")))
}

async fn proposal(args: &Args, info: &Info, sample: &Sample, session: &Session) -> Result<Proposal, Failure> {
    let stream = info.config.name.clone();
    let name = match &args.name {
        Some(name) => name.clone(),
        None => stream
            .to_lowercase()
            .replace(|character: char| !character.is_ascii_alphanumeric() && character != '-', "_")
            .chars()
            .take(LONGEST_NAME)
            .collect(),
    };
    let safe = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(safe) {
        return Err(Failure::arguments(Error::Name(name)));
    }
    let subjects = &info.config.subjects;
    let tables = match &args.table {
        None => propose::tables(sample, subjects, &name).map_err(Failure::failed)?,
        Some(table) => {
            let found = introspect::introspect(&session.client, table).await.map_err(Failure::failed)?;
            let (mapped, left) = onto::mapping(sample, &found, table).map_err(Failure::failed)?;
            if !left.is_empty() {
                let (table, columns) = (table.clone(), left.join(", "));
                return Err(Failure::failed(Error::Left { table, columns }));
            }
            vec![mapped]
        }
    };
    let (is_new, hypertables) = (args.table.is_none(), !args.no_hypertable);
    let mut server = init::server(&session.client, &tables, hypertables).await.map_err(Failure::failed)?;
    if !is_new {
        // It is named as the server reads it already.
        server.quoted.clear();
        server.schema = None;
    }
    Ok(Proposal { name, stream, tables, is_new, server })
}

/// Shows what would be written, and what came of the trial.
fn show(proposal: &Proposal, sample: &Sample, tried: &Tried, (target, text): (&Path, &str)) {
    let (looked, all) = (sample.singles.len(), if sample.is_all { ", all that it holds" } else { "" });
    say!("stream {}: looked at {looked} messages{all}; {}", proposal.stream, init::format(&sample.singles));
    if !tried.sql.is_empty() {
        say!("\n{}", tried.sql.trim_end());
    }
    say!("\n{}:\n", target.display());
    for line in text.lines() {
        say!("    {line}");
    }
    let counted = &tried.report.counted;
    say!(
        "\n{} messages become {} rows, {} dead letters",
        counted.messages,
        counted.rows,
        counted.dead_letters
    );
    for letter in &tried.letters {
        say!("  dead letter: {letter}");
    }
    let untaken: Vec<&str> = tried.report.untaken.iter().map(|field| field.field.as_str()).collect();
    if !untaken.is_empty() {
        say!("  no column takes: {}", untaken.join(", "));
    }
}

fn question(proposal: &Proposal, target: &Path) -> String {
    let tables = if proposal.is_new { ", make these tables" } else { "" };
    format!("Write {} and the files beside it{tables}, and create schema jetcopy?", target.display())
}

/// jetcopy's own schema, and the tables.
async fn apply(config: &Config, session: &Session, tried: &Tried) -> Result<(), Failure> {
    migrate::migrate_with(&config.postgres, &config.store).await.map_err(Failure::failed)?;
    if !tried.sql.is_empty() {
        let sql = format!("BEGIN; {} COMMIT", tried.sql);
        if let Err(error) = session.client.batch_execute(&sql).await {
            // The transaction ends with the session.
            return Err(Failure::failed(init::Error::Refused(error)));
        }
    }
    say!("made schema jetcopy{}", if tried.sql.is_empty() { "" } else { " and the tables" });
    Ok(())
}

fn write_files(
    target: &Path,
    text: &str,
    tried: &Tried,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let [config, sql, case, schema] = files(target);
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|source| Error::Write(path.to_owned(), source))
    };
    let mut written = Vec::new();
    if !tried.sql.is_empty() {
        write(&sql, &tried.sql)?;
        written.push(sql);
    }
    if let Some(text) = &tried.case {
        let name = schema.file_name().unwrap_or_default().to_string_lossy();
        write(&case, &format!("schema = {}\n\n{text}", toml_edit::Value::from(name.as_ref())))?;
        tried.schema.write(&schema)?;
        written.extend([case, schema]);
    }
    write(&config, text)?;
    written.push(config);
    let written: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    say!("wrote {}", written.join(", "));
    Ok(())
}
