//! `$rest`: the fields that no column takes.

use crate::encode::json::LONE_SURROGATE;
use crate::encode::{Fault, json as json_text};

use super::json;
use super::plan::Taken;
use super::takers::Tables;
use super::value::{Key, Next, Reader, Value};

/// Appends the entries of a map whose keys are not `taken`.
pub(super) fn rest_of<'a, R: Reader<'a>>(
    out: &mut Vec<u8>,
    mut reader: R,
    (taken, matched): (&[Taken], Tables),
    scratch: &mut String,
    mut writer: json_text::Writer<'_>,
) -> Result<(), Fault> {
    out.push(b'{');
    let Next::Map(mut map) = reader.open(&mut Value::Null)? else {
        // An element that is an array has no fields.
        out.push(b'}');
        return Ok(());
    };
    let mut members = json_text::Members::default();
    while let Some(key) = reader.key(&mut map)? {
        let value = reader.value(1)?;
        if is_taken(key, taken, matched, scratch)? {
            continue;
        }
        let start = out.len();
        let rank = writer.key(out, key)?;
        members.add(rank, start);
        writer.write(out, value)?;
        out.push(b',');
    }
    members.end(out, writer.nul == json_text::Nul::Refuse);
    out.push(b'}');
    Ok(())
}

/// Whether `key` is among those that `taken` leaves out of a message that the tables of `matched` take; a key that is no text
/// never is.
pub(super) fn is_taken(
    key: Key<'_>,
    taken: &[Taken],
    matched: Tables,
    scratch: &mut String,
) -> Result<bool, Fault> {
    let name = match key {
        Key::Plain(name) => name,
        Key::Escaped(name) => {
            scratch.clear();
            json::unescape(name, scratch).map_err(|json::LoneSurrogate| Fault::malformed(LONE_SURROGATE))?;
            scratch.as_bytes()
        }
        Key::Other(_) => return Ok(false),
    };
    Ok(taken.iter().any(|(taken, tables)| **taken == *name && tables.meets(matched)))
}
