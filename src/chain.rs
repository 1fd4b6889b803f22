//! An error with all its causes, for a log line or a person.
//!
//! Guarantees: one line, whatever the server said, in which no cause repeats what was said before it.

use std::error::Error as StdError;
use std::fmt::Write as _;

/// An error and all that caused it, in one line.
#[must_use]
pub(crate) fn chain(error: &dyn StdError) -> String {
    // A server's details come on lines of their own.
    let line = |error: &dyn StdError| error.to_string().trim_end().replace('\n', "; ");
    let mut text = line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        // Transparent variants say the same as their source.
        let said = line(error);
        if !text.ends_with(&said) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}
