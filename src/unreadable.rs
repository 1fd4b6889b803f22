//! Messages that the client library cannot read: what they are, and the way past them.
//!
//! A server stores any header block and any subject without spaces. On a subscription, `async-nats` ends the
//! connection at one that it cannot parse, and would do so at each attempt. So after a lost connection the
//! next messages are read one by one ([`crate::stored`]), as long as unreadable ones are among them.
//!
//! Guarantees: a message is called unreadable for its own bytes and for nothing else, however connections
//! end. What is read here becomes what a subscription would have made of it, or [`Unreadable`] with all that
//! there is.
//!
//! Not guaranteed: the subject of a message with headers as it was published, where it begins or ends with
//! blanks of Unicode; the library drops those silently.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config;
use crate::message::Message;
use crate::poison::{Poison, PoisonKind};
use crate::shard::Shard;
use crate::stored::{self, Seen, Stored};

/// What a header block begins with.
pub(crate) const VERSION: &str = "NATS/1.0";

/// The header that carries the whole block in base64 to the dead letter, beside those headers that can be
/// read.
pub(crate) const RAW_HEADERS: &str = "Jetcopy-Raw-Headers";

/// Readable messages in a row after which the stretch is over: one publisher in ten that writes broken
/// headers is passed without a new connection for each of its messages.
const READABLE_IN_A_ROW: usize = 20;

/// Messages of a stretch at most: what they become is one batch.
const MOST: usize = 200;

/// How long a stretch may take: one message a round trip, and rows that wait meanwhile are to be seen.
const LONGEST: Duration = Duration::from_secs(1);

/// What stands for bytes of a subject that are not UTF-8.
const REPLACEMENT: char = '\u{FFFD}';

/// A message that was read by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Single {
    /// The message; an unreadable one has those headers that can be read, and [`RAW_HEADERS`].
    pub message: Message,
    /// Why the client library cannot read it.
    pub unreadable: Option<Unreadable>,
}

/// Why the client library cannot read a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The line that announces it is not UTF-8.
    #[error("its subject is not UTF-8")]
    Subject,
    /// The line that announces a message with headers is split at any blank.
    #[error("its subject contains a space, and it has headers")]
    Blank,
    /// Bytes beyond UTF-8.
    #[error("its headers are not UTF-8")]
    NotUtf8,
    /// The first line is another, or missing.
    #[error("its headers do not begin with {VERSION}")]
    Version,
    /// The first line has more that is no status.
    #[error("the first line of its headers has a status that is not a three-digit number")]
    Status,
    /// A line without a colon.
    #[error("a line of its headers has no colon")]
    Line,
    /// A name that HTTP would not have either.
    #[error("a header name has characters other than visible ASCII")]
    Name,
    /// A carriage return within a value: the library panics.
    #[error("a header value contains a carriage return")]
    Value,
}

impl Unreadable {
    /// What the client library makes of a message, whose subject `is_utf8` or is not.
    fn check(stored: &Stored, is_utf8: bool) -> Result<Option<HeaderMap>, Self> {
        if !is_utf8 {
            return Err(Self::Subject);
        }
        if stored.headers.is_empty() {
            return Ok(None);
        }
        let subject = stored.subject.trim();
        if subject.is_empty() || subject.contains(char::is_whitespace) {
            return Err(Self::Blank);
        }
        headers(&stored.headers).map(Some)
    }
}

impl From<Unreadable> for Poison {
    fn from(reason: Unreadable) -> Self {
        Self {
            kind: PoisonKind::Unreadable,
            message: format!("the NATS client cannot read the message: {reason}"),
            table: None,
            column: None,
        }
    }
}

/// Reads a header block just as the client library does.
pub(crate) fn headers(block: &[u8]) -> Result<HeaderMap, Unreadable> {
    let text = str::from_utf8(block).map_err(|_| Unreadable::NotUtf8)?;
    let mut lines = text.lines().peekable();
    let first = lines.next().and_then(|line| line.strip_prefix(VERSION)).ok_or(Unreadable::Version)?.trim();
    let status = first.split_once(' ').map_or(first, |(status, _)| status.trim());
    if !status.is_empty() && StatusCode::from_str(status).is_err() {
        return Err(Unreadable::Status);
    }
    let mut headers = HeaderMap::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(Unreadable::Line)?;
        let name = HeaderName::from_str(name).map_err(|_| Unreadable::Name)?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        let value = HeaderValue::from_str(value.trim_end()).map_err(|_| Unreadable::Value)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Those headers of a block that can be read line by line, and the names of those whose values are not
/// certain: with a line that cannot be read, or with such a line after theirs, which may go on with them.
pub(crate) fn salvaged(block: &[u8]) -> (HeaderMap, Vec<String>) {
    let (mut headers, mut lacks, mut last) = (HeaderMap::new(), Vec::new(), None::<HeaderName>);
    for line in block.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line == VERSION.as_bytes() {
            continue;
        }
        let mut parts = line.splitn(2, |&byte| byte == b':').map(|part| str::from_utf8(part).ok());
        let name = parts.next().flatten().and_then(|name| HeaderName::from_str(name).ok());
        let value = parts.next().flatten().and_then(|value| HeaderValue::from_str(value.trim()).ok());
        // A line without a colon has no name.
        let name = name.filter(|_| line.contains(&b':'));
        match (name, value) {
            (Some(name), Some(value)) => {
                headers.append(name.clone(), value);
                last = Some(name);
            }
            (Some(name), None) => {
                lacks.push(name.to_string());
                last = Some(name);
            }
            (None, _) => lacks.extend(last.as_ref().map(HeaderName::to_string)),
        }
    }
    (headers, lacks)
}

/// The next messages after `checkpoint`, if the first of them is unreadable or it is to be `anyway`: until
/// some in a row are readable.
pub(crate) async fn stretch(
    client: &Client,
    pipeline: &config::Pipeline,
    shard: &Shard,
    checkpoint: u64,
    max_bytes: usize,
    anyway: bool,
) -> Result<Vec<Single>, stored::Error> {
    let started = Instant::now();
    let stream = shard.stream.as_str();
    let (mut found, mut readable, mut bytes) = (Vec::new(), 0, 0);
    let mut next = checkpoint + 1;
    while found.len() < MOST && bytes < max_bytes && started.elapsed() < LONGEST {
        let found_next = stored::first(client, stream, next, &pipeline.subjects).await?;
        let Some(stored): Option<Stored> = found_next else { break };
        next = stored.sequence + 1;
        let single = judge(client, stream, stored).await?;
        bytes += single.message.payload.len() + single.message.headers.as_ref().map_or(0, memory_of);
        readable = if single.unreadable.is_some() { 0 } else { readable + 1 };
        if found.is_empty() && readable > 0 && !anyway {
            return Ok(found);
        }
        found.push(single);
        if readable == READABLE_IN_A_ROW {
            break;
        }
    }
    Ok(found)
}

/// About what a map of headers takes: each name a place in it and three allocations, each value one.
fn memory_of(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(_, values)| 200 + values.iter().map(|value| 32 + value.as_str().len()).sum::<usize>())
        .sum()
}

/// A message that was read by itself, as a subscription would have brought it, or why it could not.
pub(crate) async fn judge(client: &Client, stream: &str, stored: Stored) -> Result<Single, stored::Error> {
    let is_utf8 = !stored.subject.contains(REPLACEMENT) || is_replacement(client, stream, &stored).await?;
    let (headers, unreadable) = match Unreadable::check(&stored, is_utf8) {
        Ok(headers) => (headers, None),
        Err(reason) if stored.headers.is_empty() => (None, Some(reason)),
        Err(reason) => {
            let (mut headers, _) = salvaged(&stored.headers);
            headers.insert(RAW_HEADERS, STANDARD.encode(&stored.headers));
            (Some(headers), Some(reason))
        }
    };
    let Stored { sequence, timestamp_ns, subject, payload, .. } = stored;
    let (subject, payload) = (subject.into(), payload.into());
    Ok(Single { message: Message { sequence, timestamp_ns, subject, payload, headers }, unreadable })
}

/// Whether the subject itself has the character by which the API replaces what is not UTF-8: then, and only
/// then, it is found by it. A subject that is a filter of others too is found either way, and no publisher
/// may use such a one.
async fn is_replacement(client: &Client, stream: &str, stored: &Stored) -> Result<bool, stored::Error> {
    let mut tokens = stored.subject.split('.');
    if tokens.any(|token| token == "*" || token == ">") {
        return Ok(false);
    }
    let found: Option<Seen> = stored::from(client, stream, stored.sequence, &stored.subject).await?;
    Ok(found.is_some_and(|found| found.sequence == stored.sequence))
}

#[cfg(test)]
mod tests;
