//! Batch → one transaction → [`Ack`].
//!
//! Guarantees:
//!
//! - Rows, dead letters and the checkpoint of a batch are committed together or not at all, and COMMIT is called only
//!   when every step before it was Ok.
//! - A row that the server refuses is pinned to its message by the error's `COPY` line, else by bisection; that message
//!   becomes a dead letter as a whole, or with `bad_element = "element"` the row's element alone, and all others of the
//!   batch are committed by `COPY`.
//! - Rows are written into tables that still are what the batch was encoded for (`write/shape.rs`).
//! - A row for which a partition is missing gets one, within the bounds of `jetcopy.add_partitions()`.
//! - Every wait has a deadline, except the one for the next batch.
//!
//! Any error that is not about one row ends the generation; resync settles what became of the transaction.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_postgres::error::SqlState;

use crate::ack::Ack;
use crate::batch::{Batch, Excluded, Selection};
use crate::checkpoint::{self, Advance, Along, Committed, Open, Place};
use crate::copy::{CopyError, Target};
use crate::dead_letter;
use crate::lag::Progress;
use crate::metrics::{self, PipelineMetrics, gauge_value};
use crate::poison::{Flood, Window};
use crate::postgres::connect::Session;
use crate::postgres::sqlstate::{Decision, Step, decide};
use crate::status::PipelineStatus;

use partitions::Added;
use refused::Poisoned;

pub(crate) mod partitions;
pub(crate) mod refused;
pub(crate) mod shape;

/// How often a transaction that lost a deadlock or a lock is tried again before the connection is given up.
const RETRIES: u32 = 5;

/// Pause before such a retry, times the attempt: long enough for the other transaction to end.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// After a row was there already, so many batches go through the merge path before the direct way is tried again:
/// duplicates come in stretches, and each failed attempt costs a batch's `COPY`.
const MERGE_BATCHES: u32 = 16;

/// Why no more batches can be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint could not be moved or committed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A table could not be locked, or the checkpoint not be moved.
    #[error("cannot move the checkpoint and lock {tables}")]
    Begin {
        /// The tables, as configured.
        tables: String,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// A table is not what the batch was encoded for.
    #[error("table {table} has changed: it is read anew")]
    Changed {
        /// Table as configured.
        table: String,
    },
    /// Rows were not taken, and no single row is at fault.
    #[error("cannot write to table {table}")]
    Copy {
        /// Table as configured.
        table: String,
        /// Where and why.
        source: CopyError,
    },
    /// Dead letters could not be stored.
    #[error("cannot store dead letters")]
    DeadLetters(#[source] tokio_postgres::Error),
    /// A trial that looks for the refused row failed for another reason.
    #[error("cannot look for the refused row")]
    Trial(#[source] tokio_postgres::Error),
    /// Rows need partitions that could not be added.
    #[error("cannot add partitions to table {table}")]
    Partitions {
        /// Table as configured.
        table: String,
        /// What the driver said.
        source: tokio_postgres::Error,
    },
    /// The server did not answer in time.
    #[error("the database did not answer within {} s while jetcopy was to {action}", .after.as_secs())]
    Timeout {
        /// What was to be done.
        action: &'static str,
        /// How long was waited: `postgres.step_timeout`.
        after: Duration,
    },
    /// More poison than is normal.
    #[error(transparent)]
    Flood(#[from] Flood),
    /// The connection is gone.
    #[error("the database connection was lost")]
    Closed,
}

/// Writes the batches of one generation.
#[derive(Debug)]
pub struct Writer {
    /// The session that the shard is claimed on.
    pub session: Session,
    /// The shard.
    pub place: Place,
    /// Epoch of the claim.
    pub epoch: i64,
    /// What is committed: the first batch follows right after it.
    pub checkpoint: u64,
    /// The tables, in the order of the configuration.
    pub targets: Vec<Target>,
    /// How much poison there was lately.
    pub poison: Arc<Mutex<Window>>,
    /// How long one step of a transaction may take.
    pub step_timeout: Duration,
    /// Told of every commit.
    pub progress: Arc<Progress>,
    /// Counts all there is to count about commits.
    pub metrics: PipelineMetrics,
    /// Told of dead letters.
    pub status: Arc<PipelineStatus>,
}

/// What one attempt to write a batch came to.
enum Attempt {
    Committed(Committed),
    /// The server refused a row of table `table`; all is rolled back.
    Refused {
        table: usize,
        error: CopyError,
    },
    /// No partition of table `table` takes a row; all is rolled back.
    Unpartitioned {
        table: usize,
        error: CopyError,
    },
    /// A deferred constraint refused a row; all is rolled back.
    RefusedAtCommit(tokio_postgres::Error),
    /// A row of this table is there already; all is rolled back.
    Conflict {
        table: usize,
    },
    /// Another transaction was in the way; all is rolled back.
    Again(Error),
}

impl Writer {
    /// Writes batches until their sender is gone; then gives the shard up.
    pub async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        acks: mpsc::Sender<Ack>,
        emptied: mpsc::Sender<Batch>,
    ) -> Result<(), Error> {
        let mut closed = pin!(self.session.closed());
        let mut renewal = tokio::time::interval(checkpoint::LEASE / 3);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewal.reset();
        loop {
            tokio::select! {
                // A lost connection is told at once, also while nothing is to be written.
                biased;
                () = &mut closed => return Err(Error::Closed),
                batch = batches.recv() => {
                    let Some(mut batch) = batch else { break };
                    let committed = self.write(&mut batch).await?;
                    // Whoever acknowledges is gone only when the generation ends; the checkpoint holds without it.
                    if let Some(reply) = batch.reply.take() {
                        self.at(metrics::Step::Ack);
                        acks.send(Ack { committed, reply }).await.ok();
                    }
                    self.metrics.buffered_bytes.sub(gauge_value(batch.bytes() as u64));
                    batch.clear();
                    // Nobody waits for an emptied batch: it is only spared an allocation.
                    emptied.try_send(batch).ok();
                    renewal.reset();
                }
                _ = renewal.tick() => {
                    self.at(metrics::Step::Renew);
                    let renew = checkpoint::renew(&self.session, &self.place, self.epoch);
                    within(self.step_timeout, "renew the lease", renew).await?;
                }
            }
        }
        let release = checkpoint::release(&self.session, &self.place, self.epoch);
        within(self.step_timeout, "release the shard", release).await?;
        self.session.close().await;
        Ok(())
    }

    /// Writes one batch, whatever of it is poison.
    async fn write(&mut self, batch: &mut Batch) -> Result<Committed, Error> {
        let (started, writing) = (Instant::now(), self.metrics.motion.write());
        let mut poisoned = match self.refused_by_decoder(batch) {
            Ok(poisoned) => poisoned,
            Err(flood) => {
                // It may be poison by a table that is another by now.
                self.look_at_tables().await?;
                return Err(flood);
            }
        };
        let mut retries = 0;
        let committed = loop {
            let again = match self.attempt(batch, &poisoned).await? {
                Attempt::Committed(committed) => break committed,
                Attempt::Conflict { table } => {
                    self.targets[table].merging = MERGE_BATCHES;
                    None
                }
                Attempt::Unpartitioned { table, error } => {
                    match self.add_partitions(batch, &mut poisoned, table).await? {
                        Added::LeftOut => None,
                        Added::Busy(error) => Some(error),
                        Added::All if retries < RETRIES => {
                            Some(Error::Copy { table: self.targets[table].name.clone(), source: error })
                        }
                        // Whatever is added does not take it: partitions of other spans than a day are in the way.
                        Added::All | Added::Foreign => {
                            self.refuse(batch, &mut poisoned, table, error).await?
                        }
                    }
                }
                Attempt::Refused { table, error } => self.refuse(batch, &mut poisoned, table, error).await?,
                Attempt::RefusedAtCommit(source) => match self.bisect(batch, &poisoned).await? {
                    Some(unit) => {
                        self.add_refused(&mut poisoned, batch, unit, None, &source)?;
                        None
                    }
                    None => Some(checkpoint::Error::Database { action: "commit", source }.into()),
                },
                Attempt::Again(error) => Some(error),
            };
            let Some(again) = again else { continue };
            // Another transaction was in the way, or what refused a row is gone.
            if retries == RETRIES {
                return Err(again);
            }
            retries += 1;
            tracing::debug!(retries, error = %again, "trying the transaction again");
            self.at(metrics::Step::Again);
            tokio::time::sleep(RETRY_PAUSE * retries).await;
        };
        self.checkpoint = committed.last_sequence();
        self.count(batch, &poisoned, started);
        writing.done();
        Ok(committed)
    }

    /// One transaction, from BEGIN to COMMIT or ROLLBACK.
    async fn attempt(&mut self, batch: &mut Batch, poisoned: &Poisoned) -> Result<Attempt, Error> {
        let Some(last) = batch.messages.last() else { unreachable!("an empty batch is never sent") };
        let to = Advance { last_sequence: last.sequence, last_timestamp_ns: last.timestamp_ns };
        self.at(metrics::Step::Begin(self.tables()));
        let along = Along {
            before: partitions::touches(&self.targets, &batch.rows.tables),
            after: shape::lock_and_ask(&self.targets, &batch.rows.tables),
        };
        let begin = Open::begin(&self.session, &self.place, self.epoch, self.checkpoint, &to, &along);
        let open = match within(self.step_timeout, "begin", begin).await {
            Ok(open) => open,
            Err(error) => {
                if matches!(error, Error::Checkpoint(checkpoint::Error::LostEpoch)) {
                    self.metrics.commits.lost_epoch.inc();
                }
                return self.try_again(error).await;
            }
        };
        self.progress.step();
        if let Err(changed) = self.unchanged(open.answers()) {
            within(self.step_timeout, "roll back", open.rollback()).await?;
            return Err(changed);
        }
        let copied = self.copy_all(batch, &poisoned.excluded, 0..u32::MAX).await?;
        if let Err((table, error)) = copied {
            self.metrics.commits.failed.inc();
            let decision = decide(&error.source, error.step);
            if error.step == Step::CopyStart {
                // The driver's replies are off by one after this: the connection is not used again.
                return Err(Error::Copy { table: self.targets[table].name.clone(), source: error });
            }
            return match decision {
                Decision::PoisonRow => {
                    within(self.step_timeout, "roll back", open.rollback()).await?;
                    Ok(Attempt::Refused { table, error })
                }
                Decision::AddPartition => {
                    within(self.step_timeout, "roll back", open.rollback()).await?;
                    Ok(Attempt::Unpartitioned { table, error })
                }
                Decision::Merge => {
                    within(self.step_timeout, "roll back", open.rollback()).await?;
                    Ok(Attempt::Conflict { table })
                }
                Decision::Retry => {
                    within(self.step_timeout, "roll back", open.rollback()).await?;
                    Ok(Attempt::Again(Error::Copy { table: self.targets[table].name.clone(), source: error }))
                }
                Decision::Reconnect | Decision::BackOff | Decision::Pause => {
                    Err(Error::Copy { table: self.targets[table].name.clone(), source: error })
                }
            };
        }
        if !poisoned.letters.is_empty() {
            self.at(metrics::Step::DeadLetters);
            let stored = dead_letter::store(&self.session.client, &self.place, &poisoned.letters);
            timeout(self.step_timeout, stored)
                .await
                .map_err(|_| Error::Timeout { action: "store dead letters", after: self.step_timeout })?
                .map_err(Error::DeadLetters)?;
            self.progress.step();
        }
        self.at(metrics::Step::Commit);
        match within(self.step_timeout, "commit", open.commit()).await {
            Ok(committed) => {
                self.metrics.duplicates_skipped.inc_by(copied.unwrap_or_default());
                Ok(Attempt::Committed(committed))
            }
            Err(Error::Checkpoint(checkpoint::Error::Database { source, .. }))
                if decide(&source, Step::Commit) == Decision::PoisonRow =>
            {
                self.metrics.commits.failed.inc();
                Ok(Attempt::RefusedAtCommit(source))
            }
            Err(Error::Checkpoint(checkpoint::Error::Database { action, source }))
                if decide(&source, Step::Commit) == Decision::Retry =>
            {
                // A serialization failure at COMMIT: the server has rolled back already.
                self.metrics.commits.failed.inc();
                Ok(Attempt::Again(checkpoint::Error::Database { action, source }.into()))
            }
            Err(error) => {
                self.metrics.commits.in_doubt.inc();
                Err(error)
            }
        }
    }

    /// After an error before any row: rolls back and tries again where that helps. A lock that is not free in time is
    /// waited for by the next generation, which says so.
    async fn try_again(&self, error: Error) -> Result<Attempt, Error> {
        let Error::Checkpoint(checkpoint::Error::Database { source, .. }) = error else { return Err(error) };
        self.metrics.commits.failed.inc();
        let again = decide(&source, Step::Own) == Decision::Retry
            && source.code() != Some(&SqlState::LOCK_NOT_AVAILABLE);
        let error = Error::Begin { tables: self.tables(), source };
        if !again {
            return Err(error);
        }
        within(self.step_timeout, "roll back", checkpoint::rollback(&self.session)).await?;
        Ok(Attempt::Again(error))
    }

    /// Copies the rows of every table into the open transaction, without what is `excluded` and of messages `within` the
    /// range only; how many the merge path skipped.
    async fn copy_all(
        &self,
        batch: &mut Batch,
        excluded: &Excluded,
        within: Range<u32>,
    ) -> Result<Result<u64, (usize, CopyError)>, Error> {
        let mut skipped = 0;
        for (table, (target, rows)) in self.targets.iter().zip(&mut batch.rows.tables).enumerate() {
            if rows.rows.is_empty() {
                continue;
            }
            self.at(metrics::Step::Copy(target.name.clone()));
            let selection = Selection { table, excluded, within: within.clone() };
            let outcome = timeout(self.step_timeout, target.write(&self.session, rows, &selection)).await;
            self.progress.step();
            match outcome {
                Ok(Ok(count)) => skipped += count,
                Ok(Err(error)) => return Ok(Err((table, error))),
                Err(_) => return Err(Error::Timeout { action: "copy", after: self.step_timeout }),
            }
        }
        Ok(Ok(skipped))
    }

    /// Says what the writer is at.
    fn at(&self, step: metrics::Step) {
        self.metrics.motion.step(step);
    }

    fn count(&mut self, batch: &Batch, poisoned: &Poisoned, started: Instant) {
        let metrics = &self.metrics;
        let commits =
            if poisoned.letters.is_empty() { &metrics.commits.committed } else { &metrics.commits.poison };
        commits.inc();
        let took = started.elapsed();
        self.progress.pace.wrote(took);
        metrics.commit_seconds.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a count of rows in memory")]
        metrics.batch_rows.observe(batch.row_count() as f64);
        for (table, (counter, rows)) in metrics.rows.iter().zip(&batch.rows.tables).enumerate() {
            let refused = rows.rows.iter().filter(|row| poisoned.excluded.holds(table, row)).count();
            counter.inc_by((rows.rows.len() - refused) as u64);
        }
        for letter in &poisoned.letters {
            metrics.dead_letters(letter.kind).inc();
            self.status.note_dead_letter(letter);
            tracing::warn!(
                pipeline = self.place.pipeline,
                sequence = letter.sequence,
                kind = letter.kind,
                sqlstate = letter.sqlstate,
                table = letter.table,
                column = letter.column,
                element = letter.element,
                "a message became a dead letter"
            );
        }
        self.poison
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stored(poisoned.letters.len(), Instant::now());
        for target in &mut self.targets {
            target.merging = target.merging.saturating_sub(1);
        }
        let latency = metrics.publish_to_commit_seconds.local();
        let now = jiff::Timestamp::now().as_nanosecond();
        for message in &batch.messages {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a latency")]
            latency.observe((now - i128::from(message.timestamp_ns)).max(0) as f64 / 1e9);
        }
        latency.flush();
        metrics.checkpoint_sequence.set(gauge_value(self.checkpoint));
        if let Some(last) = batch.messages.last() {
            self.progress.committed(batch.messages.len() as u64, last.timestamp_ns);
        }
    }
}

/// Runs one step under its deadline.
async fn within<T>(
    limit: Duration,
    action: &'static str,
    step: impl Future<Output = Result<T, checkpoint::Error>>,
) -> Result<T, Error> {
    match timeout(limit, step).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Error::Timeout { action, after: limit }),
    }
}
