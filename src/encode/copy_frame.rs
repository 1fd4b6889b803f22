//! The frame of a binary `COPY` and the fields that jetcopy writes on its own account (dead letters, tests).
//!
//! Guarantees: what these functions append is a well-formed part of the stream [`HEADER`], tuples
//! ([`tuple()`] and as many fields), [`TRAILER`]. They do not check a text for NUL, which the server refuses.

use std::fmt;

/// What every binary `COPY` starts with: signature, no flags, no header extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What every binary `COPY` ends with: a field count of −1.
pub const TRAILER: [u8; 2] = [0xff, 0xff];

/// Length that stands for NULL.
pub const NULL: [u8; 4] = [0xff; 4];

/// The longest field: the server allocates no more than 1 GiB − 1 for a value, its own header of 4 bytes
/// included.
pub const MAX_FIELD: usize = (1 << 30) - 1 - 4;

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
pub const EPOCH_US: i64 = 946_684_800_000_000;

/// A value longer than [`MAX_FIELD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value is longer than PostgreSQL's limit of 1 GiB for a field")
    }
}

impl std::error::Error for TooLong {}

/// Starts a tuple of `fields` fields.
pub fn tuple(out: &mut Vec<u8>, fields: i16) {
    out.extend_from_slice(&fields.to_be_bytes());
}

/// The fields of a tuple, in order; `None` is NULL. What is cut short ends them.
pub fn fields(tuple: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = tuple.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (field, after) = after.split_at_checked(length.unwrap_or(0))?;
        rest = after;
        Some(length.map(|_| field))
    })
}

/// Appends NULL.
pub fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&NULL);
}

/// Appends a field of two bytes: `smallint`.
pub fn int2(out: &mut Vec<u8>, value: i16) {
    fixed::<2, 6>(out, value.to_be_bytes());
}

/// Appends a field of four bytes: `integer`, `date`.
pub fn int4(out: &mut Vec<u8>, value: i32) {
    fixed::<4, 8>(out, value.to_be_bytes());
}

/// Appends a field of eight bytes: `bigint`, and times in their own unit.
pub fn int8(out: &mut Vec<u8>, value: i64) {
    fixed::<8, 12>(out, value.to_be_bytes());
}

/// Appends a `boolean`.
pub fn bool(out: &mut Vec<u8>, value: bool) {
    fixed::<1, 5>(out, [u8::from(value)]);
}

/// Appends a `timestamptz` from nanoseconds since the Unix epoch, rounded down to the microsecond.
pub fn timestamptz(out: &mut Vec<u8>, unix_ns: i64) {
    int8(out, unix_ns.div_euclid(1_000) - EPOCH_US);
}

/// Appends a `text`, `varchar`, `json` or enum.
pub fn text(out: &mut Vec<u8>, value: &str) -> Result<(), TooLong> {
    bytes(out, value.as_bytes())
}

/// Appends a `bytea`, or any field that is its bytes.
pub fn bytes(out: &mut Vec<u8>, value: &[u8]) -> Result<(), TooLong> {
    out.extend_from_slice(&length(value.len())?);
    out.extend_from_slice(value);
    Ok(())
}

/// Appends a `jsonb` from JSON text.
pub fn jsonb(out: &mut Vec<u8>, json: &[u8]) -> Result<(), TooLong> {
    sized(out, |out| {
        out.push(JSONB_VERSION);
        out.extend_from_slice(json);
        Ok(())
    })
}

/// The version byte in front of a `jsonb`'s text; there has been no other.
pub const JSONB_VERSION: u8 = 1;

/// Appends a field whose length is known once `write` has written it.
pub fn sized<E: From<TooLong>>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&NULL);
    write(out)?;
    let length = length(out.len() - start - NULL.len())?;
    out[start..start + length.len()].copy_from_slice(&length);
    Ok(())
}

fn length(bytes: usize) -> Result<[u8; 4], TooLong> {
    if bytes > MAX_FIELD {
        return Err(TooLong);
    }
    u32::try_from(bytes).map(u32::to_be_bytes).map_err(|_| TooLong)
}

/// Appends length and value in one piece, which is one capacity check. `FIELD` is `WIDTH` + 4.
#[inline]
fn fixed<const WIDTH: usize, const FIELD: usize>(out: &mut Vec<u8>, value: [u8; WIDTH]) {
    const { assert!(FIELD == WIDTH + 4 && WIDTH < 256) };
    let mut field = [0; FIELD];
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let width = WIDTH as u8;
    field[3] = width;
    field[4..].copy_from_slice(&value);
    out.extend_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_fields_carry_their_length_and_big_endian_value() {
        let mut out = Vec::new();
        int2(&mut out, -2);
        int4(&mut out, 1);
        int8(&mut out, 258);
        bool(&mut out, true);
        null(&mut out);
        assert_eq!(
            out,
            [
                &[0, 0, 0, 2, 0xff, 0xfe][..],
                &[0, 0, 0, 4, 0, 0, 0, 1],
                &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2],
                &[0, 0, 0, 1, 1],
                &[0xff, 0xff, 0xff, 0xff],
            ]
            .concat()
        );
    }

    #[test]
    fn a_tuple_is_taken_apart_into_what_it_was_made_of() {
        let mut out = Vec::new();
        tuple(&mut out, 3);
        int2(&mut out, 7);
        null(&mut out);
        text(&mut out, "").unwrap();
        let found: Vec<_> = fields(&out).collect();
        assert_eq!(found, [Some(&[0, 7][..]), None, Some(&[])]);
        assert_eq!(fields(&out[..9]).count(), 1);
    }

    #[test]
    fn jsonb_carries_its_version_inside_its_length() {
        let mut out = Vec::new();
        jsonb(&mut out, b"{}").unwrap();
        assert_eq!(out, [0, 0, 0, 3, 1, b'{', b'}']);
    }

    #[test]
    fn timestamptz_counts_microseconds_from_2000() {
        let mut out = Vec::new();
        timestamptz(&mut out, 946_684_800_000_001_999);
        assert_eq!(out, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
