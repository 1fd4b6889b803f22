//! What the reading stage spends its time on: the honest measure of what limits a pipeline.
//!
//! Guarantees: while a [`Timing`] lives, each moment is counted once, for the stage that was entered last;
//! also a wait that has not ended yet is counted when somebody asks. Between generations nothing is counted.
//!
//! Reading is where the stages meet: it waits for messages, decodes them, and hands batches that are due to
//! the writer through a channel that is full while the database is slower. So its own time says which of the
//! three the others wait for. One wait is not what it seems: while the writer is stuck, the reader may have
//! taken all that the server sends without an ack, and then it waits for messages that wait for the database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::Counter;
use serde::Serialize;

use super::motion::LIMITS;

/// What the reading stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for messages, with room for them.
    Nats,
    /// Decodes.
    Decode,
    /// Waits with a batch that is due until the writer takes it.
    Database,
}

/// Seconds by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is a `Stage`, documented there")]
pub struct StageSeconds {
    pub nats: f64,
    pub decode: f64,
    pub database: f64,
}

/// Counts the time of the reading stage; clones share it.
#[derive(Debug, Clone)]
pub struct StageClock {
    nats: Counter,
    decode: Counter,
    database: Counter,
    /// It is locked twice a turn of the reading loop, which takes up to dozens of messages, twice a batch of
    /// the writer, and by whoever looks.
    running: Arc<Mutex<Running>>,
}

/// What is counted now.
#[derive(Debug, Default)]
struct Running {
    stage: Option<Entered>,
    /// Since when the writer has had the batch that it has.
    writing: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entered {
    stage: Stage,
    since: Instant,
    /// Up to when it has been counted.
    counted: Instant,
}

/// As long as it lives, time is counted.
#[derive(Debug)]
pub struct Timing(StageClock);

impl StageClock {
    pub(super) fn new(counter: impl Fn(&'static str) -> Counter) -> Self {
        Self {
            nats: counter("nats"),
            decode: counter("decode"),
            database: counter("database"),
            running: Arc::default(),
        }
    }

    /// Starts to count; nothing yet, until a stage is entered.
    #[must_use]
    pub fn start(&self) -> Timing {
        Timing(self.clone())
    }

    /// Counts the time up to now, including a wait that has not ended.
    pub fn settle(&self) {
        self.count(&mut self.lock(), Instant::now());
    }

    /// What has been counted.
    #[must_use]
    pub fn seconds(&self) -> StageSeconds {
        self.settle();
        StageSeconds { nats: self.nats.get(), decode: self.decode.get(), database: self.database.get() }
    }

    /// The present stage, and since when.
    pub(super) fn since(&self) -> Option<(Stage, Instant)> {
        self.lock().stage.map(|entered| (entered.stage, entered.since))
    }

    /// The writer has had its batch since then; `None` when it has none.
    pub(super) fn writes(&self, since: Option<Instant>) {
        let mut running = self.lock();
        self.count(&mut running, Instant::now());
        running.writing = since;
    }

    #[cfg(test)]
    pub(super) fn set_since(&self, since: Instant) {
        self.lock().stage.as_mut().unwrap().since = since;
    }

    fn count(&self, running: &mut Running, now: Instant) {
        let Running { stage: Some(entered), writing } = running else { return };
        let mut own = now.duration_since(entered.counted);
        if entered.stage == Stage::Nats
            && let Some(writing) = writing
        {
            let stuck = now.saturating_duration_since(entered.counted.max(*writing + LIMITS));
            self.database.inc_by(stuck.as_secs_f64());
            own -= stuck;
        }
        let counter = match entered.stage {
            Stage::Nats => &self.nats,
            Stage::Decode => &self.decode,
            Stage::Database => &self.database,
        };
        counter.inc_by(own.as_secs_f64());
        entered.counted = now;
    }

    fn switch(&self, to: Option<Stage>) {
        let (mut running, now) = (self.lock(), Instant::now());
        self.count(&mut running, now);
        running.stage = to.map(|stage| Entered { stage, since: now, counted: now });
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timing {
    /// From now on, time goes into `stage`.
    pub fn enter(&self, stage: Stage) {
        self.0.switch(Some(stage));
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.0.switch(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn clock() -> StageClock {
        StageClock::new(|stage| Counter::new(stage, stage).unwrap())
    }

    /// Time must pass for a clock to count it.
    fn pass() {
        std::thread::sleep(Duration::from_millis(5));
    }

    #[test]
    fn a_wait_that_goes_on_is_counted_when_somebody_asks() {
        let clock = clock();
        let timing = clock.start();
        timing.enter(Stage::Database);
        pass();
        let seconds = clock.seconds();
        assert!(seconds.database >= 0.005, "{seconds:?}");
        assert_eq!((seconds.nats.to_bits(), seconds.decode.to_bits()), (0, 0));
    }

    #[test]
    fn nothing_is_counted_between_generations() {
        let clock = clock();
        let timing = clock.start();
        timing.enter(Stage::Nats);
        drop(timing);
        let before = clock.seconds();
        pass();
        assert_eq!(clock.seconds(), before);
    }

    #[test]
    fn each_moment_is_counted_once() {
        let clock = clock();
        let start = Instant::now();
        let timing = clock.start();
        for stage in [Stage::Nats, Stage::Decode, Stage::Database, Stage::Nats] {
            timing.enter(stage);
            pass();
            clock.settle();
        }
        let StageSeconds { nats, decode, database } = clock.seconds();
        assert!(nats + decode + database <= start.elapsed().as_secs_f64());
        assert!(nats + decode + database >= 0.02);
    }

    #[test]
    fn a_reader_that_waits_behind_a_writer_that_is_stuck_waits_for_the_database() {
        let clock = clock();
        let timing = clock.start();
        timing.enter(Stage::Nats);
        clock.writes(Instant::now().checked_sub(LIMITS));
        pass();
        clock.writes(None);
        let stuck = clock.seconds();
        assert!(stuck.database >= 0.005 && stuck.nats < 0.005, "{stuck:?}");
        pass();
        let free = clock.seconds();
        assert!(free.nats >= 0.005, "{free:?}");
        assert_eq!(free.database.to_bits(), stuck.database.to_bits());
    }
}
