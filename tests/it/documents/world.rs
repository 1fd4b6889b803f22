//! A place where the commands of a document run as they are printed: servers of its own, whose addresses
//! stand in the environment.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use async_nats::jetstream;
use jetcopy::testbed::{TestNats, TestPostgres, connect, spawn_tied};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::support::eventually;

use super::own;

/// The shell of the documents.
const BASH: &str = "/bin/bash";

/// An address that nobody listens on.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The daemon that a document starts; it ends with its value.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct World {
    pub(super) directory: TempDir,
    pub(super) database: Client,
    pub(super) jetstream: jetstream::Context,
    variables: Vec<(&'static str, String)>,
    daemon: Option<Running>,
}

impl World {
    pub(super) async fn new(nats: &TestNats, postgres: &TestPostgres) -> Self {
        let url = postgres.create_database().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        for shown in ["config", "scripts"] {
            std::os::unix::fs::symlink(own(shown), directory.path().join(shown)).unwrap();
        }
        // The servers ask for none; the file must be there where a document names it.
        let password = directory.path().join("password");
        std::fs::write(&password, "none").unwrap();
        // Else `jetcopy check` says so.
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_jetcopy")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let variables = vec![
            ("PATH", path),
            ("HOME", directory.path().display().to_string()),
            ("DATABASE_URL", url.clone()),
            ("JETCOPY_NATS__URL", nats.url()),
            ("JETCOPY_POSTGRES__URL", url.clone()),
            ("JETCOPY_POSTGRES__PASSWORD_FILE", password.display().to_string()),
            ("JETCOPY_HTTP__LISTEN", free_address()),
        ];
        let client = async_nats::connect(nats.url()).await.unwrap();
        let database = connect(&url).await.unwrap();
        Self { directory, database, jetstream: jetstream::new(client), variables, daemon: None }
    }

    /// On a server that has nothing yet: the document makes the role `jetcopy` and its database `metadata`.
    pub(super) async fn empty(nats: &TestNats, postgres: &TestPostgres) -> Self {
        let mut world = Self::new(nats, postgres).await;
        let url = postgres.database_url("metadata").replace("postgres@", "jetcopy@");
        world.set("PGPORT", &postgres.port().to_string());
        world.set("DATABASE_URL", &url);
        world.set("JETCOPY_POSTGRES__URL", &url);
        // As it is printed.
        world.variables.retain(|(name, _)| *name != "JETCOPY_POSTGRES__PASSWORD_FILE");
        world
    }

    pub(super) fn variable(&self, name: &str) -> &str {
        // Of two the last one counts.
        self.variables.iter().rev().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn set(&mut self, variable: &'static str, value: &str) {
        self.variables.push((variable, value.to_owned()));
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn prepare(&self, shell: &mut Command, command: &str) {
        shell.args(["-euo", "pipefail", "-c", command]).current_dir(self.directory.path()).env_clear();
        shell.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, command: &str) -> Output {
        let mut shell = Command::new(BASH);
        self.prepare(&mut shell, command);
        tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap()
    }

    /// Starts what runs until it is stopped, and waits until every pipeline has carried what is there.
    pub(super) async fn start(&mut self, command: &str) {
        let log = std::fs::File::create(self.directory.path().join("daemon.log")).unwrap();
        let child = spawn_tied(Path::new(BASH), None, Signal::SIGKILL, |shell| {
            self.prepare(shell, &format!("exec {command}"));
            shell.stderr(log);
        });
        self.daemon = Some(Running(child.unwrap()));
        self.database = connect(self.variable("DATABASE_URL")).await.unwrap();
        eventually("a pipeline to run", || async { self.log().contains("pipeline is running") }).await;
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// Waits until the daemon has committed all that its streams hold, but for pipelines that are paused.
    pub(super) async fn settled(&self, after: &str) {
        if self.daemon.is_none() {
            return;
        }
        eventually(&format!("everything to be committed after {after}"), || async {
            let sql = "SELECT stream, min(last_sequence) FROM jetcopy.checkpoints WHERE paused_at IS NULL \
                GROUP BY stream";
            for row in self.database.query(sql, &[]).await.unwrap() {
                let (name, committed): (String, i64) = (row.get(0), row.get(1));
                let stream = self.jetstream.get_stream(&name).await.unwrap();
                if stream.cached_info().state.last_sequence > u64::try_from(committed).unwrap() {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// What `nats stream add` and `nats stream edit` do with the flags that documents use; any other fails.
    /// The program itself is not among those that `make setup` can install; the flags were read in its
    /// source.
    pub(super) async fn nats(&self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
        let ["nats", "stream", action @ ("add" | "edit"), name, flags @ ..] = words.as_slice() else {
            panic!("decide about {command}")
        };
        let mut config = match *action {
            "add" => jetstream::stream::Config { name: (*name).to_owned(), ..Default::default() },
            _ => self.jetstream.get_stream(name).await.unwrap().cached_info().config.clone(),
        };
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let value = if matches!(*flag, "--defaults" | "--force") { None } else { flags.next().copied() };
            match (*flag, value) {
                ("--subjects", Some(subjects)) => config.subjects = vec![subjects.to_owned()],
                ("--retention", Some("limits"))
                | ("--storage", Some("file"))
                | ("--defaults" | "--force", None) => {}
                ("--max-age", Some(age)) => config.max_age = humantime::parse_duration(age).unwrap(),
                (flag, value) => panic!("decide about {flag} {value:?} of {command}"),
            }
        }
        match *action {
            "add" => drop(self.jetstream.create_stream(config).await.unwrap()),
            _ => drop(self.jetstream.update_stream(config).await.unwrap()),
        }
    }
}
