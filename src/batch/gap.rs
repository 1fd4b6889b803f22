//! What did not come between the messages of a batch, and what of that is still to be looked at.

use std::ops::Range;

use super::Batch;

/// Sequences that did not come, right before a message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First sequence that did not come.
    pub from: u64,
    /// Last sequence that did not come.
    pub to: u64,
    /// Messages of the batch before it.
    pub messages: usize,
}

/// A stretch of the stream in which nothing is the pipeline's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The sequence that comes before it.
    pub after: u64,
    /// Its last sequence.
    pub to: u64,
    /// When the stream stored the message there: nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
}

impl Batch {
    /// Notes that `from` to `to` did not come right before the message that is kept next.
    pub fn note_gap(&mut self, from: u64, to: u64) {
        self.gaps.push(Gap { from, to, messages: self.messages.len() });
    }

    /// The gaps that were not checked yet, in the order of the stream.
    #[must_use]
    pub fn unchecked_gaps(&self) -> &[Gap] {
        &self.gaps[self.checked..]
    }

    /// Notes that the message at `sequence`, which was kept last, seems to have lost its payload on the way.
    pub fn note_stripped(&mut self, sequence: u64) {
        let messages = self.messages.len().saturating_sub(1);
        self.stripped.push(Gap { from: sequence, to: sequence, messages });
    }

    /// The messages that seem to have lost their payload and were not checked yet.
    #[must_use]
    pub fn stripped(&self) -> &[Gap] {
        &self.stripped
    }

    /// Notes that those have none in the stream either.
    pub fn stripped_checked(&mut self) {
        self.stripped.clear();
    }

    /// The first place about which the stream has to be asked yet.
    #[must_use]
    pub fn first_doubt(&self) -> Option<Gap> {
        let doubts = [self.unchecked_gaps().first(), self.stripped.first()];
        doubts.into_iter().flatten().min_by_key(|gap| gap.from).copied()
    }

    /// When the stream stored the message before `gap`, in nanoseconds since the Unix epoch, where it is in
    /// the batch.
    #[must_use]
    pub fn stored_before(&self, gap: &Gap) -> Option<i64> {
        let before = gap.messages.checked_sub(1)?;
        self.messages.get(before).map(|message| message.timestamp_ns)
    }

    /// Notes that the messages of `gaps` were superseded unread.
    pub fn note_superseded(&mut self, gaps: Vec<Gap>) {
        self.superseded.extend(gaps);
    }

    /// What was superseded unread right before the messages of `part`: the first and the last sequence, and
    /// how many.
    #[must_use]
    pub fn superseded(&self, part: &Range<u32>) -> Option<(u64, u64, u64)> {
        let before = |index: u32| self.superseded.partition_point(|gap| gap.messages < index as usize);
        let gaps = &self.superseded[before(part.start)..before(part.end)];
        let (first, last) = (gaps.first()?.from, gaps.last()?.to);
        Some((first, last, gaps.iter().map(|gap| gap.to - gap.from + 1).sum()))
    }

    /// Notes that all gaps were checked, and that nothing is missing in them.
    pub fn gaps_checked(&mut self) {
        self.checked = self.gaps.len();
    }
}
