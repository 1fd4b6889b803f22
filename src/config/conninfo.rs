//! How a database is reached: connection strings, variables and files, as libpq has them.
//!
//! Guarantees:
//! - What libpq accepts is accepted, in a URL or as `key=value` pairs, or rejected by name; nothing is
//!   ignored silently.
//! - What the string does not set comes from its service, then from the `PG…` variables, then from libpq's
//!   defaults. A password comes from `passfile` or `~/.pgpass` if nothing else sets one.
//! - No error contains a value or an unknown name: either may be part of a password that was not escaped.
//!
//! Differences: the default host is the socket in `/var/run/postgresql`, else `localhost`; `verify-ca` and
//! `verify-full` use the system's authorities unless a file is given; a `%` that encodes nothing stands for
//! itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

mod files;
mod parameters;
mod syntax;

use parameters::Settings;

/// Why a connection string, or what it is completed with, does not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConnInfoError(String);

impl ConnInfoError {
    fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// All that a connection string says, with what stands behind it.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// In the order in which they are tried; at least one.
    pub hosts: Vec<HostInfo>,
    /// Role.
    pub user: String,
    /// Database.
    pub dbname: String,
    /// Settings of the session, as `-c name=value`.
    pub options: Option<String>,
    /// How long an attempt may take, per host.
    pub connect_timeout: Option<Duration>,
    /// How long sent bytes may stay unacknowledged.
    pub tcp_user_timeout: Option<Duration>,
    /// Probes of an idle connection.
    pub keepalives: Keepalives,
    /// Whether the password is bound to the server's certificate.
    pub channel_binding: ChannelBinding,
    /// Which servers are asked for.
    pub session: Option<SessionAttrs>,
    /// TLS.
    pub tls: TlsParameters,
}

/// One entry of the list of hosts.
#[derive(Clone)]
pub struct HostInfo {
    /// Name, address or directory of a socket.
    pub name: Option<String>,
    /// `hostaddr`.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// The password for it.
    pub password: Option<String>,
}

impl std::fmt::Debug for HostInfo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.label())
    }
}

impl HostInfo {
    /// For people and logs.
    #[must_use]
    pub fn label(&self) -> String {
        match (&self.name, self.address) {
            (Some(name), _) => format!("{name}:{}", self.port),
            (None, Some(address)) => format!("{address}:{}", self.port),
            (None, None) => format!(":{}", self.port),
        }
    }

    /// Whether it is a socket of this machine's file system.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.as_deref().is_some_and(is_socket)
    }
}

fn is_socket(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

/// Probes of an idle connection; what is `None` is not said.
#[derive(Debug, Clone, Copy)]
pub struct Keepalives {
    /// Whether there are any.
    pub on: bool,
    /// Idle time before the first one.
    pub idle: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
    /// Unanswered ones that end the connection.
    pub count: Option<u32>,
}

/// `target_session_attrs`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAttrs {
    /// Any server.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that takes none.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or else any.
    PreferStandby,
}

/// `sslmode`, from the weakest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where it does not go without.
    Allow,
    /// Where it goes.
    Prefer,
    /// Always; the certificate is checked where authorities are named.
    Require,
    /// Always, with a certificate that an authority has signed.
    VerifyCa,
    /// Always, with such a certificate for the host's name.
    VerifyFull,
}

/// Versions of TLS that may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// `TLSv1`
    V1,
    /// `TLSv1.1`
    V1_1,
    /// `TLSv1.2`
    V1_2,
    /// `TLSv1.3`
    V1_3,
}

/// What is said about TLS.
#[derive(Clone)]
pub struct TlsParameters {
    /// `sslmode`, where it is said.
    pub mode: Option<SslMode>,
    /// `sslnegotiation=direct`: the handshake comes first.
    pub direct: bool,
    /// `sslrootcert`
    pub root: Option<Root>,
    /// `sslcrl`
    pub revoked: Option<PathBuf>,
    /// `sslcrldir`
    pub revoked_in: Option<PathBuf>,
    /// `sslcert`
    pub cert: Option<PathBuf>,
    /// `sslkey`
    pub key: Option<PathBuf>,
    /// `sslpassword`
    pub key_password: Option<String>,
    /// Whether the handshake sends the host's name to the server.
    pub sni: bool,
    /// Oldest version.
    pub oldest: TlsVersion,
    /// Newest version.
    pub newest: Option<TlsVersion>,
}

impl std::fmt::Debug for TlsParameters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsParameters").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Which authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The system's.
    System,
    /// Those of a file.
    File(PathBuf),
}

/// What surrounds a connection string.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    home: Option<PathBuf>,
}

impl ConnInfo {
    /// Reads a connection string and completes it by this process's variables and files.
    pub fn resolve(text: &str) -> Result<Self, ConnInfoError> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::resolve_within(text, &Surroundings { variable: &variable, home: std::env::home_dir() })
    }

    /// Whether a connection string can be read by itself; no variable and no file is looked at.
    pub fn check(text: &str) -> Result<(), ConnInfoError> {
        let nowhere = Surroundings { variable: &|_| None, home: None };
        build(&Settings::of_text(text)?, &nowhere).map(drop)
    }

    /// The variables that say what `text` does not; none where it cannot be read.
    pub(super) fn completed_by(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Vec<&'static str> {
        Settings::of_text(text).map(|settings| settings.completed_by(variable)).unwrap_or_default()
    }

    fn resolve_within(text: &str, around: &Surroundings<'_>) -> Result<Self, ConnInfoError> {
        let mut settings = Settings::of_text(text)?;
        let service = settings.get("service").map(str::to_owned).or_else(|| (around.variable)("PGSERVICE"));
        if let Some(service) = service.filter(|name| !name.is_empty()) {
            let named = settings.get("servicefile").map(str::to_owned);
            let named = named.or_else(|| (around.variable)("PGSERVICEFILE")).map(PathBuf::from);
            settings.complete(files::service(&service, named.as_deref(), around)?);
        }
        settings.complete_by_variables(around.variable)?;
        build(&settings, around)
    }
}

fn build(settings: &Settings, around: &Surroundings<'_>) -> Result<ConnInfo, ConnInfoError> {
    let user = match settings.get("user") {
        Some(user) => user.to_owned(),
        None => nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten()
            .map(|user| user.name)
            .ok_or_else(|| ConnInfoError::new("names no user, and the user of this process has no name"))?,
    };
    let dbname = settings.get("dbname").map_or_else(|| user.clone(), str::to_owned);
    let mut hosts = hosts(settings)?;
    match settings.get("password") {
        Some(password) => hosts.iter_mut().for_each(|host| host.password = Some(password.to_owned())),
        None => files::passwords(settings.get("passfile"), &mut hosts, &dbname, &user, around),
    }
    let tls = tls(settings, around)?;
    let seconds = |name| -> Result<Option<Duration>, ConnInfoError> {
        Ok(settings.whole(name)?.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    };
    let count = settings.whole("keepalives_count")?.filter(|count| *count > 0);
    Ok(ConnInfo {
        hosts,
        user,
        dbname,
        options: settings.get("options").map(str::to_owned),
        connect_timeout: seconds("connect_timeout")?,
        // The one in milliseconds.
        tcp_user_timeout: settings
            .whole("tcp_user_timeout")?
            .filter(|milliseconds| *milliseconds > 0)
            .map(Duration::from_millis),
        keepalives: Keepalives {
            on: settings.whole("keepalives")? != Some(0),
            idle: seconds("keepalives_idle")?,
            interval: seconds("keepalives_interval")?,
            count: count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        },
        channel_binding: settings
            .one_of(
                "channel_binding",
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
            )?
            .unwrap_or(ChannelBinding::Prefer),
        session: settings.one_of(
            "target_session_attrs",
            &[
                ("any", SessionAttrs::Any),
                ("read-write", SessionAttrs::ReadWrite),
                ("read-only", SessionAttrs::ReadOnly),
                ("primary", SessionAttrs::Primary),
                ("standby", SessionAttrs::Standby),
                ("prefer-standby", SessionAttrs::PreferStandby),
            ],
        )?,
        tls,
    })
}

/// Where libpq's packages have the server's socket.
const SOCKETS: &str = "/var/run/postgresql";

fn hosts(settings: &Settings) -> Result<Vec<HostInfo>, ConnInfoError> {
    let list = |name| settings.get(name).map(|list| list.split(',').map(str::trim).collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    if let (Some(names), Some(addresses)) = (&names, &addresses)
        && names.len() != addresses.len()
    {
        return Err(ConnInfoError::new("host and hostaddr must list the same number of hosts"));
    }
    if ports.as_ref().is_some_and(|ports| ports.len() > 1 && ports.len() != count) {
        return Err(ConnInfoError::new("port must list one port, or one for each host"));
    }
    let of = |list: &Option<Vec<&str>>, index: usize| -> Option<String> {
        let list = list.as_ref()?;
        list.get(index).or(list.first()).filter(|value| !value.is_empty()).map(|value| (*value).to_owned())
    };
    (0..count)
        .map(|index| {
            let address = of(&addresses, index)
                .map(|address| address.parse())
                .transpose()
                .map_err(|_| ConnInfoError::new("hostaddr must be a numeric address; use host for names"))?;
            let name = of(&names, index).or_else(|| {
                let socket = Path::new(SOCKETS).is_dir();
                address.is_none().then(|| if socket { SOCKETS } else { "localhost" }.to_owned())
            });
            let port = of(&ports, index).map_or(Ok(5432), |port| match port.parse() {
                Ok(0) | Err(_) => Err(ConnInfoError::new("port must be a number from 1 to 65535")),
                Ok(port) => Ok(port),
            })?;
            Ok(HostInfo { name, address, port, password: None })
        })
        .collect()
}

fn tls(settings: &Settings, around: &Surroundings<'_>) -> Result<TlsParameters, ConnInfoError> {
    let home = |name: &str| around.home.as_ref().map(|home| home.join(".postgresql").join(name));
    let by_default = |name: &str| home(name).filter(|path| path.exists());
    let path = |name: &str| settings.get(name).map(PathBuf::from);
    let modes = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let mut mode = settings.one_of("sslmode", &modes)?;
    let root = match settings.get("sslrootcert") {
        Some("system") => Some(Root::System),
        Some(file) => Some(Root::File(file.into())),
        None => by_default("root.crt").map(Root::File),
    };
    if root == Some(Root::System) && *mode.get_or_insert(SslMode::VerifyFull) != SslMode::VerifyFull {
        return Err(ConnInfoError::new("sslrootcert=system requires sslmode=verify-full"));
    }
    let direct = settings.one_of("sslnegotiation", &[("postgres", false), ("direct", true)])? == Some(true);
    if direct && mode.unwrap_or(SslMode::Prefer) < SslMode::Require {
        let text = "sslnegotiation=direct requires sslmode=require, verify-ca or verify-full";
        return Err(ConnInfoError::new(text));
    }
    let certificates = settings.one_of("sslcertmode", &[("disable", false), ("allow", true)])? != Some(false);
    let cert = path("sslcert").or_else(|| by_default("postgresql.crt")).filter(|_| certificates);
    let key = path("sslkey").or_else(|| home("postgresql.key")).filter(|_| cert.is_some());
    let versions = [
        ("TLSv1", TlsVersion::V1),
        ("TLSv1.1", TlsVersion::V1_1),
        ("TLSv1.2", TlsVersion::V1_2),
        ("TLSv1.3", TlsVersion::V1_3),
    ];
    Ok(TlsParameters {
        mode,
        direct,
        root,
        revoked: path("sslcrl").or_else(|| by_default("root.crl")),
        revoked_in: path("sslcrldir"),
        cert,
        key,
        key_password: settings.get("sslpassword").map(str::to_owned),
        sni: settings.whole("sslsni")? != Some(0),
        oldest: settings.one_of("ssl_min_protocol_version", &versions)?.unwrap_or(TlsVersion::V1_2),
        newest: settings.one_of("ssl_max_protocol_version", &versions)?,
    })
}

#[cfg(test)]
mod tests;
