//! Connecting to NATS, and knowing at once when a connection is no longer what it was.
//!
//! Guarantees: a [`Connection`] that met anything which may have cost deliveries (a disconnect, a slow
//! consumer, a closed connection) says so through [`Connection::broken`], and keeps saying so. What the
//! server refused the user is known as soon as the server says it ([`Connection::denied`]): a request without
//! permission is never answered. It does not reconnect on behalf of a pipeline: the client's own reconnect is
//! left to it, but a pipeline starts over with a fresh connection.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr, ServerError};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;

use crate::client_certificate::{Files, KeyPassword};
use crate::config;

/// How long one connection attempt may take: a handshake on a healthy network takes milliseconds, so this
/// only bounds how long an unreachable server holds up the next attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the server is pinged. Two missed replies end the connection, so a half-open one is seen after at
/// most three intervals; the pull heartbeat usually sees it earlier.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Messages that the client may hold for one subscription before it drops them. Pull requests bound what is
/// on the way by count and by bytes, so this only has to exceed what two requests may bring.
const SUBSCRIPTION_CAPACITY: usize = 256 * 1024;

/// A connection to NATS.
#[derive(Debug, Clone)]
pub struct Connection {
    pub client: async_nats::Client,
    heard: watch::Receiver<Heard>,
}

/// What the client told of a connection.
#[derive(Debug, Default)]
struct Heard {
    trouble: Option<Trouble>,
    denied: Vec<Denial>,
    /// The server's last error.
    said: Option<String>,
}

/// Denials that are remembered: more than jetcopy has subjects of its own.
const MOST_DENIALS: usize = 32;

/// The connection is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// What may have cost deliveries.
    pub trouble: Trouble,
    /// The last error that the server sent over it, such as the reason why it ended it.
    pub said: Option<String>,
}

/// Something that the server does not let the user do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What was tried.
    pub action: Access,
    pub subject: String,
}

/// What permissions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Publish,
    Subscribe,
}

/// What may have cost deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection was lost.
    Disconnected,
    /// The client dropped messages because nobody read them in time.
    SlowConsumer,
    /// The server is about to end, and sends its clients away some time later.
    LameDuck,
    /// The client gave up.
    Closed,
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that the settings name could not be read, or does not serve.
    #[error("cannot use {}, named by nats.{setting}", path.display())]
    File {
        /// Setting that names the file.
        setting: &'static str,
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server's certificate, or jetcopy's own, is not accepted.
    #[error("cannot connect to NATS at {url}: the certificate was not accepted")]
    Certificate {
        /// Addresses, without credentials.
        url: String,
        source: rustls::Error,
    },
    /// The server could not be reached or refused the connection.
    #[error("cannot connect to NATS at {url}")]
    Connect {
        /// Addresses, without credentials.
        url: String,
        /// What the client said.
        source: async_nats::ConnectError,
    },
}

impl Connection {
    /// Connects under the client name `name`.
    pub async fn open(config: &config::Nats, name: &str) -> Result<Self, ConnectError> {
        let (report, heard) = watch::channel(Heard::default());
        let mut options = ConnectOptions::new()
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .custom_inbox_prefix(&config.inbox_prefix)
            .event_callback(move |event| {
                report.send_if_modified(|heard| heard.note(&event));
                async {}
            });
        // What stands in an address is handed over here, and the address without it: the client leaves it
        // aside, but for its log. A file's goes before it.
        if let Some((user, password)) = in_address(&config.url) {
            options = match password {
                Some(password) => options.user_and_password(user, password),
                None => options.token(user),
            };
        }
        if let Some(path) = &config.credentials_file {
            options = options.credentials_file(path).await.map_err(|source| ConnectError::File {
                setting: "credentials_file",
                path: path.clone(),
                source,
            })?;
        }
        if let Some(path) = &config.nkey_file {
            options = options.nkey(secret("nkey_file", path)?);
        }
        if let Some(path) = &config.token_file {
            options = options.token(secret("token_file", path)?);
        }
        if let (Some(user), Some(path)) = (&config.user, &config.password_file) {
            options = options.user_and_password(user.clone(), secret("password_file", path)?);
        }
        if let Some(tls) = &config.tls {
            options = options.require_tls(true);
            if let Some(ca) = &tls.ca_file {
                options = options.add_root_certificates(ca.clone());
            }
            if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
                client_certificate(cert, key)?;
                options = options.add_client_certificate(cert.clone(), key.clone());
            }
        }
        if config.handshake_first {
            options = options.tls_first();
        }
        let addresses: Vec<String> = config.url.split(',').map(|url| without_user(url.trim())).collect();
        let client = options
            .connect(addresses.as_slice())
            .await
            .map_err(|source| ConnectError::new(config::redact_url(&config.url), source))?;
        Ok(Self { client, heard })
    }

    /// Resolves once anything may have cost deliveries.
    pub fn broken(&self) -> impl Future<Output = Lost> + Send + Sync + use<> {
        let mut heard = self.heard.clone();
        async move {
            let lost = match heard.wait_for(|heard| heard.trouble.is_some()).await {
                Ok(heard) => Some(heard.lost()),
                // The sender lives in the client's task; that it is gone means that the client is.
                Err(_) => None,
            };
            lost.unwrap_or_else(|| heard.borrow().lost())
        }
    }

    /// Whether anything may have cost deliveries.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.heard.borrow().trouble.is_some() || self.heard.has_changed().is_err()
    }

    /// Resolves once the server has refused the user something that `matters`.
    pub async fn denied(&self, matters: impl Fn(&Denial) -> bool) -> Denial {
        let mut heard = self.heard.clone();
        let found = match heard.wait_for(|heard| heard.denied.iter().any(&matters)).await {
            Ok(heard) => heard.denied.iter().find(|denial| matters(denial)).cloned(),
            Err(_) => None,
        };
        match found {
            Some(denial) => denial,
            // A client that is gone is refused nothing any more.
            None => std::future::pending().await,
        }
    }
}

impl Heard {
    /// Takes an event in; whether it says anything new.
    fn note(&mut self, event: &Event) -> bool {
        let trouble = Trouble::from_event(event).filter(|_| self.trouble.is_none());
        self.trouble = self.trouble.or(trouble);
        let Event::ServerError(error) = event else { return trouble.is_some() };
        let text = match error {
            ServerError::AuthorizationViolation => "authorization violation".to_owned(),
            ServerError::SlowConsumer(_) => "slow consumer".to_owned(),
            ServerError::Other(text) => text.clone(),
        };
        if let Some(denial) = Denial::read(&text)
            && !self.denied.contains(&denial)
            && self.denied.len() < MOST_DENIALS
        {
            self.denied.push(denial);
        }
        self.said = Some(text);
        true
    }

    fn lost(&self) -> Lost {
        Lost { trouble: self.trouble.unwrap_or(Trouble::Closed), said: self.said.clone() }
    }
}

impl Lost {
    /// Whether the server no longer lets the user in: its password was changed, or its time is over.
    #[must_use]
    pub fn refuses_user(&self) -> bool {
        let said = self.said.as_deref().unwrap_or_default().to_ascii_lowercase();
        said.starts_with("authorization violation") || said.contains("authentication")
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.trouble {
            Trouble::Disconnected => "the connection to NATS was lost",
            Trouble::SlowConsumer => "the NATS client dropped messages because they were not read in time",
            Trouble::LameDuck => "the NATS server is about to shut down",
            Trouble::Closed => "the NATS client gave up",
        })?;
        match &self.said {
            Some(said) => write!(f, "; the last error that the server sent: {said}"),
            None => Ok(()),
        }
    }
}

impl Denial {
    /// Whether jetcopy cannot work without it. Single messages are looked at where that is allowed, and so is
    /// the account; acks tell the server what is committed, and the checkpoint holds without them.
    pub(crate) fn is_needed(&self) -> bool {
        let spared = ["$SYS.", "$JS.ACK."];
        !self.about_single() && !spared.iter().any(|prefix| self.subject.starts_with(prefix))
    }

    /// Whether it is about reading single messages.
    pub(crate) fn about_single(&self) -> bool {
        self.subject.starts_with("$JS.API.STREAM.MSG.GET.")
    }

    /// Reads what the server says about a missing permission:
    /// `Permissions Violation for Publish to "frames.a"`, with more after the subject at times.
    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("Permissions Violation for ")?;
        let (action, rest) = match rest.strip_prefix("Publish to \"") {
            Some(rest) => (Access::Publish, rest),
            None => (Access::Subscribe, rest.strip_prefix("Subscription to \"")?),
        };
        let subject = rest.split('"').next()?.to_owned();
        Some(Self { action, subject })
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Access::Publish => "publish",
            Access::Subscribe => "subscribe",
        };
        write!(f, "{action} to {}", self.subject)
    }
}

impl ConnectError {
    /// Whether the server does not let the user in.
    #[must_use]
    pub fn refuses_user(&self) -> bool {
        use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), Authentication | AuthorizationViolation))
    }

    /// The client says "input or output" of whatever TLS finds; that is told apart here, since no second
    /// attempt fixes it.
    fn new(url: String, source: async_nats::ConnectError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
        while let Some(error) = cause {
            // An error of input or output does not name what it wraps as its source, but that one's source.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let tls = match wrapped {
                Some(wrapped) => wrapped.downcast_ref::<rustls::Error>(),
                None => error.downcast_ref::<rustls::Error>(),
            };
            if let Some(tls @ (rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) = tls
            {
                return Self::Certificate { url, source: tls.clone() };
            }
            cause = error.source();
        }
        Self::Connect { url, source }
    }
}

/// Looks at the client's files first: what the client library says of them does not tell the one at fault.
fn client_certificate(cert: &Path, key: &Path) -> Result<(), ConnectError> {
    const REMEDY: &str = "its certificate is X.509 version 1, which the NATS client cannot use; reissue it \
                          with an extension, e.g. `openssl x509 -req -extfile <(echo \
                          extendedKeyUsage=clientAuth)`";
    let files = Files {
        cert: Some(("tls.cert_file", cert)),
        key: Some(("tls.key_file", key)),
        password: KeyPassword::Unsupported,
    };
    let refused = |setting, source| {
        let path = if setting == "tls.cert_file" { cert } else { key }.to_owned();
        ConnectError::File { setting, path, source }
    };
    match files.read() {
        Ok(Some(identity)) if identity.is_version_1() => {
            Err(refused("tls.cert_file", io::Error::new(io::ErrorKind::InvalidData, REMEDY)))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error.setting, io::Error::new(io::ErrorKind::InvalidData, error))),
    }
}

/// User and password, or a token, of the first address that holds any: `nats://user:password@host`.
fn in_address(url: &str) -> Option<(String, Option<String>)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    url.split(',').find_map(|address| {
        let address = address.trim().parse::<ServerAddr>().ok()?;
        Some((decode(address.username()?), address.password().map(decode)))
    })
}

/// The address without user, password and token.
fn without_user(address: &str) -> String {
    let (scheme, rest) =
        address.split_once("://").map_or((None, address), |(scheme, rest)| (Some(scheme), rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    scheme.map_or_else(|| host.to_owned(), |scheme| format!("{scheme}://{host}"))
}

impl Trouble {
    fn from_event(event: &Event) -> Option<Self> {
        match event {
            Event::Disconnected => Some(Self::Disconnected),
            Event::SlowConsumer(_) => Some(Self::SlowConsumer),
            Event::Closed => Some(Self::Closed),
            // By then its JetStream has ended: another server serves, or this one again when it is back.
            Event::LameDuckMode => Some(Self::LameDuck),
            Event::Connected | Event::Draining | Event::ServerError(_) | Event::ClientError(_) => None,
        }
    }
}

fn secret(setting: &'static str, path: &Path) -> Result<String, ConnectError> {
    config::read_secret(path).map_err(|source| ConnectError::File { setting, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
