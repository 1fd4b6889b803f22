//! What can go wrong, and how it is drawn.

use std::fmt;
use std::time::Duration;

use jetcopy::testbed::Stop;

use super::dice::Dice;
use crate::support::{Fault as Spoil, Lose, Way};

/// What a fault is about; two that last at the same time are about different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Daemons,
    Postgres,
    Nats,
    Poison,
    Durable,
    Table,
    Unreadable,
    Huge,
    Limits,
}

/// What is drawn from, as often as it is named.
pub(super) const DRAWN: &[Kind] = &[
    Kind::Daemons,
    Kind::Daemons,
    Kind::Daemons,
    Kind::Postgres,
    Kind::Postgres,
    Kind::Postgres,
    Kind::Nats,
    Kind::Nats,
    Kind::Nats,
    Kind::Durable,
    Kind::Durable,
    Kind::Table,
    Kind::Table,
    Kind::Poison,
    Kind::Unreadable,
    Kind::Huge,
    Kind::Limits,
];

/// All kinds by the names under which `KINDS=` picks them.
pub(super) const NAMED: &[(&str, Kind)] = &[
    ("daemons", Kind::Daemons),
    ("postgres", Kind::Postgres),
    ("nats", Kind::Nats),
    ("poison", Kind::Poison),
    ("durable", Kind::Durable),
    ("table", Kind::Table),
    ("unreadable", Kind::Unreadable),
    ("huge", Kind::Huge),
    ("limits", Kind::Limits),
];

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Daemons(Whose, Blow),
    Postgres(PostgresFault),
    Nats(NatsFault),
    /// So many messages that are cut short.
    Poison(u32),
    Durable(DurableFault),
    Table(TableFault),
    /// So many messages that the client library cannot read.
    Unreadable(Unreadable, u32),
    Huge(Huge),
    Limits(Limit),
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
    /// In order: a server that is killed may forget what it acknowledged, which is a loss and no fault of
    /// jetcopy's.
    Down,
    Way(WayFault),
}

/// What somebody does to the durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DurableFault {
    Delete,
    /// It delivers every other message only, until the filter is taken away.
    Filter,
    /// It delivers messages without what they carry, until that is taken back.
    HeadersOnly,
    MaxAckPending(u32),
    /// It delivers again what is not acknowledged yet.
    AckWait,
    /// It stands so many sequences after the checkpoint.
    Reset(u32),
    /// Another client takes messages, and acknowledges them later.
    SecondPuller,
}

/// What an owner does to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableFault {
    /// A column of numbers gets this type, and its own again.
    Id(&'static str),
    /// A column of text gets this type, and its own again.
    Note(&'static str),
    /// A column comes for a field that messages have, and goes.
    Add,
    /// A column goes that messages have a field for, and comes again.
    Drop,
    /// The same by another name.
    Rename,
    /// The one that the mapping names is called otherwise for a while.
    RenameMapped,
    /// Another table takes its place, with its columns in another order.
    Exchange,
    /// A column that no message has a field for gets the next default.
    Default,
    /// A column takes nulls for a while.
    Null,
}

/// What is wrong with the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Headers without their first line.
    Headers,
    /// Headers of another version.
    Version,
    /// The value of a header is not UTF-8.
    Value,
    /// The subject is not UTF-8.
    Subject,
}

/// A message as large as the server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Huge {
    /// It is a row.
    Row,
    /// It would become hundreds of megabytes, so it is a dead letter.
    Amplifying,
}

/// A setting that the role of the daemons gets, as an administrator gives it to all who linger; in
/// milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(pub(super) &'static str, pub(super) u32);

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
    /// In the order in which they begin: what needs the servers before what is done to them.
    pub(super) faults: Vec<Fault>,
    pub(super) hold: Duration,
    pub(super) rest: Duration,
}

impl Step {
    pub(super) fn draw(dice: &mut Dice, from: &[Kind]) -> Self {
        let mut faults = vec![Fault::draw(dice, from)];
        // Every third time two things go wrong at once.
        if dice.between(0, 3) == 0 {
            let second = Fault::draw(dice, from);
            if second.goes_with(&faults[0]) {
                faults.push(second);
            }
            faults.sort_by_key(Fault::begins);
        }
        let freezes = faults.iter().any(|fault| matches!(fault, Fault::Daemons(_, Blow::Freeze)));
        // A frozen daemon loses its shard after ten seconds: some freeze for less, some for more.
        let hold = if freezes { dice.millis(500, 14_000) } else { dice.millis(20, 3_000) };
        Self { faults, hold, rest: dice.millis(0, 1_500) }
    }

    /// The faults in the order in which they end.
    pub(super) fn ends(&self) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        faults.sort_by_key(Fault::ends);
        faults
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|fault| format!("{fault:?}")).collect();
        write!(f, "{} for {:?}, then {:?} of peace", faults.join(" and "), self.hold, self.rest)
    }
}

impl Fault {
    fn draw(dice: &mut Dice, from: &[Kind]) -> Self {
        match dice.one_of(from) {
            Kind::Daemons => Self::Daemons(
                dice.one_of(&[Whose::First, Whose::Second, Whose::Both]),
                dice.one_of(&[Blow::Kill, Blow::Terminate, Blow::Freeze]),
            ),
            Kind::Postgres => Self::Postgres(PostgresFault::draw(dice)),
            Kind::Nats => Self::Nats(NatsFault::draw(dice)),
            Kind::Poison => Self::Poison(dice.small(1, 500)),
            Kind::Durable => Self::Durable(DurableFault::draw(dice)),
            Kind::Table => Self::Table(TableFault::draw(dice)),
            Kind::Unreadable => Self::Unreadable(
                dice.one_of(&[
                    Unreadable::Headers,
                    Unreadable::Version,
                    Unreadable::Value,
                    Unreadable::Subject,
                ]),
                dice.small(1, 4),
            ),
            Kind::Huge => Self::Huge(dice.one_of(&[Huge::Row, Huge::Amplifying])),
            Kind::Limits => Self::Limits(Limit(
                dice.one_of(&[
                    "statement_timeout",
                    "idle_in_transaction_session_timeout",
                    "idle_session_timeout",
                    "lock_timeout",
                ]),
                dice.small(1, 60),
            )),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Daemons(..) => Kind::Daemons,
            Self::Postgres(_) => Kind::Postgres,
            Self::Nats(_) => Kind::Nats,
            Self::Poison(_) => Kind::Poison,
            Self::Durable(_) => Kind::Durable,
            Self::Table(_) => Kind::Table,
            Self::Unreadable(..) => Kind::Unreadable,
            Self::Huge(_) => Kind::Huge,
            Self::Limits(_) => Kind::Limits,
        }
    }

    /// Whether both may last at the same time. The arena's own sessions have the role's limits, too, so that
    /// it could not bring its servers back.
    fn goes_with(&self, other: &Self) -> bool {
        let kinds = [self.kind(), other.kind()];
        kinds[0] != kinds[1] && !(kinds.contains(&Kind::Limits) && kinds.contains(&Kind::Postgres))
    }

    fn begins(&self) -> u32 {
        match self.kind() {
            Kind::Poison | Kind::Durable | Kind::Table | Kind::Unreadable | Kind::Huge | Kind::Limits => 0,
            Kind::Postgres | Kind::Nats => 1,
            Kind::Daemons => 2,
        }
    }

    fn ends(&self) -> u32 {
        match self.kind() {
            // What a frozen daemon has locked, somebody waits for.
            Kind::Daemons if matches!(self, Self::Daemons(_, Blow::Freeze)) => 0,
            Kind::Postgres | Kind::Nats => 1,
            Kind::Poison | Kind::Durable | Kind::Table | Kind::Unreadable | Kind::Huge | Kind::Limits => 2,
            // Their end needs the servers.
            Kind::Daemons => 3,
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
        match dice.between(0, 5) {
            0 => Self::Down,
            _ => Self::Way(WayFault::draw(dice)),
        }
    }
}

impl DurableFault {
    fn draw(dice: &mut Dice) -> Self {
        match dice.between(0, 8) {
            0 => Self::Delete,
            1 | 2 => Self::Filter,
            3 => Self::HeadersOnly,
            4 => Self::MaxAckPending(dice.small(1, 20_000)),
            5 => Self::AckWait,
            6 => Self::Reset(dice.small(1, 2_000)),
            _ => Self::SecondPuller,
        }
    }
}

impl TableFault {
    fn draw(dice: &mut Dice) -> Self {
        match dice.between(0, 12) {
            0..3 => Self::Id(dice.one_of(&["double precision", "integer", "numeric", "real"])),
            3 => Self::Note(dice.one_of(&["jsonb", "varchar", "character(40)"])),
            4 => Self::Add,
            5 => Self::Drop,
            6 => Self::Rename,
            7 => Self::RenameMapped,
            8 | 9 => Self::Exchange,
            10 => Self::Default,
            _ => Self::Null,
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
            4 => Self::Spoil(way, Spoil::Throttle(dice.small(1_000, 200_000))),
            _ => Self::Spoil(way, Spoil::CutAfter(usize::try_from(dice.between(1, 100_000)).unwrap())),
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_faults() {
    let draw = |seed| {
        let mut dice = Dice::new(seed);
        (0..50).map(|_| Step::draw(&mut dice, DRAWN).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn every_kind_of_fault_is_drawn_by_its_name() {
    for &(name, kind) in NAMED {
        let step = Step::draw(&mut Dice::new(1), &[kind]);
        assert!(step.faults.iter().all(|fault| fault.kind() == kind), "{name}: {step}");
    }
}
