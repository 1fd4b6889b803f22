//! jetcopy carries messages from NATS JetStream into PostgreSQL and TimescaleDB.
//!
//! It pulls messages in stream order, decodes them straight into binary `COPY` bytes, commits the rows together
//! with its position in the stream, and only then acknowledges.
//!
//! # Layout
//!
//! In the order in which data moves:
//!
//! - [`config`]: typed settings, their defaults and their validation.
//! - [`decode`]: payload → rows, by a plan compiled from the mapping and the introspected tables.
//! - [`encode`]: PostgreSQL's binary encodings and the frame of a binary `COPY`.
//! - [`batch`]: rows and the range of sequences they came from, with the limits that close a batch.
//! - [`dead_letter`]: poison messages, stored in the transaction that moves the checkpoint past them.
//! - [`postgres`]: connecting, introspection, and the one table that turns SQLSTATEs into decisions.
//! - [`migrate`]: the schema of the database, step by step.
//! - [`metrics`]: every metric's name, labels and handles.
//! - [`status`]: what each pipeline is doing, and why it does not do more.
//! - [`cli`]: the commands, one file each.
//! - [`publish`]: messages into a stream, with acks and a bound in flight.
//! - [`private`]: private servers for tests, benches and the demo.

pub mod batch;
pub mod cli;
pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod encode;
pub mod metrics;
pub mod migrate;
pub mod postgres;
pub mod private;
pub mod publish;
pub mod status;
