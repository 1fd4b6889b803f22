//! Arrays and maps as they were written lately.
//!
//! Messages of one stream carry the same tags, settings and places over and over: of a camera, of a site, of
//! a second. What is in the memory of some hundred values is copied instead of written again, which is a
//! tenth of the work and less.
//!
//! It promises speed only: what is not found is written the long way. Where values do not repeat it soon
//! stops looking, but for a sample. It takes less than a megabyte, whatever comes.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::Nul;
use crate::payload::Format;

/// Sets of two places; each value has a set, where it takes the place of the older one.
const SETS: u32 = 256;

/// Shorter values are written as fast as they are found, bytes.
const SHORTEST: usize = 24;

/// Longer ones seldom repeat, bytes; and the longest text that is kept of one.
const LONGEST: usize = 512;
const LONGEST_TEXT: usize = 1_024;

/// Misses that a find outweighs: looking costs about a twentieth of writing.
const WORTH: u32 = 16;

/// Misses on top of what finds have earned before it stops looking: as many as there are places, so that
/// values that come by turns are found.
const PATIENCE: u32 = 2 * SETS;

/// Values that are not looked for then, after which it tries again: a ninth of the values are looked for
/// where none repeats.
const REST: u32 = 8 * PATIENCE;

/// The last values that were written.
#[derive(Debug)]
pub(crate) struct Texts {
    /// The later one first.
    sets: Box<[[Known; 2]]>,
    hasher: FixedState,
    /// Misses until it rests.
    patience: u32,
    /// Values until it looks again.
    rest: u32,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// As it came.
    value: Vec<u8>,
    /// As JSON.
    text: Vec<u8>,
    /// The format that it came in: the same bytes are something else in another.
    format: Format,
    /// Written for a `jsonb`: in its order, and without NUL.
    binary: bool,
}

/// What is known of a value.
pub(super) enum Found<'t> {
    /// Its text.
    Text(&'t [u8]),
    /// Nothing; it may be kept in that set.
    Set(usize),
    /// It is not looked for.
    Nothing,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            sets: vec![<[Known; 2]>::default(); SETS as usize].into(),
            hasher: FixedState::default(),
            patience: PATIENCE,
            rest: 0,
        }
    }
}

impl Texts {
    /// The text of a value that came as `value`.
    #[inline]
    pub(super) fn find(&mut self, value: &[u8], (format, nul): (Format, Nul)) -> Found<'_> {
        if self.rest > 0 {
            self.rest -= 1;
            return Found::Nothing;
        }
        if !(SHORTEST..=LONGEST).contains(&value.len()) {
            return Found::Nothing;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is less than SETS")]
        let set = (self.hasher.hash_one(value) % u64::from(SETS)) as usize;
        let binary = nul == Nul::Refuse;
        let same = |known: &Known| known.binary == binary && known.format == format && known.value == value;
        if let Some(place) = self.sets[set].iter().position(same) {
            self.patience = (self.patience + WORTH).min(PATIENCE);
            return Found::Text(&self.sets[set][place].text);
        }
        self.patience -= 1;
        if self.patience == 0 {
            self.patience = PATIENCE;
            self.rest = REST;
        }
        Found::Set(set)
    }

    /// Keeps a value that was written as `text`.
    pub(super) fn keep(&mut self, set: usize, value: &[u8], (format, nul): (Format, Nul), text: &[u8]) {
        if text.len() > LONGEST_TEXT {
            return;
        }
        let [later, older] = &mut self.sets[set];
        std::mem::swap(later, older);
        later.value.clear();
        later.value.extend_from_slice(value);
        later.text.clear();
        later.text.extend_from_slice(text);
        later.format = format;
        later.binary = nul == Nul::Refuse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NonFinite;
    use crate::encode::Encoder;
    use crate::encode::time::Times;
    use crate::encode::types::Type;
    use crate::payload::{Raw, Value, msgpack};

    /// Looks for a value and keeps `text` where it is not found; what was found.
    fn meet(texts: &mut Texts, value: &[u8], nul: Nul, text: &str) -> Option<String> {
        match texts.find(value, (Format::Msgpack, nul)) {
            Found::Text(found) => Some(String::from_utf8(found.to_vec()).unwrap()),
            Found::Set(set) => {
                texts.keep(set, value, (Format::Msgpack, nul), text.as_bytes());
                None
            }
            Found::Nothing => None,
        }
    }

    fn value(number: u32) -> Vec<u8> {
        [&number.to_be_bytes(), [0; SHORTEST].as_slice()].concat()
    }

    #[test]
    fn a_value_is_found_as_it_was_written_for_the_same_kind_of_column() {
        let mut texts = Texts::default();
        assert_eq!(meet(&mut texts, &value(1), Nul::Refuse, "{1}"), None);
        assert_eq!(meet(&mut texts, &value(1), Nul::Refuse, "?"), Some("{1}".into()));
        assert_eq!(meet(&mut texts, &value(1), Nul::Keep, "{2}"), None, "json keeps order and NUL");
        assert_eq!(meet(&mut texts, &value(1), Nul::Keep, "?"), Some("{2}".into()));
        assert_eq!(meet(&mut texts, &value(2), Nul::Keep, "{3}"), None);
        let other = texts.find(&value(1), (Format::Json, Nul::Keep));
        assert!(matches!(other, Found::Set(_)), "the same bytes in another format");
    }

    #[test]
    fn a_column_gets_the_same_of_a_value_that_comes_again() {
        let field = |encoder: &mut Encoder, ty: &Type, map: &serde_json::Value| {
            let bytes = rmp_serde::to_vec(map).unwrap();
            let mut out = Vec::new();
            let value = Value::Map(Raw::Msgpack(msgpack::Raw(&bytes)));
            let written = encoder.field(&mut out, ty, Times::default(), value);
            written.map(|_| out)
        };
        let mut encoder = Encoder::new(NonFinite::Keep);
        let ordinary = serde_json::json!({"zone": "north", "gain": 12, "a": [1.5, "\n", null]});
        let with_nul = serde_json::json!({"zone": "north", "text": "\0", "lens": "wide and long"});
        for map in [ordinary, with_nul] {
            for ty in [Type::Json, Type::Jsonb, Type::Text, Type::Json] {
                let first = field(&mut Encoder::new(NonFinite::Keep), &ty, &map);
                for _ in 0..3 {
                    assert_eq!(field(&mut encoder, &ty, &map), first, "{map} as {ty:?}");
                }
            }
        }
    }

    #[test]
    fn short_and_long_ones_are_not_kept() {
        let mut texts = Texts::default();
        for (value, text) in [(vec![0; SHORTEST - 1], "a"), (vec![0; LONGEST + 1], "b")] {
            assert_eq!(meet(&mut texts, &value, Nul::Keep, text), None);
            assert_eq!(meet(&mut texts, &value, Nul::Keep, text), None);
        }
        let long = "x".repeat(LONGEST_TEXT + 1);
        assert_eq!(meet(&mut texts, &value(1), Nul::Keep, &long), None);
        assert_eq!(meet(&mut texts, &value(1), Nul::Keep, &long), None);
    }

    #[test]
    fn values_that_do_not_repeat_are_seldom_looked_for_and_repeated_ones_are_found_again_later() {
        let mut texts = Texts::default();
        let kind = (Format::Msgpack, Nul::Keep);
        let looked = (0..100_000).filter(|&n| !matches!(texts.find(&value(n), kind), Found::Nothing));
        let looked = u32::try_from(looked.count()).unwrap();
        assert!((5_000..15_000).contains(&looked), "{looked}");
        let found = (0..100_000).filter(|n| meet(&mut texts, &value(n % 50), Nul::Keep, "{}").is_some());
        assert!(found.count() > 90_000);
    }
}
