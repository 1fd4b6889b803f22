//! A connection of the pool while a statement runs on it.
//!
//! Guarantees: a connection comes back to the pool only after its answer was read to the end or refused by
//! the server. One whose answer nobody waits for any more, since the future was dropped or took too long,
//! leaves the pool: its place is free at once, the server is asked to cancel the statement, and the
//! connection ends.

use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use tokio::runtime::Handle;
use tokio_postgres::{Client, error::Severity};

use super::APPLICATION_NAME;
use super::error::Refusal;
use crate::config;
use crate::postgres::connect::{self, ConnectError, Session};

/// Makes the pool's sessions, as all others are made.
pub(super) struct Sessions {
    pub(super) postgres: config::Postgres,
}

impl Manager for Sessions {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        connect::connect_any(&self.postgres, APPLICATION_NAME).await
    }

    // A lost connection is found out by the read, which is tried again, and not by a round trip before each.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        if session.is_closed() { Err(RecycleError::message("the connection is lost")) } else { Ok(()) }
    }
}

/// A connection of the pool while a statement runs on it.
pub(super) struct Lease {
    /// `None` once it went back.
    connection: Option<Object<Sessions>>,
}

impl Lease {
    pub(super) fn new(connection: Object<Sessions>) -> Self {
        Self { connection: Some(connection) }
    }

    /// Waits for an answer and gives the connection back, unless the answer says that it is of no use.
    pub(super) async fn answer<T>(
        mut self,
        ask: impl AsyncFnOnce(&Client) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let session = self.connection.as_ref().expect("a lease holds its connection until it is answered");
        let answer = ask(&session.client).await;
        let healthy = match &answer {
            Ok(_) => true,
            Err(Refusal::Database(error)) => error.as_db_error().is_some_and(|error| {
                !matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
            }),
            // The rest of the answer is still on its way.
            Err(Refusal::TooLarge(_)) => false,
        };
        if healthy {
            drop(self.connection.take());
        }
        answer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let connection = Object::take(connection);
        let Ok(runtime) = Handle::try_current() else { return };
        if connection.is_closed() {
            return;
        }
        runtime.spawn(async move {
            // Held until it is answered, so that the request meets this statement and no other.
            connection.cancel().await;
        });
    }
}
