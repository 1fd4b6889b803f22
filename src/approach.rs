//! How the next generation of a pipeline reads, by how the last ones ended.
//!
//! Guarantees: what is remembered here changes how messages are fetched, never which: whatever it says, the next generation
//! reads on right after the checkpoint. It lasts as long as the process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::subscribe::Placement;

/// Connections lost in a row, without a commit, after which messages are read one by one whether the client library is at
/// fault or not: something else on the way may not let them pass together.
const STUCK_AT: u32 = 4;

/// What the generations of a pipeline hand on.
#[derive(Debug, Default)]
pub struct Approach(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Whether the connection was lost, and nothing has been committed since.
    lost: bool,
    /// Generations that lost it in a row without a commit.
    in_vain: u32,
}

/// How a generation begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// How the durable is put right after what is read by itself.
    pub placement: Placement,
    /// What is read by itself.
    pub look: Look,
}

/// Whether the first messages are read one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// They are pulled.
    No,
    /// The first is read by itself, and pulled if it is readable.
    ForUnreadable {
        /// Whether the last generation committed nothing either: then not to know what comes next is a failure.
        needed: bool,
    },
    /// The first ones are read by themselves, whatever they are.
    Anyway,
}

impl Approach {
    /// Notes how a generation ended: whether it `lost` its connection to NATS, and whether it had `committed` anything.
    pub fn ended(&self, lost: bool, committed: bool) {
        let mut memory = self.memory();
        if committed {
            memory.in_vain = 0;
        }
        if lost {
            memory.in_vain += u32::from(!committed);
        }
        // What fails before it has read anything leaves the question open.
        memory.lost = lost || (memory.lost && !committed);
    }

    /// How the next generation begins.
    #[must_use]
    pub fn look(&self) -> Look {
        let memory = self.memory();
        match (memory.lost, memory.in_vain) {
            (false, _) => Look::No,
            (true, STUCK_AT..) => Look::Anyway,
            (true, in_vain) => Look::ForUnreadable { needed: in_vain > 0 },
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Plain numbers: what a panicking thread left behind is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
