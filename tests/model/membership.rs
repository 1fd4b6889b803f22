//! Which of two daemons has which of two shards: rows with leases in the database, and a preferred daemon a
//! shard.
//!
//! Guarantees: what the other model leaves to chance. There a second daemon may take over at any time and the
//! compare-and-set keeps the data right; here it is searched that it does so when, and only when, the owner
//! is gone.
//!
//! Time is the database's, in periods of a beat. The database may stall for all, for any time, but answers
//! each living daemon once between two stalls. A living daemon's beat may come one period late.
//!
//! This is ahead of the code, where each shard has a lease of its own.

use crate::Property;
use crate::rules::Mutation;
use crate::search::Model;

/// Periods after the last beat in which a lease lasts.
const LEASE: u8 = 4;

/// How often whoever takes over has renewed its own lease since the other's last beat. Four would not do: one
/// in the same period, one before the database stalls, one after that, and one in the period after that, in
/// which a late beat is still on its way.
const RENEWALS: u8 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Daemon {
    /// Whether it is neither dead, nor frozen, nor cut off from the database.
    lives: bool,
    /// Whether it has beaten in this period.
    beaten: bool,
    /// Whether it has not in the one before.
    late: bool,
    /// Periods since its last beat, as far as one more than [`LEASE`].
    age: u8,
    /// Its beats since the other's last one, as far as [`RENEWALS`].
    renewals: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    daemons: [Daemon; 2],
    stalled: bool,
    /// Whose each shard is. Shard 0 prefers daemon 0, shard 1 daemon 1.
    owners: [Option<usize>; 2],
    /// Whether a shard was taken from a daemon that lives.
    robbed: bool,
}

/// What can happen. The first number is the daemon's, the second the shard's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Renews its lease.
    Beat(usize),
    /// Takes a shard that is nobody's, or whose owner's lease has run out.
    Claim(usize, usize),
    /// Drains a shard that another living daemon is preferred for, and lets it go.
    LetGo(usize, usize),
    /// A period passes.
    Tick,
    /// The database answers nobody any more.
    Stall,
    /// It does again.
    Resume,
    /// The daemon is killed, frozen or cut off.
    Vanish(usize),
    /// It is back, and renews its lease before anything else.
    Return(usize),
}

pub(crate) struct Membership {
    pub(crate) mutation: Mutation,
}

impl Model for Membership {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let daemon = Daemon { lives: true, beaten: false, late: false, age: 0, renewals: 0 };
        State { daemons: [daemon; 2], stalled: false, owners: [None; 2], robbed: false }
    }

    fn steps(&self, state: &State, next: &mut Vec<(Step, State)>) {
        let each = (0..2).flat_map(|daemon| {
            [
                Step::Beat(daemon),
                Step::Claim(daemon, 0),
                Step::Claim(daemon, 1),
                Step::LetGo(daemon, 0),
                Step::LetGo(daemon, 1),
                Step::Vanish(daemon),
                Step::Return(daemon),
            ]
        });
        next.extend(each.chain([Step::Tick, Step::Stall, Step::Resume]).filter_map(|step| {
            let mut after = *state;
            self.take(step, &mut after).then_some((step, after))
        }));
    }

    fn is_fault(&self, step: Step) -> bool {
        matches!(step, Step::Stall | Step::Vanish(_) | Step::Return(_))
    }

    fn broken(&self, state: &State) -> Vec<Property> {
        let mut broken = Vec::new();
        if state.robbed {
            broken.push(Property::TheLivingKeep);
        }
        let mut next = Vec::new();
        self.steps(state, &mut next);
        let moves = next.iter().any(|(_, after)| after.owners != state.owners);
        if self.done(state) && state.daemons.iter().all(|daemon| daemon.lives) && moves {
            broken.push(Property::Steady);
        }
        broken
    }

    /// Whether each shard is where it should be, of the daemons that live.
    fn done(&self, state: &State) -> bool {
        let lives = state.daemons.map(|daemon| daemon.lives);
        let right = |shard: usize| if lives[shard] { shard } else { 1 - shard };
        let none = lives == [false; 2];
        none || (0..2).all(|shard| state.owners[shard] == Some(right(shard)))
    }
}

impl Membership {
    /// Takes a step; false where it is not possible now.
    fn take(&self, step: Step, state: &mut State) -> bool {
        match step {
            Step::Beat(daemon) => state.beat(daemon),
            Step::Claim(daemon, shard) => self.claim(daemon, shard, state),
            Step::LetGo(daemon, shard) => {
                let wanted = shard != daemon && !self.has_run_out(1 - daemon, state);
                let may = state.may_act(daemon) && state.owners[shard] == Some(daemon) && wanted;
                if may {
                    state.owners[shard] = None;
                }
                may && self.mutation != Mutation::NoLetGo
            }
            Step::Tick => state.tick(),
            Step::Stall => {
                let heard = state.daemons.iter().all(|daemon| !daemon.lives || daemon.age <= 1);
                heard && !std::mem::replace(&mut state.stalled, true)
            }
            Step::Resume => std::mem::replace(&mut state.stalled, false),
            Step::Vanish(daemon) => std::mem::replace(&mut state.daemons[daemon].lives, false),
            Step::Return(daemon) => {
                !std::mem::replace(&mut state.daemons[daemon].lives, true) && state.beat(daemon)
            }
        }
    }

    /// Whether a daemon is gone, as the other sees it.
    fn has_run_out(&self, daemon: usize, state: &State) -> bool {
        let renewals = match self.mutation {
            Mutation::LeaseByClock => 0,
            Mutation::FewRenewals => RENEWALS - 1,
            _ => RENEWALS,
        };
        state.daemons[daemon].age > LEASE && state.daemons[1 - daemon].renewals >= renewals
    }

    fn claim(&self, daemon: usize, shard: usize, state: &mut State) -> bool {
        let other = 1 - daemon;
        let gone = self.has_run_out(other, state);
        let may = match state.owners[shard] {
            None => shard == daemon || gone && self.mutation != Mutation::PreferredOnly,
            Some(owner) => owner == other && gone,
        };
        if !may || !state.may_act(daemon) {
            return false;
        }
        state.robbed |= state.owners[shard] == Some(other) && state.daemons[other].lives;
        state.owners[shard] = Some(daemon);
        true
    }
}

impl State {
    fn may_act(&self, daemon: usize) -> bool {
        self.daemons[daemon].lives && self.daemons[daemon].age == 0 && !self.stalled
    }

    fn beat(&mut self, daemon: usize) -> bool {
        let beats = &mut self.daemons[daemon];
        if !beats.lives || beats.beaten || self.stalled {
            return false;
        }
        (beats.beaten, beats.late, beats.age) = (true, false, 0);
        beats.renewals = (beats.renewals + 1).min(RENEWALS);
        self.daemons[1 - daemon].renewals = 0;
        true
    }

    fn tick(&mut self) -> bool {
        let in_time = |daemon: &Daemon| daemon.beaten || !daemon.late || !daemon.lives;
        if !self.stalled && !self.daemons.iter().all(in_time) {
            return false;
        }
        for daemon in &mut self.daemons {
            daemon.late |= !daemon.beaten && !self.stalled;
            daemon.beaten = false;
            daemon.age = (daemon.age + 1).min(LEASE + 1);
        }
        true
    }
}
