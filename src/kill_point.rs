//! Places on the way where a test lets the daemon get a signal: the worst moments to die, to be stopped or to
//! freeze.
//!
//! Guarantees: without the feature `kill-points` nothing of it is compiled into the program. With it, and
//! with `JETCOPY_KILL_POINT=name:count:signal`, the process sends itself `signal` when it passes the point
//! `name` for the `count`th time, once; with `hang` for the signal, whoever passes it never returns. Points
//! that are passed by several pipelines count together.

/// A message has been decoded into the batch that fills.
pub const AFTER_DECODE: &str = "after_decode";
/// The server has taken a `COPY` up, and its rows are on their way.
pub const IN_COPY: &str = "in_copy";
/// All rows of a batch are in, and nothing is committed.
pub const BEFORE_COMMIT: &str = "before_commit";
/// The server has answered COMMIT.
pub const AFTER_COMMIT: &str = "after_commit";
/// A committed batch is about to be acknowledged.
pub const BEFORE_ACK: &str = "before_ack";

/// Passes a point.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub fn reach(_name: &str) {}

#[cfg(feature = "kill-points")]
pub use armed::reach;

#[cfg(feature = "kill-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    /// Where the point is named.
    const VARIABLE: &str = "JETCOPY_KILL_POINT";

    struct Armed {
        name: String,
        /// Passings that are left.
        left: AtomicU64,
        /// `None`: it hangs.
        signal: Option<Signal>,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        Some(parse(&text).unwrap_or_else(|| panic!("{VARIABLE} is {text:?}, not name:count:signal")))
    });

    fn parse(text: &str) -> Option<Armed> {
        let mut parts = text.split(':');
        let armed = Armed {
            name: parts.next()?.to_owned(),
            left: AtomicU64::new(parts.next()?.parse().ok()?),
            signal: match parts.next()? {
                "hang" => None,
                signal => Some(signal.parse().ok()?),
            },
        };
        parts.next().is_none().then_some(armed)
    }

    /// Passes a point.
    pub fn reach(name: &str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else { return };
        // At 0 it wraps and takes longer than any process lives to come round again.
        if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let Some(signal) = armed.signal else {
                loop {
                    std::thread::park();
                }
            };
            raise(signal).expect("a process may signal itself");
        }
    }
}
