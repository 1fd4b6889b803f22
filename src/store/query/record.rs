//! Rows as types.

use jiff::Timestamp;
use serde_json::Value as Json;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A row of an answer.
pub trait Record: Sized {
    /// Reads it by the names of its columns.
    fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error>;
}

/// What a field of a [`Record`] is in SQL.
pub trait Field: ToSql + Sync {
    /// Its type.
    const TYPE: Type;
}

impl Field for String {
    const TYPE: Type = Type::TEXT;
}
impl Field for bool {
    const TYPE: Type = Type::BOOL;
}
impl Field for i32 {
    const TYPE: Type = Type::INT4;
}
impl Field for i64 {
    const TYPE: Type = Type::INT8;
}
impl Field for f64 {
    const TYPE: Type = Type::FLOAT8;
}
impl Field for Timestamp {
    const TYPE: Type = Type::TIMESTAMPTZ;
}
impl Field for Json {
    const TYPE: Type = Type::JSONB;
}
impl Field for Vec<String> {
    const TYPE: Type = Type::TEXT_ARRAY;
}
impl<T: Field> Field for Option<T> {
    const TYPE: Type = T::TYPE;
}

/// A struct whose fields are the columns of a row.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// The columns, in order.
            pub const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl $crate::store::query::record::Record for $name {
            fn from_row(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
                Ok(Self { $($field: row.try_get(stringify!($field))?,)* })
            }
        }
    };
}

pub(super) use record;
