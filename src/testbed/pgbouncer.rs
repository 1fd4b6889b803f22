//! A PgBouncer in transaction mode, in front of a PostgreSQL of the testbed.
//!
//! Guarantees: those of [`super`]; fewer server connections than a test has clients, so that they are shared.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Child;

use nix::sys::signal::Signal;
use nix::unistd::User;

use super::account::{self, Need};
use super::postgres::server_user;
use super::process::{Program, Server, Stop, log_to, spawn_tied};
use super::{Error, TestPostgres, directory, io as io_error, programs};

/// Server connections a database: fewer than the clients of any test that means to see them shared, and more
/// than one, so that two transactions of one client can meet two server sessions.
const POOL_SIZE: u32 = 2;

/// Seconds after which it tries a server again that was away. Its default of 15 would be the time of every
/// recovery.
const LOGIN_RETRY: u32 = 1;

/// A PgBouncer of one's own.
#[derive(Debug)]
pub struct TestPgBouncer {
    server: Server,
    program: PgBouncer,
}

#[derive(Debug)]
struct PgBouncer {
    path: PathBuf,
    user: Option<User>,
    postgres_port: u16,
}

impl TestPgBouncer {
    /// Starts a pooler in front of `postgres` and waits until it answers.
    pub fn start(postgres: &TestPostgres) -> Result<Self, Error> {
        let mut program =
            PgBouncer { path: programs::pgbouncer()?, user: server_user(), postgres_port: postgres.port() };
        let directory = directory::create()?;
        if let Some(user) = &program.user {
            // It may lie below root's home, where that user cannot run it.
            let copy = directory.path().join("pgbouncer");
            std::fs::copy(&program.path, &copy).map_err(io_error("copy", &program.path))?;
            program.path = copy;
            chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .map_err(io_error("change the owner of", directory.path()))?;
        }
        let mut server = Server::new("pgbouncer", directory);
        server.start_on_free_port(&program)?;
        Ok(Self { server, program })
    }

    /// The same for a test that needs one: `None`, noted as a skip, where the program is missing.
    ///
    /// # Panics
    ///
    /// When it is, and `JETCOPY_REQUIRE` names it.
    pub fn start_or_skip(postgres: &TestPostgres) -> Result<Option<Self>, Error> {
        Self::start_or_leave_out(postgres, account::TEST)
    }

    /// The same for a test of which only `what` needs one.
    ///
    /// # Panics
    ///
    /// When the program is missing, and `JETCOPY_REQUIRE` names it.
    pub fn start_or_leave_out(postgres: &TestPostgres, what: &str) -> Result<Option<Self>, Error> {
        match Self::start(postgres) {
            Ok(pooler) => Ok(Some(pooler)),
            Err(Error::Missing { .. }) => {
                account::leave_out(Need::PgBouncer, what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Turns new server connections to `postgres`, without a restart.
    pub fn point_to(&mut self, postgres: &TestPostgres) -> Result<(), Error> {
        self.program.postgres_port = postgres.port();
        self.program
            .configure(&self.server)
            .map_err(io_error("write the configuration in", self.server.directory.path()))?;
        self.server.signal(Signal::SIGHUP);
        Ok(())
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

    /// The port it listens on, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The address, through the pooler, of the database that `url` names at the server.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replace(&format!(":{}/", self.program.postgres_port), &format!(":{}/", self.server.port))
    }
}

impl Drop for TestPgBouncer {
    fn drop(&mut self) {
        self.server.end(&self.program);
    }
}

impl PgBouncer {
    /// Writes its configuration.
    fn configure(&self, server: &Server) -> io::Result<()> {
        let directory = server.directory.path();
        let at = |name: &str| directory.join(name).display().to_string();
        std::fs::write(at("users.txt"), "\"postgres\" \"\"\n")?;
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npidfile = {}\nstats_users = postgres\n\
             pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\n\
             server_login_retry = {LOGIN_RETRY}\n",
            self.postgres_port,
            server.port,
            at("users.txt"),
            at("pgbouncer.pid"),
        );
        std::fs::write(at("pgbouncer.ini"), text)
    }
}

impl Program for PgBouncer {
    fn spawn(&self, server: &Server, log: File) -> io::Result<Child> {
        self.configure(server)?;
        // A killed one leaves its file behind, and the next refuses to start while it names a process.
        let _ = std::fs::remove_file(server.directory.path().join("pgbouncer.pid"));
        let user = self.user.as_ref().map(|user| user.name.as_str());
        let mut logged = Ok(());
        let child = spawn_tied(&self.path, user, Signal::SIGTERM, |command| {
            command.arg("pgbouncer.ini").current_dir(server.directory.path());
            logged = log_to(command, &log);
        });
        logged.and(child)
    }

    fn is_ready(&self, server: &Server) -> bool {
        // It writes its process id only once it listens.
        let ours = std::fs::read_to_string(server.directory.path().join("pgbouncer.pid"))
            .is_ok_and(|text| text.trim().parse().ok() == server.pid());
        ours && TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_ok()
    }

    fn signal(&self, stop: Stop) -> Signal {
        match stop {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGTERM,
            Stop::Kill => Signal::SIGKILL,
        }
    }
}
