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
use crate::search::Model;
use crate::state::{Batch, Counts, Daemon, Database, Durable, Generation, Open, Run, State, Stray};

/// What the stream holds at sequences 1, 2, 3 and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Becomes rows.
    Good,
    /// Becomes a dead letter.
    Poison,
    /// Was deleted on purpose: the sequences jump.
    Removed,
}

/// How large the model is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) stream: &'static [Kind],
    /// The durable's `max_ack_pending`.
    pub(crate) window: usize,
    /// How often the standby is promoted without what was committed last.
    pub(crate) failovers: u8,
    /// How many deliveries get lost, late or doubled.
    pub(crate) strays: u8,
}

/// A rule of the protocol that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutation {
    None,
    /// The ack is sent when the transaction is opened.
    AckBeforeCommit,
    /// The compare-and-set does not compare the epoch.
    NoEpoch,
    /// The compare-and-set does not compare the sequence.
    NoSequence,
    /// Rows and dead letters are committed before the checkpoint moves.
    RowsApart,
    /// The next generation reads on after the durable's ack floor instead of the checkpoint.
    ResumeFromFloor,
    /// The durable is not reset: the next generation reads on where the last one stopped.
    NoReset,
    /// A batch whose COMMIT was not answered is written again, whatever became of it.
    RetryInDoubt,
    /// A message that cannot be stored is passed over without a dead letter.
    NoLetter,
    /// Deliveries are taken in whatever order they come.
    NoOrder,
    /// A jump in stream sequences is taken for messages that were deleted on purpose.
    BelieveJumps,
    /// Nobody looks whether deliveries are missing after the last one.
    NoProbe,
    /// Nobody looks whether acks count.
    AcksUnwatched,
    /// The renewal of the lease compares the epoch and not the sequence.
    RenewByEpoch,
}

/// What can happen. A number is the daemon's.
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
    Begin(usize),
    /// COMMIT is answered, and the ack goes out.
    Commit(usize),
    /// The connection is lost between COMMIT and its answer.
    LoseAnswer(usize),
    /// A transaction in doubt is committed, or rolled back.
    Settle {
        committed: bool,
    },
    AckArrives(usize),
    LoseAck(usize),
    /// `checkpoint::renew`.
    Renew(usize),
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
        let down = Daemon { generation: Generation::Down, ack: 0, kept: Batch::default() };
        State {
            primary: Database::default(),
            open: None,
            standby: Database::default(),
            durable: Durable::default(),
            daemons: [down; 2],
            stray: None,
            failovers_left: self.bounds.failovers,
            strays_left: self.bounds.strays,
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
                Step::Begin(daemon),
                Step::Commit(daemon),
                Step::LoseAnswer(daemon),
                Step::AckArrives(daemon),
                Step::LoseAck(daemon),
                Step::Renew(daemon),
                Step::Probe(daemon),
                Step::Crash(daemon),
            ]
        });
        let settle = [true, false].map(|committed| Step::Settle { committed });
        let others = settle.into_iter().chain([Step::LoseDelivery, Step::Replicate, Step::FailOver]);
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
                | Step::Crash(_)
                | Step::Replicate
                | Step::FailOver
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
            if sequence > primary.checkpoint && rows + letters > 0 {
                broken.push(Property::NothingAbove);
            }
            if sequence <= primary.checkpoint && self.holds(sequence) && right == 0 {
                broken.push(Property::NeverNeither);
            }
        }
        let failed_over = state.failovers_left < self.bounds.failovers;
        let acked = daemons.map(|daemon| daemon.ack).into_iter().fold(durable.floor, u8::max);
        // What was acknowledged was committed; only a failover takes it back.
        if acked > highest || !failed_over && acked > primary.checkpoint {
            broken.push(Property::AckedIsCommitted);
        }
        if state.unfenced {
            broken.push(Property::ClaimFences);
        }
        broken
    }

    fn done(&self, state: &State) -> bool {
        state.primary.checkpoint == self.last()
    }
}

impl Protocol {
    fn last(&self) -> u8 {
        u8::try_from(self.bounds.stream.len()).expect("a short stream")
    }

    fn kind(&self, sequence: u8) -> Kind {
        self.bounds.stream[usize::from(sequence) - 1]
    }

    /// Whether the stream holds a message there.
    fn holds(&self, sequence: u8) -> bool {
        self.kind(sequence) != Kind::Removed
    }

    /// How many messages the stream holds after one sequence, up to another.
    fn held(&self, after: u8, to: u8) -> usize {
        (after + 1..=to).filter(|&sequence| self.holds(sequence)).count()
    }

    fn breaks(&self, rule: Mutation) -> bool {
        self.mutation == rule
    }

    /// Takes a step; `None` where it is not possible now.
    fn take(&self, step: Step, state: &mut State) -> Option<()> {
        match step {
            Step::Claim(daemon) if !state.is_held_by(1 - daemon) => state.claim(daemon),
            Step::TakeOver(daemon) if state.is_held_by(1 - daemon) => state.claim(daemon),
            Step::Claim(_) | Step::TakeOver(_) => None,
            Step::Place(daemon) => self.place(daemon, state),
            Step::Deliver(daemon) => {
                state.run(daemon)?;
                let delivery = self.deliver(state)?;
                self.receive(daemon, delivery, state)
            }
            Step::LoseDelivery => {
                state.strays_left = state.strays_left.checked_sub(1)?;
                state.stray = Some(self.deliver(state)?);
                Some(())
            }
            Step::StrayArrives(daemon) => self.receive(daemon, state.stray?, state),
            Step::Begin(daemon) => self.begin(daemon, state),
            Step::Commit(daemon) => {
                let open = state.open.filter(|open| open.by == Some(daemon))?;
                self.commit(state);
                state.run(daemon)?.checkpoint = open.batch.to;
                state.daemons[daemon].ack = open.batch.to;
                Some(())
            }
            Step::LoseAnswer(daemon) => {
                let open = state.open.as_mut().filter(|open| open.by == Some(daemon))?;
                open.by = None;
                if self.breaks(Mutation::RetryInDoubt) {
                    state.daemons[daemon].kept = open.batch;
                }
                state.daemons[daemon].generation = Generation::Down;
                Some(())
            }
            Step::Settle { committed } => {
                state.open.filter(|open| open.by.is_none())?;
                if committed {
                    self.commit(state);
                }
                state.open = None;
                Some(())
            }
            Step::AckArrives(daemon) => {
                let ack = state.lose_ack(daemon)?;
                let durable = &mut state.durable;
                durable.floor = durable.floor.max(ack);
                // An ack of before a reset may make a server pass over what it has not delivered since.
                durable.cursor = durable.cursor.max(ack);
                Some(())
            }
            Step::LoseAck(daemon) => state.lose_ack(daemon).map(drop),
            Step::Renew(daemon) => self.renew(daemon, state),
            Step::Probe(daemon) => self.probe(daemon, state),
            Step::Crash(daemon) => {
                let runs = state.daemons[daemon].generation != Generation::Down;
                runs.then(|| state.stop(daemon))
            }
            Step::Replicate => {
                let news = state.failovers_left > 0 && state.standby != state.primary;
                state.standby = news.then_some(state.primary)?;
                Some(())
            }
            Step::FailOver => {
                state.failovers_left = state.failovers_left.checked_sub(1)?;
                state.primary = state.standby;
                if let Some(Open { by: Some(daemon), .. }) = state.open.take() {
                    state.stop(daemon);
                }
                Some(())
            }
        }
    }

    fn place(&self, daemon: usize, state: &mut State) -> Option<()> {
        let Generation::Claimed { epoch, checkpoint } = state.daemons[daemon].generation else { return None };
        let mut batch = std::mem::take(&mut state.daemons[daemon].kept);
        let read = if self.breaks(Mutation::ResumeFromFloor) { state.durable.floor } else { checkpoint };
        batch.to = batch.to.max(read);
        state.daemons[daemon].generation = Generation::Running(Run { epoch, checkpoint, batch, due: 1 });
        if !self.breaks(Mutation::NoReset) {
            state.durable = Durable { cursor: batch.to, delivered: 0, floor: batch.to };
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
        let in_order = consumer_sequence == run.due && sequence > run.batch.to;
        let skipped = sequence > run.batch.to && self.held(run.batch.to, sequence - 1) > 0;
        if !in_order && !self.breaks(Mutation::NoOrder) || skipped && !self.breaks(Mutation::BelieveJumps) {
            state.stop(daemon);
            return Some(());
        }
        run.due = consumer_sequence + 1;
        run.batch.to = run.batch.to.max(sequence);
        if self.kind(sequence) == Kind::Good || !self.breaks(Mutation::NoLetter) {
            run.batch.messages.add(sequence, 1);
        }
        Some(())
    }

    fn begin(&self, daemon: usize, state: &mut State) -> Option<()> {
        let primary = state.primary;
        if state.open.is_some() {
            return None;
        }
        let run = state.run(daemon)?;
        if run.batch.to == run.checkpoint {
            return None;
        }
        let epoch = run.epoch == primary.epoch || self.breaks(Mutation::NoEpoch);
        let sequence = run.checkpoint == primary.checkpoint || self.breaks(Mutation::NoSequence);
        if !epoch || !sequence {
            state.stop(daemon);
            return Some(());
        }
        let open = Open { by: Some(daemon), epoch: run.epoch, batch: run.batch };
        run.batch.messages = Counts::default();
        state.open = Some(open);
        if self.breaks(Mutation::RowsApart) {
            self.store(open.batch.messages, &mut state.primary);
        }
        if self.breaks(Mutation::AckBeforeCommit) {
            state.daemons[daemon].ack = open.batch.to;
        }
        Some(())
    }

    /// What the server does at COMMIT.
    fn commit(&self, state: &mut State) {
        let Some(open) = state.open.take() else { return };
        state.unfenced |= open.epoch != state.primary.epoch;
        if !self.breaks(Mutation::RowsApart) {
            self.store(open.batch.messages, &mut state.primary);
        }
        state.primary.checkpoint = open.batch.to;
        state.highest = state.highest.max(open.batch.to);
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
        if state.open.is_some() {
            return None;
        }
        let run = state.run(daemon)?;
        let sequence = run.checkpoint == primary.checkpoint || self.breaks(Mutation::RenewByEpoch);
        if run.epoch == primary.epoch && sequence {
            return None;
        }
        state.stop(daemon);
        Some(())
    }

    fn probe(&self, daemon: usize, state: &mut State) -> Option<()> {
        let (durable, writes) = (state.durable, state.open.is_some_and(|open| open.by == Some(daemon)));
        let run = state.run(daemon)?;
        let undelivered = durable.delivered >= run.due;
        let done = !undelivered && !writes && run.batch.to == run.checkpoint;
        let skipped = durable.cursor == self.last() && self.held(run.batch.to, self.last()) > 0;
        let full = self.held(durable.floor, durable.cursor) >= self.bounds.window;
        let missing = (undelivered || done && skipped) && !self.breaks(Mutation::NoProbe);
        let unacknowledged = done && full && !self.breaks(Mutation::AcksUnwatched);
        (missing || unacknowledged).then(|| state.stop(daemon))
    }
}
