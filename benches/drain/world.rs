//! Private servers with durable commits, a database and a place for files.

use std::path::PathBuf;

use async_nats::jetstream;
use jetcopy::private::{NatsOptions, PostgresOptions, PrivateNats, PrivatePostgres, connect};
use tokio_postgres::Client;

/// Settings that a server for such a load would have, the same for both sides: no checkpoint in the middle of a run,
/// a table's worth of buffers, no vacuum that starts when it likes. Commit times are what the drain is timed by.
const SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "1h"),
    ("wal_compression", "off"),
    ("autovacuum", "off"),
    ("track_commit_timestamp", "on"),
];

pub(crate) struct World {
    pub(crate) postgres: PrivatePostgres,
    pub(crate) nats: PrivateNats,
    pub(crate) database: Client,
    pub(crate) database_url: String,
    pub(crate) client: async_nats::Client,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options =
            PostgresOptions { durable: true, timescaledb: false, settings, ..PostgresOptions::default() };
        let postgres = PrivatePostgres::start(&options).unwrap();
        let nats = PrivateNats::start(&NatsOptions::default()).unwrap();
        let database_url = postgres.create_database().await.unwrap();
        let config = jetcopy::config::Postgres { url: database_url.clone(), ..Default::default() };
        jetcopy::migrate::migrate(&config).await.unwrap();
        Self {
            database: connect(&database_url).await.unwrap(),
            database_url,
            client: async_nats::connect(nats.url()).await.unwrap(),
            postgres,
            nats,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn create_stream(&self, name: &str) {
        let config = jetstream::stream::Config {
            name: name.into(),
            subjects: vec![format!("{name}.>")],
            ..Default::default()
        };
        jetstream::new(self.client.clone()).create_stream(config).await.unwrap();
    }

    /// Writes a configuration: one pipeline from `stream` into `table`, all else at its default.
    pub(crate) fn config(&self, stream: &str, table: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{table}.toml"));
        let text = format!(
            r#"
            [nats]
            url = "{}"
            [postgres]
            url = "{}"
            [http]
            listen = "127.0.0.1:0"
            [log]
            level = "warn"
            [[pipeline]]
            name = "{table}"
            stream = "{stream}"
            format = "msgpack"
            [[pipeline.table]]
            name = "{table}"
            [pipeline.table.columns]
            time = {{ from = "timestamp", unit = "us" }}
            "#,
            self.nats.url(),
            self.database_url,
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The checkpoint of the pipeline that fills `table`.
    pub(crate) async fn checkpoint(&self, table: &str) -> u64 {
        let sql = "SELECT last_sequence FROM jetcopy.checkpoints WHERE shard = $1";
        let row = self.database.query_opt(sql, &[&table]).await.unwrap();
        row.map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap())
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.database.batch_execute(sql).await.unwrap();
    }
}
