//! Why a message cannot become rows.
//!
//! Guarantees: the kinds are few, and each is one label of metrics and one value of
//! `jetcopy.dead_letters.kind`. What the server refuses has a kind of its own (`refused`) and is no
//! [`Poison`]. How many dead letters are normal is decided where they are written.

/// Why a message cannot become rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// What kind of fault: the metric's label and the dead letter's `kind`.
    pub kind: PoisonKind,
    /// What was found and what was expected, for a person; holds no payload beyond a short excerpt.
    pub message: String,
    /// Table whose row could not be made, where one was at hand.
    pub table: Option<String>,
    /// Column whose value could not be made, where one was at hand.
    pub column: Option<String>,
}

/// Kinds of poison that the client sees by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoisonKind {
    /// Not valid in its format, or cut short, or nested too deep.
    Malformed,
    /// A required field is absent or null.
    Missing,
    /// The value does not fit the column's type.
    Type,
    /// The value fits the type but not its range.
    Range,
    /// No table takes the message.
    Unmatched,
    /// The client library cannot read it, so it never came to be decoded.
    Unreadable,
    /// Its rows would take more memory than those of one message may.
    TooLarge,
}

impl PoisonKind {
    /// Label value of metrics and value of `jetcopy.dead_letters.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Range => "range",
            Self::Unmatched => "unmatched",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
        }
    }
}
