//! SIGTERM and SIGINT: the first asks the program to shut down cleanly, the second ends it at once. SIGHUP
//! asks it to read its configuration again.
//!
//! Guarantees: the second signal works even if the program hangs, because the signal handler itself ends the
//! process. Several SIGHUPs in a row may count as one, but the last is never lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::watch;

/// Added to a signal's number, this is the exit code of a process that it ended, as in shells.
const EXIT_CODE_BASE: i32 = 128;

/// Resolves when the program is to end; clones resolve together.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Takes SIGTERM and SIGINT over from now on.
    pub fn on_signals() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: a signal ends the process if one came before, and only then counts itself.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                EXIT_CODE_BASE + signal,
                Arc::clone(&asked),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in &mut signals {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("signal");
                tracing::info!(signal = name, "shutting down; a second signal exits at once");
                sender.send_replace(true);
            }
        })?;
        Ok(Self(receiver))
    }

    /// Resolves once the first signal has come.
    pub async fn asked(mut self) {
        // The sender lives in a thread that never ends.
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Resolves when the configuration is to be read again.
#[derive(Debug)]
pub struct Reload(watch::Receiver<()>);

impl Reload {
    /// Takes SIGHUP over from now on.
    pub fn on_signals() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(());
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP])?;
        std::thread::Builder::new().name("reload".into()).spawn(move || {
            for _ in &mut signals {
                sender.send_replace(());
            }
        })?;
        Ok(Self(receiver))
    }

    /// Resolves after the next signal.
    pub async fn asked(&mut self) {
        // As above, the sender is never gone.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
