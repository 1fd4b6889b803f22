//! What of a ledger stands: stretches that were not left behind since.
//!
//! Guarantees: what several chains say is put in order by the claims under which it was sealed, and within
//! one by the changes of the number of writers. A move back of one lane leaves behind what comes after it of
//! that lane, and of everybody who wrote before the writers became as many as they are.

use super::chain::{Point, Share, Stretch};

/// What a seal says.
#[derive(Debug)]
pub(super) struct Event {
    /// The claim, and how many times the writers have changed under it.
    pub(super) when: (i64, u64),
    /// The kind of a move without commits; `None` of a stretch that was committed.
    pub(super) moved: Option<String>,
    pub(super) stretch: Stretch,
}

/// A move of the checkpoint, or of one lane, without commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) kind: String,
    pub(crate) share: Share,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What the ledger of a shard comes to.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// After which sequence the ledger begins, or begins anew.
    pub(crate) begins_after: u64,
    /// Stretches that were not written again since, each lane's in the order of the stream.
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) moves: Vec<Move>,
    /// The greatest end of a stretch.
    greatest: u64,
}

impl Story {
    /// Of these events, up to where the lanes or the only writer stand.
    pub(super) fn tell(mut events: Vec<Event>, points: &[Point]) -> Self {
        events.sort_by_key(|event| (event.when, event.stretch.share.lane, event.stretch.number));
        let mut story = Self::default();
        for Event { moved, stretch, .. } in events {
            match moved {
                Some(kind) => story.moved(kind, &stretch),
                None => story.committed(stretch),
            }
        }
        for point in points {
            let open = &point.open;
            if point.last_sequence != open.to {
                let (kind, share) = ("moved".to_owned(), open.share);
                story.moves.push(Move { kind, share, from: open.to, to: point.last_sequence });
            }
            if open.messages > 0 {
                story.committed(open.clone());
            }
            story.leave_behind(open.share, point.last_sequence);
        }
        story
    }

    fn committed(&mut self, stretch: Stretch) {
        self.greatest = self.greatest.max(stretch.to);
        self.stretches.push(stretch);
    }

    fn moved(&mut self, kind: String, stretch: &Stretch) {
        let Stretch { share, from, to, .. } = *stretch;
        match kind.as_str() {
            // Each lane begins where it stands.
            "begun" if share.of.is_some() => {
                self.begins_after = self.begins_after.max(to);
                self.stretches.retain(|other| other.share.of == share.of);
            }
            "begun" | "rebuilt" => {
                self.begins_after = to;
                self.stretches.clear();
            }
            _ => {}
        }
        self.leave_behind(share, to);
        match kind.as_str() {
            "lanes" if to >= from => {}
            // The others go with the first.
            "lanes" if share.lane > 0 => {
                if let Some(last) = self.moves.last_mut().filter(|last| last.to == to) {
                    last.from = last.from.max(from);
                }
            }
            "lanes" => {
                let (kind, share) = ("rewound".to_owned(), Share::default());
                self.moves.push(Move { kind, share, from, to });
            }
            _ => self.moves.push(Move { kind, share, from, to }),
        }
    }

    /// What comes after `to` is written again.
    fn leave_behind(&mut self, share: Share, to: u64) {
        if self.greatest > to {
            self.stretches.retain(|stretch| {
                stretch.to <= to || stretch.share.of == share.of && stretch.share.lane != share.lane
            });
            self.greatest = self.stretches.iter().map(|stretch| stretch.to).max().unwrap_or(0);
        }
    }
}
