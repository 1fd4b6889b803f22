//! What the tests stand on: a world of servers and a stream, the daemon in it, and the oracle that judges it.

mod command;
mod daemon;
mod events;
mod http;
mod ledger;
mod line;
mod oracle;
mod proxy;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_nats::jetstream;
use jetcopy::publish::{Outgoing, publish};
use jetcopy::testbed::{Need, TestNats, TestPostgres, connect, skip, stop_jobs};
use tempfile::TempDir;
use tokio_postgres::Client;

pub(crate) use daemon::Daemon;
pub(crate) use events::{EVENTS, Load, TABLE, event};
pub(crate) use http::SLOW;
pub(crate) use line::Line;
pub(crate) use oracle::oracle;
pub(crate) use proxy::{Fault, Lose, Proxy, Way};

/// How long a condition may take to hold: healthy, all of them hold within a second; a loaded machine takes
/// longer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The variable that gives the pipelines of all tests so many writers, to try them with.
const WRITERS: &str = "JETCOPY_TEST_WRITERS";

/// A database of its own with jetcopy's schema, a stream of its own, and a directory for files.
pub(crate) struct World {
    pub(crate) database: Client,
    /// Where the daemon finds the database.
    pub(crate) database_url: String,
    /// Where the test itself does.
    pub(crate) own_url: String,
    /// More lines of the section `[postgres]`.
    pub(crate) postgres_settings: String,
    pub(crate) nats: async_nats::Client,
    pub(crate) nats_url: String,
    pub(crate) jetstream: jetstream::Context,
    /// The stream; it takes the subjects below its own name.
    pub(crate) stream: String,
    pub(crate) directory: TempDir,
    /// The servers of this process, where they are shared: they end with the last world.
    shared: (Option<Arc<TestNats>>, Option<Arc<TestPostgres>>),
}

impl World {
    /// On the servers that the tests of this process share.
    pub(crate) async fn new() -> Self {
        let (nats, postgres) = (TestNats::shared().unwrap(), TestPostgres::shared().unwrap());
        let mut world = Self::on(&nats, &postgres).await;
        world.shared = (Some(nats), Some(postgres));
        world
    }

    /// The same without TimescaleDB, also where the server has it.
    pub(crate) async fn plain() -> Self {
        let (nats, postgres) = (TestNats::shared().unwrap(), TestPostgres::shared_plain().unwrap());
        let mut world = Self::on(&nats, &postgres).await;
        world.shared = (Some(nats), Some(postgres));
        world
    }

    /// On a PostgreSQL of the test's own.
    pub(crate) async fn with_postgres(postgres: &TestPostgres) -> Self {
        let nats = TestNats::shared().unwrap();
        let mut world = Self::on(&nats, postgres).await;
        world.shared.0 = Some(nats);
        world
    }

    /// On servers of the test's own, which it may stop and kill.
    pub(crate) async fn on(nats: &TestNats, postgres: &TestPostgres) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let stream = format!("STREAM{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let database_url = postgres.create_database().await.unwrap();
        let settings = jetcopy::config::Postgres { url: database_url.clone(), ..Default::default() };
        jetcopy::migrate::migrate(&settings).await.unwrap();
        let nats_url = nats.url();
        let nats = async_nats::connect(&nats_url).await.unwrap();
        let jetstream = jetstream::new(nats.clone());
        let world = Self {
            database: connect(&database_url).await.unwrap(),
            own_url: database_url.clone(),
            database_url,
            postgres_settings: String::new(),
            nats,
            nats_url,
            jetstream,
            stream,
            directory: tempfile::tempdir().unwrap(),
            shared: (None, None),
        };
        world.create_stream().await;
        world
    }

    /// Makes the stream.
    pub(crate) async fn create_stream(&self) {
        self.jetstream.create_stream(self.stream_config()).await.unwrap();
    }

    /// The stream as it is made.
    pub(crate) fn stream_config(&self) -> jetstream::stream::Config {
        jetstream::stream::Config {
            name: self.stream.clone(),
            subjects: vec![format!("{}.>", self.stream)],
            ..Default::default()
        }
    }

    /// Waits until NATS answers about the stream, after it was away.
    pub(crate) async fn nats_answers(&self) {
        eventually("NATS to answer", || async { self.jetstream.get_stream(&self.stream).await.is_ok() })
            .await;
    }

    /// The port of the database's server.
    pub(crate) fn postgres_port(&self) -> u16 {
        let settings: tokio_postgres::Config = self.database_url.parse().unwrap();
        settings.get_ports()[0]
    }

    /// Connects the test itself to the database again, which was away.
    pub(crate) async fn reconnect(&mut self) {
        self.database = connect(&self.own_url).await.unwrap();
    }

    /// Writes a configuration file for these servers; `rest` is its pipelines, where `STREAM` stands for the
    /// stream.
    pub(crate) fn config(&self, rest: &str) -> PathBuf {
        self.config_file("jetcopy.toml", rest)
    }

    /// The same in a file of another name, for a command beside a daemon that reads its own.
    pub(crate) fn config_file(&self, name: &str, rest: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let text = format!(
            "[nats]\nurl = \"{}\"\n[postgres]\nurl = \"{}\"\n{}\n[http]\nlisten = \"127.0.0.1:0\"\n{}",
            self.nats_url,
            self.database_url,
            self.postgres_settings,
            with_writers(rest).replace("STREAM", &self.stream)
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Publishes `payloads` to a subject below the stream's name, and waits for all acks.
    pub(crate) async fn publish<P: Into<Vec<u8>>>(&self, token: &str, payloads: impl IntoIterator<Item = P>) {
        let subject = async_nats::Subject::from(format!("{}.{token}", self.stream));
        let messages = payloads.into_iter().map(|payload| Outgoing {
            subject: subject.clone(),
            headers: None,
            payload: payload.into().into(),
        });
        publish(&self.nats, futures_util::stream::iter(messages), 1_000, |_| {}).await.unwrap();
    }

    /// The stream's last sequence.
    pub(crate) async fn last_sequence(&self) -> u64 {
        self.jetstream.get_stream(&self.stream).await.unwrap().cached_info().state.last_sequence
    }

    /// Where a shard stands; 0 before the first commit.
    pub(crate) async fn checkpoint(&self, shard: &str) -> u64 {
        let row = self.database.query_one("SELECT jetcopy.floor($1)", &[&shard]).await.unwrap();
        row.get::<_, Option<i64>>(0).map_or(0, |floor| u64::try_from(floor).unwrap())
    }

    /// A single number from the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.database.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Ends TimescaleDB's scheduler of the database and the jobs that run: from then on, they run when a test
    /// says so.
    pub(crate) async fn stop_jobs(&self) {
        let stopped = tokio::time::timeout(PATIENCE, stop_jobs(&self.database)).await;
        stopped.expect("the jobs end").unwrap();
    }

    /// Waits until everything in the stream is committed, for as long as it goes on.
    pub(crate) async fn drained(&self, shard: &str, daemon: &Daemon) {
        self.drained_within(PATIENCE, shard, daemon).await;
    }

    /// The same where a commit takes its time of itself.
    pub(crate) async fn drained_within(&self, patience: Duration, shard: &str, daemon: &Daemon) {
        let last = self.last_sequence().await;
        let mut before = self.checkpoint(shard).await;
        while before != last {
            eventually_within(patience, &format!("checkpoint {last} after {before}"), || async {
                assert!(daemon.is_running(), "the daemon has ended; its log:\n{}", daemon.log());
                self.checkpoint(shard).await != before
            })
            .await;
            before = self.checkpoint(shard).await;
        }
    }
}

/// The pipelines with as many writers as [`WRITERS`] says, where they do not say so themselves.
fn with_writers(pipelines: &str) -> String {
    match std::env::var(WRITERS) {
        Ok(writers) if !pipelines.contains("writers = ") => {
            pipelines.replace("[[pipeline]]\n", &format!("[[pipeline]]\nwriters = {writers}\n"))
        }
        Ok(_) | Err(_) => pipelines.to_owned(),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    eventually_within(PATIENCE, what, condition).await;
}

/// Waits until `condition` holds, for something that takes its time of itself.
pub(crate) async fn eventually_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + patience;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Midnight (UTC) so many days before this process first asked, in microseconds: a time that does not depend
/// on the date of the run, and is the same throughout it. Partitions are added on demand for days up to 1,000
/// back and 7 ahead.
pub(crate) fn days_ago(days: i64) -> i64 {
    const DAY: i64 = 86_400_000_000;
    static TODAY: LazyLock<i64> = LazyLock::new(|| jiff::Timestamp::now().as_microsecond().div_euclid(DAY));
    (*TODAY - days) * DAY
}

/// Real input that lies beside the package on the developers' machines and is no part of it.
pub(crate) fn shared_data(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(path);
    if !path.exists() {
        skip(Need::Data);
        return None;
    }
    Some(path)
}
