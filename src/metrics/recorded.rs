//! What the database has counted of a shard, as metrics.
//!
//! Guarantees: nothing is shown before the database was met, and then what it holds, also from before this
//! process. Within a process no count falls, whatever a failover takes back: Prometheus would take that for a
//! restart, and all of it for new. How long ago the newest was goes by the monotonic clock from where the
//! database said it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, IntCounter};

use super::labelled::{Labelled, Told};
use super::{PipelineMetrics, names};
use crate::clock::monotonic_ns;
use crate::loss::Cause;
use crate::tally::{Event, Tally};

/// Events with a metric for the age of the newest: those that raise an alert.
const NEWEST: [Event; 3] = [Event::DeadLetter, Event::Loss, Event::Replay];

/// When the newest event of each kind was; clones share it.
#[derive(Debug, Clone)]
pub struct Newest {
    told: Told,
    gauges: GaugeVec,
    /// By the monotonic clock, in nanoseconds.
    at: Arc<Mutex<BTreeMap<Event, i64>>>,
}

impl Newest {
    pub(super) fn new(labelled: &Labelled<'_>, told: &Told) -> Self {
        let gauges = labelled.float_gauges(names::NEWEST_EVENT_AGE, names::EVENT);
        Self { told: told.clone(), gauges, at: Arc::default() }
    }

    /// One is committed now.
    pub fn is_now(&self, event: Event) {
        self.at().insert(event, monotonic_ns());
    }

    /// The newest in the database is that old.
    fn is(&self, event: Event, age: f64) {
        let age = Duration::try_from_secs_f64(age).unwrap_or(Duration::MAX);
        let at = monotonic_ns().saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let mut known = self.at();
        let newest = known.get(&event).map_or(at, |&known| known.max(at));
        known.insert(event, newest);
    }

    /// Brings the gauges up to now.
    pub(super) fn settle(&self) {
        let at = self.at();
        for event in NEWEST {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an age")]
            let age = match at.get(&event) {
                _ if !self.told.is_known() => f64::NAN,
                Some(at) => (monotonic_ns() - at) as f64 / 1e9,
                None => f64::INFINITY,
            };
            self.gauges.with_label_values(&[event.as_str()]).set(age);
        }
    }

    fn at(&self) -> MutexGuard<'_, BTreeMap<Event, i64>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PipelineMetrics {
    /// Takes up what the database has counted.
    pub fn recorded(&self, tallies: &[Tally]) {
        let sum = |count: &dyn Fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
        let of = |event, count: &dyn Fn(&Tally) -> u64| {
            sum(&|tally| if tally.event == event { count(tally) } else { 0 })
        };
        let superseded = |tally: &Tally| tally.kind == Cause::Superseded.as_str();
        let lost =
            |lost: bool| of(Event::Loss, &|tally| if superseded(tally) == lost { 0 } else { tally.messages });
        rise(&self.losses, of(Event::Loss, &|tally| tally.times));
        rise(&self.lost_messages, lost(true));
        rise(&self.superseded_messages, lost(false) + of(Event::Superseded, &|tally| tally.messages));
        rise(&self.replayed_messages, of(Event::Replay, &|tally| tally.messages));
        for tally in tallies {
            if tally.event == Event::DeadLetter {
                rise(&self.dead_letters.with_label_values(&[&tally.kind]), tally.times);
            }
            self.newest.is(tally.event, tally.age);
        }
        self.told.known();
    }

    /// Whether it is known what the database has counted.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.told.is_known()
    }

    /// A loss is recorded: whether it is a new one, and how many messages of it were not counted before.
    pub fn lost(&self, cause: Cause, is_new: bool, messages: u64) {
        if is_new {
            self.losses.inc();
            self.newest.is_now(Event::Loss);
        }
        match cause {
            Cause::Superseded => &self.superseded_messages,
            Cause::Dropped | Cause::Recreated | Cause::RolledBack => &self.lost_messages,
        }
        .inc_by(messages);
    }

    /// Dead letters that this process has stored.
    #[must_use]
    pub fn dead_letters_since_start(&self) -> u64 {
        self.dead_letters_here.load(Ordering::Relaxed)
    }

    /// A dead letter of that kind is committed.
    pub fn dead_letter(&self, kind: &str) {
        self.dead_letters.with_label_values(&[kind]).inc();
        self.dead_letters_here.fetch_add(1, Ordering::Relaxed);
        self.newest.is_now(Event::DeadLetter);
    }
}

fn rise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
