//! What the URL and the settings say about a connection.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ConnectError;
use crate::config::{self, Verify, parse_postgres_url};
use crate::postgres::tls;

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

/// The URL's options, for the error that says which there are.
const URL_OPTIONS: &str = "user, password, dbname, host, hostaddr, port, sslmode, sslnegotiation, channel_binding, \
     target_session_attrs, application_name, options, connect_timeout, tcp_user_timeout, keepalives, keepalives_idle, \
     keepalives_interval, keepalives_retries";

/// One entry of the URL's host list.
pub(super) struct Target {
    pub(super) name: Option<Host>,
    pub(super) address: Option<std::net::IpAddr>,
    pub(super) port: u16,
}

impl Target {
    /// For people and logs.
    pub(super) fn label(&self) -> String {
        match (&self.name, self.address) {
            (Some(Host::Tcp(name)), _) => format!("{name}:{}", self.port),
            (Some(Host::Unix(path)), _) => format!("{}:{}", path.display(), self.port),
            (None, Some(address)) => format!("{address}:{}", self.port),
            (None, None) => format!(":{}", self.port),
        }
    }
}

pub(super) fn targets(driver_config: &tokio_postgres::Config) -> Result<Vec<Target>, ConnectError> {
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

/// The same settings for one address. The driver has no way to replace a host, only to add one.
pub(super) fn single_host(
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

pub(super) fn invalid_url(problem: &str) -> ConnectError {
    ConnectError::Config { setting: "url", problem: problem.to_owned(), source: None }
}

/// Reads the URL and the password file.
pub(super) fn read_settings(
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
