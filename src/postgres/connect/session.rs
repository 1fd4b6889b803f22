//! A connection, the task that drives it, and what the server says unasked.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};

use crate::postgres::timeline::History;
use crate::postgres::tls::Connector;

/// How long [`Session::close`] waits for the goodbye to leave: it is one small packet, and a server that does
/// not take it sees the closed socket instead.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the request to cancel a statement may take: one connection and one packet.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The C function in the server that waits for synchronous standbys. The field that carries it is not
/// translated, unlike the warning's text.
const SYNC_WAIT_ROUTINE: &str = "SyncRepWaitForLSN";

/// A connection and the task that drives it.
#[derive(Debug)]
pub struct Session {
    /// The client. Replace the whole session where it fails.
    pub client: Client,
    host: String,
    tls: Connector,
    transport: Transport,
    server_version: u32,
    took: Duration,
    history: Option<History>,
    sync_wait_cancelled: Arc<AtomicBool>,
    warnings_matter: Arc<AtomicBool>,
    driver_runs: watch::Receiver<()>,
    driver: Driver,
}

/// How a session is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It does not leave this machine.
    Local,
    /// Encrypted, and an authority vouches for the other side.
    Verified,
    /// Encrypted, with whoever answers.
    Unverified,
    /// In plain text.
    Plain,
}

/// The driving task, which ends with its owner: dropping the client alone does not end it while replies are
/// due.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Starts the task that drives `connection`.
    pub(super) fn start<S>(
        client: Client,
        connection: Connection<Socket, S>,
        host: String,
        tls: Connector,
        transport: Transport,
        took: Duration,
    ) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let sync_wait_cancelled = Arc::new(AtomicBool::new(false));
        let server_version = connection.parameter("server_version").map_or(0, major_version);
        let (runs, driver_runs) = watch::channel(());
        let cancelled = Arc::clone(&sync_wait_cancelled);
        let warnings_matter = Arc::new(AtomicBool::new(false));
        let shown = Arc::clone(&warnings_matter);
        let driver = Driver(tokio::spawn(async move {
            // Dropped when the task ends, by itself or aborted: that is what `closed` waits for.
            let _runs = runs;
            poll_messages(connection, &cancelled, &shown).await;
        }));
        Self {
            client,
            host,
            tls,
            transport,
            server_version,
            took,
            history: None,
            sync_wait_cancelled,
            warnings_matter,
            driver_runs,
            driver,
        }
    }

    /// Host and port that answered.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How long the login took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The history that its server writes on, where it was asked and tells.
    #[must_use]
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// The same session, whose server was asked for its history.
    pub(super) fn on(self, history: Option<History>) -> Self {
        Self { history, ..self }
    }

    /// How it is reached.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Asks the server to end the statement that runs; it fails with 57014, if it was still running.
    pub async fn cancel(&self) {
        let token = self.client.cancel_token();
        match timeout(CANCEL_TIMEOUT, token.cancel_query(self.tls.clone())).await {
            Ok(Ok(())) => {}
            // The statement ends by itself, or with its connection.
            Ok(Err(error)) => tracing::debug!(%error, "a statement could not be cancelled"),
            Err(_) => tracing::debug!("a statement could not be cancelled in time"),
        }
    }

    /// The server's major version, 0 where it is unknown.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Whether a wait for synchronous replication was cancelled since the last call: a `COMMIT` in between
    /// answered Ok, but a failover may lose it, so it counts as not committed.
    #[must_use]
    pub fn take_sync_wait_cancelled(&self) -> bool {
        self.sync_wait_cancelled.swap(false, Ordering::AcqRel)
    }

    /// Lets the server's warnings be logged as such from now on, where a person should see them.
    pub fn show_warnings(&self) {
        self.warnings_matter.store(true, Ordering::Release);
    }

    /// Whether the connection is known to be gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Resolves when the connection is gone, also while nothing is asked of it. It borrows nothing.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut runs = self.driver_runs.clone();
        // The driver never sends; its end drops the sender, which is the one thing that can happen here.
        async move { while runs.changed().await.is_ok() {} }
    }

    /// Says goodbye, which spares the server a line about a lost client. Dropping the session is enough
    /// otherwise.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        if tokio::time::timeout(CLOSE_TIMEOUT, &mut driver.0).await.is_err() {
            tracing::debug!("the database connection did not close in time and was dropped");
        }
    }
}

/// Of `15.20 (Debian 15.20-0+deb12u1)` or `18beta1`.
fn major_version(version: &str) -> u32 {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

async fn poll_messages<S>(
    connection: Connection<Socket, S>,
    sync_wait_cancelled: &AtomicBool,
    warnings_matter: &AtomicBool,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    loop {
        match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            // The driver hands out a notice before it reads what follows, so this flag stands before the
            // client sees the reply.
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if is_cancelled_sync_wait(&notice) {
                    sync_wait_cancelled.store(true, Ordering::Release);
                    tracing::warn!(notice = notice.message(), "a synchronous commit was cut short");
                } else if warnings_matter.load(Ordering::Acquire)
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    tracing::warn!("{}", notice.message());
                } else {
                    tracing::debug!(sqlstate = notice.code().code(), notice = notice.message(), "notice");
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, cause = error.source(), "the database connection is lost");
                return;
            }
            None => return,
        }
    }
}

fn is_cancelled_sync_wait(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning)
        && (notice.routine() == Some(SYNC_WAIT_ROUTINE)
            || notice.message().contains("wait for synchronous replication"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_what_a_version_begins_with() {
        assert_eq!(major_version("15.20 (Debian 15.20-0+deb12u1)"), 15);
        assert_eq!(major_version("18beta1"), 18);
        assert_eq!(major_version("EnterpriseDB"), 0);
    }
}
