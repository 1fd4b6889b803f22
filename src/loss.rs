//! Loss that jetcopy cannot prevent: noticed, recorded, and passed over only when somebody says so.
//!
//! Guarantees: what the stream no longer holds after the checkpoint, or a stream that is not the one the
//! checkpoint counts in, is in `jetcopy.losses` before anything is read past it. It does not look for
//! messages that were deleted in the middle of the stream: whoever deletes a message means it. Only where the
//! stream removes some by itself, and the pipeline halts at those, it does ([`crate::superseded`]).

use std::fmt;

use crate::checkpoint::Claim;

mod record;

pub(crate) use record::{Open, settle};
pub(crate) use record::{
    Recorded, accept, ambiguous_to, count_open_sql, is_accepted, note_superseded, open, recorded,
};

/// What the stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamFacts {
    /// When it was created, in nanoseconds since the Unix epoch.
    pub created_ns: i64,
    /// Sequence of the first message that it holds; above `last_sequence` when it holds none.
    pub first_sequence: u64,
    /// Sequence of the last message that it ever stored.
    pub last_sequence: u64,
    /// When it stored the message at the checkpoint, in microseconds since the Unix epoch, where it still has
    /// it.
    pub checkpoint_timestamp_us: Option<i64>,
    /// Where the stream [contradicts](StreamFacts::contradicts) the checkpoint: the last sequence that it
    /// stored no later than the message at the checkpoint. It had that one before it was rolled back; what
    /// follows is new.
    pub kept_sequence: Option<u64>,
    /// Where it [was created at another time](StreamFacts::is_another) than the one that the checkpoint
    /// counts in: how far it is the same all the same; `None` where nothing proves that.
    pub agreement: Option<Agreement>,
    /// Whether the pipeline reads a part of its subjects only.
    pub narrow: bool,
    /// Of a stream that drops messages behind its front by itself, what that means.
    pub thins: Option<Thins>,
}

/// How far a stream that was created at another time holds what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// The last sequence of which a message proves it.
    pub proven: u64,
    /// The last sequence that both have; `None` where all up to the checkpoint is the same.
    pub kept: Option<u64>,
    /// Whether the stream may have taken messages of its own while others came to the one that was read: of
    /// those after `proven` nobody can tell.
    pub forked: bool,
}

/// What a stream that [thins](crate::superseded::thins) itself has dropped after the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thins {
    /// Whether its limits may have dropped what its front has passed.
    pub by_limits: bool,
    /// The last sequence of the gap right after the checkpoint, where the pipeline halts at one.
    pub halts_before: Option<u64>,
}

/// How stream and checkpoint stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The checkpoint is new: begin with the first message that the stream holds.
    Fresh,
    /// All that comes after the checkpoint is there.
    Intact,
    /// The same, in a stream that says that it was created at another time.
    Moved(Agreement),
    /// It is not.
    Lost(Loss),
}

/// Loss that could not be prevented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// What happened to the stream.
    pub cause: Cause,
    pub first_sequence: u64,
    /// Last sequence concerned; `None` when it cannot be known.
    pub last_sequence: Option<u64>,
    /// Where reading can go on: the checkpoint that would pass over the loss.
    pub resume_after: u64,
    /// Whether it may be that nothing of the pipeline's was among it.
    pub possible: bool,
    /// How many sequences it is, where not all: of several writers, some had committed theirs.
    pub messages: Option<u64>,
}

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Retention or a purge dropped messages before they were committed.
    Dropped,
    /// The stream removed messages by itself that newer ones supersede, or whose time had come, before they
    /// were read.
    Superseded,
    /// The stream is another one under the same name, and counts from the start.
    Recreated,
    /// The stream lost its end, with messages that are committed: it was restored or lost writes. It may have
    /// grown since, and given their sequences to new messages.
    RolledBack,
}

impl Cause {
    /// Value of `jetcopy.losses.cause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Superseded => "superseded",
            Self::Recreated => "recreated",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Dropped => write!(
                f,
                "the stream dropped {}sequences {} to {} before they were {}",
                self.messages.map(|messages| format!("{messages} of the ")).unwrap_or_default(),
                self.first_sequence,
                self.last_sequence.unwrap_or(self.resume_after),
                if self.possible {
                    "read; messages of the pipeline's subjects may have been among them"
                } else {
                    "committed"
                }
            ),
            Cause::Superseded => write!(
                f,
                "the stream removed sequences {} to {} before they were read (max_msgs_per_subject, a time \
                 to live or a roll-up)",
                self.first_sequence,
                self.last_sequence.unwrap_or(self.resume_after),
            ),
            Cause::Recreated => write!(
                f,
                "the stream was recreated; messages after sequence {} of the old one that were not committed \
                 are lost",
                self.first_sequence.saturating_sub(1)
            ),
            Cause::RolledBack => write!(
                f,
                "the stream was rolled back to sequence {}, but the database holds messages up to {}",
                self.resume_after,
                self.last_sequence.unwrap_or(self.first_sequence)
            ),
        }
    }
}

/// Compares the checkpoint with the stream.
#[must_use]
pub(crate) fn compare(claim: &Claim, stream: &StreamFacts) -> Verdict {
    if claim.stream_created_ns.is_none() {
        return Verdict::Fresh;
    }
    let checkpoint = claim.last_sequence;
    let kept = match (stream.is_another(claim), stream.agreement) {
        (true, None) => {
            return Verdict::Lost(Loss {
                cause: Cause::Recreated,
                first_sequence: checkpoint + 1,
                last_sequence: None,
                resume_after: stream.start(),
                possible: false,
                messages: None,
            });
        }
        (true, Some(agreement)) => agreement.kept,
        (false, _) if stream.contradicts(claim) => {
            Some(stream.kept_sequence.unwrap_or(stream.last_sequence).min(checkpoint.saturating_sub(1)))
        }
        (false, _) => None,
    };
    if let Some(kept) = kept {
        return Verdict::Lost(Loss {
            cause: Cause::RolledBack,
            first_sequence: kept + 1,
            last_sequence: Some(checkpoint),
            resume_after: kept,
            possible: false,
            messages: None,
        });
    }
    if let Some(thins) = stream.thins
        && !(stream.first_sequence > checkpoint + 1 && thins.by_limits)
    {
        let known = checkpoint.max(claim.known_sequence);
        return match thins.halts_before.filter(|&last| last > known) {
            None => stream.agreement.map_or(Verdict::Intact, Verdict::Moved),
            Some(last) => Verdict::Lost(Loss {
                cause: Cause::Superseded,
                first_sequence: known + 1,
                last_sequence: Some(last),
                resume_after: last,
                possible: stream.narrow,
                messages: None,
            }),
        };
    }
    if stream.first_sequence > checkpoint + 1 {
        return Verdict::Lost(Loss {
            cause: Cause::Dropped,
            first_sequence: checkpoint + 1,
            last_sequence: Some(stream.first_sequence - 1),
            resume_after: stream.first_sequence - 1,
            possible: stream.narrow,
            messages: claim.lacking(stream.first_sequence - 1),
        });
    }
    stream.agreement.map_or(Verdict::Intact, Verdict::Moved)
}

impl Loss {
    /// After which sequence milestones are of another history, where the pipeline goes on after `after`.
    #[must_use]
    pub fn forgets_after(&self, after: u64) -> Option<u64> {
        match self.cause {
            Cause::Dropped | Cause::Superseded => None,
            Cause::Recreated => Some(0),
            Cause::RolledBack => Some(self.resume_after.min(after)),
        }
    }

    /// Sequences concerned, as far as that is known.
    fn length(&self) -> u64 {
        let all = self.last_sequence.map_or(0, |last| (last + 1).saturating_sub(self.first_sequence));
        self.messages.unwrap_or(all)
    }
}

impl StreamFacts {
    /// Whether it was created at another time than the stream that the checkpoint counts in.
    #[must_use]
    pub(crate) fn is_another(&self, claim: &Claim) -> bool {
        // The database keeps microseconds.
        claim.stream_created_ns.is_some_and(|ns| ns.div_euclid(1_000) != self.created_ns.div_euclid(1_000))
    }

    /// Whether the stream ends before the checkpoint, or holds another message there.
    #[must_use]
    pub(crate) fn contradicts(&self, claim: &Claim) -> bool {
        let replaced = match (claim.last_timestamp_us, self.checkpoint_timestamp_us) {
            (Some(committed), Some(stored)) => committed != stored,
            _ => false,
        };
        claim.stream_created_ns.is_some() && (replaced || self.last_sequence < claim.last_sequence)
    }

    /// The checkpoint right before the first message that the stream holds.
    pub(crate) fn start(&self) -> u64 {
        self.first_sequence.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Lanes;

    fn claim(last_sequence: u64) -> Claim {
        Claim {
            epoch: 1,
            last_sequence,
            stream_created_ns: Some(5_000_000),
            lanes: Lanes::single(last_sequence),
            last_timestamp_us: Some(900),
            since_us: Some(900),
            known_sequence: 0,
            accepted: 0,
        }
    }

    fn stream(first_sequence: u64, last_sequence: u64) -> StreamFacts {
        StreamFacts {
            created_ns: 5_000_123,
            first_sequence,
            last_sequence,
            checkpoint_timestamp_us: Some(900),
            kept_sequence: None,
            agreement: None,
            narrow: false,
            thins: None,
        }
    }

    fn lost(verdict: Verdict) -> Loss {
        match verdict {
            Verdict::Lost(loss) => loss,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_checkpoint_starts_with_what_the_stream_holds() {
        let claim = Claim { stream_created_ns: None, ..claim(0) };
        assert_eq!(compare(&claim, &stream(1_000, 2_000)), Verdict::Fresh);
        assert_eq!(stream(1_000, 2_000).start(), 999);
        assert_eq!(stream(0, 0).start(), 0);
    }

    #[test]
    fn a_stream_that_holds_all_after_the_checkpoint_is_intact() {
        assert_eq!(compare(&claim(10), &stream(1, 10)), Verdict::Intact);
        assert_eq!(compare(&claim(10), &stream(11, 20)), Verdict::Intact);
        // Emptied after all of it was committed.
        assert_eq!(compare(&claim(10), &stream(11, 10)), Verdict::Intact);
    }

    #[test]
    fn what_retention_dropped_before_it_was_committed_is_lost() {
        let loss = lost(compare(&claim(10), &stream(13, 20)));
        assert_eq!(
            (loss.cause, loss.first_sequence, loss.last_sequence, loss.resume_after),
            (Cause::Dropped, 11, Some(12), 12)
        );
    }

    #[test]
    fn what_a_stream_thins_out_is_superseded_unless_its_limits_may_have_dropped_it() {
        let thinned = |first, by_limits, halts_before| {
            let facts = StreamFacts { thins: Some(Thins { by_limits, halts_before }), ..stream(first, 20) };
            compare(&claim(10), &facts)
        };
        assert_eq!(thinned(13, false, None), Verdict::Intact);
        let loss = lost(thinned(13, false, Some(12)));
        assert_eq!((loss.cause, loss.first_sequence, loss.resume_after), (Cause::Superseded, 11, 12));
        // In its middle too, where limits have no part in it.
        assert_eq!(lost(thinned(1, true, Some(12))).cause, Cause::Superseded);
        assert_eq!(lost(thinned(13, true, None)).cause, Cause::Dropped);
        let known = Claim { known_sequence: 11, ..claim(10) };
        let facts =
            StreamFacts { thins: Some(Thins { by_limits: false, halts_before: Some(12) }), ..stream(13, 20) };
        assert_eq!(lost(compare(&known, &facts)).first_sequence, 12);
        let known = Claim { known_sequence: 12, ..claim(10) };
        assert_eq!(compare(&known, &facts), Verdict::Intact);
    }

    #[test]
    fn a_stream_that_ends_before_the_checkpoint_was_rolled_back() {
        let facts = StreamFacts { checkpoint_timestamp_us: None, ..stream(1, 7) };
        let loss = lost(compare(&claim(10), &facts));
        assert_eq!(
            (loss.cause, loss.first_sequence, loss.last_sequence, loss.resume_after),
            (Cause::RolledBack, 8, Some(10), 7)
        );
    }

    #[test]
    fn another_creation_time_is_another_stream() {
        let facts = StreamFacts { created_ns: 6_000_000, ..stream(1, 50) };
        let loss = lost(compare(&claim(10), &facts));
        assert_eq!((loss.cause, loss.last_sequence, loss.resume_after), (Cause::Recreated, None, 0));
    }

    #[test]
    fn a_stream_that_is_known_again_is_the_same_or_was_rolled_back() {
        let agreement = Agreement { proven: 8, kept: None, forked: false };
        let facts = StreamFacts { created_ns: 6_000_000, agreement: Some(agreement), ..stream(1, 50) };
        assert_eq!(compare(&claim(10), &facts), Verdict::Moved(agreement));
        let kept = Some(Agreement { kept: Some(9), ..agreement });
        let loss = lost(compare(&claim(10), &StreamFacts { agreement: kept, ..facts }));
        assert_eq!(
            (loss.cause, loss.first_sequence, loss.last_sequence, loss.resume_after),
            (Cause::RolledBack, 10, Some(10), 9)
        );
        let dropped = StreamFacts { first_sequence: 13, ..facts };
        assert_eq!(lost(compare(&claim(10), &dropped)).cause, Cause::Dropped);
    }

    #[test]
    fn what_a_rolled_back_stream_stored_since_is_read_also_where_it_reuses_committed_sequences() {
        for (last_sequence, timestamp) in [(8, None), (50, Some(901))] {
            let facts = StreamFacts {
                checkpoint_timestamp_us: timestamp,
                kept_sequence: Some(6),
                ..stream(1, last_sequence)
            };
            let loss = lost(compare(&claim(10), &facts));
            assert_eq!(
                (loss.cause, loss.first_sequence, loss.last_sequence, loss.resume_after),
                (Cause::RolledBack, 7, Some(10), 6)
            );
        }
    }
}
