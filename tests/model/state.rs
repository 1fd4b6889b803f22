//! What there is at one moment: the databases, the durable, the daemons, and what is under way between them.
//!
//! Guarantees: two states that differ in nothing that any step looks at are equal, so that there are finitely
//! many.

/// How often each message is in something, as far as 3: two bits a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Counts(u16);

impl Counts {
    pub(crate) fn of(self, sequence: u8) -> u16 {
        self.0 >> (2 * (sequence - 1)) & 3
    }

    pub(crate) fn add(&mut self, sequence: u8, times: u16) {
        let more = (self.of(sequence) + times).min(3) - self.of(sequence);
        self.0 += more << (2 * (sequence - 1));
    }
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = (1..=8).map(|sequence| (sequence, self.of(sequence)));
        f.debug_map().entries(counts.filter(|&(_, count)| count > 0)).finish()
    }
}

/// The most writers that a shard has.
pub(crate) const LANES: usize = 2;

/// One value for each lane; where there is one writer, the second is never used.
pub(crate) type PerLane<T> = [T; LANES];

/// What a server has committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Database {
    pub(crate) epoch: u8,
    /// The daemon that claimed it: the code's epochs, which are drawn at random, tell that too.
    pub(crate) owner: Option<usize>,
    pub(crate) lanes: Lanes,
    pub(crate) rows: Counts,
    pub(crate) letters: Counts,
    /// Messages that closed seals count, and that the open one of each lane does.
    pub(crate) sealed: u8,
    pub(crate) open: PerLane<u8>,
}

/// How messages are shared out among writers, and what each has committed of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Lanes {
    /// One less than there are writers.
    pub(crate) more: u8,
    pub(crate) checkpoints: PerLane<u8>,
}

/// Messages on their way into the database, and the last of their sequences.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Batch {
    pub(crate) to: u8,
    pub(crate) messages: Counts,
}

/// The transaction that holds the lock on a checkpoint's row: its compare-and-set matched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Open {
    /// The daemon; `None` where it sent COMMIT and the connection was lost, which leaves the outcome open.
    pub(crate) by: Option<usize>,
    /// The claim that it writes under: the epoch, and whose it is.
    pub(crate) epoch: u8,
    pub(crate) owner: usize,
    pub(crate) batch: Batch,
    /// Whether it closes a seal first, and what it then says was committed since.
    pub(crate) seals: bool,
    pub(crate) counted: u8,
}

/// The durable consumer. `AckPolicy::All`: an ack counts for all that was delivered before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Durable {
    /// The stream sequence that was delivered last.
    pub(crate) cursor: u8,
    /// The consumer sequence of that.
    pub(crate) delivered: u8,
    pub(crate) floor: u8,
}

/// A delivery that was lost on the way, and may still arrive, at anybody, any number of times.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Stray {
    pub(crate) consumer_sequence: u8,
    pub(crate) sequence: u8,
}

/// What a daemon knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Generation {
    /// None runs: it crashed, or failed and backs off.
    Down,
    /// The shard is claimed, the durable not yet placed.
    Claimed { epoch: u8, lanes: Lanes, more: u8 },
    /// It reads, and writes what it has read.
    Running(Run),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Run {
    pub(crate) epoch: u8,
    /// What is committed, as far as it knows.
    pub(crate) lanes: Lanes,
    /// How many writers more than one the configuration asks for.
    pub(crate) more: u8,
    /// The last sequence that it has read.
    pub(crate) read: u8,
    /// What it has read that is in no transaction; `to` is the lane's last sequence up to `read`, in any
    /// case.
    pub(crate) batches: PerLane<Batch>,
    /// The messages that each lane has committed since its last seal.
    pub(crate) counted: PerLane<u8>,
    /// The consumer sequence that is due next.
    pub(crate) due: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Daemon {
    pub(crate) generation: Generation,
    /// An ack on its way to the server, 0 for none. It may come late, also when the durable was reset
    /// meanwhile.
    pub(crate) ack: u8,
    /// The batch whose COMMIT was not answered: of `Mutation::RetryInDoubt` alone.
    pub(crate) kept: PerLane<Batch>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) primary: Database,
    /// By lane.
    pub(crate) open: PerLane<Option<Open>>,
    /// As much of the primary's history as was replicated.
    pub(crate) standby: Database,
    pub(crate) durable: Durable,
    pub(crate) daemons: [Daemon; 2],
    pub(crate) stray: Option<Stray>,
    pub(crate) failovers_left: u8,
    pub(crate) strays_left: u8,
    pub(crate) resizes_left: u8,
    /// How many writers more than one the configuration asks for now.
    pub(crate) more: u8,
    /// The highest floor that any primary has committed. Nobody in the protocol knows it.
    pub(crate) highest: u8,
    /// Whether something was committed under an epoch that had been taken.
    pub(crate) unfenced: bool,
}

impl State {
    pub(crate) fn run(&mut self, daemon: usize) -> Option<&mut Run> {
        match &mut self.daemons[daemon].generation {
            Generation::Running(run) => Some(run),
            Generation::Down | Generation::Claimed { .. } => None,
        }
    }

    /// Whether the lease is this living daemon's.
    pub(crate) fn is_held_by(&self, daemon: usize) -> bool {
        let Database { epoch, owner, .. } = self.primary;
        self.daemons[daemon].generation.epoch() == Some(epoch) && owner == Some(daemon)
    }

    pub(crate) fn claim(&mut self, daemon: usize) -> Option<()> {
        // It waits for whoever has locked a row: a commit in doubt is seen.
        if self.daemons[daemon].generation != Generation::Down || self.is_writing() {
            return None;
        }
        // A failover may have lost the claim of the same number.
        self.primary.epoch += 1;
        self.primary.owner = Some(daemon);
        let Database { epoch, lanes, .. } = self.primary;
        self.daemons[daemon].generation = Generation::Claimed { epoch, lanes, more: self.more };
        Some(())
    }

    /// Ends a generation, and its session with it.
    pub(crate) fn stop(&mut self, daemon: usize) {
        self.daemons[daemon].generation = Generation::Down;
        self.open = self.open.map(|open| open.filter(|open| open.by != Some(daemon)));
    }

    /// Whether a transaction is open on the shard.
    pub(crate) fn is_writing(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Whether one of this daemon's is.
    pub(crate) fn writes(&self, daemon: usize) -> bool {
        self.open.iter().flatten().any(|open| open.by == Some(daemon))
    }

    pub(crate) fn lose_ack(&mut self, daemon: usize) -> Option<u8> {
        let ack = std::mem::take(&mut self.daemons[daemon].ack);
        (ack > 0).then_some(ack)
    }

    /// Makes states equal that differ in nothing that matters, so that there are few: which daemon is the
    /// first, what no failover will bring back, and how far apart epochs are.
    pub(crate) fn forget_what_makes_no_difference(&mut self) {
        if self.failovers_left == 0 {
            self.standby = Database::default();
            (self.standby.epoch, self.standby.owner) = (self.primary.epoch, self.primary.owner);
        }
        if self.daemons[1] < self.daemons[0] {
            self.daemons.swap(0, 1);
            for open in self.open.iter_mut().flatten() {
                open.owner = 1 - open.owner;
                open.by = open.by.map(|daemon| 1 - daemon);
            }
            for owner in [&mut self.primary.owner, &mut self.standby.owner] {
                *owner = owner.map(|daemon| 1 - daemon);
            }
        }
        // Epochs are compared, and one more is taken: a distance of two stands for all above.
        let mut epochs = [self.primary.epoch; 6];
        let mut index = 0;
        self.each_epoch(|epoch| {
            epochs[index] = *epoch;
            index += 1;
        });
        epochs.sort_unstable();
        let mut closer = [0; 6];
        for index in 1..6 {
            closer[index] = closer[index - 1] + (epochs[index] - epochs[index - 1]).min(2);
        }
        self.each_epoch(|epoch| {
            let index = epochs.iter().position(|other| other == epoch).expect("it is one of them");
            *epoch = closer[index];
        });
    }

    fn each_epoch(&mut self, mut visit: impl FnMut(&mut u8)) {
        visit(&mut self.primary.epoch);
        visit(&mut self.standby.epoch);
        for open in self.open.iter_mut().flatten() {
            visit(&mut open.epoch);
        }
        for daemon in &mut self.daemons {
            match &mut daemon.generation {
                Generation::Down => {}
                Generation::Claimed { epoch, .. } | Generation::Running(Run { epoch, .. }) => visit(epoch),
            }
        }
    }
}

impl Generation {
    fn epoch(self) -> Option<u8> {
        match self {
            Self::Down => None,
            Self::Claimed { epoch, .. } | Self::Running(Run { epoch, .. }) => Some(epoch),
        }
    }
}

impl Lanes {
    pub(crate) fn greatest(self) -> u8 {
        self.checkpoints.into_iter().fold(0, u8::max)
    }
}
