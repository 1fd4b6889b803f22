//! Notifications to systemd: that the daemon is ready, what it is doing, and that it is alive.
//!
//! Guarantees: `READY=1` is sent once no pipeline is in its first start any more: each runs, or waits for a
//! reason that the status line names. `STATUS=` follows the pipelines' states within a second. A reload
//! starts with `RELOADING=1` and ends with `READY=1`, when the new settings are in force or were rejected; a
//! rejection stays in the status line until a later reload succeeds. `WATCHDOG=1` is sent only while every
//! pipeline moves or waits for a known reason ([`crate::liveness`]), from a task of the runtime that runs
//! them: a runtime that hangs sends none either. Without `NOTIFY_SOCKET` nothing is sent and nothing fails; a
//! message that cannot be sent is logged and not retried.
//!
//! The protocol is that of `sd_notify(3)`: one datagram a message to a Unix socket.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::status::{Registry, Snapshot, State};

/// How often the states are looked at: soon enough for a person who looks at `systemctl status`.
const LOOK: Duration = Duration::from_secs(1);

/// How many times per interval the watchdog is fed: one late message does no harm.
const FEEDS: u32 = 3;

/// The longest status line: beyond it nobody reads, and a datagram has its limits.
const STATUS_CHARS: usize = 400;

/// What the status line says about a rejected configuration.
const REFUSED: &str = "the new configuration was rejected";

/// Where systemd listens; clones share the socket.
#[derive(Debug, Clone)]
pub(crate) struct Notifier(Option<Arc<Socket>>);

#[derive(Debug)]
struct Socket {
    from: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    status: Mutex<Status>,
}

/// What the status line is made of.
#[derive(Debug, Default)]
struct Status {
    /// The line that was sent last.
    told: String,
    /// Why the newest configuration was rejected.
    refused: Option<String>,
}

/// What is wrong with the service manager's variables.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotifyError {
    /// There is no way to the socket.
    #[error("cannot use NOTIFY_SOCKET, which the service manager set")]
    Socket(#[source] io::Error),
}

impl Notifier {
    /// To the service manager that started this process, if it asked for messages.
    pub(crate) fn from_environment() -> Result<Self, NotifyError> {
        let value = std::env::var_os;
        let number = |name| value(name)?.to_str()?.parse::<u64>().ok();
        Self::new(value("NOTIFY_SOCKET").as_deref(), number("WATCHDOG_USEC"), number("WATCHDOG_PID"))
    }

    fn new(
        path: Option<&OsStr>,
        watchdog_usec: Option<u64>,
        watchdog_pid: Option<u64>,
    ) -> Result<Self, NotifyError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let address = match path.as_bytes() {
            // The abstract namespace.
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            path => SocketAddr::from_pathname(OsStr::from_bytes(path)),
        }
        .map_err(NotifyError::Socket)?;
        let socket = UnixDatagram::unbound().map_err(NotifyError::Socket)?;
        // A service manager that does not read must not stop the pipelines.
        socket.set_nonblocking(true).map_err(NotifyError::Socket)?;
        let for_us = watchdog_pid.is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = watchdog_usec.filter(|&usec| usec > 0 && for_us).map(Duration::from_micros);
        Ok(Self(Some(Arc::new(Socket { from: socket, address, watchdog, status: Mutex::default() }))))
    }

    /// The daemon serves.
    fn ready(&self) {
        self.send("READY=1");
    }

    /// The daemon reads its configuration again; [`Notifier::reloaded`] or [`Notifier::refused`] ends that.
    pub(crate) fn reloading(&self) {
        let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return };
        let usec = Duration::from(now).as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The new configuration is in force.
    pub(crate) fn reloaded(&self) {
        if let Some(to) = &self.0 {
            to.status().refused = None;
        }
        self.ready();
    }

    /// The new configuration is invalid, and the current one stays.
    pub(crate) fn refused(&self, why: &str) {
        let Some(to) = &self.0 else { return };
        let line = one_line(&format!("{REFUSED}: {why}"));
        let mut status = to.status();
        self.send(&format!("STATUS={line}\nREADY=1"));
        status.told.clone_from(&line);
        status.refused = Some(line);
    }

    /// Sends the status line if it has changed.
    fn tell(&self, status: &mut Status, pipelines: &[Snapshot]) {
        let line = status_line(status.refused.as_deref(), pipelines);
        if line != status.told {
            self.send(&format!("STATUS={line}"));
            status.told = line;
        }
    }

    /// The daemon ends.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        let Some(to) = &self.0 else { return };
        if let Err(error) = to.from.send_to_addr(message.as_bytes(), &to.address) {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }

    /// Keeps the service manager informed about the pipelines, until it is dropped.
    pub(crate) async fn run(self, registry: Registry) {
        let Some(to) = &self.0 else { return };
        let mut look = tokio::time::interval(to.watchdog.map_or(LOOK, |usec| LOOK.min(usec / FEEDS)));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut ready, mut frozen) = (false, false);
        loop {
            look.tick().await;
            let pipelines = registry.snapshots();
            self.tell(&mut to.status(), &pipelines);
            if !ready && !pipelines.is_empty() && pipelines.iter().all(|one| one.state != State::Starting) {
                ready = true;
                self.ready();
            }
            let hangs = registry.frozen();
            if let Some((pipeline, since)) = &hangs
                && !frozen
            {
                let seconds = since.as_secs();
                tracing::error!(
                    pipeline,
                    seconds,
                    "pipeline is stuck for no known reason; stopped feeding the watchdog"
                );
            }
            frozen = hangs.is_some();
            if !frozen && to.watchdog.is_some() {
                self.send("WATCHDOG=1");
            }
        }
    }
}

impl Socket {
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line: what needs a person first, then the rest by state.
fn status_line(refused: Option<&str>, pipelines: &[Snapshot]) -> String {
    let mut parts = Vec::from_iter(refused.map(str::to_owned));
    for one in pipelines {
        if let Some(reason) = one.state.reason() {
            parts.push(format!("{} {}: {reason}", one.shard, one.state.label()));
        }
    }
    for one in pipelines {
        if let Some(held) = &one.held_up {
            parts.push(format!("{} {}, but {held}", one.shard, one.state.label()));
        }
    }
    for state in State::LABELS {
        let of_state = pipelines.iter().filter(|one| {
            one.state.reason().is_none() && one.held_up.is_none() && one.state.label() == state
        });
        let names: Vec<&str> = of_state.map(|one| one.shard.as_str()).collect();
        if !names.is_empty() {
            parts.push(format!("{state}: {}", names.join(", ")));
        }
    }
    one_line(&parts.join("; "))
}

/// The text on one line, cut to the length of a status.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").chars().take(STATUS_CHARS).collect()
}

#[cfg(test)]
mod tests;
