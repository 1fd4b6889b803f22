//! The one way to start, to recover and to replay: from the checkpoint that the database holds.
//!
//! Guarantees: a [`Ready`] generation owns the shard under a new epoch, its durable stands right after the
//! checkpoint, and the stream is the one that the checkpoint counts in. Loss that cannot be prevented is in
//! `jetcopy.losses` before anything is read past it.
//!
//! It does not look for messages that were deleted in the middle of the stream before they were read.

use std::fmt;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{RawMessageErrorKind, RetentionPolicy, Stream};
use async_nats::jetstream::{self, context::GetStreamError};
use postgres_protocol::escape::escape_literal;

use crate::checkpoint::{self, Claim, Place};
use crate::config::{self, OnLoss};
use crate::decode::{Decoder, PlanError};
use crate::nats;
use crate::postgres::connect::{self, Session};
use crate::postgres::introspect::{self, IntrospectError};
use crate::subscribe::{self, Placement};

/// All that a generation starts with.
#[derive(Debug)]
pub struct Ready {
    /// The database, on which the shard is claimed.
    pub session: Session,
    /// The connection that the subscription lives on.
    pub nats: nats::Connection,
    /// The stream.
    pub stream: Stream,
    /// The durable, placed after the checkpoint.
    pub consumer: PullConsumer,
    /// Epoch and checkpoint.
    pub claim: Claim,
    /// The mapping, compiled against the tables as they are now.
    pub decoder: Decoder,
    /// The tables as they are now, in the order of the configuration.
    pub tables: Vec<introspect::Table>,
}

/// Why a generation cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No database session.
    #[error("no database connection")]
    Postgres(#[from] connect::ConnectError),
    /// No connection to NATS.
    #[error("no connection to NATS")]
    Nats(#[from] nats::ConnectError),
    /// The shard is not ours, or its row cannot be read.
    #[error("cannot claim the shard")]
    Checkpoint(#[from] checkpoint::Error),
    /// A target table cannot be used.
    #[error("cannot use the target table")]
    Introspect(#[from] IntrospectError),
    /// Mapping and table do not go together.
    #[error("the mapping does not fit the table")]
    Plan(#[from] PlanError),
    /// The stream cannot be found or read.
    #[error("cannot open stream {stream}")]
    Stream {
        /// Stream's name.
        stream: String,
        /// What the client said.
        source: GetStreamError,
    },
    /// The stream drops what has been acknowledged, so it cannot be replayed.
    #[error("stream {stream} has {retention} retention and cannot be replayed")]
    Retention {
        /// Stream's name.
        stream: String,
        /// Its retention policy.
        retention: &'static str,
    },
    /// The stream no longer holds what the checkpoint needs.
    #[error("{0}")]
    Loss(Loss),
    /// The durable could not be placed.
    #[error("cannot place the durable consumer")]
    Place(#[from] subscribe::Error),
}

/// What the stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamFacts {
    /// When it was created, in nanoseconds since the Unix epoch.
    pub created_ns: i64,
    /// Sequence of the first message that it holds; above `last_sequence` when it holds none.
    pub first_sequence: u64,
    /// Sequence of the last message that it ever stored.
    pub last_sequence: u64,
    /// When it stored the message at the checkpoint, in microseconds since the Unix epoch, where it still has it.
    pub checkpoint_timestamp_us: Option<i64>,
}

/// How stream and checkpoint stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The checkpoint is new: begin with the first message that the stream holds.
    Fresh,
    /// All that comes after the checkpoint is there.
    Intact,
    /// It is not.
    Lost(Loss),
}

/// Loss that could not be prevented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// What happened to the stream.
    pub cause: Cause,
    /// First sequence concerned.
    pub first_sequence: u64,
    /// Last sequence concerned; `None` when it cannot be known.
    pub last_sequence: Option<u64>,
    /// Where reading can go on: the checkpoint that would pass over the loss.
    pub resume_after: u64,
}

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Retention or a purge dropped messages before they were committed.
    Dropped,
    /// The stream is another one under the same name, and counts anew.
    Recreated,
    /// The stream's end lies before the checkpoint: it was restored or lost writes.
    RolledBack,
}

impl Cause {
    /// Value of `jetcopy.losses.cause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Recreated => "recreated",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Dropped => write!(
                f,
                "the stream dropped sequences {} to {} before they were committed",
                self.first_sequence,
                self.last_sequence.unwrap_or(self.resume_after)
            ),
            Cause::Recreated => write!(
                f,
                "the stream was recreated: what followed sequence {} of the former one and was not committed is lost",
                self.first_sequence.saturating_sub(1)
            ),
            Cause::RolledBack => write!(
                f,
                "the stream ends at {} while the database holds up to {}: it was rolled back or purged",
                self.resume_after,
                self.last_sequence.unwrap_or(self.first_sequence)
            ),
        }
    }
}

/// Compares the checkpoint with the stream.
#[must_use]
pub fn compare(claim: &Claim, stream: &StreamFacts) -> Verdict {
    let Some(created_ns) = claim.stream_created_ns else { return Verdict::Fresh };
    // The database keeps microseconds.
    let recreated = created_ns.div_euclid(1_000) != stream.created_ns.div_euclid(1_000);
    let replaced = match (claim.last_timestamp_us, stream.checkpoint_timestamp_us) {
        (Some(committed), Some(stored)) => committed != stored,
        _ => false,
    };
    let checkpoint = claim.last_sequence;
    if recreated || (replaced && stream.last_sequence >= checkpoint) {
        return Verdict::Lost(Loss {
            cause: Cause::Recreated,
            first_sequence: checkpoint + 1,
            last_sequence: None,
            resume_after: stream.start(),
        });
    }
    if stream.last_sequence < checkpoint {
        return Verdict::Lost(Loss {
            cause: Cause::RolledBack,
            first_sequence: stream.last_sequence + 1,
            last_sequence: Some(checkpoint),
            resume_after: stream.last_sequence,
        });
    }
    if stream.first_sequence > checkpoint + 1 {
        return Verdict::Lost(Loss {
            cause: Cause::Dropped,
            first_sequence: checkpoint + 1,
            last_sequence: Some(stream.first_sequence - 1),
            resume_after: stream.first_sequence - 1,
        });
    }
    Verdict::Intact
}

impl StreamFacts {
    /// The checkpoint right before the first message that the stream holds.
    fn start(&self) -> u64 {
        self.first_sequence.saturating_sub(1)
    }
}

/// Connects, claims the shard, settles what the stream holds, and places the durable.
pub async fn resync(
    settings: &config::Config,
    pipeline: &config::Pipeline,
    place: &Place,
    owner: &str,
    placement: Placement,
) -> Result<Ready, Error> {
    let session = connect::connect(&settings.postgres, owner).await?;
    let claim = checkpoint::claim(&session, place, owner).await?;
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for table in &pipeline.tables {
        tables.push(introspect::introspect(&session.client, &table.name).await?);
    }
    let decoder = Decoder::new(pipeline, &tables)?;

    let nats = nats::Connection::open(&settings.nats, owner).await?;
    let context = jetstream::new(nats.client.clone());
    let stream = context
        .get_stream(&pipeline.stream)
        .await
        .map_err(|source| Error::Stream { stream: pipeline.stream.clone(), source })?;
    refuse_other_retention(&stream)?;
    let facts = read_facts(&stream, claim.last_sequence).await;
    let claim = match compare(&claim, &facts) {
        Verdict::Intact => claim,
        Verdict::Fresh => {
            checkpoint::relocate(&session, place, &claim, facts.start(), facts.created_ns, "").await?
        }
        Verdict::Lost(loss) => settle_loss(&session, pipeline, place, &claim, &facts, loss).await?,
    };
    let consumer = subscribe::place(&nats.client, &stream, pipeline, claim.last_sequence, placement).await?;
    Ok(Ready { session, nats, stream, consumer, claim, decoder, tables })
}

fn refuse_other_retention(stream: &Stream) -> Result<(), Error> {
    let retention = match stream.cached_info().config.retention {
        RetentionPolicy::Limits => return Ok(()),
        RetentionPolicy::WorkQueue => "work queue",
        RetentionPolicy::Interest => "interest",
    };
    Err(Error::Retention { stream: stream.cached_info().config.name.clone(), retention })
}

async fn read_facts(stream: &Stream, checkpoint: u64) -> StreamFacts {
    let info = stream.cached_info();
    let state = &info.state;
    let holds = (state.first_sequence..=state.last_sequence).contains(&checkpoint);
    let checkpoint_timestamp_us = if checkpoint > 0 && holds {
        match stream.get_raw_message(checkpoint).await {
            Ok(message) => i64::try_from(message.time.unix_timestamp_nanos() / 1_000).ok(),
            Err(error) => {
                // A deleted message or a missing permission: the comparison of sequences and creation times stays.
                if error.kind() != RawMessageErrorKind::NoMessageFound {
                    tracing::debug!(%error, "cannot read the message at the checkpoint");
                }
                None
            }
        }
    } else {
        None
    };
    StreamFacts {
        created_ns: i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX),
        first_sequence: state.first_sequence,
        last_sequence: state.last_sequence,
        checkpoint_timestamp_us,
    }
}

/// Records a loss once, and goes past it if the pipeline may.
async fn settle_loss(
    session: &Session,
    pipeline: &config::Pipeline,
    place: &Place,
    claim: &Claim,
    facts: &StreamFacts,
    loss: Loss,
) -> Result<Claim, Error> {
    let record = record_loss(place, &loss, facts.created_ns);
    match pipeline.on_loss {
        OnLoss::Halt => {
            session
                .client
                .simple_query(&record)
                .await
                .map_err(|source| checkpoint::Error::Database { action: "record a loss of", source })?;
            Err(Error::Loss(loss))
        }
        OnLoss::Continue => {
            tracing::error!(pipeline = place.pipeline, %loss, "going on past a loss, as on_loss says");
            let to = loss.resume_after;
            Ok(checkpoint::relocate(session, place, claim, to, facts.created_ns, &record).await?)
        }
    }
}

/// SQL that records a loss unless the very same is recorded already.
fn record_loss(place: &Place, loss: &Loss, created_ns: i64) -> String {
    let last = loss.last_sequence.map_or_else(|| "NULL::bigint".to_owned(), |last| last.to_string());
    let (pipeline, shard, stream) =
        (escape_literal(&place.pipeline), escape_literal(&place.shard), escape_literal(&place.stream));
    let created = checkpoint::timestamp(created_ns);
    format!(
        "INSERT INTO jetcopy.losses (pipeline, shard, stream, first_sequence, last_sequence, cause, stream_created) \
         SELECT {pipeline}, {shard}, {stream}, {first}, {last}, '{cause}', {created} \
         WHERE NOT EXISTS (SELECT FROM jetcopy.losses WHERE shard = {shard} AND first_sequence = {first} \
           AND last_sequence IS NOT DISTINCT FROM {last} AND cause = '{cause}' AND stream_created = {created})",
        first = loss.first_sequence,
        cause = loss.cause.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(last_sequence: u64) -> Claim {
        Claim { epoch: 1, last_sequence, stream_created_ns: Some(5_000_000), last_timestamp_us: Some(900) }
    }

    fn stream(first_sequence: u64, last_sequence: u64) -> StreamFacts {
        StreamFacts {
            created_ns: 5_000_123,
            first_sequence,
            last_sequence,
            checkpoint_timestamp_us: Some(900),
        }
    }

    fn lost(verdict: Verdict) -> Loss {
        match verdict {
            Verdict::Lost(loss) => loss,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_checkpoint_starts_with_what_the_stream_holds() {
        let claim = Claim { stream_created_ns: None, ..claim(0) };
        assert_eq!(compare(&claim, &stream(1_000, 2_000)), Verdict::Fresh);
        assert_eq!(stream(1_000, 2_000).start(), 999);
        assert_eq!(stream(0, 0).start(), 0);
    }

    #[test]
    fn a_stream_that_holds_all_after_the_checkpoint_is_intact() {
        assert_eq!(compare(&claim(10), &stream(1, 10)), Verdict::Intact);
        assert_eq!(compare(&claim(10), &stream(11, 20)), Verdict::Intact);
        // Emptied after all of it was committed.
        assert_eq!(compare(&claim(10), &stream(11, 10)), Verdict::Intact);
    }

    #[test]
    fn what_retention_dropped_before_it_was_committed_is_lost() {
        let loss = lost(compare(&claim(10), &stream(13, 20)));
        assert_eq!(
            (loss.cause, loss.first_sequence, loss.last_sequence, loss.resume_after),
            (Cause::Dropped, 11, Some(12), 12)
        );
    }

    #[test]
    fn a_stream_that_ends_before_the_checkpoint_was_rolled_back() {
        let facts = StreamFacts { checkpoint_timestamp_us: None, ..stream(1, 7) };
        let loss = lost(compare(&claim(10), &facts));
        assert_eq!(
            (loss.cause, loss.first_sequence, loss.last_sequence, loss.resume_after),
            (Cause::RolledBack, 8, Some(10), 7)
        );
    }

    #[test]
    fn another_creation_time_is_another_stream() {
        let facts = StreamFacts { created_ns: 6_000_000, ..stream(1, 50) };
        let loss = lost(compare(&claim(10), &facts));
        assert_eq!((loss.cause, loss.last_sequence, loss.resume_after), (Cause::Recreated, None, 0));
    }

    #[test]
    fn another_message_at_the_checkpoint_is_another_stream() {
        let facts = StreamFacts { checkpoint_timestamp_us: Some(901), ..stream(1, 50) };
        assert_eq!(lost(compare(&claim(10), &facts)).cause, Cause::Recreated);
    }
}
