//! The headers of messages, back to back in one buffer.
//!
//! Guarantees: what [`read`] gives is what [`append`] took, in any order. A header map takes some hundred
//! bytes a header, a buffer takes what the headers themselves do and eight more.

use async_nats::HeaderMap;

/// Appends the headers of one message.
pub fn append(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, values) in headers.iter() {
        for value in values {
            part(out, name.as_ref());
            part(out, value.as_str());
        }
    }
}

/// Names and values of what [`append`] has appended.
pub fn read(mut headers: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || Some((next(&mut headers)?, next(&mut headers)?)))
}

fn part(out: &mut Vec<u8>, text: &str) {
    // Headers are part of a message, and the largest is far shorter than 4 GiB.
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn next<'h>(headers: &mut &'h [u8]) -> Option<&'h str> {
    let (length, rest) = headers.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *headers = rest;
    // It was appended as text.
    str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_appended() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("a", ""), ("b", "two: three")] {
            headers.append(name, value);
        }
        let mut buffer = Vec::new();
        append(&mut buffer, &headers);
        let mut found: Vec<_> = read(&buffer).collect();
        found.sort_by_key(|(name, _)| *name);
        assert_eq!(found, [("a", "1"), ("a", ""), ("b", "two: three")]);
        assert_eq!(read(&[]).count(), 0);
    }
}
