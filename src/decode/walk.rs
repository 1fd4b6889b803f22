//! Finds the wanted values of a message in one pass over it.
//!
//! Guarantees: the whole value is read and its form checked, also where nothing in it is wanted. A key that a path names
//! stands once in its map, or the message is malformed: which of two values a row gets must not depend on the reader.
//! Keys that no path names may repeat.

use super::json;
use super::path::Step;
use super::value::{Key, MAX_DEPTH, Malformed, Next, Reader, TOO_DEEP, Value};

/// The wanted paths of one value, as a tree; each node has a slot of the same index.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Keys in the order in which messages have them; see [`Node::find`].
    fields: Vec<(Box<[u8]>, usize)>,
    elements: Vec<(u32, usize)>,
}

/// What was found for each node of a [`Wanted`].
pub(super) type Slots<'a> = Vec<Option<Value<'a>>>;

/// The root of a tree.
pub(super) const ROOT: usize = 0;

impl Wanted {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// The slot of `path`, added where it is new.
    pub(super) fn slot(&mut self, path: &[Step]) -> usize {
        let mut at = ROOT;
        for step in path {
            let node = &self.nodes[at];
            let known = match step {
                Step::Key(key) => {
                    node.fields.iter().find(|(known, _)| **known == *key.as_bytes()).map(|(_, child)| *child)
                }
                Step::Index(index) => {
                    node.elements.iter().find(|(known, _)| known == index).map(|(_, child)| *child)
                }
            };
            at = known.unwrap_or_else(|| {
                let child = self.nodes.len();
                match step {
                    Step::Key(key) => self.nodes[at].fields.push((key.as_bytes().into(), child)),
                    Step::Index(index) => self.nodes[at].elements.push((*index, child)),
                }
                self.nodes.push(Node::default());
                child
            });
        }
        at
    }

    /// Reads the next value of `reader`, `depth` levels inside the message, and leaves what is wanted in `slots`.
    pub(super) fn walk<'a, R: Reader<'a>>(
        &mut self,
        reader: &mut R,
        slots: &mut Slots<'a>,
        scratch: &mut String,
        depth: usize,
    ) -> Result<(), Malformed> {
        slots.clear();
        slots.resize(self.nodes.len(), None);
        Walk { nodes: &mut self.nodes, slots, scratch }.node(reader, ROOT, depth)
    }
}

struct Walk<'w, 'a> {
    nodes: &'w mut [Node],
    slots: &'w mut Slots<'a>,
    scratch: &'w mut String,
}

impl<'a> Walk<'_, 'a> {
    /// Reads the value of the node `at`. It recurses as deep as the longest configured path.
    fn node<R: Reader<'a>>(&mut self, reader: &mut R, at: usize, depth: usize) -> Result<(), Malformed> {
        let start = reader.position();
        let mut value = Value::Null;
        match reader.open(&mut value)? {
            Next::Scalar => {}
            Next::Map(_) | Next::Array(_) if depth >= MAX_DEPTH => {
                return Err(Malformed { what: TOO_DEEP, at: start });
            }
            Next::Map(mut map) => {
                let mut expected = 0;
                while let Some(key) = reader.key(&mut map)? {
                    let child = self.child(at, key, &mut expected);
                    if let Some(child) = child {
                        if self.slots[child].is_some() {
                            return Err(Malformed { what: "a key stands twice", at: reader.position() });
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
                let mut index = 0;
                while reader.element(&mut array)? {
                    let wanted = self.nodes[at].elements.iter().find(|(wanted, _)| *wanted == index);
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

    #[inline]
    fn child(&mut self, at: usize, key: Key<'a>, expected: &mut usize) -> Option<usize> {
        match key {
            Key::Plain(key) => self.nodes[at].find(key, expected),
            Key::Escaped(key) => {
                self.scratch.clear();
                json::unescape(key, self.scratch).ok()?;
                self.nodes[at].find(self.scratch.as_bytes(), expected)
            }
            Key::Other(_) => None,
        }
    }
}

impl Node {
    #[inline]
    fn has_children(&self) -> bool {
        !(self.fields.is_empty() && self.elements.is_empty())
    }

    /// The child of `key`. Messages of one stream have their keys in one order, so the key after the last one found is
    /// compared first; a key found elsewhere is moved to that place, which is how the order is learned.
    #[inline]
    fn find(&mut self, key: &[u8], expected: &mut usize) -> Option<usize> {
        if let Some((known, child)) = self.fields.get(*expected)
            && same(known, key)
        {
            *expected += 1;
            return Some(*child);
        }
        let place = self.fields.iter().position(|(known, _)| **known == *key)?;
        let child = self.fields[place].1;
        if place > *expected {
            self.fields.swap(place, *expected);
            *expected += 1;
        }
        Some(child)
    }
}

/// Whether two keys are the same. Keys are short, and a call of the C library's comparison costs more than these loads.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        8..=16 => a.first_chunk::<8>() == b.first_chunk::<8>() && a.last_chunk::<8>() == b.last_chunk::<8>(),
        4..=7 => a.first_chunk::<4>() == b.first_chunk::<4>() && a.last_chunk::<4>() == b.last_chunk::<4>(),
        0..=3 => a.iter().eq(b),
        _ => a == b,
    }
}
