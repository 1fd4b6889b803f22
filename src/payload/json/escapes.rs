//! What the escapes of JSON's texts stand for.
//!
//! Guarantees: a text whose form was checked becomes the text that it stands for, or is known to be none. It
//! does not check the form.

/// Why escaped text is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoneSurrogate;

/// Appends to `out` what `escaped` stands for; its form has been checked.
pub(crate) fn unescape(escaped: &str, out: &mut String) -> Result<(), LoneSurrogate> {
    unescape_within(escaped, out, usize::MAX)
}

/// The same, which may stop once `out` has more than `most` bytes.
pub(crate) fn unescape_within(escaped: &str, out: &mut String, most: usize) -> Result<(), LoneSurrogate> {
    let mut rest = escaped;
    while let Some(backslash) = rest.find('\\') {
        if out.len() > most {
            return Ok(());
        }
        out.push_str(&rest[..backslash]);
        let (character, length) = unescape_one(&rest[backslash + 1..])?;
        out.push(character);
        rest = &rest[backslash + 1 + length..];
    }
    out.push_str(rest);
    Ok(())
}

/// Reads what stands after a backslash: the character meant, and the length of what it was read from.
pub(crate) fn unescape_one(text: &str) -> Result<(char, usize), LoneSurrogate> {
    let character = match text.as_bytes().first() {
        Some(b'u') => return unicode(text),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(itself) => char::from(*itself),
        None => return Err(LoneSurrogate),
    };
    Ok((character, 1))
}

/// Reads `uXXXX`, or `uXXXX\uXXXX` of a surrogate pair; the character and the length of what it was read
/// from.
fn unicode(text: &str) -> Result<(char, usize), LoneSurrogate> {
    let unit = |at: usize| text.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let first = unit(1).ok_or(LoneSurrogate)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 5));
    }
    let second = if text.get(5..7) == Some("\\u") { unit(7) } else { None };
    match second {
        Some(low @ 0xdc00..=0xdfff) if first < 0xdc00 => {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            char::from_u32(code).map(|character| (character, 11)).ok_or(LoneSurrogate)
        }
        _ => Err(LoneSurrogate),
    }
}
