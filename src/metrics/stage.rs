//! What the reading stage spends its time on: the honest measure of what limits a pipeline.
//!
//! Guarantees: while a [`Timing`] lives, each moment is counted once, for the stage that was entered last; also a wait
//! that has not ended yet is counted when somebody asks. Between generations nothing is counted.
//!
//! Reading is where the stages meet: it waits for messages, decodes them, and hands full batches to the writer through a
//! channel that is full while the database is slower. So its own time says which of the three the others wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::Counter;
use serde::Serialize;

/// What the reading stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waits for messages, with room for them.
    Nats,
    /// Decodes.
    Decode,
    /// Waits with a full batch until the writer takes it.
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
    /// The stage that is counted now, and since when. It is locked twice a turn of the reading loop, which takes up to
    /// dozens of messages, and by whoever looks.
    running: Arc<Mutex<Option<(Stage, Instant)>>>,
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

    /// Counts the time up to now, also of a wait that goes on.
    pub fn settle(&self) {
        let mut running = self.lock();
        let stage = running.map(|(stage, _)| stage);
        self.switch(&mut running, stage);
    }

    /// What has been counted.
    #[must_use]
    pub fn seconds(&self) -> StageSeconds {
        self.settle();
        StageSeconds { nats: self.nats.get(), decode: self.decode.get(), database: self.database.get() }
    }

    fn switch(&self, running: &mut Option<(Stage, Instant)>, to: Option<Stage>) {
        let now = Instant::now();
        if let Some((stage, since)) = *running {
            let counter = match stage {
                Stage::Nats => &self.nats,
                Stage::Decode => &self.decode,
                Stage::Database => &self.database,
            };
            counter.inc_by(now.duration_since(since).as_secs_f64());
        }
        *running = to.map(|stage| (stage, now));
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Stage, Instant)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timing {
    /// From now on, time goes into `stage`.
    pub fn enter(&self, stage: Stage) {
        self.0.switch(&mut self.0.lock(), Some(stage));
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.0.switch(&mut self.0.lock(), None);
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
}
