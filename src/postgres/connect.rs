//! Reaching a PostgreSQL server that takes writes, and noticing when it is gone.
//!
//! Guarantees:
//! - [`connect`] hands out a session on a writable server or says why there is none. Each address has
//!   `connect_timeout` (the URL's, else the setting's) for the whole attempt: name, TCP, TLS, password and the question
//!   whether it takes writes.
//! - A warning that a synchronous commit was cut short is seen before the reply of that `COMMIT`
//!   ([`Session::take_sync_wait_cancelled`]).
//! - No password reaches an error or a log.
//! - Nothing is sent at start but user, database, client encoding and application name (and `options`, where the URL
//!   has them), so PgBouncer takes it without `ignore_startup_parameters`. Only where the server would end an idle
//!   session, a second one is tried with that switched off (`idle.rs`).
//!
//! It does not reconnect, and it sets no session state: with a transaction pooler that would reach someone else.
//! `load_balance_hosts` has no effect: hosts are tried in the order of the URL, since only one of them takes writes.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{self, Verify};
use crate::postgres::sqlstate::{self, Decision, Step};
use crate::postgres::timeline::Newest;
use crate::postgres::tls;

mod error;
mod idle;
mod read_only;
mod session;
mod settings;

use error::Cause;
pub use error::ConnectError;
pub use session::Session;
pub(crate) use settings::{PoolSettings, pool_settings};
use settings::{Target, invalid_url, read_settings, single_host, targets};

/// Connects to the first host that takes writes, or to what `target_session_attrs` in the URL asks for.
pub async fn connect(config: &config::Postgres, application_name: &str) -> Result<Session, ConnectError> {
    connect_writer(config, application_name, None).await
}

/// As [`connect`], and passes over hosts whose history is older than the `newest` that was met before.
pub async fn connect_newest(
    config: &config::Postgres,
    application_name: &str,
    newest: &Newest,
) -> Result<Session, ConnectError> {
    connect_writer(config, application_name, Some(newest)).await
}

async fn connect_writer(
    config: &config::Postgres,
    application_name: &str,
    newest: Option<&Newest>,
) -> Result<Session, ConnectError> {
    let (mut driver_config, verify) = read_settings(config, application_name)?;
    if !config.url.contains("target_session_attrs") {
        driver_config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    connect_first(config, &driver_config, verify, newest).await
}

/// Connects to the first host that answers, also one that takes no writes: for looking only.
pub async fn connect_any(config: &config::Postgres, application_name: &str) -> Result<Session, ConnectError> {
    let (mut driver_config, verify) = read_settings(config, application_name)?;
    driver_config.target_session_attrs(TargetSessionAttrs::Any);
    connect_first(config, &driver_config, verify, None).await
}

async fn connect_first(
    config: &config::Postgres,
    driver_config: &tokio_postgres::Config,
    verify: Verify,
    newest: Option<&Newest>,
) -> Result<Session, ConnectError> {
    let mode = driver_config.get_ssl_mode();
    let connector = MakeRustlsConnect::new(tls::client_config(config.tls.as_ref(), mode, verify)?);
    let timeout = driver_config.get_connect_timeout().copied().unwrap_or(config.connect_timeout);
    let mut failure: Option<ConnectError> = None;
    let mut read_only = Vec::new();
    for target in targets(driver_config)? {
        let attempt = async {
            let session = connect_target(&target, driver_config, &connector, timeout).await?;
            let session = match newest {
                Some(newest) => admit(session, newest, timeout).await?,
                None => session,
            };
            Ok::<_, ConnectError>(idle::patient(session, &target, driver_config, &connector, timeout).await)
        };
        match attempt.await {
            Ok(session) => {
                tracing::debug!(host = session.host(), "connected to the database");
                return Ok(session);
            }
            Err(error) => {
                tracing::debug!(%error, cause = error.source(), "this host does not serve");
                if matches!(error, ConnectError::NotWritable { .. }) {
                    read_only.push(target);
                }
                if failure.as_ref().is_none_or(|known| known.rank() <= error.rank()) {
                    failure = Some(error);
                }
            }
        }
    }
    if matches!(failure, Some(ConnectError::NotWritable { .. })) {
        for target in &read_only {
            let Some(reason) = read_only::reason(target, driver_config, &connector, timeout).await else {
                continue;
            };
            let known = failure.as_ref().map_or(0, ConnectError::rank);
            if reason.rank() >= known {
                failure = Some(reason);
            }
        }
    }
    Err(failure.unwrap_or_else(|| invalid_url("it names no host")))
}

/// Tries every address of one host; each has `timeout` to itself.
async fn connect_target(
    target: &Target,
    driver_config: &tokio_postgres::Config,
    connector: &MakeRustlsConnect,
    timeout: Duration,
) -> Result<Session, ConnectError> {
    let host = target.label();
    let unreachable = |source: Cause| ConnectError::Unreachable { host: host.clone(), source };
    let addresses = match (&target.name, target.address) {
        (_, Some(address)) => vec![Some(address)],
        (Some(Host::Unix(_)) | None, None) => vec![None],
        (Some(Host::Tcp(name)), None) => {
            let found = tokio::time::timeout(timeout, tokio::net::lookup_host((name.as_str(), target.port)))
                .await
                .map_err(|_| unreachable(timed_out("the name was not resolved", timeout)))?
                .map_err(|error| unreachable(error.into()))?;
            found.map(|address| Some(address.ip())).collect()
        }
    };
    let mut failure = None;
    for address in addresses {
        let one = single_host(driver_config, target, address, timeout);
        let attempt = tokio::time::timeout(timeout, one.connect(connector.clone())).await;
        match attempt {
            Ok(Ok((client, connection))) => {
                return Ok(Session::start(client, connection, host, connector.clone()));
            }
            Ok(Err(error)) => failure = Some(classify(&host, error)),
            Err(_) => failure = Some(unreachable(timed_out("no session was established", timeout))),
        }
    }
    Err(failure.unwrap_or_else(|| unreachable("the name has no address".into())))
}

/// Hands the session on unless its server is one that a failover has replaced.
async fn admit(session: Session, newest: &Newest, timeout: Duration) -> Result<Session, ConnectError> {
    let host = session.host().to_owned();
    match tokio::time::timeout(timeout, newest.admit(&session.client)).await {
        Ok(Ok(true)) => Ok(session),
        Ok(Ok(false)) => Err(ConnectError::Superseded { host }),
        Ok(Err(error)) => Err(ConnectError::Unreachable { host, source: error.into() }),
        Err(_) => {
            Err(ConnectError::Unreachable { host, source: timed_out("its timeline was not told", timeout) })
        }
    }
}

fn timed_out(what: &str, timeout: Duration) -> Cause {
    let text = format!("{what} within {} (connect_timeout)", humantime::format_duration(timeout));
    io::Error::new(io::ErrorKind::TimedOut, text).into()
}

/// Sorts a failed attempt by what the caller does about it.
///
/// The driver keeps the kind of its errors to itself; three of them are known by their text alone. A test makes a real
/// server produce each, so that an update which rewords them does not go unseen.
pub(crate) fn classify(host: &str, error: tokio_postgres::Error) -> ConnectError {
    let host = host.to_owned();
    let text = error.to_string();
    if matches!(text.as_str(), "authentication error" | "invalid configuration") {
        let remedy = "check the password (password_file) and the method in pg_hba.conf".to_owned();
        return ConnectError::Refused { host, remedy, source: error };
    }
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() {
            return ConnectError::NotWritable { host, because: "" };
        }
        // A broken certificate is for a person; a connection that broke while the two shook hands is not.
        return if io.get_ref().is_some_and(<dyn StdError + Send + Sync>::is::<rustls::Error>) {
            ConnectError::Tls { host, source: error.into() }
        } else {
            ConnectError::Unreachable { host, source: error.into() }
        };
    }
    if text == "error performing TLS handshake" {
        return ConnectError::Tls { host, source: error.into() };
    }
    match sqlstate::decide(&error, Step::Connect) {
        Decision::Pause => ConnectError::Refused { host, remedy: sqlstate::remedy(&error), source: error },
        Decision::Retry
        | Decision::Reconnect
        | Decision::BackOff
        | Decision::SuspectRow
        | Decision::AddPartition
        | Decision::Merge => ConnectError::Unreachable { host, source: error.into() },
    }
}

#[cfg(test)]
mod tests;
