//! `jetcopy demo`: everything in one terminal, on a testbed that ends with it.
//!
//! Guarantees: it touches no other server; after a first Ctrl-C or the given duration, what was published is
//! committed before the summary, and the servers and their data are gone when it ends.

mod frames;
mod latency;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use figment::Figment;
use figment::providers::{Format as _, Toml};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Failure;
use super::signals::Shutdown;
use crate::config::Config;
use crate::http;
use crate::metrics::Metrics;
use crate::migrate;
use crate::publish::{paced, publish};
use crate::shard::Shard;
use crate::status::{Numbers, Registry, State};
use crate::supervise;
use crate::testbed::{self, Extension, NatsOptions, PostgresOptions, TestNats, TestPostgres};
use latency::Counts;

/// The pipeline that the demo runs.
const CONFIG: &str = include_str!("../../config/demo.toml");
/// The database that the demo makes.
const DATABASE: &str = "metadata";
/// Frames that may wait for their acks: some tens of milliseconds at the highest rates.
const MAX_IN_FLIGHT: usize = 2_000;
/// How long the last frames may take to be committed: usually as long as a batch waits.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the pipeline may take to start; after that, the output shows why it does not.
const START: Duration = Duration::from_secs(5);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Runs jetcopy on a testbed with synthetic camera frames and prints its throughput every second.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Frames per second.
    #[arg(long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long to run, such as 20s [default: until Ctrl-C].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Print the summary, which is the last line, as a JSON object.
    #[arg(long)]
    json: bool,
}

/// The totals of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Summary {
    /// Frames that the stream has stored.
    pub published: u64,
    /// Frames that the database has committed, by the checkpoint.
    pub committed: u64,
    /// Rows that the tables hold.
    pub rows: i64,
    /// Messages that became dead letters.
    pub dead_letters: i64,
    /// 99 of 100 frames were committed within this time after they were stored.
    pub latency_p99_ms: Option<f64>,
}

/// The testbed, with the schema and the stream that the pipeline needs.
struct Servers {
    // Field order is drop order, and neither needs the other by then.
    nats: TestNats,
    postgres: TestPostgres,
    config: Config,
    client: async_nats::Client,
}

/// Runs the command.
pub async fn run(args: &Args) -> Result<Summary, Failure> {
    let shutdown = Shutdown::on_signals().map_err(Failure::failed)?;
    say("starting a testbed: NATS and PostgreSQL");
    let servers = tokio::select! {
        servers = Servers::start() => servers?,
        () = shutdown.clone().asked() => return Err(Failure::failed("interrupted before anything ran")),
    };
    let server = http::Server::bind(&servers.config.http, None).await.map_err(Failure::failed)?;
    let address = server.address();
    say(&format!("page      http://{address}/"));
    say(&format!("metrics   http://{address}/metrics"));
    say(&format!("database  psql {}", servers.postgres.database_url(DATABASE)));
    say(&format!("stream    {} at {}", servers.config.pipelines[0].stream, servers.nats.url()));

    let (metrics, registry) = (Metrics::new(), Registry::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    // Dropping either sender also means stop, so that nothing keeps running after a failure.
    let serving =
        tokio::spawn(server.serve(metrics.clone(), registry.clone(), async { drop(http_stopped.await) }));
    // The demo never reloads.
    let (_, reloads) = mpsc::channel(1);
    let daemon = supervise::run(servers.config.clone(), metrics.clone(), registry.clone(), reloads, async {
        drop(stopped.await);
    });
    let daemon = tokio::spawn(daemon);

    let view = View::new(&servers.config, metrics, registry);
    // Frames that wait for the pipeline to start would distort its latency.
    within(START, || view.is_running()).await;
    let published = show(args, &servers.client, &view, shutdown).await?;
    within(DRAIN, || view.committed() >= published).await;
    drop(stop);
    daemon.await.map_err(Failure::failed)?;
    drop(stop_http);
    serving.await.map_err(Failure::failed)?;

    let summary = view.summary(&servers, published).await?;
    // Stopping servers blocks for a moment.
    tokio::task::spawn_blocking(move || drop(servers)).await.map_err(Failure::failed)?;
    if args.json {
        say(&serde_json::to_string(&summary).map_err(Failure::failed)?);
    } else {
        say(&summary.line());
    }
    Ok(summary)
}

/// Waits until `condition` holds, for at most `patience`; what follows shows whether it does.
async fn within(patience: Duration, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

/// Publishes until it is time to stop, printing a line per second. Returns how many frames the stream has
/// stored.
async fn show(
    args: &Args,
    client: &async_nats::Client,
    view: &View,
    shutdown: Shutdown,
) -> Result<u64, Failure> {
    let start = Instant::now();
    let duration = args.duration;
    let stop = async move {
        match duration {
            Some(duration) => tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = shutdown.asked() => {}
            },
            None => shutdown.asked().await,
        }
    };
    let acked = Arc::new(AtomicU64::new(0));
    // The clock of a frame is read when its turn has come, not when the stream is made.
    let turns = paced(stream::iter(0_u64..), f64::from(args.rate));
    let frames = turns.map(frames::frame).take_until(Box::pin(stop));
    let mut publishing = std::pin::pin!(publish(client, frames, MAX_IN_FLIGHT, |_| {
        acked.fetch_add(1, Ordering::Relaxed);
    }));
    let mut second = tokio::time::interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    let mut before = view.latencies();
    loop {
        tokio::select! {
            published = &mut publishing => return Ok(published.map_err(Failure::failed)?.messages),
            _ = second.tick() => {
                let (published, committed) = (acked.load(Ordering::Relaxed), view.committed());
                let latencies = view.latencies();
                let p99 = latencies.quantile_since(&before, 0.99);
                before = latencies;
                say(&format!(
                    "{:>5} s  published {published:>9}  committed {committed:>9}  lag {:>6}  p99 {}",
                    start.elapsed().as_secs(),
                    published.saturating_sub(committed),
                    milliseconds(p99),
                ));
                if let Some(trouble) = view.trouble() {
                    say(&format!("         {trouble}"));
                }
            }
        }
    }
}

/// What the running pipeline reports about itself.
struct View {
    metrics: Metrics,
    registry: Registry,
    shard: Shard,
    tables: Vec<String>,
}

impl View {
    fn new(config: &Config, metrics: Metrics, registry: Registry) -> Self {
        let pipeline = &config.pipelines[0];
        let tables = pipeline.tables.iter().map(|table| table.name.clone()).collect();
        // Its configuration is the program's own, with one stream.
        let shard = pipeline.shards().remove(0);
        Self { metrics, registry, shard, tables }
    }

    /// The checkpoint: the stream is new and nothing is deleted from it, so that sequences count frames.
    fn committed(&self) -> u64 {
        let numbers = self.registry.snapshots().into_iter().next().map(|pipeline| pipeline.numbers);
        let sequence = numbers.and_then(|Numbers { checkpoint_sequence, .. }| checkpoint_sequence);
        sequence.and_then(|sequence| u64::try_from(sequence).ok()).unwrap_or(0)
    }

    fn latencies(&self) -> Counts {
        let tables: Vec<&str> = self.tables.iter().map(String::as_str).collect();
        let handles = self.metrics.pipeline(&self.shard, &tables);
        Counts::of(&handles.publish_to_commit_seconds)
    }

    fn is_running(&self) -> bool {
        self.registry.snapshots().first().is_some_and(|pipeline| matches!(pipeline.state, State::Running))
    }

    /// Why the pipeline is not running, when it is not.
    fn trouble(&self) -> Option<String> {
        let pipeline = self.registry.snapshots().into_iter().next()?;
        pipeline.state.reason().map(|reason| format!("{}: {reason}", pipeline.state.label()))
    }

    async fn summary(&self, servers: &Servers, published: u64) -> Result<Summary, Failure> {
        let database =
            testbed::connect(&servers.postgres.database_url(DATABASE)).await.map_err(Failure::failed)?;
        let mut sums = [0; 2];
        let of_tables = self.tables.iter().map(|table| (table.as_str(), 0));
        for (table, sum) in of_tables.chain([("jetcopy.dead_letters", 1)]) {
            let sql = format!("SELECT count(*) FROM {table}");
            let count: i64 = database.query_one(&sql, &[]).await.map_err(Failure::failed)?.get(0);
            sums[sum] += count;
        }
        let p99 = self.latencies().quantile_since(&Counts::default(), 0.99);
        Ok(Summary {
            published,
            committed: self.committed(),
            rows: sums[0],
            dead_letters: sums[1],
            // Tenths are as exact as the histogram's buckets get.
            latency_p99_ms: p99.map(|seconds| (seconds * 10_000.0).round() / 10.0),
        })
    }
}

impl Servers {
    async fn start() -> Result<Self, Failure> {
        let started = tokio::task::spawn_blocking(|| {
            let nats = TestNats::start(&NatsOptions::default())?;
            let postgres = TestPostgres::start(&PostgresOptions {
                timescaledb: Extension::Offered,
                ..PostgresOptions::default()
            })?;
            Ok::<_, testbed::Error>((nats, postgres))
        });
        let (nats, postgres) = started.await.map_err(Failure::failed)?.map_err(Failure::failed)?;
        let mut config: Config = Figment::from(Toml::string(CONFIG))
            .extract()
            .map_err(|error| Failure::failed(Box::new(error)))?;
        config.nats.url = nats.url();
        config.postgres.url = postgres.create_database_named(DATABASE).await.map_err(Failure::failed)?;
        config.http.listen = ([127, 0, 0, 1], 0).into();
        migrate::migrate_with(&config.postgres, &config.store).await.map_err(Failure::failed)?;
        let client = async_nats::connect(nats.url()).await.map_err(Failure::failed)?;
        let stream = jetstream::stream::Config {
            name: config.pipelines[0].stream.clone(),
            subjects: vec!["frames.>".into()],
            ..Default::default()
        };
        jetstream::new(client.clone()).create_stream(stream).await.map_err(Failure::failed)?;
        Ok(Self { nats, postgres, config, client })
    }
}

impl Summary {
    fn line(&self) -> String {
        format!(
            "published {}, committed {}, rows {}, dead letters {}, p99 from publish to commit {}",
            self.published,
            self.committed,
            self.rows,
            self.dead_letters,
            milliseconds(self.latency_p99_ms.map(|milliseconds| milliseconds / 1_000.0)),
        )
    }
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("{:.1} ms", seconds * 1_000.0))
}

/// Prints a line; a closed pipe is no failure.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
