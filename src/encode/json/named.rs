//! JSON text in which NaN and infinities stand by their names.

use crate::config::NonFinite;
use crate::encode::Fault;
use crate::payload::json::plain_prefix;

use super::NON_FINITE;

/// What a text becomes in which a reader has met such names: they are strings, or null.
#[cold]
pub(super) fn replaced(text: &str, non_finite: NonFinite) -> Result<String, Fault> {
    let mut clean = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.find(['"', 'N', 'I']) {
        let (before, from) = rest.split_at(at);
        let taken = match from.as_bytes()[0] {
            b'"' => {
                let length = string(from);
                clean.push_str(before);
                clean.push_str(&from[..length]);
                length
            }
            first => {
                let (name, before) = match (first, before.strip_suffix('-')) {
                    (b'N', _) => ("NaN", before),
                    (_, Some(before)) => ("-Infinity", before),
                    (_, None) => ("Infinity", before),
                };
                clean.push_str(before);
                match non_finite {
                    NonFinite::Keep => clean.extend(["\"", name, "\""]),
                    NonFinite::Null => clean.push_str("null"),
                    NonFinite::Refuse => return Err(Fault::range(NON_FINITE)),
                }
                name.trim_start_matches('-').len()
            }
        };
        rest = &from[taken..];
    }
    clean.push_str(rest);
    Ok(clean)
}

/// The length of the string that `text` begins with, with its quotes.
fn string(text: &str) -> usize {
    let mut at = 1;
    loop {
        at += plain_prefix(&text.as_bytes()[at..]);
        match text.as_bytes().get(at) {
            // What follows a backslash is no quote that ends it.
            Some(b'\\') => at += 2,
            _ => return (at + 1).min(text.len()),
        }
    }
}
