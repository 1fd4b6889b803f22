//! A way to a server on loopback that takes as long as one to another site.
//!
//! Guarantees: each byte arrives so much later than it was sent, in order, and however many are on their way:
//! distance costs time, not bandwidth. It loses nothing.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Chunks that may be on their way: more than any window of TCP holds within the longest distance.
const CHUNKS: usize = 1 << 12;

/// A port that leads to a server far away; it ends with its value.
#[derive(Debug)]
pub struct Distance {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Distance {
    /// A way to `server_port` there and back again in `round_trip`.
    pub async fn start(server_port: u16, round_trip: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server_port, round_trip / 2));
            }
        });
        Ok(Self { port, accepting })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(client: TcpStream, server_port: u16, later: Duration) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // The end of either way is that of the connection.
    tokio::select! {
        ended = pass(from_client, to_server, later) => ended,
        ended = pass(from_server, to_client, later) => ended,
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    later: Duration,
) -> io::Result<()> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let reads = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if from.read_buf(&mut chunk).await? == 0
                || sender.send((Instant::now() + later, chunk)).await.is_err()
            {
                return Ok(());
            }
        }
    };
    let writes = async move {
        while let Some((at, chunk)) = chunks.recv().await {
            sleep_until(at).await;
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    let (read, written): (io::Result<()>, io::Result<()>) = tokio::join!(reads, writes);
    read.and(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_trip_takes_its_time_however_much_is_on_the_way() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut from, mut to) = stream.into_split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        let round_trip = Duration::from_millis(50);
        let distance = Distance::start(server, round_trip).await.unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, distance.port())).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let started = Instant::now();
        let sent = tokio::spawn(async move {
            to.write_all(&vec![7; 1 << 20]).await.unwrap();
            to
        });
        let mut got = vec![0; 1 << 20];
        from.read_exact(&mut got).await.unwrap();
        assert!(started.elapsed() >= round_trip, "{:?}", started.elapsed());
        assert!(got.iter().all(|&byte| byte == 7));
        drop(sent.await.unwrap());
    }
}
