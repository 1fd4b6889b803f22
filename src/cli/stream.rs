//! `jetcopy stream`: makes a stream that is fit for jetcopy.
//!
//! Guarantees: it makes a stream or changes nothing. One that is there already is compared with what is asked
//! for: the same is success, and what differs is said.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config as Stream, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use bytesize::ByteSize;

use super::Failure;
use crate::config::Config;
use crate::nats::Connection;
use crate::terminal::say;

/// How the server knows the connection.
const CLIENT_NAME: &str = "jetcopy stream";

/// Arguments of `jetcopy stream`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a stream with limits retention, which jetcopy needs. If there is such a stream, this changes
    /// nothing; one that differs is an error.
    Add(Add),
}

/// What stores a stream.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Storage {
    File,
    Memory,
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The stream's name.
    #[arg(value_name = "STREAM")]
    name: String,
    /// What it takes, such as 'frames.>'; comma-separated or given again for several.
    #[arg(long, value_name = "SUBJECT", required = true, value_delimiter = ',')]
    subjects: Vec<String>,
    /// What it is stored in; memory is lost with the server [default: file].
    #[arg(long, value_name = "STORAGE")]
    storage: Option<Storage>,
    /// Drop messages that are older than this, such as 7d [default: none are].
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
    /// Drop the oldest messages beyond this size, such as 10GiB [default: no limit].
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<ByteSize>,
    /// Drop the oldest messages beyond this number [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_messages: Option<i64>,
    /// Servers that hold a copy: 1, 3 or 5 [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// How long a message with the same Nats-Msg-Id is dropped as a duplicate [default: 2m].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duplicate_window: Option<Duration>,
}

/// Why there is no such stream.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot look at stream {name}")]
    Look { name: String, source: jetstream::context::GetStreamError },
    #[error("cannot create stream {name}{remedy}")]
    Create { name: String, remedy: &'static str, source: jetstream::context::CreateStreamError },
    #[error(
        "stream {name} exists and differs: {differences}; ask for what it has, take another name, or change \
         it with `nats stream edit {name}`"
    )]
    Differs { name: String, differences: String },
}

/// Runs the command.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let Action::Add(add) = &args.action;
    let connection = Connection::open(&config.nats, CLIENT_NAME).await.map_err(Failure::failed)?;
    let context = jetstream::new(connection.client.clone());
    let name = &add.name;
    match context.get_stream(name).await {
        Ok(stream) => {
            let differences = add.differences(&stream.cached_info().config);
            if !differences.is_empty() {
                let (name, differences) = (name.clone(), differences.join("; "));
                return Err(Failure::failed(Error::Differs { name, differences }));
            }
            say!("stream {name} exists already, as asked for");
        }
        Err(error) if is_missing(&error) => {
            let made = context.create_stream(add.config()).await.map_err(|source| {
                let (name, remedy) = (name.clone(), remedy(source.kind()));
                Failure::failed(Error::Create { name, remedy, source })
            })?;
            let Stream { subjects, storage, .. } = made.cached_info().config.clone();
            say!("stream {name} created, for {}, with {} storage", subjects.join(", "), word(storage));
        }
        Err(source) => return Err(Failure::failed(Error::Look { name: name.clone(), source })),
    }
    Ok(())
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// What to do about what JetStream refuses.
fn remedy(kind: CreateStreamErrorKind) -> &'static str {
    match kind {
        CreateStreamErrorKind::JetStream(error)
            if error.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP =>
        {
            ": another stream takes some of these subjects (`nats stream ls --subject SUBJECT` names it), \
             and a subject can be in one stream only"
        }
        CreateStreamErrorKind::JetStream(error)
            if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT =>
        {
            ": start the server with JetStream (`nats-server -js`), or enable it for the account"
        }
        _ => "",
    }
}

fn word(storage: StorageType) -> &'static str {
    match storage {
        StorageType::File => "file",
        StorageType::Memory => "memory",
    }
}

impl Add {
    fn storage(&self) -> Option<StorageType> {
        self.storage.map(|storage| match storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        })
    }

    fn max_bytes(&self) -> Option<i64> {
        self.max_bytes.map(|size| i64::try_from(size.as_u64()).unwrap_or(i64::MAX))
    }

    fn config(&self) -> Stream {
        let unset = Stream::default();
        Stream {
            name: self.name.clone(),
            subjects: self.subjects.clone(),
            retention: RetentionPolicy::Limits,
            storage: self.storage().unwrap_or(StorageType::File),
            max_age: self.max_age.unwrap_or(unset.max_age),
            max_bytes: self.max_bytes().unwrap_or(-1),
            max_messages: self.max_messages.unwrap_or(-1),
            num_replicas: self.replicas.map_or(1, usize::from),
            duplicate_window: self.duplicate_window.unwrap_or(unset.duplicate_window),
            allow_direct: true,
            ..unset
        }
    }

    /// How the stream that is there differs from what is asked for; what is not asked for may be anything.
    fn differences(&self, found: &Stream) -> Vec<String> {
        let sorted = |subjects: &[String]| {
            let mut sorted = subjects.to_vec();
            sorted.sort();
            sorted.join(", ")
        };
        let age = |age: Duration| {
            if age.is_zero() { "none".into() } else { humantime::format_duration(age).to_string() }
        };
        let limit = |limit: i64| if limit > 0 { limit.to_string() } else { "none".to_owned() };
        let mut differences = Vec::new();
        let mut compare = |what: &str, found: String, asked: Option<String>| {
            if let Some(asked) = asked.filter(|asked| *asked != found) {
                differences.push(format!("{what} {found}, not {asked}"));
            }
        };
        compare("subjects", sorted(&found.subjects), Some(sorted(&self.subjects)));
        let retention = match found.retention {
            RetentionPolicy::Limits => "limits",
            RetentionPolicy::Interest => "interest",
            RetentionPolicy::WorkQueue => "workqueue",
        };
        compare("retention", retention.into(), Some("limits".into()));
        compare("storage", word(found.storage).into(), self.storage().map(|storage| word(storage).into()));
        compare("maximum age", age(found.max_age), self.max_age.map(age));
        compare("maximum bytes", limit(found.max_bytes), self.max_bytes().map(limit));
        compare("maximum messages", limit(found.max_messages), self.max_messages.map(limit));
        compare(
            "replicas",
            found.num_replicas.to_string(),
            self.replicas.map(|replicas| replicas.to_string()),
        );
        compare("duplicate window", age(found.duplicate_window), self.duplicate_window.map(age));
        differences
    }
}
