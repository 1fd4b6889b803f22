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
//! - [`supervise`]: generations of every pipeline, back-off, the stop.
//! - [`pipeline`]: one generation; the only file that sees all stages.
//! - [`resync`]: checkpoint, stream identity, cursor: how every generation starts.
//! - [`identity`]: whether a stream is the one that was read, though it was restored or moved.
//! - [`milestones`]: messages that were committed, by which a stream is known.
//! - [`loss`]: what the stream no longer holds: noticed, recorded, passed over when accepted.
//! - [`nats`]: connecting to NATS.
//! - [`client_certificate`]: jetcopy's own certificate and key, for both servers.
//! - [`exposure`]: what others on the network could read, or answer in a server's place.
//! - [`subscribe`]: the durable consumer and contiguous deliveries.
//! - [`clock`]: the time of the server that stores the messages.
//! - [`stored`]: messages read one by one, as the bytes that they are.
//! - [`marker`]: messages that only say that something was removed, or will be published.
//! - [`mod@subject`]: which subjects a pattern takes.
//! - [`unreadable`]: messages that the client library cannot read, and the way past them.
//! - [`approach`]: how the next generation reads, by how the last ones ended.
//! - [`read`]: the first stage: deliveries into batches.
//! - [`gaps`]: jumps in stream sequences, checked against the stream.
//! - [`linger`]: how long a batch waits for more.
//! - [`decode`]: payload → rows, by a plan compiled from the mapping and the introspected tables.
//! - [`encode`]: PostgreSQL's binary encodings and the frame of a binary `COPY`.
//! - [`batch`]: rows and the range of sequences they came from, with the limits that close a batch.
//! - [`dead_letter`]: poison messages, stored in the transaction that moves the checkpoint past them.
//! - [`tally`]: what a shard has gone through, counted where it commits.
//! - [`mod@write`]: the second stage: a batch into one transaction, the refused rows found.
//! - [`copy`]: rows into an open transaction.
//! - [`checkpoint`]: the claim of a shard, compare-and-set, COMMIT → `Committed`.
//! - [`ack`]: the last stage: `Committed` → one ack.
//! - [`lag`]: probes: how far behind, and whether it stands still unknowingly.
//! - [`recovery`]: the failure of a generation → a decision.
//! - [`poison`]: how many dead letters are normal.
//! - [`retry`]: how long to wait before the next attempt.
//! - [`postgres`]: connecting, introspection, and the one table that turns SQLSTATEs into decisions.
//! - [`kill_point`]: where tests let the daemon die.
//! - [`migrate`]: the schema of the database, step by step.
//! - [`store`]: the store's tables and roll-ups, and what happens to their rows with age.
//! - [`metrics`]: every metric's name, labels and handles.
//! - [`status`]: what each pipeline is doing, and why it does not do more.
//! - [`onlook`]: why a pipeline stands still, asked of the database from beside it.
//! - [`liveness`]: whether a pipeline moves or waits for a known reason.
//! - [`notify`]: what systemd is told: ready, status, watchdog.
//! - [`history`]: the last quarter of an hour of every pipeline, in memory.
//! - [`http`]: the status page, metrics, health and status for people and scrapers.
//! - [`logging`]: where log lines go and how they look.
//! - [`terminal`]: what of a text may reach a terminal.
//! - [`audit`]: the proof that each message is in its place once.
//! - [`control`]: what operators do to a checkpoint: pause, resume, rewind.
//! - [`replay`]: a stretch of a stream again, into tables beside the ones it is in.
//! - [`leftover`]: durables of pipelines that are no longer configured.
//! - [`outside`]: a pipeline as its servers see it, without its daemon.
//! - [`cli`]: the commands, one file each.
//! - [`publish`]: messages into a stream, with acks and a bound in flight.
//! - [`mod@bench`]: load on servers, and what comes of it.
//! - [`testbed`]: private servers for tests, benches and the demo.

pub mod ack;
pub mod approach;
pub mod audit;
pub mod batch;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod client_certificate;
pub mod clock;
pub mod config;
pub mod control;
pub mod copy;
pub mod dead_letter;
pub mod decode;
pub mod encode;
pub mod exposure;
pub mod gaps;
pub mod history;
pub mod http;
pub mod identity;
pub mod kill_point;
pub mod lag;
pub mod leftover;
pub mod linger;
pub mod liveness;
pub mod logging;
pub mod loss;
pub mod marker;
pub mod metrics;
pub mod migrate;
pub mod milestones;
pub mod nats;
pub mod notify;
pub mod onlook;
pub mod outside;
pub mod pipeline;
pub mod poison;
pub mod postgres;
pub mod publish;
pub mod read;
pub mod recovery;
pub mod replay;
pub mod resync;
pub mod retry;
pub mod status;
pub mod store;
pub mod stored;
pub mod subject;
pub mod subscribe;
pub mod superseded;
pub mod supervise;
pub mod tally;
pub mod terminal;
pub mod testbed;
pub mod unreadable;
pub mod write;
