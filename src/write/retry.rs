//! A dead letter tried again: its rows, or the reason why there are still none.
//!
//! Guarantees: in one transaction the letter's rows are copied and the letter goes, so that a message is in
//! its tables once or in the dead letters once at every moment, also beside a running daemon and beside
//! another retry. A letter that fails again stays, with the new reason. What is decoded and how it is written
//! is what the daemon does with the same configuration; a letter about one element writes that element's row
//! only. No checkpoint moves.
//!
//! A row that comes so late never replaces a newer one: a table with `on_conflict = "update"` needs
//! `newer_by` or a column that keeps `$sequence` for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use rows::{Attempt, decode};

use super::partitions::{Answer, ask_for, beyond_bounds, days, touches};
use super::shape::{changed, lock_and_ask};
use crate::batch::Selection;
use crate::checkpoint::begin_sql;
use crate::config::{self, BadElement, Config, OnConflict, SEQUENCE};
use crate::copy::{CopyError, Target, Unstored};
use crate::dead_letter::kept::{self, Kept};
use crate::dead_letter::{DeadLetter, Original, add_element, refused_letter, restate, store};
use crate::decode::{Decoder, PlanError};
use crate::postgres::connect::Session;
use crate::postgres::introspect::{self, IntrospectError};
use crate::postgres::simple::{Timeout, ask, within};
use crate::postgres::sqlstate::{Decision, Step, decide};
use crate::shard::Shard;

mod rows;

/// How often a transaction that lost a deadlock or a lock is tried again.
const ATTEMPTS: u32 = 5;

/// Pause before such an attempt, times its number: long enough for the other transaction to end.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its rows are in and it is gone.
    Stored {
        /// How many.
        rows: usize,
        /// Elements that were refused this time, each a letter of its own now.
        refused: usize,
    },
    /// It was refused again.
    Refused {
        kind: String,
        /// The new reason.
        message: String,
    },
    /// It was not tried.
    NotTried {
        /// Why, and what would help.
        why: String,
    },
    /// Somebody else has retried or discarded it.
    Gone,
}

/// Why retrying cannot go on. The letter at hand is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A target table cannot be used.
    #[error("cannot use the target table")]
    Introspect(#[from] IntrospectError),
    /// Mapping and table do not go together.
    #[error("the mapping does not fit the table")]
    Plan(#[from] PlanError),
    /// Rows were not taken, and no row is at fault.
    #[error("cannot write to table {table}")]
    Copy {
        /// Table as configured.
        table: String,
        source: CopyError,
    },
    /// The dead letters could not be read or changed, or the commit failed: it is done or not done as a
    /// whole.
    #[error("cannot {action} a dead letter; is the schema migrated?")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// A table is not what the letter was decoded for.
    #[error("table {0} is being changed; try again when that is done")]
    Changed(String),
    /// The server did not answer in time.
    #[error("the database timed out after {} s", .0.after.as_secs())]
    Timeout(#[from] Timeout),
}

/// Retries letters of any configured pipeline on one session.
#[derive(Debug)]
pub(crate) struct Retrier<'c> {
    session: Session,
    settings: &'c Config,
    prepared: BTreeMap<String, Prepared>,
    /// What was said of the partitions that the letter at hand needs, once they were asked for.
    partitions: Option<Answer>,
}

/// What a pipeline's messages are decoded and written with.
#[derive(Debug)]
struct Prepared {
    decoder: Decoder,
    targets: Vec<Target>,
    /// Why its letters are not retried.
    refusal: Option<String>,
}

/// How one transaction ended.
enum Settled {
    Done(Outcome),
    /// Rolled back; to be tried again after a moment.
    Again(Error),
}

/// How many rows were copied, how many each table stored, and the statements that tell roll-ups of them;
/// without rows, how the transaction ended.
type Copied = Result<(usize, Vec<(String, u64)>, String), Settled>;

impl<'c> Retrier<'c> {
    /// On a session of its own.
    #[must_use]
    pub(crate) fn new(settings: &'c Config, session: Session) -> Self {
        Self { session, settings, prepared: BTreeMap::new(), partitions: None }
    }

    /// The session, when all is done.
    #[must_use]
    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    /// Retries one letter.
    pub(crate) async fn retry(&mut self, id: i64) -> Result<Outcome, Error> {
        let mut attempt = 0;
        self.partitions = None;
        loop {
            match self.attempt(id).await? {
                Settled::Done(outcome) => return Ok(outcome),
                Settled::Again(error) if attempt == ATTEMPTS => return Err(error),
                Settled::Again(_) => attempt += 1,
            }
            tokio::time::sleep(PAUSE * attempt).await;
        }
    }

    /// One transaction.
    async fn attempt(&mut self, id: i64) -> Result<Settled, Error> {
        self.own("begin on", self.session.client.batch_execute(&begin_sql(&self.session))).await?;
        let kept = match self.own("read", kept::lock(&self.session.client, id)).await {
            Err(error) if is_retry(&error, Step::Own) => return self.again(error).await,
            kept => kept?,
        };
        let Some(kept) = kept else {
            self.roll_back().await?;
            return Ok(Settled::Done(Outcome::Gone));
        };
        let settings = self.settings;
        let Some(pipeline) = settings.pipelines.iter().find(|known| known.name == kept.pipeline) else {
            return self.not_tried(format!("the configuration has no pipeline {}", kept.pipeline)).await;
        };
        if !self.prepared.contains_key(&pipeline.name) {
            let prepared = Prepared::new(&self.session, pipeline).await?;
            self.prepared.insert(pipeline.name.clone(), prepared);
        }
        let Some(prepared) = self.prepared.get_mut(&pipeline.name) else {
            unreachable!("it was prepared a line before")
        };
        if let Some(why) = &prepared.refusal {
            let why = why.clone();
            return self.not_tried(why).await;
        }
        let Some(stored_at_us) = kept.stored_at_us else {
            let why = "it does not say when the stream stored it";
            return self.not_tried(why.to_owned()).await;
        };
        let Some(payload) = &kept.payload else {
            let why = gone(&kept);
            return self.not_tried(why).await;
        };
        let original = Original::of(&kept);
        if let Some(why) = original.lacks(pipeline) {
            return self.not_tried(why).await;
        }
        let decoded = decode(prepared, pipeline, &kept, original, payload, stored_at_us);
        let rows = decoded.as_ref().map_or(&[][..], |attempt| &attempt.rows.tables);
        let look = lock_and_ask(&prepared.targets, rows);
        let limit = settings.postgres.step_timeout;
        match own(limit, "lock the tables of", ask(&self.session.client, &look)).await {
            Err(error) if is_retry(&error, Step::Own) => return self.again(error).await,
            answers => {
                if let Some(table) = changed(&prepared.targets, &answers?) {
                    // What was prepared is of a table as it was.
                    let error = Error::Changed(table.name.clone());
                    self.prepared.remove(&pipeline.name);
                    return self.again(error).await;
                }
            }
        }
        let mut attempt = match decoded {
            Ok(attempt) => attempt,
            Err(letter) => return self.refuse(id, &letter).await,
        };
        let shard = Shard::new(&kept.pipeline, &kept.shard, &kept.stream);
        self.write(id, &shard, &mut attempt).await
    }

    /// Copies the rows, and finds out which of them is refused.
    async fn copy(&mut self, id: i64, shard: &Shard, attempt: &mut Attempt) -> Result<Copied, Error> {
        let limit = self.settings.postgres.step_timeout;
        // Unreachable but for the borrow: the pipeline was prepared by the caller.
        let Some(prepared) = self.prepared.get_mut(&shard.pipeline) else {
            unreachable!("the caller prepared it")
        };
        let (session, targets) = (&self.session, &mut prepared.targets);
        own(limit, "mark the start of", session.client.batch_execute("SAVEPOINT letter")).await?;
        let (rows, stored) = 'copy: loop {
            let (mut written, mut stored) = (0_usize, Vec::new());
            for (table, (target, rows)) in targets.iter_mut().zip(&mut attempt.rows.tables).enumerate() {
                if rows.rows.is_empty() {
                    continue;
                }
                let selection = Selection { table, excluded: &attempt.excluded, within: 0..u32::MAX };
                let copied = within(limit, "during COPY", target.write(session, rows, &selection)).await?;
                let sent = rows.rows.iter().filter(|row| !attempt.excluded.holds(table, row)).count();
                let of = |unstored: Unstored| (target.qualified.clone(), unstored.of(sent as u64));
                let Err(error) = copied.map(|unstored| stored.push(of(unstored))) else {
                    written += sent;
                    continue;
                };
                let decision = decide(&error.source, error.step);
                match decision {
                    _ if error.step == Step::CopyStart => {
                        return Err(Error::Copy { table: target.name.clone(), source: error });
                    }
                    Decision::AddPartition if self.partitions.is_none() => {
                        let rows = rows.rows.iter().filter(|row| !attempt.excluded.holds(table, row));
                        let days = days(target, rows);
                        own(limit, "leave", session.client.batch_execute("ROLLBACK")).await?;
                        let asked = ask_for(session, &target.qualified, &days);
                        self.partitions = Some(own(limit, "add partitions for", asked).await?);
                        let error = Error::Copy { table: target.name.clone(), source: error };
                        return Ok(Err(Settled::Again(error)));
                    }
                    // What there is no partition for by now, gets none.
                    Decision::SuspectRow
                    | Decision::PauseUnlessRow
                    | Decision::BackOffUnlessRow
                    | Decision::AddPartition => {}
                    Decision::Merge => {
                        target.merging = 1;
                        own(limit, "begin anew on", session.client.batch_execute(BACK)).await?;
                        continue 'copy;
                    }
                    Decision::Retry => {
                        let error = Error::Copy { table: target.name.clone(), source: error };
                        return self.again(error).await.map(Err);
                    }
                    Decision::Reconnect | Decision::BackOff | Decision::Divide | Decision::Pause => {
                        return Err(Error::Copy { table: target.name.clone(), source: error });
                    }
                }
                own(limit, "begin anew on", session.client.batch_execute(BACK)).await?;
                let refused = DeadLetter { table: Some(target.name.clone()), ..attempt.letter.clone() };
                let beyond = self.partitions.as_ref().and_then(|answer| answer.refusal(&target.name));
                let refused = match beyond {
                    Some(reason) if decision == Decision::AddPartition => beyond_bounds(refused, reason),
                    Some(_) | None => refused_letter(refused, &error.source),
                };
                let row = error.row.and_then(|row| target.row_of(rows, &selection, row));
                let one = attempt.letter.element.is_some() && attempt.letter.elements.is_empty();
                match row.filter(|_| target.bad_element == BadElement::Element && !one) {
                    Some(row) => {
                        let (message, element) = (row.message, row.element);
                        attempt.excluded.elements.insert((table, message, element));
                        let elements = Vec::new();
                        let refused = DeadLetter { element: Some(element), elements, ..refused };
                        add_element(&mut attempt.refused, refused);
                        continue 'copy;
                    }
                    None => return self.refuse(id, &refused).await.map(Err),
                }
            }
            break (written, stored);
        };
        Ok(Ok((rows, stored, touches(targets, &attempt.rows.tables))))
    }

    /// Copies the rows, stores the letters of refused elements, and takes the letter away.
    async fn write(&mut self, id: i64, shard: &Shard, attempt: &mut Attempt) -> Result<Settled, Error> {
        let limit = self.settings.postgres.step_timeout;
        let (rows, stored, told) = match self.copy(id, shard, attempt).await? {
            Ok(copied) => copied,
            Err(settled) => return Ok(settled),
        };
        if rows == 0 && !attempt.letter.elements.is_empty() && !attempt.refused.is_empty() {
            // None of them passes: the letter stays, with the reason of the first.
            let elements = std::mem::take(&mut attempt.letter.elements);
            let first = attempt.refused.swap_remove(0);
            let letter = DeadLetter { element: attempt.letter.element, elements, ..first };
            own(limit, "begin anew on", self.session.client.batch_execute(BACK)).await?;
            return self.refuse(id, &letter).await;
        }
        let client = &self.session.client;
        own(limit, "tell roll-ups of", client.batch_execute(&told)).await?;
        own(limit, "store", store(client, shard, &attempt.refused)).await?;
        own(limit, "take away", kept::remove(client, id, &stored, attempt.refused.len())).await?;
        match own(limit, "commit", client.batch_execute("COMMIT")).await {
            Ok(()) => Ok(Settled::Done(Outcome::Stored { rows, refused: attempt.refused.len() })),
            // The server has rolled back already, and the letter is as it was.
            Err(Error::Database { source, .. }) if decide(&source, Step::Commit) == Decision::SuspectRow => {
                let refused = refused_letter(attempt.letter.clone(), &source);
                own(limit, "begin on", self.session.client.batch_execute("BEGIN")).await?;
                self.refuse(id, &refused).await
            }
            Err(error) if is_retry(&error, Step::Commit) => Ok(Settled::Again(error)),
            Err(error) => Err(error),
        }
    }

    /// Commits the new reason.
    async fn refuse(&self, id: i64, letter: &DeadLetter) -> Result<Settled, Error> {
        self.own("change", restate(&self.session.client, id, letter)).await?;
        self.own("commit", self.session.client.batch_execute("COMMIT")).await?;
        Ok(Settled::Done(Outcome::Refused {
            kind: letter.kind.to_owned(),
            message: letter.reason().into_owned(),
        }))
    }

    async fn not_tried(&self, why: String) -> Result<Settled, Error> {
        self.roll_back().await?;
        Ok(Settled::Done(Outcome::NotTried { why }))
    }

    async fn again(&self, error: Error) -> Result<Settled, Error> {
        self.roll_back().await?;
        Ok(Settled::Again(error))
    }

    async fn roll_back(&self) -> Result<(), Error> {
        self.own("leave", self.session.client.batch_execute("ROLLBACK")).await
    }

    async fn own<T>(
        &self,
        action: &'static str,
        step: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        own(self.settings.postgres.step_timeout, action, step).await
    }
}

/// Undoes what was copied, and keeps the letter locked.
const BACK: &str = "ROLLBACK TO SAVEPOINT letter";

/// A step on jetcopy's own table, under its deadline.
async fn own<T>(
    limit: Duration,
    action: &'static str,
    step: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    let done = within(limit, action, step).await?;
    done.map_err(|source| Error::Database { action, source })
}

fn is_retry(error: &Error, step: Step) -> bool {
    matches!(error, Error::Database { source, .. } if decide(source, step) == Decision::Retry)
}

impl Prepared {
    async fn new(session: &Session, pipeline: &config::Pipeline) -> Result<Self, Error> {
        let mut tables = Vec::with_capacity(pipeline.tables.len());
        for table in &pipeline.tables {
            let found = introspect::introspect(&session.client, &table.name).await?;
            found.fits(table)?;
            tables.push(found);
        }
        let decoder = Decoder::new(pipeline, &tables)?;
        let mut refusal = None;
        let mut targets = Vec::with_capacity(tables.len());
        for (index, (settings, table)) in pipeline.tables.iter().zip(&tables).enumerate() {
            let mut target = Target::new(settings, table, &decoder, index);
            match settings.column_of(SEQUENCE) {
                // By its own measure, a late row replaces no newer one.
                _ if settings.newer_by.is_some() => {}
                Some(column) => target.keep_newer(column),
                None if settings.on_conflict == OnConflict::Update => {
                    refusal = Some(format!(
                        "table {} has on_conflict = \"update\" and neither newer_by nor a column that keeps \
                         $sequence, so a late row could replace a newer one",
                        settings.name
                    ));
                }
                None => {}
            }
            targets.push(target);
        }
        Ok(Self { decoder, targets, refusal })
    }
}

/// Why a letter without a payload cannot be tried.
fn gone(kept: &Kept) -> String {
    let Kept { stream, sequence, expired_at, .. } = kept;
    let when = expired_at.as_deref().unwrap_or("an unknown time");
    format!(
        "its payload was removed at {when}, by [store.dead_letters] retention; if stream {stream} still \
         holds sequence {sequence}, publish that message again, and then discard the letter"
    )
}
