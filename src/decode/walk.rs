//! Finds the wanted values of a message in one pass over it.
//!
//! Guarantees: the whole value is read and its form checked, also where nothing in it is wanted. A key that a path names
//! stands once in its map, or the message is malformed: which of two values a row gets must not depend on the reader.
//! Keys that no path names may repeat.

use crate::config::path::Step;

use super::json;
use super::value::{Key, MAX_DEPTH, Malformed, Next, Reader, Spelled, TOO_DEEP, Value};

/// The wanted paths of one value, as a tree; each node has a slot of the same index.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Keys in the order in which messages have them; see [`Node::find`].
    fields: Vec<(Spelled, usize)>,
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
                Step::Key(key) => node
                    .fields
                    .iter()
                    .find(|(known, _)| *known.key == *key.as_bytes())
                    .map(|(_, child)| *child),
                Step::Index(index) => {
                    node.elements.iter().find(|(known, _)| known == index).map(|(_, child)| *child)
                }
            };
            at = known.unwrap_or_else(|| {
                let child = self.nodes.len();
                match step {
                    Step::Key(key) => self.nodes[at].fields.push((Spelled::new(key), child)),
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
                return Err(Malformed::new(TOO_DEEP, start));
            }
            Next::Map(mut map) => {
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
                            return Err(Malformed::new(&"a key stands twice", reader.position()));
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

    /// The child of a key that is not the one expected. Messages of one stream have their keys in one order, so the key
    /// after the last one found is looked for first; a key found elsewhere is moved to that place, which is how the order
    /// is learned.
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
