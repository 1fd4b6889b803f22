//! A connection of the pool while a statement runs on it.
//!
//! Guarantees: a connection comes back to the pool only after its answer was read to the end. One whose answer nobody waits
//! for any more, since the future was dropped or took too long, leaves the pool: its place is free at once, the server is asked
//! to cancel the statement, and the connection ends.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio_postgres::{Client, error::Severity};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long the request to cancel may take: it is one connection and one packet, and without it the statement ends by
/// itself.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection of the pool while a statement runs on it.
pub(super) struct Lease {
    /// `None` once it went back.
    connection: Option<Object>,
    tls: MakeRustlsConnect,
}

impl Lease {
    pub(super) fn new(connection: Object, tls: MakeRustlsConnect) -> Self {
        Self { connection: Some(connection), tls }
    }

    /// Waits for an answer and gives the connection back, unless the answer says that it is of no use.
    pub(super) async fn answer<T>(
        mut self,
        ask: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, tokio_postgres::Error> {
        let client: &Client =
            self.connection.as_ref().expect("a lease holds its connection until it is answered");
        let answer = ask(client).await;
        let healthy = match &answer {
            Ok(_) => true,
            Err(error) => error.as_db_error().is_some_and(|error| {
                !matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
            }),
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
        let tls = self.tls.clone();
        runtime.spawn(async move {
            let token = connection.cancel_token();
            if tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await.is_err() {
                tracing::debug!("a statement that nobody waits for could not be cancelled in time");
            }
            // Held until here, so that the request meets this statement and no other.
            drop(connection);
        });
    }
}
