//! What of a message's subject and headers no text of PostgreSQL's holds.
//!
//! Guarantees: a letter whose subject or headers are not as they were published says so, and has their bytes
//! where there are any. What is read back is what the daemon saw; what cannot be had truly is known by name,
//! so that a retry never stores a value that nobody sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::kept::Kept;
use super::{DeadLetter, Headers};
use crate::batch::headers;
use crate::config::path::{self, Source};
use crate::config::{Compression, Format, Pipeline};
use crate::poison::{Poison, PoisonKind};
use crate::unreadable::{self, RAW_HEADERS, Unreadable, VERSION};

/// What stands for bytes of a subject that are not UTF-8.
const REPLACEMENT: char = '\u{FFFD}';

/// Subject and headers as they were published, where the letter's own are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    /// The subject; empty where it is not UTF-8, since JetStream gives no such bytes out.
    pub subject: Option<Bytes>,
    pub headers: Option<Bytes>,
}

impl Raw {
    /// Of a message that the client library has read, with its headers as a batch holds them.
    pub(crate) fn new(subject: &str, block: &[u8]) -> Self {
        let has_nul = |text: &str| text.contains('\0');
        let nul = headers::read(block).any(|(name, value)| has_nul(name) || has_nul(value));
        Self {
            subject: has_nul(subject).then(|| Bytes::copy_from_slice(subject.as_bytes())),
            headers: nul.then(|| {
                let mut text = format!("{VERSION}\r\n");
                for (name, value) in headers::read(block) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{name}: {value}\r\n");
                }
                (text + "\r\n").into()
            }),
        }
    }
}

impl DeadLetter {
    /// Takes over what [`unreadable`] kept, where the letter is about a message that it has read.
    pub(crate) fn keep_raw(&mut self, poison: &Poison, block: &[u8]) {
        if poison.kind != PoisonKind::Unreadable {
            return;
        }
        if *poison == Poison::from(Unreadable::Subject) {
            self.raw.subject = Some(Bytes::new());
        }
        self.headers = Headers::new(headers::read(block).filter(|(name, _)| *name != RAW_HEADERS));
        let kept = headers::read(block).find(|(name, _)| *name == RAW_HEADERS);
        self.raw.headers = kept.and_then(|(_, text)| STANDARD.decode(text).ok()).map(Bytes::from);
    }
}

/// Subject and headers of a letter, as the daemon saw them.
pub(crate) struct Original {
    pub(crate) subject: String,
    pub(crate) headers: Option<HeaderMap>,
    /// Whether the subject has U+FFFD for bytes that are not to be had.
    lacks_subject: bool,
    /// Headers whose values are not to be had.
    lacks: Vec<String>,
}

impl Original {
    /// Reads a letter.
    pub(crate) fn of(kept: &Kept) -> Self {
        let subject = kept.raw_subject.as_deref().and_then(|raw| str::from_utf8(raw).ok());
        let (headers, lacks) = match &kept.raw_headers {
            None => (kept.headers.as_deref().map(of_json), Vec::new()),
            Some(block) => unreadable::headers(block).map_or_else(
                |_| {
                    let (headers, lacks) = unreadable::salvaged(block);
                    (Some(headers), lacks)
                },
                |headers| (Some(headers), Vec::new()),
            ),
        };
        Self {
            subject: subject.filter(|raw| !raw.is_empty()).unwrap_or(&kept.subject).to_owned(),
            headers,
            lacks_subject: subject == Some(""),
            lacks,
        }
    }

    /// Why the rows of `pipeline` cannot be made: what of the mapping takes something that is not to be had.
    pub(crate) fn lacks(&self, pipeline: &Pipeline) -> Option<String> {
        if !self.lacks_subject && self.lacks.is_empty() {
            return None;
        }
        let lacks = |name: &str| self.lacks.iter().any(|lacking| lacking.eq_ignore_ascii_case(name));
        let subject = |place: String| {
            format!(
                "{place} needs the subject, which is not UTF-8, and JetStream does not return such bytes; \
                 publish the message again with another subject, then discard the letter"
            )
        };
        let header = |place: String, name: &str| {
            format!(
                "{place} needs the header {name}, whose value cannot be read from the broken header block; \
                 publish the message again with headers that can be read, then discard the letter"
            )
        };
        if pipeline.format == Format::Auto && lacks("Content-Type") {
            return Some(header("format = \"auto\"".into(), "Content-Type"));
        }
        if pipeline.compression == Compression::Auto && lacks(Compression::HEADER) {
            return Some(header("compression = \"auto\"".into(), Compression::HEADER));
        }
        for table in &pipeline.tables {
            if let Some(when) = &table.when {
                let place = || format!("the `when` of table {}", table.name);
                // Wildcards take what stands for a token as they would take the token.
                if self.lacks_subject && when.subject.as_ref().is_some_and(|it| it.contains(REPLACEMENT)) {
                    return Some(subject(place()));
                }
                if let Some(name) = when.headers.keys().find(|name| lacks(name)) {
                    return Some(header(place(), name));
                }
            }
            let named = table
                .columns
                .iter()
                .flat_map(|(column, source)| source.named().map(move |text| (column, text)));
            for (column, text) in named {
                let place = || format!("column {column} of table {}", table.name);
                match path::source(text) {
                    Ok(Source::Subject) if self.lacks_subject => return Some(subject(place())),
                    Ok(Source::SubjectToken(at))
                        if self.lacks_subject
                            && self.subject.split('.').nth(at).is_some_and(|it| it.contains(REPLACEMENT)) =>
                    {
                        return Some(subject(place()));
                    }
                    Ok(Source::Header(name)) if lacks(&name) => return Some(header(place(), &name)),
                    _ => {}
                }
            }
        }
        None
    }
}

/// Headers out of `{"name": ["value", …]}`; what could not come over NATS is left out.
fn of_json(json: &str) -> HeaderMap {
    let object: BTreeMap<String, Vec<String>> = serde_json::from_str(json).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, values) in &object {
        let Ok(name) = name.parse::<HeaderName>() else { continue };
        for value in values.iter().filter_map(|value| value.parse::<HeaderValue>().ok()) {
            headers.append(name.clone(), value);
        }
    }
    headers
}
