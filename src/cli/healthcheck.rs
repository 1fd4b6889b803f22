//! `jetcopy healthcheck`: asks the daemon of this machine whether it answers, for containers that hold nothing else.
//!
//! Guarantees: it ends with success only when `/healthz` answered 200 within [`PATIENCE`].

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, asking and answering may take each: a healthy daemon answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the daemon is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("nobody answers on {0}; is http.listen the daemon's?")]
    Silent(SocketAddr, #[source] io::Error),
    /// Something else answers.
    #[error("{0} answers {1:?}")]
    Unwell(SocketAddr, String),
}

/// Runs the command.
pub fn run(listen: SocketAddr) -> Result<(), Error> {
    let address = reachable(listen);
    let head = ask(address).map_err(|error| Error::Silent(address, error))?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(Error::Unwell(address, head)) }
}

/// An address to ask of one to listen on: one that stands for all stands for the loopback too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, listen.port()).into()
}

/// The first line of the answer.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: jetcopy\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_everywhere_is_asked_on_the_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.1.2.3:9464", "10.1.2.3:9464"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn nobody_there_is_no_success() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(run(free), Err(Error::Silent(..))));
    }
}
