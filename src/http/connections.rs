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

/// Open connections: far more than scrapers, probes and a few people with the page open need, and few file descriptors.
/// More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 128;

/// How long the head of a request may take to arrive, also the next one of a connection that is kept: the page asks every
/// two seconds, and a scraper connects anew without loss.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head. A browser behind a proxy sends some kilobytes of cookies.
const MAX_HEAD: usize = 32 * 1024;

/// Lines of a request's head.
const MAX_HEADERS: usize = 64;

/// How long a connection may last: then it ends after the answer under way, so that a client that takes none of its
/// answer is gone some time.
const MAX_LIFE: Duration = Duration::from_mins(5);

/// How long the answer under way may take once a connection is to end: answers are made in milliseconds, and a slow line
/// takes seconds for the largest.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// How long to wait before a listener that failed is asked again: file descriptors come back when something ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown` resolves and the answers under way are given.
pub(super) async fn serve(listener: &TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
            converse(stream, router, stopped).await;
            drop(place);
        });
    }
    stop.send_replace(true);
    // All places are free again when the last connection has ended; each ends in time by itself.
    let all = u32::try_from(MAX_CONNECTIONS).expect("a small constant");
    drop(places.acquire_many(all).await);
}

/// Whether the client went away while it was accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// One connection, to its end.
async fn converse(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS);
    builder.max_buf_size(MAX_HEAD);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        // What a client did wrong is answered where it can be; nobody else needs to know.
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|&stopped| stopped) => {}
        () = sleep(MAX_LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWER, connection).await;
}
