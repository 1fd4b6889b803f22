//! `jetcopy split`: several streams in the place of one, for a pipeline with shards.
//!
//! Guarantees: it makes streams and changes nothing else; with `--dry-run` or `--check` it makes none. No
//! test message is stored.

use super::Failure;
use crate::config::Config;
use crate::nats::Connection;
use crate::split::{self, Part, Split};
use crate::terminal::say;

/// How the server knows the connection.
const CLIENT_NAME: &str = "jetcopy split";

/// Arguments of `jetcopy split`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The stream to split. It need not exist: then its parts get the server's defaults.
    #[arg(value_name = "STREAM")]
    pub stream: String,
    /// The subjects that are published to, with a wildcard for each token that differs, such as 'frames.*'.
    #[arg(long, value_name = "SUBJECT")]
    pub subjects: String,
    /// The wildcards that decide to which stream a message goes, from 1: what has the same tokens there stays
    /// together, in order.
    #[arg(long, value_name = "N", value_delimiter = ',', required = true)]
    pub by: Vec<usize>,
    /// How many streams.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub into: u16,
    /// Only show what would be created, and the mapping.
    #[arg(long, conflicts_with = "check")]
    pub dry_run: bool,
    /// Only find out whether the mapping is in force and the streams are there; if not, exit with 1.
    #[arg(long)]
    pub check: bool,
}

/// Runs the command.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let Args { stream, subjects, by, into, .. } = args;
    let split = Split { stream: stream.clone(), subjects: subjects.clone(), by: by.clone(), into: *into };
    split.check().map_err(Failure::arguments)?;
    let connection = Connection::open(&config.nats, CLIENT_NAME).await.map_err(Failure::failed)?;
    let client = &connection.client;
    let (old, parts) = split::plan(client, &split).await.map_err(Failure::failed)?;
    if args.check {
        return check(client, &split, &parts).await;
    }
    for part in &parts {
        let Part { config, exists } = part;
        let (name, taken) = (&config.name, config.subjects.join(", "));
        if *exists {
            say!("stream {name} exists, and takes {taken}");
        } else if args.dry_run {
            say!("stream {name} would be created, for {taken}");
        } else {
            split::create(client, part).await.map_err(Failure::failed)?;
            say!("stream {name} created, for {taken}");
        }
    }
    tell_mapping(&split);
    match split::routes(client, &split).await.map_err(Failure::failed)?.trouble(&split) {
        None => say!("\nThe mapping is in force: each stream gets its part."),
        Some(trouble) => say!("\nThe mapping is not in force yet: {trouble}."),
    }
    tell_move(&split, old.is_some());
    Ok(())
}

/// Whether all is as it should be.
async fn check(client: &async_nats::Client, split: &Split, parts: &[Part]) -> Result<(), Failure> {
    let missing: Vec<&str> =
        parts.iter().filter(|part| !part.exists).map(|part| part.config.name.as_str()).collect();
    if !missing.is_empty() {
        say!("streams are missing: {}", missing.join(", "));
    }
    let routes = split::routes(client, split).await.map_err(Failure::failed)?;
    for (stream, count) in &routes.streams {
        say!("{count} test messages would go to stream {stream}");
    }
    match routes.trouble(split) {
        None if missing.is_empty() => {
            say!("the mapping is in force: each stream gets its part; nothing was stored");
            Ok(())
        }
        trouble => {
            if let Some(trouble) = trouble {
                say!("the mapping is not in force: {trouble}; nothing was stored");
            }
            Err(Failure::Told)
        }
    }
}

fn tell_mapping(split: &Split) {
    let subjects = &split.subjects;
    say!("\nThe account's mapping, in the server's configuration file:\n");
    for line in split.server_file().lines() {
        say!("    {line}");
    }
    say!("\nor, for an account with a JWT, with `nsc push` after it:\n\n    {}", split.nsc());
    say!("\nwhich makes in the account's claims:\n\n    {}", split.claims());
    say!(
        "\nPublishers go on publishing to {subjects}. Messages are stored with that subject. Whoever \
         subscribes to {subjects} without JetStream gets them as {}.*.{subjects} from then on, and other \
         streams for {subjects} get none.",
        split.stream
    );
}

fn tell_move(split: &Split, exists: bool) {
    let (stream, into) = (&split.stream, split.into);
    say!("\nThe pipeline:\n\n    stream = \"{stream}_{{shard}}\"\n    shards = {into}");
    if exists {
        say!("    before = \"{stream}\"");
        say!(
            "\n1. Change the pipeline like this, and reload jetcopy: it reads the old stream and the new \
             ones.\n\
             2. Add the mapping, reload NATS, and see `jetcopy split … --check`.\n\
             3. When the old stream is empty and stays so, remove `before`, and reload. Its name goes with \
             that; the stream itself can go when nothing of it is to be replayed.\n\
             No message is lost or doubled by that. A table with on_conflict = \"update\" and no newer_by \
             needs another order: first the mapping, then, once the old stream is empty, the pipeline \
             without `before`."
        );
    }
}
