//! Which messages of a batch do not become rows, and what is kept of them.
//!
//! Guarantees: the message found is one whose rows the server refuses together with those before it: by the line that
//! the error names, else by bisection over prefixes of the batch, in transactions that are rolled back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::Instant;

use tokio::time::timeout;

use super::{Error, Writer, within};
use crate::batch::{Batch, Message};
use crate::checkpoint;
use crate::copy::{CopyError, Selection};
use crate::dead_letter::{DeadLetter, Headers};
use crate::postgres::sqlstate::{Decision, Step, decide};

/// Messages of a batch that do not become rows, and what is kept of them.
#[derive(Default)]
pub(super) struct Poisoned {
    pub(super) messages: BTreeSet<u32>,
    pub(super) letters: Vec<DeadLetter>,
}

impl Writer {
    /// The message whose row the server named.
    pub(super) fn pinned(
        &self,
        batch: &Batch,
        table: usize,
        error: &CopyError,
        poisoned: &Poisoned,
    ) -> Option<u32> {
        let selection = Selection { excluded: &poisoned.messages, within: 0..u32::MAX };
        self.targets[table].message_of(&batch.rows.tables[table], &selection, error.row?)
    }

    /// Finds the first message without which the batch would pass so far, by trials that are rolled back. `None` when
    /// the batch passes now.
    pub(super) async fn bisect(&self, batch: &mut Batch, poisoned: &Poisoned) -> Result<Option<u32>, Error> {
        let all = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        if self.passes(batch, poisoned, all).await? {
            return Ok(None);
        }
        let (mut passes, mut fails) = (0, all);
        while fails - passes > 1 {
            let middle = passes + (fails - passes) / 2;
            if self.passes(batch, poisoned, middle).await? {
                passes = middle;
            } else {
                fails = middle;
            }
        }
        Ok(Some(passes))
    }

    /// Whether the server takes the rows of the first `messages` messages.
    async fn passes(&self, batch: &mut Batch, poisoned: &Poisoned, messages: u32) -> Result<bool, Error> {
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{}ms'", checkpoint::LOCK_TIMEOUT.as_millis());
        self.statement(&begin).await?.map_err(Error::Trial)?;
        let selection = Selection { excluded: &poisoned.messages, within: 0..messages };
        let outcome = match self.copy_all(batch, &selection).await? {
            Ok(_) => self.statement("SET CONSTRAINTS ALL IMMEDIATE").await?.map_err(|e| (e, Step::Commit)),
            Err((table, error)) if error.step == Step::CopyStart => {
                return Err(Error::Copy { table: self.targets[table].name.clone(), source: error });
            }
            Err((_, error)) => Err((error.source, error.step)),
        };
        let passes = match outcome {
            Ok(()) => true,
            Err((error, step)) => match decide(&error, step) {
                Decision::PoisonRow => false,
                Decision::Retry
                | Decision::Reconnect
                | Decision::BackOff
                | Decision::Merge
                | Decision::Pause => return Err(Error::Trial(error)),
            },
        };
        within(self.step_timeout, "roll back", checkpoint::rollback(&self.session)).await?;
        Ok(passes)
    }

    async fn statement(&self, sql: &str) -> Result<Result<(), tokio_postgres::Error>, Error> {
        timeout(self.step_timeout, self.session.client.batch_execute(sql))
            .await
            .map_err(|_| Error::Timeout { action: "look for the refused row", after: self.step_timeout })
    }

    pub(super) fn refused_by_decoder(&self, batch: &Batch) -> Result<Poisoned, Error> {
        let mut poisoned = Poisoned::default();
        self.admit(batch.refused.len())?;
        for refused in &batch.refused {
            let message = &batch.messages[refused.message as usize];
            let poison = &refused.poison;
            poisoned.messages.insert(refused.message);
            poisoned.letters.push(DeadLetter {
                kind: poison.kind.as_str(),
                sqlstate: None,
                message: poison.message.clone(),
                table: poison.table.clone(),
                column: poison.column.clone(),
                ..original(batch, message)
            });
        }
        Ok(poisoned)
    }

    pub(super) fn add_refused(
        &self,
        poisoned: &mut Poisoned,
        batch: &Batch,
        message: u32,
        table: Option<usize>,
        error: &tokio_postgres::Error,
    ) -> Result<(), Error> {
        self.admit(poisoned.letters.len() + 1)?;
        poisoned.messages.insert(message);
        poisoned.letters.push(refused_letter(
            original(batch, &batch.messages[message as usize]),
            table.map(|table| self.targets[table].name.clone()),
            error,
        ));
        Ok(())
    }

    fn admit(&self, letters: usize) -> Result<(), Error> {
        let mut window = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(window.admit(letters, Instant::now())?)
    }
}

/// What is kept of a message, without a reason yet.
fn original(batch: &Batch, message: &Message) -> DeadLetter {
    DeadLetter {
        sequence: message.sequence,
        subject: batch.subject(message).to_owned(),
        headers: message.headers.as_ref().map(Headers::from),
        payload: batch.payload(message).to_vec(),
        kind: "",
        sqlstate: None,
        message: String::new(),
        table: None,
        column: None,
    }
}

/// The letter of a message with a row that the server refused.
fn refused_letter(original: DeadLetter, table: Option<String>, error: &tokio_postgres::Error) -> DeadLetter {
    let mut letter = DeadLetter { kind: "refused", table, ..original };
    match error.as_db_error() {
        Some(refusal) => {
            letter.sqlstate = Some(refusal.code().code().to_owned());
            refusal.message().clone_into(&mut letter.message);
            if let Some(detail) = refusal.detail() {
                // Writing to a string cannot fail.
                let _ = write!(letter.message, " ({detail})");
            }
            letter.column = refusal.column().map(str::to_owned);
        }
        None => letter.message = error.to_string(),
    }
    letter
}
