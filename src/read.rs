//! Subscription → decode → batches.
//!
//! Guarantees: batches leave in stream order, each covering the stretch of the stream right after the one
//! before. One batch fills while the ones before it are queued and written; a batch whose time has come keeps
//! growing, up to its limits, for as long as the writer has no room. Memory is bounded by that: when the
//! batch is full and the writer busy, nothing more is taken from the subscription. Each jump in stream
//! sequences, that from the checkpoint to the first delivery too, is checked before anything after it is sent
//! on ([`crate::gaps`]).

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::batch::{Batch, Closed, Gap, Held, Moved, footprint};
use crate::config;
use crate::decode::{Decoder, Undecoded};
use crate::gaps::{self, Gaps, seems_stripped};
use crate::kill_point;
use crate::lag::Progress;
use crate::marker::Marker;
use crate::message::Message;
use crate::metrics::{PipelineMetrics, Stage};
use crate::nats::Connection;
use crate::status::PipelineStatus;
use crate::subscribe::{self, Delivery, Subscription};
use crate::unreadable::{Single, Unreadable};

/// Takes deliveries and makes batches of them.
pub(crate) struct Reader {
    /// Where it is asked about gaps.
    pub questions: Connection,
    /// What comes first: messages that were read one by one.
    pub singles: Vec<Single>,
    /// Where deliveries come from after them.
    pub subscription: Subscription,
    /// What turns them into rows.
    pub decoder: Decoder,
    /// When a batch is closed.
    pub limits: config::BatchLimits,
    /// Tables that a message fills.
    pub tables: usize,
    /// What batches on their way take.
    pub held: Arc<Held>,
    /// What was delivered and has no room beside what is held.
    pub waiting: Option<Delivery>,
    /// Whether a message was taken that leaves no room for another one of its size: nothing more is asked for
    /// until it is written.
    pub alone: bool,
    /// Whom to ask when sequences jump.
    pub gaps: Gaps,
    /// The last sequence to take; what follows ends the reading like a stop.
    pub until: u64,
    /// Sequence of the last message taken; at first, the checkpoint.
    pub last_sequence: u64,
    /// Told of every delivery, and where it tells of stretches in which nothing is the pipeline's.
    pub progress: Arc<Progress>,
    /// Counts messages and bytes.
    pub metrics: PipelineMetrics,
    /// Told what of the messages went nowhere.
    pub status: Arc<PipelineStatus>,
}

/// How reading ended without a failure.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A stop was asked for, the last sequence was passed, or the writer is gone.
    Stopped,
    /// The stream dropped messages that were not delivered yet. What came before them has been sent.
    Dropped(Gap),
    /// Nothing more can be read. What came before has been sent.
    Cut(subscribe::Error),
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The subscription failed; only after what came before was sent.
    #[error(transparent)]
    Subscription(#[from] subscribe::Error),
    /// Sequences jumped, and the stream holds what did not come, or does not say.
    #[error(transparent)]
    Gaps(#[from] gaps::Error),
}

/// Deliveries that are taken in a row before timers and the writer are looked at again: a look costs about as
/// much as decoding a message, so this makes it negligible, and a hundred messages take well under a
/// millisecond.
const TAKEN_IN_A_ROW: usize = 64;

impl Reader {
    /// Reads until `stop` says so, the writer is gone, or the subscription fails. But for the second, what
    /// was taken is sent first.
    pub(crate) async fn run(
        mut self,
        batches: mpsc::Sender<Batch>,
        mut emptied: mpsc::Receiver<Batch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Ended, Error> {
        let mut age = pin!(sleep(self.limits.longest_age()));
        let mut batch = Batch::new(self.tables);
        let mut due = match self.take_singles(&batches, &mut batch, &mut emptied).await? {
            ControlFlow::Break(ended) => return Ok(ended),
            ControlFlow::Continue(any) => any.then_some(Closed::Age),
        };
        let (mut cut, mut dropped) = (None, None);
        let mut moves = self.progress.moves();
        let timing = self.metrics.stages.start();
        while dropped.is_none() {
            let room = due.is_none_or(|closed| closed == Closed::Age);
            self.progress.room(room && self.waiting.is_none());
            self.held
                .fills(batch.bytes() + self.waiting.as_ref().map_or(0, |delivery| delivery.message.bytes()));
            // What is due waits for the writer, also where there is room for more of it.
            let waits = due.is_some() || self.waiting.is_some();
            timing.enter(if waits { Stage::Database } else { Stage::Nats });
            tokio::select! {
                // A stop comes first, so that a busy stream cannot put it off; then a batch that is due, so
                // that its age stays near its limit.
                biased;
                () = stopped(&mut stop) => break,
                permit = batches.reserve(), if due.is_some() => {
                    let Ok(permit) = permit else { return Ok(Ended::Stopped) };
                    // It may have grown since it was due.
                    if let Some(gap) = self.dropped(&mut batch).await? {
                        self.finish(permit, batch);
                        return Ok(Ended::Dropped(gap));
                    }
                    let closed = due.take().unwrap_or(Closed::Age);
                    if batch.is_empty() {
                        // Nothing but a move.
                        permit.send(std::mem::replace(&mut batch, Batch::new(self.tables)));
                    } else {
                        self.send(permit, &mut batch, &mut emptied, closed);
                    }
                }
                () = &mut age, if due.is_none() && !batch.is_empty() => {
                    due = Some(Closed::Age);
                    dropped = self.dropped(&mut batch).await?;
                }
                Ok(()) = moves.changed(), if due.is_none() && batch.is_empty() && self.waiting.is_none() => {
                    let latest = *moves.borrow_and_update();
                    batch.moved = latest.filter(|moved| self.follows(moved));
                    due = batch.moved.map(|_| Closed::Age);
                }
                delivery = self.next(), if room => {
                    timing.enter(Stage::Decode);
                    let taken = delivery.and_then(|delivery| {
                        if batch.is_empty() {
                            age.as_mut().reset((Instant::now() + self.age(&delivery)).into());
                        }
                        self.take(delivery, &mut batch)
                    });
                    match taken {
                        Ok(true) => {
                            let before = due;
                            due = self.reached(&batch).or(due);
                            // While it waits for the writer, the front may pass what was removed on purpose.
                            if before.is_none() && due.is_some() {
                                dropped = self.dropped(&mut batch).await?;
                            }
                        }
                        Ok(false) => break,
                        Err(error) => {
                            cut = Some(error);
                            break;
                        }
                    }
                }
            }
        }
        self.end(&batches, batch, cut, dropped).await
    }

    /// Sends the last batch, at whose end reading was `cut` off, or before a gap of `dropped` messages.
    async fn end(
        mut self,
        batches: &mpsc::Sender<Batch>,
        mut batch: Batch,
        cut: Option<subscribe::Error>,
        dropped: Option<Gap>,
    ) -> Result<Ended, Error> {
        // A writer that is gone has said why; what was not written is replayed.
        let Ok(permit) = batches.reserve().await else { return Ok(Ended::Stopped) };
        if let Some(error) = cut {
            self.settle_doubts(&mut batch).await;
            self.finish(permit, batch);
            return Ok(Ended::Cut(error));
        }
        let gap = match dropped {
            Some(gap) => Some(gap),
            None => self.dropped(&mut batch).await?,
        };
        self.finish(permit, batch);
        Ok(gap.map_or(Ended::Stopped, Ended::Dropped))
    }

    /// Which limit the batch has reached, if any.
    fn reached(&self, batch: &Batch) -> Option<Closed> {
        let full = self.waiting.is_some() && !batch.is_empty();
        full.then_some(Closed::Bytes).or(batch.reached(&self.limits))
    }

    /// How long a batch that begins with `delivery` may wait for more.
    fn age(&self, delivery: &Delivery) -> Duration {
        // What is there already fills it.
        let backlog = delivery.pending >= self.limits.max_rows as u64;
        self.limits.max_age.unwrap_or_else(|| self.progress.linger.age(backlog))
    }

    /// Takes a stretch in which nothing is the pipeline's; whether there is one right after what was taken.
    fn follows(&mut self, moved: &Moved) -> bool {
        // What came meanwhile makes it old.
        let follows = moved.after == self.last_sequence && moved.to <= self.until;
        if follows {
            self.last_sequence = moved.to;
            self.progress.reached(moved.to);
        }
        follows
    }

    /// Asks about the gaps of the last batch, if there is anybody to ask: what follows one that is in doubt
    /// is read again.
    async fn settle_doubts(&mut self, batch: &mut Batch) {
        if !self.questions.is_broken() {
            let broken = self.questions.broken();
            tokio::select! {
                // An error leaves the doubt.
                _ = self.dropped(batch) => {}
                _ = broken => {}
            }
        }
        if let Some(doubt) = batch.first_doubt() {
            batch.truncate_at(doubt);
        }
    }

    /// Takes what was read one by one; whether there was any.
    async fn take_singles(
        &mut self,
        batches: &mpsc::Sender<Batch>,
        batch: &mut Batch,
        emptied: &mut mpsc::Receiver<Batch>,
    ) -> Result<ControlFlow<Ended, bool>, Error> {
        for single in std::mem::take(&mut self.singles) {
            if single.message.sequence > self.until {
                break;
            }
            if self.push_single(batch, &single) {
                continue;
            }
            // What is there goes first; then there is room for any.
            let Ok(permit) = batches.reserve().await else { return Ok(ControlFlow::Break(Ended::Stopped)) };
            if let Some(gap) = self.dropped(batch).await? {
                self.finish(permit, std::mem::replace(batch, Batch::new(self.tables)));
                return Ok(ControlFlow::Break(Ended::Dropped(gap)));
            }
            self.send(permit, batch, emptied, Closed::Bytes);
            self.held.none().await;
            self.push_single(batch, &single);
        }
        Ok(ControlFlow::Continue(!batch.is_empty()))
    }

    /// Takes a delivery and those that have arrived after it; false once the last sequence to take is passed.
    fn take(&mut self, mut delivery: Delivery, batch: &mut Batch) -> Result<bool, subscribe::Error> {
        let mut taken = 1;
        loop {
            if delivery.message.sequence > self.until {
                return Ok(false);
            }
            let added = self.push(batch, delivery);
            if !added || taken == TAKEN_IN_A_ROW || batch.reached(&self.limits).is_some() {
                return Ok(true);
            }
            let Some(next) = self.subscription.next_ready() else { return Ok(true) };
            delivery = next?;
            taken += 1;
        }
    }

    /// The first gap of `batch` whose messages may have been dropped before they were read. The batch then
    /// ends before it.
    async fn dropped(&mut self, batch: &mut Batch) -> Result<Option<Gap>, Error> {
        if !batch.stripped().is_empty() {
            self.gaps.check_stripped(batch.stripped()).await?;
            batch.stripped_checked();
        }
        let unchecked = batch.unchecked_gaps();
        if unchecked.is_empty() {
            return Ok(None);
        }
        let checked = self.gaps.check(batch).await?;
        let gap = checked.dropped.map(|first| unchecked[first]);
        batch.note_superseded(checked.superseded);
        let Some(gap) = gap else {
            batch.gaps_checked();
            return Ok(None);
        };
        batch.truncate_at(gap);
        Ok(Some(gap))
    }

    /// Sends a batch, in whose place an emptied one comes.
    fn send(
        &mut self,
        permit: mpsc::Permit<'_, Batch>,
        batch: &mut Batch,
        emptied: &mut mpsc::Receiver<Batch>,
        closed: Closed,
    ) {
        let next = emptied.try_recv().unwrap_or_else(|_| Batch::new(self.tables));
        self.count(batch, closed);
        self.gaps.sent(batch);
        self.held.sent(batch.bytes());
        permit.send(std::mem::replace(batch, next));
    }

    /// Sends the last batch.
    fn finish(&mut self, permit: mpsc::Permit<'_, Batch>, batch: Batch) {
        if !batch.is_empty() {
            self.count(&batch, Closed::Shutdown);
            self.held.sent(batch.bytes());
            permit.send(batch);
        }
    }

    /// The next delivery. One that had no room has all there is once everything before it is written.
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Delivery, subscribe::Error> {
        if self.waiting.is_some() || self.alone {
            self.held.none().await;
            self.alone = false;
        }
        match self.waiting.take() {
            Some(delivery) => Ok(delivery),
            None => self.subscription.next().await,
        }
    }

    /// Adds a delivery to the batch, or lets it wait where there is no room for its rows; whether it was
    /// added.
    fn push(&mut self, batch: &mut Batch, delivery: Delivery) -> bool {
        self.progress.delivered(delivery.consumer_sequence, delivery.message.timestamp_ns);
        let takes = footprint(&delivery.message);
        let room = self.held.room(batch.bytes(), takes);
        let added = room > 0 && self.add(batch, &delivery.message, room, None);
        if added {
            self.alone |= self.held.is_most(takes);
            batch.reply = Some(delivery.reply);
            kill_point::reach(kill_point::AFTER_DECODE);
        } else {
            self.waiting = Some(delivery);
        }
        added
    }

    /// Adds a message that was read by itself; whether there was room for it.
    fn push_single(&mut self, batch: &mut Batch, single: &Single) -> bool {
        let Single { message, unreadable } = single;
        self.progress.fetched(message.timestamp_ns);
        let room = self.held.room(batch.bytes(), footprint(message));
        let added = room > 0 && self.add(batch, message, room, *unreadable);
        if added {
            batch.reply = None;
        }
        added
    }

    /// Adds a message: its rows, for which there is `room`, or why it has none; whether it was added.
    #[inline]
    fn add(
        &mut self,
        batch: &mut Batch,
        message: &Message,
        room: usize,
        unreadable: Option<Unreadable>,
    ) -> bool {
        let decoded = match unreadable {
            Some(reason) => Err(Undecoded::Poison(reason.into())),
            None => self.decode(batch, message, room),
        };
        match decoded {
            Ok(()) => {}
            Err(Undecoded::Poison(poison)) => batch.refuse(poison),
            Err(Undecoded::NoRoom) => return false,
        }
        if message.sequence != self.last_sequence + 1 {
            batch.note_gap(self.last_sequence + 1, message.sequence - 1);
        }
        batch.keep(message);
        if message.payload.is_empty() && seems_stripped(message.headers.as_ref()) {
            batch.note_stripped(message.sequence);
        }
        self.last_sequence = message.sequence;
        self.progress.reached(message.sequence);
        true
    }

    /// Appends the rows of the message that is kept next; none of a marker that no table asks for.
    #[inline]
    fn decode(&mut self, batch: &mut Batch, message: &Message, room: usize) -> Result<(), Undecoded> {
        if let Some(headers) = &message.headers
            && let Some(marker) = Marker::of(headers, &message.payload)
            && !self.decoder.asks_for(message)
        {
            self.metrics.passed_over(marker).inc();
            return Ok(());
        }
        self.decoder.decode_into(message, batch.next_index(), &mut batch.rows, room)
    }

    fn count(&mut self, batch: &Batch, closed: Closed) {
        self.status.note_tally(&self.decoder.tell());
        let metrics = &self.metrics;
        metrics.messages.inc_by(batch.messages.len() as u64);
        metrics.bytes.inc_by(batch.payload_bytes() as u64);
        metrics.motion.queued();
        match closed {
            Closed::Rows => metrics.batches.rows.inc(),
            Closed::Bytes => metrics.batches.bytes.inc(),
            Closed::Age => metrics.batches.age.inc(),
            Closed::Shutdown => metrics.batches.shutdown.inc(),
        }
    }
}

/// Resolves once a stop is asked for, or nobody is left to ask for one.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}
