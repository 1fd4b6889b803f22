//! Everything that knows PostgreSQL's catalog, its errors and how to reach it.

pub mod introspect;
