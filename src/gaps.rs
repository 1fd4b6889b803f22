//! Jumps in stream sequences, checked against the stream.
//!
//! Guarantees: a gap between two deliveries is taken for messages that were removed on purpose only when the
//! stream holds none of the pipeline's messages in it and its front has not passed it. One that the stream
//! still holds was skipped by the durable (somebody edited it, reset it or pulls from it), and the generation
//! ends before anything after it is committed. A front that has passed means that messages may have been
//! dropped before they were read. On a stream that removes messages from its middle by itself, a gap is
//! [superseded], never made on purpose.
//!
//! A message that came without its payload, as `headers_only` on the durable makes it, is a gap too: the
//! stream is asked whether it has one.
//!
//! With `subjects`, most jumps are messages of other subjects. Up to [`MOST_ASKED`] of them in a batch are
//! all checked. Of more, as a backlog has them, the widest and a part of the others are, and the durable's
//! settings are looked at: what is not seen then is a filter that was changed and put back within the time of
//! one batch, and skipped only messages in narrow gaps.

use std::sync::Arc;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Config as Wanted;
use async_nats::jetstream::context::{Context, RequestError};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, HeaderMap};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;

use crate::batch::{Batch, Gap};
use crate::checkpoint::Claim;
use crate::clock::Clock;
use crate::config::{self, OnSuperseded};
use crate::nats::{Connection, Denial};
use crate::shard::Shard;
use crate::stored;
use crate::subscribe;
use crate::superseded;

/// Every subject.
const ALL: &str = ">";

/// The header by which the server says how large the payload is that it left out.
const MESSAGE_SIZE: &str = "Nats-Msg-Size";

/// Questions that are on the way at once. Measured on one server over loopback, more gain nothing.
const AT_ONCE: usize = 64;

/// Gaps of a batch up to which each is asked about by itself: the list of all that was removed is one answer,
/// but it can be long.
const FEW: usize = 32;

/// Removed sequences in the stream's list that cost about as much as one question.
const REMOVED_PER_QUESTION: usize = 100;

/// The longest list of removed sequences that is asked for: 8 MB of memory, and as much on the way.
const MOST_REMOVED: u64 = 1_000_000;

/// Gaps that are asked about in one batch of a pipeline with `subjects`: some 15 ms on one server over
/// loopback, a tenth of what a full batch takes.
pub(crate) const MOST_ASKED: usize = 512;

/// Why gaps could not be passed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A delivery was lost.
    #[error("the stream holds message {sequence}, but the durable consumer skipped it")]
    Skipped {
        /// Stream sequence of the first such message.
        sequence: u64,
    },
    /// The durable delivers headers only.
    #[error(
        "message {sequence} arrived without its payload; the durable consumer was changed to headers_only"
    )]
    Stripped {
        /// Stream sequence of the first such message.
        sequence: u64,
    },
    /// The server does not let the user ask.
    #[error("jetcopy's user may not {0}")]
    Denied(Denial),
    /// A message that came without a payload could not be read.
    #[error("cannot read a message that arrived without its payload")]
    Message(#[from] stored::Error),
    /// Somebody changed the durable.
    #[error("the durable consumer was changed")]
    Changed,
    /// The durable could not be read.
    #[error(transparent)]
    Durable(#[from] subscribe::Error),
    /// No answer, or none that can be read.
    #[error("cannot read what the stream holds")]
    Unanswered(#[from] RequestError),
    /// The server refuses the question.
    #[error("the server does not report what the stream holds")]
    Refused(#[source] jetstream::Error),
}

/// Asks a stream for the messages of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    nats: Connection,
    context: Context,
    stream: String,
    /// Subject of the question.
    question: String,
    /// Those that narrow the stream, or all.
    subjects: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<jetstream::Error>,
    message: Option<Found>,
}

/// What is needed of a message; its bytes are left aside, since the client library cannot read all that
/// servers store.
#[derive(Deserialize)]
struct Found {
    seq: u64,
}

impl Contents {
    /// What the stream of a shard of `pipeline` holds for it.
    #[must_use]
    pub(crate) fn new(nats: &Connection, pipeline: &config::Pipeline, shard: &Shard) -> Self {
        let all = [ALL.to_owned()];
        let subjects = if pipeline.subjects.is_empty() { &all[..] } else { &pipeline.subjects };
        Self {
            context: jetstream::new(nats.client.clone()),
            nats: nats.clone(),
            stream: shard.stream.clone(),
            question: format!("STREAM.MSG.GET.{}", shard.stream),
            subjects: subjects.to_vec(),
        }
    }

    /// What it holds for anybody.
    fn of_all(&self) -> Self {
        Self { subjects: vec![ALL.to_owned()], ..self.clone() }
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    pub(crate) fn client(&self) -> &Client {
        &self.nats.client
    }

    /// The sequence of the first message at or after `sequence`.
    pub(crate) async fn next(&self, sequence: u64) -> Result<Option<u64>, Error> {
        tokio::select! {
            next = self.ask(sequence) => next,
            // What is not allowed is not answered.
            denial = self.nats.denied(Denial::about_single) => Err(Error::Denied(denial)),
        }
    }

    async fn ask(&self, sequence: u64) -> Result<Option<u64>, Error> {
        let mut first = None;
        for subject in &self.subjects {
            let question = json!({"seq": sequence, "next_by_subj": subject});
            let answer: Answer = self.context.request(self.question.clone(), &question).await?;
            match (answer.message, answer.error) {
                (Some(found), _) => first = Some(first.map_or(found.seq, |first: u64| first.min(found.seq))),
                (None, Some(error)) if error.error_code() != ErrorCode::NO_MESSAGE_FOUND => {
                    return Err(Error::Refused(error));
                }
                (None, _) => {}
            }
        }
        Ok(first)
    }

    /// Whether the stream holds a payload at `sequence`, or nothing any more.
    async fn has_payload(&self, sequence: u64) -> Result<bool, Error> {
        let message = tokio::select! {
            message = stored::at(&self.nats.client, &self.stream, sequence) => message?,
            denial = self.nats.denied(Denial::about_single) => return Err(Error::Denied(denial)),
        };
        Ok(message.is_none_or(|message: stored::Stored| !message.payload.is_empty()))
    }
}

/// Whether a message without a payload seems to have lost it on the way. Publishers may set the header, too.
#[must_use]
pub(crate) fn seems_stripped(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|headers| headers.get_all(MESSAGE_SIZE).any(|size| size.as_str().trim() != "0"))
}

pub(crate) struct Gaps {
    contents: Contents,
    stream: Stream,
    pipeline: config::Pipeline,
    shard: Shard,
    wanted: Wanted,
    removed: Removed,
    /// The server's.
    clock: Arc<Clock>,
    /// Up to here it is no news what the stream lacks.
    known: u64,
    /// When the stream stored the message before the batch, in nanoseconds since the Unix epoch.
    after_ns: Option<i64>,
}

/// What came of checking gaps.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// The index of the first gap over which somebody has to decide: messages may have been dropped before
    /// they were read.
    pub dropped: Option<usize>,
    /// Before that: what the stream has removed by itself, and the pipeline goes on past.
    pub superseded: Vec<Gap>,
}

/// What the stream said it had removed from its middle. Sequences are never given twice, so that this stays
/// true.
#[derive(Debug, Default)]
struct Removed {
    /// In order.
    sequences: Vec<u64>,
}

impl Removed {
    /// Whether all of `gap` was removed.
    fn holds(&self, gap: &Gap) -> bool {
        self.missing(gap).is_none()
    }

    /// The first sequence of `gap` that was not removed.
    fn missing(&self, gap: &Gap) -> Option<u64> {
        let start = self.sequences.partition_point(|&sequence| sequence < gap.from);
        let mut removed = self.sequences[start..].iter();
        (gap.from..=gap.to).find(|sequence| removed.next() != Some(sequence))
    }
}

impl Gaps {
    /// Those of the shard of `pipeline` that reads `stream`.
    #[must_use]
    pub(crate) fn new(
        contents: Contents,
        stream: Stream,
        consumer: &PullConsumer,
        pipeline: config::Pipeline,
        shard: Shard,
        claim: &Claim,
        clock: Arc<Clock>,
    ) -> Self {
        let wanted = subscribe::allowed_config(&pipeline, consumer);
        let after_ns = claim.since_us.map(|us| us.saturating_mul(1_000));
        let (removed, known) = (Removed::default(), claim.known_sequence);
        Self { contents, stream, pipeline, shard, wanted, removed, clock, known, after_ns }
    }

    /// Checks messages that [seem stripped](seems_stripped) of their payloads.
    pub(crate) async fn check_stripped(&self, messages: &[Gap]) -> Result<(), Error> {
        let contents = &self.contents;
        let questions = messages.iter().map(|message| message.from).collect::<Vec<_>>();
        let questions = questions
            .into_iter()
            .map(|sequence| async move { Ok::<_, Error>((sequence, contents.has_payload(sequence).await?)) });
        let mut answers = stream::iter(questions).buffered(AT_ONCE);
        while let Some((sequence, has_payload)) = answers.try_next().await? {
            if has_payload {
                return Err(Error::Stripped { sequence });
            }
        }
        Ok(())
    }

    /// Checks the gaps of `batch` that were not checked yet.
    pub(crate) async fn check(&mut self, batch: &Batch) -> Result<Checked, Error> {
        let gaps = batch.unchecked_gaps();
        let Some(front) = self.not_held(gaps).await? else { return Ok(Checked::default()) };
        let info = self.stream.get_info().await?;
        let front = front.max(info.state.first_sequence);
        let passed = gaps.iter().position(|gap| gap.from < front);
        let since = |index: usize| batch.stored_before(&gaps[index]).or(self.after_ns);
        // Which of several limits it was, nobody can tell; none of them drops what is behind the front.
        let by_limits = passed.filter(|&index| {
            let since_us = since(index).map(|ns| ns.div_euclid(1_000));
            superseded::dropped_by_limits(&info, since_us, &self.clock.read())
        });
        if !superseded::thins(&info.config) {
            let dropped = passed.filter(|&index| !superseded::skips(&info.config, since(index).is_some()));
            return Ok(Checked { dropped: dropped.or(by_limits), superseded: Vec::new() });
        }
        let told = by_limits.map_or(gaps, |index| &gaps[..index]);
        // Others' messages leave jumps too.
        let all = superseded::reads_all(&self.pipeline.subjects, &info.config);
        let told = told.iter().enumerate().filter(|(_, gap)| all || gap.from < front);
        let told = told.filter_map(|(index, &gap)| Some((index, superseded::news(gap, self.known)?)));
        let told = self.empty(told.collect(), front).await?;
        if self.pipeline.superseded() == OnSuperseded::Halt {
            let dropped = told.first().map(|&(index, _)| index).or(by_limits);
            return Ok(Checked { dropped, superseded: Vec::new() });
        }
        Ok(Checked { superseded: told.into_iter().map(|(_, gap)| gap).collect(), dropped: by_limits })
    }

    /// Of gaps in a stream whose subjects are all read now, those that hold no message of one that it took
    /// once.
    async fn empty(&self, told: Vec<(usize, Gap)>, front: u64) -> Result<Vec<(usize, Gap)>, Error> {
        if self.whole() {
            return Ok(told);
        }
        let contents = &self.contents.of_all();
        let questions = told.into_iter().map(|(index, gap)| async move {
            let next = if gap.to < front { None } else { contents.next(gap.from.max(front)).await? };
            Ok::<_, Error>(next.is_none_or(|next| next > gap.to).then_some((index, gap)))
        });
        stream::iter(questions).buffered(AT_ONCE).try_filter_map(async |told| Ok(told)).try_collect().await
    }

    /// Notes when the stream stored the last message that is not in the batch any more.
    pub(crate) fn sent(&mut self, batch: &Batch) {
        self.after_ns = batch.messages.last().map(|message| message.timestamp_ns).or(self.after_ns);
    }

    fn whole(&self) -> bool {
        self.pipeline.subjects.is_empty()
    }

    /// Makes sure that the stream holds nothing in the gaps, which come in its order. A sequence that its
    /// front had reached by then at least; `None` where all gaps are known to have been removed from a stream
    /// that does so on purpose only.
    async fn not_held(&mut self, gaps: &[Gap]) -> Result<Option<u64>, Error> {
        let mut open: Vec<Gap> = gaps.iter().copied().filter(|gap| !self.removed.holds(gap)).collect();
        let Some(last) = open.last() else {
            let thins = superseded::thins(&self.stream.cached_info().config);
            return Ok((thins && !gaps.is_empty()).then_some(0));
        };
        let whole = self.whole();
        if whole
            && open.len() > FEW
            && let Some(first) = self.list(open.len(), last.to).await?
        {
            for gap in open.iter().filter(|gap| gap.from >= first) {
                if let Some(sequence) = self.removed.missing(gap) {
                    return Err(Error::Skipped { sequence });
                }
            }
            return Ok(Some(first));
        }
        if !whole && open.len() > MOST_ASKED {
            self.look_at_durable().await?;
            open = part(open);
        }
        let contents = &self.contents;
        let questions = open
            .into_iter()
            .map(|gap| async move { Ok::<_, Error>((gap.to, contents.next(gap.from).await?)) });
        let mut answers = stream::iter(questions).buffered(AT_ONCE);
        while let Some((to, next)) = answers.try_next().await? {
            if let Some(sequence) = next.filter(|&next| next <= to) {
                return Err(Error::Skipped { sequence });
            }
        }
        // The front is read after the questions: what they did not find, it had passed by then.
        Ok(Some(0))
    }

    /// Reads what was removed from the stream, where that costs less than `questions`; its first sequence
    /// then.
    async fn list(&mut self, questions: usize, last: u64) -> Result<Option<u64>, Error> {
        let worth = (questions as u64).saturating_mul(REMOVED_PER_QUESTION as u64).min(MOST_REMOVED);
        let removed = self.stream.get_info().await?.state.deleted_count.unwrap_or(0);
        if removed > worth {
            return Ok(None);
        }
        let state = self.stream.info_builder().with_deleted(true).fetch().await?.info.state;
        self.removed.sequences = state.deleted.unwrap_or_default();
        self.removed.sequences.sort_unstable();
        tracing::debug!(removed, last, "read what was removed from the stream");
        Ok(Some(state.first_sequence))
    }

    async fn look_at_durable(&self) -> Result<(), Error> {
        match subscribe::find(&self.stream, &self.shard).await? {
            Some(found) if subscribe::matches(&found.config, &self.wanted) => Ok(()),
            _ => Err(Error::Changed),
        }
    }
}

/// [`MOST_ASKED`] of the gaps: the widest, since a durable that skips messages makes wide ones, and an even
/// part of the others.
fn part(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(gap.to - gap.from));
    let others = gaps.split_off(MOST_ASKED / 2);
    let step = others.len().div_ceil(MOST_ASKED / 2);
    gaps.extend(others.into_iter().step_by(step.max(1)));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: u64, to: u64) -> Gap {
        Gap { from, to, messages: 0 }
    }

    #[test]
    fn a_gap_is_removed_only_where_each_of_its_sequences_is() {
        let removed = Removed { sequences: vec![3, 4, 5, 9] };
        assert!(removed.holds(&gap(3, 5)) && removed.holds(&gap(4, 4)) && removed.holds(&gap(9, 9)));
        assert_eq!(removed.missing(&gap(2, 4)), Some(2));
        assert_eq!(removed.missing(&gap(4, 9)), Some(6));
        assert_eq!(removed.missing(&gap(9, 10)), Some(10));
        assert_eq!(Removed::default().missing(&gap(1, 1)), Some(1));
    }

    #[test]
    fn of_too_many_gaps_the_widest_and_a_part_of_the_others_are_asked_about() {
        let mut gaps: Vec<Gap> = (0..10_000).map(|at| gap(at * 100, at * 100 + at % 3)).collect();
        gaps[7_777].to += 90;
        let wide = gaps[7_777];
        let asked = part(gaps);
        assert!(asked.len() <= MOST_ASKED && asked.len() > MOST_ASKED / 2, "{}", asked.len());
        assert!(asked.contains(&wide));
    }
}
