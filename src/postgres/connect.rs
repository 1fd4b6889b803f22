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
//!   has them), so PgBouncer takes it without `ignore_startup_parameters`.
//!
//! It does not reconnect, and it sets no session state: with a transaction pooler that would reach someone else.
//! `load_balance_hosts` has no effect: hosts are tried in the order of the URL, since only one of them takes writes.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{self, Verify, parse_postgres_url};
use crate::postgres::sqlstate::{self, Decision, Step};
use crate::postgres::timeline::Newest;
use crate::postgres::tls;

mod error;

use error::Cause;
pub use error::ConnectError;

/// Idle time before the first keepalive probe. The kernel's two hours would hide a dead primary from an idle pipeline
/// for as long; stateful firewalls forget idle connections after a few minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Time between probes. Three of them fit between the first probe and [`TCP_USER_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Unanswered probes that end a connection, where the kernel does not know `TCP_USER_TIMEOUT`.
const KEEPALIVE_RETRIES: u32 = 4;

/// How long sent bytes may stay unacknowledged. Linux also ends an idle connection by it, in place of the count of
/// probes. Patroni's default time to live for a leader is 30 s: by then there may be another primary.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What tokio-postgres has where the URL says nothing.
const DRIVER_KEEPALIVE_IDLE: Duration = Duration::from_hours(2);

/// How long [`Session::close`] waits for the goodbye to leave: it is one small packet, and a server that does not take
/// it sees the closed socket instead.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The C function in the server that waits for synchronous standbys. The field that carries it is not translated,
/// unlike the warning's text.
const SYNC_WAIT_ROUTINE: &str = "SyncRepWaitForLSN";

/// The URL's options, for the error that says which there are.
const URL_OPTIONS: &str = "user, password, dbname, host, hostaddr, port, sslmode, sslnegotiation, channel_binding, \
     target_session_attrs, application_name, options, connect_timeout, tcp_user_timeout, keepalives, keepalives_idle, \
     keepalives_interval, keepalives_retries";

/// A connection and the task that drives it.
#[derive(Debug)]
pub struct Session {
    /// The client. Replace the whole session where it fails.
    pub client: Client,
    host: String,
    sync_wait_cancelled: Arc<AtomicBool>,
    warnings_matter: Arc<AtomicBool>,
    driver_runs: watch::Receiver<()>,
    driver: Driver,
}

/// The driving task, which ends with its owner: dropping the client alone does not end it while replies are due.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Host and port that answered.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether a wait for synchronous replication was cancelled since the last call: a `COMMIT` in between answered
    /// Ok, but a failover may lose it, so it counts as not committed.
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

    /// Says goodbye, which spares the server a line about a lost client. Dropping the session is enough otherwise.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        if tokio::time::timeout(CLOSE_TIMEOUT, &mut driver.0).await.is_err() {
            tracing::debug!("the database connection did not close in time and is dropped");
        }
    }
}

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
    for target in targets(driver_config)? {
        let attempt = async {
            let session = connect_target(&target, driver_config, &connector, timeout).await?;
            match newest {
                Some(newest) => admit(session, newest, timeout).await,
                None => Ok(session),
            }
        };
        match attempt.await {
            Ok(session) => {
                tracing::debug!(host = session.host, "connected to the database");
                return Ok(session);
            }
            Err(error) => {
                tracing::debug!(%error, cause = error.source(), "this host does not serve");
                if failure.as_ref().is_none_or(|known| known.rank() <= error.rank()) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| invalid_url("it names no host")))
}

/// One entry of the URL's host list.
struct Target {
    name: Option<Host>,
    address: Option<std::net::IpAddr>,
    port: u16,
}

impl Target {
    /// For people and logs.
    fn label(&self) -> String {
        match (&self.name, self.address) {
            (Some(Host::Tcp(name)), _) => format!("{name}:{}", self.port),
            (Some(Host::Unix(path)), _) => format!("{}:{}", path.display(), self.port),
            (None, Some(address)) => format!("{address}:{}", self.port),
            (None, None) => format!(":{}", self.port),
        }
    }
}

fn targets(driver_config: &tokio_postgres::Config) -> Result<Vec<Target>, ConnectError> {
    let (names, addresses, ports) =
        (driver_config.get_hosts(), driver_config.get_hostaddrs(), driver_config.get_ports());
    let count = names.len().max(addresses.len());
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(invalid_url("host and hostaddr must list the same number of hosts"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(invalid_url("port must list one port, or one for each host"));
    }
    Ok((0..count)
        .map(|index| Target {
            name: names.get(index).cloned(),
            address: addresses.get(index).copied(),
            port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
        })
        .collect())
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
            Ok(Ok((client, connection))) => return Ok(drive(client, connection, host)),
            Ok(Err(error)) => failure = Some(classify(&host, error)),
            Err(_) => failure = Some(unreachable(timed_out("no session was established", timeout))),
        }
    }
    Err(failure.unwrap_or_else(|| unreachable("the name has no address".into())))
}

/// Hands the session on unless its server is one that a failover has replaced.
async fn admit(session: Session, newest: &Newest, timeout: Duration) -> Result<Session, ConnectError> {
    let host = session.host.clone();
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

/// The same settings for one address. The driver has no way to replace a host, only to add one.
fn single_host(
    all: &tokio_postgres::Config,
    target: &Target,
    address: Option<std::net::IpAddr>,
    timeout: Duration,
) -> tokio_postgres::Config {
    let mut one = tokio_postgres::Config::new();
    match &target.name {
        Some(Host::Tcp(name)) => drop(one.host(name)),
        Some(Host::Unix(path)) => drop(one.host_path(path)),
        None => {}
    }
    if let Some(address) = address {
        one.hostaddr(address);
    }
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(name) = all.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    one.port(target.port)
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs());
    watch_over(&mut one, all, timeout);
    one
}

/// Sets what notices a server that is gone, as the URL has it or else as this file does.
fn watch_over(one: &mut tokio_postgres::Config, url: &tokio_postgres::Config, timeout: Duration) {
    let idle = url.get_keepalives_idle();
    one.connect_timeout(timeout)
        .tcp_user_timeout(url.get_tcp_user_timeout().copied().unwrap_or(TCP_USER_TIMEOUT))
        .keepalives(url.get_keepalives())
        .keepalives_idle(if idle == DRIVER_KEEPALIVE_IDLE { KEEPALIVE_IDLE } else { idle })
        .keepalives_interval(url.get_keepalives_interval().unwrap_or(KEEPALIVE_INTERVAL))
        .keepalives_retries(url.get_keepalives_retries().unwrap_or(KEEPALIVE_RETRIES));
}

/// What a pool needs to make its own sessions.
pub(crate) struct PoolSettings {
    /// For the driver, which tries the hosts in order itself.
    pub(crate) driver: tokio_postgres::Config,
    /// For TLS.
    pub(crate) tls: MakeRustlsConnect,
    /// The hosts, for people.
    pub(crate) hosts: String,
    /// How long it may take over all hosts.
    pub(crate) connect_timeout: Duration,
}

/// The settings of a pool whose sessions are on a server that takes writes, or on any.
pub(crate) fn pool_settings(
    config: &config::Postgres,
    application_name: &str,
    writable: bool,
) -> Result<PoolSettings, ConnectError> {
    let (url, verify) = read_settings(config, application_name)?;
    let hosts = targets(&url)?;
    if hosts.is_empty() {
        return Err(invalid_url("it names no host"));
    }
    let timeout = url.get_connect_timeout().copied().unwrap_or(config.connect_timeout);
    let mut driver = url.clone();
    watch_over(&mut driver, &url, timeout);
    if !writable {
        driver.target_session_attrs(TargetSessionAttrs::Any);
    } else if !config.url.contains("target_session_attrs") {
        driver.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let mode = driver.get_ssl_mode();
    let tls = MakeRustlsConnect::new(tls::client_config(config.tls.as_ref(), mode, verify)?);
    let connect_timeout = timeout.saturating_mul(u32::try_from(hosts.len()).unwrap_or(u32::MAX));
    let hosts = hosts.iter().map(Target::label).collect::<Vec<_>>().join(", ");
    Ok(PoolSettings { driver, tls, hosts, connect_timeout })
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
            return ConnectError::NotWritable { host };
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
        | Decision::PoisonRow
        | Decision::AddPartition
        | Decision::Merge => ConnectError::Unreachable { host, source: error.into() },
    }
}

fn invalid_url(problem: &str) -> ConnectError {
    ConnectError::Config { setting: "url", problem: problem.to_owned(), source: None }
}

/// Reads the URL and the password file.
fn read_settings(
    config: &config::Postgres,
    application_name: &str,
) -> Result<(tokio_postgres::Config, Verify), ConnectError> {
    // The parser's own error can hold a piece of a password that was not percent-encoded, so it is not passed on.
    let (mut parsed, verify) = parse_postgres_url(&config.url).map_err(|_| {
        invalid_url(&format!(
            "not a connection string; percent-encode special characters of user and password, and use no options but \
             {URL_OPTIONS}"
        ))
    })?;
    if let Some(path) = &config.password_file {
        parsed.password(read_password(path)?);
    }
    parsed.application_name(application_name);
    Ok((parsed, verify))
}

fn read_password(path: &Path) -> Result<String, ConnectError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConnectError::Config {
        setting: "password_file",
        problem: format!("{} cannot be read", path.display()),
        source: Some(error.into()),
    })?;
    // Editors end a file with a line break; a password that ends in one is not to be had from a file.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Starts the task that drives `connection`.
fn drive<S>(client: Client, connection: Connection<Socket, S>, host: String) -> Session
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let sync_wait_cancelled = Arc::new(AtomicBool::new(false));
    let (runs, driver_runs) = watch::channel(());
    let cancelled = Arc::clone(&sync_wait_cancelled);
    let warnings_matter = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&warnings_matter);
    let driver = Driver(tokio::spawn(async move {
        // Dropped when the task ends, by itself or aborted: that is what `closed` waits for.
        let _runs = runs;
        poll_messages(connection, &cancelled, &shown).await;
    }));
    Session { client, host, sync_wait_cancelled, warnings_matter, driver_runs, driver }
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
            // The driver hands out a notice before it reads what follows, so this flag stands before the client sees
            // the reply.
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
mod tests;
