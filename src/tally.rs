//! What a shard has gone through, in `jetcopy.tallies`: dead letters, losses, replays, messages that were
//! superseded unread.
//!
//! Guarantees: each is counted in the transaction in which it happens, so that what a daemon tells after a
//! restart is what the database holds, and nothing that was told is taken back but by a database that went
//! back itself. How long ago the newest was, the database says by its own clock.

use std::collections::BTreeMap;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, SimpleQueryRow};

use crate::postgres::simple::ask;

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A dead letter was stored; of its kind.
    DeadLetter,
    /// The stream no longer held what the checkpoint needs; of its cause.
    Loss,
    /// The database went back behind what was committed.
    Replay,
    /// The stream had removed messages by itself before they were read.
    Superseded,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DeadLetter, Self::Loss, Self::Replay, Self::Superseded];

    /// Value of `jetcopy.tallies.event`, and of the metrics' label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead_letter",
            Self::Loss => "loss",
            Self::Replay => "replay",
            Self::Superseded => "superseded",
        }
    }
}

/// What was counted of one kind of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// What.
    pub event: Event,
    /// Its kind; empty where there is but one.
    pub kind: String,
    /// How often.
    pub times: u64,
    /// Stream sequences that it was about.
    pub messages: u64,
    /// Seconds since the newest.
    pub age: f64,
}

/// SQL that counts what `rows` brings, a query or `VALUES` of the table's columns.
#[must_use]
pub(crate) fn add_rows(rows: &str) -> String {
    format!(
        "INSERT INTO jetcopy.tallies AS told (shard, event, kind, times, messages, newest_at) {rows} \
         ON CONFLICT (shard, event, kind) DO UPDATE SET times = told.times + excluded.times, \
           messages = told.messages + excluded.messages, newest_at = excluded.newest_at"
    )
}

/// SQL that counts, for the transaction in which it happens. It ends with a semicolon.
#[must_use]
pub(crate) fn add(shard: &str, event: Event, kind: &str, times: u64, messages: u64) -> String {
    let (shard, event, kind) = (escape_literal(shard), event.as_str(), escape_literal(kind));
    add_rows(&format!("VALUES ({shard}, '{event}', {kind}, {times}, {messages}, now())")) + "; "
}

/// The same for dead letters of these kinds.
#[must_use]
pub(crate) fn add_letters<'k>(shard: &str, kinds: impl Iterator<Item = &'k str>) -> String {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    kinds.for_each(|kind| *times.entry(kind).or_default() += 1);
    times.into_iter().map(|(kind, times)| add(shard, Event::DeadLetter, kind, times, 0)).collect()
}

/// What was counted of a shard.
pub(crate) async fn read(client: &Client, shard: &str) -> Result<Vec<Tally>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT event, kind, times, messages, greatest(extract(epoch FROM now() - newest_at), 0) \
         FROM jetcopy.tallies WHERE shard = {}",
        escape_literal(shard)
    );
    Ok(ask(client, &sql).await?.rows().filter_map(tally).collect())
}

/// `None` of an event that only a later version knows.
fn tally(row: &SimpleQueryRow) -> Option<Tally> {
    let event = Event::ALL.into_iter().find(|event| row.get(0) == Some(event.as_str()))?;
    Some(Tally {
        event,
        kind: row.get(1)?.to_owned(),
        times: row.get(2)?.parse().ok()?,
        messages: row.get(3)?.parse().ok()?,
        age: row.get(4)?.parse().ok()?,
    })
}
