//! Poison messages, stored in the transaction that moves the checkpoint past them.
//!
//! Guarantees: nothing in a message (subject, headers, payload) or in the reason it was refused can make the
//! server refuse the dead letter. Where text holds what PostgreSQL's text cannot, NUL, the replacement
//! character U+FFFD stands in its place, and the bytes are kept beside ([`Raw`]); the payload is stored byte
//! for byte, in the first letter of its message alone.
//!
//! It neither counts nor caps: that a flood of poison pauses the pipeline is its caller's doing. It holds no
//! copy of a giant's payload.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

pub(crate) mod kept;
pub(crate) mod of_shard;
mod raw;
mod store;

pub(crate) use raw::Original;
pub(crate) use raw::Raw;
pub(crate) use store::store;

/// Longest reason that is kept, in bytes. The server quotes values in its messages, and they may be megabytes
/// long; the payload holds them anyway.
const MAX_MESSAGE: usize = 4096;

/// A letter that was retried in vain stays, with what was found this time.
const RESTATE: &str = "UPDATE jetcopy.dead_letters
    SET kind = $2, sqlstate = $3, message = $4, table_name = $5, column_name = $6, failed_at = now()
        WHERE id = $1";

/// A message, or an element of it, that can never become rows, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub sequence: u64,
    /// When the stream stored it: nanoseconds since the Unix epoch.
    pub stored_at_ns: i64,
    pub subject: String,
    /// Headers, where there were any.
    pub headers: Option<Headers>,
    /// What of the two is kept as bytes beside.
    pub raw: Raw,
    /// Payload as published: the whole message, also where only an element of it is at fault.
    pub payload: Bytes,
    /// What kind of fault, one of a few: also the metric's label.
    pub kind: &'static str,
    /// What the server said, where it was the server.
    pub sqlstate: Option<String>,
    /// The reason, for a person.
    pub message: String,
    /// Table whose row could not be made, where one was at hand.
    pub table: Option<String>,
    /// Column whose value could not be made, where one was at hand.
    pub column: Option<String>,
    /// Place in its array, from 0, of the one element of `table` that this is about; all others became rows
    /// or dead letters of their own. Of several, the first.
    pub element: Option<u32>,
    /// All of them, where it is about several.
    pub elements: Vec<u32>,
}

/// Elements of a message and a table that have a letter each. Where more are refused, one letter is about all
/// of them: what is wrong with so many is one thing, and they would fill the table.
const FEW: usize = 10;

/// Adds the letter of an element to those of its batch: as it is, or where its message has several of its
/// table already, to the one that is about all of these.
pub(crate) fn add_element(letters: &mut Vec<DeadLetter>, letter: DeadLetter) {
    let Some(place) = letter.element else {
        letters.push(letter);
        return;
    };
    let same = |other: &DeadLetter| {
        other.sequence == letter.sequence && other.table == letter.table && other.element.is_some()
    };
    let mut known = letters.iter_mut().filter(|other| same(other));
    let Some(first) = known.next() else {
        letters.push(letter);
        return;
    };
    if !first.elements.is_empty() {
        first.elements.push(place);
        return;
    }
    let mut others: Vec<u32> = known.filter_map(|other| other.element).collect();
    if others.len() + 1 < FEW {
        letters.push(letter);
        return;
    }
    first.elements.extend(first.element);
    first.elements.append(&mut others);
    first.elements.push(place);
    letters.retain(|other| !same(other) || !other.elements.is_empty());
}

/// Headers as a JSON object that `jsonb` takes: `{"name": ["value", …]}`. The letters of one message share
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers(Arc<str>);

impl Headers {
    /// Those of one message, by name and value; `None` where there are none.
    pub fn new<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Option<Self> {
        let mut all: Vec<(Cow<'_, str>, &str)> =
            headers.map(|(name, value)| (storable(name), value)).collect();
        // By name alone, so that values stay in their order. Two names can become one by the replacement of
        // NUL; no value is lost by it.
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        if all.is_empty() {
            return None;
        }
        let mut json =
            String::with_capacity(all.iter().map(|(name, value)| name.len() + value.len() + 8).sum());
        for (index, (name, value)) in all.iter().enumerate() {
            if index > 0 && all[index - 1].0 == *name {
                json.push(',');
            } else {
                json.push_str(if index > 0 { "]," } else { "{" });
                json.push_str(&quoted(name));
                json.push_str(":[");
            }
            json.push_str(&quoted(&storable(value)));
        }
        json.push_str("]}");
        Some(Self(json.into()))
    }
}

/// `text` as JSON has it.
fn quoted(text: &str) -> String {
    // Text can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

impl From<&HeaderMap> for Headers {
    fn from(headers: &HeaderMap) -> Self {
        let all = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        Self::new(all.map(|(name, value)| (name.as_ref(), value.as_str()))).unwrap_or(Self("{}".into()))
    }
}

impl DeadLetter {
    /// The reason as it is stored.
    pub(crate) fn reason(&self) -> Cow<'_, str> {
        let message = &self.message[..self.message.floor_char_boundary(MAX_MESSAGE)];
        match self.element {
            Some(first) if !self.elements.is_empty() => {
                let count = self.elements.len();
                storable(&format!("{count} of its elements cannot be stored; element {first}: {message}"))
                    .into_owned()
                    .into()
            }
            Some(_) | None => storable(message),
        }
    }
}

/// `text` without what no PostgreSQL text can hold.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}").into() } else { text.into() }
}

/// As much of what the server says as a letter keeps: it may quote a giant.
fn start(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_MESSAGE)]
}

/// The letter of a message with a row that the server refused.
pub(crate) fn refused_letter(original: DeadLetter, error: &tokio_postgres::Error) -> DeadLetter {
    let mut letter = DeadLetter { kind: "refused", ..original };
    match error.as_db_error() {
        Some(refusal) => {
            letter.sqlstate = Some(refusal.code().code().to_owned());
            start(refusal.message()).clone_into(&mut letter.message);
            if let Some(detail) = refusal.detail() {
                // Writing to a string cannot fail.
                let _ = write!(letter.message, " ({})", start(detail));
            }
            letter.column = refusal.column().map(str::to_owned);
        }
        None => letter.message = error.to_string(),
    }
    letter
}

/// Gives the letter `id` the reason of `letter`, in the transaction that is open on `client`.
pub(crate) async fn restate(
    client: &Client,
    id: i64,
    letter: &DeadLetter,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute_typed(
            RESTATE,
            &[
                (&id, Type::INT8),
                (&letter.kind, Type::TEXT),
                (&letter.sqlstate, Type::TEXT),
                (&letter.reason(), Type::TEXT),
                (&letter.table.as_deref().map(storable), Type::TEXT),
                (&letter.column.as_deref().map(storable), Type::TEXT),
            ],
        )
        .await
        .map(drop)
}

#[cfg(test)]
mod tests;
