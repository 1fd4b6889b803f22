//! The rows of a dead letter, by the configuration of today.
//!
//! Guarantees: a letter about elements becomes the rows of those elements alone, and one that is refused
//! again keeps all that it holds of its message.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Prepared;
use crate::batch::{Excluded, Row, Rows, TableRows};
use crate::config;
use crate::dead_letter::kept::Kept;
use crate::dead_letter::{DeadLetter, Headers, Original, Raw, add_element};
use crate::message::Message;
use crate::poison::Poison;

/// One letter on its way.
pub(super) struct Attempt {
    pub(super) letter: DeadLetter,
    pub(super) rows: Rows,
    /// What of them does not go out.
    pub(super) excluded: Excluded,
    /// The letters of elements that are refused.
    pub(super) refused: Vec<DeadLetter>,
}

/// The letter's rows, or the letter with the reason why there are none.
pub(super) fn decode(
    prepared: &mut Prepared,
    pipeline: &config::Pipeline,
    kept: &Kept,
    original: Original,
    payload: &[u8],
    stored_at_us: i64,
) -> Result<Attempt, Box<DeadLetter>> {
    let Original { subject, headers, .. } = original;
    let bytes = |raw: &Option<Vec<u8>>| raw.as_deref().map(Bytes::copy_from_slice);
    let letter = DeadLetter {
        sequence: u64::try_from(kept.sequence).unwrap_or(0),
        stored_at_ns: stored_at_us.saturating_mul(1_000),
        subject,
        headers: headers.as_ref().map(Headers::from),
        raw: Raw { subject: bytes(&kept.raw_subject), headers: bytes(&kept.raw_headers) },
        payload: Bytes::copy_from_slice(payload),
        kind: "",
        sqlstate: None,
        message: String::new(),
        table: None,
        column: None,
        element: kept.element.and_then(|element| u32::try_from(element).ok()),
        elements: kept.elements.iter().flatten().filter_map(|&element| u32::try_from(element).ok()).collect(),
    };
    let message = Message {
        sequence: letter.sequence,
        timestamp_ns: letter.stored_at_ns,
        subject: letter.subject.as_str().into(),
        payload: letter.payload.clone(),
        headers,
    };
    let mut rows = Rows::new(pipeline.tables.len());
    if let Err(poison) = prepared.decoder.decode(&message, 0, &mut rows) {
        return Err(with_reason(&letter, &poison).into());
    }
    let Some(element) = letter.element else {
        let refused = std::mem::take(&mut rows.refused);
        let mut letters = Vec::new();
        for refused in refused.iter() {
            let found = with_reason(&letter, &refused.poison);
            add_element(&mut letters, DeadLetter { element: refused.element, ..found });
        }
        return Ok(Attempt { letter, rows, excluded: Excluded::default(), refused: letters });
    };
    let wanted: BTreeSet<u32> = letter.elements.iter().copied().chain([element]).collect();
    let mut refused = Vec::new();
    for found in rows.refused.iter().filter(|found| found.poison.table == kept.table) {
        let Some(place) = found.element.filter(|place| wanted.contains(place)) else { continue };
        let letter = with_reason(&letter, &found.poison);
        if wanted.len() == 1 {
            return Err(letter.into());
        }
        add_element(&mut refused, DeadLetter { element: Some(place), elements: Vec::new(), ..letter });
    }
    // A table may be filled in several ways, told apart by `when`. An element that no table took may become
    // rows of any.
    let of_any = kept.table.is_none();
    let mut ways = 0;
    for (table, rows) in pipeline.tables.iter().zip(&mut rows.tables) {
        let meant = table.for_each.is_some() && (of_any || Some(&table.name) == kept.table.as_ref());
        *rows = if meant { only(rows, &wanted) } else { TableRows::default() };
        ways += usize::from(!rows.rows.is_empty());
    }
    if ways > 1 && !of_any || ways == 0 && refused.is_empty() {
        let message = if ways == 0 {
            format!("the message no longer makes a row of element {element} in this table")
        } else {
            format!(
                "several mappings of this table make rows of element {element}: which one failed is not known"
            )
        };
        return Err(Box::new(DeadLetter { kind: "missing", message, table: kept.table.clone(), ..letter }));
    }
    Ok(Attempt { letter, rows, excluded: Excluded::default(), refused })
}

/// The rows of some elements.
fn only(rows: &TableRows, elements: &BTreeSet<u32>) -> TableRows {
    let mut kept = TableRows::default();
    for (index, row) in (0..).zip(&rows.rows).filter(|(_, row)| elements.contains(&row.element)) {
        let start = u32::try_from(kept.data.len()).unwrap_or(u32::MAX);
        kept.data.extend_from_slice(&rows.data[rows.range(index)]);
        kept.rows.push(Row { start, ..*row });
    }
    kept
}

fn with_reason(letter: &DeadLetter, poison: &Poison) -> DeadLetter {
    DeadLetter {
        kind: poison.kind.as_str(),
        message: poison.message.clone(),
        table: poison.table.clone(),
        column: poison.column.clone(),
        ..letter.clone()
    }
}
