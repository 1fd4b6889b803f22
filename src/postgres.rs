//! Everything that knows PostgreSQL's catalog, its errors and how to reach it.

pub mod connect;
pub mod direct_compress;
pub(crate) mod interval;
pub mod introspect;
pub mod path;
pub mod privileges;
pub mod servers;
pub mod simple;
pub mod sqlstate;
pub mod timeline;
pub mod tls;
