//! Questions on a terminal.
//!
//! Guarantees: without a terminal nothing is asked, and each question has the answer that changes nothing.

use std::io::{self, IsTerminal as _, Write as _};

/// Whether somebody is there to answer.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// An answer, or what stands there if it is empty.
pub(super) fn text(question: &str, usual: &str) -> io::Result<String> {
    if !is_possible() {
        return Ok(usual.to_owned());
    }
    let answer = asked(&format!("{question} [{usual}]: "))?;
    Ok(if answer.is_empty() { usual.to_owned() } else { answer })
}

/// Whether the answer is yes.
pub(super) fn yes(question: &str) -> io::Result<bool> {
    if !is_possible() {
        return Ok(false);
    }
    let answer = asked(&format!("{question} [y/N] "))?.to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

fn asked(text: &str) -> io::Result<String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
