//! The daemon as a process of its own, so that its CPU time and its memory are its own.
//!
//! Guarantees: it has the settings that it is given and none of the environment's; it ends with its value, at
//! the latest with this process; when it has failed, the end of its log is in the error.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::process::{self, Processes};
use super::{Error, io};
use crate::config::{Nats, Postgres, Tls};
use crate::testbed::spawn_tied;

/// How long it may take to stop: longer than the 20 s after which it gives up by itself.
const STOP: Duration = Duration::from_secs(25);
/// How often it is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);
/// Lines of a log worth showing.
const TAIL_LINES: usize = 20;

/// A running `jetcopy run`.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// Holds the configuration, which may hold a password, where only this user can read.
    _directory: TempDir,
}

impl Daemon {
    /// Starts `program`, which is jetcopy, with this configuration.
    pub fn start(program: &Path, config: &str) -> Result<Self, Error> {
        let directory = tempfile::tempdir().map_err(io("create a directory in", std::env::temp_dir()))?;
        let (file, log) = (directory.path().join("jetcopy.toml"), directory.path().join("jetcopy.log"));
        std::fs::write(&file, config).map_err(io("write", &file))?;
        let output = File::create(&log).map_err(io("create", &log))?;
        let errors = output.try_clone().map_err(io("open", &log))?;
        let child = spawn_tied(program, None, Signal::SIGKILL, |command| {
            command.arg("run").arg("--config").arg(&file);
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("JETCOPY_") {
                    command.env_remove(name);
                }
            }
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        });
        Ok(Self { child: child.map_err(io("run setpriv for", program))?, log, _directory: directory })
    }

    /// Its process.
    #[must_use]
    pub fn processes(&self) -> Processes {
        Processes::One(self.child.id())
    }

    /// User and system time so far.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        Ok(self.processes().usage().map_err(io("read", "/proc"))?.cpu_seconds)
    }

    /// The most memory that it has had at a time.
    pub fn peak_memory_mib(&self) -> Result<f64, Error> {
        process::peak_memory_mib(self.child.id()).map_err(io("read", "/proc"))
    }

    /// An error where it has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait().map_err(io("wait for", "jetcopy run"))? {
            None => Ok(()),
            Some(status) => Err(self.failed(format!("has ended: {status}"))),
        }
    }

    /// An error that says what it did and how its log ends.
    #[must_use]
    pub fn failed(&self, what: impl Into<String>) -> Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Error::Daemon { what: what.into(), tail }
    }

    /// Stops it in order.
    pub async fn stop(mut self) -> Result<(), Error> {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself, which shows below.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = tokio::time::Instant::now() + STOP;
        loop {
            match self.child.try_wait().map_err(io("wait for", "jetcopy run"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(format!("did not stop cleanly: {status}"))),
                None if tokio::time::Instant::now() > deadline => {
                    return Err(self.failed(format!("did not stop within {STOP:?}")));
                }
                None => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sections of a configuration that every daemon of a run has: the servers, a port of its own, a quiet
/// log.
#[must_use]
pub fn settings(nats: &Nats, postgres: &Postgres) -> String {
    let Nats {
        url,
        // What it says is in the others.
        context: _,
        credentials_file,
        nkey_file,
        token_file,
        user,
        password_file,
        inbox_prefix,
        handshake_first,
        tls,
    } = nats;
    let mut text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n[nats]\nurl = {}\ninbox_prefix = {}\n\
         handshake_first = {handshake_first}\n",
        quoted(url),
        quoted(inbox_prefix)
    );
    let files = [
        ("credentials_file", credentials_file),
        ("nkey_file", nkey_file),
        ("token_file", token_file),
        ("password_file", password_file),
    ];
    add_files(&mut text, &files);
    if let Some(user) = user {
        let _ = writeln!(text, "user = {}", quoted(user));
    }
    add_tls(&mut text, "nats", tls.as_ref());
    let Postgres { url, password_file, connect_timeout, step_timeout, tls } = postgres;
    let _ = writeln!(
        text,
        "[postgres]\nurl = {}\nconnect_timeout = \"{}ms\"\nstep_timeout = \"{}ms\"",
        quoted(url),
        connect_timeout.as_millis(),
        step_timeout.as_millis()
    );
    add_files(&mut text, &[("password_file", password_file)]);
    add_tls(&mut text, "postgres", tls.as_ref());
    text
}

fn add_files(text: &mut String, files: &[(&str, &Option<PathBuf>)]) {
    for (name, file) in files {
        if let Some(file) = file {
            let _ = writeln!(text, "{name} = {}", quoted(&file.to_string_lossy()));
        }
    }
}

fn add_tls(text: &mut String, section: &str, tls: Option<&Tls>) {
    if let Some(Tls { ca_file, cert_file, key_file }) = tls {
        let _ = writeln!(text, "[{section}.tls]");
        add_files(text, &[("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)]);
    }
}

/// As TOML has strings; JSON's are a part of those.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_daemon_gets_every_setting_of_the_servers() {
        let tls = |name: &str| {
            let file = |end: &str| Some(PathBuf::from(format!("/{name}/{end}")));
            Tls { ca_file: file("ca"), cert_file: file("cert"), key_file: file("key") }
        };
        let nats = Nats {
            url: "nats://a:1,nats://b:2".into(),
            context: None,
            credentials_file: Some("/a \"quoted\" file".into()),
            nkey_file: Some("/nkey".into()),
            token_file: Some("/token".into()),
            user: Some("u\\v".into()),
            password_file: Some("/password".into()),
            inbox_prefix: "_INBOX_other".into(),
            handshake_first: true,
            tls: Some(tls("nats")),
        };
        let postgres = Postgres {
            url: "host=db password='a b'".into(),
            password_file: Some("/secret".into()),
            connect_timeout: Duration::from_millis(1_500),
            step_timeout: Duration::from_mins(2),
            tls: Some(tls("postgres")),
        };
        let config: Config = Figment::from(Toml::string(&settings(&nats, &postgres))).extract().unwrap();
        assert_eq!((config.nats, config.postgres), (nats, postgres));
    }
}
