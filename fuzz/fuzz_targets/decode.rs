//! What must hold of any payload under any mapping: it becomes well-formed rows or none, and never more bytes
//! than it can be worth. The fuzzer itself watches for panics, endless loops and single allocations that are
//! too large.

#[path = "../../tests/encodings/mapping.rs"]
mod mapping;

use jetcopy::batch::{Rows, TableRows};
use jetcopy::decode::Decoder;
use jetcopy::encode::types::Type;
use jetcopy::message::Message;
use jetcopy::postgres::introspect::{self, ServerDefault};

use mapping::{Choices, Column, Mapping};

/// Bytes of the input that make the mapping; the payload follows.
const MAPPING: usize = 64;

/// What one row may take beside copies of the payload: a default or a constant a column, lengths, escapes.
const ROW: usize = 1_024;

/// Bytes that a byte of payload may become in one column: an array of booleans takes five an
/// element, and an escaped control character in `jsonb` six.
const GROWTH: usize = 16;

/// Decodes the payload twice, the second time after itself, and panics where a promise of the decoder is
/// broken.
pub fn judge(format: &str, input: &[u8]) {
    let Some((choices, payload)) = input.split_at_checked(MAPPING) else { return };
    let mapping = Mapping::new(&mut Choices(choices), format);
    let tables: Vec<introspect::Table> = mapping.tables.iter().map(|columns| introspected(columns)).collect();
    let Ok(mut decoder) = Decoder::new(&mapping.pipeline(), &tables) else { return };
    let (subject, payload) = ("s.t".into(), payload.to_vec().into());
    let message = Message { sequence: 7, timestamp_ns: 1, subject, payload, headers: None };

    let mut once = Rows::new(tables.len());
    let outcome = decoder.decode(&message, 0, &mut once);
    if outcome.is_err() {
        assert!(once.tables.iter().all(|table| table.data.is_empty() && table.rows.is_empty()));
        assert!(once.refused.is_empty());
    }
    for (index, table) in once.tables.iter().enumerate() {
        let columns = decoder.columns(index).len();
        tuples(table, columns);
        let most = (message.payload.len() * GROWTH + ROW) * columns * table.rows.len();
        assert!(table.data.len() <= most, "{} bytes of {}", table.data.len(), message.payload.len());
        // A bare value may have no bytes.
        assert!(table.rows.len() <= message.payload.len().max(1));
    }

    let mut again = Rows::new(tables.len());
    assert_eq!(decoder.decode(&message, 0, &mut again), outcome);
    for (first, second) in once.tables.iter().zip(&again.tables) {
        assert_eq!(first.data, second.data);
    }
}

/// Takes the rows apart, as the server does.
fn tuples(table: &TableRows, columns: usize) {
    let mut data = table.data.as_slice();
    for row in &table.rows {
        assert_eq!(row.start as usize, table.data.len() - data.len());
        assert_eq!(usize::from(u16::from_be_bytes(take(&mut data))), columns);
        for _ in 0..columns {
            let length = i32::from_be_bytes(take(&mut data));
            if length != -1 {
                data = &data[usize::try_from(length).expect("a length is -1 or positive")..];
            }
        }
    }
    assert!(data.is_empty(), "{} bytes after the last row", data.len());
}

fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = data.split_first_chunk().expect("a row is cut short");
    *data = rest;
    *taken
}

/// A table as introspection would find it.
fn introspected(columns: &[Column]) -> introspect::Table {
    let column = |column: &Column| {
        let (_, scalar, _) = column.scalar;
        let element = Box::new(scalar.clone());
        let ty = if column.array { Type::Array { element, element_oid: 1 } } else { scalar.clone() };
        let not_null = column.not_null;
        let (name, type_name) = (column.name.into(), String::new());
        introspect::Column { name, ty, type_name, not_null, default: ServerDefault::None }
    };
    introspect::Table {
        time_column: columns.first().map(|column| column.name.into()),
        columns: columns.iter().map(column).collect(),
        ..introspect::Table::default()
    }
}
