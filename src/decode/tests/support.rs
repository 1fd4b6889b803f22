//! A decoder for a table given in a few words, and its rows taken apart again.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::Value as Json;

use crate::batch::Rows;
use crate::config;
use crate::decode::{Decoder, PlanError};
use crate::encode::types::Type;
use crate::message::Message;
use crate::poison::Poison;
use crate::postgres::introspect::{Column, ServerDefault, Table};

/// The fields of one row; `None` is NULL.
pub(super) type Fields = Vec<Option<Vec<u8>>>;

/// A nullable column.
pub(super) fn column(name: &str, ty: Type) -> Column {
    Column { name: name.into(), ty, type_name: String::new(), not_null: false, default: ServerDefault::None }
}

pub(super) fn not_null(name: &str, ty: Type) -> Column {
    Column { not_null: true, ..column(name, ty) }
}

/// A table named `t`.
pub(super) fn table(columns: Vec<Column>) -> Table {
    Table { qualified: "public.t".into(), columns, time_column: Some("time".into()), ..Table::default() }
}

/// A pipeline from the TOML of its tables and further settings.
pub(super) fn pipeline(toml: &str) -> config::Pipeline {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};
    let text = format!("name = \"p\"\nstream = \"S\"\n{toml}");
    Figment::from(Toml::string(&text)).extract().unwrap()
}

pub(super) fn try_decoder(toml: &str, tables: &[Table]) -> Result<Decoder, PlanError> {
    Decoder::new(&pipeline(toml), tables)
}

/// A decoder for one table without a mapping.
pub(super) fn plain(columns: Vec<Column>) -> Decoder {
    mapped("", columns)
}

/// A decoder for one table with the given lines under `[table.columns]`.
pub(super) fn mapped(mapping: &str, columns: Vec<Column>) -> Decoder {
    let toml = format!("[[table]]\nname = \"t\"\n[table.columns]\n{mapping}\n");
    try_decoder(&toml, &[table(columns)]).unwrap()
}

pub(super) fn message(payload: &[u8]) -> Message {
    Message {
        sequence: 42,
        timestamp_ns: 946_684_800_123_456_789,
        subject: "frames.cam-07.hd".into(),
        payload: Bytes::copy_from_slice(payload),
        headers: None,
    }
}

pub(super) fn with_headers(payload: &[u8], headers: &HeaderMap) -> Message {
    Message { headers: Some(headers.clone()), ..message(payload) }
}

/// JSON text as MessagePack.
pub(super) fn msgpack(json: &str) -> Vec<u8> {
    rmp_serde::to_vec(&serde_json::from_str::<Json>(json).unwrap()).unwrap()
}

/// Rows of every table.
pub(super) fn rows_of(decoder: &mut Decoder, message: &Message) -> Result<Vec<Vec<Fields>>, Poison> {
    let mut rows = Rows::new(decoder.plan.tables.len());
    decoder.decode(message, 7, &mut rows)?;
    Ok(rows
        .tables
        .iter()
        .map(|table| table.rows.iter().map(|row| fields(&table.data, row.start)).collect())
        .collect())
}

fn fields(data: &[u8], start: u32) -> Fields {
    let mut rest = &data[start as usize..];
    let mut take = |length: usize| {
        let (taken, after) = rest.split_at(length);
        rest = after;
        taken
    };
    let count = i16::from_be_bytes(*take(2).first_chunk().unwrap());
    (0..count)
        .map(|_| {
            let length = i32::from_be_bytes(*take(4).first_chunk().unwrap());
            usize::try_from(length).ok().map(|length| take(length).to_vec())
        })
        .collect()
}

/// The fields of the only row of the only table.
pub(super) fn row(decoder: &mut Decoder, payload: &[u8]) -> Fields {
    let mut rows = rows_of(decoder, &message(payload)).unwrap();
    assert_eq!((rows.len(), rows[0].len()), (1, 1));
    rows.remove(0).remove(0)
}

/// The poison of a message that must not become rows.
pub(super) fn poison(decoder: &mut Decoder, payload: &[u8]) -> Poison {
    rows_of(decoder, &message(payload)).expect_err("this message must be poison")
}

/// A field of text.
pub(super) fn text(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

/// A field of `jsonb`.
pub(super) fn jsonb(text: &str) -> Option<Vec<u8>> {
    Some([&[1], text.as_bytes()].concat())
}

/// A `bigint`, or a time in its own unit.
pub(super) fn int8(value: i64) -> Option<Vec<u8>> {
    Some(value.to_be_bytes().to_vec())
}
