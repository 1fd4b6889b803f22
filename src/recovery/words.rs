//! What is said of a failure.
//!
//! Guarantees: a reason is one line, whatever the server said, and does not repeat its remedy.

use super::{Action, Recovery};
use crate::chain::chain;
use crate::pipeline::Failure;

/// What ends the pause after a flood of dead letters.
#[must_use]
pub(crate) fn flood_remedy(pipeline: &str) -> String {
    format!(
        "see `SELECT * FROM jetcopy.flood_samples`; fix the table (the pipeline continues by itself once \
         columns, constraints or triggers change), or the mapping or the poison limits (then reload), \
         or something else \
         (then `jetcopy resume {pipeline}`); or let the next N messages become dead letters: \
         `jetcopy dead-letters accept N --pipeline {pipeline}`"
    )
}

/// Why a generation failed, in one line. What would fix it is said beside, not twice.
#[must_use]
pub(crate) fn reason(failure: &Failure, recovery: &Recovery) -> String {
    let text = chain(failure);
    match &recovery.action {
        Action::Hold { remedy }
        | Action::Pause { remedy }
        | Action::Halt { remedy }
        | Action::PauseForFlood { remedy } => text.replace(&format!(": {remedy}"), ""),
        Action::Again | Action::Reconnect | Action::Recreate | Action::AtOnce | Action::Wait => text,
    }
}
