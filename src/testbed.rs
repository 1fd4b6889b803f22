//! Testbeds: NATS, PostgreSQL, PgBouncer and Prometheus servers, and Prometheus's exporters, that jetcopy
//! starts for tests, benches and `jetcopy demo`.
//!
//! Guarantees: a server listens on loopback only, on its own port, which it keeps across restarts, with its
//! data in its own directory; it has answered before `start` returns; it ends when its value is dropped, even
//! by a panic, and at the latest with this process, however that dies. A panicking test prints the end of the
//! server's log. Directories of killed processes are removed by the next start.
//!
//! It does not protect its servers: anyone who can reach loopback may connect without a password.
//!
//! Every call that starts or stops a server blocks for up to a few seconds; in async code other than tests,
//! call it from `spawn_blocking`.

mod account;
mod directory;
mod distance;
mod nats;
mod pgbouncer;
mod postgres;
mod process;
mod programs;
mod prometheus;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use account::{Need, leave_out, skip};
pub use distance::Distance;
pub use nats::{NatsOptions, TestNats};
pub use pgbouncer::TestPgBouncer;
pub use postgres::{Extension, PostgresOptions, TestPostgres, connect, stop_jobs};
pub use process::{Stop, spawn_tied};
pub use programs::{faketime, promtool};
pub use prometheus::{TestExporter, TestPrometheus};
pub use wire::Wire;

/// Why a testbed server is not available.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's program is not on this machine.
    #[error("{program} was not found: run `make setup`, or set {variable} to its path")]
    Missing {
        /// The program that was looked for.
        program: &'static str,
        /// The environment variable that names its place.
        variable: &'static str,
    },
    /// `JETCOPY_TIMESCALEDB` asks for what the server does not have, or says neither yes nor no.
    #[error("JETCOPY_TIMESCALEDB is {value:?}, but {reason}")]
    Switch {
        /// What the variable says.
        value: String,
        /// Why that cannot be done.
        reason: &'static str,
    },
    /// The program ran and ended, or did not get ready in time.
    #[error("{program} did not start; its log ends:\n{tail}")]
    NotReady {
        /// The program that was started.
        program: &'static str,
        /// The last lines of its log.
        tail: String,
    },
    /// A file or a process could not be handled.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: std::io::Error,
    },
    /// The testbed's PostgreSQL refused a statement.
    #[error("the testbed's PostgreSQL refused a statement")]
    Postgres(#[from] tokio_postgres::Error),
}

/// Names the action and the path of an input or output error.
fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

/// The value that `slot` holds while anybody uses it, else a new one.
fn shared<T>(slot: &Mutex<Weak<T>>, start: impl FnOnce() -> Result<T, Error>) -> Result<Arc<T>, Error> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = slot.upgrade() {
        return Ok(server);
    }
    let server = Arc::new(start()?);
    *slot = Arc::downgrade(&server);
    Ok(server)
}
