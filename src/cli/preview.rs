//! `jetcopy preview`: shows the rows that messages would become, and what of them nobody takes.
//!
//! Guarantees: it changes nothing, on NATS or in the database, and leaves nothing behind. Rows are made by
//! the decoder of the daemon ([`crate::preview`]).

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use async_nats::jetstream;
use tokio_postgres::Client;

use super::Failure;
use super::shards::Which;
use crate::chain::chain;
use crate::config::{Config, Format, Pipeline};
use crate::message::Message;
use crate::nats;
use crate::payload::compress::compress;
use crate::payload::compression::Codec;
use crate::postgres::connect::{self, Session};
use crate::postgres::introspect;
use crate::preview::report::Counts;
use crate::preview::{Made, Preview, judge, read};
use crate::shard::Shard;
use crate::stored::Opened;
use crate::subject::covers;
use crate::terminal;
use crate::unreadable::Single;

pub(super) mod json;
pub(super) mod text;

/// How the servers know the sessions of a preview.
const CLIENT_NAME: &str = "jetcopy preview";

/// Messages at most: what they become is kept until it is shown.
const MOST: u64 = 10_000;

/// Arguments of `jetcopy preview`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline whose mapping, stream and tables to use.
    #[command(flatten)]
    pub which: Which,
    /// How many messages: the last ones, or with --from the first ones from there.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=MOST))]
    pub count: u64,
    /// Start at this sequence of the stream.
    #[arg(long, value_name = "SEQ", conflicts_with = "file")]
    pub from: Option<u64>,
    /// Only messages of this subject, `*` and `>` being wildcards; with --file, the subject that they have.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Read messages from a file instead of the stream, `-` being standard input: JSON, one value a message,
    /// or a single message in MessagePack. With format = "raw", each line is a message.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// A message or a table cannot be had.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot open stream {stream}")]
    Stream { stream: String, source: jetstream::context::GetStreamError },
    #[error("cannot read messages of stream {stream}")]
    Read { stream: String, source: crate::stored::Error },
    #[error("cannot read {file}")]
    File { file: String, source: io::Error },
    #[error("cannot compress a message of the file by {}", .codec.name())]
    Compress { codec: Codec, source: io::Error },
}

/// What was looked at, in words.
pub(super) struct Shown<'p> {
    pub(super) preview: &'p Preview<'p>,
    /// Where the messages come from.
    pub(super) origin: String,
    pub(super) made: &'p [Made],
    /// Why values are not what the server would make of them.
    pub(super) unjudged: Option<String>,
}

/// Runs the command.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let (pipeline, shard) = args.which.one(config, "this reads one stream").map_err(Failure::failed)?;
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await.map_err(Failure::failed)?;
    let tables = tables(&session.client, pipeline).await.map_err(Failure::failed)?;
    let mut preview = Preview::new(pipeline, tables).map_err(Failure::failed)?;
    let (singles, origin) = if let Some(file) = &args.file {
        let subject = args.subject.clone().unwrap_or_else(|| subject_of(pipeline));
        let bytes = read_file(file).map_err(Failure::failed)?;
        let origin =
            if file == Path::new("-") { "standard input".into() } else { file.display().to_string() };
        let most = usize::try_from(args.count).unwrap_or(usize::MAX);
        let mut singles = split(&bytes, pipeline.format, &subject, most);
        as_published(pipeline, &mut singles).map_err(Failure::failed)?;
        (singles, format!("{origin}, as {subject}"))
    } else {
        let singles = of_stream(config, pipeline, &shard, args).await.map_err(Failure::failed)?;
        (singles, format!("stream {}", shard.stream))
    };
    let mut made: Vec<Made> = singles.iter().map(|single| preview.make(single)).collect();
    let unjudged = judged(&session, config, &preview, &mut made).await;
    session.close().await;
    let mut counts = Counts::new(pipeline);
    for made in &made {
        counts.add(made);
    }
    let report = counts.report(&preview);
    let shown = Shown { preview: &preview, origin, made: &made, unjudged };
    let mut out = io::stdout().lock();
    let text = if args.json {
        terminal::json(&json::object(&shown, &report)).into_owned()
    } else {
        text::of(&shown, &report, out.is_terminal())
    };
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The tables of a pipeline, as the server knows them.
pub(super) async fn tables(
    client: &Client,
    pipeline: &Pipeline,
) -> Result<Vec<introspect::Table>, introspect::IntrospectError> {
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    let used: Vec<&str> = pipeline.tables.iter().map(|table| table.name.as_str()).collect();
    for table in &pipeline.tables {
        tables.push(introspect::introspect_beside(client, &table.name, &used).await?);
    }
    Ok(tables)
}

/// Lets the server judge what was made; why not, where it does not.
pub(super) async fn judged(
    session: &Session,
    config: &Config,
    preview: &Preview<'_>,
    made: &mut [Made],
) -> Option<String> {
    let judging = judge::judge(&session.client, preview, made);
    match tokio::time::timeout(config.postgres.step_timeout, judging).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("it did not answer within {} s", config.postgres.step_timeout.as_secs())),
    }
}

/// A stream, and the connection that keeps it open.
pub(super) struct Reading {
    pub(super) connection: nats::Connection,
    pub(super) opened: Opened,
}

/// Opens the stream of a shard.
pub(super) async fn open(
    config: &Config,
    shard: &Shard,
    client_name: &str,
) -> Result<Reading, Box<dyn std::error::Error + Send + Sync>> {
    let connection = nats::Connection::open(&config.nats, client_name).await?;
    let stream = shard.stream.clone();
    let opened = jetstream::new(connection.client.clone()).get_stream(&stream).await;
    let stream = opened.map_err(|source| Error::Stream { stream, source })?;
    let opened = Opened { client: connection.client.clone(), stream };
    Ok(Reading { connection, opened })
}

/// Which subjects are asked for.
pub(super) fn filters(pipeline: &Pipeline, only: Option<&str>) -> Vec<String> {
    only.map_or_else(|| pipeline.subjects.clone(), |only| vec![only.to_owned()])
}

/// The messages of a stream that are asked for.
async fn of_stream(
    config: &Config,
    pipeline: &Pipeline,
    shard: &Shard,
    args: &Args,
) -> Result<Vec<Single>, Box<dyn std::error::Error + Send + Sync>> {
    let Reading { connection: _connection, opened } = open(config, shard, CLIENT_NAME).await?;
    let filters = filters(pipeline, args.subject.as_deref());
    let count = usize::try_from(args.count)?;
    let found = match args.from {
        Some(sequence) => read::from(&opened, &filters, sequence, count).await,
        None => read::last(&opened, &filters, count).await,
    };
    let mut found = found.map_err(|source| Error::Read { stream: shard.stream.clone(), source })?;
    found.retain(|single| is_of(pipeline, &single.message.subject));
    Ok(found)
}

/// Whether a pipeline reads a subject.
pub(super) fn is_of(pipeline: &Pipeline, subject: &str) -> bool {
    pipeline.subjects.is_empty() || pipeline.subjects.iter().any(|pattern| covers(pattern, subject))
}

/// A subject that the pipeline reads, for messages that have none.
fn subject_of(pipeline: &Pipeline) -> String {
    match pipeline.subjects.first() {
        Some(pattern) => pattern.replace(['*', '>'], "preview"),
        None => "preview".to_owned(),
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    read.map_err(|source| Error::File { file: file.display().to_string(), source })?;
    Ok(bytes)
}

/// The messages of a file. Text is JSON, one value after the other; what is none is a message up to the end
/// of its line. Of bare values, each line that is not empty is one. NDJSON, line protocol and other bytes are
/// one message.
fn split(bytes: &[u8], format: Format, subject: &str, most: usize) -> Vec<Single> {
    let mut payloads: Vec<&[u8]> = Vec::new();
    let (is_bare, is_one) = (format == Format::Raw, matches!(format, Format::Ndjson | Format::Influx));
    let starts = |text: &&str| is_bare || text.trim_start().starts_with(['{', '[']);
    match str::from_utf8(bytes).ok().filter(starts) {
        _ if bytes.is_empty() => {}
        _ if is_one => payloads.push(bytes),
        None => payloads.push(bytes),
        Some(text) if is_bare => {
            payloads.extend(text.lines().filter(|line| !line.is_empty()).take(most).map(str::as_bytes));
        }
        Some(text) => {
            let mut rest = text.trim_start();
            while !rest.is_empty() && payloads.len() < most {
                let mut values =
                    serde_json::Deserializer::from_str(rest).into_iter::<serde::de::IgnoredAny>();
                let whole = values.next().is_some_and(|value| value.is_ok());
                let end = if whole { values.byte_offset() } else { rest.find('\n').unwrap_or(rest.len()) };
                payloads.push(rest[..end].trim_end().as_bytes());
                rest = rest[end..].trim_start();
            }
        }
    }
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
    let single = |(sequence, payload): (u64, &&[u8])| Single {
        message: Message {
            sequence,
            timestamp_ns: now,
            subject: subject.into(),
            payload: bytes::Bytes::copy_from_slice(payload),
            headers: None,
        },
        unreadable: None,
    };
    (1..).zip(&payloads).map(single).collect()
}

/// Compresses what lies in the file as text, where the pipeline's publishers compress all.
fn as_published(pipeline: &Pipeline, singles: &mut [Single]) -> Result<(), Error> {
    let Some(codec) = pipeline.compression.codec(|| None) else { return Ok(()) };
    let is_text = matches!(pipeline.format, Format::Raw | Format::Influx);
    for payload in singles.iter_mut().map(|single| &mut single.message.payload) {
        if str::from_utf8(payload).is_ok_and(|text| is_text || text.starts_with(['{', '['])) {
            let compressed = compress(codec, payload);
            *payload = compressed.map_err(|source| Error::Compress { codec, source })?.into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads_of(format: Format, text: &[u8]) -> Vec<String> {
        let singles = split(text, format, "a", 10);
        let text = |single: &Single| String::from_utf8_lossy(&single.message.payload).into_owned();
        singles.iter().map(text).collect()
    }

    fn payloads(text: &[u8]) -> Vec<String> {
        payloads_of(Format::Auto, text)
    }

    #[test]
    fn of_bare_values_each_line_is_a_message_and_what_is_no_text_is_one() {
        assert_eq!(payloads_of(Format::Raw, b"21.5\r\nON\n\n{\"a\": \n"), ["21.5", "ON", "{\"a\": "]);
        assert_eq!(payloads_of(Format::Raw, b"\xff\n1"), ["\u{fffd}\n1"]);
    }

    #[test]
    fn a_file_is_a_message_a_value_over_lines_or_one_a_line_and_what_is_broken_is_one_up_to_its_line_end() {
        assert_eq!(payloads(b"{\"a\":1}\n{\"a\":\n2}\n"), ["{\"a\":1}", "{\"a\":\n2}"]);
        assert_eq!(payloads(b"{\"a\":NaN}\n{\"a\": \n\n[1]"), ["{\"a\":NaN}", "{\"a\":", "[1]"]);
        assert_eq!(payloads(b"\x81\xa1a\x01"), ["\u{fffd}\u{fffd}a\u{1}"]);
        assert!(payloads(b"").is_empty());
        assert_eq!(split(b"{}{}{}", Format::Auto, "a", 2).len(), 2);
    }
}
