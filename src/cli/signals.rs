//! SIGTERM and SIGINT: the first asks the program to end in order, the second ends it at once. SIGHUP asks it
//! to read its configuration again.
//!
//! Guarantees: the second signal works also when the program hangs, since the signal's own handler ends the
//! process. Several SIGHUPs in a row may count as one, the last of which is never lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::watch;

/// What is added to a signal's number to make the exit code of a process that it ended; shells do the same.
const EXIT_CODE_BASE: i32 = 128;

/// Tells when the program is to end; clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Takes SIGTERM and SIGINT over from now on.
    pub fn on_signals() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: a signal first ends the process if one came before, and only then counts as one.
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
                tracing::info!(
                    signal = name,
                    "shutdown was asked for; a second signal ends the program at once"
                );
                sender.send_replace(true);
            }
        })?;
        Ok(Self(receiver))
    }

    /// Resolves once the first signal has come.
    pub async fn asked(mut self) {
        // The sender lives in a thread that never ends; were it gone, nobody could ask any more.
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells when the configuration is to be read again.
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
