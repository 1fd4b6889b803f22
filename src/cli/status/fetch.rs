//! The daemon's answers over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::{Http, read_secret};

/// How long a daemon may take to answer: it answers from memory.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of an answer that are taken: thousands of pipelines.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens there, or the connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Something listens there but does not answer.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Something else listens there, or the token is wrong.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

/// Where a daemon that listens on `address` is reached from here.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// What `/status` answers.
pub(super) async fn status(settings: &Http) -> Result<Value, Error> {
    let body = get(settings, "/status").await?;
    serde_json::from_slice(&body).map_err(|_| Error::Answer("not JSON".to_owned()))
}

/// The body of a successful answer to a daemon with these settings, whose token is sent along.
pub async fn get(settings: &Http, path: &str) -> Result<Vec<u8>, Error> {
    let token = settings.token_file.as_deref().map(read_secret).transpose()?;
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = request(reachable(settings.listen), path, &token);
    tokio::time::timeout(TIMEOUT, request).await.map_err(|_| Error::Timeout)?
}

/// One request of HTTP 1.0, which is answered whole and closed.
async fn request(address: SocketAddr, path: &str, headers: &str) -> Result<Vec<u8>, Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let body = answer.split_off(end);
    let head = String::from_utf8_lossy(&answer);
    match head.lines().next().and_then(|line| line.split(' ').nth(1)) {
        Some("200") => Ok(body),
        Some(code) => Err(Error::Answer(format!("status {code}"))),
        None => Err(Error::Answer("not HTTP".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_at_loopback() {
        assert_eq!(reachable("0.0.0.0:9464".parse().unwrap()).to_string(), "127.0.0.1:9464");
        assert_eq!(reachable("[::]:9464".parse().unwrap()).to_string(), "[::1]:9464");
        assert_eq!(reachable("10.0.0.7:9464".parse().unwrap()).to_string(), "10.0.0.7:9464");
    }
}
