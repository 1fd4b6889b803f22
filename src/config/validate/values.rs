//! Finds functions of a column that make no sense together, whatever the column is.
//!
//! Guarantees: a problem names its key and what would be right. Whether they go with the column's type is
//! asked of the table.

use super::Problems;
use crate::config::{DetailedSource, Offset};

/// Digits after the point that say something of a float near 1.
const MOST_DECIMALS: u8 = 15;
const MOST_BITS: u8 = 52;

/// Looks at the functions of a column.
pub(super) fn check(source: &DetailedSource, key: &str, found: &mut Problems) {
    rounding(source, key, found);
    if let Some(from) = &source.from {
        if from.0.is_empty() {
            found.add(format!("{key}.from"), "names no source: name one, or remove it");
        }
        let mut names = from.0.iter().enumerate();
        if let Some((_, twice)) = names.find(|(at, name)| from.0[..*at].contains(name)) {
            found.add(format!("{key}.from"), format!("names `{twice}` twice"));
        }
    }
    if source.lower && source.upper {
        found.add(key, "a text is in one case: use `lower` or `upper`");
    }
    if source.truncate == Some(0) || source.substring.is_some_and(|(_, count)| count == 0) {
        found.add(key, "a text of no characters says nothing: keep one at least");
    }
    if source.scale.is_some_and(|scale| scale == 0.0 || !scale.is_finite()) {
        found.add(format!("{key}.scale"), "must be a number other than 0");
    }
    if matches!(source.offset, Some(Offset::Number(offset)) if !offset.is_finite()) {
        found.add(format!("{key}.offset"), "must be a number");
    }
    let Some(map) = &source.map else { return };
    if map.is_empty() {
        found.add(format!("{key}.map"), "has no entry, so it refuses all values: add some, or remove it");
    }
    let others = [
        ("scale", source.scale.is_some()),
        ("offset", source.offset.is_some()),
        ("unit", source.unit.is_some()),
        ("round", source.round.is_some()),
        ("round_bits", source.round_bits.is_some()),
        ("parse", source.parse.is_some()),
    ];
    for (other, _) in others.iter().filter(|(_, given)| *given) {
        found.add(key, format!("`map` says what the column holds, so `{other}` has no effect: remove one"));
    }
}

fn rounding(source: &DetailedSource, key: &str, found: &mut Problems) {
    if source.round.is_some() && source.round_bits.is_some() {
        found.add(key, "a number is rounded once: use `round` or `round_bits`");
    }
    for (name, digits, most) in
        [("round", source.round, MOST_DECIMALS), ("round_bits", source.round_bits, MOST_BITS)]
    {
        if digits.is_some_and(|digits| digits > most) {
            found.add(format!("{key}.{name}"), format!("must be at most {most}: a float has no more digits"));
        }
    }
}
