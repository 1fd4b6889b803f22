//! Contexts of the `nats` command line: a JSON file each, `nats/context/NAME.json` below the user's
//! configuration.
//! Guarantees: what a context says and jetcopy does not support is refused by name, not ignored. No error
//! contains a value.

use std::io;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// Why a context does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContextError {
    #[error("`{0}` is not the name of a context")]
    Name(String),
    #[error("cannot read {}: {source}; `nats context ls` lists what there is", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: is not a NATS context", path.display())]
    Json { path: PathBuf, line: usize },
    #[error(
        "{}: jetcopy does not support `{key}`; set what it needs in [nats], and no context", path.display()
    )]
    Unsupported { path: PathBuf, key: &'static str },
}

/// What of a context is of use; an empty text says nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Context {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
    inbox_prefix: String,
    tls_first: bool,
    nsc: String,
    user_jwt: String,
    jetstream_domain: String,
    jetstream_api_prefix: String,
    socks_proxy: String,
}

impl Context {
    /// The name of the context that is selected.
    pub(super) fn selected(directory: &Path) -> Option<String> {
        let text = std::fs::read_to_string(directory.join("context.txt")).ok()?;
        Some(text.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Reads the context `name`.
    pub(super) fn read(directory: &Path, name: &str) -> Result<Self, ContextError> {
        if name.is_empty() || name.contains('/') {
            return Err(ContextError::Name(name.to_owned()));
        }
        let path = directory.join("context").join(format!("{name}.json"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ContextError::Read { path, source }),
        };
        let context: Self = match serde_json::from_str(&text) {
            Ok(context) => context,
            Err(error) => return Err(ContextError::Json { path, line: error.line() }),
        };
        let unsupported = [
            ("nsc", &context.nsc),
            ("user_jwt", &context.user_jwt),
            ("jetstream_domain", &context.jetstream_domain),
            ("jetstream_api_prefix", &context.jetstream_api_prefix),
            ("socks_proxy", &context.socks_proxy),
        ];
        match unsupported.iter().find(|(_, value)| !value.is_empty()) {
            Some((key, _)) => Err(ContextError::Unsupported { path, key }),
            None => Ok(context),
        }
    }

    /// What it says, by jetcopy's keys. `url` is the address that is known without it; user and token go
    /// into the address, unless the user is `identified` otherwise.
    pub(super) fn settings(
        &self,
        url: Option<&str>,
        identified: bool,
        home: Option<&str>,
    ) -> Vec<(&'static str, Value)> {
        let path = |text: &str| match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => format!("{home}/{rest}"),
            _ => text.to_owned(),
        };
        let mut settings = Vec::new();
        let mut say = |key, value: &str| {
            if !value.is_empty() {
                settings.push((key, Value::from(value)));
            }
        };
        let plain = url.unwrap_or(if self.url.is_empty() { "nats://127.0.0.1:4222" } else { &self.url });
        // As the command line has it, a user comes before credentials, and these before a key.
        let secret = match () {
            () if identified || plain.contains('@') => None,
            () if !self.user.is_empty() => {
                Some(format!("{}:{}", escaped(&self.user), escaped(&self.password)))
            }
            () if !self.creds.is_empty() => {
                say("nats.credentials_file", &path(&self.creds));
                None
            }
            () if !self.nkey.is_empty() => {
                say("nats.nkey_file", &path(&self.nkey));
                None
            }
            () if !self.token.is_empty() => Some(escaped(&self.token)),
            () => None,
        };
        match secret {
            Some(secret) => say("nats.url", &with_user(plain, &secret)),
            None if url.is_none() => say("nats.url", plain),
            None => {}
        }
        say("nats.inbox_prefix", &self.inbox_prefix);
        say("nats.tls.ca_file", &path(&self.ca));
        say("nats.tls.cert_file", &path(&self.cert));
        say("nats.tls.key_file", &path(&self.key));
        if self.tls_first {
            settings.push(("nats.tls", Value::from(Dict::new())));
            settings.push(("nats.handshake_first", Value::from(true)));
        }
        settings
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The addresses with user and password, or a token, in the first one.
fn with_user(addresses: &str, user: &str) -> String {
    match addresses.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{user}@{rest}"),
        None => format!("nats://{user}@{addresses}"),
    }
}
