//! Reading the store by its named queries, for `jetcopy query` and the API.
//!
//! Guarantees:
//! - It reads only, each query in a read-only transaction of its own: any server of the URL will do, a
//!   standby too.
//! - Sessions come from a pool and go back to it, also after an error; one whose answer nobody waits for any
//!   more leaves it, and its statement is cancelled ([`lease`]).
//! - A read that met a lost connection or an absent server is tried again until [`Options::patience`] is
//!   over.
//! - Every wait has an end: `connect_timeout` for a session, `step_timeout` for an answer, which the server
//!   keeps too.
//! - It works through a transaction pooler: a query is one round trip, and nothing of it stays in the
//!   session.
//! - An answer has no more rows and bytes than [`Bounds`] allow.
//!
//! Changes are no part of it: rows come by events, and what people delete is in [`super::delete`].
//!
//! - [`named`]: the one list of queries.
//! - [`call`]: a query with its arguments, from words.
//! - [`answer`]: rows as a table, JSON or CSV.
//!
//! ```no_run
//! use jetcopy::store::query::{Bounds, Options, Store, StoreError, call::Call};
//!
//! async fn show_projects(config: &jetcopy::config::Config) -> Result<(), StoreError> {
//!     let store = Store::open(&config.postgres, &Options::default())?;
//!     let call = Call::parse("find_projects", ["in_status=active"]).expect("the query takes this");
//!     println!("{}", store.ask(&call, &Bounds::default()).await?.json());
//!     Ok(())
//! }
//! ```

pub mod answer;
pub mod call;
mod error;
mod lease;
pub mod named;

use std::pin::pin;
use std::time::{Duration, Instant};

use deadpool::managed::{Pool, PoolError, TimeoutType};
use deadpool::{Runtime, Status};
use futures_util::TryStreamExt as _;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::config;
use crate::postgres::connect;
use crate::retry::Backoff;
use answer::Answer;
use call::Call;
use error::Refusal;
pub use error::StoreError;
use lease::{Lease, Sessions};

/// How the server knows the sessions, in `pg_stat_activity`.
const APPLICATION_NAME: &str = "jetcopy store";

/// Connections by default: a dashboard asks for some panels at a time, and the daemon needs its share of the
/// server's `max_connections`, 100 by default.
const CONNECTIONS: usize = 8;

/// How long a read waits by default for a connection that is free: as long as a step may take.
const WAIT: Duration = Duration::from_mins(1);

/// How long a read is tried by default: a failover takes some seconds on a good day, and people wait no
/// longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer the server lets a query run than the client waits: the client's end comes first, and tells
/// more.
const SERVER_GRACE: Duration = Duration::from_secs(1);

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at most.
    pub connections: usize,
    /// How long a read waits for one of them that is free.
    pub wait: Duration,
    /// How long a read goes on trying while the server is away.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: CONNECTIONS, wait: WAIT, patience: PATIENCE }
    }
}

/// What an answer may hold at most; by default there is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Rows; of more, these are answered, and [`Answer::truncated`] says so.
    pub rows: Option<usize>,
    /// Bytes as the server sends them; more are [`StoreError::TooLarge`].
    pub bytes: Option<usize>,
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
        let pool = Pool::builder(Sessions { postgres: config.clone() })
            .max_size(options.connections.max(1))
            .wait_timeout(Some(options.wait))
            .create_timeout(Some(longest))
            .recycle_timeout(Some(longest))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with a runtime can have timeouts");
        Ok(Self {
            pool,
            hosts,
            step_timeout: config.step_timeout,
            wait_timeout: options.wait,
            patience: options.patience,
        })
    }

    /// How many connections there are, how many of them are free, and how many callers wait for one.
    #[must_use]
    pub fn status(&self) -> Status {
        self.pool.status()
    }

    /// Runs a query.
    pub async fn ask(&self, call: &Call, bounds: &Bounds) -> Result<Answer, StoreError> {
        let mut sql = call.statement();
        if let Some(rows) = bounds.rows {
            // One more tells that there are more.
            sql = format!("{sql} LIMIT {}", rows.saturating_add(1));
        }
        let mut rows = self.read(&sql, &call.parameters(), bounds.bytes).await?;
        let most = bounds.rows.unwrap_or(usize::MAX);
        let truncated = rows.len() > most;
        rows.truncate(most);
        // A column that is of another type is one of another version's schema.
        Answer::new(&rows, truncated).map_err(StoreError::Outdated)
    }

    /// Asks, again where another attempt may go better.
    async fn read(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        bytes: Option<usize>,
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::unanswered();
        loop {
            match self.once(async |client| self.transaction(client, sql, parameters, bytes).await).await {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    tracing::debug!(%error, "retrying a read");
                    tokio::time::sleep(backoff.pause()).await;
                }
                answer => return answer,
            }
        }
    }

    /// The rows, or nothing where there are more bytes of them. All three statements go out before the first
    /// is answered.
    async fn transaction(
        &self,
        client: &Client,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        bytes: Option<usize>,
    ) -> Result<Vec<Row>, Refusal> {
        let most = bytes.unwrap_or(usize::MAX);
        let limit = (self.step_timeout + SERVER_GRACE).as_millis();
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}");
        let query = async {
            let parameters = parameters.iter().map(|(value, kind)| (*value, kind.clone()));
            let mut rows = pin!(client.query_typed_raw(sql, parameters).await?);
            let (mut all, mut size) = (Vec::new(), 0_usize);
            while let Some(row) = rows.try_next().await? {
                size = size.saturating_add(row.raw_size_bytes());
                if size > most {
                    return Err(Refusal::TooLarge(most));
                }
                all.push(row);
            }
            Ok(all)
        };
        let begin = async { client.batch_execute(&begin).await.map_err(Refusal::from) };
        let commit = async { client.batch_execute("COMMIT").await.map_err(Refusal::from) };
        // In this order they are sent. What fails ends the wait: the answers that are still to come are the
        // driver's to drop.
        let ((), rows, ()) = tokio::try_join!(biased; begin, query, commit)?;
        Ok(rows)
    }

    async fn once<T>(&self, ask: impl AsyncFnOnce(&Client) -> Result<T, Refusal>) -> Result<T, StoreError> {
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

#[cfg(test)]
mod tests;
