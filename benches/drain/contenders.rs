//! Those that carry the same messages or rows, each by itself: jetcopy, the server's own `COPY`, JetStream
//! alone, a Python consumer.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt;
use jetcopy::bench::daemon::Daemon;
use jetcopy::bench::publisher::{Job, publish};
use jetcopy::testbed::{connect, spawn_tied};
use nix::sys::signal::Signal;

use super::frames::{Target, message};
use super::world::World;

/// Messages that wait for their acks while a stream is filled.
const MAX_IN_FLIGHT: u64 = 5_000;
/// How often the end of a drain is looked for. What is measured are the server's own commit times.
const POLL: Duration = Duration::from_millis(20);
/// How long a drain may take before the bench gives up.
const PATIENCE: Duration = Duration::from_mins(5);
/// Messages between two acks of the bare consumer, and in each of its pulls: as jetcopy pulls.
const PULL: u32 = 5_000;
/// The durable consumer of the Python consumer.
const PYTHON: &str = "python";

/// What jetcopy has done.
pub(crate) struct Drained {
    pub(crate) rows_per_second: f64,
    pub(crate) cpu_seconds_per_million_rows: f64,
    pub(crate) peak_memory_mib: f64,
    pub(crate) wal_bytes_per_row: f64,
}

/// Fills the target's stream.
pub(crate) async fn fill(world: &World, target: Target, total: u64) {
    world.create_stream(target.stream()).await;
    let job = Job {
        subject: target.stream().into(),
        total,
        rate: None,
        in_flight: MAX_IN_FLIGHT,
        start: tokio::time::Instant::now(),
    };
    publish(&world.client, &job, |index| message(target, index), &AtomicU64::new(0)).await.unwrap();
    let rate = total as f64 / job.start.elapsed().as_secs_f64();
    println!(
        "published {total} messages of {} bytes at {rate:.0} a second",
        message(target, total / 2).len()
    );
}

/// jetcopy, from an empty table to the last message.
pub(crate) async fn jetcopy(world: &World, target: Target, messages: u64) -> Drained {
    world.empty(target).await;
    let rows = (messages * target.rows_per_message()) as f64;
    let written = world.write_ahead_log().await;
    let mut daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_jetcopy")), &world.config(target)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while world.checkpoint(target).await < messages {
        daemon.check().unwrap();
        assert!(Instant::now() < deadline, "{}", daemon.failed(format!("did not drain in {PATIENCE:?}")));
        tokio::time::sleep(POLL).await;
    }
    let drained = Drained {
        rows_per_second: by_commit_times(world, target, messages).await,
        cpu_seconds_per_million_rows: daemon.cpu_seconds().unwrap() / rows * 1e6,
        peak_memory_mib: daemon.peak_memory_mib().unwrap(),
        wal_bytes_per_row: (world.write_ahead_log().await - written) / rows,
    };
    daemon.stop().await.unwrap();
    drained
}

/// Writes what the tables hold into files for [`copy`].
pub(crate) async fn keep(world: &World, target: Target) {
    for table in target.tables() {
        world
            .execute(&format!(
                "COPY (SELECT * FROM {table}) TO '{}' (FORMAT binary)",
                world.file(table).display()
            ))
            .await;
    }
}

/// Rows a second by the server's own `COPY FROM` a file, into one table after the other.
pub(crate) async fn copy(world: &World, target: Target, messages: u64) -> f64 {
    world.empty(target).await;
    // A session of its own, as the daemon has one: its first touch of each page of the buffers counts on both
    // sides.
    let session = connect(&world.servers.postgres.url).await.unwrap();
    let start = Instant::now();
    for table in target.tables() {
        let sql = format!("COPY {table} FROM '{}' (FORMAT binary)", world.file(table).display());
        session.batch_execute(&sql).await.unwrap();
    }
    (messages * target.rows_per_message()) as f64 / start.elapsed().as_secs_f64()
}

/// Messages a second out of the stream into nothing: one ack for each pull.
pub(crate) async fn jetstream_alone(world: &World, target: Target, messages: u64) -> f64 {
    let jetstream = jetstream::new(world.client.clone());
    let stream = jetstream.get_stream(target.stream()).await.unwrap();
    let config = pull::Config {
        durable_name: Some("alone".into()),
        ack_policy: AckPolicy::All,
        max_ack_pending: i64::from(4 * PULL),
        ..Default::default()
    };
    let consumer: Consumer<pull::Config> = stream.create_consumer(config).await.unwrap();
    let pulled = consumer
        .stream()
        .max_messages_per_batch(PULL as usize)
        .expires(Duration::from_secs(20))
        .heartbeat(Duration::from_secs(5))
        .messages()
        .await
        .unwrap();
    let mut pulled = pulled.take(usize::try_from(messages).unwrap()).enumerate();
    let mut start = Instant::now();
    while let Some((index, message)) = pulled.next().await {
        let message = message.unwrap();
        if index == 0 {
            start = Instant::now();
        }
        if (index + 1) % PULL as usize == 0 {
            message.ack_with(AckKind::Ack).await.unwrap();
        }
    }
    let rate = (messages - 1) as f64 / start.elapsed().as_secs_f64();
    stream.delete_consumer("alone").await.unwrap();
    rate
}

/// Rows a second by the Python consumer.
pub(crate) async fn python(world: &World, target: Target, messages: u64, idempotent: bool) -> f64 {
    world.empty(target).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join(".tools/venv/bin/python");
    let program = if own.exists() { own } else { "python3".into() };
    let child = spawn_tied(&program, None, Signal::SIGKILL, |command| {
        command.arg(root.join("benches/drain/consumer.py")).stdin(Stdio::null());
        // Where `scripts/setup.sh bench` puts the packages on a machine that cannot make a virtual
        // environment.
        command.env("PYTHONPATH", root.join(".tools/venv"));
        command.args(["--nats", &world.servers.nats.url, "--postgres", &world.servers.postgres.url]);
        command.args(["--stream", target.stream(), "--table", target.tables()[0], "--messages"]);
        command.arg(messages.to_string());
        if idempotent {
            command.arg("--idempotent");
        }
    });
    ended(child.unwrap()).await;
    let stream = jetstream::new(world.client.clone()).get_stream(target.stream()).await.unwrap();
    stream.delete_consumer(PYTHON).await.unwrap();
    by_commit_times(world, target, messages).await
}

async fn ended(mut child: Child) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(
                status.success(),
                "the Python consumer failed ({status}): was `scripts/setup.sh bench` run?"
            );
            return;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the Python consumer has not ended in {PATIENCE:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Rows a second after the first commit.
async fn by_commit_times(world: &World, target: Target, messages: u64) -> f64 {
    let tables: Vec<String> =
        target.tables().iter().map(|table| format!("SELECT xmin::text FROM {table}")).collect();
    let sql = format!(
        "WITH commits AS (SELECT xmin, count(*) AS rows FROM ({}) AS all_rows GROUP BY 1),
              times AS (SELECT pg_xact_commit_timestamp(xmin::xid) AS at, rows FROM commits),
              ends AS (SELECT min(at) AS first, max(at) AS last, sum(rows)::int8 AS rows FROM times)
         SELECT ends.rows, (ends.rows - times.rows)::float8, extract(epoch FROM last - first)::float8
         FROM ends JOIN times ON times.at = ends.first",
        tables.join(" UNION ALL ")
    );
    let row = world.database.query_one(&sql, &[]).await.unwrap();
    let (rows, after_first, seconds): (i64, f64, f64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(
        u64::try_from(rows).unwrap(),
        messages * target.rows_per_message(),
        "each message has its rows"
    );
    after_first / seconds
}
