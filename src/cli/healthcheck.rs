//! `jetcopy healthcheck`: asks the daemon of this machine whether it answers, for containers that hold
//! nothing else.
//!
//! Guarantees: it ends with success only when `/healthz` answers 200 in time.

use super::status::fetch::{self, get};
use crate::config::Http;

/// Nobody answers as the daemon does.
#[derive(Debug, thiserror::Error)]
#[error("no daemon answers where http.listen says, {listen}")]
pub struct Error {
    listen: std::net::SocketAddr,
    source: fetch::Error,
}

/// Runs the command.
pub async fn run(settings: &Http) -> Result<(), Error> {
    // Its answer is open: nothing of the token is sent.
    let open = Http { token_file: None, ..settings.clone() };
    get(&open, "/healthz").await.map(drop).map_err(|source| Error { listen: settings.listen, source })
}
