//! What of a text may reach a terminal.
//!
//! Guarantees: what comes from messages, servers or files moves no cursor, changes no colour or title, and
//! does not turn the order of what is read around: control characters (C0, DEL, C1) and those that set the
//! direction of text are shown as U+FFFD, in JSON as their escapes, which mean the same. Other characters
//! stay, such as ones that look alike.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// Whether a terminal may do something else than show it.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

fn replaced(text: &str, acts: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().any(&acts) {
        Cow::Owned(
            text.chars().map(|character| if acts(character) { '\u{FFFD}' } else { character }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// A text of several lines.
#[must_use]
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |character| acts(character) && !matches!(character, '\n' | '\t'))
}

/// A text within a line.
#[must_use]
pub(crate) fn within(text: &str) -> Cow<'_, str> {
    replaced(text, acts)
}

/// A JSON text that means the same.
#[must_use]
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    // Outside of its strings, JSON has none of them but line ends and tabs; within, those are escaped
    // already.
    let acts = |character: char| acts(character) && !matches!(character, '\n' | '\r' | '\t');
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if acts(character) {
            // Writing to a string cannot fail. All of them are in the first plane.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// Prints a line of a command's answer, as `println!` does.
macro_rules! say {
    ($($words:tt)*) => { $crate::terminal::print(format_args!($($words)*)) };
}
pub(crate) use say;

/// Prints a line of a command's answer. A reader that has seen enough is no failure.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{}", lines(&line.to_string()));
}

/// Takes what was formatted for a log. Values have no ESC in them by then, and its colours are its own.
#[derive(Debug)]
pub(crate) struct Log<W>(pub W);

impl<W: Write> Write for Log<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let harmless = |byte: &u8| byte.is_ascii() && *byte != 0x7F;
        match std::str::from_utf8(buffer) {
            Ok(text) if !buffer.iter().all(harmless) => {
                let shown = replaced(text, |character| {
                    acts(character) && !matches!(character, '\n' | '\t' | '\u{1B}')
                });
                self.0.write_all(shown.as_bytes())?;
            }
            Ok(_) | Err(_) => self.0.write_all(buffer)?,
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\u{1b}]0;t\u{7}\u{9b}2J\u{202e}b\u{2066}\r\u{7f}é→\n";

    #[test]
    fn what_acts_on_a_terminal_is_replaced_and_what_is_read_stays() {
        let shown = lines(NASTY);
        assert_eq!(shown.chars().filter(|character| *character == '\u{FFFD}').count(), 7);
        assert!(shown.ends_with("é→\n") && shown.starts_with('a'));
        assert!(!within(NASTY).contains('\n'));
        assert!(matches!(lines("plain\tü\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_means_the_same_after_it() {
        let value = serde_json::json!({NASTY: [NASTY, 1]});
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = json(&text);
            assert!(!safe.chars().any(|character| acts(character) && character != '\n'), "{safe:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }

    #[test]
    fn a_log_keeps_its_own_colours() {
        let mut log = Log(Vec::new());
        log.write_all("\u{1b}[32m INFO\u{1b}[0m a\u{9b}b\u{202e}c\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(log.0).unwrap(), "\u{1b}[32m INFO\u{1b}[0m a\u{FFFD}b\u{FFFD}c\n");
    }
}
