//! Batch → one transaction → [`Ack`].
//!
//! Guarantees:
//!
//! - Rows, dead letters and the checkpoint of a batch are committed together or not at all, and COMMIT is
//!   called only when every step before it was Ok.
//! - A row that the server refuses is pinned to its message by the error's `COPY` line, else by bisection.
//!   Where that message fails alone and others pass (`blame.rs`), it becomes a dead letter as a whole, or
//!   with `bad_element = "element"` the row's element alone, and all others of the batch are committed by
//!   `COPY`.
//! - Rows are written into tables that still are what the batch was encoded for (`write/shape.rs`).
//! - A row for which a partition is missing gets one, within the bounds of `[store]`; where that is not
//!   jetcopy's to do, the pipeline pauses until it is there.
//! - Every wait has a deadline, except the one for the next batch. A batch that does not fit into one is
//!   written in parts, in order, each in a transaction that moves the checkpoint to its end.
//!
//! Any error that is not about one row ends the generation; resync settles what became of the transaction.

use std::error::Error as _;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::ack::Ack;
use crate::batch::{Batch, Held, Moved, Row};
use crate::catalog::bounds::Named;
use crate::checkpoint::{self, Advance, Along, Committed};
use crate::copy::{Target, Unstored};
use crate::dead_letter::DeadLetter;
use crate::lag::Progress;
use crate::membership::Membership;
use crate::metrics::{self, PipelineMetrics};
use crate::milestones;
use crate::postgres::connect::Session;
use crate::postgres::simple::within;
use crate::seal;
use crate::shard::Shard;
use crate::status::PipelineStatus;

use attempt::{Attempt, Copied, Stop};
use blame::Halt;
pub(crate) use error::Error;
use error::out_of_time;
pub(crate) use memory::Memory;
use partitions::Added;
use refused::Poisoned;
pub(crate) use search::Search;
pub(crate) use team::Team;
use window::Window;

mod attempt;
mod blame;
mod error;
pub(crate) mod flood;
mod memory;
mod neighbours;
mod partitions;
mod proof;
mod refused;
pub(crate) mod retry;
mod search;
mod shape;
mod team;
pub(crate) mod window;

/// How often a transaction that lost a deadlock or a lock is tried again before the connection is given up.
const RETRIES: u32 = 5;

/// Pause before such a retry, times the attempt: long enough for the other transaction to end.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// After a row that existed already, this many batches take the merge path before the direct way is tried
/// again: duplicates come in stretches, and each failed attempt costs a batch's `COPY`.
const MERGE_BATCHES: u32 = 16;

/// The step that takes as long for few messages as for many.
const BEGIN: &str = "starting a transaction";

/// How often a single message may run out of time, each time over a new connection, before that is reported
/// to a person: once may be the connection's fault.
const ALONE: u32 = 2;

/// Writes the batches of one lane in one generation.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Of the first lane, the session that the shard is claimed on.
    pub session: Session,
    pub shard: Shard,
    /// Epoch of the claim.
    pub epoch: i64,
    pub lane: usize,
    /// What is committed of the lane: the first batch follows right after it.
    pub checkpoint: u64,
    /// The writers of all lanes.
    pub team: Arc<Team>,
    /// Shows where all shards stand.
    pub membership: Membership,
    /// Messages that may become dead letters beyond the limits.
    pub accepted: u64,
    /// The tables, in the order of the configuration.
    pub targets: Vec<Target>,
    /// Whether what was superseded unread is recorded as a loss.
    pub records_superseded: bool,
    /// How far from today partitions are to be added.
    pub partitions: Named,
    /// How much poison there was lately.
    pub poison: Arc<Mutex<Window>>,
    /// What the generations before have learnt, and this one learns.
    pub memory: Arc<Mutex<Memory>>,
    /// What finding refused rows has cost.
    pub search: Search,
    /// How long one step of a transaction may take.
    pub step_timeout: Duration,
    /// Told of every batch that is written.
    pub held: Arc<Held>,
    /// What an emptied batch may keep of its allocations, in bytes.
    pub keep: usize,
    /// Told of every commit.
    pub progress: Arc<Progress>,
    /// What was committed since the last seal.
    pub seal: seal::Open,
    /// When it is to write a milestone.
    pub milestone: milestones::Due,
    /// Counts all there is to count about commits.
    pub metrics: PipelineMetrics,
    /// Told of dead letters.
    pub status: Arc<PipelineStatus>,
}

/// What follows an attempt that was not committed.
enum Next {
    /// Another one, at once.
    Now,
    /// Another one after a pause, unless there were too many: then this error.
    Later(Error),
    /// One with fewer messages, since its time ran out.
    Smaller(Error),
    /// One with half the messages, since the server takes no more at once.
    Half(Error),
}

impl Writer {
    /// Writes batches until their sender is gone; the last writer then gives the shard up, if that was
    /// because of a `stop`.
    /// Where nothing more can be read, the shard stays: the next generation follows here.
    pub(crate) async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        acks: mpsc::Sender<Ack>,
        emptied: mpsc::Sender<Batch>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut closed = pin!(self.session.closed());
        let mut idle = tokio::time::interval(checkpoint::CONFIRM);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle.reset();
        let mut asked = Instant::now();
        loop {
            tokio::select! {
                // A lost connection is reported at once, also while nothing is to be written.
                biased;
                () = &mut closed => return Err(Error::Closed),
                batch = batches.recv() => {
                    let Some(mut batch) = batch else { break };
                    if let (true, Some(moved)) = (batch.is_empty(), batch.moved) {
                        let committed = self.advance(moved).await?;
                        acks.send(Ack { committed: Some(committed), delivered: None }).await.ok();
                        idle.reset();
                        continue;
                    }
                    let committed = self.write(&mut batch).await?;
                    // Whoever acknowledges is gone only when the generation ends; the checkpoint holds
                    // without it.
                    let delivered = batch.reply.take().map(|reply| (self.checkpoint, reply));
                    self.at(metrics::Step::Ack);
                    acks.send(Ack { committed: Some(committed), delivered }).await.ok();
                    let bytes = batch.bytes();
                    batch.clear(self.keep);
                    self.held.written(bytes);
                    // Nobody waits for an emptied batch: it is only spared an allocation.
                    emptied.try_send(batch).ok();
                    idle.reset();
                }
                _ = idle.tick() => {
                    let verified = match self.seen() {
                        Some(place) if asked.elapsed() < checkpoint::OWN_CONFIRM => place.verified,
                        _ => {
                            asked = Instant::now();
                            self.confirm().await?
                        }
                    };
                    self.metrics.verified_to(verified);
                    self.metrics.motion.rests();
                }
            }
        }
        if self.team.leave() && *stop.borrow() {
            let release = checkpoint::release(&self.session, &self.shard, self.epoch);
            within(self.step_timeout, "releasing the shard", release).await??;
        }
        self.session.close().await;
        Ok(())
    }

    /// Moves the checkpoint over a stretch in which nothing is the pipeline's.
    async fn advance(&mut self, moved: Moved) -> Result<Committed, Error> {
        let to = Advance { last_sequence: moved.to, last_timestamp_ns: moved.timestamp_ns };
        let (sealing, close) = self.sealing();
        let along = Along { close, set: sealing.set(moved.to), ..Along::default() };
        let open = self.open(&to, &along).await?;
        let committed = within(self.step_timeout, "during commit", open.commit()).await??;
        self.seal = sealing;
        self.checkpoint = committed.last_sequence();
        self.metrics.verified_to(committed.verified());
        let tell = |floor| self.metrics.committed_to(floor);
        self.team.commit(self.lane, self.checkpoint, None, tell);
        Ok(committed)
    }

    /// Writes one batch, whatever of it is poison: in one transaction, or in as many as its messages fit
    /// into.
    async fn write(&mut self, batch: &mut Batch) -> Result<Committed, Error> {
        let end = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        let mut from = 0_u32;
        let writing = self.metrics.motion.write();
        self.search = Search::default();
        loop {
            let most = self.memory().fit.limit().min(self.search.limit);
            let part = from..from.saturating_add(most).min(end);
            match self.write_part(batch, part.clone()).await {
                Ok(Some((committed, written))) if written == end => {
                    writing.done();
                    return Ok(committed);
                }
                Ok(Some((_, written))) => {
                    self.metrics.motion.moved();
                    from = written;
                }
                // Some of it, later.
                Ok(None) => {}
                Err(Error::Flood(stopped)) => {
                    self.team.flood();
                    self.tell_flood(&stopped).await;
                    return Err(Error::Flood(stopped));
                }
                Err(error) => return Err(self.ran_out_of_time(batch, &part, error)),
            }
        }
    }

    /// Writes one part of a batch, or as much of it as is let through; up to which message. `None` where it
    /// is too large for the time that it is given.
    async fn write_part(
        &mut self,
        batch: &mut Batch,
        part: Range<u32>,
    ) -> Result<Option<(Committed, u32)>, Error> {
        let started = Instant::now();
        let mut poisoned = match self.refused_by_decoder(batch, part) {
            Ok(poisoned) => poisoned,
            Err(flood) => {
                // It may be poison by a table that is another by now.
                self.look_at_tables().await?;
                return Err(flood);
            }
        };
        let mut retries = 0;
        let mut sent = self.search.sent();
        loop {
            let stop = match self.attempt(batch, &poisoned).await? {
                Attempt::Committed(committed, copied, sealing) => {
                    self.seal = *sealing;
                    self.metrics.verified_to(committed.verified());
                    self.checkpoint = committed.last_sequence();
                    self.count(batch, &poisoned, &copied, started);
                    self.accepted -= poisoned.uses();
                    // What was accepted leaves room for what is normal.
                    self.search.committed(if poisoned.accepted { 0 } else { poisoned.messages.len() });
                    return Ok(Some((committed, poisoned.part.end)));
                }
                Attempt::Stopped(stop) => stop,
            };
            if let (Stop::Suspect { .. }, Some(last)) = (&stop, poisoned.blamed)
                && let Some(end) = self.search.divide(&poisoned.part, last, sent)
            {
                poisoned.cut(batch, end);
                sent = self.search.sent();
                continue;
            }
            let again = match self.answer(batch, &mut poisoned, retries, stop).await? {
                Next::Now => continue,
                Next::Later(error) => error,
                Next::Smaller(error) => {
                    let messages = poisoned.part.len();
                    tracing::warn!(
                        pipeline = self.shard.pipeline,
                        messages,
                        %error,
                        cause = error.source(),
                        "a transaction timed out; continuing with fewer messages at a time"
                    );
                    self.memory().fit.shrink();
                    return Ok(None);
                }
                Next::Half(error) => {
                    self.halve(&poisoned.part, &error);
                    return Ok(None);
                }
            };
            // Another transaction was in the way, or what refused a row is gone.
            if retries == RETRIES {
                return Err(again);
            }
            retries += 1;
            tracing::debug!(retries, error = %again, "trying the transaction again");
            self.at(metrics::Step::Again);
            tokio::time::sleep(RETRY_PAUSE * retries).await;
        }
    }

    /// What to do about an attempt, or a trial, that did not pass.
    async fn answer(
        &mut self,
        batch: &mut Batch,
        poisoned: &mut Poisoned,
        retries: u32,
        mut stop: Stop,
    ) -> Result<Next, Error> {
        loop {
            let (table, error) = match stop {
                Stop::Suspect { table, error } => (table, error),
                Stop::Elsewhere { table, error, relation } => {
                    return Err(self.elsewhere(batch, poisoned, table, error, relation).await);
                }
                Stop::Unpartitioned { table, error } => {
                    match self.add_partitions(batch, poisoned, table).await? {
                        Added::LeftOut => return Ok(Next::Now),
                        Added::Busy(error) => return Ok(Next::Later(error)),
                        Added::All if retries < RETRIES => {
                            return Ok(Next::Later(self.not_written(Some(table), error)));
                        }
                        // Whatever is added does not take it: partitions of other spans than a day are in the
                        // way.
                        Added::All | Added::Foreign => return Err(self.no_partition(table, error)),
                    }
                }
                Stop::TooMuch { table, error } if poisoned.part.len() > 1 => {
                    return Ok(Next::Half(self.not_written(table, error)));
                }
                Stop::TooMuch { error, .. } => {
                    let sequence = batch.messages[poisoned.part.start as usize].sequence;
                    return Err(Error::TooMuch { sequence, source: error });
                }
                Stop::Conflict { table } => {
                    self.targets[table].merging = MERGE_BATCHES;
                    return Ok(Next::Now);
                }
                Stop::Again(error) if out_of_time(&error) && poisoned.part.len() > 1 => {
                    return Ok(Next::Smaller(error));
                }
                Stop::Again(error) => return Ok(Next::Later(error)),
            };
            match self.blame(batch, poisoned, table, error).await {
                Ok(None) => return Ok(Next::Now),
                Ok(Some(error)) => return Ok(Next::Later(error)),
                Err(Halt::Error(error)) => return Err(error),
                // A trial met something else.
                Err(Halt::Stop(met)) => stop = met,
            }
        }
    }

    /// The next transactions take half as many messages as one that was too much for the server. The log says
    /// so once until whole batches have passed again.
    fn halve(&self, part: &Range<u32>, error: &Error) {
        let messages = part.end - part.start;
        let fit = &mut self.memory().fit;
        if fit.limit() == u32::MAX {
            tracing::warn!(
                pipeline = self.shard.pipeline,
                messages,
                %error,
                cause = error.source(),
                "a transaction exceeds what the server accepts at once; continuing with half the messages"
            );
        }
        fit.halve(messages);
    }

    /// What an error that ends the generation means where it is one of time: the next generation writes less
    /// at once.
    fn ran_out_of_time(&self, batch: &Batch, part: &Range<u32>, error: Error) -> Error {
        if !out_of_time(&error) {
            return error;
        }
        let messages = part.end - part.start;
        if messages > 1 {
            self.memory().fit.shrink();
            return Error::Slow { messages, source: Box::new(error) };
        }
        if self.memory().fit.shrink_alone(self.checkpoint) < ALONE {
            return error;
        }
        let sequence = batch.messages[part.start as usize].sequence;
        Error::TooSlow { sequence, source: Box::new(error) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the writer is at.
    fn at(&self, step: metrics::Step) {
        self.metrics.motion.step(step);
    }

    /// Tells the log of a message that cannot be stored, without a value of it.
    fn warn(&self, letter: &DeadLetter, what: &str) {
        tracing::warn!(
            pipeline = self.shard.pipeline,
            sequence = letter.sequence,
            kind = letter.kind,
            sqlstate = letter.sqlstate,
            table = letter.table,
            column = letter.column,
            element = letter.element,
            "{what}"
        );
    }

    fn count(&mut self, batch: &Batch, poisoned: &Poisoned, copied: &Copied, started: Instant) {
        let metrics = &self.metrics;
        let mut memory = self.memory();
        let messages = &batch.messages[poisoned.part.start as usize..poisoned.part.end as usize];
        metrics.commit(!poisoned.letters.is_empty());
        let took = started.elapsed();
        self.progress.linger.wrote(took);
        metrics.commit_seconds.observe(took.as_secs_f64());
        memory.fit.took(took, self.step_timeout);
        let mut decoded = 0;
        for (table, (handles, rows)) in metrics.tables.each().iter().zip(&batch.rows.tables).enumerate() {
            let range = rows.of_messages(&poisoned.part);
            decoded += range.len();
            let taken = |row: &&Row| !poisoned.excluded.holds(table, row);
            let sent = rows.rows[range.clone()].iter().filter(taken).count() as u64;
            let Unstored { skipped, left_out } = copied.of(table);
            handles.rows.inc_by(sent.saturating_sub(skipped + left_out));
            handles.left_out.inc_by(left_out);
            if left_out > 0 && memory.first_left_out(table) {
                let (pipeline, table) = (&self.shard.pipeline, &self.targets[table].name);
                tracing::warn!(pipeline, table, rows = left_out, "a trigger of the table leaves rows out");
            }
            if let Some(last) = rows.rows[range.clone()].iter().rposition(|row| taken(&row)) {
                let index = u32::try_from(range.start + last).unwrap_or(u32::MAX);
                memory.keep(table, &rows.data[rows.range(index)]);
            }
        }
        drop(memory);
        #[expect(clippy::cast_precision_loss, reason = "a count of rows in memory")]
        metrics.batch_rows.observe(decoded as f64);
        for letter in &poisoned.letters {
            metrics.dead_letter(letter.kind);
            self.status.note_dead_letter(letter);
            self.warn(letter, "a message became a dead letter");
        }
        // What was accepted leaves room for what is normal.
        if !poisoned.accepted {
            let letters = poisoned.counted(batch);
            self.poison.lock().unwrap_or_else(PoisonError::into_inner).stored(letters, Instant::now());
        }
        self.status.clear_flood();
        for target in &mut self.targets {
            target.merging = target.merging.saturating_sub(1);
        }
        let latency = metrics.publish_to_commit_seconds.local();
        let now = metrics.clock.read();
        for message in messages {
            latency.observe(now.age(message.timestamp_ns));
        }
        latency.flush();
        let last = messages.last().map(|last| last.timestamp_ns);
        let tell = |floor| metrics.committed_to(floor);
        let reached = self.team.commit(self.lane, self.checkpoint, last, tell);
        self.progress.committed(messages.len() as u64, reached);
    }
}
