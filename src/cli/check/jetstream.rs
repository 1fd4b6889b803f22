//! JetStream's side of a check: reachable, permitted, and every stream as its pipeline needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode, consumer};
use futures_util::TryStreamExt as _;

use super::CLIENT_NAME;
use super::horizon;
use super::mapping::nearest;
use super::report::Findings;
use crate::chain::chain;
use crate::config::{Config, Pipeline};
use crate::exposure::{self, Exposure};
use crate::nats::{ConnectError, Connection};
use crate::shard::Shard;
use crate::subject::{covers, overlap};
use crate::subscribe;
use permissions::Permissions;

mod limits;
mod owner;
mod permissions;
mod thinning;

/// How long one question may take: without permission for it, the server lets it go unanswered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Shortest age limit that lets a person see to an outage before the stream drops what was not read.
const SHORT_AGE: Duration = Duration::from_hours(1);

/// Headroom below one part in this many of a stream's messages is little.
const LITTLE_HEADROOM: u64 = 10;

/// Place of what concerns the server as a whole.
const NATS: &str = "nats";

/// What was found, for what is compared with it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The connection, where there is one.
    pub(super) connection: Option<Connection>,
    /// How old the messages of a stream that was found can be, by the pipeline's name.
    pub(super) horizons: BTreeMap<String, Duration>,
}

/// Looks at the server and at every stream that a pipeline names.
pub(super) async fn look(config: &Config, report: &mut Findings) -> Found {
    let mut horizons = BTreeMap::new();
    let connection = match Connection::open(&config.nats, CLIENT_NAME).await {
        Ok(connection) => connection,
        Err(error @ ConnectError::File { .. }) => {
            report.error(
                NATS,
                chain(&error),
                "correct the path, or make the file readable by jetcopy's user",
            );
            return Found::default();
        }
        Err(error @ ConnectError::Certificate { .. }) => {
            report.error(
                NATS,
                chain(&error),
                "nats.tls.ca_file must hold the CA of the server's certificate, and nats.url a name in that \
                 certificate",
            );
            return Found::default();
        }
        Err(error @ ConnectError::Connect { .. }) => {
            report.error(
                NATS,
                chain(&error),
                "start the server, or correct the addresses and the credentials in [nats]",
            );
            return Found::default();
        }
    };
    let client = connection.client.clone();
    let server = client.server_info();
    report.ok(NATS, format!("NATS server {} at {}:{}", server.version, server.host, server.port));
    if let Some(Exposure { text, remedy, .. }) = exposure::of_nats(&server, &config.nats) {
        report.warn(NATS, text, remedy);
    }
    let (major, minor, patch) = subscribe::LEAST_SERVER;
    if !client.is_server_compatible(major, minor, patch) {
        report.error(
            NATS,
            format!(
                "jetcopy needs NATS server {} or later: older ones ignore options that they do not know",
                subscribe::least_server()
            ),
            "upgrade it, and the server that holds the stream if that is another one",
        );
    }
    let permissions = Permissions::ask(&client, ANSWER_TIMEOUT).await;
    limits::slow(NATS, &client, report).await;
    let mut context = jetstream::new(client);
    context.set_timeout(ANSWER_TIMEOUT);
    for (pipeline, shard) in config.shards() {
        let place = format!("pipeline {shard}, stream {}", shard.stream);
        if let Some(permissions) = &permissions {
            for missing in permissions.missing(pipeline, &shard, &config.nats.inbox_prefix) {
                report.error(&place, format!("no permission to {missing}"), "grant it to the user in [nats]");
            }
        }
        match context.get_stream(&shard.stream).await {
            Ok(stream) => {
                let horizon = horizon::of_stream(stream.cached_info());
                let longest = horizons.entry(pipeline.name.clone()).or_insert(horizon);
                *longest = horizon.max(*longest);
                judge(&place, pipeline, stream.cached_info(), server.max_payload, report);
                durable(&place, config, pipeline, &shard, &stream, report).await;
            }
            Err(error) => {
                let has_jetstream = server.jetstream;
                let meant = meant(&context, &shard, &error).await;
                no_stream(&place, config, &shard, (&error, meant.as_deref()), has_jetstream, report);
            }
        }
    }
    Found { connection: Some(connection), horizons }
}

/// The stream that was meant by a name that none has, as far as the user may list them.
async fn meant(
    context: &jetstream::Context,
    shard: &Shard,
    error: &jetstream::context::GetStreamError,
) -> Option<String> {
    let GetStreamErrorKind::JetStream(error) = error.kind() else { return None };
    if error.error_code() != ErrorCode::STREAM_NOT_FOUND {
        return None;
    }
    let names = context.stream_names().try_collect::<Vec<String>>();
    let names = tokio::time::timeout(ANSWER_TIMEOUT, names).await.ok()?.ok()?;
    nearest(&shard.stream, names.iter().map(String::as_str)).map(str::to_owned)
}

fn no_stream(
    place: &str,
    config: &Config,
    shard: &Shard,
    (error, meant): (&jetstream::context::GetStreamError, Option<&str>),
    has_jetstream: bool,
    report: &mut Findings,
) {
    let (stream, inbox, text) = (&shard.stream, &config.nats.inbox_prefix, chain(error));
    match error.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            report.error(
                place,
                "the stream does not exist",
                match meant {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!(
                        "nats stream add {stream} --retention limits --subjects …, or correct the name"
                    ),
                },
            );
        }
        GetStreamErrorKind::JetStream(_) => {
            report.error(place, text, "enable JetStream on the server and for the account");
        }
        GetStreamErrorKind::Request if !has_jetstream => {
            report.error(
                place,
                "the server has no JetStream",
                "enable JetStream on the server and for the account",
            );
        }
        GetStreamErrorKind::Request => report.error(
            place,
            format!("the request for the stream's information was not answered: {text}"),
            format!(
                "enable JetStream, and allow the user to publish to $JS.API.STREAM.INFO.{stream} and to \
                 subscribe to {inbox}.>"
            ),
        ),
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            report.error(place, text, "correct the stream's name");
        }
    }
}

/// What the stream's own settings and state say.
fn judge(place: &str, pipeline: &Pipeline, info: &Info, max_payload: usize, report: &mut Findings) {
    let config = &info.config;
    let before = report.troubles();
    match config.retention {
        RetentionPolicy::Limits => {}
        RetentionPolicy::Interest | RetentionPolicy::WorkQueue => report.error(
            place,
            "its retention removes acknowledged messages, so they cannot be replayed after a database \
             failover",
            "use a stream with limits retention; it can source from this one",
        ),
    }
    subjects(place, pipeline, config, report);
    message_size(place, pipeline, config, max_payload, report);
    limits(place, config, report);
    thinning::judge(place, pipeline, config, report);
    let wanted = subscribe::max_ack_pending(pipeline);
    let allowed = config.consumer_limits.as_ref().map_or(0, |limits| limits.max_ack_pending);
    if allowed > 0 && allowed < wanted {
        limits::few_unacked(place, pipeline, allowed, wanted, report);
    }
    if report.troubles() == before {
        let state = &info.state;
        report.ok(
            place,
            format!("{} messages, {} to {}", state.messages, state.first_sequence, state.last_sequence),
        );
    }
}

fn subjects(place: &str, pipeline: &Pipeline, config: &StreamConfig, report: &mut Findings) {
    // A mirror and a sourced stream hold subjects that their own configuration does not name.
    if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return;
    }
    // What a transform makes of its subjects is what it holds; what the transform does not take stays as it
    // is.
    let mut held = config.subjects.clone();
    held.extend(config.subject_transform.as_ref().map(|transform| pattern(&transform.destination)));
    for wanted in &pipeline.subjects {
        if !held.iter().any(|held| overlap(held, wanted)) {
            report.error(
                place,
                format!("it stores no messages for {wanted}; its subjects are {}", held.join(", ")),
                "correct subjects, or remove them to read the whole stream",
            );
        }
    }
    for (index, one) in pipeline.subjects.iter().enumerate() {
        for other in &pipeline.subjects[index + 1..] {
            if covers(one, other) || covers(other, one) {
                report.error(
                    place,
                    format!(
                        "the subjects {one} and {other} overlap, and the server refuses a subject that is \
                         part of another"
                    ),
                    "remove the narrower one",
                );
            }
        }
    }
}

/// The subjects that the destination of a transform can become: `frames.{{partition(2,1)}}.$2` makes
/// `frames.*.*`.
fn pattern(destination: &str) -> String {
    let mut tokens = Vec::new();
    for token in destination.split('.') {
        if token.contains("{{split") || token.contains("{{slice") {
            // One token becomes some.
            tokens.push(">");
            break;
        }
        tokens.push(if token.contains("{{") || token.starts_with('$') { "*" } else { token });
    }
    tokens.join(".")
}

fn message_size(
    place: &str,
    pipeline: &Pipeline,
    config: &StreamConfig,
    max_payload: usize,
    report: &mut Findings,
) {
    let largest = subscribe::largest(config, max_payload);
    if largest > pipeline.batch.max_bytes {
        report.warn(
            place,
            format!("messages may be up to {largest}, and batch.max_bytes is {}", pipeline.batch.max_bytes),
            "raise batch.max_bytes, or lower the stream's max_msg_size: a larger message is a batch of its \
             own",
        );
    }
    if !subscribe::bounds(pipeline, largest) {
        report.warn(
            place,
            format!(
                "messages may be up to {largest}, which can take more memory than max_buffered_bytes ({})",
                pipeline.buffered_bytes()
            ),
            subscribe::BUFFER_MORE,
        );
    }
}

/// Limits by which the stream drops messages that were not read.
fn limits(place: &str, config: &StreamConfig, report: &mut Findings) {
    if !config.max_age.is_zero() && config.max_age < SHORT_AGE {
        report.warn(
            place,
            format!(
                "it drops messages after {}: a longer outage loses messages",
                humantime::format_duration(config.max_age)
            ),
            "raise the stream's max_age above the longest outage to survive",
        );
    }
    if config.storage == StorageType::Memory {
        report.warn(
            place,
            "it is kept in memory: a server restart loses unread messages",
            "use file storage",
        );
    }
    if config.persist_mode == Some(PersistenceMode::Async) {
        report.warn(
            place,
            "it acknowledges publishers before a message is stored: a server crash loses acknowledged \
             messages",
            "remove persist_mode if every message counts",
        );
    }
}

/// What the durable consumer says, if there is one already.
async fn durable(
    place: &str,
    config: &Config,
    pipeline: &Pipeline,
    shard: &Shard,
    stream: &jetstream::stream::Stream,
    report: &mut Findings,
) {
    let name = &shard.durable;
    let info = match stream.consumer_info(name).await {
        Ok(info) => info,
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
            limits::asked(place, pipeline, shard, stream, report).await;
            return report.ok(place, format!("the durable consumer {name} will be created"));
        }
        Err(error) => {
            return report.error(
                place,
                format!(
                    "the request for information on the durable consumer {name} was not answered: {}",
                    chain(&error)
                ),
                format!("allow the user to publish to $JS.API.CONSUMER.INFO.{}.{name}", shard.stream),
            );
        }
    };
    limits::found(place, &info, report);
    if owner::judge(place, config, shard, &info, report) {
        return;
    }
    let wanted = subscribe::consumer_config(pipeline, shard, consumer::DeliverPolicy::All);
    let batch = i64::try_from(pipeline.batch.max_rows).unwrap_or(i64::MAX);
    let found = &info.config;
    if found.max_ack_pending > 0 && found.max_ack_pending < batch {
        report.warn(
            place,
            format!(
                "the durable consumer {name} allows {} unacknowledged messages, fewer than batch.max_rows \
                 ({batch})",
                found.max_ack_pending
            ),
            "nothing to do, unless something else sets it again: jetcopy recreates it when it starts",
        );
    } else if !subscribe::matches(found, &wanted) {
        report.warn(
            place,
            format!("the durable consumer {name} has unexpected settings"),
            "nothing to do, unless another program owns it: jetcopy recreates it when it starts",
        );
    } else {
        report.ok(
            place,
            format!(
                "the durable consumer {name} has {} messages undelivered, {} unacknowledged",
                info.num_pending, info.num_ack_pending
            ),
        );
    }
    headroom(place, stream.cached_info(), info.ack_floor.stream_sequence, report);
}

/// Warns when a stream at its limits is about to drop what was not read.
fn headroom(place: &str, info: &Info, acknowledged: u64, report: &mut Findings) {
    let (config, state) = (&info.config, &info.state);
    let at_limit =
        |limit: i64, value: u64| u64::try_from(limit).is_ok_and(|limit| limit > 0 && value >= limit);
    let full = at_limit(config.max_messages, state.messages)
        // A stream never fills its bytes exactly: a tenth below is as good as full.
        || at_limit(config.max_bytes, state.bytes.saturating_add(state.bytes / LITTLE_HEADROOM));
    if !full || config.discard != DiscardPolicy::Old || state.last_sequence <= acknowledged {
        return;
    }
    let left = (acknowledged + 1).saturating_sub(state.first_sequence);
    if left < state.messages / LITTLE_HEADROOM {
        report.warn(
            place,
            format!("it is at its limits: after {left} more messages, it drops the first unread one"),
            "raise the stream's max_msgs or max_bytes until jetcopy has caught up",
        );
    }
}

#[cfg(test)]
mod tests;
