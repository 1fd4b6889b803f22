//! Whether a pipeline with work before it moves, and what holds it up where it does not.
//!
//! Guarantees: what is said is about work that waits now: a batch that the writer has or that waits for it, a
//! message that is decoded, or messages that NATS holds and does not bring. A pipeline without work is never
//! held up, nor is one whose batch fills until its age has come. What counts as a move is a commit, a row
//! that was found to be refused, and a `COPY` of which the server has taken more since somebody looked.
//!
//! It measures and decides nothing; `/readyz`, `/status`, the page and the metrics all ask here.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::stage::{Stage, StageClock};
use super::writing::{Step, WriteClock, WriteSeconds};

/// A pipeline with work that moves less often is held up.
pub const HELD_UP: Duration = Duration::from_secs(3);

/// Where each of the last batches took long by itself, twice as long as that: a pipeline that is slow and
/// steady is not held up between two of its commits. No longer than this, whatever they took.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// A wait that lasts longer limits a pipeline; shorter ones are what always is under way.
pub(super) const LIMITS: Duration = Duration::from_secs(1);

/// What holds a pipeline up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldUp {
    /// The stage that the others wait for.
    pub stage: Stage,
    /// How long nothing has moved.
    pub seconds: f64,
    /// What is waited for, for a person.
    pub what: String,
}

impl fmt::Display for HeldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing has committed for {:.0} s: {}", self.seconds.floor(), self.what)
    }
}

/// What a pipeline has under way; clones share it. What a writer notes is of its own lane, by
/// [`Motion::of`].
#[derive(Debug, Clone)]
pub struct Motion {
    stages: StageClock,
    writes: WriteClock,
    facts: Arc<Mutex<Facts>>,
    lane: usize,
}

#[derive(Debug, Default)]
struct Facts {
    /// By lane.
    writers: Vec<Writer>,
    /// Messages that the server holds or has sent, and since when there have been some.
    waiting: Option<(u64, Instant)>,
    /// Batches that writers have taken.
    taken: u64,
}

#[derive(Debug, Default)]
struct Writer {
    /// The batch that the writer has.
    batch: Option<Batch>,
    /// Since when a batch waits for the writer.
    queued: Option<Instant>,
    /// What the writer is at, and since when.
    step: Option<(Step, Instant)>,
    /// What the server said of that step.
    said: Option<String>,
    /// How long the last two batches took.
    took: [Duration; 2],
}

#[derive(Debug)]
struct Batch {
    number: u64,
    taken: Instant,
    moved: Instant,
    attempts: u32,
    /// Rows of the present `COPY` that the server has taken, where it was asked.
    copied: u64,
}

/// A batch that is being written, as long as it lives.
#[derive(Debug)]
pub struct Writing(Motion);

impl Motion {
    pub(super) fn new(stages: StageClock, writes: WriteClock) -> Self {
        Self { stages, writes, facts: Arc::default(), lane: 0 }
    }

    /// A generation begins: nothing of the one before is under way any more.
    pub fn begin(&self) {
        let mut facts = self.lock();
        for writer in &mut facts.writers {
            *writer = Writer { took: writer.took, ..Writer::default() };
        }
        facts.waiting = None;
    }

    /// That of the writer of a lane.
    #[must_use]
    pub fn of(&self, lane: usize) -> Self {
        Self { lane, ..self.clone() }
    }

    /// A batch is on its way to the writer.
    pub fn queued(&self) {
        self.lock().writer(self.lane).queued = Some(Instant::now());
    }

    /// The writer takes a batch.
    #[must_use]
    pub fn write(&self) -> Writing {
        let now = Instant::now();
        let mut facts = self.lock();
        facts.taken += 1;
        let number = facts.taken;
        let writer = facts.writer(self.lane);
        writer.queued = None;
        writer.batch = Some(Batch { number, taken: now, moved: now, attempts: 0, copied: 0 });
        let longest = facts.longest();
        drop(facts);
        self.stages.writes(longest);
        Writing(self.clone())
    }

    /// The writer begins a step.
    pub fn step(&self, step: Step) {
        let mut facts = self.lock();
        let writer = facts.writer(self.lane);
        if let Some(batch) = &mut writer.batch {
            batch.copied = 0;
            batch.attempts += u32::from(matches!(step, Step::Begin(_)));
        }
        writer.said = None;
        let before = writer.step.replace((step, Instant::now()));
        drop(facts);
        self.ended(before);
    }

    /// The writer is at nothing.
    pub fn rests(&self) {
        let before = self.lock().writer(self.lane).step.take();
        self.ended(before);
    }

    fn ended(&self, step: Option<(Step, Instant)>) {
        if let Some((step, since)) = step {
            self.writes.took(&step, since.elapsed());
        }
    }

    /// What writers have spent the time of their transactions on.
    #[must_use]
    pub fn write_seconds(&self) -> WriteSeconds {
        self.writes.seconds()
    }

    /// How long what the writer is at on the database has lasted.
    #[must_use]
    pub fn asks_database(&self) -> Option<Duration> {
        let mut facts = self.lock();
        let step = facts.writer(self.lane).step.as_ref();
        step.filter(|(step, _)| step.stage() == Stage::Database).map(|(_, since)| since.elapsed())
    }

    /// Whether the writer waits for the answer to a COMMIT.
    #[must_use]
    pub fn commits(&self) -> bool {
        matches!(self.lock().writer(self.lane).step, Some((Step::Commit, _)))
    }

    /// The writer came further with its batch, though it has not committed it.
    pub fn moved(&self) {
        if let Some(batch) = &mut self.lock().writer(self.lane).batch {
            batch.moved = Instant::now();
        }
    }

    /// Whether any writer came further with a batch within `limit`, or began a step.
    #[must_use]
    pub fn advances(&self, limit: Duration) -> bool {
        self.lock().writers.iter().any(|writer| {
            let stepped = writer.step.as_ref().is_some_and(|(_, since)| since.elapsed() < limit);
            writer.batch.as_ref().is_some_and(|batch| stepped || batch.moved.elapsed() < limit)
        })
    }

    /// So many messages wait at the server or on the way from it.
    pub fn waiting(&self, messages: u64) {
        let mut facts = self.lock();
        let since = facts.waiting.map_or_else(Instant::now, |(_, since)| since);
        facts.waiting = (messages > 0).then_some((messages, since));
    }

    /// The lane of the batch that a writer has had for longest, and its number, where that is so long or
    /// longer.
    #[must_use]
    pub fn writing_for(&self, limit: Duration) -> Option<(usize, u64)> {
        let facts = self.lock();
        let of = |(lane, writer): (usize, &Writer)| {
            writer.batch.as_ref().map(|batch| (batch.taken, lane, batch.number))
        };
        let (taken, lane, number) = facts.writers.iter().enumerate().filter_map(of).min()?;
        (taken.elapsed() >= limit).then_some((lane, number))
    }

    /// Notes what the server says of the step that `batch` is at: what it waits for, and how many rows of a
    /// `COPY` it has taken.
    pub fn said(&self, batch: u64, what: Option<String>, copied: Option<u64>) {
        let mut facts = self.lock();
        let writer = facts.writer(self.lane);
        let Some(at) = writer.batch.as_mut().filter(|at| at.number == batch) else { return };
        if let Some(copied) = copied {
            if at.copied > 0 && copied > at.copied {
                at.moved = Instant::now();
            }
            at.copied = copied;
        }
        writer.said = what;
    }

    /// What holds the pipeline up.
    #[must_use]
    pub fn held_up(&self) -> Option<HeldUp> {
        self.waits(&self.lock(), Writer::patience, HELD_UP)
    }

    /// The stage that is waited for at this moment, for longer than what is always under way.
    #[must_use]
    pub fn limit(&self) -> Option<Stage> {
        self.waits(&self.lock(), |_| LIMITS, LIMITS).map(|held| held.stage)
    }

    /// What is waited for, with so much patience with a writer, and with others.
    fn waits(
        &self,
        facts: &Facts,
        patience: impl Fn(&Writer) -> Duration,
        others: Duration,
    ) -> Option<HeldUp> {
        let reading = self.stages.since();
        let busy = facts.writers.iter().filter(|writer| writer.batch.is_some() || writer.queued.is_some());
        let mut busy = busy.peekable();
        if busy.peek().is_some() {
            let held = busy.filter_map(|writer| writer.waits(patience(writer)));
            return held.max_by(|one, other| one.seconds.total_cmp(&other.seconds));
        }
        let (waited, stage, what) = if let Some((Stage::Decode, since)) = reading {
            (since.elapsed(), Stage::Decode, "decoding".to_owned())
        } else if let (Some((Stage::Nats, reads)), Some((messages, waits))) = (reading, facts.waiting) {
            let what = format!("waiting for NATS: {messages} messages are in the stream, but none arrives");
            (reads.max(waits).elapsed(), Stage::Nats, what)
        } else {
            return None;
        };
        (waited >= others).then_some(HeldUp { stage, seconds: waited.as_secs_f64(), what })
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn writer(&mut self, lane: usize) -> &mut Writer {
        if self.writers.len() <= lane {
            self.writers.resize_with(lane + 1, Writer::default);
        }
        &mut self.writers[lane]
    }

    /// When the batch was taken that a writer has had for longest.
    fn longest(&self) -> Option<Instant> {
        self.writers.iter().filter_map(|writer| writer.batch.as_ref().map(|batch| batch.taken)).min()
    }
}

impl Writer {
    fn patience(&self) -> Duration {
        (2 * self.took[0].min(self.took[1])).clamp(HELD_UP, LONGEST_PATIENCE)
    }

    /// What the writer, or a batch that is queued for it, has waited for longer than `patience`.
    fn waits(&self, patience: Duration) -> Option<HeldUp> {
        let (waited, attempts) = match &self.batch {
            Some(batch) => (batch.moved.elapsed(), batch.attempts),
            None => (self.queued?.elapsed(), 0),
        };
        let (step, since) = self.step.as_ref()?;
        let what = || self.database(step, *since, attempts);
        let (stage, seconds) = (step.stage(), waited.as_secs_f64());
        (waited >= patience).then(|| HeldUp { stage, seconds, what: what() })
    }

    /// What the writer waits for, in words.
    fn database(&self, step: &Step, since: Instant, attempts: u32) -> String {
        let server = match step.stage() {
            Stage::Database => "the database",
            Stage::Nats => "NATS",
            Stage::Decode => "the decoder",
        };
        let mut what = format!("waiting for {server}: {step} for {} s", since.elapsed().as_secs());
        if attempts > 1 {
            // Writing to a string cannot fail.
            let _ = write!(what, ", attempt {attempts}");
        }
        if let Some(said) = &self.said {
            what = what + "; " + said;
        }
        what
    }
}

impl Writing {
    /// It is committed.
    pub fn done(self) {
        let mut facts = self.0.lock();
        let writer = facts.writer(self.0.lane);
        if let Some(batch) = &writer.batch {
            writer.took = [batch.taken.elapsed(), writer.took[0]];
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut facts = self.0.lock();
        let writer = facts.writer(self.0.lane);
        (writer.batch, writer.said) = (None, None);
        let step = writer.step.take();
        let longest = facts.longest();
        drop(facts);
        self.0.ended(step);
        self.0.stages.writes(longest);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Counter;

    use super::*;

    fn motion() -> Motion {
        let counter = |name: &'static str| Counter::new(name, name).unwrap();
        Motion::new(StageClock::new(counter), WriteClock::new(counter))
    }

    /// Lets the time of a fact have passed.
    fn ago(seconds: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap()
    }

    fn writing_for(motion: &Motion, seconds: u64) -> Writing {
        let writing = motion.write();
        motion.step(Step::Copy("events".into()));
        let mut facts = motion.lock();
        let batch = facts.writer(0).batch.as_mut().unwrap();
        (batch.taken, batch.moved) = (ago(seconds), ago(seconds));
        drop(facts);
        writing
    }

    #[test]
    fn a_batch_that_is_not_committed_for_three_seconds_is_held_up_by_the_step_that_it_is_at() {
        let motion = motion();
        let writing = writing_for(&motion, 2);
        assert_eq!((motion.held_up(), motion.limit()), (None, Some(Stage::Database)));
        drop(writing);
        let _writing = writing_for(&motion, 4);
        let held = motion.held_up().unwrap();
        assert_eq!(held.stage, Stage::Database);
        let said = "nothing has committed for 4 s: waiting for the database: COPY to table events for 0 s";
        assert_eq!(held.to_string(), said);
    }

    #[test]
    fn a_pipeline_that_is_slow_and_steady_is_not_held_up_between_its_commits() {
        let motion = motion();
        for _ in 0..2 {
            writing_for(&motion, 4).done();
        }
        let _writing = writing_for(&motion, 5);
        assert_eq!(motion.held_up(), None);
    }

    #[test]
    fn one_slow_batch_gives_no_patience_with_the_next_one() {
        let motion = motion();
        writing_for(&motion, 20).done();
        writing_for(&motion, 0).done();
        let _writing = writing_for(&motion, 4);
        assert!(motion.held_up().is_some());
    }

    #[test]
    fn a_copy_of_which_the_server_takes_more_moves() {
        let motion = motion();
        let _writing = writing_for(&motion, 4);
        let (_, batch) = motion.writing_for(Duration::from_secs(1)).unwrap();
        motion.said(batch, None, Some(100));
        assert!(motion.held_up().is_some());
        motion.said(batch, None, Some(200));
        assert_eq!(motion.held_up(), None);
    }

    #[test]
    fn what_the_server_says_of_a_batch_is_not_said_of_the_next_one() {
        let motion = motion();
        let writing = writing_for(&motion, 4);
        let (_, batch) = motion.writing_for(Duration::from_secs(1)).unwrap();
        motion.said(batch, Some("it waits for a lock".into()), None);
        assert!(motion.held_up().unwrap().what.ends_with("; it waits for a lock"));
        drop(writing);
        let _writing = writing_for(&motion, 4);
        motion.said(batch, Some("it waits for a lock".into()), None);
        assert!(motion.held_up().unwrap().what.ends_with(" s"));
    }

    #[test]
    fn a_reader_that_waits_is_held_up_by_nats_only_while_there_are_messages() {
        let motion = motion();
        let timing = motion.stages.start();
        timing.enter(Stage::Nats);
        motion.stages.set_since(ago(10));
        assert_eq!(motion.held_up(), None);
        motion.waiting(7);
        assert_eq!(motion.held_up(), None, "they may just have come");
        motion.lock().waiting = Some((7, ago(5)));
        let held = motion.held_up().unwrap();
        assert_eq!(held.stage, Stage::Nats);
        assert!(held.what.contains("7 messages"), "{held}");
        motion.waiting(0);
        assert_eq!(motion.held_up(), None);
    }

    #[test]
    fn a_batch_that_waits_for_a_writer_that_looks_at_its_checkpoint_is_held_up() {
        let motion = motion();
        motion.step(Step::Confirm);
        motion.queued();
        assert_eq!(motion.held_up(), None);
        motion.lock().writer(0).queued = Some(ago(4));
        assert!(motion.held_up().unwrap().what.contains("looking at the checkpoint"));
    }

    #[test]
    fn a_generation_that_ends_leaves_nothing_behind() {
        let motion = motion();
        drop(writing_for(&motion, 9));
        assert_eq!((motion.held_up(), motion.limit()), (None, None));
    }
}
