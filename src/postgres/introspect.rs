//! What a target table looks like, read from `pg_catalog`.

use crate::encode::types::Type;

/// A target table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Schema and name, quoted for SQL: `public.frame_metadata`.
    pub qualified: String,
    /// Columns in table order, without dropped and generated ones.
    pub columns: Vec<Column>,
    /// The column that rows are sorted by: a hypertable's time dimension, else the first timestamp or date column.
    pub time_column: Option<String>,
}

/// A column of a target table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, with domains resolved to their base.
    pub ty: Type,
    /// Whether the column, or its domain, refuses NULL.
    pub not_null: bool,
    /// Whether the server fills the column when a `COPY` does not name it (default or identity).
    pub has_default: bool,
}
