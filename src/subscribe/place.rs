//! The durable consumer: made, moved to the checkpoint, and found as it has to be.
//!
//! Guarantees: after [`place`] the next delivery is the first message after the checkpoint, with consumer
//! sequence 1, whatever stood there before and whichever server has the consumer: one that does not know how
//! to reset it, or that allows fewer unacknowledged messages than jetcopy would like, is asked for what it
//! has.
//!
//! Not guaranteed: that nobody changes it afterwards; the probes look ([`crate::lag`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{
    ConsumerCreateStrictErrorKind, ConsumerError, ConsumerResetErrorKind, ConsumerUpdateError, Stream,
};
use jiff::Timestamp;
use tokio::time::timeout;

use super::Error;
use crate::config;
use crate::leftover::{BEGUN, Mark, Owner, TIMELINE};
use crate::shard::Shard;

/// Batches that may be delivered and not yet acknowledged: one being filled, one queued, one being written,
/// and one on the way. More makes an ack over an expired queue slow, which is quadratic in the server.
const BATCHES_UNACKED: usize = 4;

/// Never fewer: small batches come many in a second, and each waits for its ack to come round.
const LEAST_UNACKED: usize = 10_000;

/// Redelivery is no recovery path here; a week outlasts every outage in which a subscription stays open.
const ACK_WAIT: Duration = Duration::from_hours(7 * 24);

/// First server version with consumer reset (ADR-60).
const RESET_SINCE: (i64, i64, i64) = (2, 14, 0);

/// First server version with several subjects on a consumer, and the oldest that jetcopy was tried with. An
/// older one leaves out what it does not know and says nothing.
pub(crate) const LEAST_SERVER: (i64, i64, i64) = (2, 10, 0);

/// How long a request to reset may go without an answer. It is one step of a server that has just answered
/// another question about the durable; one that does not know the request never answers.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// How long that is remembered: servers are upgraded without jetcopy being started again.
const RESET_AGAIN: Duration = Duration::from_mins(10);

/// A durable that is younger was made by a daemon that is about to pull from it.
const JUST_MADE: Duration = Duration::from_secs(5);

/// How often, and how long apart, it is looked whether nobody pulls from another's durable, or whether one is
/// gone: between two pull requests there may be none for a moment.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(250);

/// JetStream's code for more unacknowledged messages than it allows a consumer.
const TOO_MANY_UNACKED: ErrorCode = ErrorCode(10_121);

/// How the durable is put at its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Moved where the server can do it and nobody else pulls from it, else recreated.
    #[default]
    Reset,
    /// Deleted and created: ends pull requests of other clients too.
    Recreate,
    /// The same where nobody answers for the one that is there.
    Replace,
}

/// Refuses a durable that an operator paused in NATS: nothing is delivered on it, and jetcopy does not undo
/// what somebody meant.
pub(crate) fn refuse_paused(durable: &consumer::Info) -> Result<(), Error> {
    if !durable.paused {
        return Ok(());
    }
    let until = durable.config.pause_until.and_then(|end| Timestamp::from_second(end.unix_timestamp()).ok());
    Err(Error::Paused {
        stream: durable.stream_name.clone(),
        durable: durable.name.clone(),
        until: until.map_or_else(|| "an unknown time".to_owned(), |until| until.to_string()),
    })
}

/// Refuses a durable that somebody else uses, which has been there for `age`; without this, two daemons of
/// one name would delete each other's without end. One that nobody uses is taken over, whatever database it
/// names: after a move or a restore of the database it is the pipeline's own.
///
/// `first` is whether the pipeline has read nothing yet: a durable that jetcopy did not make is another
/// program's then. Later it is taken for one of its own that somebody edited.
pub(crate) async fn refuse_others(
    stream: &Stream,
    shard: &Shard,
    found: &consumer::Info,
    mark: &Mark,
    age: Duration,
    first: bool,
) -> Result<(), Error> {
    let durable = found.name.clone();
    match mark.owner(found) {
        Owner::Own => Ok(()),
        Owner::Unmarked if !first || is_described(found, shard) => Ok(()),
        Owner::Unmarked => Err(Error::NotOurs { stream: found.stream_name.clone(), durable }),
        Owner::Elsewhere { pipeline: other, database } => {
            let mut used = found.num_waiting > 0 || age < JUST_MADE;
            for _ in 0..LOOKS {
                if used {
                    break;
                }
                tokio::time::sleep(LOOK).await;
                used = find(stream, shard).await?.is_some_and(|found| found.num_waiting > 0);
            }
            if used { Err(Error::Elsewhere { durable, pipeline: other, database }) } else { Ok(()) }
        }
    }
}

/// Whether a durable says of itself that it is the one of `shard`.
#[must_use]
pub(crate) fn is_described(durable: &consumer::Info, shard: &Shard) -> bool {
    durable.config.description.as_ref() == Some(&description(shard))
}

fn description(shard: &Shard) -> String {
    format!("cursor of jetcopy pipeline {}", shard.pipeline)
}

/// The configuration that the durable of a shard of `pipeline` must have.
#[must_use]
pub(crate) fn consumer_config(
    pipeline: &config::Pipeline,
    shard: &Shard,
    deliver_policy: DeliverPolicy,
) -> Config {
    Config {
        durable_name: Some(shard.durable.clone()),
        description: Some(description(shard)),
        deliver_policy,
        ..unnamed(pipeline)
    }
}

/// The same without a name.
fn unnamed(pipeline: &config::Pipeline) -> Config {
    let mut config = Config {
        ack_policy: AckPolicy::All,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        replay_policy: ReplayPolicy::Instant,
        max_ack_pending: max_ack_pending(pipeline),
        ..Default::default()
    };
    match pipeline.subjects.as_slice() {
        [] => {}
        [subject] => config.filter_subject.clone_from(subject),
        subjects => config.filter_subjects = subjects.to_vec(),
    }
    config
}

/// The most messages that may be unacknowledged, if the server allows that many.
#[must_use]
pub(crate) fn max_ack_pending(pipeline: &config::Pipeline) -> i64 {
    // Of several writers, each has two blocks under way while the floor waits for the slowest.
    let batches = if pipeline.writers > 1 { BATCHES_UNACKED + 2 * pipeline.writers } else { BATCHES_UNACKED };
    let most = pipeline.batch.max_rows.saturating_mul(batches).max(LEAST_UNACKED);
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// The same with as many unacknowledged messages as the server allowed when it made `consumer`, to compare it
/// with: by whatever name it goes.
#[must_use]
pub(crate) fn allowed_config(pipeline: &config::Pipeline, consumer: &PullConsumer) -> Config {
    let max_ack_pending = consumer.cached_info().config.max_ack_pending;
    Config { max_ack_pending, ..unnamed(pipeline) }
}

/// Whether what an operator or another program may have changed on the durable still is as `wanted`.
#[must_use]
pub(crate) fn matches(found: &consumer::Config, wanted: &Config) -> bool {
    differences(found, wanted).is_empty()
}

/// The settings of a durable that decide which messages come, in which order and how, and are other than
/// `wanted`. Where it starts is not looked at, since that is what [`place`] moves; limits of single pull
/// requests are the server's to set.
#[must_use]
pub(crate) fn differences(found: &consumer::Config, wanted: &Config) -> Vec<&'static str> {
    let differ = [
        ("ack_policy", found.ack_policy != wanted.ack_policy),
        ("ack_wait", found.ack_wait != wanted.ack_wait),
        ("max_deliver", found.max_deliver != wanted.max_deliver),
        ("max_ack_pending", found.max_ack_pending != wanted.max_ack_pending),
        ("filter_subject", found.filter_subject != wanted.filter_subject),
        ("filter_subjects", found.filter_subjects != wanted.filter_subjects),
        ("replay_policy", found.replay_policy != wanted.replay_policy),
        ("backoff", !found.backoff.is_empty()),
        ("headers_only", found.headers_only),
        ("deliver_subject", found.deliver_subject.is_some()),
        ("priority_policy", found.priority_policy != wanted.priority_policy),
    ];
    differ.into_iter().filter(|&(_, differs)| differs).map(|(field, _)| field).collect()
}

/// [`LEAST_SERVER`] as people write it.
#[must_use]
pub(crate) fn least_server() -> String {
    let (major, minor, _) = LEAST_SERVER;
    format!("{major}.{minor}")
}

/// Limits of a batch that can fill: the server holds deliveries back while that many are unacknowledged, and
/// a batch is acknowledged only once it is written.
#[must_use]
pub(crate) fn batch_limits(limits: config::BatchLimits, consumer: &PullConsumer) -> config::BatchLimits {
    let allowed = usize::try_from(consumer.cached_info().config.max_ack_pending).unwrap_or(usize::MAX);
    let rows = (allowed / BATCHES_UNACKED).max(1);
    config::BatchLimits { max_rows: limits.max_rows.min(rows), ..limits }
}

/// What was found out about the server of a durable, over the generations of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Facts>);

#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    /// When a request to reset went without an answer.
    reset_unanswered: Option<Instant>,
    /// Messages that may be unacknowledged at most.
    max_ack_pending: Option<i64>,
}

impl Known {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        // Plain values: what a panicking thread left behind is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers_resets(&self) -> bool {
        self.facts().reset_unanswered.is_none_or(|at| at.elapsed() > RESET_AGAIN)
    }
}

/// Puts the durable of `shard` so that its next delivery is the first message after `checkpoint`, with
/// consumer sequence 1, as `config` says: its metadata tell whose it is.
pub(crate) async fn place(
    client: &async_nats::Client,
    stream: &Stream,
    shard: &Shard,
    config: Config,
    checkpoint: u64,
    placement: Placement,
    known: &Known,
) -> Result<PullConsumer, Error> {
    let durable = &shard.durable;
    let start = checkpoint + 1;
    // The server of the durable may be another than the one that is connected to, and older.
    let can_reset = client.is_server_compatible(RESET_SINCE.0, RESET_SINCE.1, RESET_SINCE.2);
    let wanted = allowed(stream, config, known);
    if placement == Placement::Replace {
        abandon(stream, shard).await;
    }
    let found = find(stream, shard).await?;
    found.as_ref().map_or(Ok(()), refuse_paused)?;
    if can_reset
        && known.answers_resets()
        && placement == Placement::Reset
        && let Some(found) = &found
    {
        let usable = found.config.deliver_policy == DeliverPolicy::All
            && matches(&found.config, &wanted)
            && is_marked(found, &wanted);
        if usable && found.config.metadata.get(TIMELINE) != wanted.metadata.get(TIMELINE) {
            let config = Config { deliver_policy: DeliverPolicy::All, ..wanted.clone() };
            let updated = stream.update_consumer(config).await;
            let failed = |error: ConsumerUpdateError| Error::Consumer {
                action: "update",
                durable: durable.clone(),
                source: error.into(),
            };
            updated.map_err(failed)?;
        }
        if !usable {
            tracing::warn!(durable, "durable consumer has unexpected settings; recreating it");
        } else if let Some(waiting) = reset(stream, durable, start, known).await? {
            // A waiting pull request is another client's: it would take the first messages.
            if waiting == 0 {
                let source = match stream.get_consumer(durable).await {
                    Ok(consumer) => return Ok(consumer),
                    Err(source) => source,
                };
                return Err(Error::Consumer { action: "read", durable: durable.clone(), source });
            }
            tracing::info!(durable, "another client pulls from the durable consumer; recreating it");
        }
    }
    if find(stream, shard).await?.is_some() {
        delete(stream, durable).await?;
    }
    if can_reset && known.answers_resets() {
        let consumer =
            create(stream, Config { deliver_policy: DeliverPolicy::All, ..wanted.clone() }, known).await?;
        if start == 1 || reset(stream, durable, start, known).await?.is_some() {
            return Ok(consumer);
        }
        delete(stream, durable).await?;
    }
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: start };
    create(stream, Config { deliver_policy, ..wanted }, known).await
}

/// The metadata of a durable name what is wanted, but for the timeline, which each failover changes, and for
/// where the pipeline began; the server adds keys of its own.
fn is_marked(found: &consumer::Info, wanted: &Config) -> bool {
    let mut own = wanted.metadata.iter().filter(|(key, _)| ![TIMELINE, BEGUN].contains(&key.as_str()));
    own.all(|(key, value)| found.config.metadata.get(key) == Some(value))
}

/// A durable's configuration within what is known to be allowed.
fn allowed(stream: &Stream, wanted: Config, known: &Known) -> Config {
    let of_stream = stream.cached_info().config.consumer_limits.as_ref().map(|limits| limits.max_ack_pending);
    let of_stream = of_stream.filter(|&limit| limit > 0).unwrap_or(i64::MAX);
    let of_server = known.facts().max_ack_pending.unwrap_or(i64::MAX);
    Config { max_ack_pending: wanted.max_ack_pending.min(of_stream).min(of_server), ..wanted }
}

/// Moves the durable; how many pull requests wait on it, or `None` where the request goes without an answer.
async fn reset(stream: &Stream, durable: &str, start: u64, known: &Known) -> Result<Option<usize>, Error> {
    let reset = tokio::time::timeout(RESET_TIMEOUT, stream.reset_consumer(durable, Some(start))).await;
    let error = match reset {
        Ok(Ok(answer)) => {
            known.facts().reset_unanswered = None;
            return Ok(Some(answer.info.num_waiting));
        }
        // An old server does not know the request: it does not answer it, or nobody is there for it.
        Ok(Err(error))
            if !matches!(
                error.kind(),
                ConsumerResetErrorKind::TimedOut | ConsumerResetErrorKind::NotFound
            ) =>
        {
            error
        }
        Ok(Err(_)) | Err(_) => {
            known.facts().reset_unanswered = Some(Instant::now());
            tracing::warn!(
                durable,
                "no answer to the request to reset the durable consumer; recreating it (its server may be \
                 older than 2.14)"
            );
            return Ok(None);
        }
    };
    Err(Error::Consumer { action: "reset", durable: durable.to_owned(), source: error.into() })
}

async fn delete(stream: &Stream, durable: &str) -> Result<(), Error> {
    let deleted = stream.delete_consumer(durable).await;
    let failed = |error: ConsumerError| Error::Consumer {
        action: "delete",
        durable: durable.to_owned(),
        source: error.into(),
    };
    deleted.map(drop).map_err(failed)
}

/// Lets a durable without a leader be removed. The leader of the cluster does it, and answers questions about
/// one that is gone; that it was done, nobody says.
async fn abandon(stream: &Stream, shard: &Shard) {
    let durable = &shard.durable;
    tracing::info!(durable, "the durable consumer has no leader; replacing it");
    // Whether it is gone is seen below, and by whoever makes the next one.
    drop(timeout(LOOK, stream.delete_consumer(durable)).await);
    let mut looks = tokio::time::interval(LOOK);
    for _ in 0..LOOKS {
        looks.tick().await;
        if let Ok(Ok(_)) = timeout(LOOK, find(stream, shard)).await {
            return;
        }
    }
}

/// Refuses a durable that the server made other than it was asked to.
fn as_asked(consumer: PullConsumer, config: &Config) -> Result<PullConsumer, Error> {
    let made = &consumer.cached_info().config;
    let mut fields = differences(made, config);
    if made.deliver_policy != config.deliver_policy {
        fields.push("deliver_policy");
    }
    if fields.is_empty() {
        return Ok(consumer);
    }
    Err(Error::Unlike { durable: config.durable_name.clone().unwrap_or_default(), fields })
}

/// Creates the durable, with fewer unacknowledged messages where the server allows no more.
async fn create(stream: &Stream, mut config: Config, known: &Known) -> Result<PullConsumer, Error> {
    loop {
        let error = match stream.create_consumer_strict(config.clone()).await {
            Ok(consumer) => return as_asked(consumer, &config),
            Err(error) => error,
        };
        let durable = config.durable_name.clone().unwrap_or_default();
        let ConsumerCreateStrictErrorKind::JetStream(refusal) = error.kind() else {
            return Err(Error::Consumer { action: "create", durable, source: error.into() });
        };
        if refusal.error_code() != TOO_MANY_UNACKED || config.max_ack_pending <= 1 {
            return Err(Error::Refused { durable, source: refusal });
        }
        // It says how many it allows; where it says it otherwise than expected, it is found out.
        let text = refusal.to_string();
        let number = text.split(" limit of ").nth(1).and_then(|rest| rest.split(' ').next());
        let allowed = number.and_then(|number| number.parse::<i64>().ok());
        let fewer = allowed.filter(|&allowed| (1..config.max_ack_pending).contains(&allowed));
        config.max_ack_pending = fewer.unwrap_or(config.max_ack_pending / 2);
        known.facts().max_ack_pending = Some(config.max_ack_pending);
        tracing::info!(
            durable,
            max_ack_pending = config.max_ack_pending,
            "the server limits unacknowledged messages"
        );
    }
}

/// The durable as it is, where there is one.
pub(crate) async fn find<I>(stream: &Stream<I>, shard: &Shard) -> Result<Option<consumer::Info>, Error> {
    match stream.consumer_info(&shard.durable).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
        Err(error)
            if matches!(error.kind(), ConsumerInfoErrorKind::JetStream(refusal)
            if refusal.error_code() == ErrorCode::CLUSTER_NOT_AVAILABLE) =>
        {
            Err(Error::Leaderless { durable: shard.durable.clone() })
        }
        Err(error) => {
            Err(Error::Consumer { action: "read", durable: shard.durable.clone(), source: error.into() })
        }
    }
}
