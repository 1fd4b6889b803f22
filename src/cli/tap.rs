//! `jetcopy tap`: shows new messages as they come, and the rows that they become.
//!
//! Guarantees: as `jetcopy preview`, it changes nothing and leaves nothing behind: messages are read one by
//! one over JetStream's API, with no consumer. At most `--rate` of them a second are read; what is passed
//! over is counted. It ends at Ctrl-C, or when it has shown or waited enough.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::Failure;
use super::preview::{self, Reading, json, text};
use super::shards::Which;
use super::signals::Shutdown;
use crate::config::{Config, Pipeline};
use crate::postgres::connect::{self, Session};
use crate::preview::Preview;
use crate::preview::report::Counts;
use crate::stored::{Opened, Stored};
use crate::terminal;
use crate::unreadable;

/// How the servers know the sessions of a tap.
const CLIENT_NAME: &str = "jetcopy tap";

/// Pause before the next look where nothing new was there: soon enough for eyes, ten small questions a
/// second for the server.
const POLL: Duration = Duration::from_millis(100);

/// The span that messages are counted in for `--rate`.
const SECOND: Duration = Duration::from_secs(1);

/// Messages a second at most: each is asked for by itself.
const MOST: u64 = 1_000;

/// Arguments of `jetcopy tap`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline whose mapping, stream and tables to use.
    #[command(flatten)]
    pub which: Which,
    /// Only messages of this subject, `*` and `>` being wildcards.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Read at most so many messages a second; if more come, go on at the newest.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=MOST))]
    pub rate: u64,
    /// Start at this sequence of the stream [default: after its last].
    #[arg(long, value_name = "SEQ")]
    pub from: Option<u64>,
    /// End after so many messages.
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// End after so long.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Print a JSON object a message, and one with what the mapping misses at the end.
    #[arg(long)]
    pub json: bool,
}

/// A tap at work.
struct Tap<'c> {
    config: &'c Config,
    pipeline: &'c Pipeline,
    preview: Preview<'c>,
    session: Session,
    opened: Opened,
    filters: Vec<String>,
    /// The sequence to read next.
    next: u64,
    counts: Counts,
    shown: u64,
    /// Whether it was said that the server does not judge values.
    told: bool,
}

/// Runs the command.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    let (pipeline, shard) = args.which.one(config, "this reads one stream").map_err(Failure::failed)?;
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    let session = connect::connect_any(&config.postgres, CLIENT_NAME).await.map_err(Failure::failed)?;
    let tables = preview::tables(&session.client, pipeline).await.map_err(Failure::failed)?;
    let preview = Preview::new(pipeline, tables).map_err(Failure::failed)?;
    let Reading { connection: _connection, opened } =
        preview::open(config, &shard, CLIENT_NAME).await.map_err(Failure::failed)?;
    let next = args.from.unwrap_or(opened.cached_info().state.last_sequence + 1);
    let filters = preview::filters(pipeline, args.subject.as_deref());
    let counts = Counts::new(pipeline);
    let mut tap =
        Tap { config, pipeline, preview, session, opened, filters, next, counts, shown: 0, told: false };
    let ended = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // A signal counts more than what is there to show.
        biased;
        () = shutdown.asked() => {}
        () = ended => {}
        followed = tap.follow(args) => followed?,
    }
    let report = tap.counts.report(&tap.preview);
    tap.session.close().await;
    let end = if args.json { json::summary(&report) } else { text::summary(&report, is_terminal()) };
    print(&end, args.json)
}

fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints; a reader that has seen enough is no failure here.
fn print(text: &str, is_json: bool) -> Result<(), Failure> {
    let safe = if is_json { terminal::json(text) } else { text.into() };
    let mut out = io::stdout().lock();
    match out.write_all(safe.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Tap<'_> {
    /// Shows messages until there were enough.
    async fn follow(&mut self, args: &Args) -> Result<(), Failure> {
        loop {
            let (began, mut read) = (Instant::now(), 0);
            while read < args.rate && began.elapsed() < SECOND {
                if args.count.is_some_and(|count| self.shown >= count) {
                    return Ok(());
                }
                let found = self.opened.first(self.next, &self.filters).await.map_err(Failure::failed)?;
                let Some(stored): Option<Stored> = found else {
                    tokio::time::sleep(POLL).await;
                    continue;
                };
                read += 1;
                self.next = stored.sequence + 1;
                self.show(stored, args.json).await?;
            }
            if read == args.rate {
                tokio::time::sleep(SECOND.saturating_sub(began.elapsed())).await;
                self.catch_up(args).await?;
            }
        }
    }

    /// Passes over what came beyond the rate, unless it is to be read from a sequence on.
    async fn catch_up(&mut self, args: &Args) -> Result<(), Failure> {
        if args.from.is_some() || args.count.is_some_and(|count| self.shown >= count) {
            return Ok(());
        }
        let info = self.opened.get_info().await.map_err(Failure::failed)?;
        let last = info.state.last_sequence;
        // As many as the next second has room for are no backlog.
        let from = (last + 1).saturating_sub(args.rate);
        let Some(passed @ 1..) = from.checked_sub(self.next) else { return Ok(()) };
        self.next = from;
        if args.json {
            return print(&format!("{{\"passed_over_sequences\":{passed}}}\n"), true);
        }
        print(&format!("… {passed} sequences passed over: more than --rate {}\n", args.rate), false)
    }

    /// Shows a message and what it becomes.
    async fn show(&mut self, stored: Stored, is_json: bool) -> Result<(), Failure> {
        let stream = self.opened.cached_info().config.name.clone();
        let single = unreadable::judge(&self.opened.client, &stream, stored).await;
        let single = single.map_err(Failure::failed)?;
        if !preview::is_of(self.pipeline, &single.message.subject) {
            return Ok(());
        }
        let mut made = self.preview.make(&single);
        let one = std::slice::from_mut(&mut made);
        if let Some(why) = preview::judged(&self.session, self.config, &self.preview, one).await
            && !std::mem::replace(&mut self.told, true)
        {
            tracing::warn!(why, "values are shown as they are sent: the server does not judge them");
        }
        self.counts.add(&made);
        self.shown += 1;
        let text = if is_json {
            json::line(&self.preview, &made)
        } else {
            text::live(&self.preview, &made, single.message.payload.len(), is_terminal())
        };
        print(&text, is_json)
    }
}
