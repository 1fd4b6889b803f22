//! Whether a stream is the one whose messages are in the tables, whatever it says of when it was created.
//!
//! A stream that was restored from a snapshot, or that a mirror of another name or server took the place of,
//! has another creation time and the same messages, each at its sequence and with the time at which it was
//! first stored. No other stream has a message at the same sequence and at the same microsecond, so that one
//! such message proves all before it.
//!
//! Guarantees: a stream is called the same only where a message that it still holds proves it. Where it holds
//! other messages than those that were committed, reading goes on no later than right after the last one that
//! both have.
//!
//! Where a mirror takes the place of its origin and lacks some of what was committed, it may have taken
//! messages of its own meanwhile. Then the last message that is proven counts ([`Agreement::forked`]), and
//! some after it may come again; a stream that was made after all that was committed has nothing of its own
//! from before, and its messages' times tell the place exactly.
//!
//! Not guaranteed: where a server's clock was set back, or the clocks of two servers differ by more than what
//! passed between.

use async_nats::jetstream::stream::Stream;

use crate::checkpoint::Claim;
use crate::loss::{Agreement, StreamFacts};
use crate::milestones::Milestone;
use crate::nats::{self, Denial};
use crate::stored::{self, Opened, Seen};

/// Compares a stream with what was committed of the one that the checkpoint counts in; `None` where nothing
/// proves that it is the same.
pub(crate) async fn recognise(
    stream: &Opened,
    claim: &Claim,
    milestones: &[Milestone],
) -> Result<Option<Agreement>, stored::Error> {
    let (checkpoint, state) = (claim.last_sequence, &stream.cached_info().state);
    let (first, last) = (state.first_sequence, state.last_sequence);
    let mut marks = milestones.to_vec();
    if let Some(stored_us) = claim.last_timestamp_us {
        marks.push(Milestone { sequence: checkpoint, stored_us });
    }
    marks.sort_unstable_by_key(|mark| mark.sequence);
    // The lowest that the stream does not have, and the lowest that is at the checkpoint or after it.
    let (mut other, mut after, mut proven) = (None, None, None);
    for &mark in marks.iter().rev().filter(|mark| mark.sequence >= first) {
        match at(stream, mark.sequence, last).await? {
            Some(stored_us) if stored_us == mark.stored_us => {
                proven = Some(mark.sequence);
                break;
            }
            // A message that was deleted says nothing, and has its time nevertheless.
            None if mark.sequence <= last => {
                after = (mark.sequence >= checkpoint).then_some(mark).or(after);
            }
            Some(_) | None => other = Some(mark),
        }
    }
    let Some(proven) = proven else { return Ok(None) };
    let whole = Agreement { proven, kept: None, forked: false };
    if proven >= checkpoint {
        return Ok(Some(whole));
    }
    let Some(bound) = other.or(after) else {
        return Ok(Some(Agreement { proven, kept: Some(proven), forked: false }));
    };
    let end = last.min(bound.sequence.saturating_sub(u64::from(other.is_some())));
    let kept = no_later(stream, proven, end, bound.stored_us).await?;
    let next: Option<Seen> = stream.first(kept + 1, &[]).await?;
    if kept >= checkpoint || other.is_none() && next.as_ref().is_none_or(|next| next.sequence > checkpoint) {
        return Ok(Some(whole));
    }
    // What is older than the stream itself was copied into it. A mirror that was there before may have taken
    // messages of its own, while others came to its origin: then times tell nothing.
    let newest = marks.iter().map(|mark| i128::from(mark.stored_us)).max().unwrap_or(i128::MAX);
    let created_us = stream.cached_info().created.unix_timestamp_nanos().div_euclid(1_000);
    let before = |message: &Seen| i128::from(message.timestamp_ns.div_euclid(1_000)) <= newest;
    let forked = created_us <= newest || next.as_ref().is_some_and(before);
    let kept = if forked { proven } else { kept };
    Ok(Some(Agreement { proven, kept: Some(kept), forked }))
}

/// Whether the stream holds what was committed, or has held it, also where it was restored or moved and no
/// daemon has met it since.
pub(crate) async fn is_same(
    stream: &Opened,
    claim: &Claim,
    milestones: &[Milestone],
) -> Result<bool, stored::Error> {
    let created_us = stream.cached_info().created.unix_timestamp_nanos().div_euclid(1_000);
    match claim.stream_created_ns {
        Some(ns) if i128::from(ns.div_euclid(1_000)) != created_us => {
            let agreement = recognise(stream, claim, milestones).await?;
            Ok(agreement.is_some_and(|agreement| agreement.kept.is_none()))
        }
        _ => Ok(true),
    }
}

/// When the stream stored the message at `sequence`, in microseconds; `None` where it has none.
async fn at(stream: &Opened, sequence: u64, last: u64) -> Result<Option<i64>, stored::Error> {
    if sequence > last {
        return Ok(None);
    }
    let found: Option<Seen> = stored::at(&stream.client, &stream.cached_info().config.name, sequence).await?;
    Ok(found.map(|message| message.timestamp_ns.div_euclid(1_000)))
}

/// The last sequence from `low` to `high` that the stream stored no later than `timestamp_us`, where `low` is
/// known to be. Times rise with sequences unless the server's clock was set back.
async fn no_later(stream: &Opened, low: u64, high: u64, timestamp_us: i64) -> Result<u64, stored::Error> {
    let (mut kept, mut later) = (low, high + 1);
    while later - kept > 1 {
        let middle = kept + (later - kept) / 2;
        // The message at `middle`, or the next one where it was deleted.
        let message: Option<Seen> = stream.first(middle, &[]).await?;
        if message.is_some_and(|message| message.timestamp_ns.div_euclid(1_000) <= timestamp_us) {
            kept = middle;
        } else {
            later = middle;
        }
    }
    Ok(kept)
}

/// The last sequence that the stream stored no later than `timestamp_us`, right before its first when it
/// holds none.
pub(crate) async fn kept_sequence(stream: &Opened, timestamp_us: i64) -> Result<u64, stored::Error> {
    let state = &stream.cached_info().state;
    no_later(stream, state.first_sequence.saturating_sub(1), state.last_sequence, timestamp_us).await
}

/// What the stream says of itself, compared with the checkpoint and the milestones as far as it is needed.
/// Where single messages may not be read, sequences and creation times are all that is compared.
pub(crate) async fn facts(
    nats: &nats::Connection,
    stream: &Stream,
    claim: &Claim,
    milestones: &[Milestone],
) -> Result<StreamFacts, stored::Error> {
    let mut facts = read_facts(nats, stream, claim.last_sequence).await;
    let opened = Opened { client: nats.client.clone(), stream: stream.clone() };
    if facts.is_another(claim) {
        facts.agreement = tokio::select! {
            agreement = recognise(&opened, claim, milestones) => agreement?,
            _ = nats.denied(Denial::about_single) => None,
        };
    } else if let Some(timestamp_us) = claim.last_timestamp_us
        && facts.contradicts(claim)
    {
        facts.kept_sequence = Some(kept_sequence(&opened, timestamp_us).await?);
    }
    Ok(facts)
}

async fn read_facts(nats: &nats::Connection, stream: &Stream, checkpoint: u64) -> StreamFacts {
    let info = stream.cached_info();
    let state = &info.state;
    let holds = (state.first_sequence..=state.last_sequence).contains(&checkpoint);
    let checkpoint_timestamp_us = if checkpoint > 0 && holds {
        let message = tokio::select! {
            message = stored::at::<Seen>(&nats.client, &info.config.name, checkpoint) => message,
            // The comparison of sequences and creation times stays.
            _ = nats.denied(Denial::about_single) => Ok(None),
        };
        match message {
            // A deleted message leaves no more than that either.
            Ok(message) => message.map(|message| message.timestamp_ns.div_euclid(1_000)),
            Err(error) => {
                tracing::debug!(%error, "cannot read the message at the checkpoint");
                None
            }
        }
    } else {
        None
    };
    StreamFacts {
        created_ns: i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX),
        first_sequence: state.first_sequence,
        last_sequence: state.last_sequence,
        checkpoint_timestamp_us,
        kept_sequence: None,
        agreement: None,
        narrow: false,
        thins: None,
    }
}
