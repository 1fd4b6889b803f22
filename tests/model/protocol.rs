//! The protocol of one shard: its stream and durable consumer, two daemons, a primary and its asynchronous
//! standby.
//!
//! Guarantees: each step is what happens at once in reality: a statement on the checkpoint's row, which one
//! transaction locks at a time; a request to NATS; a delivery. Whatever can come between two of them does, in
//! some run. Where reality is kinder than the model (a lease keeps a second daemon away, a failover ends a
//! session), the model does not count on it: the compare-and-set alone must hold.
//!
//! Left out: time, several tables (one transaction holds them all), operators, and streams that drop what was
//! not read.

use crate::Property;
use crate::rules::{Bounds, Kind, Mutation};
use crate::search::Model;
use crate::state::{
    Counts, Daemon, Database, Durable, Generation, LANES, Lanes, Open, PerLane, Run, State, Stray,
};

/// What can happen. The first number is the daemon's: its place in the state before, where they are sorted by
/// what they know. The second is the lane's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// `checkpoint::claim`: takes the next epoch and reads the checkpoint `FOR UPDATE`.
    Claim(usize),
    /// The same while the other daemon is alive and holds the shard: its lease has run out.
    TakeOver(usize),
    /// `subscribe::place`: the durable is reset to the checkpoint.
    Place(usize),
    /// The durable delivers its next message.
    Deliver(usize),
    /// The durable delivers its next message, which is lost on the way.
    LoseDelivery,
    /// What was lost arrives after all, or once more.
    StrayArrives(usize),
    /// `Open::begin`: the compare-and-set, and the batch's rows and dead letters.
    Begin(usize, usize),
    /// The same, and `jetcopy.close_seal()` before it.
    BeginSealing(usize, usize),
    /// `jetcopy.close_seal()` alone: of `Mutation::SealUnfenced`.
    Seal(usize, usize),
    /// COMMIT is answered, and the ack goes out.
    Commit(usize, usize),
    /// The same, and the ack is lost at once.
    CommitUnheard(usize, usize),
    /// The connection is lost between COMMIT and its answer.
    LoseAnswer(usize),
    /// A transaction in doubt is committed, or rolled back.
    Settle {
        lane: usize,
        committed: bool,
    },
    AckArrives(usize),
    LoseAck(usize),
    /// `checkpoint::renew`.
    Renew(usize),
    /// The configuration asks for another number of writers.
    Reconfigure,
    /// Once all lanes have stored what is below the greatest checkpoint, they are made as many as asked for.
    Resize(usize),
    /// `lag::run`: looks whether all that was delivered came, and all acks count.
    Probe(usize),
    /// The daemon is killed, or loses a connection, or its session is ended.
    Crash(usize),
    /// The standby receives all that is committed.
    Replicate,
    /// The standby becomes the primary. Sessions behind a pooler live on, and do not notice.
    FailOver,
}

pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) mutation: Mutation,
}

impl Model for Protocol {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let down = Daemon { generation: Generation::Down, ack: 0, kept: PerLane::default() };
        let lanes = Lanes { more: self.bounds.writers - 1, checkpoints: PerLane::default() };
        let database = Database { lanes, ..Database::default() };
        State {
            primary: database,
            open: PerLane::default(),
            standby: database,
            durable: Durable::default(),
            daemons: [down; 2],
            stray: None,
            failovers_left: self.bounds.failovers,
            strays_left: self.bounds.strays,
            resizes_left: self.bounds.resizes,
            more: self.bounds.writers - 1,
            highest: 0,
            unfenced: false,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<(Step, State)>) {
        let each = (0..2).flat_map(|daemon| {
            [
                Step::Claim(daemon),
                Step::TakeOver(daemon),
                Step::Place(daemon),
                Step::Deliver(daemon),
                Step::StrayArrives(daemon),
                Step::Begin(daemon, 0),
                Step::Begin(daemon, 1),
                Step::BeginSealing(daemon, 0),
                Step::BeginSealing(daemon, 1),
                Step::Seal(daemon, 0),
                Step::Seal(daemon, 1),
                Step::Commit(daemon, 0),
                Step::Commit(daemon, 1),
                Step::CommitUnheard(daemon, 0),
                Step::CommitUnheard(daemon, 1),
                Step::Resize(daemon),
                Step::LoseAnswer(daemon),
                Step::AckArrives(daemon),
                Step::LoseAck(daemon),
                Step::Renew(daemon),
                Step::Probe(daemon),
                Step::Crash(daemon),
            ]
        });
        let settle = (0..2 * LANES).map(|at| Step::Settle { lane: at / 2, committed: at % 2 == 0 });
        let others = settle.chain([Step::LoseDelivery, Step::Replicate, Step::FailOver, Step::Reconfigure]);
        next.extend(each.chain(others).filter_map(|step| {
            let mut after = *state;
            self.take(step, &mut after)?;
            after.forget_what_makes_no_difference();
            Some((step, after))
        }));
    }

    fn is_fault(&self, step: Step) -> bool {
        matches!(
            step,
            Step::TakeOver(_)
                | Step::LoseDelivery
                | Step::StrayArrives(_)
                | Step::LoseAnswer(_)
                | Step::LoseAck(_)
                | Step::CommitUnheard(..)
                | Step::Crash(_)
                | Step::Replicate
                | Step::FailOver
                | Step::Reconfigure
        )
    }

    fn broken(&self, state: &State) -> Vec<Property> {
        let State { primary, durable, daemons, highest, .. } = *state;
        let mut broken = Vec::new();
        for sequence in 1..=self.last() {
            let (rows, letters) = (primary.rows.of(sequence), primary.letters.of(sequence));
            let good = self.kind(sequence) == Kind::Good;
            let (right, wrong) = if good { (rows, letters) } else { (letters, rows) };
            if rows + letters > 1 || wrong > 0 {
                broken.push(Property::NeverTwice);
            }
            let below = sequence <= primary.lanes.checkpoints[self.lane(primary.lanes, sequence)];
            if !below && rows + letters > 0 {
                broken.push(Property::NothingAbove);
            }
            if below && self.holds(sequence) && right == 0 {
                broken.push(Property::NeverNeither);
            }
        }
        let failed_over = state.failovers_left < self.bounds.failovers;
        let acked = daemons.map(|daemon| daemon.ack).into_iter().fold(durable.floor, u8::max);
        // What was acknowledged was committed; only a failover takes it back.
        if acked > highest || !failed_over && acked > self.floor(primary.lanes) {
            broken.push(Property::AckedIsCommitted);
        }
        if state.unfenced {
            broken.push(Property::ClaimFences);
        }
        if !self.ledger_counts(primary) {
            broken.push(Property::LedgerCounts);
        }
        broken
    }

    fn done(&self, state: &State) -> bool {
        self.floor(state.primary.lanes) == self.last()
    }
}

impl Protocol {
    /// Whether the claim of a daemon is the one that `primary` holds, as a compare-and-set sees it.
    pub(crate) fn claims(&self, daemon: usize, epoch: u8, primary: Database) -> bool {
        let same = epoch == primary.epoch;
        same && primary.owner == Some(daemon) && !self.breaks(Mutation::NoEpoch)
            || same && self.breaks(Mutation::NoOwner)
            || self.breaks(Mutation::NoEpoch)
    }

    pub(crate) fn breaks(&self, rule: Mutation) -> bool {
        self.mutation == rule
    }

    /// Takes a step; `None` where it is not possible now.
    fn take(&self, step: Step, state: &mut State) -> Option<()> {
        match step {
            Step::Claim(daemon) if !state.is_held_by(1 - daemon) => self.claim(daemon, state),
            Step::TakeOver(daemon) if state.is_held_by(1 - daemon) => self.claim(daemon, state),
            Step::Claim(_) | Step::TakeOver(_) => None,
            Step::Place(daemon) => self.place(daemon, state),
            Step::Deliver(daemon) => {
                let run = *state.run(daemon)?;
                // Before another number of writers begins, no more is read than some lane lacks.
                if run.more != run.lanes.more && run.read >= run.lanes.greatest() {
                    return None;
                }
                let delivery = self.deliver(state)?;
                self.receive(daemon, delivery, state)
            }
            Step::LoseDelivery => {
                state.strays_left = state.strays_left.checked_sub(1)?;
                let stray = self.deliver(state)?;
                state.stray = (!self.bounds.for_good).then_some(stray);
                Some(())
            }
            Step::StrayArrives(daemon) => self.receive(daemon, state.stray?, state),
            Step::Begin(daemon, lane) => self.begin(daemon, lane, false, state),
            Step::BeginSealing(daemon, lane) => self.begin(daemon, lane, true, state),
            Step::Seal(daemon, lane) => self.seal(daemon, lane, state),
            Step::Commit(daemon, lane) => {
                self.answer(daemon, lane, state)?;
                if self.bounds.prompt { self.acked(daemon, state).or(Some(())) } else { Some(()) }
            }
            Step::CommitUnheard(daemon, lane) => {
                self.answer(daemon, lane, state).filter(|()| self.bounds.prompt)?;
                state.lose_ack(daemon).map(drop)
            }
            Step::LoseAnswer(daemon) => self.lose_answer(daemon, state),
            Step::Settle { lane, committed } => {
                state.open[lane].filter(|open| open.by.is_none())?;
                if committed {
                    self.commit(lane, state);
                }
                state.open[lane] = None;
                Some(())
            }
            Step::Reconfigure => {
                state.resizes_left = state.resizes_left.checked_sub(1)?;
                state.more = 1 - state.more;
                Some(())
            }
            Step::Resize(daemon) => self.resize(daemon, state),
            Step::AckArrives(daemon) => self.acked(daemon, state),
            Step::LoseAck(daemon) => state.lose_ack(daemon).map(drop),
            Step::Renew(daemon) => self.renew(daemon, state),
            Step::Probe(daemon) => self.probe(daemon, state),
            Step::Crash(daemon) => {
                let runs = state.daemons[daemon].generation != Generation::Down;
                runs.then(|| state.stop(daemon))
            }
            Step::Replicate => {
                let forked = self.bounds.forks && state.failovers_left < self.bounds.failovers;
                let news = state.failovers_left > 0 && state.standby != state.primary && !forked;
                state.standby = news.then_some(state.primary)?;
                Some(())
            }
            Step::FailOver => {
                state.failovers_left = state.failovers_left.checked_sub(1)?;
                let old = std::mem::replace(&mut state.primary, state.standby);
                if self.bounds.forks {
                    state.standby = old;
                }
                for open in std::mem::take(&mut state.open).into_iter().flatten() {
                    open.by.into_iter().for_each(|daemon| state.stop(daemon));
                }
                Some(())
            }
        }
    }

    #[expect(clippy::unused_self, reason = "it reads as the other steps do")]
    fn acked(&self, daemon: usize, state: &mut State) -> Option<()> {
        let ack = state.lose_ack(daemon)?;
        let durable = &mut state.durable;
        durable.floor = durable.floor.max(ack);
        // An ack of before a reset may make a server pass over what it has not delivered since.
        durable.cursor = durable.cursor.max(ack);
        Some(())
    }

    fn claim(&self, daemon: usize, state: &mut State) -> Option<()> {
        state.claim(daemon)?;
        self.seal_at_claim(&mut state.primary);
        if self.bounds.prompt { self.place(daemon, state) } else { Some(()) }
    }

    fn place(&self, daemon: usize, state: &mut State) -> Option<()> {
        let Generation::Claimed { epoch, lanes, more } = state.daemons[daemon].generation else {
            return None;
        };
        let mut batches = std::mem::take(&mut state.daemons[daemon].kept);
        let mut read = match self.mutation {
            Mutation::ResumeFromFloor => state.durable.floor,
            Mutation::ResumeFromGreatest => lanes.greatest(),
            _ => self.floor(lanes),
        };
        for batch in &batches {
            read = read.max(batch.to);
        }
        for (lane, batch) in batches.iter_mut().enumerate() {
            batch.to = batch.to.max(lanes.checkpoints[lane]).max(self.last_of(lanes, lane, read));
        }
        let counted = PerLane::default();
        let run = Run { epoch, lanes, more, read, batches, counted, due: 1 };
        state.daemons[daemon].generation = Generation::Running(run);
        if !self.breaks(Mutation::NoReset) {
            state.durable = Durable { cursor: read, delivered: 0, floor: read };
        }
        Some(())
    }

    /// The next message of the durable.
    fn deliver(&self, state: &mut State) -> Option<Stray> {
        let durable = &mut state.durable;
        if self.held(durable.floor, durable.cursor) >= self.bounds.window {
            return None;
        }
        let sequence = (durable.cursor + 1..=self.last()).find(|&sequence| self.holds(sequence))?;
        durable.cursor = sequence;
        durable.delivered += 1;
        Some(Stray { consumer_sequence: durable.delivered, sequence })
    }

    /// `Contiguity::check` and `Gaps::check`.
    fn receive(&self, daemon: usize, delivery: Stray, state: &mut State) -> Option<()> {
        let Stray { consumer_sequence, sequence } = delivery;
        let run = state.run(daemon)?;
        let in_order = consumer_sequence == run.due && sequence > run.read;
        let skipped = sequence > run.read && self.held(run.read, sequence - 1) > 0;
        if !in_order && !self.breaks(Mutation::NoOrder) || skipped && !self.breaks(Mutation::BelieveJumps) {
            state.stop(daemon);
            return Some(());
        }
        let before = self.acknowledges(*run);
        run.due = consumer_sequence + 1;
        run.read = run.read.max(sequence);
        for (lane, batch) in run.batches.iter_mut().enumerate() {
            batch.to = batch.to.max(self.last_of(run.lanes, lane, sequence));
        }
        let lane = self.lane(run.lanes, sequence);
        // One writer is sent nothing at or below its checkpoint; of several, all but one are.
        let stored = run.lanes.more > 0 && sequence <= run.lanes.checkpoints[lane];
        if (!stored || self.breaks(Mutation::NoDrop))
            && (self.kind(sequence) == Kind::Good || !self.breaks(Mutation::NoLetter))
        {
            run.batches[lane].messages.add(sequence, 1);
        }
        let ack = self.acknowledges(*run);
        if ack > before {
            // It was stored before.
            state.daemons[daemon].ack = ack;
            if self.bounds.prompt {
                return self.acked(daemon, state);
            }
        }
        Some(())
    }

    fn begin(&self, daemon: usize, lane: usize, seals: bool, state: &mut State) -> Option<()> {
        let primary = state.primary;
        if state.open[lane].is_some() {
            return None;
        }
        let run = state.run(daemon)?;
        let (batch, known, now) = (run.batches[lane], run.lanes.checkpoints, primary.lanes.checkpoints);
        // What is deleted or filtered away moves the checkpoint without rows.
        let moves = batch.to != known[lane] && !self.breaks(Mutation::NoAdvance);
        let nothing = !moves && batch.messages == Counts::default();
        if nothing || seals && run.counted[lane] == 0 {
            return None;
        }
        let counted = self.counted(batch, run.counted[lane], seals);
        let epoch = self.claims(daemon, run.epoch, primary);
        // A failover may have cost another lane what this commit is acknowledged together with.
        let others = (0..LANES).all(|lane| known[lane] <= now[lane]) || self.breaks(Mutation::OneLaneAlone);
        let sequence = known[lane] == now[lane] && others || self.breaks(Mutation::NoSequence);
        if !epoch || !sequence {
            state.stop(daemon);
            return Some(());
        }
        run.batches[lane].messages = Counts::default();
        let (by, epoch) = (Some(daemon), run.epoch);
        state.open[lane] = Some(Open { by, epoch, owner: daemon, batch, seals, counted });
        if self.breaks(Mutation::RowsApart) {
            self.store(batch.messages, &mut state.primary);
        }
        if self.breaks(Mutation::AckBeforeCommit) {
            state.daemons[daemon].ack = batch.to;
        }
        Some(())
    }

    /// What the server does at COMMIT.
    fn commit(&self, lane: usize, state: &mut State) {
        let Some(open) = state.open[lane].take() else { return };
        let Database { epoch, owner, .. } = state.primary;
        state.unfenced |= open.epoch != epoch || owner != Some(open.owner);
        if !self.breaks(Mutation::RowsApart) {
            self.store(open.batch.messages, &mut state.primary);
        }
        self.count(open, lane, &mut state.primary);
        state.primary.lanes.checkpoints[lane] = open.batch.to;
        state.highest = state.highest.max(self.floor(state.primary.lanes));
    }

    /// COMMIT, and its answer.
    fn answer(&self, daemon: usize, lane: usize, state: &mut State) -> Option<()> {
        let open = state.open[lane].filter(|open| open.by == Some(daemon))?;
        self.commit(lane, state);
        self.count_apart(open, lane, &mut state.primary);
        let run = state.run(daemon)?;
        let before = self.acknowledges(*run);
        run.lanes.checkpoints[lane] = open.batch.to;
        run.counted[lane] = open.counted;
        let ack = self.acknowledges(*run);
        if self.breaks(Mutation::AckOwnLane) {
            state.daemons[daemon].ack = open.batch.to;
        } else if ack > before {
            state.daemons[daemon].ack = ack;
        }
        Some(())
    }

    /// All its transactions are in doubt: each was committed, is yet to be, or is rolled back.
    fn lose_answer(&self, daemon: usize, state: &mut State) -> Option<()> {
        if !state.writes(daemon) {
            return None;
        }
        for (lane, open) in state.open.iter_mut().enumerate() {
            if let Some(open) = open.as_mut().filter(|open| open.by == Some(daemon)) {
                open.by = None;
                if self.breaks(Mutation::RetryInDoubt) {
                    state.daemons[daemon].kept[lane] = open.batch;
                }
            }
        }
        state.stop(daemon);
        Some(())
    }

    fn store(&self, messages: Counts, database: &mut Database) {
        for sequence in 1..=self.last() {
            let good = self.kind(sequence) == Kind::Good;
            let into = if good { &mut database.rows } else { &mut database.letters };
            into.add(sequence, messages.of(sequence));
        }
    }

    fn renew(&self, daemon: usize, state: &mut State) -> Option<()> {
        let primary = state.primary;
        if state.is_writing() {
            return None;
        }
        let run = state.run(daemon)?;
        let sequence = match self.mutation {
            Mutation::RenewByEpoch => true,
            Mutation::RenewOneLane => run.lanes.checkpoints[0] == primary.lanes.checkpoints[0],
            _ => run.lanes == primary.lanes,
        };
        if run.epoch == primary.epoch && primary.owner == Some(daemon) && sequence {
            return None;
        }
        state.stop(daemon);
        Some(())
    }

    fn probe(&self, daemon: usize, state: &mut State) -> Option<()> {
        let (durable, writes) = (state.durable, state.writes(daemon));
        let run = state.run(daemon)?;
        let undelivered = durable.delivered >= run.due;
        let committed = run.batches.map(|batch| batch.to) == run.lanes.checkpoints;
        let done = !undelivered && !writes && committed;
        let skipped = durable.cursor == self.last() && self.held(run.read, self.last()) > 0;
        let full = self.held(durable.floor, durable.cursor) >= self.bounds.window;
        let missing = (undelivered || done && skipped) && !self.breaks(Mutation::NoProbe);
        let unacknowledged = done && full && !self.breaks(Mutation::AcksUnwatched);
        (missing || unacknowledged).then(|| state.stop(daemon))
    }
}
