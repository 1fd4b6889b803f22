//! The proof that a row is at fault where its error is one of something else as a rule: a table, a function
//! or a type that is missing, or an extension that fails.
//!
//! Guarantees: such a message is blamed only where it is refused alone several times, always with the same
//! code, and rows of others pass before, between and after. With nobody to compare with, it is not. Where a
//! function or a statement that the table's owner wrote met the error, or an extension, all that must last
//! for [`DOUBT`]: somebody may be exchanging what these ask for, or a server behind them may fail now and
//! then. What passes once is not at fault.

use super::Writer;
use super::blame::{Counts, DOUBT, Halt, Others};
use super::refused::{Poisoned, Unit};
use crate::batch::Batch;
use crate::copy::CopyError;
use crate::postgres::sqlstate::{Decision, decide, is_direct};

/// How often a row and others are tried in turn. An error that comes and goes with even odds passes for a
/// row's once in a hundred looks, of which there are several within [`DOUBT`].
const TURNS: usize = 3;

/// Whether a row is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Proven,
    /// As it seems, but not for long.
    Young,
    /// Nothing says so.
    None,
}

/// Whether an error is a row's fault by way of exception only.
pub(super) fn is_exception(error: &CopyError) -> bool {
    [Decision::PauseUnlessRow, Decision::BackOffUnlessRow].contains(&decide(&error.source, error.step))
}

impl Writer {
    /// Whether `unit`, which was refused with such an error, is at fault; `others` is what others said
    /// before.
    pub(super) async fn prove(
        &self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        unit: Unit,
        (table, error): (Option<usize>, &CopyError),
        others: Others,
    ) -> Result<Proof, Halt> {
        let mut holds = others == Others::Pass;
        for _ in 0..TURNS {
            if !holds {
                self.disprove(error);
                return Ok(Proof::None);
            }
            let again = self.refused_alone(batch, poisoned, unit, Counts::Suspects).await?;
            holds = again.is_some_and(|(_, again)| again.source.code() == error.source.code());
            if holds {
                // Asked again.
                poisoned.good = None;
                holds = self.others(batch, poisoned, unit, table).await? == Others::Pass;
            }
        }
        if !holds {
            self.disprove(error);
            return Ok(Proof::None);
        }
        let code = error.source.code().map_or("", |code| code.code());
        let lasted = self.memory().proof(self.checkpoint, code);
        let at_once =
            decide(&error.source, error.step) == Decision::PauseUnlessRow && is_direct(&error.source);
        Ok(if at_once || lasted >= DOUBT { Proof::Proven } else { Proof::Young })
    }

    /// Rows that were refused with such an error passed once, or others did not.
    pub(super) fn disprove(&self, error: &CopyError) {
        if let Some(code) = error.source.code() {
            self.memory().disproof(code.code());
        }
    }
}
