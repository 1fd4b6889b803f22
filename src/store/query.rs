//! Reading the store, and the changes to it that people make.
//!
//! Guarantees:
//! - Sessions come from a pool and go back to it, also after an error; one whose answer nobody waits for any more leaves it,
//!   and its statement is cancelled ([`lease`]).
//! - A read that met a lost connection or an absent server is tried again until [`Options::patience`] is over. A change never
//!   is: its first attempt may have been done.
//! - Every wait has an end: `connect_timeout` for a session, `step_timeout` for an answer.
//! - It works through a transaction pooler: a statement is one round trip, and nothing of it stays in the session.
//!
//! It reads one statement at a time: two reads may see the store at two times.
//!
//! - [`named`]: the one list of queries.
//! - [`call`]: a query with its arguments, also from words.
//! - [`frames`], [`measurements`], [`series`], [`registry`]: the typed methods of [`Store`].
//! - [`entity`]: projects, files and series metadata, as they are created, changed and deleted.
//! - [`record`]: rows as types.
//!
//! ```no_run
//! use jetcopy::store::query::{Options, Store, StoreError, registry::ProjectFilter};
//!
//! async fn list_projects(config: &jetcopy::config::Config) -> Result<(), StoreError> {
//!     let store = Store::open(&config.postgres, &Options::default())?;
//!     for project in store.find_projects(&ProjectFilter::default()).await? {
//!         println!("{} {:?}", project.id, project.size_bytes);
//!     }
//!     Ok(())
//! }
//! ```

pub mod call;
pub mod entity;
mod error;
pub mod frames;
mod lease;
pub mod measurements;
pub mod named;
pub mod record;
pub mod registry;
pub mod series;

use std::time::{Duration, Instant};

use deadpool::managed::{Pool, PoolError, TimeoutType};
use deadpool::{Runtime, Status};
use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::config;
use crate::postgres::connect;
use crate::retry::Backoff;
use call::Call;
pub use error::StoreError;
use lease::{Lease, Sessions};
use record::Record;

/// How the server knows the sessions, in `pg_stat_activity`.
const APPLICATION_NAME: &str = "jetcopy store";

/// Connections by default: a dashboard asks for some panels at a time, and the daemon needs its share of the server's
/// `max_connections`, 100 by default.
const CONNECTIONS: usize = 8;

/// How long a read is tried by default: a failover takes some seconds on a good day, and people wait no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// What for.
    pub access: Access,
    /// Connections at most.
    pub connections: usize,
    /// How long a read goes on trying while the server is away.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { access: Access::Write, connections: CONNECTIONS, patience: PATIENCE }
    }
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only: any server of the URL will do, a standby too.
    Read,
    /// Reading and changing: the primary.
    Write,
}

/// A span of time: `since` belongs to it, `until` does not. What is `None` is as the query has it by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub since: Option<Timestamp>,
    /// Its end.
    pub until: Option<Timestamp>,
}

/// The store of a database. Cloning it shares its connections.
#[derive(Clone)]
pub struct Store {
    pool: Pool<Sessions>,
    hosts: String,
    step_timeout: Duration,
    wait_timeout: Duration,
    patience: Duration,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Store")
            .field("hosts", &self.hosts)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store that connects when it is first asked. Must be called within a runtime of tokio.
    pub fn open(config: &config::Postgres, options: &Options) -> Result<Self, StoreError> {
        let connect::Reach { hosts, longest } = connect::reach(config, APPLICATION_NAME)?;
        let pool = Pool::builder(Sessions { postgres: config.clone(), access: options.access })
            .max_size(options.connections.max(1))
            .wait_timeout(Some(config.step_timeout))
            .create_timeout(Some(longest))
            .recycle_timeout(Some(longest))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with a runtime can have timeouts");
        Ok(Self {
            pool,
            hosts,
            step_timeout: config.step_timeout,
            wait_timeout: config.step_timeout,
            patience: options.patience,
        })
    }

    /// How many connections there are, how many of them are free, and how many callers wait for one.
    #[must_use]
    pub fn status(&self) -> Status {
        self.pool.status()
    }

    /// Runs a query and returns its rows as they are.
    pub async fn run(&self, call: &Call) -> Result<Vec<Row>, StoreError> {
        self.read(&call.statement(), &call.parameters()).await
    }

    /// Runs a query and returns its rows as records.
    pub(crate) async fn records<T: Record>(&self, call: &Call) -> Result<Vec<T>, StoreError> {
        records(&self.run(call).await?)
    }

    /// Asks a question that changes nothing, again where another attempt may go better.
    async fn read(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::unanswered();
        loop {
            match self.once(async |client| client.query_typed(sql, parameters).await).await {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    tracing::debug!(%error, "a read is tried again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                answer => return answer,
            }
        }
    }

    /// Makes a change, once; returns the rows that it returns.
    async fn change(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        self.once(async |client| client.query_typed(sql, parameters).await).await
    }

    async fn once<T>(
        &self,
        ask: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let connection = self.pool.get().await.map_err(|error| self.no_connection(error))?;
        let lease = Lease::new(connection);
        match tokio::time::timeout(self.step_timeout, lease.answer(ask)).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(_) => Err(StoreError::Timeout(self.step_timeout)),
        }
    }

    fn no_connection(&self, error: PoolError<connect::ConnectError>) -> StoreError {
        match error {
            PoolError::Backend(error) => StoreError::Connect(error),
            PoolError::Timeout(TimeoutType::Wait) => StoreError::Busy(self.wait_timeout),
            error @ (PoolError::Timeout(_)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_)) => StoreError::Connect(connect::ConnectError::Unreachable {
                host: self.hosts.clone(),
                source: error.into(),
            }),
        }
    }
}

fn records<T: Record>(rows: &[Row]) -> Result<Vec<T>, StoreError> {
    // A column that is missing or of another type is one of another version's schema.
    rows.iter().map(T::from_row).collect::<Result<_, _>>().map_err(StoreError::Outdated)
}

#[cfg(test)]
mod tests;
