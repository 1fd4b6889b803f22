//! Finds the wanted values of a message in one pass over it.
//!
//! Guarantees: the whole value is read and its form checked, also where nothing in it is wanted. A key that a
//! path names stands once in its map, or the message is malformed: which of two values a row gets must not
//! depend on the reader. Keys that no path names may repeat; they are noted ([`untaken`](super::untaken)), as
//! is a value that a path goes into and that is of another kind ([`Wanted::misfit`]).

use crate::config::path::Step;

use super::rest::Taken;
use super::takers::{Partial, Tables, Takers};
use super::untaken::{Noted, Untaken};
use crate::payload::json;
use crate::payload::{Key, MAX_DEPTH, Malformed, Next, Reader, Spelled, TOO_DEEP, Value};

/// The wanted paths of one value, as a tree; each node has a slot of the same index.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    nodes: Vec<Node>,
    /// Who wants each node.
    takers: Takers,
    /// Fields that no path names.
    pub(super) untaken: Untaken,
    /// Nodes whose paths go on and whose values do not.
    misfits: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Keys in the order in which messages have them; see [`Node::find`].
    fields: Vec<(Spelled, usize)>,
    elements: Vec<(u32, usize)>,
    /// Whether keys in it that no path names are noted.
    watched: bool,
}

/// What was found for each node of a [`Wanted`].
pub(super) type Slots<'a> = Vec<Option<Value<'a>>>;

/// The root of a tree.
pub(super) const ROOT: usize = 0;

impl Wanted {
    /// Nothing yet; `prefix` is what people see before a path.
    pub(super) fn new(prefix: &str) -> Self {
        let takers = Takers::new(prefix);
        Self { nodes: vec![Node::default()], takers, untaken: Untaken::new(), misfits: Vec::new() }
    }

    /// The slot of `path`, added where it is new.
    fn slot(&mut self, path: &[Step]) -> usize {
        let mut at = ROOT;
        for step in path {
            let known = self.child(at, step);
            at = known.unwrap_or_else(|| {
                let child = self.nodes.len();
                match step {
                    Step::Key(key) => self.nodes[at].fields.push((Spelled::new(key), child)),
                    Step::Index(index) => self.nodes[at].elements.push((*index, child)),
                }
                self.nodes.push(Node::default());
                self.takers.add(at, step);
                child
            });
        }
        at
    }

    fn child(&self, at: usize, step: &Step) -> Option<usize> {
        let node = &self.nodes[at];
        match step {
            Step::Key(key) => node.key(key.as_bytes()),
            Step::Index(index) => {
                node.elements.iter().find(|(known, _)| known == index).map(|(_, child)| *child)
            }
        }
    }

    /// The slot of a value of which `tables` take all.
    pub(super) fn whole(&mut self, path: &[Step], tables: Tables) -> usize {
        let slot = self.slot(path);
        self.takers.whole(slot, tables);
        slot
    }

    /// The slot of an array of which `tables` make rows.
    pub(super) fn split(&mut self, path: &[Step], tables: Tables) -> usize {
        let slot = self.slot(path);
        self.takers.split(slot, tables);
        slot
    }

    /// The slot of a value that a `when` looks at.
    pub(super) fn read(&mut self, path: &[Step]) -> usize {
        let slot = self.slot(path);
        self.takers.read(slot);
        slot
    }

    /// Notes that `tables` take all but what is `taken` by themselves; with `deep`, also what is left of a
    /// map of which something is.
    pub(super) fn take_rest(&mut self, tables: Tables, taken: &[Taken], deep: bool) {
        self.take_rest_at(ROOT, tables, taken, deep);
    }

    fn take_rest_at(&mut self, at: usize, tables: Tables, taken: &[Taken], deep: bool) {
        let Self { nodes, takers, .. } = self;
        takers.rest(at, tables);
        let mut inside = Vec::new();
        for (spelled, child) in &nodes[at].fields {
            match taken.iter().find(|taken| *taken.key == *spelled.key && taken.has_own()) {
                None => takers.whole(*child, tables),
                Some(taken) if deep && !taken.is_own() => inside.push((*child, taken)),
                Some(_) => {}
            }
        }
        for (child, taken) in inside {
            self.take_rest_at(child, tables, &taken.inner, deep);
        }
    }

    /// Notes what `other` takes, which walks the same values.
    pub(super) fn join(&mut self, other: &Self) {
        self.join_at(ROOT, other, ROOT);
    }

    fn join_at(&mut self, at: usize, other: &Self, other_at: usize) {
        self.takers.join(at, &other.takers, other_at);
        for (spelled, child) in &other.nodes[other_at].fields {
            if let Some(known) = self.nodes[at].key(&spelled.key) {
                self.join_at(known, other, *child);
            } else {
                let key = String::from_utf8_lossy(&spelled.key);
                let field = self.takers.untaken(at, &key, other.takers.of(*child));
                self.untaken.know(field, &spelled.key);
            }
        }
        for (index, child) in &other.nodes[other_at].elements {
            if let Some(known) = self.child(at, &Step::Index(*index)) {
                self.join_at(known, other, *child);
            }
        }
    }

    /// Who takes what lies in `slot` as a whole, with or without what is around it.
    pub(super) fn covered(&self, slot: usize) -> Tables {
        self.takers.covered(slot)
    }

    /// Notes that `tables` take all of it by another way.
    pub(super) fn cover(&mut self, tables: Tables) {
        self.takers.whole(ROOT, tables);
    }

    /// Says what is noted, once all is taken; `always` are the tables that take every message.
    pub(super) fn seal(&mut self, always: Tables) {
        self.takers.seal();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.watched = !self.takers.beyond(at).meets(always);
        }
    }

    /// The fields that at least one of this many tables does not take.
    pub(super) fn partial(&self, tables: usize) -> Vec<Partial> {
        (ROOT + 1..self.nodes.len()).filter_map(|slot| self.takers.partial(slot, tables)).collect()
    }

    /// A value that a path of a table of `matched` goes into, and that is none that one can go into that way:
    /// its slot and its path. Where such a table takes the value whole, it may be of any kind.
    #[cold]
    pub(super) fn misfit(&self, matched: Tables) -> Option<(usize, &str)> {
        let found = self.misfits.iter().find(|slot| self.takers.need(**slot, matched))?;
        Some((*found, self.takers.path(*found)))
    }

    /// Whether there was a value that a path goes into and that is none that one can go into that way.
    #[inline]
    pub(super) fn has_misfits(&self) -> bool {
        !self.misfits.is_empty()
    }

    /// The tables that go into what lies in `slot`, or take it.
    pub(super) fn needs(&self, slot: usize) -> Tables {
        self.takers.of(slot)
    }

    /// Reads the next value of `reader`, `depth` levels inside the message, and leaves what is wanted in
    /// `slots`.
    pub(super) fn walk<'a, R: Reader<'a>>(
        &mut self,
        reader: &mut R,
        slots: &mut Slots<'a>,
        scratch: &mut String,
        depth: usize,
    ) -> Result<(), Malformed> {
        slots.clear();
        slots.resize(self.nodes.len(), None);
        self.untaken.begin();
        self.misfits.clear();
        let Self { nodes, takers, untaken, misfits } = self;
        Walk { nodes, takers, untaken, misfits, slots, scratch }.node(reader, ROOT, depth)
    }
}

struct Walk<'w, 'a> {
    nodes: &'w mut [Node],
    takers: &'w Takers,
    untaken: &'w mut Untaken,
    misfits: &'w mut Vec<usize>,
    slots: &'w mut Slots<'a>,
    scratch: &'w mut String,
}

impl<'a> Walk<'_, 'a> {
    /// Reads the value of the node `at`. It recurses as deep as the longest configured path.
    fn node<R: Reader<'a>>(&mut self, reader: &mut R, at: usize, depth: usize) -> Result<(), Malformed> {
        let start = reader.position();
        let mut value = Value::Null;
        match reader.open(&mut value)? {
            Next::Scalar => {
                if at != ROOT && value != Value::Null {
                    self.misfits.push(at);
                }
            }
            Next::Map(_) | Next::Array(_) if depth >= MAX_DEPTH => {
                return Err(Malformed::new(TOO_DEEP, start));
            }
            Next::Map(mut map) => {
                let Node { fields, elements, .. } = &self.nodes[at];
                if fields.is_empty() && (at != ROOT || !elements.is_empty()) {
                    self.misfits.push(at);
                }
                let mut expected = 0;
                loop {
                    let child = match self.nodes[at].fields.get(expected) {
                        Some((spelled, child)) if reader.pass_key(&mut map, spelled) => {
                            expected += 1;
                            Some(*child)
                        }
                        _ => match reader.key(&mut map)? {
                            Some(key) => self.child(at, key, &mut expected),
                            None => break,
                        },
                    };
                    if let Some(child) = child {
                        if self.slots[child].is_some() {
                            return Err(Malformed::new(&"duplicate key", reader.position()));
                        }
                        if self.nodes[child].has_children() {
                            self.node(reader, child, depth + 1)?;
                            continue;
                        }
                    }
                    let mut unwanted = Value::Null;
                    let place = match child {
                        Some(child) => self.slots[child].insert(Value::Null),
                        None => &mut unwanted,
                    };
                    reader.read(depth + 1, place)?;
                }
                value = Value::Map(reader.raw(start));
            }
            Next::Array(mut array) => {
                if self.nodes[at].elements.is_empty() {
                    self.misfits.push(at);
                }
                let mut index = 0;
                while reader.element(&mut array)? {
                    let mut elements = self.nodes[at].elements.iter();
                    let wanted = elements.find(|(wanted, _)| *wanted == index);
                    match wanted.map(|(_, child)| *child) {
                        Some(child) if self.nodes[child].has_children() => {
                            self.node(reader, child, depth + 1)?;
                        }
                        Some(child) => self.slots[child] = Some(reader.value(depth + 1)?),
                        None => {
                            reader.value(depth + 1)?;
                        }
                    }
                    index = index.saturating_add(1);
                }
                value = Value::Array(reader.raw(start));
            }
        }
        self.slots[at] = Some(value);
        Ok(())
    }

    fn child(&mut self, at: usize, key: Key<'a>, expected: &mut usize) -> Option<usize> {
        let node = &mut self.nodes[at];
        let (child, text) = match key {
            Key::Plain(key) => (node.find(key, expected), Some(key)),
            Key::Escaped(key) => {
                self.scratch.clear();
                match json::unescape(key, self.scratch) {
                    Ok(()) => (node.find(self.scratch.as_bytes(), expected), Some(self.scratch.as_bytes())),
                    Err(json::LoneSurrogate) => (None, None),
                }
            }
            Key::Other(_) => (None, None),
        };
        if child.is_none() && node.watched {
            match text.map(|text| (text, self.untaken.note(at, text))) {
                Some((_, Noted::Listed)) => {}
                Some((text, Noted::New)) => match str::from_utf8(text) {
                    Ok(name) => self.untaken.learn(self.takers.untaken(at, name, Tables::NONE), text),
                    Err(_) => self.takers.note_unlisted(at, self.untaken),
                },
                Some((_, Noted::Full)) | None => self.takers.note_unlisted(at, self.untaken),
            }
        }
        child
    }
}

impl Node {
    #[inline]
    fn has_children(&self) -> bool {
        !(self.fields.is_empty() && self.elements.is_empty())
    }

    /// The child of a key, wherever it stands.
    fn key(&self, key: &[u8]) -> Option<usize> {
        self.fields.iter().find(|(known, _)| *known.key == *key).map(|(_, child)| *child)
    }

    /// The child of a key that is not the one expected. Messages of one stream have their keys in one order,
    /// so the key after the last one found is looked for first; a key found elsewhere is moved to that place,
    /// which is how the order is learned.
    fn find(&mut self, key: &[u8], expected: &mut usize) -> Option<usize> {
        let place = self.fields.iter().position(|(known, _)| *known.key == *key)?;
        let child = self.fields[place].1;
        if place >= *expected {
            self.fields.swap(place, *expected);
            *expected += 1;
        }
        Some(child)
    }
}
