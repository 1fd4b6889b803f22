//! Puts load on a NATS server and a database, and measures: for `jetcopy bench` and for the benches.
//!
//! Guarantees:
//! - A run has its own streams, tables and schema, with unique names, and removes them however it ends.
//! - The daemon is a separate process: jetcopy as users run it.
//! - A figure that cannot be measured is left out, and the reason is printed.
//!
//! It measures everything that the servers do in the meantime, whoever causes it: CPU time, memory and
//! write-ahead log are those of whole servers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::{
    self,
    consumer::{Consumer, pull},
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{self, Config};
use crate::migrate;
use crate::nats::Connection;
use crate::postgres::connect::{self, Session};
use crate::testbed::{self, Extension, NatsOptions, PostgresOptions, TestNats, TestPostgres};

pub mod commits;
pub mod daemon;
mod error;
pub mod figures;
pub mod idle;
pub mod load;
pub mod place;
pub mod process;
pub mod publisher;
pub mod record;
pub mod watch;

use daemon::Daemon;
pub use error::Error;
use error::io;
use figures::{Latency, Outcome};
use load::Shape;
use place::{CLIENT_NAME, Names};
use record::{Recorder, Sample};
use watch::{Seen, Watch};

/// Settings that a private server for such a load has: no checkpoint in the middle of a run, a table's worth
/// of buffers, no vacuum that starts when it likes. Commit timestamps are what rates are timed by.
pub const POSTGRES_SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "1h"),
    ("wal_compression", "off"),
    ("autovacuum", "off"),
    ("track_commit_timestamp", "on"),
];

/// Messages before those that count: connections, plans and caches get warm.
pub const WARM_UP: Duration = Duration::from_secs(2);
/// Between two looks while latency counts. With the query's own time, this is what a latency may be too long
/// by.
const LOOK_OFTEN: Duration = Duration::from_micros(500);
/// Between two looks while only the end is waited for: a look costs nothing then.
const LOOK_SELDOM: Duration = Duration::from_millis(20);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a run may be stuck before it is given up: longer than any pause of a healthy server.
const PATIENCE: Duration = Duration::from_mins(1);
/// Messages of all pipelines that may wait for their acks: a fifth of a second at 50,000 a second.
const MAX_IN_FLIGHT: u64 = 10_000;
/// Bytes of messages on the way that are enough to keep the stream busy; large ones would only fill memory.
const MAX_BYTES_IN_FLIGHT: u64 = 16 << 20;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Streams, each with a pipeline into a table of its own.
    pub pipelines: usize,
    /// How much, and how fast.
    pub load: Load,
    /// Bytes of a message.
    pub payload: usize,
    /// Rows that a message holds.
    pub rows_per_message: usize,
    /// Whether the tables have an index, on the message's sequence.
    pub index: bool,
    /// Rows that each table holds beforehand.
    pub stored: u64,
    /// Sessions that write, of each pipeline.
    pub writers: usize,
}

/// How much is published, and how fast.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// Steadily, while the daemon runs; latencies are measured.
    Rate {
        /// Messages a second over all pipelines.
        per_second: f64,
        /// How long, after the warm-up.
        duration: Duration,
    },
    /// All before the daemon starts, which then drains the streams as fast as it can.
    Backlog {
        /// Messages over all pipelines.
        messages: u64,
    },
}

/// The servers of a run.
#[derive(Debug)]
pub struct Servers {
    /// Where the streams are made.
    pub nats: config::Nats,
    /// Where the tables are made.
    pub postgres: config::Postgres,
    /// Those that end with this value.
    pub private: Option<(TestNats, TestPostgres)>,
}

/// Microseconds; half a million years fit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Servers {
    /// Those that the configuration names.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { nats: config.nats.clone(), postgres: config.postgres.clone(), private: None }
    }

    /// A testbed that commits durably, with a database that has the schema; with TimescaleDB if that is asked
    /// for and offered.
    pub async fn private(timescaledb: bool) -> Result<Self, Error> {
        let started = tokio::task::spawn_blocking(move || {
            let settings =
                POSTGRES_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let options = PostgresOptions {
                durable: true,
                timescaledb: if timescaledb { Extension::Offered } else { Extension::Never },
                settings,
                ..PostgresOptions::default()
            };
            Ok::<_, testbed::Error>((
                TestNats::start(&NatsOptions::default())?,
                TestPostgres::start(&options)?,
            ))
        });
        let (nats, postgres) = started.await.map_err(|_| Error::Ended)??;
        let url = postgres.create_database_named("bench").await?;
        let servers = Self {
            nats: config::Nats { url: nats.url(), ..Default::default() },
            postgres: config::Postgres { url, ..Default::default() },
            private: Some((nats, postgres)),
        };
        migrate::migrate_with(&servers.postgres, &config::Store::default()).await?;
        Ok(servers)
    }
}

/// Does what `plan` says, with `program`, which is jetcopy, as the daemon. `stop` ends it early, `progress`
/// is called once a second.
pub async fn run(
    servers: &Servers,
    program: &Path,
    plan: &Plan,
    stop: impl Future<Output = ()>,
    progress: &(dyn Fn(&Sample) + Sync),
) -> Result<Outcome, Error> {
    let shape = Shape::new(plan.payload, plan.rows_per_message)?;
    let names = Names::default();
    let outcome = tokio::select! {
        // A run that has ended is not interrupted.
        biased;
        outcome = measure(servers, program, plan, &shape, &names, progress) => outcome,
        () = stop => Err(Error::Interrupted),
    };
    // By now the daemon has ended: the future that owned it is gone.
    let removed = names.remove(servers).await;
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

async fn measure(
    servers: &Servers,
    program: &Path,
    plan: &Plan,
    shape: &Shape,
    names: &Names,
    progress: &(dyn Fn(&Sample) + Sync),
) -> Result<Outcome, Error> {
    let connection = Connection::open(&servers.nats, CLIENT_NAME).await?;
    let most = connection.client.max_payload();
    if shape.size() > most {
        return Err(Error::TooLarge { payload: shape.size(), most });
    }
    let session = connect::connect(&servers.postgres, CLIENT_NAME).await?;
    names.create(plan, &connection, &session).await?;
    if servers.private.is_some() {
        // Nothing of what came before is left to be written during the run.
        session.client.batch_execute("CHECKPOINT").await.map_err(Error::database("write a checkpoint"))?;
    }
    let config = names.config(plan, shape, servers);
    let mut run = Run { servers, program, plan, shape, names, connection, session, config, progress };
    match plan.load {
        Load::Rate { per_second, duration } => run.at_rate(per_second, duration).await,
        Load::Backlog { messages } => run.of_backlog(messages).await,
    }
}

/// What the two ways have in common.
struct Run<'r> {
    servers: &'r Servers,
    program: &'r Path,
    plan: &'r Plan,
    shape: &'r Shape,
    names: &'r Names,
    connection: Connection,
    session: Session,
    config: String,
    progress: &'r (dyn Fn(&Sample) + Sync),
}

impl Run<'_> {
    /// The daemon writes what comes in.
    async fn at_rate(&mut self, per_second: f64, duration: Duration) -> Result<Outcome, Error> {
        let mut daemon = Daemon::start(self.program, &self.config)?;
        self.ready(&mut daemon).await?;
        let watch = Watch::start(&self.servers.postgres, self.names, self.plan, LOOK_OFTEN).await?;
        let written = self.write_ahead_log().await?;
        let rate = per_second / self.pipelines();
        let share = |duration: Duration| whole(rate * duration.as_secs_f64()).max(1);
        let (warm_up, total) = (share(WARM_UP), share(WARM_UP) + share(duration));
        let clock = SystemTime::now();
        let start = Instant::now();
        let mut publishers = self.publish(total, Some(rate), start);
        let mut recorder = self.recorder(Some(&daemon), &watch, &publishers.acked).await;
        tokio::time::sleep_until(start + WARM_UP).await;
        recorder.begin(&watch);
        let sent = recorder.sampling(&watch, publishers.all()).await?;
        recorder.end(&watch);
        self.until_visible(&watch, &mut daemon, &mut recorder, &vec![total; self.plan.pipelines]).await?;

        let mut outcome = Outcome::new(self.plan, self.shape, recorder, total * self.plan.pipelines as u64);
        let peak = daemon.peak_memory_mib();
        self.settle(&mut outcome, written, peak).await?;
        let seen = watch.finish().await?;
        daemon.stop().await?;
        outcome.look_p99_ms = Some(figures::milliseconds(seen.looks.value_at_quantile(0.99)));
        let skip = usize::try_from(warm_up).unwrap_or(usize::MAX);
        let visible = Latency::of_steps(&seen, &sent, start.into_std(), skip, &mut outcome.samples);
        outcome.publish_to_visible_ms = Some(visible);
        self.time(&mut outcome, &seen, clock, Some((&sent, skip))).await?;
        Ok(outcome)
    }

    /// The streams are filled, then the daemon drains them.
    async fn of_backlog(&mut self, messages: u64) -> Result<Outcome, Error> {
        let pipelines = self.plan.pipelines as u64;
        let each = messages.div_ceil(pipelines);
        let start = Instant::now();
        let mut publishers = self.publish(each, None, start);
        let watch = Watch::start(&self.servers.postgres, self.names, self.plan, LOOK_SELDOM).await?;
        // Nothing runs yet but the publishers: the samples show how far they are.
        let mut filling = self.recorder(None, &watch, &publishers.acked).await;
        filling.sampling(&watch, publishers.all()).await?;
        let filled_in = start.elapsed();

        let written = self.write_ahead_log().await?;
        let clock = SystemTime::now();
        let mut daemon = Daemon::start(self.program, &self.config)?;
        let mut recorder = self.recorder(Some(&daemon), &watch, &publishers.acked).await;
        recorder.begin(&watch);
        self.until_visible(&watch, &mut daemon, &mut recorder, &vec![each; self.plan.pipelines]).await?;
        recorder.end(&watch);
        let mut outcome = Outcome::new(self.plan, self.shape, recorder, each * pipelines);
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        let published = (each * pipelines) as f64;
        outcome.published_per_second = figures::rounded(published / filled_in.as_secs_f64());
        let peak = daemon.peak_memory_mib();
        if let (Some(figures), Ok(seconds)) = (&mut outcome.daemon, daemon.cpu_seconds()) {
            // From its start on, which costs something too.
            figures.set_cpu(seconds, outcome.rows);
        }
        self.settle(&mut outcome, written, peak).await?;
        let seen = watch.finish().await?;
        daemon.stop().await?;
        self.time(&mut outcome, &seen, clock, None).await?;
        Ok(outcome)
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 pipelines")]
    fn pipelines(&self) -> f64 {
        self.plan.pipelines as f64
    }

    /// Waits until the daemon has placed every cursor.
    async fn ready(&self, daemon: &mut Daemon) -> Result<(), Error> {
        let jetstream = jetstream::new(self.connection.client.clone());
        let deadline = Instant::now() + PATIENCE;
        for pipeline in 0..self.plan.pipelines {
            let stream = self.names.stream(pipeline);
            let failed = |error| Error::stream("look at", stream.clone(), error);
            let found = jetstream.get_stream(&stream).await.map_err(failed)?;
            let durable = format!("jetcopy-{}", self.names.pipeline(pipeline));
            loop {
                let cursor: Result<Consumer<pull::Config>, _> = found.get_consumer(&durable).await;
                if cursor.is_ok() {
                    break;
                }
                daemon.check()?;
                if Instant::now() > deadline {
                    return Err(daemon.failed(format!("did not read stream {stream} within {PATIENCE:?}")));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Starts a publisher for each stream.
    fn publish(&self, total: u64, rate: Option<f64>, start: Instant) -> Publishers {
        let acked: Arc<Vec<AtomicU64>> =
            Arc::new((0..self.plan.pipelines).map(|_| AtomicU64::new(0)).collect());
        let most = (MAX_BYTES_IN_FLIGHT / self.shape.size() as u64).clamp(1, MAX_IN_FLIGHT);
        let mut tasks = JoinSet::new();
        for pipeline in 0..self.plan.pipelines {
            let job = publisher::Job {
                subject: self.names.subject(pipeline).into(),
                total,
                rate,
                in_flight: (most / self.plan.pipelines as u64).max(1),
                start,
            };
            let (client, shape, acked) =
                (self.connection.client.clone(), self.shape.clone(), Arc::clone(&acked));
            tasks.spawn(async move {
                let message = |number| shape.message(number, now_micros());
                (pipeline, publisher::publish(&client, &job, message, &acked[pipeline]).await)
            });
        }
        Publishers { acked, tasks }
    }

    async fn recorder(
        &self,
        daemon: Option<&Daemon>,
        watch: &Watch,
        acked: &Arc<Vec<AtomicU64>>,
    ) -> Recorder<'_> {
        let nats = match &self.servers.private {
            Some((server, _)) => {
                server.pid().map(process::Processes::One).ok_or_else(|| "NATS has ended".to_owned())
            }
            None => process::nats(&self.servers.nats, &self.connection.client),
        };
        let postgres = process::postgres(&self.session, vec![watch.backend]).await;
        let daemon = daemon.map(Daemon::processes).ok_or_else(|| "the daemon does not run yet".to_owned());
        Recorder::new([daemon, nats, postgres], Arc::clone(acked), self.progress)
    }

    /// Waits until the rows of all sequences up to `last` are visible.
    async fn until_visible(
        &self,
        watch: &Watch,
        daemon: &mut Daemon,
        recorder: &mut Recorder<'_>,
        last: &[u64],
    ) -> Result<(), Error> {
        let (mut before, mut progress) = (0, Instant::now());
        let wait = async {
            loop {
                let seen: Vec<u64> = watch.seen().collect();
                if seen.iter().zip(last).all(|(seen, last)| seen >= last) {
                    return Ok(());
                }
                let sum = seen.iter().sum();
                if sum > before {
                    (before, progress) = (sum, Instant::now());
                } else if progress.elapsed() > PATIENCE {
                    return Err(daemon.failed(format!("has committed nothing for {PATIENCE:?}")));
                }
                if watch.has_failed() {
                    return Ok(());
                }
                daemon.check()?;
                tokio::time::sleep(POLL).await;
            }
        };
        recorder.sampling(watch, wait).await
    }

    /// Bytes of write-ahead log since the server was made.
    async fn write_ahead_log(&self) -> Result<f64, Error> {
        let failed = Error::database("ask for the position in the write-ahead log");
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        let row = self.session.client.query_typed_one(sql, &[]).await.map_err(&failed)?;
        row.try_get(0).map_err(&failed)
    }

    /// What is known as soon as all is visible.
    async fn settle(
        &self,
        outcome: &mut Outcome,
        written: f64,
        peak: Result<f64, Error>,
    ) -> Result<(), Error> {
        let bytes = self.write_ahead_log().await? - written;
        let failed = Error::database("count the rows");
        let mut rows = 0;
        for pipeline in 0..self.plan.pipelines {
            let sql = format!("SELECT count(*) FROM {} WHERE seq > 0", self.names.table(pipeline));
            let row = self.session.client.query_typed_one(&sql, &[]).await.map_err(&failed)?;
            rows += row.try_get::<_, i64>(0).map_err(&failed)?;
        }
        outcome.count(u64::try_from(rows).unwrap_or(0), bytes);
        if let (Some(daemon), Ok(peak)) = (&mut outcome.daemon, peak) {
            daemon.peak_memory_mib = figures::rounded(peak);
        }
        Ok(())
    }

    /// Rates, and with `sent` the latencies up to the commit: by the server's timestamps where it keeps them,
    /// else by what was seen.
    async fn time(
        &self,
        outcome: &mut Outcome,
        seen: &Seen,
        clock: SystemTime,
        sent: Option<(&[Vec<u64>], usize)>,
    ) -> Result<(), Error> {
        let mut commits = Vec::with_capacity(self.plan.pipelines);
        let mut kept = commits::are_kept(&self.session).await?;
        for pipeline in 0..self.plan.pipelines {
            if kept {
                match commits::of(&self.session, &self.names.table(pipeline), clock).await? {
                    Some(found) => commits.push(found),
                    None => kept = false,
                }
            }
        }
        if !kept {
            let why = "the server keeps no commit timestamps (track_commit_timestamp), so rates are timed by \
                       when another session saw the checkpoint move, and publish → commit is the same as \
                       publish → visible";
            outcome.left_out.push(why.into());
        }
        outcome.timed_by = if kept { "commit timestamps" } else { "looks" };
        outcome.rows_per_second = if kept {
            figures::rate_of_commits(&commits)
        } else {
            figures::rate_of_steps(seen, self.shape.rows())
        };
        if let (Some((sent, skip)), true) = (sent, kept) {
            outcome.publish_to_commit_ms = Some(Latency::of_commits(&commits, sent, skip));
        }
        Ok(())
    }
}

/// A publisher for each stream; they end with this value.
struct Publishers {
    acked: Arc<Vec<AtomicU64>>,
    tasks: JoinSet<(usize, Result<Vec<u64>, publisher::Error>)>,
}

impl Publishers {
    /// Waits for all of them. Returns when each message was sent.
    async fn all(&mut self) -> Result<Vec<Vec<u64>>, Error> {
        let mut sent = vec![Vec::new(); self.acked.len()];
        while let Some(joined) = self.tasks.join_next().await {
            let (pipeline, published) = joined.map_err(|_| Error::Ended)?;
            sent[pipeline] = published?;
        }
        Ok(sent)
    }
}

/// What the streams have stored in all.
fn sum(counts: &[AtomicU64]) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

fn now_micros() -> u64 {
    micros(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive count far below 2^53"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}
