//! What can go wrong, and how it is drawn.

use std::fmt;
use std::time::Duration;

use jetcopy::private::Stop;

use crate::support::{Fault as Spoil, Lose, Way};

#[path = "../../../benches/store/splitmix.rs"]
mod splitmix;

use splitmix::SplitMix64;

/// A fault; what it is about comes first, since two that last at the same time are about different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Daemons(Whose, Blow),
    Postgres(PostgresFault),
    Nats(NatsFault),
    /// So many messages that are cut short.
    Poison(u32),
}

/// Which of the two daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    First,
    Second,
    Both,
}

/// What happens to a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    Kill,
    Terminate,
    Freeze,
}

/// What happens to PostgreSQL or on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostgresFault {
    Down(Stop),
    /// The standby is cut off, the daemons go on, and then it takes the primary's place.
    Failover,
    TerminateBackends,
    LockTable,
    LockCheckpoint,
    LoseCommit(Lose),
    Way(WayFault),
}

/// What happens to NATS or on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NatsFault {
    /// In order: a server that is killed may forget what it acknowledged, which is a loss and no fault of jetcopy's.
    Down,
    DeleteConsumer,
    Way(WayFault),
}

/// What happens on the way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayFault {
    Reset,
    Refuse,
    Spoil(Way, Spoil),
}

/// Faults that last at the same time, for how long, and how long nothing else happens then.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) faults: Vec<Fault>,
    pub(super) hold: Duration,
    pub(super) rest: Duration,
}

/// Random numbers from a seed: the same on every machine and with every version of every library.
pub(super) struct Dice(SplitMix64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// A number from `from` to below `to`.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.next() % (to - from)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.0.next() % choices.len() as u64).unwrap()]
    }
}

impl Step {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut faults = vec![Fault::draw(dice)];
        // Every third time two things go wrong at once.
        if dice.between(0, 3) == 0 {
            let second = Fault::draw(dice);
            if std::mem::discriminant(&second) != std::mem::discriminant(&faults[0]) {
                faults.push(second);
            }
            // Daemons last: their end may need the servers back.
            faults.sort_by_key(|fault| matches!(fault, Fault::Daemons(..)));
        }
        let freezes = faults.iter().any(|fault| matches!(fault, Fault::Daemons(_, Blow::Freeze)));
        // A frozen daemon loses its shard after ten seconds: some freeze for less, some for more.
        let hold = if freezes { dice.millis(500, 14_000) } else { dice.millis(20, 3_000) };
        Self { faults, hold, rest: dice.millis(0, 1_500) }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|fault| format!("{fault:?}")).collect();
        write!(f, "{} for {:?}, then {:?} of peace", faults.join(" and "), self.hold, self.rest)
    }
}

impl Fault {
    fn draw(dice: &mut Dice) -> Self {
        match dice.between(0, 10) {
            0..3 => Self::Daemons(
                dice.one_of(&[Whose::First, Whose::Second, Whose::Both]),
                dice.one_of(&[Blow::Kill, Blow::Terminate, Blow::Freeze]),
            ),
            3..6 => Self::Postgres(PostgresFault::draw(dice)),
            6..9 => Self::Nats(NatsFault::draw(dice)),
            _ => Self::Poison(u32::try_from(dice.between(1, 500)).unwrap()),
        }
    }
}

impl PostgresFault {
    fn draw(dice: &mut Dice) -> Self {
        match dice.between(0, 12) {
            10.. => Self::Failover,
            0..3 => Self::Down(dice.one_of(&[Stop::Fast, Stop::Immediate, Stop::Kill])),
            3 => Self::TerminateBackends,
            4 => Self::LockTable,
            5 => Self::LockCheckpoint,
            6 | 7 => Self::LoseCommit(dice.one_of(&[Lose::Request, Lose::Reply])),
            _ => Self::Way(WayFault::draw(dice)),
        }
    }
}

impl NatsFault {
    fn draw(dice: &mut Dice) -> Self {
        match dice.between(0, 6) {
            0 => Self::Down,
            1 => Self::DeleteConsumer,
            _ => Self::Way(WayFault::draw(dice)),
        }
    }
}

impl WayFault {
    fn draw(dice: &mut Dice) -> Self {
        let way = dice.one_of(&[Way::ToServer, Way::ToClient]);
        match dice.between(0, 6) {
            0 => Self::Reset,
            1 => Self::Refuse,
            2 => Self::Spoil(way, Spoil::Swallow),
            3 => Self::Spoil(way, Spoil::Delay(dice.millis(5, 400))),
            4 => Self::Spoil(way, Spoil::Throttle(u32::try_from(dice.between(1_000, 200_000)).unwrap())),
            _ => Self::Spoil(way, Spoil::CutAfter(usize::try_from(dice.between(1, 100_000)).unwrap())),
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_faults() {
    let draw = |seed| {
        let mut dice = Dice::new(seed);
        (0..50).map(|_| Step::draw(&mut dice).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}
