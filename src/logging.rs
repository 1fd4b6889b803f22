//! Where log lines go and how they look: text or JSON, to standard error, so that standard output is a
//! command's own.
//!
//! Guarantees: a journal that reads standard error gets each line's priority, as `sd-daemon(3)` has it, and
//! no time, which it knows itself. The daemon never waits for its log and is not ended by it: lines that
//! nobody takes (a full disk, a pipe without a reader or one that is full) are dropped and counted. What a
//! process had not written yet when it was killed is lost.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogFormat};
use crate::terminal;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// `log.level` is not a filter; a loaded configuration has been checked for that.
    #[error("log.level is not a filter")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// Another log was set up before.
    #[error("logging is already set up")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the filter begins with; a setting that names the same target overrides it. The NATS client tells of
/// every connection that it opens and closes, and a pipeline opens one a generation: its own state says that
/// better. Why one could not be opened is told by the state too, once, with what would mend it.
const BEFORE: &str = "async_nats=warn,async_nats::connector=off";

/// Lines that wait to be written: about 2 MB, more than a second of the loudest trouble.
const WAITING_LINES: usize = 8192;

/// The log of a daemon; what waits to be written is, for up to a second, when this is dropped.
pub(crate) struct Daemon {
    _writer: WorkerGuard,
    dropped: Dropped,
}

impl Daemon {
    /// How many lines nobody took.
    #[must_use]
    pub(crate) fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }
}

/// Counts the lines that were not written.
#[derive(Clone)]
pub struct Dropped {
    /// Those that found the queue full.
    waiting: ErrorCounter,
    /// Those that could not be written.
    failed: Arc<AtomicU64>,
}

impl fmt::Debug for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Dropped").field(&self.lines()).finish()
    }
}

impl Dropped {
    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.waiting.dropped_lines() as u64 + self.failed.load(Ordering::Relaxed)
    }
}

/// Sets up the log of a command that answers and ends.
pub(crate) fn init(log: &Log) -> Result<(), LoggingError> {
    set_up(log, BoxMakeWriter::new(|| terminal::Log(io::stderr())))
}

/// Sets up the log of a daemon: a thread of its own writes it, so that no other waits for who reads it.
pub(crate) fn init_daemon(log: &Log) -> Result<Daemon, LoggingError> {
    let failed = Arc::new(AtomicU64::new(0));
    let lines = Lines { to: terminal::Log(io::stderr()), failed: Arc::clone(&failed) };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("jetcopy-log")
        .finish(lines);
    let dropped = Dropped { waiting: writer.error_counter(), failed };
    set_up(log, BoxMakeWriter::new(writer))?;
    Ok(Daemon { _writer: guard, dropped })
}

fn set_up(log: &Log, writer: BoxMakeWriter) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(format!("{BEFORE},{}", log.level)).map_err(LoggingError::Level)?;
    // A line that cannot be written must not be told on the same standard error: that would panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
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

/// Takes whole lines, and counts those that it cannot write.
struct Lines<W> {
    to: W,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to.write_all(line).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard error leads to the journal: systemd names its device and inode, since a program may be
/// redirected.
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
