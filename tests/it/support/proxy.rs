//! A TCP proxy between the daemon and a server, which spoils what passes through it.
//!
//! What is asked of it holds for all connections, those that are open and those to come, until something else
//! is.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::eventually;

/// Bytes that are read at once: the most that a fault lets through too much.
const CHUNK: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They arrive.
    Pass,
    /// They vanish, and so does the end of the connection: half-open.
    Swallow,
    /// They vanish, and what comes later arrives all the same: as when messages are dropped whole at either
    /// end.
    Drop,
    /// Each chunk arrives so much later.
    Delay(Duration),
    /// So many arrive a second.
    Throttle(u32),
    /// So many more arrive, then the connection is reset.
    CutAfter(usize),
}

/// What is lost of a request that holds the awaited bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lose {
    /// The request itself and all that follows, both ways.
    Request,
    /// The server gets it; its reply and all that follows is lost.
    Reply,
    /// A message to NATS that ends with those bytes, and nothing else.
    Message,
}

/// A running proxy; it ends with its value, and its connections with it.
pub(crate) struct Proxy {
    port: u16,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

struct Control {
    server_port: AtomicU16,
    faults: Mutex<Faults>,
    /// Raised to reset the connections that are open.
    resets: watch::Sender<u64>,
    accepted: AtomicU64,
    /// Bytes from the server that vanished.
    swallowed: AtomicU64,
}

struct Faults {
    to_server: Fault,
    to_client: Fault,
    trap: Option<(Vec<u8>, Lose)>,
    refuse: bool,
}

impl Proxy {
    /// Listens on a free port of loopback and passes everything to `server_port`.
    pub(crate) async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let control = Arc::new(Control {
            server_port: AtomicU16::new(server_port),
            faults: Mutex::new(Faults {
                to_server: Fault::Pass,
                to_client: Fault::Pass,
                trap: None,
                refuse: false,
            }),
            resets: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&control)));
        Self { port, control, accepting }
    }

    /// `url`, which names the server's port, through this proxy.
    pub(crate) fn through(&self, url: &str) -> String {
        let server_port = self.control.server_port.load(Ordering::Relaxed);
        let through = url.replace(&format!(":{server_port}"), &format!(":{}", self.port));
        assert_ne!(through, url, "the address does not name port {server_port}");
        through
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that came so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.control.accepted.load(Ordering::Relaxed)
    }

    /// Passes the connections to come to another server, as an address does that moves.
    pub(crate) fn turn_to(&self, server_port: u16) {
        self.control.server_port.store(server_port, Ordering::Relaxed);
    }

    /// Spoils one direction.
    pub(crate) fn set(&self, way: Way, fault: Fault) {
        self.control.set(way, fault);
    }

    /// Cuts a connection after so many bytes, and then others, until it was one of those that `met` tells of:
    /// a daemon has more connections than its pipeline's, such as the one that counts dead letters.
    pub(crate) async fn cut_until(&self, way: Way, bytes: usize, met: impl Fn() -> bool) {
        self.set(way, Fault::CutAfter(bytes));
        eventually("a cut to be met", || async {
            let met = met();
            if !met && self.control.fault(way) == Fault::Pass {
                self.set(way, Fault::CutAfter(bytes));
            }
            met
        })
        .await;
        self.set(way, Fault::Pass);
    }

    /// Closes new connections at once, or takes them again.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.control.faults.lock().unwrap().refuse = refuse;
    }

    /// Ends all open connections with a reset, both ways.
    pub(crate) fn reset(&self) {
        self.control.resets.send_modify(|resets| *resets += 1);
    }

    /// Ends all faults. A connection whose bytes were swallowed never gets any more, until it is reset.
    pub(crate) fn heal(&self) {
        let mut faults = self.control.faults.lock().unwrap();
        *faults = Faults { to_server: Fault::Pass, to_client: Fault::Pass, trap: None, refuse: false };
    }

    /// Waits for a request that holds `bytes`; from it on, swallows what `lose` says. It must come in one
    /// piece, as a small one does.
    pub(crate) fn trap(&self, bytes: &[u8], lose: Lose) {
        self.control.swallowed.store(0, Ordering::Relaxed);
        self.control.faults.lock().unwrap().trap = Some((bytes.to_vec(), lose));
    }

    /// Waits until the trap has sprung, and where the reply is lost, until there was a reply.
    pub(crate) async fn sprung(&self) {
        eventually("the trap to spring", || async {
            let faults = self.control.faults.lock().unwrap();
            let waits = faults.to_client == Fault::Swallow && faults.to_server == Fault::Pass;
            faults.trap.is_none() && (!waits || self.swallowed() > 0)
        })
        .await;
    }

    /// Bytes from the server that vanished since the last trap was set.
    pub(crate) fn swallowed(&self) -> u64 {
        self.control.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        control.accepted.fetch_add(1, Ordering::Relaxed);
        if control.faults.lock().unwrap().refuse {
            let _ = client.set_zero_linger();
            continue;
        }
        connections.spawn(connection(client, Arc::clone(&control)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(client: TcpStream, control: Arc<Control>) {
    let server_port = control.server_port.load(Ordering::Relaxed);
    let mut resets = control.resets.subscribe();
    // A server that is not there refuses the client.
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    // The proxy adds no delay of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = tokio::select! {
        cut = pump(&from_client, to_server, Way::ToServer, &control) => cut,
        cut = pump(&from_server, to_client, Way::ToClient, &control) => cut,
        _ = resets.changed() => true,
    };
    if cut {
        let _ = (from_client.as_ref().set_zero_linger(), from_server.as_ref().set_zero_linger());
    }
}

/// Passes bytes on as the fault of the moment says; true when the connection is to be reset.
async fn pump(from: &OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, control: &Control) -> bool {
    let mut chunk = vec![0; CHUNK];
    // What comes after bytes that vanished never arrives on the same connection, as TCP has it.
    let mut broken = false;
    loop {
        let read = match from.as_ref().readable().await.and_then(|()| from.try_read(&mut chunk)) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            // An end that vanishes leaves the other side waiting.
            Ok(0) | Err(_) if broken || control.fault(way) == Fault::Swallow => {
                return std::future::pending().await;
            }
            Ok(0) => return false,
            Err(_) => return true,
            Ok(read) => read,
        };
        let lost = if way == Way::ToServer { control.spring(&chunk[..read]) } else { 0..0 };
        chunk.copy_within(lost.end..read, lost.start);
        let read = read - lost.len();
        if read == 0 {
            continue;
        }
        let dropped = control.fault(way) == Fault::Drop;
        let (passes, cut) =
            if broken { control.swallow(way, read) } else { control.judge(way, &chunk[..read]).await };
        broken |= passes == 0 && !cut && !dropped;
        if to.write_all(&chunk[..passes]).await.is_err() || cut {
            return true;
        }
    }
}

impl Control {
    fn fault(&self, way: Way) -> Fault {
        let faults = self.faults.lock().unwrap();
        match way {
            Way::ToServer => faults.to_server,
            Way::ToClient => faults.to_client,
        }
    }

    /// How many bytes of a chunk pass, now that its delay is over, and whether the connection ends after
    /// them.
    async fn judge(&self, way: Way, chunk: &[u8]) -> (usize, bool) {
        match self.fault(way) {
            Fault::Pass => (chunk.len(), false),
            Fault::Swallow | Fault::Drop => self.swallow(way, chunk.len()),
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                (chunk.len(), false)
            }
            Fault::Throttle(bytes_a_second) => {
                let size = u32::try_from(chunk.len()).unwrap();
                tokio::time::sleep(Duration::from_secs(1) * size / bytes_a_second).await;
                (chunk.len(), false)
            }
            Fault::CutAfter(left) if left <= chunk.len() => {
                self.set(way, Fault::Pass);
                (left, true)
            }
            Fault::CutAfter(left) => {
                self.set(way, Fault::CutAfter(left - chunk.len()));
                (chunk.len(), false)
            }
        }
    }

    /// Lets bytes vanish.
    fn swallow(&self, way: Way, bytes: usize) -> (usize, bool) {
        if way == Way::ToClient {
            self.swallowed.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        (0, false)
    }

    fn set(&self, way: Way, fault: Fault) {
        let mut faults = self.faults.lock().unwrap();
        match way {
            Way::ToServer => faults.to_server = fault,
            Way::ToClient => faults.to_client = fault,
        }
    }

    /// Springs the trap where a chunk holds what is waited for; what of the chunk is lost then.
    fn spring(&self, chunk: &[u8]) -> Range<usize> {
        let mut faults = self.faults.lock().unwrap();
        let Some((bytes, lose)) = &faults.trap else { return 0..0 };
        let Some(at) = find(chunk, bytes) else { return 0..0 };
        let message = rfind(&chunk[..at], b"PUB ").unwrap_or(at)..at + bytes.len();
        let lose = *lose;
        faults.trap = None;
        if lose == Lose::Message {
            return message;
        }
        if lose == Lose::Request {
            faults.to_server = Fault::Swallow;
        }
        faults.to_client = Fault::Swallow;
        0..0
    }
}

/// Where `bytes` begin first in `chunk`.
fn find(chunk: &[u8], bytes: &[u8]) -> Option<usize> {
    chunk.windows(bytes.len()).position(|window| window == bytes)
}

/// Where `bytes` begin last in `chunk`.
fn rfind(chunk: &[u8], bytes: &[u8]) -> Option<usize> {
    chunk.windows(bytes.len()).rposition(|window| window == bytes)
}
