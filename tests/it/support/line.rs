//! A long or thin line between the daemon and a server: what passes arrives later, and no faster than the
//! line carries it.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks under way in one direction: more than a second of a fast line.
const UNDER_WAY: usize = 16 * 1024;

/// A running line; it ends with its value.
pub(crate) struct Line {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Line {
    /// Listens on a free port of loopback for `server_port`, which is `away` there and back. It carries
    /// `rate` bytes a second to the client, as many as come where there is none.
    pub(crate) async fn start(server_port: u16, away: Duration, rate: Option<u32>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await.unwrap();
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, away / 2, None));
                tokio::spawn(carry(from_server, to_client, away / 2, rate));
            }
        });
        Self { port, accepting }
    }

    /// `url`, which names a server at a port of loopback, through this line.
    pub(crate) fn through(&self, url: &str) -> String {
        let (host, _) = url.rsplit_once(':').unwrap();
        format!("{host}:{}", self.port)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, rate: Option<u32>) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let arriving = tokio::spawn(async move {
        while let Some((at, chunk)) = receiver.recv().await {
            sleep_until(at).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
    let mut free = Instant::now();
    loop {
        let mut chunk = vec![0; CHUNK];
        let Ok(read @ 1..) = from.read(&mut chunk).await else { break };
        chunk.truncate(read);
        free = free.max(Instant::now());
        if let Some(rate) = rate {
            free += Duration::from_secs(1) * u32::try_from(read).unwrap() / rate;
            // What the line has not taken yet stays with the sender.
            sleep_until(free).await;
        }
        if sender.send((free + delay, chunk)).await.is_err() {
            break;
        }
    }
    drop(sender);
    let _ = arriving.await;
}
