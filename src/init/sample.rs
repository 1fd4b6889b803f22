//! The messages that a proposal is made from: the last ones, and others spread over the stream.
//!
//! Guarantees: they are read one by one over JetStream's API; no consumer is made. Each is looked at once.

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::decode::{as_json, expanded_as_json};
use crate::payload::compression::{Codec, Compression};
use crate::payload::expand::Expander;
use crate::preview::read;
use crate::stored::{Error, Opened, Stored};
use crate::unreadable::{self, Single};

/// Questions to the server at a time.
const AT_A_TIME: usize = 16;

/// What was looked at.
pub(crate) struct Sample {
    /// In stream order.
    pub(crate) singles: Vec<Single>,
    /// The payloads of those that can be read, with the place of each in `singles`.
    pub(crate) values: Vec<(usize, Value)>,
    /// The compression that neither headers nor payloads tell.
    pub(crate) compression: Option<&'static str>,
    /// Whether these are all messages that the stream holds.
    pub(crate) is_all: bool,
}

/// Reads up to `count` messages: half of them the last ones.
pub(crate) async fn read(opened: &Opened, count: usize) -> Result<Sample, Error> {
    let state = &opened.cached_info().state;
    let (first, last, messages) = (state.first_sequence.max(1), state.last_sequence, state.messages);
    let is_all = messages <= count as u64;
    let recent = if is_all { count } else { count.div_ceil(2) };
    let newest = read::last(opened, &[], recent).await?;
    let before = newest.first().map_or(first, |single| single.message.sequence);
    let mut singles = Vec::new();
    if !is_all && before > first {
        let (span, parts) = (before - first, (count - recent) as u64);
        let places = (0..parts).map(|part| {
            first + u64::try_from(u128::from(span) * u128::from(part) / u128::from(parts)).unwrap_or(0)
        });
        let ask = |place: u64| async move { opened.first::<Stored>(place, &[]).await };
        let mut found: Vec<Stored> = futures_util::stream::iter(places)
            .map(ask)
            .buffered(AT_A_TIME)
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await?;
        found.retain(|stored| stored.sequence < before);
        found.dedup_by_key(|stored| stored.sequence);
        let stream = &opened.cached_info().config.name;
        for stored in found {
            singles.push(unreadable::judge(&opened.client, stream, stored).await?);
        }
    }
    debug_assert!(last >= before || is_all);
    singles.extend(newest);
    let compression = compression(&singles);
    let values = singles.iter().enumerate();
    let values = values.filter_map(|(place, single)| Some((place, value(single, compression)?))).collect();
    Ok(Sample { singles, values, compression: compression.map(Codec::name), is_all })
}

/// The codec of payloads that nothing else can be told of: the one by which each can be read.
fn compression(singles: &[Single]) -> Option<Codec> {
    let silent: Vec<&Single> = singles.iter().filter(|single| value(single, None).is_none()).collect();
    if silent.is_empty() {
        return None;
    }
    Codec::ALL.into_iter().find(|codec| silent.iter().all(|single| value(single, Some(*codec)).is_some()))
}

/// The payload of a message, where it is an object or an array.
fn value(single: &Single, codec: Option<Codec>) -> Option<Value> {
    let message = &single.message;
    let encoding = message.headers.as_ref().and_then(|headers| headers.get(Compression::HEADER));
    // What no header tells is for the configuration to say.
    let told = match encoding {
        Some(encoding) => expanded_as_json(&message.payload, Some(encoding.as_str())),
        None => as_json(&message.payload),
    };
    let text = told.or_else(|| {
        let most = usize::try_from(Compression::default_bound().as_u64()).unwrap_or(usize::MAX);
        Expander::new(most).expand(codec?, &message.payload).ok().and_then(as_json)
    })?;
    serde_json::from_str(&text).ok()
}
