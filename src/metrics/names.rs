//! The names, help texts and labels of all metrics, in the order of the data.
//!
//! Guarantees: names end in their base unit, counters in `_total`; every family of a pipeline has the labels
//! [`PIPELINE`], [`SHARD`] and [`STREAM`], so that they can be joined.

/// The pipeline's name.
pub const PIPELINE: &str = "pipeline";
/// The shard, which is the key of its checkpoint; the pipeline's name if there is only one shard.
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
/// Kind of a dead letter, or of a marker.
pub const KIND: &str = "kind";
/// The state of a pipeline.
pub const STATE: &str = "state";
/// What the reading stage spends its time on.
pub const STAGE: &str = "stage";
/// A step of a transaction.
pub const STEP: &str = "step";
/// Kind of an event that is counted in the database.
pub const EVENT: &str = "event";
/// Values of [`KIND`] for dead letters.
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
    MESSAGES = "jetcopy_messages_total", "Messages read from the stream, in order and once per generation.";
    BYTES = "jetcopy_bytes_total", "Payload bytes of the messages read from the stream.";
    DUPLICATES_SKIPPED = "jetcopy_duplicates_skipped_total", "Rows that `on_conflict` skipped: their key \
                                                              already existed, or came again in the batch.";
    STAGE_SECONDS = "jetcopy_stage_seconds_total", "How the reading stage spends its time: waiting for \
                                                    messages from NATS, decoding, or waiting for the \
                                                    database to accept a batch. The largest limits a \
                                                    pipeline that is behind.";
    WRITE_SECONDS = "jetcopy_write_seconds_total", "How writers spend the time of their transactions, over \
                                                    all of them: on BEGIN with the move of the checkpoint, \
                                                    on COPY and on COMMIT. Where the first and the last are \
                                                    much of it, several writers help.";
    HELD_UP_SECONDS = "jetcopy_held_up_seconds", "How long nothing has committed although work is waiting, \
                                                  by the stage that it waits for; 0 while the pipeline \
                                                  moves. From 3 s on, /readyz reports it as not ready.";
    BUFFERED_BYTES = "jetcopy_buffered_bytes", "Bytes of messages and encoded rows held in memory. Excludes \
                                                messages that have arrived but are not read yet: pull \
                                                requests keep them within half of max_buffered_bytes.";
    BATCHES = "jetcopy_batches_total", "Batches closed, by the limit that closed them.";
    BATCH_ROWS = "jetcopy_batch_rows", "Rows per batch, over all its tables.";
    COMMIT_SECONDS = "jetcopy_commit_seconds", "Duration of a batch's transaction, from BEGIN to the answer \
                                                to COMMIT.";
    COMMITS = "jetcopy_commits_total", "Transactions, by outcome.";
    ROWS = "jetcopy_rows_total", "Rows stored, without those that `on_conflict` or a trigger skipped.";
    ROWS_LEFT_OUT = "jetcopy_rows_left_out_total", "Rows that a BEFORE INSERT trigger of the table skipped \
                                                    by returning NULL. Those skipped during a merge count in \
                                                    jetcopy_duplicates_skipped_total.";
    UNTAKEN_FIELDS = "jetcopy_untaken_fields_total", "Occurrences of message fields that no column takes; \
                                                      /status and jetcopy status name the fields.";
    TABLE_MESSAGES = "jetcopy_table_messages_total", "Messages for a table: its `when` matched, and the \
                                                      array of its `for_each` was present. A table that \
                                                      stays at 0 gets no rows.";
    UNFILLED_COLUMNS = "jetcopy_unfilled_columns", "Columns of a table that take a field, a header or a \
                                                    subject token for which no message has had a value.";
    DEAD_LETTERS = "jetcopy_dead_letters_total", "Dead letters ever committed to jetcopy.dead_letters, by \
                                                  kind. Counted in the database.";
    DEAD_LETTERS_IN_TABLE = "jetcopy_dead_letters_in_table", "Dead letters of the pipeline that are in \
                                                              jetcopy.dead_letters now, whoever wrote them; \
                                                              refreshed every 15 s, and within 2 s of a new \
                                                              one.";
    PASSED_OVER = "jetcopy_passed_over_messages_total", "Markers, by kind: messages that only say that \
                                                         something was removed or deleted, or schedule a \
                                                         later message. They have no row and no dead letter \
                                                         unless a table asks for them.";
    PUBLISH_TO_COMMIT_SECONDS = "jetcopy_publish_to_commit_seconds", "Time from storing a message in the \
                                                                      stream to committing its rows.";
    CHECKPOINT_SEQUENCE = "jetcopy_checkpoint_sequence", "Last stream sequence whose rows are committed.";
    VERIFIED_THROUGH_SEQUENCE = "jetcopy_verified_through_sequence", "Last stream sequence up to which \
                                                                      `jetcopy audit --record` has found \
                                                                      what was committed in its place.";
    ACK_FAILURES = "jetcopy_ack_failures_total", "Acks that could not be sent; harmless, because the \
                                                  checkpoint counts and the next ack covers them.";
    STREAM_FIRST_SEQUENCE = "jetcopy_stream_first_sequence", "First sequence that the stream still holds.";
    STREAM_LAST_SEQUENCE = "jetcopy_stream_last_sequence", "Last sequence of the stream.";
    PENDING_MESSAGES = "jetcopy_pending_messages", "Messages in the stream that are not yet delivered to the \
                                                    consumer.";
    ACK_PENDING_MESSAGES = "jetcopy_ack_pending_messages", "Messages delivered to the consumer and not yet \
                                                            acknowledged.";
    IN_FLIGHT_MESSAGES = "jetcopy_in_flight_messages", "Messages that the server has delivered and the \
                                                        pipeline has not yet read.";
    UNCOMMITTED_MESSAGES = "jetcopy_uncommitted_messages", "Messages that the pipeline has read and not yet \
                                                            committed.";
    BEHIND_SECONDS = "jetcopy_behind_seconds", "Age of the oldest message that is not yet committed; 0 if \
                                                there is none.";
    HEADROOM_SEQUENCES = "jetcopy_headroom_sequences", "Number of sequences that the stream can still drop \
                                                        before it drops uncommitted ones; shrinks only while \
                                                        the stream is at its limits.";
    HEADROOM_SECONDS = "jetcopy_headroom_seconds", "Time until the stream drops uncommitted messages, at the \
                                                    rates of the last half minute; +Inf if it will not.";
    CATCH_UP_SECONDS = "jetcopy_catch_up_seconds", "Time until the pipeline has caught up, at the rates of \
                                                    the last half minute; 0 if it is less than a second \
                                                    behind, +Inf if the lag does not shrink.";
    OUTAGES = "jetcopy_outages_total", "Outages: failures of a running pipeline. All attempts until it \
                                        commits again count as one.";
    RESYNCS = "jetcopy_resyncs_total", "Restarts from the checkpoint, by cause; each attempt in an outage \
                                        counts.";
    REPLAYED = "jetcopy_replayed_messages_total", "Stream sequences that were committed and are written \
                                                   again, because the database lost the commit: in a \
                                                   failover, a crash or a restored backup. Total ever, \
                                                   counted in the database.";
    LOSSES = "jetcopy_losses_total", "How often the stream no longer held what comes after the checkpoint. \
                                      Total ever, counted in the database.";
    LOST_MESSAGES = "jetcopy_lost_messages_total", "Stream sequences that were gone before they could be \
                                                    committed. Total ever, counted in the database.";
    SUPERSEDED = "jetcopy_superseded_messages_total", "Stream sequences that the stream itself removed \
                                                       before they were read: by a limit of messages per \
                                                       subject, a time to live or a roll-up. Total ever, \
                                                       counted in the database.";
    NEWEST_EVENT_AGE = "jetcopy_newest_event_age_seconds", "Time since the pipeline's newest dead letter, \
                                                            loss or replay in the database, whichever daemon \
                                                            recorded it; +Inf if there is none.";
    DATABASE_UP = "jetcopy_database_up", "1 if the pipeline's last request to a writable database was \
                                          answered, else 0.";
    NATS_UP = "jetcopy_nats_up", "1 if the pipeline's last request to NATS was answered, else 0.";
    PIPELINE_STATE = "jetcopy_pipeline_state", "1 for the pipeline's current state, 0 for the others.";
    LEFT_BEHIND = "jetcopy_left_behind_messages", "Messages in the streams of shards that the configuration \
                                                   no longer names: nobody reads them. See `left_behind` of \
                                                   `/status`.";
    MAINTAIN_RUNS = "jetcopy_maintain_runs_total", "Runs of the store's maintenance, by outcome; busy if \
                                                    another daemon was already running it.";
    MAINTAIN_LAST_RUN = "jetcopy_maintain_last_run_timestamp_seconds", "When this daemon last maintained the \
                                                                        store, in seconds since the Unix \
                                                                        epoch; 0 before the first time.";
    MAINTAIN_SECONDS = "jetcopy_maintain_last_run_seconds", "How long the last maintenance took.";
    API_REQUESTS = "jetcopy_api_requests_total", "Requests for API queries with a valid token, by outcome: \
                                                  answered; refused (invalid, or asking for too much); \
                                                  unavailable (too many queries, or no database); timeout; \
                                                  failed (the role or the database lacks something).";
    API_SECONDS = "jetcopy_api_request_seconds", "Time from such a request to its answer, including the wait \
                                                  for a free connection.";
    BUILD_INFO = "jetcopy_build_info", "Always 1; the label is the daemon's version.";
    LOG_LINES_DROPPED = "jetcopy_log_lines_dropped_total", "Log lines dropped because standard error is on a \
                                                            full disk, or is a pipe that is full or has no \
                                                            reader.";
    PROCESS_START = "process_start_time_seconds", "Start of the process in seconds since the Unix epoch.";
}
