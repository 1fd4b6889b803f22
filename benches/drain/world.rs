//! Private servers with durable commits, a database and a place for files.

use std::path::PathBuf;

use async_nats::jetstream;
use jetcopy::bench::Servers;
use jetcopy::bench::daemon::settings;
use jetcopy::testbed::{TestPostgres, connect};
use tokio_postgres::Client;

use super::frames::Target;

pub(crate) struct World {
    pub(crate) servers: Servers,
    pub(crate) database: Client,
    pub(crate) client: async_nats::Client,
}

impl World {
    pub(crate) async fn start(timescaledb: bool) -> Self {
        let servers = Servers::private(timescaledb).await.unwrap();
        Self {
            database: connect(&servers.postgres.url).await.unwrap(),
            client: async_nats::connect(&servers.nats.url).await.unwrap(),
            servers,
        }
    }

    fn postgres(&self) -> &TestPostgres {
        &self.servers.private.as_ref().unwrap().1
    }

    pub(crate) fn timescale(&self) -> bool {
        self.postgres().has_timescaledb()
    }

    pub(crate) async fn create_stream(&self, name: &str) {
        let config = jetstream::stream::Config { name: name.into(), ..Default::default() };
        jetstream::new(self.client.clone()).create_stream(config).await.unwrap();
    }

    /// A configuration with one pipeline, all at its defaults but the mapping.
    pub(crate) fn config(&self, target: Target) -> String {
        settings(&self.servers.nats, &self.servers.postgres) + &target.pipeline()
    }

    /// Where the server can write and read the rows of `table`.
    pub(crate) fn file(&self, table: &str) -> PathBuf {
        self.postgres().directory().join(format!("{table}.bin"))
    }

    /// The checkpoint of the pipeline that fills `target`.
    pub(crate) async fn checkpoint(&self, target: Target) -> u64 {
        let sql = "SELECT jetcopy.floor($1)";
        let row = self.database.query_one(sql, &[&target.name()]).await.unwrap();
        row.get::<_, Option<i64>>(0).map_or(0, |floor| u64::try_from(floor).unwrap())
    }

    /// Empty tables, no checkpoint, and nothing left to flush from before.
    pub(crate) async fn empty(&self, target: Target) {
        for table in target.tables() {
            self.execute(&format!("TRUNCATE {table}")).await;
        }
        self.execute("DELETE FROM jetcopy.checkpoints").await;
        self.execute("CHECKPOINT").await;
    }

    /// Bytes of write-ahead log since the server was made.
    pub(crate) async fn write_ahead_log(&self) -> f64 {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        self.database.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.database.batch_execute(sql).await.unwrap();
    }
}
