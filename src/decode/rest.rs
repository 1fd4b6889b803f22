//! `$rest`: what no column takes.
//!
//! Guarantees: of a map that a path goes into, what no path names is part of the rest; a map of which nothing
//! is left is not. An array that indexes go into is part of it as a whole, unless each of its elements is
//! taken: what is left of it would lie at other places. Null, where a path would go into it, is left out.

use crate::config::path::Step;
use crate::encode::json::LONE_SURROGATE;
use crate::encode::{Fault, json as json_text};

use super::takers::Tables;
use crate::payload::{Key, Malformed, Next, Raw, Reader, Value, json, with_reader};

/// A key of whose value something is left out.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) key: Box<[u8]>,
    /// Where one of these tables takes the message, all of the value is.
    whole: Tables,
    /// Else what is, where the value is a map.
    pub(super) inner: Vec<Taken>,
    /// The same where it is an array.
    elements: Vec<Element>,
}

/// An element of which something is taken.
#[derive(Debug, Clone)]
struct Element {
    index: u32,
    /// Where one of these tables takes the message.
    some: Tables,
    /// All of it is, where one of these does.
    whole: Tables,
}

impl Taken {
    /// Whether all of it is left out whatever other tables do.
    pub(super) fn is_own(&self) -> bool {
        self.whole == Tables::ALL
    }

    /// Whether it or something of it is.
    pub(super) fn has_own(&self) -> bool {
        self.is_own()
            || self.inner.iter().any(Self::has_own)
            || self.elements.iter().any(|element| element.some == Tables::ALL)
    }

    /// Whether something of it is left out of a message that the tables of `matched` take.
    fn meets(&self, matched: Tables) -> bool {
        self.whole.meets(matched)
            || self.inner.iter().any(|inner| inner.meets(matched))
            || self.elements.iter().any(|element| element.some.meets(matched))
    }

    /// Whether each element of an array is left out of such a message.
    fn takes_each(&self, array: Raw<'_>, matched: Tables) -> bool {
        let whole =
            |at| self.elements.iter().any(|element| element.index == at && element.whole.meets(matched));
        let mut count = 0;
        let counted = array.each_element(|_| {
            count += 1;
            Ok::<_, Malformed>(())
        });
        counted.is_ok() && (0..count).all(whole)
    }

    fn leave_out_element(&mut self, index: u32, tables: Tables, all: bool) {
        let known = self.elements.iter().position(|element| element.index == index);
        let at = known.unwrap_or_else(|| {
            self.elements.push(Element { index, some: Tables::NONE, whole: Tables::NONE });
            self.elements.len() - 1
        });
        self.elements[at].some |= tables;
        if all {
            self.elements[at].whole |= tables;
        }
    }
}

/// Adds to `taken` what lies at `path`, for messages that one of `tables` takes.
pub(super) fn leave_out(taken: &mut Vec<Taken>, path: &[Step], tables: Tables) {
    let Some((Step::Key(key), path)) = path.split_first() else { return };
    let known = taken.iter().position(|taken| *taken.key == *key.as_bytes());
    let at = known.unwrap_or_else(|| {
        let (inner, elements) = (Vec::new(), Vec::new());
        taken.push(Taken { key: key.as_bytes().into(), whole: Tables::NONE, inner, elements });
        taken.len() - 1
    });
    match path.first() {
        Some(Step::Key(_)) => leave_out(&mut taken[at].inner, path, tables),
        Some(Step::Index(index)) => taken[at].leave_out_element(*index, tables, path.len() == 1),
        None => taken[at].whole |= tables,
    }
}

/// Appends the entries of a map without what is `taken`, as an object; whether there were any.
pub(super) fn rest_of(
    out: &mut Vec<u8>,
    raw: Raw<'_>,
    taken: (&[Taken], Tables),
    scratch: &mut String,
    writer: &mut json_text::Writer<'_>,
) -> Result<bool, Fault> {
    with_reader!(raw, |reader| object(out, reader, taken, scratch, writer))
}

fn object<'a, R: Reader<'a>>(
    out: &mut Vec<u8>,
    mut reader: R,
    (taken, matched): (&[Taken], Tables),
    scratch: &mut String,
    writer: &mut json_text::Writer<'_>,
) -> Result<bool, Fault> {
    out.push(b'{');
    let Next::Map(mut map) = reader.open(&mut Value::Null)? else {
        // An element that is an array has no fields.
        out.push(b'}');
        return Ok(false);
    };
    let (mut members, mut any) = (json_text::Members::default(), false);
    while let Some(key) = reader.key(&mut map)? {
        let value = reader.value(1)?;
        let found = find(key, taken, scratch)?.filter(|taken| taken.meets(matched));
        if found.is_some_and(|taken| taken.whole.meets(matched)) {
            continue;
        }
        let start = out.len();
        let rank = writer.key(out, key)?;
        match (found, value) {
            (None, value) => writer.write(out, value)?,
            (Some(taken), Value::Map(raw))
                if rest_of(out, raw, (&taken.inner, matched), scratch, writer)? => {}
            (Some(taken), Value::Array(raw)) if !taken.takes_each(raw, matched) => {
                writer.write(out, value)?;
            }
            (Some(_), _) => {
                out.truncate(start);
                continue;
            }
        }
        members.add(rank, start);
        any = true;
        out.push(b',');
    }
    members.end(out, writer.nul == json_text::Nul::Refuse);
    out.push(b'}');
    Ok(any)
}

/// Whether something at `key` is left out of a message that the tables of `matched` take.
pub(super) fn is_taken(
    key: Key<'_>,
    taken: &[Taken],
    matched: Tables,
    scratch: &mut String,
) -> Result<bool, Fault> {
    Ok(find(key, taken, scratch)?.is_some_and(|taken| taken.meets(matched)))
}

/// What is left out at `key`; never anything at one that is no text.
fn find<'t>(key: Key<'_>, taken: &'t [Taken], scratch: &mut String) -> Result<Option<&'t Taken>, Fault> {
    let name = match key {
        Key::Plain(name) => name,
        Key::Escaped(name) => {
            scratch.clear();
            json::unescape(name, scratch).map_err(|json::LoneSurrogate| Fault::malformed(LONE_SURROGATE))?;
            scratch.as_bytes()
        }
        Key::Other(_) => return Ok(None),
    };
    Ok(taken.iter().find(|taken| *taken.key == *name))
}
