//! Dead letters into an open transaction, by binary `COPY`.
//!
//! Guarantees: a payload is stored in the first letter of its message alone, and goes out in slices of
//! [`CHUNK`] bytes: the largest that a server takes is never in memory once more.

use std::collections::BTreeSet;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::Client;

use super::{DeadLetter, storable};
use crate::encode::copy_frame::{self, HEADER, TRAILER};
use crate::shard::Shard;

const COPY: &str = "COPY jetcopy.dead_letters
        (pipeline, shard, stream, sequence, subject, headers, payload, kind, sqlstate, message, table_name,
            column_name,
         element, stored_at, elements, raw_subject, raw_headers)
    FROM STDIN (FORMAT binary)";

/// Columns of these.
const COLUMNS: i16 = 17;

/// Bytes in a `CopyData` message, as for rows.
const CHUNK: usize = 64 * 1024;

/// The type of `elements`' elements, `integer`.
const INT4: i32 = 23;

/// Why a field is never longer than PostgreSQL takes.
const SHORT: &str = "no server takes a message of more than 64 MiB, and PostgreSQL takes a field of 1 GiB";

/// Stores `letters` in the transaction that is open on `client`. After an error, the connection is of no
/// more use.
pub(crate) async fn store(
    client: &Client,
    shard: &Shard,
    letters: &[DeadLetter],
) -> Result<(), tokio_postgres::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let mut sink = pin!(client.copy_in::<_, Bytes>(COPY).await?);
    let mut out = HEADER.to_vec();
    let mut kept = BTreeSet::new();
    for letter in letters {
        before_payload(&mut out, shard, letter);
        if kept.insert(letter.sequence) {
            let length = i32::try_from(letter.payload.len()).expect(SHORT);
            out.extend_from_slice(&length.to_be_bytes());
            let fields = Bytes::from(std::mem::take(&mut out));
            for part in [&fields, &letter.payload] {
                for from in (0..part.len()).step_by(CHUNK) {
                    sink.feed(part.slice(from..part.len().min(from + CHUNK))).await?;
                }
            }
        } else {
            copy_frame::null(&mut out);
        }
        after_payload(&mut out, letter);
        for raw in [&letter.raw.subject, &letter.raw.headers] {
            match raw {
                Some(bytes) => copy_frame::bytes(&mut out, bytes).expect(SHORT),
                None => copy_frame::null(&mut out),
            }
        }
    }
    out.extend_from_slice(&TRAILER);
    sink.feed(out.into()).await?;
    sink.finish().await.map(drop)
}

/// The fields up to the payload.
fn before_payload(out: &mut Vec<u8>, shard: &Shard, letter: &DeadLetter) {
    copy_frame::tuple(out, COLUMNS);
    for text in [&shard.pipeline, &shard.name, &shard.stream] {
        field(out, Some(text));
    }
    // A stream that counts past what bigint holds would have taken a million messages a second for 292,000
    // years.
    copy_frame::int8(out, i64::try_from(letter.sequence).unwrap_or(i64::MAX));
    field(out, Some(&letter.subject));
    match &letter.headers {
        Some(headers) => copy_frame::jsonb(out, headers.0.as_bytes()).expect(SHORT),
        None => copy_frame::null(out),
    }
}

/// The fields after it.
fn after_payload(out: &mut Vec<u8>, letter: &DeadLetter) {
    field(out, Some(letter.kind));
    field(out, letter.sqlstate.as_deref());
    field(out, Some(&letter.reason()));
    field(out, letter.table.as_deref());
    field(out, letter.column.as_deref());
    // No message is long enough for an array of that many elements.
    let place = |element: u32| i32::try_from(element).unwrap_or(i32::MAX);
    match letter.element {
        Some(element) => copy_frame::int4(out, place(element)),
        None => copy_frame::null(out),
    }
    copy_frame::timestamptz(out, letter.stored_at_ns);
    if letter.elements.is_empty() {
        copy_frame::null(out);
        return;
    }
    let written = copy_frame::sized(out, |out| -> Result<(), copy_frame::TooLong> {
        let count = i32::try_from(letter.elements.len()).unwrap_or(i32::MAX);
        // One dimension, no nulls, the type; its length and lower bound.
        for number in [1, 0, INT4, count, 1] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for &element in &letter.elements {
            copy_frame::int4(out, place(element));
        }
        Ok(())
    });
    written.expect(SHORT);
}

fn field(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => copy_frame::text(out, &storable(text)).expect(SHORT),
        None => copy_frame::null(out),
    }
}
