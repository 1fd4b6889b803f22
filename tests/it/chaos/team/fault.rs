//! What can happen to a team, and how it is drawn.

use std::fmt;
use std::time::Duration;

use jetcopy::testbed::Stop;

use super::super::dice::Dice;
use super::super::fault::Blow;

/// Daemons that are always there, but for what is done to them.
pub(super) const DAEMONS: usize = 3;

/// Servers of the NATS cluster.
pub(super) const SERVERS: usize = 3;

/// Something that happens, lasts, and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// What happens to one of the daemons; in the end it is there again.
    Daemon(usize, Blow),
    /// One more daemon is there, and ends like this.
    Added(Blow),
    /// A daemon gives all its shards away.
    Drained(usize),
    /// A NATS server ends.
    Server(usize, Stop),
    /// All NATS servers but this one end: nobody stores or delivers anything.
    AllBut(usize, Stop),
    Pooler(Stop),
    Primary(Stop),
    /// The standby is cut off, the daemons go on, and then it takes the primary's place.
    Failover,
    /// The daemons that reach the primary without the pooler are cut off from it: half-open.
    CutOff,
    /// All sessions of daemons at the primary end.
    Sessions,
}

/// Of what something is a fault: two that last together are about different things.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Daemons,
    Nats,
    Postgres,
}

/// Faults that last at the same time, for how long, and how long nothing else happens then.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) faults: Vec<Fault>,
    pub(super) hold: Duration,
    pub(super) rest: Duration,
}

impl Step {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut faults = vec![Fault::draw(dice)];
        // Every third time two things go wrong at once.
        if dice.between(0, 3) == 0 {
            let second = Fault::draw(dice);
            if second.kind() != faults[0].kind() {
                faults.push(second);
            }
        }
        // What needs the servers begins before what is done to them, and ends after it.
        faults.sort_by_key(|fault| fault.kind() != Kind::Daemons);
        // A lease lasts four seconds: some faults last for less, some for more.
        Self { faults, hold: dice.millis(50, 9_000), rest: dice.millis(0, 4_000) }
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
        let stops = [Stop::Fast, Stop::Immediate, Stop::Kill];
        let daemon = usize::try_from(dice.between(0, DAEMONS as u64)).unwrap();
        let server = usize::try_from(dice.between(0, SERVERS as u64)).unwrap();
        let stop = dice.one_of(&stops);
        match dice.between(0, 16) {
            0..=4 => Self::Daemon(daemon, dice.one_of(&[Blow::Kill, Blow::Terminate, Blow::Freeze])),
            5 => Self::Added(dice.one_of(&[Blow::Kill, Blow::Terminate])),
            6 | 7 => Self::Drained(daemon),
            8 | 9 => Self::Server(server, stop),
            10 => Self::AllBut(server, stop),
            11 => Self::Pooler(stop),
            12 => Self::Primary(stop),
            13 => Self::Failover,
            14 => Self::CutOff,
            _ => Self::Sessions,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Daemon(..) | Self::Added(_) | Self::Drained(_) => Kind::Daemons,
            Self::Server(..) | Self::AllBut(..) => Kind::Nats,
            Self::Pooler(_) | Self::Primary(_) | Self::Failover | Self::CutOff | Self::Sessions => {
                Kind::Postgres
            }
        }
    }
}
