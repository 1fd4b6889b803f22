//! Each query of the store answers the same on plain PostgreSQL and with TimescaleDB.

mod answers;
mod plans;
mod pool;
mod registry;
mod tallies;

use std::sync::Arc;

use serde_json::Value as Json;

use super::*;
use crate::migrate::migrate;
use crate::testbed::{Need, PostgresOptions, TestPostgres, connect, leave_out, stop_jobs};

/// A migrated database with and without TimescaleDB, as far as the server offers both.
struct World {
    /// Which of the two, for messages.
    name: &'static str,
    url: String,
    store: Store,
    database: Client,
    _server: Arc<TestPostgres>,
}

fn settings(url: &str) -> config::Postgres {
    config::Postgres { url: url.to_owned(), ..config::Postgres::default() }
}

impl World {
    async fn on(name: &'static str, server: Arc<TestPostgres>) -> Self {
        let url = server.create_database().await.unwrap();
        migrate(&settings(&url)).await.unwrap();
        let store = Store::open(&settings(&url), &Options::default()).unwrap();
        let database = connect(&url).await.unwrap();
        Self { name, url, store, database, _server: server }
    }

    /// On the server that tests share.
    async fn shared() -> Self {
        Self::on("shared", TestPostgres::shared().unwrap()).await
    }

    async fn both() -> Vec<Self> {
        let mut worlds = vec![Self::on("plain", TestPostgres::shared_plain().unwrap()).await];
        let shared = TestPostgres::shared().unwrap();
        if shared.has_timescaledb() {
            worlds.push(Self::on("TimescaleDB", shared).await);
        } else {
            leave_out(Need::TimescaleDb, "the same on TimescaleDB");
        }
        worlds
    }

    /// The rows that a query answers, as JSON shows them.
    async fn ask(&self, query: &str, words: &[&str]) -> Vec<Json> {
        let call = Call::parse(query, words.iter().copied()).unwrap();
        let answer = self.store.ask(&call, &Bounds::default()).await.unwrap();
        serde_json::from_str(&answer.json()).unwrap()
    }

    /// Some columns of those rows.
    async fn pick<const N: usize>(&self, columns: [&str; N], query: &str, words: &[&str]) -> Vec<[Json; N]> {
        let rows = self.ask(query, words).await;
        rows.iter().map(|row| columns.map(|column| row[column].clone())).collect()
    }

    async fn execute(&self, sql: &str) {
        self.database.batch_execute(sql).await.unwrap();
    }

    /// Gives the tables the life cycle that they have by default, whose jobs do not run: one might compress a
    /// chunk that a test is about to compress.
    async fn apply_life_cycle(&self) {
        stop_jobs(&self.database).await.unwrap();
        crate::store::timescale::apply(&settings(&self.url)).await.unwrap();
    }

    /// Compresses all chunks but those of today.
    async fn compress(&self) {
        self.execute(
            "SELECT compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass)
             FROM timescaledb_information.chunks WHERE range_end < now() AND hypertable_schema = 'public'",
        )
        .await;
    }

    /// Makes room for rows of the last `days` days, as the daemon does on demand.
    async fn past_days(&self, days: i32) {
        self.execute(&format!(
            "SELECT jetcopy.add_partitions(c.oid::regclass,
                ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(0, {days}) n))
             FROM pg_class c WHERE relkind = 'p' AND relnamespace = 'public'::regnamespace"
        ))
        .await;
    }
}
