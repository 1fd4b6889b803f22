//! A `nats-server` of the testbed, with JetStream on file storage.
//!
//! Guarantees: those of [`super`]; a restart keeps port and data.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, Weak};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{Program, Server, Stop, free_port, log_to, spawn_tied};
use super::{Error, directory, programs};

/// What a private NATS server is started with.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// More lines of its configuration file. One that begins with `jetstream` takes the place of the server's
    /// own, with `STORE` for the directory of its streams.
    pub config: String,
}

/// A NATS server of one's own.
#[derive(Debug)]
pub struct TestNats {
    server: Server,
    program: NatsServer,
}

#[derive(Debug)]
struct NatsServer {
    path: PathBuf,
    config: String,
}

impl TestNats {
    /// Starts a server and waits until it answers.
    pub fn start(options: &NatsOptions) -> Result<Self, Error> {
        let program = NatsServer { path: programs::nats_server()?, config: options.config.clone() };
        let mut server = Server::new("nats-server", directory::create()?);
        server.start_on_free_port(&program)?;
        Ok(Self { server, program })
    }

    /// Starts `size` servers that form one cluster. They answer at once; JetStream does when they have
    /// elected a leader.
    pub fn start_cluster(size: usize) -> Result<Vec<Self>, Error> {
        let mut ports = BTreeSet::new();
        while ports.len() < size {
            ports.insert(free_port());
        }
        let routes: Vec<String> = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let start = |(index, port): (usize, &u16)| {
            let config = format!(
                "server_name: \"n{index}\"\ncluster {{ name: \"private\", listen: \"127.0.0.1:{port}\", \
                 routes: [{}] }}",
                routes.join(", ")
            );
            Self::start(&NatsOptions { config })
        };
        ports.iter().enumerate().map(start).collect()
    }

    /// The server that the tests of this process share. It ends with its last user.
    pub fn shared() -> Result<Arc<Self>, Error> {
        static SHARED: Mutex<Weak<TestNats>> = Mutex::new(Weak::new());
        super::shared(&SHARED, || Self::start(&NatsOptions::default()))
    }

    /// The address for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.server.port)
    }

    /// The port it listens on, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The directory of its streams and consumers.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        NatsServer::store(&self.server)
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.server.log
    }

    /// The server's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Stops it and waits until it is gone. Its data and its port stay.
    pub fn stop(&mut self, stop: Stop) {
        self.server.stop(&self.program, stop);
    }

    /// Lets the running server read another configuration, as an operator does who changes it.
    pub fn reconfigure(&mut self, config: &str) -> Result<(), Error> {
        config.clone_into(&mut self.program.config);
        let path =
            self.program.write(&self.server).map_err(super::io("write", self.server.directory.path()))?;
        let Some(pid) = self.server.pid().and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
        kill(Pid::from_raw(pid), Signal::SIGHUP).map_err(|error| super::io("reload", path)(error.into()))
    }

    /// Starts it again on the same port and data.
    ///
    /// # Panics
    ///
    /// When it is running.
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.server.start(&self.program)
    }
}

impl Drop for TestNats {
    fn drop(&mut self) {
        self.server.end(&self.program);
    }
}

impl NatsServer {
    fn store(server: &Server) -> PathBuf {
        server.directory.path().join("store")
    }

    /// Writes its configuration file; where.
    fn write(&self, server: &Server) -> io::Result<PathBuf> {
        let path = server.directory.path().join("nats.conf");
        let store = format!("\"{}\"", Self::store(server).display());
        let own = self.config.lines().any(|line| line.starts_with("jetstream"));
        let jetstream = if own { String::new() } else { format!("jetstream {{ store_dir: {store} }}\n") };
        let lines = self.config.replace("STORE", &store);
        std::fs::write(&path, format!("listen: \"127.0.0.1:{}\"\n{jetstream}{lines}\n", server.port))?;
        Ok(path)
    }

    fn pid_file(server: &Server) -> PathBuf {
        server.directory.path().join("nats.pid")
    }
}

impl Program for NatsServer {
    fn spawn(&self, server: &Server, log: File) -> io::Result<Child> {
        let directory = server.directory.path();
        let config = self.write(server)?;
        // What a server that was killed wrote would make this one look ready.
        match std::fs::remove_file(Self::pid_file(server)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut logged = Ok(());
        let child = spawn_tied(&self.path, None, Signal::SIGKILL, |command| {
            command
                .arg("--config")
                .arg(&config)
                .arg("--pid")
                .arg(Self::pid_file(server))
                .current_dir(directory);
            logged = log_to(command, &log);
        });
        logged.and(child)
    }

    fn is_ready(&self, server: &Server) -> bool {
        // The server writes its process id before it listens: with it, whoever answers on the port is this
        // server, for the port cannot be bound twice, and JetStream is up before clients are let in.
        let ours = std::fs::read_to_string(Self::pid_file(server))
            .is_ok_and(|text| text.trim().parse().ok() == server.pid());
        ours && TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_ok()
    }

    fn signal(&self, stop: Stop) -> Signal {
        match stop {
            Stop::Fast => Signal::SIGTERM,
            Stop::Immediate | Stop::Kill => Signal::SIGKILL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_nats_server_comes_back_on_its_port_with_its_streams() {
        let mut nats = TestNats::start(&NatsOptions::default()).unwrap();
        let port = nats.port();
        let stream = || async_nats::jetstream::stream::Config { name: "S".into(), ..Default::default() };
        {
            let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
            jetstream.create_stream(stream()).await.unwrap();
            jetstream.publish("S", "kept".into()).await.unwrap().await.unwrap();
        }
        nats.stop(Stop::Kill);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        nats.start_again().unwrap();
        assert_eq!(nats.port(), port);
        let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let mut stream = jetstream.get_stream("S").await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
    }

    #[test]
    fn a_dropped_nats_server_is_gone_with_its_directory() {
        let nats = TestNats::start(&NatsOptions::default()).unwrap();
        let (port, directory) = (nats.port(), nats.server.directory.path().to_path_buf());
        drop(nats);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        assert!(!directory.exists());
    }

    #[test]
    fn a_nats_server_that_does_not_start_says_why() {
        let error = TestNats::start(&NatsOptions { config: "no_such_key: 1".into() }).unwrap_err();
        assert!(error.to_string().contains("no_such_key"), "{error}");
    }
}
