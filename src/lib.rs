//! jetcopy moves messages from NATS JetStream into PostgreSQL and TimescaleDB.
//!
//! It pulls messages in stream order, decodes them straight into binary `COPY` bytes, commits the rows
//! together with its position in the stream, and only then acknowledges.
//!
//! # Layout
//!
//! Under each heading in the order in which data moves. No two modules import each other in a circle
//! (`tests/tidy.rs` checks that).
//!
//! ## Settings
//!
//! - [`config`]: typed settings, their defaults and their validation.
//! - [`catalog`]: the store's tables and roll-ups, and the settings that they have.
//! - [`moment`]: points in time and in a stream, as people write them.
//! - [`shard`]: one stream that one pipeline reads: its names, and who owns it.
//! - [`lanes`]: how several writers share a shard's sequences, and where it stands for all of them.
//! - [`client_certificate`]: jetcopy's own certificate and key, for both servers.
//!
//! ## A generation
//!
//! - [`supervise`]: generations of every pipeline, back-off, the stop.
//! - [`membership`]: this daemon among the others: which shards are its own, and when to hand one over.
//! - [`recovery`]: the failure of a generation → a decision.
//! - [`retry`]: how long to wait before the next attempt.
//! - [`approach`]: how the next generation reads, by how the last ones ended.
//! - [`pipeline`]: one generation; the only file that sees all stages.
//! - [`resync`]: checkpoint, stream identity, cursor: how every generation starts.
//! - [`identity`]: whether a stream is the one that was read, though it was restored or moved.
//! - [`loss`]: what the stream no longer holds: noticed, recorded, passed over when accepted.
//! - [`milestones`]: messages that were committed, by which a stream is known.
//! - [`exposure`]: what others on the network could read, or answer in a server's place.
//!
//! ## Reading
//!
//! - [`nats`]: connecting to NATS.
//! - [`clock`]: the time of the server that stores the messages.
//! - [`subscribe`]: the durable consumer and contiguous deliveries.
//! - [`leftover`]: durables of pipelines that are no longer configured.
//! - [`left_behind`]: messages of shards that are no longer configured.
//! - [`stored`]: messages read one by one, as the bytes that they are.
//! - [`unreadable`]: messages that the client library cannot read, and the way past them.
//! - [`message`]: one message, however it was read.
//! - [`marker`]: messages that only say that something was removed, or will be published.
//! - [`mod@subject`]: which subjects a pattern matches.
//! - [`read`]: the first stage: deliveries into batches.
//! - [`linger`]: how long a batch waits for more.
//! - [`gaps`]: jumps in stream sequences, checked against the stream.
//! - [`superseded`]: messages that a stream removes from its middle by itself.
//!
//! ## Decoding and encoding
//!
//! - [`payload`]: one value of a message, and the formats that it comes in.
//! - [`decode`]: payload → rows, by a plan compiled from the mapping and the introspected tables.
//! - [`poison`]: why a message cannot become rows.
//! - [`encode`]: PostgreSQL's binary encodings and the frame of a binary `COPY`.
//! - [`batch`]: rows and the range of sequences they came from, with the limits that close a batch.
//!
//! ## Writing
//!
//! - [`postgres`]: connecting, introspection, and the one table that turns SQLSTATEs into decisions.
//! - [`mod@write`]: the second stage: a batch into one transaction, the refused rows found.
//! - [`copy`]: rows into an open transaction.
//! - [`dead_letter`]: poison messages, stored in the transaction that moves the checkpoint past them.
//! - [`tally`]: what a shard has gone through, counted where it commits.
//! - [`seal`]: what commits carried, counted where they are made, and sealed from time to time.
//! - [`daemons`]: the daemons that share shards, and which of them live.
//! - [`checkpoint`]: the claim of a shard, compare-and-set, COMMIT → `Committed`.
//! - [`ack`]: the last stage: `Committed` → one ack.
//!
//! ## The database's schema
//!
//! - [`migrate`]: the schema of the database, step by step.
//! - [`store`]: what happens to the rows of the store with age, and its queries.
//!
//! ## Seeing
//!
//! - [`metrics`]: every metric's name, labels and handles.
//! - [`status`]: what each pipeline is doing, and why it does not do more.
//! - [`liveness`]: whether a pipeline moves or waits for a known reason.
//! - [`lag`]: probes: how far behind, and whether it is stalled without knowing.
//! - [`http`]: the status page, metrics, health and status for people and scrapers.
//! - [`logging`]: where log lines go and how they look.
//! - [`terminal`]: what of a text may reach a terminal.
//! - [`chain`]: an error with all its causes, in one line.
//!
//! ## Commands
//!
//! - [`cli`]: the commands, one file each.
//! - [`preview`]: what messages would become, without writing them.
//! - [`init`]: tables and a mapping for a stream, proposed from its messages.
//! - [`control`]: what operators do to a checkpoint: pause, resume, rewind.
//! - [`replay`]: a stretch of a stream again, into tables beside the ones it is in.
//! - [`split`]: one stream into several, and the account's mapping.
//! - [`audit`]: the proof that each message is in its place once.
//! - [`publish`]: messages into a stream, with acks and a bound in flight.
//!
//! ## Testing
//!
//! - [`testbed`]: servers of our own for tests, benches and the demo.
//! - [`mod@bench`]: load on servers, and what comes of it.
//! - [`kill_point`]: where tests let the daemon die.

mod ack;
mod approach;
mod audit;
pub mod batch;
pub mod bench;
pub mod catalog;
mod chain;
mod checkpoint;
pub mod cli;
mod client_certificate;
mod clock;
pub mod config;
mod control;
mod copy;
mod daemons;
mod dead_letter;
pub mod decode;
pub mod encode;
mod exposure;
mod gaps;
pub mod http;
mod identity;
mod init;
pub mod kill_point;
mod lag;
mod lanes;
mod left_behind;
mod leftover;
mod linger;
mod liveness;
mod logging;
mod loss;
mod marker;
mod membership;
pub mod message;
pub mod metrics;
pub mod migrate;
mod milestones;
mod moment;
mod nats;
mod payload;
mod pipeline;
mod poison;
pub mod postgres;
mod preview;
pub mod publish;
mod read;
mod recovery;
mod replay;
mod resync;
mod retry;
mod seal;
pub mod shard;
mod split;
pub mod status;
pub mod store;
pub mod stored;
mod subject;
mod subscribe;
mod superseded;
mod supervise;
mod tally;
mod terminal;
pub mod testbed;
mod unreadable;
mod write;
