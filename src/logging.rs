//! Where log lines go and how they look: text or JSON, to standard error, so that standard output is a command's own.
//!
//! Guarantees: a journal that reads standard error gets each line's priority, as `sd-daemon(3)` has it, and no time,
//! which it knows itself.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

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
    match (log.format, read_by_journal()) {
        (LogFormat::Text, false) => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        (LogFormat::Text, true) => {
            builder.with_ansi(false).without_time().map_event_format(WithPriority).try_init()
        }
        (LogFormat::Json, journal) => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            if journal { builder.map_event_format(WithPriority).try_init() } else { builder.try_init() }
        }
    }
    .map_err(LoggingError::Taken)
}

/// Whether standard error leads to the journal: systemd names its device and inode, since a program may be redirected.
fn read_by_journal() -> bool {
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Puts the syslog priority before each event, `<6>` for information.
struct WithPriority<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
