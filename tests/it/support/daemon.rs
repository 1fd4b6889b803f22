//! The daemon as a child process that cannot outlive its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jetcopy::testbed::spawn_tied;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually;

/// A running `jetcopy run`. It is killed when the value is dropped; a panicking test prints its log.
pub(crate) struct Daemon {
    child: Mutex<Child>,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon; its log goes to a file of its own beside the configuration.
    pub(crate) fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with more variables in its environment.
    pub(crate) fn start_with(config: &Path, variables: &[(&str, &str)]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let log = config.with_extension(format!("{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        Self::start_logging_to(log, config, variables)
    }

    /// The same with its log in the file of that name.
    pub(crate) fn start_logging_to(log: PathBuf, config: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(log, |command| {
            command.arg("run").arg("--config").arg(config).envs(variables.iter().copied());
        })
    }

    /// Starts a command that becomes a daemon; its log is `daemon.log` in the directory where it runs.
    pub(crate) fn of(arguments: &[&str], directory: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(directory.join("daemon.log"), |command| {
            command.args(arguments).current_dir(directory).env_clear().envs(variables.iter().copied());
        })
    }

    fn spawn(log: PathBuf, prepare: impl FnOnce(&mut Command)) -> Self {
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let child = spawn_tied(Path::new(env!("CARGO_BIN_EXE_jetcopy")), None, Signal::SIGKILL, |command| {
            prepare(command);
            command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        });
        Self { child: Mutex::new(child.unwrap()), log }
    }

    /// The same with standard error somewhere else; `address` is where it serves HTTP, since no log says it.
    pub(crate) fn start_unheard(config: &Path, stderr: impl Into<Stdio>, level: &str, address: &str) -> Self {
        let log = config.with_extension("unheard.log");
        std::fs::write(&log, format!("http={address} ")).unwrap();
        let child = spawn_tied(Path::new(env!("CARGO_BIN_EXE_jetcopy")), None, Signal::SIGKILL, |command| {
            command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
            command.env("JETCOPY_HTTP__LISTEN", address).env("JETCOPY_LOG__LEVEL", level).stderr(stderr);
        });
        Self { child: Mutex::new(child.unwrap()), log }
    }

    /// Its arguments and environment, as others on the machine may see them.
    pub(crate) fn arguments(&self) -> String {
        let pid = self.child.lock().unwrap().id();
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
        String::from_utf8_lossy(&[read("cmdline"), read("environ")].concat()).into_owned()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.child.lock().unwrap().try_wait(), Ok(None))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log says `text`.
    pub(crate) async fn says(&self, text: &str) {
        eventually(&format!("the log to say {text:?}"), || async { self.log().contains(text) }).await;
    }

    /// Waits until the log says `text` that many times; once more is one too many.
    pub(crate) async fn says_times(&self, text: &str, times: usize) {
        let said = || self.log().matches(text).count();
        eventually(&format!("the log to say {text:?}"), || async { said() >= times }).await;
        assert_eq!(said(), times, "{text:?} is said too often:\n{}", self.log());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.lock().unwrap().id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Whether SIGSTOP has stopped it: the state after the name in `/proc/PID/stat`.
    #[cfg(feature = "kill-points")]
    pub(crate) fn is_frozen(&self) -> bool {
        let path = format!("/proc/{}/stat", self.child.lock().unwrap().id());
        std::fs::read_to_string(path).unwrap().rsplit(") ").next().unwrap().starts_with('T')
    }

    /// The memory that it holds now.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that it ever held.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Lets the most begin anew.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.lock().unwrap().id()), "5").unwrap();
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.lock().unwrap().id()));
        let status = status.unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits for its end, and says how long that took.
    pub(crate) async fn ended(&self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let mut status = None;
        eventually("the daemon to end", || {
            status = self.child.lock().unwrap().try_wait().unwrap();
            let ended = status.is_some();
            async move { ended }
        })
        .await;
        (status.unwrap(), start.elapsed())
    }

    /// `kill -9`.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}\n---", self.log());
        }
    }
}
