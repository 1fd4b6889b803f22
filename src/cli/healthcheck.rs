//! `jetcopy healthcheck`: checks that the daemon on this machine answers, for containers that hold nothing
//! else.
//!
//! Guarantees: it succeeds only if `/healthz` answers 200 in time.

use super::status::fetch::{self, get};
use crate::config::Http;

/// There is no proper answer.
#[derive(Debug, thiserror::Error)]
#[error("no daemon answers at {listen} (http.listen)")]
pub struct Error {
    listen: std::net::SocketAddr,
    source: fetch::Error,
}

/// Runs the command.
pub async fn run(settings: &Http) -> Result<(), Error> {
    // It answers without a token, so none is sent.
    let open = Http { token_file: None, ..settings.clone() };
    get(&open, "/healthz").await.map(drop).map_err(|source| Error { listen: settings.listen, source })
}
