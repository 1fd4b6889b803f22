//! How the next generation of a pipeline reads, by how the last ones ended.
//!
//! Guarantees: what is remembered here changes how messages are fetched, never which: whatever it says, the
//! next generation reads on right after the checkpoint. It lasts as long as the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Request};
use serde::Deserialize;

use crate::nats::Connection;
use crate::postgres::timeline::History;
use crate::subscribe::{Known, Placement, Window};

/// Connections lost in a row, without a commit, after which messages are read one by one whether the client
/// library is at fault or not: something else on the way may not let them pass together.
const STUCK_AT: u32 = 4;

/// Where a server tells an account's users about the account; they need no right beyond publishing to it.
const STATISTICS: &str = "$SYS.REQ.ACCOUNT.PING.STATZ";

/// How long that may take: where it is not allowed, no answer comes.
const STATISTICS_TIMEOUT: Duration = Duration::from_millis(500);

/// What the generations of a pipeline hand on.
#[derive(Debug, Default)]
pub(crate) struct Approach {
    memory: Mutex<Memory>,
    window: Arc<Window>,
    /// What was found out about the durable's server.
    pub known: Known,
    /// Whether the durable was placed by this process.
    placed: AtomicBool,
    /// Which history of the database was written on last.
    history: Mutex<Option<History>>,
    /// When a durable without a leader was replaced.
    replaced: Mutex<Option<Instant>>,
    /// After which sequence the pipeline began, where `start = "new"` decided it.
    begun: Mutex<Option<u64>>,
    /// Whether the last questions about the stream went without an answer.
    pub(crate) unanswered: AtomicBool,
    /// Where questions about the stream are asked.
    pub(crate) questions: tokio::sync::Mutex<Option<Connection>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Whether the connection was lost, and nothing has been committed since.
    lost: bool,
    /// Generations that lost it in a row without a commit.
    in_vain: u32,
    /// The server that was connected to, which is another one after a restart.
    server: Option<String>,
    /// Whether it is open why the last connection was lost.
    unexplained: bool,
    /// Slow consumers that the server had counted.
    slow_consumers: Option<u64>,
}

/// How a generation begins to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin<'a> {
    /// How the durable is put.
    pub placement: Placement,
    /// What the last ones found out.
    pub approach: &'a Approach,
}

/// Whether the first messages are read one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// They are pulled.
    No,
    /// The first is read by itself, and pulled if it is readable.
    ForUnreadable {
        /// Whether the last generation committed nothing either: then not to know what comes next is a
        /// failure.
        needed: bool,
    },
    /// The first ones are read by themselves, whatever they are.
    Anyway,
}

impl Approach {
    /// Notes that it is known why the last connection was lost: the server refuses the user.
    pub(crate) fn explained(&self) {
        self.memory().unexplained = false;
    }

    /// Notes how a generation ended: whether it `lost` its connection to NATS, and whether it had `committed`
    /// anything.
    pub(crate) fn ended(&self, lost: bool, committed: bool) {
        let mut memory = self.memory();
        if committed {
            memory.in_vain = 0;
        }
        if lost {
            memory.in_vain += u32::from(!committed);
            memory.unexplained = true;
        }
        // What fails before it has read anything leaves the question open.
        memory.lost = lost || (memory.lost && !committed);
    }

    /// How the next generation begins.
    #[must_use]
    pub(crate) fn look(&self) -> Look {
        let memory = self.memory();
        match (memory.lost, memory.in_vain) {
            (false, _) => Look::No,
            (true, STUCK_AT..) => Look::Anyway,
            (true, in_vain) => Look::ForUnreadable { needed: in_vain > 0 },
        }
    }

    /// Notes the history that the database is on now; whether it is another than before, as after a failover.
    pub(crate) fn moves_to(&self, history: Option<&History>) -> bool {
        let Some(history) = history else { return false };
        let mut known = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(history.clone()).is_some_and(|before| before != *history)
    }

    /// Whether this process has placed the durable.
    pub(crate) fn is_placed(&self) -> bool {
        self.placed.load(Ordering::Relaxed)
    }

    /// When a durable without a leader was replaced.
    pub(crate) fn replaced(&self) -> MutexGuard<'_, Option<Instant>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After which sequence the pipeline began, where `start = "new"` decided it.
    pub(crate) fn begun(&self) -> MutexGuard<'_, Option<u64>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the durable was placed; whether it was for the first time.
    pub(crate) fn placed_first(&self) -> bool {
        !self.placed.swap(true, Ordering::Relaxed)
    }

    /// How much may be on the way.
    #[must_use]
    pub(crate) fn window(&self) -> Arc<Window> {
        Arc::clone(&self.window)
    }

    /// Takes up a new connection to the server with that id. If the last one was lost while the same server
    /// ran on, and no message was `at_fault`, fewer are asked for at a time: servers end connections on which
    /// too much waits to be sent.
    pub(crate) async fn connected(&self, client: &Client, pipeline: &str, at_fault: bool) {
        let server = client.server_info().server_id;
        let unexplained = {
            let mut memory = self.memory();
            let same = memory.server.as_ref() == Some(&server);
            memory.server = Some(server);
            std::mem::take(&mut memory.unexplained) && same && !at_fault
        };
        if !unexplained {
            return;
        }
        let counted = slow_consumers(client).await;
        let before = std::mem::replace(&mut self.memory().slow_consumers, counted);
        let slow = counted > before.or(Some(0));
        let Some(messages) = self.window.shrink(slow) else { return };
        tracing::warn!(
            pipeline,
            messages,
            slow_consumer = slow,
            "the connection was lost although the NATS server is running: asking for fewer messages at a \
             time; if the server logs \"Slow Consumer Detected: MaxPending\", raise its max_pending"
        );
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Plain numbers: what a panicking thread left behind is still whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections of this account that the server has ended because too much waited to be sent on them, since it
/// started; `None` where it does not tell.
pub(crate) async fn slow_consumers(client: &Client) -> Option<u64> {
    #[derive(Deserialize)]
    struct Answer {
        data: Statistics,
    }
    #[derive(Deserialize)]
    struct Statistics {
        account_statz: Vec<Account>,
    }
    #[derive(Deserialize)]
    struct Account {
        #[serde(default)]
        slow_consumers: u64,
    }
    let request = Request::new().timeout(Some(STATISTICS_TIMEOUT));
    let answer = client.send_request(STATISTICS, request).await.ok()?;
    let answer: Answer = serde_json::from_slice(&answer.payload).ok()?;
    Some(answer.data.account_statz.iter().map(|account| account.slow_consumers).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_a_reason_to_look_at_the_next_message_until_something_is_committed() {
        let approach = Approach::default();
        assert_eq!(approach.look(), Look::No);
        approach.ended(true, true);
        assert_eq!(approach.look(), Look::ForUnreadable { needed: false });
        approach.ended(false, false);
        assert_eq!(approach.look(), Look::ForUnreadable { needed: false });
        approach.ended(true, false);
        assert_eq!(approach.look(), Look::ForUnreadable { needed: true });
        approach.ended(false, true);
        assert_eq!(approach.look(), Look::No);
    }

    #[test]
    fn connections_lost_in_vain_again_and_again_are_a_reason_to_read_one_by_one() {
        let approach = Approach::default();
        for _ in 0..STUCK_AT {
            assert_ne!(approach.look(), Look::Anyway);
            approach.ended(true, false);
        }
        assert_eq!(approach.look(), Look::Anyway);
        approach.ended(true, true);
        assert_eq!(approach.look(), Look::ForUnreadable { needed: false });
    }
}
