//! Keys of objects as they were written lately.
//!
//! Messages of one stream carry the same few keys over and over. What is known of a key (that it is text, has
//! nothing to escape, and where it stands in the order of `jsonb`) is looked up instead of found out again,
//! which was a fifth of what an object cost.
//!
//! It promises speed only: a key that is not found is written the long way. It takes a few kilobytes,
//! whatever comes.

use super::members::rank;

/// Places; each key has one, and a later key of the same place takes it over.
const PLACES: usize = 128;

/// The longest key that is kept, with its two quotes and the colon. With the other fields it is a cache line.
const LONGEST: usize = 54;

/// The last keys that were written.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    places: Box<[Known]>,
}

/// A key as it stands in an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// `"key":`
    text: [u8; LONGEST],
    /// Length of the text; 0 where there is none yet.
    length: u8,
    /// Its rank in the order of `jsonb`.
    pub(super) rank: u64,
}

impl Known {
    #[inline]
    pub(super) fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    /// Whether it is `key`'s.
    #[inline]
    fn is(&self, key: &[u8]) -> bool {
        usize::from(self.length) == key.len() + 3 && self.text[1..=key.len()] == *key
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { places: vec![Known { text: [0; LONGEST], length: 0, rank: 0 }; PLACES].into() }
    }
}

impl Keys {
    /// What is known of `key`.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<&Known> {
        Some(&self.places[place(key)]).filter(|known| known.is(key))
    }

    /// Keeps a key that was written as `text`, colon included, unless it is long or has escapes.
    pub(super) fn keep(&mut self, key: &[u8], text: &[u8]) {
        if text.len() == key.len() + 3 && text.len() <= LONGEST {
            let known = &mut self.places[place(key)];
            known.text[..text.len()].copy_from_slice(text);
            known.length = u8::try_from(text.len()).unwrap_or(0);
            known.rank = rank(key);
        }
    }
}

/// Mixes length, begin and end of a key.
#[inline]
fn place(key: &[u8]) -> usize {
    let (begin, end) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(begin), Some(end)) => (u64::from_le_bytes(*begin), u64::from_le_bytes(*end)),
        _ => match (key.first_chunk::<4>(), key.last_chunk::<4>()) {
            (Some(begin), Some(end)) => (u32::from_le_bytes(*begin).into(), u32::from_le_bytes(*end).into()),
            _ => (key.first().copied().unwrap_or(0).into(), key.last().copied().unwrap_or(0).into()),
        },
    };
    // A multiplier with well mixed bits, 2⁶⁴ over the golden ratio; the product's top bits depend on all of
    // the input.
    let mixed = (begin ^ end.rotate_left(32) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    #[expect(clippy::cast_possible_truncation, reason = "it is less than PLACES")]
    let place = (mixed >> (u64::BITS - PLACES.trailing_zeros())) as usize;
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_as_it_was_written_and_another_of_its_place_is_not() {
        let mut keys = Keys::default();
        for key in ["", "a", "zone", "firmware", "a_longer_one_of_several_words"] {
            assert!(keys.find(key.as_bytes()).is_none());
            keys.keep(key.as_bytes(), format!("\"{key}\":").as_bytes());
            let known = keys.find(key.as_bytes()).unwrap();
            assert_eq!((known.text(), known.rank), (format!("\"{key}\":").as_bytes(), rank(key.as_bytes())));
        }
        let same_place = (0..100_000)
            .map(|n| format!("k{n}"))
            .find(|key| place(key.as_bytes()) == place(b"zone"))
            .unwrap();
        assert!(keys.find(same_place.as_bytes()).is_none());
    }

    #[test]
    fn keys_with_escapes_and_long_ones_are_not_kept() {
        let mut keys = Keys::default();
        keys.keep(b"\n", b"\"\\n\":");
        let long = "x".repeat(LONGEST);
        keys.keep(long.as_bytes(), format!("\"{long}\":").as_bytes());
        assert!(keys.find(b"\n").is_none() && keys.find(long.as_bytes()).is_none());
    }
}
