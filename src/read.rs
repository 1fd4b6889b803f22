//! Subscription → decode → batches.
//!
//! Guarantees: batches leave in stream order, each covering the stretch of the stream right after the one
//! before. One batch fills while the ones before it are queued and written; a batch whose time has come keeps
//! growing, up to its limits, for as long as the writer has no room. Memory is bounded by that: when the
//! batch is full and the writer busy, nothing more is taken from the subscription. Each jump in stream
//! sequences, that from the checkpoint to the first delivery too, is checked before anything after it is sent
//! on ([`crate::gaps`]). With several writers, only one batch is open at any time, too: it ends where the
//! next message is another writer's ([`route`]).

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::ack::Ack;
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

pub(crate) use fit::Fit;
pub(crate) use route::Route;

mod end;
mod fit;
mod route;
mod singles;

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
    /// How that follows the blocks of several writers.
    pub fit: Fit,
    /// Tables that a message fills.
    pub tables: usize,
    /// What batches on their way take.
    pub held: Arc<Held>,
    /// Which writer is sent what.
    pub route: Route,
    /// What was delivered and has no room beside what is held.
    pub waiting: Option<Delivery>,
    /// What was delivered and is for another writer than the open batch.
    pub crossing: Option<Delivery>,
    /// Whether a message was taken that leaves no room for another one of its size: nothing more is asked for
    /// until it is written.
    pub alone: bool,
    /// Whom to ask when sequences jump.
    pub gaps: Gaps,
    /// The last sequence to take; what follows ends the reading like a stop.
    pub until: u64,
    /// Whether the lanes change there, once all of them have come to it.
    pub settles: bool,
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
    /// All that comes before other lanes was sent.
    Settled,
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

/// How often lanes that have nothing to write are moved: a commit each, and until then nothing after it is
/// acknowledged. Lanes that have something move with it.
const MOVES: Duration = Duration::from_millis(100);

impl Reader {
    /// Reads until `stop` says so, the writer is gone, or the subscription fails. But for the second, what
    /// was taken is sent first.
    pub(crate) async fn run(
        mut self,
        batches: Vec<mpsc::Sender<Batch>>,
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
        let mut lags = moves_timer();
        let timing = self.metrics.stages.start();
        while dropped.is_none() && !self.is_settled() {
            let room = due.is_none_or(|closed| closed == Closed::Age);
            let idle = due.is_none() && batch.is_empty() && !self.has_next();
            let lane = self.route.lane(&batch);
            self.tell(room, &batch);
            // What is due waits for the writer, also where there is room for more of it.
            let waits = due.is_some() || self.waiting.is_some();
            timing.enter(if waits { Stage::Database } else { Stage::Nats });
            tokio::select! {
                // A stop comes first, so that a busy stream cannot put it off; then a batch that is due, so
                // that its age stays near its limit.
                biased;
                () = stopped(&mut stop) => break,
                permit = batches[lane].reserve(), if due.is_some() => {
                    let Ok(permit) = permit else { return Ok(Ended::Stopped) };
                    let closed = due.take().unwrap_or(Closed::Age);
                    // It may have grown since it was due.
                    dropped = self.dropped(&mut batch).await?;
                    if dropped.is_none() {
                        self.send(permit, &mut batch, &mut emptied, closed);
                    }
                }
                () = &mut age, if due.is_none() && !batch.is_empty() => {
                    due = Some(Closed::Age);
                    dropped = self.dropped(&mut batch).await?;
                }
                Ok(()) = moves.changed(), if idle => {
                    let latest = *moves.borrow_and_update();
                    self.follow(latest, &batches);
                }
                _ = lags.tick(), if self.route.lags(self.last_sequence, idle) => {
                    if idle {
                        dropped = self.passed(&mut batch).await?;
                    }
                    self.route.try_moves(&batches);
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
                        stops => {
                            cut = stops.err();
                            break;
                        }
                    }
                }
            }
        }
        self.end(&batches, batch, cut, dropped).await
    }

    /// Whether all has been taken that comes before the lanes change.
    fn is_settled(&self) -> bool {
        self.settles && self.last_sequence >= self.until && !self.has_next()
    }

    /// Tells whether there is room, what is in memory and was not sent, and what came again.
    fn tell(&mut self, room: bool, batch: &Batch) {
        self.route.tell();
        self.progress.room(room && self.waiting.is_none());
        let waiting = self.waiting.as_ref().map_or(0, |delivery| delivery.message.bytes());
        self.held.fills(batch.bytes() + waiting);
    }

    /// Whether something was delivered that is in no batch yet.
    fn has_next(&self) -> bool {
        self.waiting.is_some() || self.crossing.is_some()
    }

    /// Checks what was read and needs no row, while no batch is open; what the stream dropped of it.
    async fn passed(&mut self, batch: &mut Batch) -> Result<Option<Gap>, Error> {
        let dropped = self.dropped(batch).await?;
        if dropped.is_none() {
            self.route.pass(self.last_sequence, 0);
        }
        Ok(dropped)
    }

    /// Which limit the batch has reached, if any.
    fn reached(&self, batch: &Batch) -> Option<Closed> {
        let full = self.waiting.is_some() && !batch.is_empty();
        let ends = self.crossing.is_some().then_some(Closed::Block);
        full.then_some(Closed::Bytes).or(ends).or(batch.reached(&self.limits))
    }

    /// How long a batch that begins with `delivery` may wait for more.
    fn age(&self, delivery: &Delivery) -> Duration {
        // What is there already fills it.
        let backlog = delivery.pending >= self.limits.max_rows as u64;
        self.limits.max_age.unwrap_or_else(|| self.progress.linger.age(backlog))
    }

    /// Takes a stretch in which nothing is the pipeline's, where there is one right after what was taken.
    fn follow(&mut self, latest: Option<Moved>, batches: &[mpsc::Sender<Batch>]) {
        // What came meanwhile makes it old.
        let follows = |moved: &Moved| moved.after == self.last_sequence && moved.to <= self.until;
        if let Some(moved) = latest.filter(follows) {
            self.last_sequence = moved.to;
            self.progress.reached(moved.to);
            self.route.pass(moved.to, moved.timestamp_ns);
            self.route.try_moves(batches);
        }
    }

    /// Takes a delivery and those that have arrived after it; false once the last sequence to take is passed.
    fn take(&mut self, mut delivery: Delivery, batch: &mut Batch) -> Result<bool, subscribe::Error> {
        let mut taken = 1;
        loop {
            if delivery.message.sequence > self.until {
                if self.settles && self.last_sequence < self.until {
                    // Nothing of it came, which is checked like any gap.
                    self.note_gap(batch, self.until + 1);
                    self.last_sequence = self.until;
                }
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
        if let Some(limits) = self.route.is_shared().then(|| self.fit.after(batch)).flatten() {
            self.limits = limits;
        }
        self.gaps.sent(batch);
        self.route.sent(batch);
        self.held.sent(batch.bytes());
        permit.send(std::mem::replace(batch, next));
    }

    /// Sends the last batch.
    fn finish(&mut self, permit: mpsc::Permit<'_, Batch>, batch: Batch) {
        if !batch.is_empty() {
            self.count(&batch, Closed::Shutdown);
            self.route.sent(&batch);
            self.held.sent(batch.bytes());
            permit.send(batch);
        }
    }

    /// The next delivery. One that had no room has all there is once everything before it is written.
    /// With several writers, it tries again after each batch. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Delivery, subscribe::Error> {
        if let Some(crossing) = self.crossing.take() {
            return Ok(crossing);
        }
        if self.alone || self.waiting.is_some() && !self.route.is_shared() {
            self.held.none().await;
            self.alone = false;
        } else if self.waiting.is_some() {
            self.held.less(self.held.now()).await;
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
        let sequence = delivery.message.sequence;
        if self.route.holds(sequence) {
            self.skip(batch, sequence);
            self.progress.came_again();
            self.route.came_again(Ack { committed: None, delivered: Some((sequence, delivery.reply)) });
            return true;
        }
        if self.route.crosses(batch, sequence) {
            self.crossing = Some(delivery);
            return false;
        }
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
        self.note_gap(batch, message.sequence);
        batch.keep(message);
        if message.payload.is_empty() && seems_stripped(message.headers.as_ref()) {
            batch.note_stripped(message.sequence);
        }
        self.last_sequence = message.sequence;
        self.progress.reached(message.sequence);
        true
    }

    /// Takes a message that was committed before.
    fn skip(&mut self, batch: &mut Batch, sequence: u64) {
        self.note_gap(batch, sequence);
        self.last_sequence = sequence;
        self.progress.reached(sequence);
    }

    /// Notes what did not come right before a message; what was committed before need not come again.
    #[inline]
    fn note_gap(&self, batch: &mut Batch, sequence: u64) {
        let from = self.last_sequence + 1;
        if sequence != from && !self.route.hold_all(from, sequence - 1) {
            batch.note_gap(from, sequence - 1);
        }
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
        metrics.motion.of(self.route.lane(batch)).queued();
        match closed {
            Closed::Rows => metrics.batches.rows.inc(),
            Closed::Bytes => metrics.batches.bytes.inc(),
            Closed::Age => metrics.batches.age.inc(),
            Closed::Block => metrics.batches.block.inc(),
            Closed::Shutdown => metrics.batches.shutdown.inc(),
        }
    }
}

/// When to move lanes that have nothing to write.
fn moves_timer() -> Interval {
    let mut timer = interval(MOVES);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// Resolves once a stop is asked for, or nobody is left to ask for one.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}
