//! Where log lines go and how they look: text or JSON, to standard error, so that standard output is a command's own.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is not a filter; a loaded configuration has been checked for that.
    #[error("log.level is not a filter")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// Another log was set up before.
    #[error("the log is set up already")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the filter begins with; a setting that names the same target overrides it. The NATS client tells of every
/// connection that it opens and closes, and a pipeline opens one a generation: its own state says that better.
const BEFORE: &str = "async_nats=warn";

/// Sets up the process's log.
pub fn init(log: &Log) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(format!("{BEFORE},{}", log.level)).map_err(LoggingError::Level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(LoggingError::Taken)
}
