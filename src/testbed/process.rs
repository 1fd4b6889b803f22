//! A server's process.
//!
//! Guarantees: it cannot outlive this process; it is stopped in the chosen way, by force if that takes too
//! long, and every wait is for a condition, under a deadline.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Error, directory};

/// How long a server may take to start or to stop: a second is usual, a loaded machine recovering a log needs
/// more.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a condition is looked at; far below the time that any server needs.
const POLL: Duration = Duration::from_millis(2);
/// Lines of a log worth printing when something failed.
const TAIL_LINES: usize = 40;
/// How many ports are tried before a start is given up.
const PORT_ATTEMPTS: usize = 8;
/// Below Linux's ephemeral ports (32768…), so that no outgoing connection takes the port of a stopped
/// server.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// In order: PostgreSQL's fast mode, NATS's own shutdown.
    Fast,
    /// At once but by the server's own hand: PostgreSQL's immediate mode. NATS knows no such thing and is
    /// killed.
    Immediate,
    /// `kill -9`.
    Kill,
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that spawns every tied process. The kernel sends a parent-death signal when the *thread* that
/// spawned the child ends, and tests run in threads that end long before a shared server may. This one lasts
/// as long as the process.
static SPAWNER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Request>();
    thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, reply) in receiver {
                // A caller that no longer listens drops the reply, and with it nothing but the handle.
                let _ = reply.send(command.spawn());
            }
        })
        .expect("a process that cannot start one thread cannot run servers either");
    sender
});

/// Spawns `program` so that it gets `signal` when this process ends, whatever ends it. It is in a process
/// group of its own: a Ctrl-C in the terminal reaches it only through this process's own shutdown.
///
/// `prepare` adds arguments and redirections; `user` (as `setpriv` takes it: a name or a number) is who it
/// runs as.
pub fn spawn_tied(
    program: &Path,
    user: Option<&str>,
    signal: Signal,
    prepare: impl FnOnce(&mut Command),
) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = as_user(program, user, Some(signal));
    command.process_group(0);
    prepare(&mut command);
    let (reply, outcome) = mpsc::channel();
    let gone = || io::Error::other("the spawning thread has ended");
    SPAWNER.send((command, reply)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// `program` under `setpriv`, which replaces itself by it: the process id is the program's.
pub(super) fn as_user(program: &Path, user: Option<&str>, parent_death: Option<Signal>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(signal) = parent_death {
        command.args(["--pdeathsig", signal.as_str().trim_start_matches("SIG")]);
    }
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// A server with its directory, its port and, while it runs, its process.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) directory: TempDir,
    pub(super) log: PathBuf,
    pub(super) port: u16,
    child: Option<Child>,
}

/// What [`Server`] needs to know about the program it runs.
pub(super) trait Program {
    /// Spawns it with its output going to `log`.
    fn spawn(&self, server: &Server, log: File) -> io::Result<Child>;
    /// Whether it answers by now.
    fn is_ready(&self, server: &Server) -> bool;
    /// The signal for a way to stop.
    fn signal(&self, stop: Stop) -> Signal;
}

impl Server {
    pub(super) fn new(name: &'static str, directory: TempDir) -> Self {
        let log = directory.path().join("server.log");
        Self { name, directory, log, port: 0, child: None }
    }

    /// Starts the program on a free port, another one should the port be taken in between.
    pub(super) fn start_on_free_port(&mut self, program: &impl Program) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            self.port = free_port();
            match self.start(program) {
                Err(Error::NotReady { tail, .. })
                    if attempt < PORT_ATTEMPTS && tail.to_lowercase().contains("address already in use") =>
                {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Starts the program on the port it has, and waits until it answers.
    pub(super) fn start(&mut self, program: &impl Program) -> Result<(), Error> {
        assert!(self.child.is_none(), "{} is already running", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(super::io("open", &self.log))?;
        let child = program.spawn(self, log).map_err(super::io("run setpriv for", self.name))?;
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !program.is_ready(self) {
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                self.stop(program, Stop::Kill);
                return Err(Error::NotReady { program: self.name, tail: self.tail() });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Stops the program and waits until it is gone; by force when it takes too long. No effect when it is
    /// stopped.
    pub(super) fn stop(&mut self, program: &impl Program, stop: Stop) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, program.signal(stop));
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = child.try_wait() {
            if Instant::now() > deadline {
                signal(&child, Signal::SIGKILL);
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal that does not stop it, if it runs.
    pub(super) fn signal(&self, kind: Signal) {
        if let Some(child) = &self.child {
            signal(child, kind);
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn tail(&self) -> String {
        directory::tail(&self.log, TAIL_LINES)
    }

    /// Stops the program for good. A panic on the way here is told how the server fared.
    pub(super) fn end(&mut self, program: &impl Program) {
        if thread::panicking() {
            eprintln!("--- {} on port {}, end of its log:\n{}\n---", self.name, self.port, self.tail());
        }
        self.stop(program, Stop::Immediate);
    }
}

/// Signals a child that has not been waited for, so its id is still its own.
fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("Linux process ids are below 2^22");
    // ESRCH means that it is gone already, which is what the signal was for.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// A port on which nothing listens now. This process gets each once in a round through all of them, so one
/// that is reserved and not yet listened on is given to nobody else.
pub(super) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(std::hash::RandomState::new().build_hasher().finish() >> 1));
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(offset).expect("smaller than the range of ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Sends both streams of a command's output to a log.
pub(super) fn log_to(command: &mut Command, log: &File) -> io::Result<()> {
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    Ok(())
}
