//! The names, help texts and labels of all metrics, in data order.
//!
//! Guarantees: names carry their base unit, counters end in `_total`; every family of a pipeline has the
//! labels [`PIPELINE`], [`SHARD`] and [`STREAM`], so that they can be joined.

/// The pipeline's name.
pub const PIPELINE: &str = "pipeline";
/// The shard: the key of its checkpoint; the pipeline's name where there is one shard.
pub const SHARD: &str = "shard";
/// The JetStream stream.
pub const STREAM: &str = "stream";
/// A target table as configured.
pub const TABLE: &str = "table";
/// The limit that closed a batch.
pub const REASON: &str = "reason";
/// How a transaction ended.
pub const OUTCOME: &str = "outcome";
/// Why a resync began.
pub const CAUSE: &str = "cause";
/// What is wrong with a dead letter, or which kind of marker a message is.
pub const KIND: &str = "kind";
/// The state of a pipeline.
pub const STATE: &str = "state";
/// What the reading stage spends its time on.
pub const STAGE: &str = "stage";
/// Something that is counted in the database.
pub const EVENT: &str = "event";
/// Kinds of dead letters: of [`KIND`].
pub const DEAD_LETTER_KINDS: [&str; 8] =
    ["malformed", "missing", "type", "range", "unmatched", "unreadable", "too_large", "refused"];
/// The daemon's version.
pub const VERSION: &str = "version";

/// A family of metrics.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its help text.
    pub help: &'static str,
}

/// Declares families and lists them in `ALL`; the help text is the documentation too.
macro_rules! families {
    ($($constant:ident = $name:literal, $help:literal;)*) => {
        $(#[doc = concat!("`", $name, "`: ", $help)]
        pub const $constant: Family = Family { name: $name, help: $help };)*

        /// All families.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    MESSAGES = "jetcopy_messages_total", "Messages taken from the stream, in order and once a generation.";
    BYTES = "jetcopy_bytes_total", "Payload bytes of the messages taken from the stream.";
    DUPLICATES_SKIPPED = "jetcopy_duplicates_skipped_total", "Rows that `on_conflict` left out: their key was there already, or came again in the batch.";
    STAGE_SECONDS = "jetcopy_stage_seconds_total", "Time of the reading stage by what it went into: waiting for messages from NATS, decoding, or waiting for the database to take a batch that is due. The largest is what limits a pipeline that is behind.";
    HELD_UP_SECONDS = "jetcopy_held_up_seconds", "How long nothing has committed although work waits, by the stage that it waits for; 0 while the pipeline moves. From 3 s on, /readyz says that it is not ready.";
    BUFFERED_BYTES = "jetcopy_buffered_bytes", "Bytes of messages and encoded rows held in memory. What has arrived and was not taken yet is not among them: pull requests keep it within half of max_buffered_bytes.";
    BATCHES = "jetcopy_batches_total", "Batches closed, by the limit that closed them.";
    BATCH_ROWS = "jetcopy_batch_rows", "Rows of a batch over all its tables.";
    COMMIT_SECONDS = "jetcopy_commit_seconds", "Time of a batch's transaction, from BEGIN to the answer to COMMIT.";
    COMMITS = "jetcopy_commits_total", "Transactions by how they ended.";
    ROWS = "jetcopy_rows_total", "Rows stored; those that `on_conflict` or a trigger left out are not among them.";
    ROWS_LEFT_OUT = "jetcopy_rows_left_out_total", "Rows that a trigger of the table left out: one BEFORE INSERT that returns NULL. Those that a merge left out for it are among jetcopy_duplicates_skipped_total.";
    UNTAKEN_FIELDS = "jetcopy_untaken_fields_total", "Fields of messages that no column takes, each time that one was there; /status and jetcopy status name them.";
    TABLE_MESSAGES = "jetcopy_table_messages_total", "Messages that a table took: its when held, and the array of its for_each was there. One that stays at 0 gets nothing.";
    UNFILLED_COLUMNS = "jetcopy_unfilled_columns", "Columns of a table that take a field, a header or a token of the subject, and for which no message has had a value.";
    DEAD_LETTERS = "jetcopy_dead_letters_total", "Dead letters ever committed to jetcopy.dead_letters, by what is wrong with them, as the database counts them.";
    DEAD_LETTERS_IN_TABLE = "jetcopy_dead_letters_in_table", "Dead letters of the pipeline that lie in jetcopy.dead_letters now, whoever put them there and whenever; looked at every 15 s, and within 2 s of a new one.";
    PASSED_OVER = "jetcopy_passed_over_messages_total", "Messages that only say that something was removed or deleted, or what the server is to publish later, by which of these; they have no row and no dead letter unless a table asks for them.";
    PUBLISH_TO_COMMIT_SECONDS = "jetcopy_publish_to_commit_seconds", "Time from the stream's storing of a message to the commit of its rows.";
    CHECKPOINT_SEQUENCE = "jetcopy_checkpoint_sequence", "Last stream sequence whose rows are committed.";
    ACK_FAILURES = "jetcopy_ack_failures_total", "Acks that could not be sent; harmless, since the checkpoint holds and the next ack covers them.";
    STREAM_FIRST_SEQUENCE = "jetcopy_stream_first_sequence", "First sequence that the stream still holds.";
    STREAM_LAST_SEQUENCE = "jetcopy_stream_last_sequence", "Last sequence of the stream.";
    PENDING_MESSAGES = "jetcopy_pending_messages", "Messages in the stream that were not yet delivered to the consumer.";
    ACK_PENDING_MESSAGES = "jetcopy_ack_pending_messages", "Messages delivered to the consumer and not yet acknowledged.";
    IN_FLIGHT_MESSAGES = "jetcopy_in_flight_messages", "Messages that the server has delivered and the pipeline has not yet taken.";
    UNCOMMITTED_MESSAGES = "jetcopy_uncommitted_messages", "Messages that the pipeline has taken and not yet committed.";
    BEHIND_SECONDS = "jetcopy_behind_seconds", "Age of the oldest message that is not yet committed; 0 when there is none.";
    HEADROOM_SEQUENCES = "jetcopy_headroom_sequences", "Sequences that the stream can still drop before it drops uncommitted ones; falls only while the stream is at its limits.";
    HEADROOM_SECONDS = "jetcopy_headroom_seconds", "Time until the stream drops uncommitted messages if all goes on as in the last half minute; +Inf when it will not.";
    CATCH_UP_SECONDS = "jetcopy_catch_up_seconds", "Time until nothing is left to catch up with if all goes on as in the last half minute; 0 less than a second behind, +Inf when the lag does not shrink.";
    OUTAGES = "jetcopy_outages_total", "Times that a pipeline that ran stopped over a failure. All attempts until it commits again are one.";
    RESYNCS = "jetcopy_resyncs_total", "Restarts from the checkpoint, by cause; in an outage, each attempt.";
    REPLAYED = "jetcopy_replayed_messages_total", "Stream sequences that were committed once and are written again, since the database went back behind them: by a failover, a crash, a restored backup. Ever, as the database counts them.";
    LOSSES = "jetcopy_losses_total", "Times ever that the stream no longer held what the checkpoint needs, as the database counts them.";
    LOST_MESSAGES = "jetcopy_lost_messages_total", "Stream sequences ever that were gone before they could be committed, as the database counts them.";
    SUPERSEDED = "jetcopy_superseded_messages_total", "Stream sequences that the stream itself had removed before they were read: by a limit of messages a subject, a time to live or a roll-up. Ever, as the database counts them.";
    NEWEST_EVENT_AGE = "jetcopy_newest_event_age_seconds", "Time since the newest dead letter, loss or replay of the pipeline in the database, whichever daemon met it; +Inf when there is none.";
    DATABASE_UP = "jetcopy_database_up", "Whether a writable database answered the pipeline last.";
    NATS_UP = "jetcopy_nats_up", "Whether NATS answered the pipeline last.";
    PIPELINE_STATE = "jetcopy_pipeline_state", "1 for the pipeline's present state, 0 for the others.";
    MAINTAIN_RUNS = "jetcopy_maintain_runs_total", "Runs of the store's maintenance, by outcome; busy where another daemon was at it.";
    MAINTAIN_LAST_RUN = "jetcopy_maintain_last_run_timestamp_seconds", "When the store was maintained last by this daemon, in seconds since the Unix epoch; 0 before that.";
    MAINTAIN_SECONDS = "jetcopy_maintain_last_run_seconds", "How long that took.";
    API_REQUESTS = "jetcopy_api_requests_total", "Requests for a query of the API that had the token, by outcome: answered; refused, since they ask wrongly or for too much; unavailable, since no turn came or the database was away; timeout; failed, since the database is not as it should be.";
    API_SECONDS = "jetcopy_api_request_seconds", "Time from such a request to its answer, its wait for a turn included.";
    BUILD_INFO = "jetcopy_build_info", "Always 1; the label is the daemon's version.";
    LOG_LINES_DROPPED = "jetcopy_log_lines_dropped_total", "Lines of the log that nobody took: standard error is on a full disk, or a pipe that is full or without a reader.";
    PROCESS_START = "process_start_time_seconds", "Start of the process in seconds since the Unix epoch.";
}
