//! Connections, and what a client may take of the daemon by them.
//!
//! Guarantees: open connections, the size of a request's head, the time it takes to arrive and the life of a connection
//! are bounded, so that no client can hold up the others, or the pipelines, for long. When the listener fails to accept,
//! as without file descriptors, it is tried again. It does not tell clients apart: one may use all the connections.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Open connections; more wait in the kernel's queue.
    pub(super) connections: u32,
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Far more than scrapers, probes and a few people with the page open need, and few file descriptors.
            connections: 128,
            // The page asks every two seconds, and a scraper connects anew without loss.
            head_timeout: Duration::from_secs(10),
            // A browser behind a proxy sends some kilobytes of cookies.
            head_bytes: 32 * 1024,
            head_lines: 64,
            // A client that takes nothing of its answer is gone after that, too.
            life: Duration::from_mins(5),
            // Answers are made in milliseconds; a slow line takes seconds for the largest.
            last_answer: Duration::from_secs(10),
        }
    }
}

/// How long to wait before a listener that failed is asked again: file descriptors come back when something ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown` resolves and the answers under way are given.
pub(super) async fn serve(
    listener: &TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let (stop, stopped) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    if !is_of_one_client(&error) {
                        tracing::warn!(%error, "cannot accept HTTP connections; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        tokio::spawn(async move {
            converse(stream, router, limits, stopped).await;
            drop(place);
        });
    }
    stop.send_replace(true);
    // All places are free again when the last connection has ended; each ends in time by itself.
    drop(places.acquire_many(limits.connections).await);
}

/// Whether the client went away while it was accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// One connection, to its end.
async fn converse(stream: TcpStream, router: Router, limits: Limits, mut stopped: watch::Receiver<bool>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    builder.max_headers(limits.head_lines).max_header_size(limits.head_bytes);
    // The limit of the head is looked at when it has been read: what is read ahead is bounded, too.
    builder.max_buf_size(2 * limits.head_bytes);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        // What a client did wrong is answered where it can be; nobody else needs to know.
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = sleep(limits.life) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.last_answer, connection).await;
}

#[cfg(test)]
mod tests;
