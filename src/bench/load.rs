//! The messages of the load: MessagePack of a chosen size, with a chosen number of rows each.
//!
//! Guarantees: a message depends only on the shape and its number, and is at most as large as requested; its
//! filling does not compress. Creating one costs little more than copying it.

use bytes::Bytes;
use rmp::encode as msgpack;

use super::Error;

/// Cameras that the messages come from by turns, as many as a site may have.
const CAMERAS: u64 = 16;
/// Characters that the filling is drawn from: six random bits in each byte, which no compression of the way
/// makes small.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// How far the fillings of two messages in a row are apart in the pool; a prime, so that few begin at the
/// same place.
const STRIDE: usize = 509;
/// Places in the pool where a filling may begin.
const PLACES: usize = 16 * 1_024;

/// Columns of the table that takes the messages, as SQL.
pub const COLUMNS: &str = "seq bigint NOT NULL, time timestamptz NOT NULL, camera_id text NOT NULL, value \
                           double precision, data text";

/// What a message looks like.
#[derive(Debug, Clone)]
pub struct Shape {
    rows: usize,
    /// Characters that fill up each row.
    filling: usize,
    pool: String,
}

impl Shape {
    /// Messages of at most `payload` bytes with `rows` rows in each.
    pub fn new(payload: usize, rows: usize) -> Result<Self, Error> {
        let empty = Self { rows: rows.max(1), filling: 0, pool: String::new() };
        let least = empty.size();
        if payload < least {
            return Err(Error::TooSmall { payload, rows: empty.rows, least });
        }
        let mut shape = Self { filling: (payload - least) / empty.rows, ..empty };
        // A longer text has a longer head.
        shape.pool = pool(PLACES + shape.filling);
        while shape.size() > payload && shape.filling > 0 {
            shape.filling -= 1;
        }
        Ok(shape)
    }

    /// Rows in each message.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of a message.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message(0, u64::MAX).len()
    }

    /// The message of that number, made at `time`, in microseconds since the Unix epoch.
    #[must_use]
    pub fn message(&self, number: u64, time: u64) -> Bytes {
        let mut text = Vec::with_capacity(64 + self.rows * (self.filling + 32));
        // Writing to memory cannot fail, so the results say nothing.
        let _ = self.write(&mut text, number, time);
        text.into()
    }

    fn write(&self, out: &mut Vec<u8>, number: u64, time: u64) -> Result<(), msgpack::ValueWriteError> {
        let camera = number % CAMERAS;
        msgpack::write_map_len(out, if self.rows == 1 { 4 } else { 3 })?;
        msgpack::write_str(out, "time")?;
        msgpack::write_u64(out, time)?;
        msgpack::write_str(out, "camera_id")?;
        msgpack::write_str(out, &format!("cam-{camera:02}"))?;
        if self.rows == 1 {
            return self.write_row(out, number, 0);
        }
        msgpack::write_str(out, "rows")?;
        msgpack::write_array_len(out, u32::try_from(self.rows).unwrap_or(u32::MAX))?;
        for row in 0..self.rows {
            msgpack::write_map_len(out, 2)?;
            self.write_row(out, number, row)?;
        }
        Ok(())
    }

    fn write_row(&self, out: &mut Vec<u8>, number: u64, row: usize) -> Result<(), msgpack::ValueWriteError> {
        let number = usize::try_from(number).unwrap_or(0).wrapping_add(row);
        #[expect(clippy::cast_precision_loss, reason = "it stays below a thousand")]
        let value = (number % 1_000) as f64 / 8.0;
        msgpack::write_str(out, "value")?;
        msgpack::write_f64(out, value)?;
        msgpack::write_str(out, "data")?;
        let from = number.wrapping_mul(STRIDE) % PLACES;
        // While the least size is asked for there is no pool.
        msgpack::write_str(out, self.pool.get(from..from + self.filling).unwrap_or_default())
    }

    /// The mapping of these messages into `table`, a part of a configuration.
    #[must_use]
    pub fn mapping(&self, table: &str) -> String {
        let (each, up) = if self.rows == 1 { ("", "") } else { ("for_each = \"rows\"\n", "^") };
        format!(
            "[[pipeline.table]]\nname = \"{table}\"\n{each}[pipeline.table.columns]\nseq = \"$sequence\"\n\
             time = {{ from = \"{up}time\", unit = \"us\" }}\ncamera_id = \"{up}camera_id\"\n"
        )
    }
}

/// Text that looks random, the same in every run.
fn pool(length: usize) -> String {
    // Xorshift: any generator does, and this one is three lines.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(ALPHABET[(state >> 40) as usize % ALPHABET.len()])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_large_as_was_asked_for_and_holds_its_rows() {
        for (payload, rows) in [(100, 1), (256, 1), (1_024, 10), (65_536, 1), (40_000, 1_000)] {
            let shape = Shape::new(payload, rows).unwrap();
            let message = shape.message(12_345, 1_735_689_600_000_000);
            assert!(
                message.len() <= payload && message.len() + rows > payload.saturating_sub(8),
                "{payload}"
            );
            let value: serde_json::Value = rmp_serde::from_slice(&message).unwrap();
            assert_eq!(value["camera_id"], "cam-09");
            let held = value["rows"].as_array().map_or(1, Vec::len);
            assert_eq!(held, rows);
        }
    }

    #[test]
    fn a_message_too_small_for_its_rows_is_an_error_that_names_the_least_size() {
        let Err(Error::TooSmall { least, .. }) = Shape::new(100, 100) else { panic!("it is too small") };
        assert_eq!(Shape::new(least, 100).unwrap().size(), least);
    }
}
