//! The column types that jetcopy writes.

use super::round::Rounding;

/// A column type, as introspection found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`
    Numeric,
    /// Numbers of one of these three with fewer digits.
    Rounded {
        /// The type.
        of: Box<Type>,
        /// What they are rounded to.
        to: Rounding,
    },
    /// `text`, `varchar`, `char(n)`, enums and other types whose binary form is their text
    Text,
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `timestamp with time zone`
    Timestamptz,
    /// `timestamp without time zone`
    Timestamp,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `interval`
    Interval,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `inet` and `cidr`
    Inet {
        /// Whether it is `cidr`.
        cidr: bool,
    },
    /// An array of a scalar type above.
    Array {
        /// Type of the elements.
        element: Box<Type>,
        /// OID of the elements' type, which the binary form carries.
        element_oid: u32,
    },
}

impl Type {
    /// Its name in `pg_catalog`; of an array, that of its elements.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric => "numeric",
            Self::Rounded { of, .. } => of.name(),
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::Timestamptz => "timestamptz",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Time => "time",
            Self::Interval => "interval",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Inet { cidr: false } => "inet",
            Self::Inet { cidr: true } => "cidr",
            Self::Array { element, .. } => element.name(),
        }
    }

    /// Whether it holds JSON, or arrays of it.
    #[must_use]
    pub fn is_json(&self) -> bool {
        match self {
            Self::Json | Self::Jsonb => true,
            Self::Array { element, .. } => element.is_json(),
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Numeric
            | Self::Rounded { .. }
            | Self::Text
            | Self::Bytea
            | Self::Uuid
            | Self::Timestamptz
            | Self::Timestamp
            | Self::Date
            | Self::Time
            | Self::Interval
            | Self::Inet { .. } => false,
        }
    }

    /// Whether it holds times, which numbers become by a unit.
    #[must_use]
    pub fn is_time(&self) -> bool {
        match self {
            Self::Timestamptz | Self::Timestamp | Self::Date | Self::Time | Self::Interval => true,
            Self::Array { element, .. } => element.is_time(),
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Numeric
            | Self::Rounded { .. }
            | Self::Text
            | Self::Bytea
            | Self::Uuid
            | Self::Json
            | Self::Jsonb
            | Self::Inet { .. } => false,
        }
    }
}
