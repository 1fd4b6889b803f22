//! `jetcopy publish`: publishes NDJSON or CSV records to a stream.
//!
//! Guarantees: what is counted as published is stored; every message has a `Nats-Msg-Id`, so that one whose
//! ack got lost is sent again without being stored twice. A record that cannot be published is reported with
//! its line and, unless asked otherwise, ends the run; the records before it are published.

mod record;
mod template;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::header::{HeaderName, HeaderValue, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use clap::ValueEnum;
use futures_util::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{mpsc, oneshot};

use crate::config;
use crate::nats::{self, Connection};
use crate::payload::Compression;
use crate::payload::compress::compress;
use crate::payload::compression::Codec;
use crate::publish::{self, Outgoing, Published, paced};
use crate::terminal::say;
use record::{BadRecord, Record, Records};
use template::Template;

/// Records read ahead of the network: enough to hide a slow read, little memory.
const READ_AHEAD: usize = 1_024;

/// Publishes records from a file or standard input, one message per record, and waits for the stream's acks.
///
/// NDJSON is one JSON object per line. CSV has a header row with the field names; its numbers and true/false
/// are recognized, and an empty field is null.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Subject to publish to; `{field}` is replaced by the record's field, as in `frames.{camera_id}`.
    subject: String,
    /// File to read [default: standard input, also `-`].
    file: Option<PathBuf>,
    /// Format of the input [default: by the file's extension, else NDJSON].
    #[arg(long, value_enum)]
    input: Option<Input>,
    /// Format of the messages.
    #[arg(long, value_enum, default_value_t = Payload::Msgpack)]
    format: Payload,
    /// With --format raw, the field that is the message.
    #[arg(long, value_name = "FIELD", default_value = "value")]
    value_field: String,
    /// Compress each message by this, and say so in its Content-Encoding [default: not at all].
    #[arg(long, value_enum)]
    compress: Option<Codec>,
    /// Messages per second [default: as fast as the stream acknowledges].
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Maximum number of messages waiting for their acks.
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: u32,
    /// Header to add to every message; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Field to use as the message id, by which the stream drops duplicates [default: a unique id per
    /// message].
    #[arg(long, value_name = "FIELD")]
    msg_id_field: Option<String>,
    /// Continue after a record that cannot be published; it is reported and counted.
    #[arg(long)]
    skip_bad: bool,
}

/// Format of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Input {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated, with a header row.
    Csv,
}

/// Format of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Payload {
    /// MessagePack maps.
    Msgpack,
    /// JSON objects.
    Json,
    /// CBOR maps.
    Cbor,
    /// Bare values: the text, the number or the boolean of one field.
    Raw,
}

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// What the stream has acknowledged.
    pub published: Published,
    /// Records that were skipped.
    pub skipped: u64,
}

/// Why `publish` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subject is not a template.
    #[error("the subject {subject:?} {reason}")]
    Template {
        /// As it was given.
        subject: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The input cannot be opened.
    #[error("cannot open {}", .path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// A record cannot be published.
    #[error("{name}:{line}: {reason} ({published} messages before it were published; use --skip-bad to \
             continue)", line = .bad.line, reason = .bad.reason)]
    Record {
        /// The input's name.
        name: String,
        /// Where and why.
        bad: BadRecord,
        /// How many messages were published before it.
        published: u64,
    },
    /// The input broke off.
    #[error("cannot read {name}")]
    Read {
        /// The input's name.
        name: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The stream did not take a message.
    #[error("publishing failed after {published} messages were acknowledged")]
    Publish {
        /// How many.
        published: u64,
        /// Why it failed.
        #[source]
        source: publish::Error,
    },
}

/// Runs the command and prints its final line.
pub async fn run(settings: &config::Nats, args: &Args) -> Result<Summary, Error> {
    let start = Instant::now();
    let template = Template::parse(&args.subject)
        .map_err(|reason| Error::Template { subject: args.subject.clone(), reason })?;
    let path = args.file.clone().filter(|path| path.as_os_str() != "-");
    let name = path.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let (reader, progress) = open(path.as_ref())?;
    let is_csv = path.as_ref().and_then(|path| path.extension()).is_some_and(|ending| ending == "csv");
    let input = args.input.unwrap_or(if is_csv { Input::Csv } else { Input::Ndjson });
    let connection = Connection::open(settings, "jetcopy-publish").await?;

    let thread_args = args.clone();
    let max_in_flight = usize::try_from(args.max_in_flight).unwrap_or(usize::MAX);
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let (outcome, read) = oneshot::channel();
    // Reading blocks, from standard input perhaps for ever: it gets a thread that nothing has to wait for.
    std::thread::spawn(move || {
        let stopped = read_all(&thread_args, &template, Records::new(input, reader), &sender);
        // Nobody listens when publishing has failed first, which is then the error to report.
        let _ = outcome.send(stopped);
    });
    let mut acked = 0;
    let messages = match args.rate {
        Some(rate) => paced(from_channel(receiver), rate).left_stream(),
        None => from_channel(receiver).right_stream(),
    };
    let published = publish::publish(&connection.client, messages, max_in_flight, |_| {
        acked += 1;
        progress.set_message(acked.to_string());
    })
    .await;
    progress.finish_and_clear();
    let published = published.map_err(|source| Error::Publish { published: acked, source })?;
    let skipped = match read.await {
        Ok(Ok(skipped)) => skipped,
        Ok(Err(Stopped::Bad(bad))) => return Err(Error::Record { name, bad, published: acked }),
        Ok(Err(Stopped::Read(source))) => return Err(Error::Read { name, source }),
        Err(gone) => return Err(Error::Read { name, source: std::io::Error::other(gone) }),
    };
    let summary = Summary { published, skipped };
    say!("{}", summary.line(start.elapsed(), args.skip_bad));
    Ok(summary)
}

/// Why reading ended before the input did.
enum Stopped {
    Bad(BadRecord),
    Read(std::io::Error),
}

/// Turns records into messages until there are no more records or receivers. Returns how many bad ones it
/// skipped.
fn read_all(
    args: &Args,
    template: &Template,
    records: Records<impl Read>,
    sender: &mpsc::Sender<Outgoing>,
) -> Result<u64, Stopped> {
    let mut ids = Ids::new(args.msg_id_field.clone());
    let mut skipped = 0;
    for record in records {
        let record = record.map_err(Stopped::Read)?;
        match record.and_then(|record| outgoing(args, template, &mut ids, &record)) {
            Ok(outgoing) => {
                if sender.blocking_send(outgoing).is_err() {
                    break;
                }
            }
            Err(bad) if args.skip_bad => {
                skipped += 1;
                tracing::warn!(line = bad.line, reason = %bad.reason, "skipped a record");
            }
            Err(bad) => return Err(Stopped::Bad(bad)),
        }
    }
    Ok(skipped)
}

impl Summary {
    fn line(&self, took: Duration, skip_bad: bool) -> String {
        let mut line =
            format!("published {} messages in {:.1} s", self.published.messages, took.as_secs_f64());
        if self.published.duplicates > 0 {
            let _ = write!(line, ", {} of them duplicates", self.published.duplicates);
        }
        if skip_bad {
            let _ = write!(line, ", skipped {} bad records", self.skipped);
        }
        line
    }
}

/// The input and a bar that follows it, which shows only on a terminal.
fn open(path: Option<&PathBuf>) -> Result<(Box<dyn Read + Send>, ProgressBar), Error> {
    let fail = |source| Error::Open { path: path.cloned().unwrap_or_default(), source };
    let style = |text| ProgressStyle::with_template(text).expect("a fixed template");
    let (reader, progress): (Box<dyn Read + Send>, _) = if let Some(path) = path {
        let file = File::open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        let style = style("{bar:40} {bytes}/{total_bytes}, {msg} messages, {eta} left");
        (Box::new(file), ProgressBar::new(length).with_style(style))
    } else {
        let style = style("{spinner} {bytes} read, {msg} messages");
        (Box::new(std::io::stdin()), ProgressBar::new_spinner().with_style(style))
    };
    if !std::io::stderr().is_terminal() {
        progress.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    Ok((Box::new(progress.wrap_read(reader)), progress))
}

fn from_channel<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}

/// Where messages get their ids from.
struct Ids {
    field: Option<String>,
    run: uuid::Uuid,
    count: u64,
}

impl Ids {
    fn new(field: Option<String>) -> Self {
        Self { field, run: uuid::Uuid::from_u128(random()), count: 0 }
    }

    fn next(&mut self, record: &Record) -> Result<String, BadRecord> {
        let Some(field) = &self.field else {
            self.count += 1;
            return Ok(format!("{}-{}", self.run.simple(), self.count));
        };
        record.text(field).map_err(|reason| record.bad(reason))
    }
}

/// Different in each run, which is all that a message id needs.
fn random() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

const CONTENT_TYPE: &str = "Content-Type";

fn outgoing(args: &Args, template: &Template, ids: &mut Ids, record: &Record) -> Result<Outgoing, BadRecord> {
    let subject = template.render(record).map_err(|reason| record.bad(reason))?;
    let id = ids.next(record)?;
    let (payload, content_type) = match args.format {
        Payload::Json => (record.json(), "application/json"),
        Payload::Msgpack => (record.msgpack(), "application/msgpack"),
        Payload::Cbor => (record.cbor(), "application/cbor"),
        Payload::Raw => (record.text(&args.value_field).map(String::into_bytes), "text/plain"),
    };
    let mut payload = payload.map_err(|reason| record.bad(reason))?;
    if let Some(codec) = args.compress {
        payload = compress(codec, &payload).map_err(|error| record.bad(error.to_string()))?;
    }
    let mut headers = HeaderMap::new();
    let said = [(CONTENT_TYPE, Some(content_type)), (Compression::HEADER, args.compress.map(Codec::name))];
    for (name, value) in said {
        // One that was given takes its place, however it is spelled.
        let given = args.headers.iter().any(|(given, _)| given.to_string().eq_ignore_ascii_case(name));
        if let Some(value) = value.filter(|_| !given) {
            headers.insert(name, value);
        }
    }
    headers
        .insert(NATS_MESSAGE_ID, id.parse::<HeaderValue>().map_err(|error| record.bad(error.to_string()))?);
    for (name, value) in &args.headers {
        headers.insert(name.clone(), value.clone());
    }
    Ok(Outgoing { subject: Subject::from(subject), headers: Some(headers), payload: Bytes::from(payload) })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("must be a number above 0".into()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let name = name.trim().parse::<HeaderName>().map_err(|error| error.to_string())?;
    let value = value.parse::<HeaderValue>().map_err(|error| error.to_string())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests;
