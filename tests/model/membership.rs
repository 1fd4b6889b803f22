//! Which of two daemons has which of two shards: rows with leases in the database, and each shard with the
//! daemon that has the fewest.
//!
//! Guarantees: what the other model leaves to chance. There a second daemon may take over at any time and the
//! compare-and-set keeps the data right; here it is searched that it does so when, and only when, the owner
//! is gone.
//!
//! Time is the database's, in periods of a beat. The database may stall for all, for any time, but answers
//! each living daemon once between two stalls. A living daemon's beat may come one period late. The server
//! may end all sessions, as a restart does.
//!
//! Left out: a living daemon that alone loses all of its sessions at once. It is cut off, and may be robbed.

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
#[expect(clippy::struct_excessive_bools, reason = "what is and what is not, each by itself")]
struct Daemon {
    /// Whether it is neither dead, nor frozen, nor cut off from the database.
    lives: bool,
    /// Whether it has a row.
    listed: bool,
    /// Whether the server has a session of it.
    sessions: bool,
    /// Its beats in the session that it has, as far as [`RENEWALS`].
    settled: u8,
    /// Whether it is to give its shards away.
    drained: bool,
    /// Whether it has beaten in this period.
    beaten: bool,
    /// Whether it has not in the one before.
    late: bool,
    /// Periods since its last beat, as far as one more than [`LEASE`].
    age: u8,
    /// Its beats since the other's last one, as far as [`RENEWALS`].
    renewals: u8,
    /// Whether it has found the other gone, and is about to remove its row.
    judges: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    daemons: [Daemon; 2],
    stalled: bool,
    /// Whose each shard is. Where both have as many, shard 0 is for daemon 0 and shard 1 for daemon 1.
    owners: [Option<usize>; 2],
    /// Whether the row of a daemon that lives was removed.
    robbed: bool,
}

/// What can happen. The first number is the daemon's, the second the shard's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Renews its lease.
    Beat(usize),
    /// Finds the other gone.
    Judge(usize),
    /// Removes the other's row, if it is still as it was then.
    Expel(usize),
    /// Takes a shard that is nobody's, or whose owner has no row.
    Claim(usize, usize),
    /// Drains a shard that another living daemon should have, and lets it go.
    LetGo(usize, usize),
    /// A period passes.
    Tick,
    /// The database answers nobody any more.
    Stall,
    /// It does again.
    Resume,
    /// The server ends all sessions.
    Restart,
    /// The daemon is killed: its sessions end.
    Die(usize),
    /// The daemon is frozen or cut off: they stay.
    Vanish(usize),
    /// It is back, and renews its lease before anything else.
    Return(usize),
    /// An operator drains the first daemon, or takes that back.
    Drain,
}

pub(crate) struct Membership {
    pub(crate) mutation: Mutation,
}

impl Model for Membership {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let daemon = Daemon {
            lives: true,
            listed: true,
            sessions: true,
            settled: 0,
            drained: false,
            beaten: false,
            late: false,
            age: 0,
            renewals: 0,
            judges: false,
        };
        State { daemons: [daemon; 2], stalled: false, owners: [None; 2], robbed: false }
    }

    fn steps(&self, state: &State, next: &mut Vec<(Step, State)>) {
        let each = (0..2).flat_map(|daemon| {
            [
                Step::Beat(daemon),
                Step::Judge(daemon),
                Step::Expel(daemon),
                Step::Claim(daemon, 0),
                Step::Claim(daemon, 1),
                Step::LetGo(daemon, 0),
                Step::LetGo(daemon, 1),
                Step::Die(daemon),
                Step::Vanish(daemon),
                Step::Return(daemon),
            ]
        });
        let others = [Step::Tick, Step::Stall, Step::Resume, Step::Restart, Step::Drain];
        next.extend(each.chain(others).filter_map(|step| {
            let mut after = *state;
            self.take(step, &mut after).then_some((step, after))
        }));
    }

    fn is_fault(&self, step: Step) -> bool {
        matches!(
            step,
            Step::Stall | Step::Restart | Step::Die(_) | Step::Vanish(_) | Step::Return(_) | Step::Drain
        )
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
        let serves = [0, 1].map(|daemon| lives[daemon] && !state.daemons[daemon].drained);
        let held = [0, 1].map(|daemon| state.held(daemon));
        match (lives, serves) {
            ([false, false], _) => true,
            ([true, true], [true, true]) => held == [1, 1],
            // Who is drained keeps what nobody else can have; both keep what they have.
            ([true, true], [false, false]) => held[0] + held[1] == 2,
            ([true, _], [true, _]) | ([true, false], _) => held[0] == 2,
            ([_, true], _) => held[1] == 2,
        }
    }
}

impl Membership {
    /// Takes a step; false where it is not possible now.
    fn take(&self, step: Step, state: &mut State) -> bool {
        match step {
            Step::Beat(daemon) => self.beat(daemon, state),
            Step::Judge(daemon) => {
                let may = state.may_act(daemon) && self.is_gone(1 - daemon, state);
                may && !std::mem::replace(&mut state.daemons[daemon].judges, true)
            }
            Step::Expel(daemon) => {
                let other = 1 - daemon;
                if !state.may_act(daemon) || !std::mem::take(&mut state.daemons[daemon].judges) {
                    return false;
                }
                state.robbed |= state.daemons[other].lives;
                std::mem::take(&mut state.daemons[other].listed)
            }
            Step::Claim(daemon, shard) => self.claim(daemon, shard, state),
            Step::LetGo(daemon, shard) => {
                let other = 1 - daemon;
                let drains = state.daemons[daemon].drained && self.mutation != Mutation::NoDrain;
                let too_many = drains || state.held(daemon) >= state.held(other) + 2;
                let wanted = too_many && state.serves(other);
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
            Step::Restart => {
                for daemon in &mut state.daemons {
                    (daemon.sessions, daemon.settled) = (false, 0);
                }
                true
            }
            Step::Die(daemon) => {
                (state.daemons[daemon].sessions, state.daemons[daemon].settled) = (false, 0);
                std::mem::replace(&mut state.daemons[daemon].lives, false)
            }
            Step::Vanish(daemon) => std::mem::replace(&mut state.daemons[daemon].lives, false),
            Step::Return(daemon) => {
                !std::mem::replace(&mut state.daemons[daemon].lives, true) && self.beat(daemon, state)
            }
            Step::Drain => {
                let drained = &mut state.daemons[0].drained;
                *drained = !*drained;
                true
            }
        }
    }

    fn beat(&self, daemon: usize, state: &mut State) -> bool {
        let beats = &mut state.daemons[daemon];
        if !beats.lives || beats.beaten || state.stalled {
            return false;
        }
        (beats.beaten, beats.late, beats.age) = (true, false, 0);
        (beats.listed, beats.sessions) = (true, true);
        beats.renewals = (beats.renewals + 1).min(RENEWALS);
        beats.settled = (beats.settled + 1).min(RENEWALS);
        let other = &mut state.daemons[1 - daemon];
        other.renewals = 0;
        // The row is no longer as it was.
        other.judges &= self.mutation == Mutation::ExpelBlindly;
        true
    }

    /// Whether a daemon is gone, as the other sees it.
    fn is_gone(&self, daemon: usize, state: &State) -> bool {
        let (seen, by) = (state.daemons[daemon], state.daemons[1 - daemon]);
        let renewals = match self.mutation {
            Mutation::LeaseByClock => 0,
            Mutation::FewRenewals => RENEWALS - 1,
            _ => RENEWALS,
        };
        let settled = by.settled >= RENEWALS || self.mutation == Mutation::Unsettled;
        let ended = !seen.sessions && settled;
        seen.listed && (ended || seen.age > LEASE && by.renewals >= renewals)
    }

    fn claim(&self, daemon: usize, shard: usize, state: &mut State) -> bool {
        let chosen = match self.mutation {
            Mutation::PreferredOnly => shard,
            _ => state.assigned(shard),
        };
        let may = state.is_free(shard) && chosen == daemon && state.may_act(daemon);
        if may {
            state.owners[shard] = Some(daemon);
        }
        may
    }
}

impl State {
    fn may_act(&self, daemon: usize) -> bool {
        let Daemon { lives, listed, age, .. } = self.daemons[daemon];
        lives && listed && age == 0 && !self.stalled
    }

    /// Whether a shard is nobody's, or its owner has no row.
    fn is_free(&self, shard: usize) -> bool {
        self.owners[shard].is_none_or(|owner| !self.daemons[owner].listed)
    }

    /// Shards that a daemon with a row has.
    fn held(&self, daemon: usize) -> usize {
        let own = self.owners.iter().filter(|owner| **owner == Some(daemon)).count();
        if self.daemons[daemon].listed { own } else { 0 }
    }

    /// Whether shards may be given to it.
    fn serves(&self, daemon: usize) -> bool {
        self.daemons[daemon].listed && !self.daemons[daemon].drained
    }

    /// Who is to take a free shard: of those that serve, or else of those that have a row, the one with the
    /// fewest, once the free ones before it are given out.
    fn assigned(&self, shard: usize) -> usize {
        let mut held = [0, 1].map(|daemon| self.held(daemon));
        let mut may = [0, 1].map(|daemon| self.serves(daemon));
        if may == [false; 2] {
            may = self.daemons.map(|daemon| daemon.listed);
        }
        let mut last = shard;
        for free in (0..=shard).filter(|&shard| self.is_free(shard)) {
            last = match may {
                [true, false] => 0,
                [false, true] => 1,
                _ if held[0] == held[1] => free,
                _ => usize::from(held[1] < held[0]),
            };
            held[last] += 1;
        }
        last
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
