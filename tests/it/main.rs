//! The daemon as a process, on real servers.
//!
//! One binary, so that linking happens once. Each test builds a [`support::World`] and, where it disturbs
//! anything, ends at the oracle ([`support::oracle`]).

#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

mod acks;
mod api;
mod archive;
mod audit;
mod backup;
mod bench;
mod bounds;
mod browser;
mod cases;
mod chaos;
mod citus;
mod cli;
mod clock;
mod compressed;
mod conflict;
mod crash;
mod dead_letters;
mod defaults;
mod demo;
mod detections;
mod displays;
mod documents;
mod elements;
mod expiry;
mod failover;
mod flood;
mod functions;
mod giants;
mod held_up;
mod init;
mod isolation;
#[cfg(feature = "kill-points")]
mod kill_points;
mod lanes;
mod least_privilege;
mod ledger;
mod leftover;
mod lifecycle;
mod lines;
mod loss;
mod mapping;
mod membership;
mod migrate;
mod monitoring;
mod nats;
mod notify;
mod partitions;
mod pause;
mod pgbouncer;
mod pipelines;
mod poison;
mod postgres;
mod preview;
mod query;
mod raw;
mod reload;
mod replay;
mod rewind;
mod schema;
mod search_path;
mod server_settings;
mod shards;
mod split;
mod start;
mod status;
mod stop;
mod stream;
mod support;
mod systemd;
mod terminal;
mod told;
mod truth;
mod two_daemons;
mod unheard;
mod visible;
mod wire;
