//! A private server with the store, and what it says of sizes and times.

use std::time::Instant;

use jetcopy::testbed::{Extension, PostgresOptions, TestPostgres, connect};
use jetcopy::{config, migrate, store};
use tokio_postgres::{Client, SimpleQueryMessage};

/// Settings of a machine with some gigabytes of memory, as in `config/postgres`; all else at its default.
/// Vacuum runs when the bench says so.
const SETTINGS: [(&str, &str); 9] = [
    ("shared_buffers", "2GB"),
    ("effective_cache_size", "6GB"),
    ("work_mem", "16MB"),
    ("maintenance_work_mem", "512MB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
    ("random_page_cost", "1.1"),
    ("jit", "off"),
    ("autovacuum", "off"),
];

pub(crate) struct World {
    pub(crate) postgres: TestPostgres,
    pub(crate) url: String,
    pub(crate) database: Client,
    /// The process of the session.
    process: u32,
}

impl World {
    pub(crate) async fn start(plain: bool) -> Self {
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = PostgresOptions {
            durable: true,
            timescaledb: if plain { Extension::Never } else { Extension::Offered },
            settings,
            ..PostgresOptions::default()
        };
        let postgres = TestPostgres::start(&options).unwrap();
        let url = postgres.create_database_named("store").await.unwrap();
        let mut world = Self { database: connect(&url).await.unwrap(), url, postgres, process: 0 };
        world.process = world.number("SELECT pg_backend_pid()").await as u32;
        migrate::migrate(&world.settings()).await.unwrap();
        if world.timescale() {
            store::timescale::apply(&world.settings()).await.unwrap();
            // The bench compresses and refreshes by itself, and drops nothing.
            world
                .execute(
                    "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs \
                    WHERE job_id >= 1000",
                )
                .await;
        } else {
            world
                .execute(
                    "SELECT jetcopy.add_partitions(relation, ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date - n
                        FROM generate_series(0, 61) n)) FROM jetcopy.partitioned_tables",
                )
                .await;
        }
        world
    }

    pub(crate) fn settings(&self) -> config::Postgres {
        config::Postgres { url: self.url.clone(), ..config::Postgres::default() }
    }

    pub(crate) fn timescale(&self) -> bool {
        self.postgres.has_timescaledb()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.database.batch_execute(sql).await.unwrap();
    }

    /// Seconds that it takes.
    pub(crate) async fn timed(&self, sql: &str) -> f64 {
        let start = Instant::now();
        self.execute(sql).await;
        start.elapsed().as_secs_f64()
    }

    /// The first column of every row as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let messages = self.database.simple_query(sql).await.unwrap();
        messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            })
            .collect()
    }

    /// One number; 0 for NULL.
    pub(crate) async fn number(&self, sql: &str) -> f64 {
        self.texts(sql).await.first().and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }

    /// Milliseconds that the session's process has run so far, by the kernel's count.
    pub(crate) fn processor_ms(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process)).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
    }

    /// Bytes of log written so far.
    pub(crate) async fn log_position(&self) -> f64 {
        self.number("SELECT pg_current_wal_insert_lsn() - '0/0'").await
    }
}
