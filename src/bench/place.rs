//! Where a run takes place: streams, a schema with tables, and a daemon's configuration, all with unique
//! names.
//!
//! Guarantees: a run touches nothing whose name does not contain its id, and [`Names::remove`] removes all of
//! it, however much of it exists. What a killed run left behind, [`clean`] finds by the common prefix.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use async_nats::jetstream::{self, stream};
use futures_util::TryStreamExt as _;
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::daemon::settings;
use super::load::{COLUMNS, Shape};
use super::{Error, Plan, Servers};
use crate::nats::Connection;
use crate::postgres::connect::{self, Session};

/// How the servers know the sessions of a run.
pub const CLIENT_NAME: &str = "jetcopy bench";
/// What the names of schemas and pipelines begin with; those of streams do in capitals.
const PREFIX: &str = "jetcopy_bench_";

/// The names of one run.
#[derive(Debug, Clone)]
pub struct Names {
    id: String,
}

impl Default for Names {
    fn default() -> Self {
        // The standard library's own source of randomness.
        Self { id: format!("{:016x}", RandomState::new().build_hasher().finish()) }
    }
}

impl Names {
    /// The schema of the tables.
    #[must_use]
    pub fn schema(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// The table of a pipeline.
    #[must_use]
    pub fn table(&self, pipeline: usize) -> String {
        format!("{}.load_{pipeline}", self.schema())
    }

    /// The pipeline's name.
    #[must_use]
    pub fn pipeline(&self, pipeline: usize) -> String {
        format!("{}_{pipeline}", self.schema())
    }

    /// The stream of a pipeline.
    #[must_use]
    pub fn stream(&self, pipeline: usize) -> String {
        self.pipeline(pipeline).to_ascii_uppercase()
    }

    /// The one subject of the pipeline's stream.
    #[must_use]
    pub fn subject(&self, pipeline: usize) -> String {
        format!("{}.{pipeline}", self.schema())
    }

    /// Makes streams and tables.
    pub async fn create(&self, plan: &Plan, connection: &Connection, session: &Session) -> Result<(), Error> {
        let sql = "SELECT to_regclass('jetcopy.checkpoints') IS NOT NULL";
        let row = session
            .client
            .query_typed_one(sql, &[])
            .await
            .map_err(Error::database("look for the schema jetcopy"))?;
        if !row.try_get::<_, bool>(0).map_err(Error::database("look for the schema jetcopy"))? {
            return Err(Error::NotMigrated);
        }
        let mut sql = format!("CREATE SCHEMA {};\n", self.schema());
        for pipeline in 0..plan.pipelines {
            let table = self.table(pipeline);
            let _ = writeln!(sql, "CREATE TABLE {table} ({COLUMNS});");
            if plan.index {
                let _ = writeln!(sql, "CREATE INDEX ON {table} (seq);");
            }
            if plan.stored > 0 {
                // Below every sequence of the stream, and older than every message.
                let _ = writeln!(
                    sql,
                    "INSERT INTO {table} SELECT -n, now() - n * interval '1 ms', 'cam-' || n % 16, n % 1000,
                         repeat(md5(n::text), {}) FROM generate_series(1::int8, {}) AS n;",
                    plan.payload.div_ceil(64),
                    plan.stored
                );
            }
        }
        session.client.batch_execute(&sql).await.map_err(Error::database(
            "create the schema of the run (CREATE on the database is needed) and its tables",
        ))?;
        let jetstream = jetstream::new(connection.client.clone());
        for pipeline in 0..plan.pipelines {
            let config = stream::Config {
                name: self.stream(pipeline),
                subjects: vec![self.subject(pipeline)],
                ..Default::default()
            };
            jetstream
                .create_stream(config)
                .await
                .map_err(|error| Error::stream("create", self.stream(pipeline), error))?;
        }
        Ok(())
    }

    /// The configuration of the daemon that writes the streams to the tables.
    #[must_use]
    pub fn config(&self, plan: &Plan, shape: &Shape, servers: &Servers) -> String {
        let mut text = settings(&servers.nats, &servers.postgres);
        for pipeline in 0..plan.pipelines {
            let _ = write!(
                text,
                "[[pipeline]]\nname = \"{}\"\nstream = \"{}\"\nformat = \"msgpack\"\nwriters = {}\n{}",
                self.pipeline(pipeline),
                self.stream(pipeline),
                plan.writers,
                shape.mapping(&self.table(pipeline))
            );
        }
        text
    }

    /// Asks both servers again, since what ended the run may have been a connection.
    pub async fn remove(&self, servers: &Servers) -> Result<(), Error> {
        remove(servers, &self.schema()).await.map(drop)
    }
}

/// Removes what killed runs have left, and also what a running one needs. Returns the names.
pub async fn clean(servers: &Servers) -> Result<Vec<String>, Error> {
    remove(servers, PREFIX).await
}

/// Removes all whose name begins with `prefix`. What one server refuses does not keep the other from being
/// asked.
async fn remove(servers: &Servers, prefix: &str) -> Result<Vec<String>, Error> {
    let (tables, streams) = tokio::join!(remove_tables(servers, prefix), remove_streams(servers, prefix));
    let mut removed =
        streams.map_err(|error| Error::Remains { prefix: prefix.to_owned(), source: Box::new(error) })?;
    removed.extend(
        tables.map_err(|error| Error::Remains { prefix: prefix.to_owned(), source: Box::new(error) })?,
    );
    Ok(removed)
}

async fn remove_streams(servers: &Servers, prefix: &str) -> Result<Vec<String>, Error> {
    let connection = Connection::open(&servers.nats, CLIENT_NAME).await?;
    let jetstream = jetstream::new(connection.client);
    let prefix = prefix.to_ascii_uppercase();
    let all: Vec<String> = jetstream
        .stream_names()
        .try_collect()
        .await
        .map_err(|error| Error::stream("list", prefix.clone(), error))?;
    let mut removed = Vec::new();
    for name in all.into_iter().filter(|name| name.starts_with(&prefix)) {
        // The durable consumers go with it.
        jetstream.delete_stream(&name).await.map_err(|error| Error::stream("delete", name.clone(), error))?;
        removed.push(name);
    }
    Ok(removed)
}

async fn remove_tables(servers: &Servers, prefix: &str) -> Result<Vec<String>, Error> {
    let session = connect::connect(&servers.postgres, CLIENT_NAME).await?;
    let failed = Error::database("drop the schema of the run");
    let like = escape_literal(&format!("{}%", prefix.replace('_', "\\_")));
    let found = session
        .client
        .query_typed(
            &format!("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE {like} ORDER BY 1"),
            &[],
        )
        .await;
    let mut removed = Vec::new();
    for row in found.map_err(&failed)? {
        let name: String = row.try_get(0).map_err(&failed)?;
        let sql = format!("DROP SCHEMA {} CASCADE", escape_identifier(&name));
        session.client.batch_execute(&sql).await.map_err(&failed)?;
        removed.push(name);
    }
    let exists = "SELECT to_regclass('jetcopy.checkpoints') IS NOT NULL";
    let row = session.client.query_typed_one(exists, &[]).await.map_err(&failed)?;
    if row.try_get(0).map_err(&failed)? {
        let sql = [
            ("checkpoints", "pipeline"),
            ("dead_letters", "pipeline"),
            ("losses", "pipeline"),
            ("milestones", "shard"),
        ]
        .map(|(table, column)| format!("DELETE FROM jetcopy.{table} WHERE {column} LIKE {like}"));
        let failed = Error::database("delete the rows of the run from the schema jetcopy");
        session.client.batch_execute(&sql.join(";")).await.map_err(&failed)?;
    }
    session.close().await;
    Ok(removed)
}
