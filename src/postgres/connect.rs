//! Reaching a PostgreSQL server that takes writes, and noticing when it is gone.
//!
//! Guarantees:
//! - [`connect`] hands out a session on a writable server or says why there is none. Each attempt at an
//!   address has `connect_timeout` (the URL's, else the setting's): TCP, TLS and password, and again for the
//!   name and for the question whether the server takes writes. An address costs two attempts at most, one
//!   with TLS and one without it.
//! - A warning that a synchronous commit was cut short is seen before the reply of that `COMMIT`
//!   ([`Session::take_sync_wait_cancelled`]).
//! - No password reaches an error or a log.
//! - `sslmode` is libpq's: with `prefer`, a server that offers TLS and does not come to terms in it, or lets
//!   the role in only without it, is asked again in plain text; with `allow` the other way round.
//! - Nothing is sent at start but user, database, client encoding and application name (and `options`, where
//!   the URL has them), so PgBouncer takes it without `ignore_startup_parameters`. Only where the server
//!   would end an idle session, a second one is tried with that switched off (`idle.rs`).
//!
//! It does not reconnect, and it sets no session state: with a transaction pooler that would reach someone
//! else. `load_balance_hosts` has no effect, since only one of the hosts takes writes: the first of the URL
//! has a head start, then all are asked at once (`race.rs`).

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio_postgres::config::SslMode as DriverMode;

use crate::config::{self, HostInfo, SessionAttrs, SslMode};
use crate::postgres::sqlstate::{self, Decision, Step};
use crate::postgres::timeline::{self, History, Newest};

mod direct;
mod error;
mod idle;
mod race;
mod read_only;
mod session;
mod settings;

use error::Cause;
pub use error::ConnectError;
use race::first;
pub use session::{Session, Transport};
use settings::{Purpose, Route};
pub(crate) use settings::{Reach, reach};

/// Connects to the first host that takes writes, or to any if `target_session_attrs=any` in the URL asks for
/// it.
pub async fn connect(config: &config::Postgres, application_name: &str) -> Result<Session, ConnectError> {
    let route = Route::new(config, application_name)?;
    first(&route, Purpose::Write, None, race::HEAD_START).await
}

/// As [`connect`], and passes over hosts whose history is older than the `newest` that is known. All are
/// asked at once.
pub(super) async fn connect_newest(
    config: &config::Postgres,
    application_name: &str,
    newest: &Newest,
) -> Result<Session, ConnectError> {
    let route = Route::new(config, application_name)?;
    first(&route, Purpose::Write, Some(newest), Duration::ZERO).await
}

/// The same with one host of the URL alone, where it still is one; `None` where it is none.
pub(super) async fn connect_to(
    config: &config::Postgres,
    application_name: &str,
    newest: &Newest,
    label: &str,
) -> Option<Result<Session, ConnectError>> {
    let route = match Route::new(config, application_name) {
        Ok(route) => route,
        Err(error) => return Some(Err(error)),
    };
    let host = route.info.hosts.iter().find(|host| host.label() == label)?;
    let &wanted = match route.wanted(Purpose::Write) {
        Ok(wanted) => wanted.first()?,
        Err(error) => return Some(Err(error)),
    };
    Some(attend(&route, host, wanted, Some(newest)).await)
}

/// Whether a host of the URL answers whoever comes within `limit`, whatever it says. One that is no longer
/// named, or cannot be asked, counts as one that does.
pub(super) async fn answers(config: &config::Postgres, label: &str, limit: Duration) -> bool {
    let Ok(route) = Route::new(config, KNOCK) else { return true };
    let Some(host) = route.info.hosts.iter().find(|host| host.label() == label) else { return true };
    let options = route.info.options.as_deref();
    let Ok(session) = tokio::time::timeout(limit, connect_host(&route, host, options)).await else {
        return false;
    };
    if let Ok(session) = session {
        session.close().await;
    }
    true
}

/// How the server knows a session that only asks whether it answers.
const KNOCK: &str = "jetcopy knock";

/// Connects to the first host that answers, also one that takes no writes: for looking only. Where the URL
/// asks for a standby, it is one.
pub async fn connect_any(config: &config::Postgres, application_name: &str) -> Result<Session, ConnectError> {
    first(&Route::new(config, application_name)?, Purpose::Look, None, race::HEAD_START).await
}

/// A session on a host, where it serves.
async fn attend(
    route: &Route,
    host: &HostInfo,
    wanted: SessionAttrs,
    newest: Option<&Newest>,
) -> Result<Session, ConnectError> {
    let session = connect_host(route, host, route.info.options.as_deref()).await?;
    let session = serves(session, wanted, newest, route.timeout).await?;
    let session = match newest {
        Some(newest) => admit(session, newest, route.timeout).await?,
        None => session,
    };
    let patient = idle::patient(session, host, route).await;
    tracing::debug!(host = patient.host(), "connected to the database");
    Ok(patient)
}

/// Tries every address of one host.
async fn connect_host(
    route: &Route,
    host: &HostInfo,
    options: Option<&str>,
) -> Result<Session, ConnectError> {
    let label = host.label();
    let unreachable = |source: Cause| ConnectError::Unreachable { host: label.clone(), source };
    let addresses = match (&host.name, host.address) {
        (_, Some(address)) => vec![Some(address)],
        (Some(name), None) if !host.is_socket() => {
            let found =
                tokio::time::timeout(route.timeout, tokio::net::lookup_host((name.as_str(), host.port)))
                    .await
                    .map_err(|_| unreachable(timed_out("no answer from DNS", route.timeout)))?
                    .map_err(|error| unreachable(error.into()))?;
            found.map(|address| Some(address.ip())).collect()
        }
        (_, None) => vec![None],
    };
    let mut failure = None;
    for address in addresses {
        match connect_address(route, host, address, options).await {
            Ok(session) => return Ok(session),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| unreachable("the name has no address".into())))
}

/// Tries one address as `sslmode` says: with TLS, without it, or with the one after the other.
async fn connect_address(
    route: &Route,
    host: &HostInfo,
    address: Option<IpAddr>,
    options: Option<&str>,
) -> Result<Session, ConnectError> {
    let (first, second) = match route.tls.mode() {
        // TLS is for TCP alone.
        _ if address.is_none() => (DriverMode::Disable, None),
        SslMode::Disable => (DriverMode::Disable, None),
        SslMode::Allow => (DriverMode::Disable, Some(DriverMode::Require)),
        SslMode::Prefer => (DriverMode::Prefer, Some(DriverMode::Disable)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (DriverMode::Require, None),
    };
    let attempt = |mode| attempt(route, host, address, mode, options);
    let Attempt { outcome, otherwise } = attempt(first).await;
    let (error, second) = match (outcome, second) {
        (Err(error), Some(second)) if otherwise => (error, second),
        (outcome, _) => return outcome,
    };
    tracing::debug!(%error, cause = error.source(), "trying the alternative that sslmode allows");
    match attempt(second).await.outcome {
        Ok(session) => Ok(session),
        // What was said over TLS tells more than what was said without it.
        Err(refused @ ConnectError::Refused { .. }) if second == DriverMode::Require => Err(refused),
        Err(_) => Err(error),
    }
}

/// How an attempt went.
struct Attempt {
    outcome: Result<Session, ConnectError>,
    /// Whether it may go better the other way, with TLS or without it.
    otherwise: bool,
}

async fn attempt(
    route: &Route,
    host: &HostInfo,
    address: Option<IpAddr>,
    mode: DriverMode,
    options: Option<&str>,
) -> Attempt {
    let label = host.label();
    let tls = route.tls.attempt();
    let connecting = route.driver(host, address, mode, options);
    let started = Instant::now();
    // On the heap: with TLS, it is of some 16 KiB.
    let connecting = Box::pin(connecting.connect(tls.clone()));
    match tokio::time::timeout(route.timeout, connecting).await {
        Ok(Ok((client, connection))) => {
            let transport = match address {
                None => Transport::Local,
                Some(_) if tls.is_used() && tls.verifies() => Transport::Verified,
                Some(address) if address.to_canonical().is_loopback() => Transport::Local,
                Some(_) if tls.is_used() => Transport::Unverified,
                Some(_) => Transport::Plain,
            };
            let session = Session::start(client, connection, label, tls, transport, started.elapsed());
            Attempt { outcome: Ok(session), otherwise: false }
        }
        Ok(Err(error)) => {
            let broken = error.to_string() == HANDSHAKE;
            let login = error.code().is_some_and(|code| code.code().starts_with(LOGIN_CLASS));
            // A login that was refused in plain text, as the server has none, is refused once more.
            let otherwise = broken || login && (mode == DriverMode::Disable || tls.is_used());
            let complaint = tls.complaint();
            Attempt { outcome: Err(classify(&label, error, complaint)), otherwise }
        }
        Err(_) => {
            let source = timed_out("no session was established", route.timeout);
            Attempt { outcome: Err(ConnectError::Unreachable { host: label, source }), otherwise: false }
        }
    }
}

/// What the driver says of a failed handshake, and of a server without TLS where it is required.
const HANDSHAKE: &str = "error performing TLS handshake";

/// The class of SQLSTATE in which a server says that it does not let somebody in.
const LOGIN_CLASS: &str = "28";

/// Whether the server takes writes and whether it is a standby.
const ASK: &str =
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";

/// Hands the session on if its server is one that is wanted.
async fn serves(
    session: Session,
    wanted: SessionAttrs,
    newest: Option<&Newest>,
    timeout: Duration,
) -> Result<Session, ConnectError> {
    if wanted == SessionAttrs::Any {
        return Ok(session);
    }
    let host = session.host().to_owned();
    let asked = async {
        let row = session.client.query_typed_one(ASK, &[]).await?;
        Ok::<_, tokio_postgres::Error>((row.try_get::<_, bool>(0)?, row.try_get::<_, &str>(1)? == "on"))
    };
    let (standby, read_only) = match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(classify(&host, error, None)),
        Err(_) => {
            let source = timed_out("it did not say whether it accepts writes", timeout);
            return Err(ConnectError::Unreachable { host, source });
        }
    };
    let other = |what| Err(ConnectError::Unreachable { host: host.clone(), source: Cause::from(what) });
    match wanted {
        SessionAttrs::Standby if !standby => {
            other("it is not a standby, which target_session_attrs requires")
        }
        SessionAttrs::ReadOnly if !read_only => {
            other("it accepts writes, but target_session_attrs=read-only")
        }
        SessionAttrs::ReadWrite if read_only => {
            let reason = if standby { None } else { read_only::reason(&session, timeout).await };
            match reason {
                Some(reason) => Err(reason),
                None => Err(not_writable(&session, newest, timeout).await),
            }
        }
        SessionAttrs::Primary if standby => Err(not_writable(&session, newest, timeout).await),
        SessionAttrs::Any
        | SessionAttrs::ReadWrite
        | SessionAttrs::ReadOnly
        | SessionAttrs::Primary
        | SessionAttrs::Standby
        | SessionAttrs::PreferStandby => Ok(session),
    }
}

/// A standby, and what it follows where that may matter.
async fn not_writable(session: &Session, newest: Option<&Newest>, timeout: Duration) -> ConnectError {
    let history = match newest.and_then(Newest::get) {
        Some(_) => tokio::time::timeout(timeout, timeline::history(&session.client)).await,
        None => Ok(Ok(None)),
    };
    let history = history.ok().and_then(Result::ok).flatten();
    ConnectError::NotWritable { host: session.host().to_owned(), because: "", history }
}

/// Hands the session on unless its server is one that a failover has replaced.
async fn admit(session: Session, newest: &Newest, timeout: Duration) -> Result<Session, ConnectError> {
    let host = session.host().to_owned();
    match tokio::time::timeout(timeout, timeline::history(&session.client)).await {
        Ok(Ok(Some(history))) if !newest.admits(&history) => Err(superseded(host, history)),
        Ok(Ok(history)) => Ok(session.on(history)),
        Ok(Err(error)) => Err(ConnectError::Unreachable { host, source: error.into() }),
        Err(_) => Err(ConnectError::Unreachable {
            host,
            source: timed_out("it did not report its timeline", timeout),
        }),
    }
}

/// A primary on `history`, which is older than what is known.
pub(crate) fn superseded(host: String, history: History) -> ConnectError {
    ConnectError::Superseded { host, history, remedy: REMEDY.to_owned() }
}

/// What ends the wait for the primary of a newer timeline.
const REMEDY: &str = "start the server with the newer timeline, or remove what is gone from postgres.url and \
                      reload: once every host of a URL with several has answered and none is on that \
                      timeline, jetcopy goes on by itself; with a single address, stop what answers there, \
                      or, if it is the right one, remove the pipeline's durable consumer in NATS and restart \
                      jetcopy, which reads on from the checkpoint";

fn timed_out(what: &str, timeout: Duration) -> Cause {
    let text = format!("{what} within {} (connect_timeout)", humantime::format_duration(timeout));
    io::Error::new(io::ErrorKind::TimedOut, text).into()
}

/// Sorts a failed attempt by what the caller does about it.
///
/// The driver keeps the kind of its errors to itself; three of them are known by their text alone. A test
/// makes a real server produce each, so that an update which rewords them does not go unseen.
fn classify(host: &str, error: tokio_postgres::Error, complaint: Option<String>) -> ConnectError {
    let host = host.to_owned();
    let text = error.to_string();
    if matches!(text.as_str(), "authentication error" | "invalid configuration") {
        let remedy = "check the password (password_file) and the method in pg_hba.conf".to_owned();
        return ConnectError::Refused { host, remedy, source: error };
    }
    let broken_tls = || {
        let remedy = complaint.unwrap_or_else(|| {
            "check sslmode in the URL, [postgres.tls], the host's certificate, and what the host requires"
                .to_owned()
        });
        |host, source| ConnectError::Tls { host, remedy, source }
    };
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        // A broken certificate is for a person; a connection that broke while the two shook hands is not.
        return if io.get_ref().is_some_and(<dyn StdError + Send + Sync>::is::<openssl::ssl::Error>) {
            broken_tls()(host, error.into())
        } else {
            ConnectError::Unreachable { host, source: error.into() }
        };
    }
    if text == HANDSHAKE {
        let lost = |cause: &openssl::ssl::Error| cause.ssl_error().is_none();
        let library = error.source().and_then(StdError::source).and_then(|cause| cause.downcast_ref());
        return if library.is_some_and(lost) {
            ConnectError::Unreachable { host, source: error.into() }
        } else {
            broken_tls()(host, error.into())
        };
    }
    match sqlstate::decide(&error, Step::Connect) {
        Decision::Pause => ConnectError::Refused { host, remedy: sqlstate::remedy(&error), source: error },
        Decision::Retry
        | Decision::Reconnect
        | Decision::BackOff
        | Decision::SuspectRow
        | Decision::AddPartition
        | Decision::Merge
        | Decision::Divide
        | Decision::PauseUnlessRow
        | Decision::BackOffUnlessRow => ConnectError::Unreachable { host, source: error.into() },
    }
}

#[cfg(test)]
mod tests;
