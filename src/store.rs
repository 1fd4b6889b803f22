//! The metadata store: tables for frames, detections, measurements, time series and a registry, and their
//! life cycle.
//!
//! Pipelines fill the tables like any other; the store is what happens to rows after that: roll-ups,
//! compression and retention. With TimescaleDB its own jobs do that, without it `jetcopy maintain` does.
//!
//! What tables and roll-ups there are, with their defaults, the [`catalog`](crate::catalog) lists.
//!
//! - [`groups`]: which of the tables are created.
//! - [`life`]: how long rows live, as the database keeps it.
//! - [`timescale`]: TimescaleDB's policies, brought to that.
//! - [`query`]: reading the store.
//! - [`delete`]: what people delete from it.
//! - [`bounds`]: how far from today partitions are added on demand.
//! - [`place`]: in which schema the tables lie.
//! - [`partitions`], [`rollup`]: what [`maintain`] does where there is no TimescaleDB.
//! - [`report`]: what `jetcopy store` shows.

pub mod bounds;
pub mod delete;
pub mod groups;
pub mod life;
pub mod maintain;
pub mod partitions;
pub mod place;
pub mod query;
pub mod report;
pub mod rollup;
pub mod timescale;

/// Opens the transaction. The advisory lock lets one migrator in at a time, its number being `jetcopy\0` in
/// ASCII. A migration that waits longer than a minute for a table holds up everyone who queues behind it, so
/// it gives up.
pub(crate) const BEGIN: &str =
    "BEGIN; SET LOCAL lock_timeout = '1min'; SELECT pg_advisory_xact_lock(x'6a6574636f707900'::bigint)";
