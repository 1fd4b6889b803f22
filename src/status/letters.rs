//! The newest dead letters of a pipeline, for `/status`.
//!
//! Guarantees: bounded, and without a value of any message: the texts of the decoder and the server quote
//! values, so the reason here is made only from the kind and the SQLSTATE. The full text is in
//! `jetcopy.dead_letters`.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use crate::dead_letter::DeadLetter;

/// Number of letters that are kept: enough to see whether they are all alike, few enough for a page.
const KEPT: usize = 8;

/// The newest dead letters, the newest first.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Newest(VecDeque<NewestLetter>);

/// What is shown of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewestLetter {
    /// When it was committed, in RFC 3339.
    #[serde(serialize_with = "super::as_text")]
    pub at: Timestamp,
    /// Sequence in the stream.
    pub sequence: u64,
    /// What kind of fault, as in the metric.
    pub kind: &'static str,
    /// What the server said, where it was the server.
    pub sqlstate: Option<String>,
    /// The kind in words.
    pub reason: String,
    /// Table whose row could not be made, where one was at hand.
    pub table: Option<String>,
    /// Column whose value could not be made, where one was at hand.
    pub column: Option<String>,
}

impl Newest {
    pub(super) fn add(&mut self, letter: &DeadLetter, at: Timestamp) {
        self.0.truncate(KEPT - 1);
        self.0.push_front(NewestLetter::new(letter, at));
    }
}

impl NewestLetter {
    pub(super) fn new(letter: &DeadLetter, at: Timestamp) -> Self {
        Self {
            at,
            sequence: letter.sequence,
            kind: letter.kind,
            sqlstate: letter.sqlstate.clone(),
            reason: reason(letter.kind, letter.sqlstate.as_deref()),
            table: letter.table.clone(),
            column: letter.column.clone(),
        }
    }
}

/// The reason without a value of the message.
#[must_use]
pub fn reason(kind: &str, sqlstate: Option<&str>) -> String {
    match (kind, sqlstate) {
        ("malformed", _) => "not a valid message in the pipeline's format".into(),
        ("missing", _) => "a required field is missing or null".into(),
        ("type", _) => "the value has the wrong type for the column".into(),
        ("too_large", _) => "its rows would exceed the memory limit of one message".into(),
        ("range", _) => "the value is out of range for the column's type".into(),
        (_, Some(sqlstate)) => format!("refused by the server: {}", condition(sqlstate)),
        _ => "refused".into(),
    }
}

/// What a row is refused for, in PostgreSQL's own names (Appendix A of its manual), where it is one of the
/// usual.
fn condition(sqlstate: &str) -> String {
    let name = match sqlstate {
        "22001" => "string_data_right_truncation",
        "22003" => "numeric_value_out_of_range",
        "22008" => "datetime_field_overflow",
        "22021" => "character_not_in_repertoire",
        "22P02" => "invalid_text_representation",
        "22P03" => "invalid_binary_representation",
        "23502" => "not_null_violation",
        "23503" => "foreign_key_violation",
        "23505" => "unique_violation",
        "23514" => "check_violation",
        "23P01" => "exclusion_violation",
        "P0001" => "raise_exception",
        other => return format!("SQLSTATE {other}"),
    };
    format!("{name} ({sqlstate})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(sequence: u64) -> DeadLetter {
        DeadLetter {
            sequence,
            stored_at_ns: 0,
            subject: "frames.secret".into(),
            headers: None,
            raw: crate::dead_letter::Raw::default(),
            payload: "secret".into(),
            kind: "refused",
            sqlstate: Some("23505".into()),
            message: "duplicate key (Key (id)=(secret) already exists)".into(),
            table: Some("events".into()),
            column: None,
            element: None,
            elements: Vec::new(),
        }
    }

    #[test]
    fn the_newest_letters_are_kept_newest_first_and_no_more_than_a_few() {
        let mut newest = Newest::default();
        (1..=KEPT as u64 + 3).for_each(|sequence| newest.add(&letter(sequence), Timestamp::now()));
        assert_eq!(newest.0.len(), KEPT);
        assert_eq!(newest.0[0].sequence, KEPT as u64 + 3);
        assert_eq!(newest.0[KEPT - 1].sequence, 4);
    }

    #[test]
    fn no_value_of_a_message_is_shown() {
        let mut newest = Newest::default();
        newest.add(&letter(1), Timestamp::now());
        let json = serde_json::to_string(&newest).unwrap();
        assert!(!json.contains("secret"), "{json}");
        assert!(json.contains("refused by the server: unique_violation (23505)"), "{json}");
    }

    #[test]
    fn an_unusual_refusal_names_its_sqlstate() {
        assert_eq!(reason("refused", Some("XX000")), "refused by the server: SQLSTATE XX000");
    }
}
