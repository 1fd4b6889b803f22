//! The one place where the failure of a generation becomes a decision.
//!
//! Guarantees: every failure has a decision, without a wildcard arm; what a person must fix is never retried
//! in a tight loop, and what the next attempt may fix never waits for a person.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode};

use tokio_postgres::error::SqlState;

use crate::checkpoint;
use crate::copy::CopyError;
use crate::gaps;
use crate::lag;
use crate::loss::{self, Loss};
use crate::nats::{self, Denial, Lost, Trouble};
use crate::pipeline::Failure;
use crate::postgres::connect::ConnectError;
use crate::postgres::direct_compress::DirectCompressError;
use crate::postgres::introspect::IntrospectError;
use crate::postgres::sqlstate::{self, Decision, Step, decide};
use crate::read;
use crate::resync;
use crate::stored;
use crate::subscribe::{self, pull};
use crate::write;

mod cause;
mod words;

pub(crate) use cause::{Cause, Server};
pub(crate) use words::{flood_remedy, reason};

/// What helps where there is no JetStream.
const ENABLE: &str = "enable JetStream on the NATS server and for the account of jetcopy's user";

/// What helps where a stream drops what was acknowledged.
const LIMITS: &str = "give the stream limits retention: other policies drop messages after an ack, and those \
                      cannot be replayed after a failover";

/// A table is not there as it was.
const GONE: [SqlState; 4] = [
    SqlState::UNDEFINED_TABLE,
    SqlState::UNDEFINED_COLUMN,
    SqlState::INVALID_SCHEMA_NAME,
    SqlState::WRONG_OBJECT_TYPE,
];

/// What to do after a generation failed, and why, as `jetcopy_resyncs_total` counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Why the next resync begins.
    pub cause: Cause,
    pub action: Action,
}

/// What to do after a generation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the next generation after a pause.
    Again,
    /// The same after a short one: nobody answered, and somebody may at any moment.
    Reconnect,
    /// The same, and recreate the durable instead of moving it.
    Recreate,
    /// Nothing has failed: start the next generation at once, but after one that has committed nothing as
    /// [`Self::Again`].
    AtOnce,
    /// Another daemon has the shard: look again when its lease may have ended.
    Wait,
    /// An operator paused it: look often whether they resumed it.
    Hold {
        /// What would resume it.
        remedy: String,
    },
    /// A person must fix something outside; look again from time to time.
    Pause {
        /// What would fix it.
        remedy: String,
    },
    /// A person must decide; look from time to time whether they have.
    Halt {
        /// What would fix it.
        remedy: String,
    },
    /// A person must fix what a flood of dead letters is about, or accept them: look often whether they did.
    /// Another generation would meet the same before.
    PauseForFlood {
        /// What would fix it.
        remedy: String,
    },
}

impl Recovery {
    /// The server that the failure shows to be away; the metrics say so until an attempt finds it again. One
    /// that refuses something is there.
    #[must_use]
    pub(crate) fn away(&self) -> Option<Server> {
        match (self.cause.server(), &self.action) {
            (Some(Server::Database), action) if !matches!(action, Action::Again | Action::Reconnect) => None,
            (server, _) => server,
        }
    }

    /// Whether something failed that starts again by itself.
    #[must_use]
    pub(crate) fn is_failure(&self) -> bool {
        match self.action {
            Action::Again | Action::Reconnect | Action::Recreate => true,
            Action::AtOnce
            | Action::Wait
            | Action::Hold { .. }
            | Action::Pause { .. }
            | Action::Halt { .. }
            | Action::PauseForFlood { .. } => false,
        }
    }

    /// Whether it lasts until somebody else does something, however often it is looked whether they did.
    #[must_use]
    pub(crate) fn stays(&self) -> bool {
        !self.is_failure() && self.action != Action::AtOnce
    }

    fn again(cause: Cause) -> Self {
        Self { cause, action: Action::Again }
    }

    fn reconnect(cause: Cause) -> Self {
        Self { cause, action: Action::Reconnect }
    }

    fn pause(cause: Cause, remedy: impl Into<String>) -> Self {
        Self { cause, action: Action::Pause { remedy: remedy.into() } }
    }
}

/// Decides.
#[must_use]
pub(crate) fn recovery(failure: &Failure) -> Recovery {
    match failure {
        Failure::Resync(error) => of_resync(error),
        Failure::Read(read::Error::Subscription(error)) | Failure::Subscribe(error) => of_subscription(error),
        Failure::Read(read::Error::Gaps(error)) => of_gaps(error),
        // Resync finds the loss, records it and decides.
        Failure::Dropped(_) => Recovery::again(Cause::Dropped),
        Failure::Write(error) => of_write(error),
        Failure::Lag(error) => match error {
            lag::Error::Undelivered { .. } => Recovery::again(Cause::Undelivered),
            lag::Error::Skipped { .. } => Recovery { cause: Cause::Skipped, action: Action::Recreate },
            lag::Error::Contents(error) => of_gaps(error),
            // Another client's ack of an earlier generation counts for more than what this one has delivered.
            lag::Error::Unacknowledged { remedy: None, .. } => {
                Recovery { cause: Cause::Acks, action: Action::Recreate }
            }
            lag::Error::Unacknowledged { remedy: Some(remedy), .. } => Recovery::pause(Cause::Acks, remedy),
            lag::Error::Retention(_) => Recovery::pause(Cause::Stream, LIMITS),
            lag::Error::NoPull => Recovery::again(Cause::NoPull),
            lag::Error::Paused(error) => of_subscription(error),
            lag::Error::Deleted => Recovery::again(Cause::ConsumerDeleted),
            lag::Error::Changed => Recovery { cause: Cause::ConsumerChanged, action: Action::Recreate },
            lag::Error::Consumer(_) | lag::Error::Stream(_) | lag::Error::Timeout => {
                Recovery::again(Cause::Jetstream)
            }
        },
        Failure::Nats(lost) => of_connection(lost),
        Failure::Denied(denial) => denied(denial),
        // The next claim changes their number.
        Failure::Settled => Recovery { cause: Cause::Writers, action: Action::AtOnce },
        Failure::Panicked(_) => Recovery::again(Cause::Panic),
    }
}

/// How the connection to NATS was lost, where it was while a generation ran.
#[must_use]
pub(crate) fn lost_connection(failure: &Failure) -> Option<&Lost> {
    let (Failure::Nats(lost)
    | Failure::Subscribe(subscribe::Error::Pull(pull::Error::Lost(lost)))
    | Failure::Read(read::Error::Subscription(subscribe::Error::Pull(pull::Error::Lost(lost))))) = failure
    else {
        return None;
    };
    matches!(lost.trouble, Trouble::Disconnected | Trouble::Closed).then_some(lost)
}

fn of_connection(lost: &Lost) -> Recovery {
    match lost.trouble {
        Trouble::Disconnected | Trouble::Closed => Recovery::again(Cause::Nats),
        Trouble::LameDuck => Recovery::again(Cause::LameDuck),
        Trouble::SlowConsumer => Recovery::again(Cause::SlowConsumer),
    }
}

fn of_resync(error: &resync::Error) -> Recovery {
    match error {
        resync::Error::Postgres(error) => match &**error {
            ConnectError::Config { .. } => {
                Recovery::pause(Cause::Database, "correct the [postgres] settings and start jetcopy again")
            }
            ConnectError::Tls { remedy, .. } => Recovery::pause(Cause::Database, remedy),
            ConnectError::Refused { remedy, .. } | ConnectError::ReadOnly { remedy, .. } => {
                Recovery::pause(Cause::Database, remedy)
            }
            // Looked at often: the newer primary may be back at any moment.
            ConnectError::Superseded { remedy, .. } => {
                Recovery { cause: Cause::Database, action: Action::Hold { remedy: remedy.clone() } }
            }
            ConnectError::NotWritable { .. } | ConnectError::Unreachable { .. } => {
                Recovery::reconnect(Cause::Database)
            }
        },
        resync::Error::Silent { .. } => Recovery::reconnect(Cause::Database),
        resync::Error::Leaderless { .. } => Recovery::reconnect(Cause::Jetstream),
        resync::Error::Nats(error) => of_nats(error),
        resync::Error::Checkpoint(error) => of_checkpoint(error),
        resync::Error::Timeout { .. } => Recovery::again(Cause::Database),
        resync::Error::Introspect(error) => match error {
            IntrospectError::Query { source, .. } => of_database(source, Step::Own),
            IntrospectError::Missing { remedy, .. } | IntrospectError::Unusable { remedy, .. } => {
                Recovery::pause(Cause::Table, remedy)
            }
        },
        resync::Error::DirectCompress(error) => match error {
            DirectCompressError::Query { source, .. } => of_database(source, Step::Own),
            DirectCompressError::Refused { .. } => {
                Recovery::pause(Cause::Table, "fix the table or the configuration; jetcopy retries by itself")
            }
        },
        resync::Error::Plan(_) => Recovery::pause(Cause::Mapping, "fix the mapping or the table"),
        resync::Error::Stream { source, .. } => match source.kind() {
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                Recovery::pause(Cause::Stream, "correct the stream's name in the configuration")
            }
            GetStreamErrorKind::JetStream(error) => of_jetstream(&error),
            // A replicated one without a leader answers nobody; it may have one at any moment.
            GetStreamErrorKind::Request => Recovery::reconnect(Cause::Jetstream),
        },
        resync::Error::NoJetStream => Recovery::pause(Cause::Jetstream, ENABLE),
        resync::Error::Denied(denial) => denied(denial),
        resync::Error::Compare(_) => Recovery::again(Cause::Jetstream),
        resync::Error::Single(error) => match error {
            stored::Error::Request { .. } | stored::Error::Answer { .. } => Recovery::again(Cause::Jetstream),
            stored::Error::Refused { .. } => Recovery::pause(
                Cause::Stream,
                "let jetcopy's user read messages ($JS.API.STREAM.MSG.GET), or correct the stream's name",
            ),
        },
        resync::Error::OldServer { .. } => Recovery::pause(
            Cause::Nats,
            format!("upgrade the NATS server to {} or later", subscribe::least_server()),
        ),
        resync::Error::Retention(_) => Recovery::pause(Cause::Stream, LIMITS),
        resync::Error::Loss(loss) => of_loss(loss),
        resync::Error::Place(error) => of_subscription(error),
    }
}

/// No connection to NATS.
fn of_nats(error: &nats::ConnectError) -> Recovery {
    match error {
        nats::ConnectError::File { .. } => Recovery::pause(Cause::Nats, "make the file readable by jetcopy"),
        nats::ConnectError::Certificate { .. } => Recovery::pause(
            Cause::Nats,
            "correct [nats.tls]: ca_file must contain the CA of the server's certificate, nats.url must use \
             its names, and cert_file and key_file are jetcopy's own, if the server asks for them",
        ),
        nats::ConnectError::Connect { source, .. } => match source.kind() {
            async_nats::ConnectErrorKind::Authentication
            | async_nats::ConnectErrorKind::AuthorizationViolation => {
                Recovery::pause(Cause::Nats, "correct the credentials in [nats]")
            }
            async_nats::ConnectErrorKind::ServerParse => Recovery::pause(Cause::Nats, "correct nats.url"),
            async_nats::ConnectErrorKind::Tls => {
                Recovery::pause(Cause::Nats, "correct [nats.tls] or the server's certificate")
            }
            async_nats::ConnectErrorKind::Dns
            | async_nats::ConnectErrorKind::TimedOut
            | async_nats::ConnectErrorKind::Io
            | async_nats::ConnectErrorKind::MaxReconnects => Recovery::reconnect(Cause::Nats),
        },
    }
}

/// Messages are lost: somebody has to decide.
fn of_loss(loss: &Loss) -> Recovery {
    let mut remedy = format!(
        "see jetcopy.losses; `jetcopy accept-loss` shows what continuing after sequence {} would mean; with \
         --yes the pipeline does so",
        loss.resume_after
    );
    if loss.cause == loss::Cause::Superseded {
        remedy.push_str("; to continue past all such losses, set on_superseded = \"record\"");
    }
    Recovery { cause: Cause::Loss, action: Action::Halt { remedy } }
}

/// What JetStream itself says.
fn of_jetstream(error: &jetstream::Error) -> Recovery {
    match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND => Recovery::pause(
            Cause::Stream,
            "create the stream, or correct its name or the permissions of jetcopy's user",
        ),
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Recovery::pause(Cause::Jetstream, ENABLE)
        }
        ErrorCode::MAXIMUM_CONSUMERS_LIMIT => Recovery::pause(
            Cause::Consumer,
            "raise max_consumers of the stream or of the account, or remove unused consumers",
        ),
        // 5xx: it is being elected, recovered or short of something; 4xx stays until somebody fixes it.
        _ if error.code() >= 500 => Recovery::reconnect(Cause::Jetstream),
        _ => Recovery::pause(Cause::Jetstream, "fix what the server reports; jetcopy retries by itself"),
    }
}

fn denied(denial: &Denial) -> Recovery {
    Recovery::pause(
        Cause::Permission,
        format!("allow jetcopy's user in NATS to {denial}; config/nats lists all that it needs"),
    )
}

fn of_subscription(error: &subscribe::Error) -> Recovery {
    match error {
        // Another client may be pulling from the durable: recreating it ends its requests.
        subscribe::Error::Breach(_) | subscribe::Error::Foreign => {
            Recovery { cause: Cause::Contiguity, action: Action::Recreate }
        }
        subscribe::Error::Pull(error) => match error {
            pull::Error::MissedHeartbeat => Recovery::again(Cause::Heartbeat),
            pull::Error::ConsumerDeleted => Recovery::again(Cause::ConsumerDeleted),
            pull::Error::NoResponders => Recovery::again(Cause::NoResponders),
            pull::Error::Refused(_) => Recovery { cause: Cause::ConsumerChanged, action: Action::Recreate },
            pull::Error::Lost(lost) => of_connection(lost),
            pull::Error::Subscribe(_) | pull::Error::Ask(_) => Recovery::again(Cause::Jetstream),
        },
        subscribe::Error::Paused { stream, durable, .. } => Recovery {
            cause: Cause::PausedInNats,
            action: Action::Hold {
                remedy: format!(
                    "run `nats consumer resume {stream} {durable}`, or wait until the pause ends"
                ),
            },
        },
        subscribe::Error::Elsewhere { .. } => Recovery::pause(Cause::Consumer, subscribe::ONE_EACH),
        subscribe::Error::NotOurs { stream, durable } => Recovery::pause(
            Cause::Consumer,
            format!(
                "set `durable` to another name, or remove the existing one: `nats consumer rm {stream} \
                 {durable}`"
            ),
        ),
        subscribe::Error::Refused { source, .. } => of_jetstream(source),
        subscribe::Error::Unlike { .. } => Recovery::pause(
            Cause::ConsumerChanged,
            format!(
                "upgrade the NATS server that holds the stream to {} or later: an older one ignores what it \
                 does not know",
                subscribe::least_server()
            ),
        ),
        subscribe::Error::Leaderless { .. } | subscribe::Error::Consumer { .. } => {
            Recovery::reconnect(Cause::Jetstream)
        }
    }
}

fn of_gaps(error: &gaps::Error) -> Recovery {
    match error {
        // Whoever made the durable pass over messages may do so again: recreating it ends their requests.
        gaps::Error::Skipped { .. } => Recovery { cause: Cause::Skipped, action: Action::Recreate },
        gaps::Error::Stripped { .. } | gaps::Error::Changed => {
            Recovery { cause: Cause::ConsumerChanged, action: Action::Recreate }
        }
        gaps::Error::Durable(error) => of_subscription(error),
        gaps::Error::Denied(denial) => denied(denial),
        gaps::Error::Unanswered(_) | gaps::Error::Refused(_) | gaps::Error::Message(_) => {
            Recovery::again(Cause::Jetstream)
        }
    }
}

fn of_checkpoint(error: &checkpoint::Error) -> Recovery {
    match error {
        // What another has is waited for, and so is this daemon's own row.
        checkpoint::Error::Held { .. } | checkpoint::Error::Unlisted => {
            Recovery { cause: Cause::Held, action: Action::Wait }
        }
        checkpoint::Error::Paused { pipeline, .. } => Recovery {
            cause: Cause::Paused,
            action: Action::Hold { remedy: format!("run `jetcopy resume {pipeline}`") },
        },
        checkpoint::Error::LostEpoch => Recovery::again(Cause::LostEpoch),
        checkpoint::Error::SyncWaitCancelled => Recovery::again(Cause::SyncWaitCancelled),
        checkpoint::Error::Database { source, .. } => of_database(source, Step::Own),
        checkpoint::Error::Unreadable { .. } => Recovery::pause(
            Cause::Checkpoint,
            "run `jetcopy migrate` of this version, or fix the row manually",
        ),
    }
}

fn of_write(error: &write::Error) -> Recovery {
    match error {
        write::Error::Checkpoint(error) => of_checkpoint(error),
        write::Error::Changed { .. } => Recovery { cause: Cause::Table, action: Action::AtOnce },
        // The same for a table that is gone, or is no table any more.
        write::Error::Begin { source, .. } if source.code().is_some_and(|code| GONE.contains(code)) => {
            Recovery::again(Cause::Table)
        }
        write::Error::Begin { source, .. } => of_database(source, Step::Own),
        // The table is not what it was when the generation began: the next one looks at it again, and says so
        // if it is gone or the mapping no longer fits.
        write::Error::Copy { source, .. }
            if source.step == Step::CopyStart
                && source.source.code().is_some_and(|code| {
                    [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code)
                }) =>
        {
            Recovery::again(Cause::Table)
        }
        write::Error::Copy { source, .. }
        | write::Error::Elsewhere { relation: None, sequence: None, source, .. } => of_copy(source),
        write::Error::AllRefused { sequence, lasting: true, source, .. } => Recovery::pause(
            Cause::Table,
            format!(
                "fix the table, trigger or constraint that refuses all rows ({}); if only those from \
                 sequence {sequence} on are refused and not needed, delete them from the stream; jetcopy \
                 retries by itself",
                sqlstate::said(source)
            ),
        ),
        write::Error::AllRefused { lasting: false, .. }
        | write::Error::Unsettled { .. }
        | write::Error::Doubted { .. }
        | write::Error::Elsewhere { relation: Some(_), sequence: None, .. } => Recovery::again(Cause::Table),
        write::Error::Elsewhere { sequence: Some(sequence), source, .. } => Recovery::pause(
            Cause::Table,
            format!(
                "fix what the server names ({}); all other messages pass, so if the one at sequence \
                 {sequence} is not needed, delete it from the stream; jetcopy retries by itself",
                sqlstate::said(&source.source)
            ),
        ),
        write::Error::Slow { source, .. } => of_write(source),
        write::Error::TooMuch { source, .. } => {
            Recovery::pause(Cause::Table, sqlstate::remedy_for_limit(&source.source))
        }
        write::Error::TooSlow { sequence, .. } => Recovery::pause(
            Cause::Table,
            format!(
                "raise postgres.step_timeout, or find out why the database takes so long for the message at \
                 sequence {sequence}, usually a lock or a trigger; jetcopy retries by itself"
            ),
        ),
        write::Error::DeadLetters(error)
        | write::Error::Trial(error)
        | write::Error::Partitions { source: error, .. } => of_database(error, Step::Own),
        write::Error::NoPartition { .. } => Recovery::pause(
            Cause::Table,
            "create the partition, or a default one, or drop what is in its place; jetcopy retries by itself",
        ),
        write::Error::Bounds { .. } => {
            Recovery::pause(Cause::Table, "run `jetcopy migrate`, which applies [store] to the database")
        }
        write::Error::Timeout { .. } | write::Error::Closed | write::Error::Silent { .. } => {
            Recovery::again(Cause::Database)
        }
        write::Error::Flood(stopped) => Recovery {
            cause: Cause::Poison,
            action: Action::PauseForFlood { remedy: flood_remedy(&stopped.pipeline) },
        },
    }
}

fn of_copy(error: &CopyError) -> Recovery {
    let recovery = of_database(&error.source, error.step);
    // The server is there; what it writes to or asks for these rows is not.
    let behind = recovery.action == Action::Again && sqlstate::is_behind(&error.source, error.step);
    if behind { Recovery::again(Cause::Table) } else { recovery }
}

fn of_database(error: &tokio_postgres::Error, step: Step) -> Recovery {
    match decide(error, step) {
        Decision::Retry
        | Decision::Reconnect
        | Decision::BackOff
        | Decision::SuspectRow
        | Decision::AddPartition
        | Decision::Merge
        | Decision::Divide
        | Decision::BackOffUnlessRow => Recovery::again(Cause::Database),
        Decision::PauseUnlessRow => Recovery::pause(Cause::Table, sqlstate::remedy_for_rows(error)),
        Decision::Pause => Recovery::pause(Cause::Database, sqlstate::remedy(error)),
    }
}
