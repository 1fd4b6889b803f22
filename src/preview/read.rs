//! Messages of a stream to look at: the last ones, or those from a sequence on.
//!
//! Guarantees: they are read by `STREAM.MSG.GET` alone, which needs no consumer and changes nothing; of a
//! stream of any length the last ones are found with some hundred questions.

use std::collections::VecDeque;

use crate::stored::{Error, Opened, Stored};
use crate::unreadable::{self, Single};

/// By how much a stretch is longer than the one after it, where that had too few messages.
const WIDER: u64 = 8;

/// The last `count` messages that any of `filters` takes, in stream order; without filters, of all.
pub(crate) async fn last(opened: &Opened, filters: &[String], count: usize) -> Result<Vec<Single>, Error> {
    let state = &opened.cached_info().state;
    let (first, mut high) = (state.first_sequence.max(1), state.last_sequence);
    let mut found = VecDeque::new();
    let mut width = count as u64;
    while found.len() < count && high >= first {
        let low = first.max((high + 1).saturating_sub(width));
        for stored in within(opened, filters, (low, high), count - found.len()).await?.into_iter().rev() {
            found.push_front(stored);
        }
        high = low - 1;
        width = width.saturating_mul(WIDER);
    }
    judged(opened, found.into()).await
}

/// The first `count` messages at or after `sequence`.
pub(crate) async fn from(
    opened: &Opened,
    filters: &[String],
    sequence: u64,
    count: usize,
) -> Result<Vec<Single>, Error> {
    judged(opened, walk(opened, filters, (sequence, u64::MAX), count).await?).await
}

/// The last `count` messages of a stretch.
async fn within(
    opened: &Opened,
    filters: &[String],
    (low, high): (u64, u64),
    count: usize,
) -> Result<Vec<Stored>, Error> {
    // From here on there are fewer than `count`.
    let mut few = high + 1;
    let mut found = walk(opened, filters, (low, high), count + 1).await?;
    while found.len() > count {
        // The second that was found begins a shorter stretch that has as many.
        let many = found.swap_remove(1).sequence;
        let middle = many + (few - many) / 2;
        found = walk(opened, filters, (middle, high), count + 1).await?;
        if found.len() < count {
            few = middle;
            found = walk(opened, filters, (many, high), count + 1).await?;
        }
    }
    Ok(found)
}

/// The first messages of a stretch, at most `most`.
async fn walk(
    opened: &Opened,
    filters: &[String],
    (mut next, high): (u64, u64),
    most: usize,
) -> Result<Vec<Stored>, Error> {
    let mut found = Vec::new();
    while found.len() < most && next <= high {
        let Some(stored): Option<Stored> = opened.first(next, filters).await? else { break };
        if stored.sequence > high {
            break;
        }
        next = stored.sequence + 1;
        found.push(stored);
    }
    Ok(found)
}

async fn judged(opened: &Opened, found: Vec<Stored>) -> Result<Vec<Single>, Error> {
    let stream = &opened.cached_info().config.name;
    let mut singles = Vec::with_capacity(found.len());
    for stored in found {
        singles.push(unreadable::judge(&opened.client, stream, stored).await?);
    }
    Ok(singles)
}
