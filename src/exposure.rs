//! What others on the network could read, or answer in a server's place.
//!
//! Guarantees: a connection that leaves this machine in plain text is reported by the log, once for each
//! server, and by `jetcopy check`, which also reports one that does not verify who answers. Which machine is
//! this one goes by the address: a loopback one, or a socket of the file system.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use async_nats::ServerInfo;

use crate::config;
use crate::postgres::connect::{Session, Transport};

/// What is open to others, and how to close it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// Whether it can be read by merely listening.
    pub(crate) plain: bool,
    /// What is open.
    pub(crate) text: String,
    /// What would close it.
    pub(crate) remedy: &'static str,
}

/// What to do about PostgreSQL.
const DATABASE_REMEDY: &str = "set sslmode=verify-full in postgres.url, and [postgres.tls] ca_file to the CA \
                               of the server's certificate";

/// What to do about NATS.
const NATS_REMEDY: &str =
    "use tls:// in nats.url, and set [nats.tls] ca_file to the CA of the server's certificate";

/// Of a session with the database.
#[must_use]
pub(crate) fn of_database(session: &Session) -> Option<Exposure> {
    let host = session.host();
    let (plain, text) = match session.transport() {
        Transport::Local | Transport::Verified => return None,
        Transport::Unverified => {
            (false, format!("the connection to {host} is encrypted, but sslmode does not verify who answers"))
        }
        Transport::Plain => (
            true,
            format!(
                "rows and logins are sent to {host} in plain text: anyone on the network path can \
                            read them"
            ),
        ),
    };
    Some(Exposure { plain, text, remedy: DATABASE_REMEDY })
}

/// Of a connection to NATS, by what its server says.
#[must_use]
pub(crate) fn of_nats(server: &ServerInfo, settings: &config::Nats) -> Option<Exposure> {
    let encrypted = |url: &str| url.trim().starts_with("tls://") || url.trim().starts_with("wss://");
    let asked = settings.tls.is_some() || settings.handshake_first || settings.url.split(',').all(encrypted);
    // As the server sees this client.
    let near = server.client_ip.parse::<IpAddr>().is_ok_and(|client| client.to_canonical().is_loopback());
    if server.tls_required || asked || near {
        return None;
    }
    let password =
        settings.token_file.is_some() || settings.password_file.is_some() || settings.url.contains('@');
    let what = if password { "messages and the password or token are sent" } else { "messages are sent" };
    let text = format!(
        "{what} in plain text between {}:{} and here: anyone on the network path can read them",
        server.host, server.port
    );
    Some(Exposure { plain: true, text, remedy: NATS_REMEDY })
}

/// Logs what is in plain text, where that was not done before.
pub(crate) fn warn_once(exposure: Option<Exposure>) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(Exposure { plain: true, text, remedy }) = exposure else { return };
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
        tracing::warn!(remedy, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_to_a_server_of_streams_beyond_this_machine_is_told_with_what_is_in_it() {
        let server = |client: &str, tls: bool| -> ServerInfo {
            let info =
                serde_json::json!({"host": "n1", "port": 4222, "client_ip": client, "tls_required": tls});
            serde_json::from_value(info).unwrap()
        };
        let to = |url: &str| config::Nats { url: url.to_owned(), ..config::Nats::default() };
        let told = |server, settings| of_nats(&server, &settings).map(|exposure| exposure.text);
        let plain = told(server("10.0.0.2", false), to("nats://n1")).unwrap();
        assert!(plain.starts_with("messages are sent in plain text between n1:4222"), "{plain}");
        for settings in
            [to("nats://me:secret@n1"), config::Nats { token_file: Some("token".into()), ..to("nats://n1") }]
        {
            let plain = told(server("10.0.0.2", false), settings).unwrap();
            assert!(plain.starts_with("messages and the password or token are sent"), "{plain}");
        }
        assert_eq!(told(server("127.0.0.1", false), to("nats://n1")), None);
        assert_eq!(told(server("::1", false), to("nats://n1")), None);
        assert_eq!(told(server("10.0.0.2", true), to("nats://n1")), None);
        assert_eq!(told(server("10.0.0.2", false), to("tls://n1,tls://n2")), None);
        let first = config::Nats { handshake_first: true, ..to("nats://n1") };
        assert_eq!(told(server("10.0.0.2", false), first), None);
    }
}
