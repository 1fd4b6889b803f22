//! Why a generation ended, as `jetcopy_resyncs_total` counts it.
//!
//! Guarantees: a label never changes its text with the code, and nothing is decided by one. A cause says what
//! failed, not what to do about it: that is [`super::Action`].

/// A server that a pipeline needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// PostgreSQL.
    Database,
    Nats,
}

/// Why the next resync begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The process has begun.
    Start,
    /// PostgreSQL did not answer, or refused the session or a statement.
    Database,
    /// The database refused rows, or a table is not what it was.
    Table,
    /// The mapping does not fit the table.
    Mapping,
    /// The checkpoint cannot be read.
    Checkpoint,
    /// Another writer has claimed the shard.
    LostEpoch,
    /// Another daemon holds the shard.
    Held,
    /// An operator paused the shard.
    Paused,
    /// The wait for a synchronous standby was cancelled.
    SyncWaitCancelled,
    /// A flood of dead letters.
    Poison,
    /// The stream no longer holds messages that were not committed.
    Loss,
    /// The connection to NATS was lost, or could not be opened.
    Nats,
    /// The NATS server is about to stop.
    LameDuck,
    /// The client dropped messages that it had no room for.
    SlowConsumer,
    /// JetStream did not answer, or refused something.
    Jetstream,
    /// NATS does not let the user do what is needed.
    Permission,
    /// The stream is absent, or cannot be used as it is.
    Stream,
    /// The stream dropped messages before they were delivered.
    Dropped,
    /// The durable consumer cannot be made, or belongs to somebody else.
    Consumer,
    /// Somebody changed the durable consumer.
    ConsumerChanged,
    /// Somebody deleted the durable consumer.
    ConsumerDeleted,
    /// An operator paused the durable consumer in NATS.
    PausedInNats,
    /// Acks do not count.
    Acks,
    /// A delivery did not follow the one before.
    Contiguity,
    /// A heartbeat did not come.
    Heartbeat,
    /// Nobody answers at the durable consumer's address.
    NoResponders,
    /// The server holds messages and no pull request.
    NoPull,
    /// The durable consumer passed over messages.
    Skipped,
    /// Deliveries that the server counts never came.
    Undelivered,
    /// All is written that comes before another number of writers.
    Writers,
    /// A stage panicked.
    Panic,
}

impl Cause {
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Database => "database",
            Self::Table => "table",
            Self::Mapping => "mapping",
            Self::Checkpoint => "checkpoint",
            Self::LostEpoch => "lost_epoch",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::SyncWaitCancelled => "sync_wait_cancelled",
            Self::Poison => "poison",
            Self::Loss => "loss",
            Self::Nats => "nats",
            Self::LameDuck => "lame_duck",
            Self::SlowConsumer => "slow_consumer",
            Self::Jetstream => "jetstream",
            Self::Permission => "permission",
            Self::Stream => "stream",
            Self::Dropped => "dropped",
            Self::Consumer => "consumer",
            Self::ConsumerChanged => "consumer_changed",
            Self::ConsumerDeleted => "consumer_deleted",
            Self::PausedInNats => "paused_in_nats",
            Self::Acks => "acks",
            Self::Contiguity => "contiguity",
            Self::Heartbeat => "heartbeat",
            Self::NoResponders => "no_responders",
            Self::NoPull => "no_pull",
            Self::Skipped => "skipped",
            Self::Undelivered => "undelivered",
            Self::Writers => "writers",
            Self::Panic => "panic",
        }
    }

    /// The server that may be away, where that is what the cause is about.
    #[must_use]
    pub(crate) fn server(self) -> Option<Server> {
        match self {
            Self::Database => Some(Server::Database),
            Self::Nats | Self::LameDuck | Self::Jetstream | Self::Heartbeat | Self::NoResponders => {
                Some(Server::Nats)
            }
            Self::Start
            | Self::Table
            | Self::Mapping
            | Self::Checkpoint
            | Self::LostEpoch
            | Self::Held
            | Self::Paused
            | Self::SyncWaitCancelled
            | Self::Poison
            | Self::Loss
            | Self::SlowConsumer
            | Self::Permission
            | Self::Stream
            | Self::Dropped
            | Self::Consumer
            | Self::ConsumerChanged
            | Self::ConsumerDeleted
            | Self::PausedInNats
            | Self::Acks
            | Self::Contiguity
            | Self::NoPull
            | Self::Skipped
            | Self::Undelivered
            | Self::Writers
            | Self::Panic => None,
        }
    }
}
