//! Which tables take what of a message.
//!
//! Guarantees: a value that a table writes in whatever way (as a column, within `$rest` or a whole copy, as
//! rows) has that table among its takers. It says nothing of values: a path may be wanted and lead nowhere.

use std::ops::BitOrAssign;

use crate::config::path::Step;

use super::untaken::{Untaken, UntakenField};
use super::walk::ROOT;

/// Some of the tables of a pipeline, a bit each; those from the 64th on count as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tables(u64);

impl Tables {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self(u64::MAX);

    /// The table of that index.
    pub(super) fn of(index: usize) -> Self {
        Self(1 << index.min(63))
    }

    /// Whether some table is among both.
    #[inline]
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOrAssign for Tables {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Who takes each node of a tree of paths.
#[derive(Debug, Clone)]
pub(super) struct Takers {
    /// What people see before a path.
    prefix: String,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    parent: usize,
    /// For people.
    path: String,
    /// Tables that take all of it.
    whole: Tables,
    /// Tables that make rows of its elements.
    splits: Tables,
    /// Tables that take it or something of it.
    some: Tables,
    /// Whether a `when` looks at it or at something of it.
    read: bool,
    /// Tables that take what is in it beyond the paths.
    beyond: Tables,
}

/// A field that some tables take and others do not.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) slot: usize,
    pub(super) path: String,
    takers: Tables,
    /// Who takes something of the map that it is in.
    around: Tables,
    /// How often it was there and nobody took it, since that was last told.
    pub(super) times: u64,
}

impl Partial {
    /// Whether nobody takes it of a message that the tables of `matched` take.
    #[inline]
    pub(super) fn vanishes(&self, matched: Tables) -> bool {
        !self.takers.meets(matched) && self.around.meets(matched)
    }
}

impl Takers {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), nodes: vec![Node::default()] }
    }

    /// Adds a node below `parent`.
    pub(super) fn add(&mut self, parent: usize, step: &Step) {
        let before = self.nodes[parent].path.as_str();
        let path = match step {
            Step::Key(key) if before.is_empty() => key.clone(),
            Step::Key(key) => format!("{before}.{key}"),
            Step::Index(index) => format!("{before}[{index}]"),
        };
        self.nodes.push(Node { parent, path, ..Node::default() });
    }

    pub(super) fn whole(&mut self, node: usize, tables: Tables) {
        self.nodes[node].whole |= tables;
        self.up(node, |node| node.some |= tables);
    }

    pub(super) fn split(&mut self, node: usize, tables: Tables) {
        self.nodes[node].splits |= tables;
        self.up(node, |node| node.some |= tables);
    }

    pub(super) fn read(&mut self, node: usize) {
        self.up(node, |node| node.read = true);
    }

    /// `tables` take all fields of the node that no path names.
    pub(super) fn rest(&mut self, node: usize, tables: Tables) {
        self.nodes[node].beyond |= tables;
    }

    /// The node and all that it lies in, but for the root.
    fn up(&mut self, node: usize, change: impl Fn(&mut Node)) {
        let mut at = node;
        while at != ROOT {
            change(&mut self.nodes[at]);
            at = self.nodes[at].parent;
        }
    }

    /// Those of `their` node of another tree over the same values, too.
    pub(super) fn join(&mut self, node: usize, other: &Self, their: usize) {
        let (node, their) = (&mut self.nodes[node], &other.nodes[their]);
        node.whole |= their.whole;
        node.splits |= their.splits;
        node.some |= their.some;
    }

    pub(super) fn of(&self, node: usize) -> Tables {
        self.nodes[node].some
    }

    pub(super) fn path(&self, node: usize) -> &str {
        &self.nodes[node].path
    }

    pub(super) fn beyond(&self, node: usize) -> Tables {
        self.nodes[node].beyond
    }

    /// Who takes the node as a whole, with or without what is around it.
    pub(super) fn covered(&self, node: usize) -> Tables {
        let mut covered = self.nodes[node].whole;
        let mut at = node;
        while at != ROOT {
            at = self.nodes[at].parent;
            covered |= self.nodes[at].whole;
            covered |= self.nodes[at].splits;
        }
        covered
    }

    /// Works out who takes what lies beyond the paths, once all is taken.
    pub(super) fn seal(&mut self) {
        for at in 0..self.nodes.len() {
            let mut beyond = self.covered(at);
            beyond |= self.nodes[at].splits;
            self.nodes[at].beyond |= beyond;
        }
    }

    /// A field that no path names, and that `takers` take all the same.
    pub(super) fn untaken(&self, node: usize, key: &str, takers: Tables) -> UntakenField {
        let Node { path, beyond, .. } = &self.nodes[node];
        let dot = if path.is_empty() { "" } else { "." };
        let mut all = takers;
        all |= *beyond;
        UntakenField {
            node,
            name: format!("{}{path}{dot}{key}", self.prefix),
            takers: all,
            around: self.around(node),
        }
    }

    #[cold]
    pub(super) fn note_unlisted(&self, node: usize, untaken: &mut Untaken) {
        untaken.note_unlisted(self.nodes[node].beyond, self.around(node));
    }

    /// Who takes something of a map. Of one that only others take, the map is what is untaken.
    fn around(&self, node: usize) -> Tables {
        let found = &self.nodes[node];
        if node == ROOT || found.read { Tables::ALL } else { found.some }
    }

    /// The field, where at least one of this many tables does not take it.
    pub(super) fn partial(&self, node: usize, tables: usize) -> Option<Partial> {
        let found = &self.nodes[node];
        let mut takers = self.covered(node);
        takers |= found.some;
        let all = (0..tables).all(|table| takers.meets(Tables::of(table)));
        let partial = || Partial {
            slot: node,
            path: found.path.clone(),
            takers,
            around: self.around(found.parent),
            times: 0,
        };
        (!found.read && !all).then(partial)
    }

    /// Whether a table of `matched` needs a value to go into, and does not take it whole.
    #[cold]
    pub(super) fn need(&self, node: usize, matched: Tables) -> bool {
        let found = &self.nodes[node];
        let is_root = node == ROOT && !found.splits.meets(matched);
        is_root || (found.some.meets(matched) && !found.whole.meets(matched))
    }
}
