//! A PostgreSQL of the testbed, plain or with TimescaleDB.
//!
//! Guarantees: `JETCOPY_TIMESCALEDB` is the switch. `no` hides the extension from everything that is started
//! here; `yes` loads it and fails if the server does not offer it. Without it, tests use plain PostgreSQL,
//! while `jetcopy demo` and the benches use what the server offers.
//!
//! `initdb` takes a second or more: it runs once a version, and every start copies what it made.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use tokio_postgres::{Client, NoTls};

use super::account::{self, Need};
use super::process::{Server, Stop, as_user};
use super::{Error, directory, io as io_error, programs};
use program::configure;

mod program;

/// What the server says while processes of a killed postmaster are still ending.
const ORPHANS: &str = "pre-existing shared memory block";

/// How long they may take: they notice within milliseconds, unless a loaded machine does not let them run.
const ORPHANS_END: Duration = Duration::from_secs(10);

/// How often it is asked whether jobs that were stopped have ended.
const JOBS_END: Duration = Duration::from_millis(50);

/// Before this version everybody may create in schema `public`, as jetcopy warns of.
const EVERYBODY_CREATES_BEFORE: i32 = 150_000;

/// The switch: `yes` or `no`.
const SWITCH: &str = "JETCOPY_TIMESCALEDB";

/// Whether a private PostgreSQL loads TimescaleDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// As `JETCOPY_TIMESCALEDB` says; without it, no.
    Switched,
    /// Where the server offers it, unless `JETCOPY_TIMESCALEDB` says no.
    Offered,
    /// In no case.
    Never,
}

impl Extension {
    /// Whether it is loaded where the switch is `switch`; `offered`: whether the server has it.
    fn is_loaded(self, switch: String, offered: impl Fn() -> bool) -> Result<bool, Error> {
        let reason = match (self, switch.as_str()) {
            (Self::Never, _) | (Self::Switched | Self::Offered, "no") | (Self::Switched, "") => {
                return Ok(false);
            }
            (Self::Offered, "") => return Ok(offered()),
            (Self::Switched | Self::Offered, "yes") if offered() => return Ok(true),
            (Self::Switched | Self::Offered, "yes") => {
                "the server does not offer TimescaleDB: install it, or set no"
            }
            (Self::Switched | Self::Offered, _) => "it must be yes or no",
        };
        Err(Error::Switch { value: switch, reason })
    }
}

/// What a private PostgreSQL is started with.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether commits survive the machine, as they must in a bench; tests only kill the server, and that
    /// they survive either way.
    pub durable: bool,
    /// Whether TimescaleDB is loaded.
    pub timescaledb: Extension,
    /// `max_connections`
    pub max_connections: u32,
    /// More settings, as `postgresql.conf` takes them; they win over those above.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { durable: false, timescaledb: Extension::Switched, max_connections: 200, settings: Vec::new() }
    }
}

impl PostgresOptions {
    /// Plain PostgreSQL, whatever the switch says.
    #[must_use]
    pub fn plain() -> Self {
        Self { timescaledb: Extension::Never, ..Self::default() }
    }
}

/// A PostgreSQL of one's own. Its superuser is `postgres`.
#[derive(Debug)]
pub struct TestPostgres {
    server: Server,
    program: Postgres,
    databases: AtomicUsize,
    has_timescaledb: bool,
}

#[derive(Debug)]
struct Postgres {
    bin: PathBuf,
    user: Option<User>,
}

impl TestPostgres {
    /// Starts a server and waits until it answers.
    pub fn start(options: &PostgresOptions) -> Result<Self, Error> {
        let program = Postgres { bin: programs::postgres_bin()?, user: server_user() };
        let switch = std::env::var(SWITCH).unwrap_or_default();
        let has_timescaledb = options.timescaledb.is_loaded(switch, || program.offers("timescaledb"))?;
        account::note_store(has_timescaledb, options.timescaledb == Extension::Switched);
        let directory = directory::create()?;
        program.give(directory.path())?;
        let data = directory.path().join("data");
        directory::copy_tree(&program.template()?, &data)?;
        configure(&data, options, has_timescaledb)?;
        let mut server = Server::new("postgres", directory);
        server.start_on_free_port(&program)?;
        Ok(Self { server, program, databases: AtomicUsize::new(0), has_timescaledb })
    }

    /// Whether the server has files of `extension`; if it is to be loaded, that takes a setting.
    pub fn offers(extension: &str) -> Result<bool, Error> {
        Ok(Postgres { bin: programs::postgres_bin()?, user: server_user() }.offers(extension))
    }

    /// An asynchronous standby of this server that streams from it by way of `primary_port`: its own, or that
    /// of a proxy before it.
    pub fn standby(&self, primary_port: u16) -> Result<Self, Error> {
        let program = Postgres { bin: self.program.bin.clone(), user: server_user() };
        let directory = directory::create()?;
        program.give(directory.path())?;
        let path = program.bin.join("pg_basebackup");
        let output = as_user(&path, program.user(), None)
            .args(["--host=127.0.0.1", "--username=postgres", "--checkpoint=fast", "--no-sync"])
            .args(["--wal-method=stream", "--write-recovery-conf"])
            .arg(format!("--port={primary_port}"))
            .arg("--pgdata")
            .arg(directory.path().join("data"))
            .current_dir(directory.path())
            .output()
            .map_err(io_error("run setpriv for", path))?;
        if !output.status.success() {
            let tail = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::NotReady { program: "pg_basebackup", tail });
        }
        let mut server = Server::new("postgres", directory);
        server.start_on_free_port(&program)?;
        Ok(Self { server, program, databases: AtomicUsize::new(0), has_timescaledb: self.has_timescaledb })
    }

    /// Makes a standby the primary; returns when it takes writes.
    pub async fn promote(&self) -> Result<(), Error> {
        let client = connect(&self.url()).await?;
        client.batch_execute("SELECT pg_promote(wait => true)").await?;
        Ok(())
    }

    /// The server that the tests of this process share, each in a database of its own. It ends with its last
    /// user.
    pub fn shared() -> Result<Arc<Self>, Error> {
        static SHARED: Mutex<Weak<TestPostgres>> = Mutex::new(Weak::new());
        let server = super::shared(&SHARED, || Self::start(&PostgresOptions::default()))?;
        account::note_store(server.has_timescaledb, true);
        Ok(server)
    }

    /// As [`Self::shared`], for a test that needs TimescaleDB: `None`, noted as a skip, where this run is on
    /// plain PostgreSQL.
    pub fn shared_timescaledb() -> Result<Option<Arc<Self>>, Error> {
        let server = Self::shared()?;
        Ok((!server.lacks_timescaledb()).then_some(server))
    }

    /// As [`Self::shared`], without TimescaleDB also where the server has it.
    pub fn shared_plain() -> Result<Arc<Self>, Error> {
        static SHARED: Mutex<Weak<TestPostgres>> = Mutex::new(Weak::new());
        let server = super::shared(&SHARED, || Self::start(&PostgresOptions::plain()))?;
        account::note_store(false, false);
        Ok(server)
    }

    /// The address of the maintenance database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// The address of a database.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.server.port)
    }

    /// Where its programs are, such as `psql` and `pg_dump`.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.program.bin
    }

    /// The port it listens on, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.server.log
    }

    /// The postmaster's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Whether TimescaleDB is missing, which is noted as a skip of the test that asks.
    ///
    /// # Panics
    ///
    /// When it is, and `JETCOPY_REQUIRE` names it.
    #[must_use]
    pub fn lacks_timescaledb(&self) -> bool {
        if !self.has_timescaledb {
            account::skip(Need::TimescaleDb);
        }
        !self.has_timescaledb
    }

    /// Whether TimescaleDB is loaded. The extension is yet to be created in each database that wants it.
    #[must_use]
    pub fn has_timescaledb(&self) -> bool {
        self.has_timescaledb
    }

    /// A directory that the server can read and write, for `COPY` from and to files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.server.directory.path()
    }

    /// Creates an empty database with a name of its own and returns its address.
    pub async fn create_database(&self) -> Result<String, Error> {
        self.create_database_named(&format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed))).await
    }

    /// Creates an empty database and returns its address.
    pub async fn create_database_named(&self, name: &str) -> Result<String, Error> {
        let client = connect(&self.url()).await?;
        // template0, for TimescaleDB's launcher may be connected to template1, and then it cannot be copied.
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
        let url = self.database_url(name);
        let version: i32 =
            client.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.get(0);
        if version < EVERYBODY_CREATES_BEFORE {
            let client = connect(&url).await?;
            client.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await?;
        }
        Ok(url)
    }

    /// Stops it and waits until it is gone. Its data and its port stay.
    pub fn stop(&mut self, stop: Stop) {
        self.server.stop(&self.program, stop);
    }

    /// Starts it again on the same port and data; returns when it has recovered and accepts connections.
    ///
    /// # Panics
    ///
    /// When it is running.
    pub fn start_again(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + ORPHANS_END;
        loop {
            match self.server.start(&self.program) {
                Err(Error::NotReady { tail, .. }) if tail.contains(ORPHANS) && Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        self.server.end(&self.program);
    }
}

/// Connects to a private PostgreSQL. The connection ends with its client.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // Whoever uses the client learns how the connection ended.
        let _ = connection.await;
    });
    Ok(client)
}

/// Ends TimescaleDB's scheduler of the client's database, and waits for the jobs that run: from then on they
/// run when a test says so.
pub async fn stop_jobs(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("SELECT _timescaledb_functions.stop_background_workers()").await?;
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type NOT IN ('client backend', 'autovacuum worker', 'parallel worker')";
    while client.query_one(workers, &[]).await?.get::<_, i64>(0) > 0 {
        tokio::time::sleep(JOBS_END).await;
    }
    Ok(())
}

/// Who the server runs as: PostgreSQL refuses root, so then its packages' own user, or else nobody.
pub(super) fn server_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn the_switch_hides_timescaledb_unless_it_says_yes_and_then_it_must_be_there() {
        let loaded = |extension: Extension, switch: &str, offered| {
            extension.is_loaded(switch.to_owned(), || offered).map_err(|error| error.to_string())
        };
        for offered in [false, true] {
            assert_eq!(loaded(Extension::Switched, "", offered), Ok(false));
            assert_eq!(loaded(Extension::Offered, "", offered), Ok(offered));
            for extension in [Extension::Switched, Extension::Offered] {
                assert_eq!(loaded(extension, "no", offered), Ok(false));
                assert_eq!(loaded(extension, "yes", offered).is_ok(), offered);
                assert!(loaded(extension, "true", offered).unwrap_err().contains("yes or no"));
            }
            assert_eq!(loaded(Extension::Never, "yes", offered), Ok(false));
        }
    }

    #[tokio::test]
    async fn a_killed_postgres_comes_back_on_its_port_with_what_it_had_committed() {
        let mut postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
        let url = postgres.create_database().await.unwrap();
        let client = connect(&url).await.unwrap();
        client.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
        postgres.stop(Stop::Kill);
        assert!(connect(&url).await.is_err());
        postgres.start_again().unwrap();
        let client = connect(&url).await.unwrap();
        let n: i32 = client.query_one("SELECT n FROM t", &[]).await.unwrap().get(0);
        assert_eq!(n, 7);
    }

    #[test]
    fn a_dropped_postgres_is_gone_with_its_directory() {
        let postgres = TestPostgres::start(&PostgresOptions::default()).unwrap();
        let (port, directory) = (postgres.port(), postgres.directory().to_path_buf());
        drop(postgres);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        assert!(!directory.exists());
    }

    #[test]
    fn a_postgres_outlives_the_thread_that_started_it() {
        let postgres = std::thread::spawn(|| TestPostgres::start(&PostgresOptions::default()).unwrap());
        let mut postgres = postgres.join().unwrap();
        let pid = postgres.pid().unwrap();
        // Were it signalled, the state in its pid file would have changed to "stopping" by the time it had
        // restarted.
        postgres.stop(Stop::Fast);
        let log = std::fs::read_to_string(postgres.log()).unwrap();
        assert!(log.contains("received fast shutdown request"), "{log}");
        assert!(!log.contains("received immediate shutdown request"), "{log}");
        assert!(pid > 0);
    }

    #[tokio::test]
    async fn extra_settings_win_over_the_built_in_ones() {
        let settings = vec![("max_connections".to_owned(), "17".to_owned())];
        let postgres = TestPostgres::start(&PostgresOptions { settings, ..Default::default() }).unwrap();
        let client = connect(&postgres.url()).await.unwrap();
        let value: String = client.query_one("SHOW max_connections", &[]).await.unwrap().get(0);
        assert_eq!(value, "17");
    }
}
