//! What the writers of a generation have in common: where each of them stands.
//!
//! Guarantees: the floor that is told never goes back. With one writer, it is its checkpoint, and nothing is
//! compared with anybody.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Error, Writer};
use crate::checkpoint::{self, Place, Position};
use crate::lanes::{Floor, Lanes};
use crate::metrics;
use crate::postgres::simple::within;
use crate::seal;

/// The writers of a generation.
#[derive(Debug)]
pub(crate) struct Team {
    /// With when the stream stored the last message of each commit.
    floor: Mutex<Floor<i64>>,
    several: bool,
    writing: AtomicUsize,
    floods: AtomicBool,
}

impl Team {
    /// Of writers that stand there.
    #[must_use]
    pub(crate) fn new(lanes: Lanes) -> Self {
        Self {
            several: lanes.are_several(),
            writing: AtomicUsize::new(lanes.count()),
            floods: AtomicBool::new(false),
            floor: Mutex::new(Floor::new(lanes)),
        }
    }

    /// Whether there are several.
    pub(super) fn is_shared(&self) -> bool {
        self.several
    }

    /// What each lane is known to have committed; empty where there is one.
    pub(super) fn known(&self) -> Vec<u64> {
        if self.several { self.lock().lanes().checkpoints().to_vec() } else { Vec::new() }
    }

    /// Where the shard stands.
    pub(super) fn floor(&self) -> u64 {
        self.lock().lanes().floor()
    }

    /// A lane has committed all of its own up to `to`, whose message the stream stored at `stored_ns`, where
    /// there is one. Tells the floor, and returns when the stream stored what is at it, where that is news.
    pub(super) fn commit(
        &self,
        lane: usize,
        to: u64,
        stored_ns: Option<i64>,
        tell: impl FnOnce(u64),
    ) -> Option<i64> {
        let mut floor = self.lock();
        if let Some(stored_ns) = stored_ns {
            floor.ends(to, stored_ns);
        }
        floor.commit(lane, to);
        // Under the lock, so that no other writer tells of less afterwards.
        tell(floor.lanes().floor());
        floor.reached().map(|(_, stored_ns)| stored_ns)
    }

    /// One of the writers is done; whether all are.
    pub(super) fn leave(&self) -> bool {
        self.writing.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// A flood is to be kept in the shard's row: no other writer clears it.
    pub(super) fn flood(&self) {
        self.floods.store(true, Ordering::Release);
    }

    pub(super) fn floods(&self) -> bool {
        self.floods.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Floor<i64>> {
        // Plain numbers: what a panicking thread left behind is still whole.
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// What the next commit adds to, and the statement before it.
    pub(super) fn sealing(&self) -> (seal::Open, String) {
        self.seal.next(&self.shard.name, self.lane)
    }

    /// Where it stands, the other lanes being `known` to stand there.
    pub(super) fn position<'p>(&'p self, known: &'p [u64]) -> Position<'p> {
        Position {
            shard: &self.shard,
            epoch: self.epoch,
            lane: self.lane,
            from: self.checkpoint,
            others: known,
            keeps_flood: self.team.floods(),
        }
    }

    /// The shard, where the daemon has just seen that it stands where its writers left it.
    pub(super) fn seen(&self) -> Option<Place> {
        let place = self.membership.place(&self.shard.name)?;
        (place.epoch == self.epoch && place.checkpoint == self.team.floor()).then_some(place)
    }

    /// Looks over the writer's own session whether its lane stands where it left it; up to where an audit has
    /// proven the tables.
    pub(super) async fn confirm(&mut self) -> Result<Option<u64>, Error> {
        self.at(metrics::Step::Confirm);
        let known = self.team.known();
        let at = self.position(&known);
        let confirm = checkpoint::confirm(&self.session, &at);
        Ok(within(self.step_timeout, "looking at the checkpoint", confirm).await??)
    }
}
