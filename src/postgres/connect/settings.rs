//! What the connection string and the settings say about a connection.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::{SslMode as DriverMode, SslNegotiation, TargetSessionAttrs};

use super::ConnectError;
use crate::config::{self, ConnInfo, HostInfo, SessionAttrs};
use crate::postgres::tls::Connector;

/// Idle time before the first keepalive probe. The kernel's two hours would hide a dead primary from an idle
/// pipeline for as long; stateful firewalls forget idle connections after a few minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Time between probes. Three of them fit between the first probe and [`TCP_USER_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Unanswered probes that end a connection, where the kernel does not know `TCP_USER_TIMEOUT`.
const KEEPALIVE_RETRIES: u32 = 4;

/// How long sent bytes may stay unacknowledged. Linux also ends an idle connection by it, in place of the
/// count of probes. Patroni's default time to live for a leader is 30 s: by then there may be another
/// primary.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is the same for every host.
pub(super) struct Route {
    pub(super) info: ConnInfo,
    pub(super) tls: Connector,
    /// For one attempt: name, TCP, TLS, password.
    pub(super) timeout: Duration,
    application_name: String,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Changing something.
    Write,
    /// Looking only.
    Look,
}

impl Route {
    /// Reads the connection string, its surroundings and the files that the settings name.
    pub(super) fn new(config: &config::Postgres, application_name: &str) -> Result<Self, ConnectError> {
        // The error holds no piece of the string.
        let mut info = ConnInfo::resolve(&config.url).map_err(|error| invalid_url(&error.to_string()))?;
        if let Some(path) = &config.password_file {
            let password = read_password(path)?;
            info.hosts.iter_mut().for_each(|host| host.password = Some(password.clone()));
        }
        let tls = Connector::new(&info.tls, config.tls.as_ref())?;
        let timeout = info.connect_timeout.unwrap_or(config.connect_timeout);
        Ok(Self { info, tls, timeout, application_name: application_name.to_owned() })
    }

    /// Which servers serve, the better ones first.
    pub(super) fn wanted(&self, purpose: Purpose) -> Result<&'static [SessionAttrs], ConnectError> {
        use SessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        Ok(match (purpose, self.info.session) {
            // A primary that takes no writes is of no use, and the reason is reported.
            (Purpose::Write, None | Some(ReadWrite | Primary | PreferStandby)) => &[ReadWrite],
            (Purpose::Write, Some(Any)) | (Purpose::Look, None | Some(Any | ReadWrite | Primary)) => &[Any],
            (Purpose::Write, Some(ReadOnly | Standby)) => {
                return Err(invalid_url(
                    "target_session_attrs asks for a read-only server, but jetcopy writes: remove it",
                ));
            }
            (Purpose::Look, Some(ReadOnly)) => &[ReadOnly],
            (Purpose::Look, Some(Standby)) => &[Standby],
            (Purpose::Look, Some(PreferStandby)) => &[Standby, Any],
        })
    }

    /// The driver's settings for one address. What is sent at start is user, database, encoding, application
    /// name and `options`.
    pub(super) fn driver(
        &self,
        host: &HostInfo,
        address: Option<IpAddr>,
        mode: DriverMode,
        options: Option<&str>,
    ) -> tokio_postgres::Config {
        let mut driver = tokio_postgres::Config::new();
        match (&host.name, address) {
            (Some(name), _) => drop(driver.host(name)),
            // The driver wants a name for TLS.
            (None, Some(address)) => drop(driver.host(address.to_string())),
            (None, None) => {}
        }
        if let Some(address) = address {
            driver.hostaddr(address);
        }
        if let Some(password) = &host.password {
            driver.password(password);
        }
        if let Some(options) = options {
            driver.options(options);
        }
        let negotiation =
            if self.info.tls.direct { SslNegotiation::Direct } else { SslNegotiation::Postgres };
        let keepalives = self.info.keepalives;
        driver
            .user(&self.info.user)
            .dbname(&self.info.dbname)
            .application_name(&self.application_name)
            .port(host.port)
            .ssl_mode(mode)
            .ssl_negotiation(negotiation)
            .channel_binding(self.info.channel_binding)
            // What serves is asked in the session.
            .target_session_attrs(TargetSessionAttrs::Any)
            .connect_timeout(self.timeout)
            .tcp_user_timeout(self.info.tcp_user_timeout.unwrap_or(TCP_USER_TIMEOUT))
            .keepalives(keepalives.on)
            .keepalives_idle(keepalives.idle.unwrap_or(KEEPALIVE_IDLE))
            .keepalives_interval(keepalives.interval.unwrap_or(KEEPALIVE_INTERVAL))
            .keepalives_retries(keepalives.count.unwrap_or(KEEPALIVE_RETRIES));
        driver
    }
}

/// Where a pool's sessions go.
pub(crate) struct Reach {
    /// The hosts, for people.
    pub(crate) hosts: String,
    /// How long an attempt may take over all of them.
    pub(crate) longest: Duration,
}

/// Reads the settings without connecting.
pub(crate) fn reach(config: &config::Postgres, application_name: &str) -> Result<Reach, ConnectError> {
    let route = Route::new(config, application_name)?;
    let hosts = route.info.hosts.iter().map(HostInfo::label).collect::<Vec<_>>();
    // Each host with TLS and without it, and the question whether it serves.
    let attempts = u32::try_from(3 * hosts.len()).unwrap_or(u32::MAX);
    Ok(Reach { hosts: hosts.join(", "), longest: route.timeout.saturating_mul(attempts) })
}

pub(super) fn invalid_url(problem: &str) -> ConnectError {
    ConnectError::Config { setting: "url", problem: problem.to_owned(), source: None }
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
