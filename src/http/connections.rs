//! Connections, and limits on what a client can use of the daemon.
//!
//! Guarantees: open connections, the size of a request's head, the time it takes to arrive and the life of a
//! connection are bounded, so that no client can hold up the others, or the pipelines, for long. Connections
//! are accepted at once; if there is no room for another, [`slots`] decides which one is closed. If the
//! listener fails to accept, such as without file descriptors, it tries again.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

mod slots;

use slots::{Slot, Slots};

/// Limits for clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Open connections.
    pub(super) connections: usize,
    /// Of these, those that one peer may have.
    pub(super) of_peer: usize,
    /// Of these, those that only this machine may have.
    pub(super) kept_for_loopback: usize,
    /// How long the head of a request may take to arrive, also the next one of a connection that is kept.
    pub(super) head_timeout: Duration,
    /// Bytes of a request's head.
    pub(super) head_bytes: usize,
    /// Lines of a request's head.
    pub(super) head_lines: usize,
    /// How long a connection may last: then it ends after the answer under way.
    pub(super) life: Duration,
    /// How long that answer may take.
    pub(super) last_answer: Duration,
}

impl Limits {
    const DEFAULT: Self = Self {
        // Far more than scrapers, probes and a few people with the page open need, and few file descriptors.
        connections: 128,
        // A browser opens six to a host; a proxy with all of them behind it keeps some more.
        of_peer: 32,
        // Probes, `jetcopy status`, a scraper and a proxy on this machine.
        kept_for_loopback: 16,
        // The page asks every two seconds, and a scraper reconnects without loss.
        head_timeout: Duration::from_secs(10),
        // A browser behind a proxy sends some kilobytes of cookies.
        head_bytes: 32 * 1024,
        head_lines: 64,
        // A client that takes nothing of its answer is gone after that, too.
        life: Duration::from_mins(5),
        // Answers are made in milliseconds; a slow line takes seconds for the largest.
        last_answer: Duration::from_secs(10),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How long to wait before a listener that failed is asked again: file descriptors come back when something
/// ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown` resolves and the answers under way are given.
pub(super) async fn serve(
    listener: &TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let slots = Slots::default();
    let (stop, stopped) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, address) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_of_one_client(&error) {
                        tracing::warn!(%error, "cannot accept HTTP connections; retrying");
                        sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
        };
        let Some(slot) = slots.take(address.ip(), &limits) else { continue };
        tokio::spawn(converse(stream, router.clone(), limits, Arc::new(slot), stopped.clone()));
    }
    stop.send_replace(true);
    // Each connection has a receiver until it has ended, which it does in time by itself.
    drop(stopped);
    stop.closed().await;
}

/// Whether the client went away while it was accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// One connection, to its end.
async fn converse(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    slot: Arc<Slot>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    builder.max_headers(limits.head_lines).max_header_size(limits.head_bytes);
    // The limit of the head is looked at when it has been read: what is read ahead is bounded, too.
    builder.max_buf_size(2 * limits.head_bytes);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        let (answer, slot) = (router.call(request), Arc::clone(&slot));
        slot.is_answering(true);
        async move {
            let answer = answer.await;
            slot.is_answering(false);
            answer
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // What a client did wrong is answered where it can be; nobody else needs to know.
        _ = connection.as_mut() => return,
        () = slot.given_up() => return,
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = sleep(limits.life) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = timeout(limits.last_answer, connection) => {}
        () = slot.given_up() => {}
    }
}

#[cfg(test)]
mod tests;
