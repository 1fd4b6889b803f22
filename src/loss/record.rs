//! Losses in the database.
//!
//! Guarantees: a loss is one row, however often it is met and however far it grows; what it means for the
//! tallies is counted in the same statement. It alone names `jetcopy.losses` in a statement.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use super::{Cause, Loss};
use crate::checkpoint;
use crate::config::OnLoss;
use crate::postgres::connect::Session;
use crate::postgres::interval;
use crate::postgres::simple::{self, ask};
use crate::shard::Shard;
use crate::tally::{self, Event};

/// What became of a loss when it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Whether it was not recorded before.
    pub is_new: bool,
    /// Messages of it that were not recorded before.
    pub messages: u64,
    /// After which sequence to go on past it: because `on_loss` does, or because somebody accepted it and may
    /// have said where; `None` where nobody has.
    pub after: Option<u64>,
}

/// Records `loss`, and says whether to go on past it.
///
/// A loss that grows while the pipeline is halted stays one row.
pub(crate) async fn settle(
    session: &Session,
    shard: &Shard,
    loss: &Loss,
    stream_created_ns: i64,
    on_loss: OnLoss,
) -> Result<Settled, checkpoint::Error> {
    let known = ask(&session.client, &record_sql(shard, loss, stream_created_ns)).await;
    let known = known.map_err(failed("record a loss of"))?;
    let known = known.first();
    let counted = known.and_then(|row| simple::number(row, 0)).unwrap_or(0);
    // Where superseded messages do not halt the pipeline, they are no loss that comes here.
    let passes = on_loss == OnLoss::Continue && loss.cause != Cause::Superseded;
    let after = match known {
        Some(row) if simple::is_true(row, 1) => Some(simple::number(row, 2).unwrap_or(loss.resume_after)),
        _ => passes.then_some(loss.resume_after),
    };
    Ok(Settled { is_new: known.is_none(), messages: loss.length().saturating_sub(counted), after })
}

fn failed(action: &'static str) -> impl Fn(Error) -> checkpoint::Error {
    move |source| checkpoint::Error::Database { action, source }
}

/// SQL that records a loss, or how far a known one reaches now; returns what was known of it.
fn record_sql(shard: &Shard, loss: &Loss, stream_created_ns: i64) -> String {
    let last = loss.last_sequence.map_or_else(|| "NULL::bigint".to_owned(), |last| last.to_string());
    let (pipeline, stream) = (escape_literal(&shard.pipeline), escape_literal(&shard.stream));
    let shard = escape_literal(&shard.name);
    let created = interval::timestamp(stream_created_ns);
    let (first, cause, event) = (loss.first_sequence, loss.cause.as_str(), Event::Loss.as_str());
    let length = loss.length();
    let messages = loss.messages.map_or_else(|| "NULL::bigint".to_owned(), |messages| messages.to_string());
    let told = tally::add_rows(&format!(
        "SELECT {shard}, '{event}', '{cause}', times, messages, now() FROM news WHERE times + messages > 0"
    ));
    format!(
        "WITH known AS (\
           SELECT id, accepted_at, resume_after, \
             coalesce(messages, last_sequence + 1 - first_sequence) AS messages FROM jetcopy.losses \
           WHERE shard = {shard} AND first_sequence = {first} AND cause = '{cause}' \
             AND stream_created = {created}), \
         grown AS (\
           UPDATE jetcopy.losses SET last_sequence = {last}, messages = {messages} \
           WHERE id IN (SELECT id FROM known)), \
         added AS (\
           INSERT INTO jetcopy.losses \
             (pipeline, shard, stream, stream_created, first_sequence, last_sequence, messages, cause) \
           SELECT {pipeline}, {shard}, {stream}, {created}, {first}, {last}, {messages}, '{cause}' \
           WHERE NOT EXISTS (SELECT FROM known)), \
         news AS (\
           SELECT 1 - count(*) AS times, \
             greatest({length} - coalesce(max(messages), 0), 0) AS messages FROM known), \
         told AS ({told}) \
         SELECT messages, accepted_at IS NOT NULL, resume_after FROM known"
    )
}

/// The column that says that a row is new.
const NEW_LOSS: &str = "jetcopy_new_loss";

/// Notes that `messages` between two sequences were superseded unread: in the row of the last hour, if there
/// is one, since a pipeline that lags behind such a stream meets them in each batch. Whether the row is new.
pub(crate) async fn note_superseded(
    session: &Session,
    shard: &Shard,
    (first, last, messages): (u64, u64, u64),
) -> Result<bool, checkpoint::Error> {
    let (name, event) = (escape_literal(&shard.name), Event::Loss.as_str());
    let checkpoint = checkpoint::row_sql(&shard.name);
    let told = tally::add_rows(&format!("SELECT {name}, '{event}', 'superseded', 1, 0, now() FROM added"));
    let sql = format!(
        "WITH grown AS (\
           UPDATE jetcopy.losses SET last_sequence = {last}, messages = messages + {messages} WHERE id = (\
             SELECT max(l.id) FROM jetcopy.losses l JOIN {checkpoint} c USING (shard, stream_created) \
             WHERE shard = {name} AND cause = 'superseded' AND messages IS NOT NULL \
               AND l.last_sequence < {first} AND detected_at > now() - interval '1 hour') RETURNING id), \
         added AS (\
           INSERT INTO jetcopy.losses \
             (pipeline, shard, stream, stream_created, first_sequence, last_sequence, messages, cause) \
           SELECT pipeline, shard, stream, stream_created, {first}, {last}, {messages}, 'superseded' \
           FROM {checkpoint} c WHERE NOT EXISTS (SELECT FROM grown) RETURNING id) \
         {told} RETURNING true AS {NEW_LOSS}"
    );
    let answers = ask(&session.client, &sql).await.map_err(failed("record a loss of"))?;
    Ok(answers.named(NEW_LOSS).is_some())
}

/// A loss that nobody has accepted.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub stream: String,
    pub first: String,
    /// Last one, or that it is unknown.
    pub last: String,
    /// As in `jetcopy.losses`.
    pub cause: String,
    pub detected: String,
}

/// The losses of `shard` that nobody has accepted, in order.
pub(crate) async fn open(client: &Client, shard: &Shard) -> Result<Vec<Open>, Error> {
    let sql = format!(
        "SELECT stream, first_sequence, coalesce(last_sequence::text, 'an unknown sequence'), cause, \
           detected_at \
         FROM jetcopy.losses WHERE shard = {} AND accepted_at IS NULL ORDER BY id",
        escape_literal(&shard.name)
    );
    let open = |row| {
        let text = |column| simple::text(row, column).unwrap_or_default().to_owned();
        Open { stream: text(0), first: text(1), last: text(2), cause: text(3), detected: text(4) }
    };
    Ok(ask(client, &sql).await?.rows().map(open).collect())
}

/// SQL for how many those are.
#[must_use]
pub(crate) fn count_open_sql(shard: &Shard) -> String {
    format!(
        "SELECT count(*) FROM jetcopy.losses WHERE shard = {} AND accepted_at IS NULL",
        escape_literal(&shard.name)
    )
}

/// Accepts every loss of `shard`; the last one, at which it is held up, with the sequence to go on after
/// where one is given.
pub(crate) async fn accept(client: &Client, shard: &Shard, after: Option<u64>) -> Result<(), Error> {
    let sql = format!(
        "UPDATE jetcopy.losses \
         SET accepted_at = now(), resume_after = CASE WHEN id = newest THEN {}::bigint END \
         FROM (SELECT max(id) AS newest FROM jetcopy.losses WHERE shard = {name}) held \
         WHERE shard = {name} AND accepted_at IS NULL",
        after.map_or_else(|| "NULL".to_owned(), |after| after.to_string()),
        name = escape_literal(&shard.name),
    );
    ask(client, &sql).await.map(drop)
}

/// Whether somebody has accepted `loss`; `None` where it is not recorded.
pub(crate) async fn is_accepted(
    client: &Client,
    shard: &Shard,
    loss: &Loss,
    stream_created_ns: i64,
) -> Result<Option<bool>, Error> {
    let sql = format!(
        "SELECT accepted_at IS NOT NULL FROM jetcopy.losses \
         WHERE shard = {} AND first_sequence = {} AND cause = '{}' AND stream_created = {}",
        escape_literal(&shard.name),
        loss.first_sequence,
        loss.cause.as_str(),
        interval::timestamp(stream_created_ns),
    );
    Ok(ask(client, &sql).await?.first().map(|row| simple::is_true(row, 0)))
}

/// Sequences up to here belong to two streams of the same name; 0 for none. A recreated stream counts from 1
/// again; one that was rolled back, from its end on.
pub(crate) async fn ambiguous_to(client: &Client, shard: &Shard) -> Result<u64, Error> {
    let sql = format!(
        "SELECT coalesce(max(CASE cause WHEN 'recreated' THEN first_sequence - 1 ELSE last_sequence END), 0) \
         FROM jetcopy.losses WHERE shard = {} AND cause IN ('recreated', 'rolled_back')",
        escape_literal(&shard.name)
    );
    Ok(ask(client, &sql).await?.number(0).unwrap_or(0))
}

/// A range of sequences that is recorded as lost, or of which some are.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// How many of it the stream had removed by itself before they were read; `None` where all was dropped.
    pub(crate) superseded: Option<u64>,
}

/// What is recorded as dropped or superseded and reaches to `from` or beyond, in order.
pub(crate) async fn recorded(client: &Client, shard: &Shard, from: u64) -> Result<Vec<Recorded>, Error> {
    let sql = format!(
        "SELECT first_sequence, last_sequence, CASE cause WHEN 'superseded' \
           THEN coalesce(messages, last_sequence - first_sequence + 1) END FROM jetcopy.losses \
         WHERE shard = {} AND cause IN ('dropped', 'superseded') AND last_sequence >= {from} \
         ORDER BY first_sequence",
        escape_literal(&shard.name)
    );
    let number = |row, column| simple::number(row, column).unwrap_or(0);
    let recorded =
        |row| Recorded { first: number(row, 0), last: number(row, 1), superseded: simple::number(row, 2) };
    Ok(ask(client, &sql).await?.rows().map(recorded).collect())
}
