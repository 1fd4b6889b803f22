//! The metadata store: tables for frames, detections, measurements, time series and a registry, and their life cycle.
//!
//! Pipelines fill the tables like any other; the store is what happens to rows after that: roll-ups, compression and
//! retention. With TimescaleDB its own jobs do that, without it `jetcopy maintain` does.
//!
//! - [`catalog`]: the one list of tables and roll-ups, with their defaults.
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
pub mod catalog;
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
