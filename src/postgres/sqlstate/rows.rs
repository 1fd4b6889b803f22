//! What an error may say of the rows that a step sends.
//!
//! Guarantees: no row is blamed for an error that ended the session, nor for one of a step that sends none.

use tokio_postgres::error::{DbError, Severity};

use super::{Decision, Step, copy_context};

/// What an error may say of the rows that a step sends.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Whether one of them may be at fault.
    pub(super) judged: bool,
    /// Whether the server met it while it read the fields of a `COPY`.
    pub(super) of_a_field: bool,
}

impl Rows {
    pub(super) fn of(error: &DbError, step: Step) -> Self {
        // Only an error that left the session alive can speak of a row.
        let judged = step.judges_rows() && !is_fatal(error);
        let reads = judged && matches!(step, Step::CopyData { .. });
        Self { judged, of_a_field: reads && copy_context(error).is_some() }
    }

    pub(super) fn or_suspect(self, otherwise: Decision) -> Decision {
        if self.judged { Decision::SuspectRow } else { otherwise }
    }

    /// Where rows are judged, the session lives and something behind the table fails: a foreign server, a
    /// worker, a routine's own connection.
    pub(super) fn or_back_off(self, otherwise: Decision) -> Decision {
        if self.judged { Decision::BackOff } else { otherwise }
    }

    /// What an expression, a trigger or a constraint asks for is not there: for all rows as a rule, or for
    /// what one says.
    pub(super) fn pause(self) -> Decision {
        if self.judged { Decision::PauseUnlessRow } else { Decision::Pause }
    }
}

/// Whether the server ended the session.
fn is_fatal(error: &DbError) -> bool {
    match error.parsed_severity() {
        Some(Severity::Fatal | Severity::Panic) => true,
        Some(
            Severity::Error
            | Severity::Warning
            | Severity::Notice
            | Severity::Debug
            | Severity::Info
            | Severity::Log,
        ) => false,
        // Servers before 9.6 and some poolers do not send it; theirs is in English.
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    }
}
