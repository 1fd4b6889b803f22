//! Where a shard stands in its stream, and what is left of that when a generation ends or nobody answers.
//!
//! Guarantees: what decides reads the state here, never a gauge; the gauges mirror it. The checkpoint lies
//! beyond the stream's end only where it counts in another history of the stream; what nobody can tell any
//! more is forgotten rather than left as it was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Known, PipelineMetrics, gauge_value};
use crate::loss::{Cause, Loss};

/// Where a shard stands, over all its generations; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Position(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    /// Everything up to this sequence is committed.
    committed: Option<u64>,
    claim: Option<Claim>,
    /// Transactions that the server has committed.
    commits: u64,
    /// Messages that are not committed, wherever they are.
    backlog: Option<u64>,
    /// Last sequence of the stream.
    last: Option<u64>,
    resumes: Option<Resumes>,
    meets_database: bool,
}

impl Position {
    /// The sequence up to which everything is committed, where it is known.
    #[must_use]
    pub fn committed(&self) -> Option<u64> {
        self.lock().committed
    }

    /// What is known to have been committed once, for whoever claims the shard and follows the claim of epoch
    /// `follows`; 0 where nothing is known. A database that went back may lack this process's last claim
    /// along with what it committed; what another daemon then did is no reason to forget it.
    #[must_use]
    pub(crate) fn known(&self, follows: i64) -> u64 {
        let facts = self.lock();
        let lacked = facts.claim.filter(|claim| follows < claim.epoch).map(|claim| claim.committed);
        lacked.max(facts.committed).unwrap_or(0)
    }

    /// Transactions that the server has committed since the process began.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Messages that are not committed, wherever they are, where that is known.
    #[must_use]
    pub fn backlog(&self) -> Option<u64> {
        self.lock().backlog
    }

    /// Where reading goes on: behind the checkpoint, or past a loss that nobody has accepted. `None` where it
    /// is not known.
    #[must_use]
    pub fn reads_after(&self) -> Option<u64> {
        let facts = self.lock();
        facts.resumes.map(|resumes| resumes.after).or(facts.committed)
    }

    /// Whether the database answered it last.
    #[must_use]
    pub fn meets_database(&self) -> bool {
        self.lock().meets_database
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // Plain numbers: what a panicking thread left behind is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last claim of this process.
#[derive(Debug, Clone, Copy)]
struct Claim {
    epoch: i64,
    /// Everything up to this sequence was committed by then.
    committed: u64,
}

impl Facts {
    /// Whether the checkpoint counts in another history of the stream than it has now: one that was made
    /// anew, or rolled back.
    fn counts_elsewhere(&self) -> bool {
        self.resumes.is_some_and(|resumes| resumes.elsewhere)
    }
}

/// Where reading goes on past a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumes {
    /// After this sequence.
    after: u64,
    /// Whether the checkpoint counts in another history of the stream.
    elsewhere: bool,
}

impl Resumes {
    /// Past `loss`.
    #[must_use]
    pub fn past(loss: &Loss) -> Self {
        Self { after: loss.resume_after, elsewhere: loss.cause != Cause::Dropped }
    }
}

impl PipelineMetrics {
    /// The server has committed a transaction, with or without dead letters.
    pub fn commit(&self, letters: bool) {
        self.position.lock().commits += 1;
        if letters { &self.commits.poison } else { &self.commits.committed }.inc();
    }

    /// This process has claimed the shard, whose rows are committed up to `sequence`.
    pub(crate) fn claimed(&self, epoch: i64, sequence: u64) {
        let mut facts = self.position.lock();
        facts.claim = Some(Claim { epoch, committed: sequence });
        self.stand(&mut facts, sequence);
    }

    /// Everything up to `sequence` is committed under the claim of this process.
    pub fn committed_to(&self, sequence: u64) {
        let mut facts = self.position.lock();
        if let Some(claim) = &mut facts.claim {
            claim.committed = sequence;
        }
        self.stand(&mut facts, sequence);
    }

    /// Everything up to `sequence` is committed, by whomever. The stream is asked for its end every two
    /// seconds: what is committed was there.
    pub(crate) fn stands_at(&self, sequence: u64) {
        self.stand(&mut self.position.lock(), sequence);
    }

    fn stand(&self, facts: &mut Facts, sequence: u64) {
        facts.committed = Some(sequence);
        self.checkpoint_sequence.set(gauge_value(sequence));
        if !facts.counts_elsewhere() && facts.last.is_some_and(|last| last < sequence) {
            facts.last = Some(sequence);
            self.stream_last_sequence.set(gauge_value(sequence));
        }
    }

    /// Up to where an audit has proven what was committed; `None` where none has.
    pub fn verified_to(&self, sequence: Option<u64>) {
        match sequence {
            Some(sequence) => self.verified_through_sequence.set(gauge_value(sequence)),
            None => self.verified_through_sequence.forget(),
        }
    }

    /// The stream's ends, as it says.
    pub fn stream_holds(&self, first: u64, last: u64) {
        let mut facts = self.position.lock();
        let committed = facts.committed.filter(|_| !facts.counts_elsewhere());
        let last = committed.map_or(last, |committed| last.max(committed));
        facts.last = Some(last);
        self.stream_first_sequence.set(gauge_value(first));
        self.stream_last_sequence.set(gauge_value(last));
    }

    /// Where reading goes on once a loss is accepted; `None` where it goes on from the checkpoint.
    pub fn resumes(&self, resumes: Option<Resumes>) {
        self.position.lock().resumes = resumes;
    }

    /// How many messages are not committed, where that is known.
    pub fn waits(&self, backlog: Option<u64>) {
        self.position.lock().backlog = backlog;
    }

    /// Whether the database answered just now.
    pub fn meets_database(&self, answered: bool) {
        self.position.lock().meets_database = answered;
        self.database_up.set(answered.into());
    }

    /// A generation has ended: what it had in memory is gone, and the server has it yet to deliver.
    pub fn ended(&self) {
        // Nobody counts with this one.
        drop(self.buffered.begin());
        // It committed some since the last probe, or all.
        let mut facts = self.position.lock();
        if let (Some(backlog), Some(last), Some(committed), false) =
            (facts.backlog, facts.last, facts.committed, facts.counts_elsewhere())
        {
            let backlog = backlog.min(last.saturating_sub(committed));
            facts.backlog = Some(backlog);
            // What was on its way will be delivered again.
            self.pending_messages.set(gauge_value(backlog));
        }
        drop(facts);
        for gauge in [&self.in_flight_messages, &self.uncommitted_messages] {
            if gauge.get().is_some() {
                gauge.set(0);
            }
        }
    }

    /// The gauges that are shown only where their value is known.
    #[must_use]
    pub fn known(&self) -> [&Known; 15] {
        [
            &self.pending_messages,
            &self.in_flight_messages,
            &self.uncommitted_messages,
            &self.ack_pending_messages,
            &self.stream_first_sequence,
            &self.stream_last_sequence,
            &self.checkpoint_sequence,
            &self.verified_through_sequence,
            &self.behind_seconds,
            &self.headroom_sequences,
            &self.headroom_seconds,
            &self.catch_up_seconds,
            &self.database_up,
            &self.nats_up,
            &self.dead_letters_in_table,
        ]
    }

    /// NATS has not answered for so long that what it said last says nothing of now.
    pub fn forget_lag(&self) {
        for gauge in [
            &self.pending_messages,
            &self.ack_pending_messages,
            &self.in_flight_messages,
            &self.uncommitted_messages,
        ] {
            gauge.forget();
        }
        self.waits(None);
    }
}
