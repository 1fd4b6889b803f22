//! PostgreSQL's programs: a data directory, its configuration, and a server on it.
//!
//! Guarantees: `initdb` runs once a version and user; nobody else's directory is taken for its result. The
//! server runs as whom PostgreSQL does not refuse.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::{Postgres, PostgresOptions};
use crate::testbed::process::{Program, Server, Stop, as_user, log_to, spawn_tied};
use crate::testbed::{Error, directory, io as io_error};

/// The line of `postmaster.pid` that holds the server's state (`LOCK_FILE_LINE_PM_STATUS` in `pidfile.h`).
const STATUS_LINE: usize = 8;

pub(super) fn configure(data: &Path, options: &PostgresOptions, timescaledb: bool) -> Result<(), Error> {
    let mut settings = vec![
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("unix_socket_directories", String::new()),
        ("max_connections", options.max_connections.to_string()),
    ];
    if !options.durable {
        settings.extend([("fsync", "off".to_owned()), ("full_page_writes", "off".to_owned())]);
    }
    if timescaledb {
        settings.extend([
            ("shared_preload_libraries", "timescaledb".to_owned()),
            ("timescaledb.telemetry_level", "off".to_owned()),
            // Each database with the extension holds a worker for its scheduler, and tests make many
            // databases.
            ("timescaledb.max_background_workers", "64".to_owned()),
            ("max_worker_processes", "80".to_owned()),
        ]);
    }
    settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
    // Of several lines for one setting the last wins.
    let lines: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name} = '{}'", value.replace('\'', "''"))).collect();
    let path = data.join("postgresql.conf");
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "\n{}", lines.join("\n")))
        .map_err(io_error("write", path))
}

impl Postgres {
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.name.as_str())
    }

    /// Makes the server's user the owner of a directory.
    pub(super) fn give(&self, directory: &Path) -> Result<(), Error> {
        let Some(user) = &self.user else { return Ok(()) };
        std::os::unix::fs::chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(io_error("change the owner of", directory))
    }

    pub(super) fn offers(&self, extension: &str) -> bool {
        let Ok(output) = Command::new(self.bin.join("pg_config")).arg("--sharedir").output() else {
            return false;
        };
        let share = String::from_utf8_lossy(&output.stdout);
        Path::new(share.trim()).join(format!("extension/{extension}.control")).is_file()
    }

    /// A data directory fresh from `initdb`, made once for each version and user.
    pub(super) fn template(&self) -> Result<PathBuf, Error> {
        let version = Command::new(self.bin.join("postgres"))
            .arg("--version")
            .output()
            .map_err(io_error("run", self.bin.join("postgres")))?;
        // "postgres (PostgreSQL) 15.20 (Debian …)"
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.split_whitespace().nth(2).unwrap_or("unknown");
        let uid = self.user.as_ref().map_or_else(Uid::effective, |user| user.uid);
        let template = std::env::temp_dir().join(format!("jetcopy-postgres-{version}-{uid}"));
        if is_template(&template, uid) {
            return Ok(template);
        }
        let directory = directory::create()?;
        self.give(directory.path())?;
        let fresh = directory.path().join("data");
        let output = as_user(&self.bin.join("initdb"), self.user(), None)
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"])
            .arg("--pgdata")
            .arg(&fresh)
            .current_dir(directory.path())
            .output()
            .map_err(io_error("run setpriv for", self.bin.join("initdb")))?;
        if !output.status.success() {
            let tail = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::NotReady { program: "initdb", tail });
        }
        match std::fs::rename(&fresh, &template) {
            // Another process was quicker.
            Err(_) if is_template(&template, uid) => Ok(template),
            Err(source) => Err(Error::Io { action: "create", path: template, source }),
            Ok(()) => Ok(template),
        }
    }
}

/// Whether it is a whole data directory, and not one that another user put in its place: the name can be
/// guessed.
fn is_template(path: &Path, owner: Uid) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == owner.as_raw())
        && path.join("PG_VERSION").is_file()
}

impl Program for Postgres {
    fn spawn(&self, server: &Server, log: File) -> io::Result<Child> {
        let directory = server.directory.path();
        let mut logged = Ok(());
        // SIGQUIT is the immediate mode: the server ends its backends and gives its shared memory back.
        let child = spawn_tied(&self.bin.join("postgres"), self.user(), Signal::SIGQUIT, |command| {
            command.arg("-D").arg(directory.join("data")).arg("-p").arg(server.port.to_string());
            command.current_dir(directory);
            logged = log_to(command, &log);
        });
        logged.and(child)
    }

    fn is_ready(&self, server: &Server) -> bool {
        let Ok(text) = std::fs::read_to_string(server.directory.path().join("data/postmaster.pid")) else {
            return false;
        };
        let mut lines = text.lines();
        let ours = lines.next().and_then(|pid| pid.trim().parse().ok()) == server.pid();
        ours && lines.nth(STATUS_LINE - 2).is_some_and(|status| status.trim() == "ready")
    }

    fn signal(&self, stop: Stop) -> Signal {
        match stop {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
            Stop::Kill => Signal::SIGKILL,
        }
    }
}
