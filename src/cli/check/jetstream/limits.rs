//! What the server and the stream allow a consumer, as far as it can be asked without making one.

use async_nats::jetstream::consumer::{DeliverPolicy, Info, pull};
use async_nats::jetstream::stream::{ConsumerUpdateErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};

use super::super::report::Findings;
use crate::approach::slow_consumers;
use crate::config::Pipeline;
use crate::shard::Shard;
use crate::subscribe;

/// JetStream's codes for a consumer that asks for more than is allowed.
const TOO_MANY_UNACKED: ErrorCode = ErrorCode(10_121);
const TOO_LARGE_REQUESTS: ErrorCode = ErrorCode(10_125);

/// Messages of a pull request that jetcopy would make.
const REQUEST: i64 = 5_000;

/// Whether the server has ended connections because too much waited to be sent on them.
pub(super) async fn slow(place: &str, client: &async_nats::Client, report: &mut Findings) {
    if let Some(count @ 1..) = slow_consumers(client).await {
        report.warn(
            place,
            format!("since it started, it has closed {count} connections of this account as slow consumers"),
            "if its log says \"MaxPending\" for jetcopy, raise max_pending in its configuration; until then, \
             jetcopy asks for less at a time",
        );
    }
}

/// What a durable that is there is allowed.
pub(super) fn found(place: &str, info: &Info, report: &mut Findings) {
    if (1..REQUEST).contains(&info.config.max_batch) {
        small_requests(place, info.config.max_batch, report);
    }
}

/// What one that is not there yet would be allowed: the server judges a change before it looks for what it is
/// to change.
pub(super) async fn asked(
    place: &str,
    pipeline: &Pipeline,
    shard: &Shard,
    stream: &Stream,
    report: &mut Findings,
) {
    let info = stream.cached_info();
    let most = i64::from(info.config.max_consumers);
    if most > 0 && i64::try_from(info.state.consumer_count).is_ok_and(|count| count >= most) {
        report.error(
            place,
            format!("it has {most} consumers, the maximum: jetcopy's cannot be created"),
            "raise the stream's max_consumers, or remove unused consumers",
        );
    }
    let wanted = subscribe::consumer_config(pipeline, shard, DeliverPolicy::All);
    if let Some(refusal) =
        refused(stream, pull::Config { max_batch: REQUEST, ..wanted.clone() }, TOO_LARGE_REQUESTS).await
    {
        small_requests(place, number(&refusal).unwrap_or(0), report);
    }
    // The stream's own limit was told already.
    let by_stream = info.config.consumer_limits.as_ref().is_some_and(|limits| limits.max_ack_pending > 0);
    if !by_stream && let Some(refusal) = refused(stream, wanted.clone(), TOO_MANY_UNACKED).await {
        few_unacked(place, pipeline, number(&refusal).unwrap_or(0), wanted.max_ack_pending, report);
    }
}

/// Tells of fewer unacknowledged messages than jetcopy asks for.
pub(super) fn few_unacked(
    place: &str,
    pipeline: &Pipeline,
    allowed: i64,
    wanted: i64,
    report: &mut Findings,
) {
    report.warn(
        place,
        format!(
            "its consumers may have at most {allowed} unacknowledged messages, and jetcopy wants {wanted}: a \
             batch holds a quarter of the allowed number, not batch.max_rows ({})",
            pipeline.batch.max_rows
        ),
        "raise max_ack_pending in the stream's consumer_limits or in the account's or server's limits, or \
         lower batch.max_rows",
    );
}

fn small_requests(place: &str, allowed: i64, report: &mut Findings) {
    report.warn(
        place,
        format!(
            "the server allows {allowed} messages per pull request, and jetcopy would ask for {REQUEST}: it \
             sends more requests"
        ),
        "nothing to do; to read a backlog faster, raise max_request_batch in the server's JetStream limits",
    );
}

async fn refused(stream: &Stream, config: pull::Config, code: ErrorCode) -> Option<jetstream::Error> {
    let error = stream.update_consumer(config).await.err()?;
    match error.kind() {
        ConsumerUpdateErrorKind::JetStream(refusal) if refusal.error_code() == code => Some(refusal),
        _ => None,
    }
}

/// The number that a refusal ends with.
fn number(refusal: &jetstream::Error) -> Option<i64> {
    let text = refusal.to_string();
    let text = text.split(" (code").next()?;
    text.rsplit(' ').next()?.parse().ok()
}
