//! Fields of messages that no column takes: which, and how often.
//!
//! Guarantees: every such field of a map that is walked is counted, by the path of its key, unless a table
//! that takes the message takes it some other way (`$rest`, `$payload`, a whole copy). What lies inside an
//! untaken field is not looked at, and neither are elements of arrays that no path names. A message that
//! becomes a dead letter counts nothing, since nothing of it is lost. Names are kept for [`MOST`] fields at a
//! time; more, and longer ones, are counted without.
//!
//! Messages of one stream have their keys in one order, so a key is first compared with the one after the
//! last.

use super::takers::Tables;

/// Names that are kept at a time: a screen full, and few enough to be looked through for each key.
const MOST: usize = 64;

/// Longer keys are counted without their name, bytes: what is a name to people is shorter.
const LONGEST: usize = 128;

/// Notes the untaken fields of a message, or of an element.
#[derive(Debug, Clone)]
pub(super) struct Untaken {
    known: Vec<Known>,
    /// The entry that the next key is compared with first.
    next: usize,
    /// Entries that the message at hand has.
    noted: Vec<usize>,
    /// Entries that there is room for.
    room: usize,
    /// Fields of the message at hand that have no entry, with who takes them all the same and something
    /// around them.
    unlisted: Vec<(Tables, Tables, u64)>,
    /// Untaken ones of the messages before it.
    others: u64,
    /// A bit for the look of each key that is known: most others are told by it.
    looks: u64,
}

#[derive(Debug, Clone)]
struct Known {
    /// The map that it is in.
    node: usize,
    key: Box<[u8]>,
    /// Its path, for people.
    name: String,
    /// Who takes it all the same.
    takers: Tables,
    /// Who takes something of the map that it is in; where nobody does, the map is the untaken field.
    around: Tables,
    /// Whether it is known by the mapping, and stays.
    fixed: bool,
    /// Times in the message at hand.
    pending: u64,
    /// Times in the messages before it, since they were last told.
    times: u64,
}

/// What is reported of an untaken field the first time it appears.
#[derive(Debug)]
pub(super) struct UntakenField {
    pub(super) node: usize,
    pub(super) name: String,
    pub(super) takers: Tables,
    pub(super) around: Tables,
}

/// What became of a key that was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It has an entry.
    Listed,
    /// It may get one.
    New,
    /// There is no room for it.
    Full,
}

/// One of 64 looks that a key may have.
#[inline]
fn look(node: usize, key: &[u8]) -> u64 {
    let ends = key.first().copied().unwrap_or(0) ^ key.last().copied().unwrap_or(0).rotate_left(3);
    1 << ((usize::from(ends) ^ (key.len() * 5) ^ node) % 64)
}

impl Untaken {
    pub(super) fn new() -> Self {
        Self {
            known: Vec::new(),
            next: 0,
            noted: Vec::new(),
            room: MOST,
            unlisted: Vec::new(),
            others: 0,
            looks: 0,
        }
    }

    /// Notes a key of the map `node`, where it has an entry.
    #[inline]
    pub(super) fn note(&mut self, node: usize, key: &[u8]) -> Noted {
        match self.known.get_mut(self.next) {
            Some(known) if known.node == node && *known.key == *key => {
                if known.pending == 0 {
                    self.noted.push(self.next);
                }
                known.pending += 1;
                self.next += 1;
                Noted::Listed
            }
            _ => self.note_elsewhere(node, key),
        }
    }

    fn note_elsewhere(&mut self, node: usize, key: &[u8]) -> Noted {
        let found = if self.looks & look(node, key) == 0 {
            None
        } else {
            self.known.iter().position(|known| known.node == node && *known.key == *key)
        };
        if let Some(place) = found {
            self.next = place;
            return self.note(node, key);
        }
        if self.known.len() < self.room && key.len() <= LONGEST { Noted::New } else { Noted::Full }
    }

    /// Notes a key without an entry.
    pub(super) fn note_unlisted(&mut self, takers: Tables, around: Tables) {
        match self.unlisted.last_mut() {
            Some((before, around_before, times)) if *before == takers && *around_before == around => {
                *times += 1;
            }
            _ => self.unlisted.push((takers, around, 1)),
        }
    }

    /// Gives a key an entry and notes it.
    pub(super) fn learn(&mut self, field: UntakenField, key: &[u8]) {
        let node = field.node;
        self.add(field, key, false);
        self.note_elsewhere(node, key);
    }

    /// Gives a key that the mapping knows an entry.
    pub(super) fn know(&mut self, field: UntakenField, key: &[u8]) {
        self.room += 1;
        self.add(field, key, true);
    }

    fn add(&mut self, UntakenField { node, name, takers, around }: UntakenField, key: &[u8], fixed: bool) {
        self.looks |= look(node, key);
        self.known.push(Known { node, key: key.into(), name, takers, around, fixed, pending: 0, times: 0 });
    }

    /// Begins with the next message or element.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.next = 0;
    }

    /// Counts what was noted of a message that the tables of `matched` took; nothing where `matched` is
    /// `None`.
    #[inline]
    pub(super) fn settle(&mut self, matched: Option<Tables>) {
        if !(self.noted.is_empty() && self.unlisted.is_empty()) {
            self.settle_noted(matched);
        }
    }

    #[inline(never)]
    fn settle_noted(&mut self, matched: Option<Tables>) {
        let vanish = |takers: Tables, around: Tables| {
            matched.is_some_and(|matched| !takers.meets(matched) && around.meets(matched))
        };
        for place in self.noted.drain(..) {
            let known = &mut self.known[place];
            let times = std::mem::take(&mut known.pending);
            if vanish(known.takers, known.around) {
                known.times += times;
            }
        }
        for (takers, around, times) in self.unlisted.drain(..) {
            if vanish(takers, around) {
                self.others += times;
            }
        }
    }

    /// Tells `told` how often each field was there since the last time, and how many others there were. Where
    /// there was no room for names, those that were not there make some.
    pub(super) fn tell(&mut self, told: &mut impl FnMut(&str, u64)) -> u64 {
        let others = std::mem::take(&mut self.others);
        let full = others > 0 && self.known.len() >= self.room;
        self.known.retain_mut(|known| {
            let times = std::mem::take(&mut known.times);
            if times > 0 {
                told(&known.name, times);
            }
            times > 0 || known.fixed || !full
        });
        if full {
            self.looks = self.known.iter().fold(0, |looks, known| looks | look(known.node, &known.key));
        }
        others
    }
}
