//! Typed settings, their defaults and their validation.
//!
//! Guarantees: a [`Config`] that was loaded is complete and consistent in itself. It says nothing about the
//! servers it names; `jetcopy check` does.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

pub mod conninfo;
mod context;
mod ledger;
mod load;
mod origin;
mod others;
pub(crate) mod path;
mod poison;
mod redact;
mod shards;
mod start;
mod store;
mod table;
mod validate;
mod values;

pub use conninfo::{ConnInfo, HostInfo, Root, SessionAttrs, SslMode, TlsParameters, TlsVersion};
pub use ledger::{Digest, Ledger};
pub use load::{ConfigError, Overrides, Problem, line_of_table};
pub(crate) use origin::DEFAULT;
pub use origin::{Origin, find_file};
pub use poison::PoisonLimits;
pub use redact::{read_secret, redact_url};
pub use start::Start;
pub use store::Store;
pub use table::{
    Absent, BadElement, ColumnSource, Foreign, HeaderIs, OnConflict, Parse, Table, TimeUnit, Unlogged,
    Unpivot, When,
};
pub use values::{DetailedSource, Empty, Offset, Sources};

pub use crate::payload::{Compression, Format};

/// The source of a column that keeps the message's sequence.
pub const SEQUENCE: &str = "$sequence";

/// All settings of one daemon.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the streams are.
    #[serde(default)]
    pub nats: Nats,
    /// Where the tables are.
    #[serde(default)]
    pub postgres: Postgres,
    /// Where metrics, health and status are served.
    #[serde(default)]
    pub http: Http,
    /// How the daemon logs.
    #[serde(default)]
    pub log: Log,
    /// How long the rows of the store's tables live.
    #[serde(default)]
    pub store: Store,
    /// The pipelines.
    #[serde(default, rename = "pipeline")]
    pub pipelines: Vec<Pipeline>,
    /// Where these settings came from.
    #[serde(skip)]
    pub origin: Origin,
}

/// `[nats]`
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nats {
    /// Server addresses, comma-separated.
    pub url: String,
    /// The context of the `nats` command line that fills what is not set here.
    pub context: Option<String>,
    /// A `.creds` file (JWT and seed).
    pub credentials_file: Option<PathBuf>,
    /// A file that holds an nkey seed.
    pub nkey_file: Option<PathBuf>,
    /// A file that holds a token.
    pub token_file: Option<PathBuf>,
    /// User name; goes with `password_file`.
    pub user: Option<String>,
    /// A file that holds the user's password.
    pub password_file: Option<PathBuf>,
    /// Subjects below which replies come in.
    pub inbox_prefix: String,
    /// Whether the TLS handshake comes before the server's first word.
    pub handshake_first: bool,
    /// TLS; its presence requires TLS.
    pub tls: Option<Tls>,
}

/// `[postgres]`
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// Connection URL or key-value string; several hosts may be named.
    pub url: String,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// How long a connection attempt may take, per host.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long one step of a transaction (BEGIN, COPY, COMMIT) may take before the connection is given up;
    /// COPY a second more for each MiB. What does not fit is tried again with fewer messages.
    #[serde(with = "humantime_serde")]
    pub step_timeout: Duration,
    /// TLS; whether it is used is `sslmode`'s choice in the URL.
    pub tls: Option<Tls>,
}

/// `[nats.tls]` and `[postgres.tls]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate authorities in PEM; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain in PEM.
    pub cert_file: Option<PathBuf>,
    /// Client key in PEM.
    pub key_file: Option<PathBuf>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port to serve on.
    pub listen: std::net::SocketAddr,
    /// A file that holds the token which requests must carry; required off the loopback address, and for the
    /// API.
    pub token_file: Option<PathBuf>,
    /// The store's queries over HTTP; without it there are none.
    pub api: Option<Api>,
}

/// `[http.api]`
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The database as a role that reads only; TLS is as `[postgres.tls]` has it.
    pub url: String,
    /// A file that holds the role's password.
    pub password_file: Option<PathBuf>,
    /// Rows of an answer at most.
    pub max_rows: usize,
    /// Bytes of an answer at most, as the database sends it.
    pub max_bytes: ByteSize,
    /// How long a query may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Queries at a time, each on a connection.
    pub concurrency: usize,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A `tracing` filter: `info`, `jetcopy=debug`.
    pub level: String,
    /// Lines for people or objects for machines.
    pub format: LogFormat,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line an event.
    Text,
    /// A JSON object an event.
    Json,
}

/// `[[pipeline]]`: one stream into one or more tables.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Unique name: the checkpoint's shard, the label on every metric.
    pub name: String,
    /// The JetStream stream to read, or the streams, with `{shard}` for the number of each.
    pub stream: String,
    /// How many streams there are, where they have numbers: from 0 on.
    pub shards: Option<u16>,
    /// The stream that the numbered ones take the place of; it is read until it is empty.
    pub before: Option<String>,
    /// Subjects that narrow the stream; empty reads all of it, which is cheapest for the server.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Durable consumer's name; by default `jetcopy-` and the pipeline's name.
    pub durable: Option<String>,
    /// How payloads are written.
    #[serde(default)]
    pub format: Format,
    /// How payloads are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Upper bound of what a compressed payload expands to.
    #[serde(default = "Compression::default_bound")]
    pub max_decompressed_bytes: ByteSize,
    /// Where it begins while it has no checkpoint.
    #[serde(default)]
    pub start: Start,
    /// When a batch is closed.
    #[serde(default)]
    pub batch: BatchLimits,
    /// What to do when the stream no longer holds what the checkpoint needs.
    #[serde(default)]
    pub on_loss: OnLoss,
    /// What to do about messages that the stream itself has removed before they were read; see
    /// [`Pipeline::superseded`] for the default.
    pub on_superseded: Option<OnSuperseded>,
    /// How many sessions write, each every so many batches of the stream.
    #[serde(default = "Pipeline::default_writers")]
    pub writers: usize,
    /// Upper bound of message and row bytes held in memory; see [`Pipeline::buffered_bytes`] for the default.
    pub max_buffered_bytes: Option<ByteSize>,
    /// What NaN and infinities become.
    #[serde(default)]
    pub non_finite: NonFinite,
    /// How many dead letters are normal.
    #[serde(default)]
    pub poison: PoisonLimits,
    /// What is kept beside the counts of each commit.
    #[serde(default)]
    pub ledger: Ledger,
    /// What becomes of a message that no table takes.
    #[serde(default)]
    pub on_unmatched: OnUnmatched,
    /// Tables that one message fills.
    #[serde(default, rename = "table")]
    pub tables: Vec<Table>,
}

/// `batch = { … }`: the first limit reached closes the batch.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLimits {
    /// Rows over all tables.
    pub max_rows: usize,
    /// Encoded bytes over all tables.
    pub max_bytes: ByteSize,
    /// Age of the oldest message in the batch. Without it, the age follows how fast the database is
    /// ([`crate::linger`]).
    #[serde(with = "humantime_serde::option")]
    pub max_age: Option<Duration>,
}

impl BatchLimits {
    /// The age at which a batch is closed at the latest, where the writer has room.
    #[must_use]
    pub fn longest_age(&self) -> Duration {
        self.max_age.unwrap_or(crate::linger::BACKLOG)
    }
}

/// What to do about loss that cannot be prevented.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Record it and halt the pipeline.
    #[default]
    Halt,
    /// Record it and go on with what is there.
    Continue,
}

/// What to do about messages that a stream has removed by itself before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSuperseded {
    /// Count them.
    Ignore,
    /// Record them in `jetcopy.losses`, too, and go on.
    Record,
    /// Record them and halt the pipeline.
    Halt,
}

/// What NaN and infinities become in float, numeric and json columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NonFinite {
    /// Stored as they are (in json: the strings `NaN`, `Infinity`, `-Infinity`).
    #[default]
    Keep,
    /// NULL.
    Null,
    /// The message is a dead letter.
    Refuse,
}

/// `on_unmatched`: what becomes of a message for which no table's `when` holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnmatched {
    /// It is a dead letter.
    #[default]
    DeadLetter,
    /// It is passed over.
    Skip,
}

impl Table {
    /// Whether the last message of a key decides what is stored of it: one before it need not have been read.
    #[must_use]
    pub fn keeps_the_last_only(&self) -> bool {
        self.on_conflict == OnConflict::Update
            && self.absent != Some(Absent::Keep)
            && self.for_each.is_none()
            && self.unpivot.is_none()
    }

    /// The column that takes exactly `source` (`$sequence`), where one does.
    #[must_use]
    pub fn column_of(&self, source: &str) -> Option<&str> {
        self.columns.iter().find(|(_, found)| found.is(source)).map(|(name, _)| name.as_str())
    }
}

impl Pipeline {
    /// What to do about messages that the stream itself has removed before they were read. By default they do
    /// not matter where each message replaces the row of the one before it in every table; elsewhere they are
    /// a loss.
    #[must_use]
    pub fn superseded(&self) -> OnSuperseded {
        self.on_superseded.unwrap_or_else(|| match self.on_loss {
            _ if !self.tables.is_empty() && self.tables.iter().all(Table::keeps_the_last_only) => {
                OnSuperseded::Ignore
            }
            OnLoss::Halt => OnSuperseded::Halt,
            OnLoss::Continue => OnSuperseded::Record,
        })
    }

    fn default_writers() -> usize {
        1
    }

    /// Upper bound of message and row bytes held in memory. The default is for each writer what one has and
    /// what waits for it, each with its messages, and as much again for pull requests; see ARCHITECTURE.md.
    #[must_use]
    pub fn buffered_bytes(&self) -> ByteSize {
        let default = || {
            let of_each = self.batch.max_bytes.as_u64().saturating_mul(16);
            ByteSize(of_each.saturating_mul(self.writers as u64)).max(ByteSize::mib(64))
        };
        self.max_buffered_bytes.unwrap_or_else(default)
    }
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".into(),
            context: None,
            credentials_file: None,
            nkey_file: None,
            token_file: None,
            user: None,
            password_file: None,
            // Not the clients' common _INBOX: replies to others of the account are none of jetcopy's
            // business.
            inbox_prefix: "_INBOX_jetcopy".into(),
            handshake_first: false,
            tls: None,
        }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: "postgres://jetcopy@127.0.0.1:5432/metadata".into(),
            password_file: None,
            connect_timeout: Duration::from_secs(5),
            step_timeout: Duration::from_mins(1),
            tls: None,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: ([127, 0, 0, 1], 9464).into(), token_file: None, api: None }
    }
}

impl Api {
    /// The database as the API reaches it, with TLS as `[postgres.tls]` has it.
    #[must_use]
    pub fn postgres(&self, tls: Option<&Tls>) -> Postgres {
        Postgres {
            url: self.url.clone(),
            password_file: self.password_file.clone(),
            step_timeout: self.timeout,
            tls: tls.cloned(),
            ..Postgres::default()
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            url: "postgres://jetcopy_api@127.0.0.1:5432/metadata".into(),
            password_file: None,
            // As many as the queries answer by default.
            max_rows: 1_000,
            // A thousand rows with eight kilobytes each of what else their messages carried.
            max_bytes: ByteSize::mib(8),
            timeout: Duration::from_secs(5),
            concurrency: 4,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for BatchLimits {
    /// Size counts under a backlog: each commit waits for the disk (6 ms where it was measured, beside 35 ms
    /// for 10,000 rows), and twice the rows halve that.
    fn default() -> Self {
        Self { max_rows: 20_000, max_bytes: ByteSize::mib(4), max_age: None }
    }
}

#[cfg(test)]
mod tests;
