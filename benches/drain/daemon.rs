//! The daemon as a process, and what the kernel says about it.

use std::path::Path;
use std::process::{Child, Stdio};

use jetcopy::private::spawn_tied;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(config: &Path) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_jetcopy"));
        let child = spawn_tied(program, None, Signal::SIGKILL, |command| {
            command.arg("run").arg("--config").arg(config).stdin(Stdio::null());
        });
        Self(child.unwrap())
    }

    /// User and system time so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The second field is the program's name in parentheses; utime and stime are the 14th and 15th.
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64
    }

    /// The most memory that was resident at a time.
    pub(crate) fn peak_memory_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    pub(crate) fn assert_running(&mut self) {
        assert!(matches!(self.0.try_wait(), Ok(None)), "the daemon has ended");
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}
