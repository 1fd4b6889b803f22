//! `jetcopy accept-loss`: what continuing past a loss would mean, and the word that lets the pipeline do it.
//!
//! Guarantees: the plan is made of the stream and the checkpoint as the daemon would compare them. Accepting
//! changes `jetcopy.losses` and nothing else; the daemon resumes by itself.
//!
//! Not guaranteed: that the stream stays as it is until the daemon looks again.

use super::rewind::{Doubled, doubled, stream};
use super::{claim, failed, rewind};
use crate::audit::contents::Contents;
use crate::clock;
use crate::config::{Config, Pipeline};
use crate::loss::{self, Cause, Loss, Open, Verdict};
use crate::milestones;
use crate::nats;
use crate::postgres::connect::Session;
use crate::resync;
use crate::shard::Shard;

/// How the servers know the sessions.
pub(crate) const CLIENT_NAME: &str = "jetcopy accept-loss";

/// What going on would mean.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub checkpoint: u64,
    /// First and last sequence that the stream holds.
    pub stream: (u64, u64),
    /// The loss as it is now.
    pub loss: Loss,
    /// The last sequence that stream and tables both have for sure, where it is not known to the message
    /// where they went apart.
    pub forked_after: Option<u64>,
    /// After which sequence the pipeline would go on.
    pub after: u64,
    /// Messages that it would read.
    pub messages: u64,
    /// Messages that would come again.
    pub again: Again,
    /// The rows that they have.
    pub tables: Vec<Doubled>,
}

/// Messages that are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// As many, for sure.
    Certain(u64),
    /// As many if the stream holds the same messages as the previous one, else none.
    Perhaps(u64),
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database, its tables or the stream.
    #[error(transparent)]
    Rewind(#[from] rewind::Error),
    /// The milestones cannot be read.
    #[error("cannot read jetcopy.milestones; is the schema migrated?")]
    Milestones(#[source] tokio_postgres::Error),
    /// Stream and checkpoint cannot be compared.
    #[error(transparent)]
    Judge(Box<resync::Error>),
    /// The sequence is none that the stream could be read from.
    #[error("the stream holds sequences {first} to {last}: --after must be {} to {last}",
        .first.saturating_sub(1))]
    Outside {
        /// First that it holds.
        first: u64,
        last: u64,
    },
    /// Nothing holds the pipeline up.
    #[error("no loss is holding up pipeline {0}: to go back, use `jetcopy rewind`")]
    Intact(String),
}

impl From<super::Error> for Error {
    fn from(error: super::Error) -> Self {
        Self::Rewind(error.into())
    }
}

/// The losses that nobody has accepted, in order.
pub(crate) async fn open(session: &Session, shard: &Shard) -> Result<Vec<Open>, Error> {
    let open = loss::open(&session.client, shard).await;
    Ok(open.map_err(failed("read jetcopy.losses"))?)
}

/// Looks at what it would mean to go on, after `after` where that is given; `None` where nothing holds the
/// pipeline up.
pub(crate) async fn plan(
    config: &Config,
    pipeline: &Pipeline,
    shard: &Shard,
    session: &Session,
    after: Option<u64>,
) -> Result<Option<Plan>, Error> {
    let Some(claim) = claim(session, shard).await? else {
        return Err(rewind::Error::NoCheckpoint(shard.to_string()).into());
    };
    let milestones = milestones::read(&session.client, &shard.name).await.map_err(Error::Milestones)?;
    let nats = nats::Connection::open(&config.nats, CLIENT_NAME).await.map_err(rewind::Error::from)?;
    let stream = stream(nats.client.clone(), shard).await?;
    let clock = clock::of_server(&nats.client, &shard.stream).await;
    let judged = resync::judge(&nats, pipeline, &stream, &claim, &milestones, &clock).await;
    let (facts, verdict) = judged.map_err(|error| Error::Judge(Box::new(error)))?;
    let Verdict::Lost(loss) = verdict else {
        return if after.is_some() { Err(Error::Intact(shard.to_string())) } else { Ok(None) };
    };
    let (first, last) = (facts.first_sequence, facts.last_sequence);
    let after = after.unwrap_or(loss.resume_after);
    if after + 1 < first || after > last {
        return Err(Error::Outside { first, last });
    }
    // Up to here, the stream holds what was committed, or may.
    let (certain, end) = match (loss.cause, facts.agreement) {
        (Cause::Recreated, _) => (false, claim.last_sequence),
        (Cause::RolledBack, Some(agreement)) if agreement.forked => (false, claim.last_sequence),
        (Cause::RolledBack, _) => (true, loss.resume_after),
        (Cause::Dropped | Cause::Superseded, _) => (true, claim.last_sequence),
    };
    let end = end.min(last);
    let unread = |source| rewind::Error::Stream { stream: shard.stream.clone(), source };
    let contents = Contents::new(&stream, &pipeline.subjects);
    let messages = contents.count(after + 1, last).await.map_err(unread)?;
    let (mut again, mut tables) = (0, Vec::new());
    if end > after {
        again = contents.count(after + 1, end).await.map_err(unread)?;
        tables = doubled(config, pipeline, session, after, Some(end)).await?;
    }
    Ok(Some(Plan {
        checkpoint: claim.last_sequence,
        stream: (first, last),
        forked_after: facts.agreement.filter(|agreement| agreement.forked).map(|agreement| agreement.proven),
        after,
        messages,
        again: if certain { Again::Certain(again) } else { Again::Perhaps(again) },
        tables,
        loss,
    }))
}

/// Accepts every loss; the last one, at which the pipeline is held up, with the sequence to go on after where
/// one is given.
pub(crate) async fn accept(session: &Session, shard: &Shard, after: Option<u64>) -> Result<(), Error> {
    let accepted = loss::accept(&session.client, shard, after).await;
    Ok(accepted.map_err(failed("accept the losses"))?)
}
