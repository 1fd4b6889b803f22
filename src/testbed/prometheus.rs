//! A Prometheus of the testbed, and exporters for it to scrape: Debian's for PostgreSQL and for the machine.
//!
//! Guarantees: those of [`super`]; what Prometheus has stored ends with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::{Program, Server, Stop, log_to, spawn_tied};
use super::{Error, directory, programs};

/// How long an answer may take: a scrape of a loaded database takes a second or two.
const ANSWER: Duration = Duration::from_secs(30);

/// A Prometheus of one's own.
#[derive(Debug)]
pub struct TestPrometheus {
    server: Server,
    program: Scraper,
}

/// An exporter of one's own.
#[derive(Debug)]
pub struct TestExporter {
    server: Server,
    program: Scraper,
}

/// A program that serves HTTP and takes its address by one and the same flag.
#[derive(Debug)]
struct Scraper {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl TestPrometheus {
    /// Starts one with that configuration file, and waits until it answers. Its data ends with it.
    pub fn start(config: &Path) -> Result<Self, Error> {
        let directory = directory::create()?;
        let program = Scraper {
            path: programs::prometheus()?,
            arguments: vec![
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", directory.path().join("data").display()),
            ],
            environment: Vec::new(),
        };
        let mut server = Server::new("prometheus", directory);
        server.start_on_free_port(&program)?;
        Ok(Self { server, program })
    }

    /// The status code and the body that `path` answers.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        get(self.server.port, path)
    }
}

impl TestExporter {
    /// Starts Debian's `postgres_exporter` for the database at `url`, with these custom queries.
    pub fn postgres(url: &str, queries: Option<&Path>) -> Result<Self, Error> {
        let arguments = queries.map(|path| format!("--extend.query-path={}", path.display()));
        Self::start(
            "prometheus-postgres-exporter",
            Scraper {
                path: programs::postgres_exporter()?,
                arguments: arguments.into_iter().collect(),
                environment: vec![("DATA_SOURCE_NAME", format!("{url}?sslmode=disable"))],
            },
        )
    }

    /// Starts Debian's `node_exporter`, for file systems only.
    pub fn node() -> Result<Self, Error> {
        let arguments = ["--collector.disable-defaults", "--collector.filesystem"].map(str::to_owned);
        Self::start(
            "prometheus-node-exporter",
            Scraper {
                path: programs::node_exporter()?,
                arguments: arguments.into(),
                environment: Vec::new(),
            },
        )
    }

    fn start(name: &'static str, program: Scraper) -> Result<Self, Error> {
        let mut server = Server::new(name, directory::create()?);
        server.start_on_free_port(&program)?;
        Ok(Self { server, program })
    }

    /// The port it listens on, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// What it exports now.
    pub fn metrics(&self) -> io::Result<String> {
        Ok(get(self.server.port, "/metrics")?.1)
    }

    /// Stops it and waits until it is gone. Its port stays.
    pub fn stop(&mut self, stop: Stop) {
        self.server.stop(&self.program, stop);
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    ///
    /// When it is running.
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.server.start(&self.program)
    }
}

impl Drop for TestPrometheus {
    fn drop(&mut self) {
        self.server.end(&self.program);
    }
}

impl Drop for TestExporter {
    fn drop(&mut self) {
        self.server.end(&self.program);
    }
}

impl Program for Scraper {
    fn spawn(&self, server: &Server, log: File) -> io::Result<Child> {
        let mut logged = Ok(());
        let child = spawn_tied(&self.path, None, Signal::SIGKILL, |command| {
            command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
            command.arg(format!("--web.listen-address=127.0.0.1:{}", server.port));
            command.current_dir(server.directory.path());
            logged = log_to(command, &log);
        });
        logged.and(child)
    }

    fn is_ready(&self, server: &Server) -> bool {
        // The port cannot be bound twice: whoever answers while the child lives is the child. An exporter
        // knows no such path as Prometheus does, and shows its start page.
        matches!(get(server.port, "/-/ready"), Ok((200, _)))
    }

    fn signal(&self, stop: Stop) -> Signal {
        match stop {
            Stop::Fast => Signal::SIGTERM,
            Stop::Immediate | Stop::Kill => Signal::SIGKILL,
        }
    }
}

/// The status code and the body that a server on loopback answers. HTTP/1.0, so that the body ends with the
/// connection.
fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an answer of HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, body.to_owned()))
}
