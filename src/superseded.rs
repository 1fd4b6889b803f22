//! Streams that drop messages from their middle by themselves, and what that means for a pipeline.
//!
//! Guarantees: on a stream that limits messages per subject, lets messages have a time to live or
//! takes roll-ups, what vanished before it was read is never taken for deleted on purpose. It counts as
//! superseded unless one of the stream's limits may have dropped it, which is a loss like on any other
//! stream.
//!
//! Not guaranteed: that a newer message of the same subject is there. Nobody can ask for the subject of a
//! message that is gone, so one that was deleted or purged manually from such a stream counts as superseded,
//! too; so does one that fell to a limit that is far from reached again. Of a mirror of a part, only what its
//! limits may have dropped is a loss: what else vanished from its front cannot be told from what it never
//! held. With `subjects` that leave some of the stream's out, what vanished behind its front is not reported:
//! the others' messages leave the same jumps. The server does not tell either: it counts what is to be
//! delivered (`num_pending`), and that stays the same where a message supersedes another.

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, Source};

use crate::batch::Gap;
use crate::clock::Reading;
use crate::subject::covers;

/// How far off the server's clock may be as it is known here: what is that near its end of life may have
/// ended.
const CLOCKS_US: i64 = 1_000_000;

/// A stream is never filled to the last byte: as much as this part of its limit may be missing where it has
/// dropped a large message.
const NEARLY: u64 = 4;

/// Whether the stream drops messages behind its front by itself.
#[must_use]
pub(crate) fn thins(config: &Config) -> bool {
    let refuses = config.discard == DiscardPolicy::New && config.discard_new_per_subject;
    config.max_messages_per_subject > 0 && !refuses || config.allow_rollup || config.allow_message_ttl
}

/// Whether the stream lacks sequences that it never held: a mirror of a part keeps the numbers of the whole,
/// and any mirror begins where its origin does, so that before one `has_begun` to read it, its front tells
/// nothing.
#[must_use]
pub(crate) fn skips(config: &Config, has_begun: bool) -> bool {
    let of_part = |mirror: &Source| mirror.filter_subject.is_some() || !mirror.subject_transforms.is_empty();
    config.mirror.as_ref().is_some_and(|mirror| !has_begun || of_part(mirror))
}

/// Whether `subjects` take all that the stream takes, so that a jump is no message of others.
#[must_use]
pub(crate) fn reads_all(subjects: &[String], config: &Config) -> bool {
    let own = config.mirror.is_none()
        && config.sources.as_ref().is_none_or(Vec::is_empty)
        && config.subject_transform.is_none()
        && !config.subjects.is_empty();
    let taken = |subject: &String| subjects.iter().any(|pattern| covers(pattern, subject));
    subjects.is_empty() || own && config.subjects.iter().all(taken)
}

/// Whether a limit of the stream, or a purge, may have dropped what it stored since `since_us` (microseconds
/// since the Unix epoch; `None` where that is not known), by the server's own clock. Where that was set to
/// another time, it may have dropped what is old enough by either.
#[must_use]
pub(crate) fn dropped_by_limits(stream: &Info, since_us: Option<i64>, clock: &Reading) -> bool {
    let (config, state) = (&stream.config, &stream.state);
    let created_us = i64::try_from(stream.created.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
    let since_us = since_us.unwrap_or(created_us).max(created_us);
    let life_us = i64::try_from(config.max_age.as_micros()).unwrap_or(i64::MAX);
    let age_us = (clock.now_us() - since_us).max(clock.age_ns(since_us.saturating_mul(1_000)) / 1_000);
    let aged = life_us > 0 && life_us <= age_us.saturating_add(CLOCKS_US);
    let limit = |limit: i64| u64::try_from(limit).ok().filter(|&limit| limit > 0);
    let refuses = config.discard == DiscardPolicy::New;
    let full = limit(config.max_messages).is_some_and(|most| state.messages >= most)
        || limit(config.max_bytes).is_some_and(|most| state.bytes >= most - most / NEARLY);
    // What is superseded leaves a message; what has a time to live may leave none.
    let purged = state.messages == 0 && !config.allow_message_ttl;
    aged || full && !refuses || purged
}

/// The part of `gap` that is after `known`, up to which it is no news.
#[must_use]
pub(crate) fn news(gap: Gap, known: u64) -> Option<Gap> {
    (gap.to > known).then(|| Gap { from: gap.from.max(known + 1), ..gap })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stream_thins_by_a_limit_of_a_subject_a_time_to_live_or_roll_ups_and_not_where_it_refuses_instead() {
        assert!(!thins(&Config::default()));
        let by_subject = Config { max_messages_per_subject: 1, ..Config::default() };
        assert!(thins(&by_subject));
        assert!(!thins(&Config {
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            ..by_subject.clone()
        }));
        assert!(thins(&Config { discard: DiscardPolicy::New, ..by_subject }));
        assert!(thins(&Config { allow_rollup: true, ..Config::default() }));
        assert!(thins(&Config { allow_message_ttl: true, ..Config::default() }));
        assert!(!thins(&Config { max_messages: 5, max_age: Duration::from_secs(5), ..Config::default() }));
    }

    #[test]
    fn subjects_read_all_of_a_stream_where_each_of_its_own_is_taken_and_none_comes_from_elsewhere() {
        let subjects =
            |subjects: &[&str]| subjects.iter().map(|&subject| subject.to_owned()).collect::<Vec<_>>();
        let stream = Config { subjects: subjects(&["a.>", "b"]), ..Config::default() };
        for all in [&[][..], &["a.>", "b"], &["*", "a.>"], &[">"]] {
            assert!(reads_all(&subjects(all), &stream), "{all:?}");
        }
        for some in [&["a.>"][..], &["a.*", "b"]] {
            assert!(!reads_all(&subjects(some), &stream), "{some:?}");
        }
        let sources = Some(vec![async_nats::jetstream::stream::Source::default()]);
        assert!(!reads_all(&subjects(&[">"]), &Config { sources, ..stream }));
        assert!(!reads_all(&subjects(&[">"]), &Config::default()), "a mirror has none of its own");
    }

    #[test]
    fn only_what_is_new_counts() {
        let gap = Gap { from: 5, to: 9, messages: 2 };
        assert_eq!(news(gap, 9), None);
        assert_eq!(news(gap, 6), Some(Gap { from: 7, ..gap }));
        assert_eq!(news(gap, 0), Some(gap));
    }
}
