//! The daemons that share shards: one row each in `jetcopy.daemons`.
//!
//! Guarantees: a row is there while its daemon lives, and for a while after it has died without a word; only
//! one that has not been renewed since it was looked at is removed. It alone names `jetcopy.daemons` in a
//! statement.
//!
//! Not guaranteed: that whoever has a row lives, or that whoever lives has one. It decides who may take a
//! shard over; the compare-and-set keeps two that both write from harm.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use serde::Serialize;
use tokio_postgres::{Client, Error, SimpleQueryRow};

use crate::postgres::simple::{self, ask};

/// How long a daemon counts as alive without a renewal, by the database's clock: what one that is frozen, cut
/// off, or killed behind a pooler costs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);

/// Characters of a daemon's name, which the names of its sessions end with.
const NAME: usize = 16;

/// What a daemon says of itself with each renewal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    /// Its name.
    pub(crate) daemon: String,
    /// The machine that it runs on.
    pub(crate) host: String,
    /// Whether it reaches the server without a pooler.
    pub(crate) direct: bool,
    /// The shards that it is configured for.
    pub(crate) shards: Vec<String>,
    /// Those that it cannot run at present.
    pub(crate) unable: Vec<String>,
    /// Messages that it commits a second.
    pub(crate) messages_per_second: f64,
    /// Who drained it, and when: kept where its row was removed meanwhile.
    pub(crate) drained: Option<Drained>,
}

/// Who drained a daemon, and when, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Who.
    pub(crate) by: String,
    /// When.
    pub(crate) at: String,
}

/// A daemon, as others see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Daemon {
    /// Its name.
    pub(crate) name: String,
    /// The machine that it runs on.
    pub(crate) host: String,
    /// Its process there.
    pub(crate) process: u32,
    /// Its version.
    pub(crate) version: String,
    /// For how many seconds it has been here without a break.
    pub(crate) age: f64,
    /// How often it has renewed its lease.
    pub(crate) beat: i64,
    /// Whether its lease has run out.
    pub(crate) overdue: bool,
    /// How many seconds ago it renewed its lease.
    pub(crate) silent: f64,
    /// Whether the server has none of its sessions any more; never told of one behind a pooler.
    pub(crate) ended: bool,
    /// The shards that it is configured for.
    pub(crate) shards: Vec<String>,
    /// Those that it cannot run at present.
    pub(crate) unable: Vec<String>,
    /// Messages that it commits a second.
    pub(crate) messages_per_second: f64,
    /// Who drained it.
    pub(crate) drained: Option<Drained>,
}

/// A daemon that shares the database.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fellow {
    /// Its name.
    pub(crate) daemon: String,
    /// The machine that it runs on.
    pub(crate) host: String,
    /// Its process there.
    pub(crate) process: u32,
    /// Its version.
    pub(crate) version: String,
    /// For how long it has been here without a break.
    pub(crate) up_seconds: f64,
    /// How long ago it renewed its lease.
    pub(crate) silent_seconds: f64,
    /// Whether its lease has run out.
    pub(crate) overdue: bool,
    /// Messages that it commits a second.
    pub(crate) messages_per_second: f64,
    /// How many shards it is configured for.
    pub(crate) configured: usize,
    /// Those that it has.
    pub(crate) shards: Vec<Held>,
    /// Those that it cannot run at present.
    pub(crate) unable: Vec<String>,
    /// Since when it gives its shards away, in UTC.
    pub(crate) drained_at: Option<String>,
    /// Who drained it.
    pub(crate) drained_by: Option<String>,
}

/// A shard that a daemon has.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Held {
    /// The shard.
    pub(crate) shard: String,
    /// For how long.
    pub(crate) seconds: f64,
}

impl Beat {
    /// SQL that renews the lease: the first column of its row, `jetcopy_beat`, is 1 where there was no row.
    pub(crate) fn sql(&self) -> String {
        let texts = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| escape_literal(text)).collect();
            format!("ARRAY[{}]::text[]", texts.join(", "))
        };
        let (at, by) = match &self.drained {
            Some(Drained { by, at }) => (format!("{}::timestamptz", escape_literal(at)), escape_literal(by)),
            None => ("NULL".to_owned(), "NULL".to_owned()),
        };
        format!(
            "INSERT INTO jetcopy.daemons AS known (daemon, host, process, version, lease_until, direct, \
               shards, unable, messages_per_second, drained_at, drained_by) \
             VALUES ({}, {}, {}, {}, clock_timestamp() + interval '{} ms', {}, {}, {}, {}, {at}, {by}) \
             ON CONFLICT (daemon) DO UPDATE SET beat = known.beat + 1, lease_until = EXCLUDED.lease_until, \
               direct = EXCLUDED.direct, shards = EXCLUDED.shards, unable = EXCLUDED.unable, \
               messages_per_second = EXCLUDED.messages_per_second \
             RETURNING beat AS jetcopy_beat; ",
            escape_literal(&self.daemon),
            escape_literal(&self.host),
            std::process::id(),
            escape_literal(env!("CARGO_PKG_VERSION")),
            LEASE.as_millis(),
            self.direct,
            texts(&self.shards),
            texts(&self.unable),
            self.messages_per_second,
        )
    }
}

/// SQL for all daemons, the rows that [`read`] reads.
pub(crate) fn look_sql(looks: &str) -> String {
    let looks = escape_literal(looks);
    format!(
        "SELECT daemon AS jetcopy_daemon, host, process, version, extract(epoch FROM now() - since)::float8, \
           beat, lease_until < clock_timestamp(), \
           extract(epoch FROM clock_timestamp() - lease_until)::float8, \
           CASE WHEN direct AND daemon <> {looks} \
             AND pg_catalog.pg_try_advisory_xact_lock_shared({}) \
           THEN daemon <> ALL (ARRAY(SELECT pg_catalog.right(session.application_name, {NAME}) \
             FROM pg_catalog.pg_stat_get_activity(NULL) AS session \
             WHERE session.application_name IS NOT NULL)) ELSE false END, \
           pg_catalog.array_to_json(shards), pg_catalog.array_to_json(unable), messages_per_second, \
           to_char(drained_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), drained_by \
         FROM jetcopy.daemons ORDER BY since, daemon; ",
        lock_of("daemon")
    )
}

/// SQL that holds a lock as long as the session of `daemon` lasts: while it is held, nobody need look at the
/// list of sessions, which costs the server more than all else of a look. It does not wait for a session that
/// the daemon has lost and the server still has: the lease would run out meanwhile.
pub(crate) fn hold_sql(daemon: &str) -> String {
    format!("SELECT pg_catalog.pg_try_advisory_lock({})", lock_of(&escape_literal(daemon)))
}

/// The key of a daemon's lock; `daemon` is SQL.
fn lock_of(daemon: &str) -> String {
    format!("pg_catalog.hashtextextended('jetcopy daemon ' || {daemon}, 0)")
}

/// A daemon, where the row is one of [`look_sql`].
pub(crate) fn read(row: &SimpleQueryRow) -> Option<Daemon> {
    if row.columns().first()?.name() != "jetcopy_daemon" {
        return None;
    }
    let text = |column| simple::text(row, column).map(str::to_owned);
    let number = |column| simple::number::<f64>(row, column).unwrap_or(0.0);
    let texts = |column| serde_json::from_str(simple::text(row, column)?).ok();
    Some(Daemon {
        name: text(0)?,
        host: text(1)?,
        process: simple::number(row, 2).unwrap_or(0),
        version: text(3)?,
        age: number(4),
        beat: simple::number(row, 5)?,
        overdue: simple::is_true(row, 6),
        silent: number(7) + LEASE.as_secs_f64(),
        ended: simple::is_true(row, 8),
        shards: texts(9).unwrap_or_default(),
        unable: texts(10).unwrap_or_default(),
        messages_per_second: number(11),
        drained: text(12).map(|at| Drained { at, by: text(13).unwrap_or_default() }),
    })
}

/// Removes the row of a daemon that has not renewed its lease since it was seen; whether it did.
pub(crate) async fn expel(client: &Client, seen: &Daemon) -> Result<bool, Error> {
    let (name, beat) = (escape_literal(&seen.name), seen.beat);
    let sql = format!("DELETE FROM jetcopy.daemons WHERE daemon = {name} AND beat = {beat}");
    Ok(ask(client, &sql).await?.affected() > 0)
}

/// Removes a daemon's own row: it ends.
pub(crate) async fn leave(client: &Client, daemon: &str) -> Result<(), Error> {
    let sql = format!("DELETE FROM jetcopy.daemons WHERE daemon = {}", escape_literal(daemon));
    ask(client, &sql).await.map(drop)
}

/// Lets a daemon give its shards away, in the name of `by`, or takes that back where there is no name;
/// whether it is there.
pub(crate) async fn drain(client: &Client, daemon: &str, by: Option<&str>) -> Result<bool, Error> {
    let set = match by {
        Some(by) => format!(
            "drained_by = CASE WHEN drained_at IS NULL THEN {} ELSE drained_by END, \
             drained_at = coalesce(drained_at, now())",
            escape_literal(by)
        ),
        None => "drained_by = NULL, drained_at = NULL".to_owned(),
    };
    let sql = format!("UPDATE jetcopy.daemons SET {set} WHERE daemon = {}", escape_literal(daemon));
    Ok(ask(client, &sql).await?.affected() > 0)
}

/// SQL that is true where the daemon that the SQL `name` names has a row: its shards are its own.
pub(crate) fn is_listed_sql(name: &str) -> String {
    format!("EXISTS (SELECT FROM jetcopy.daemons WHERE daemon = {name})")
}

/// SQL that is true where the lease of the daemon that the SQL `name` names lasts, for people who look on.
pub(crate) fn lives_sql(name: &str) -> String {
    format!("EXISTS (SELECT FROM jetcopy.daemons WHERE daemon = {name} AND lease_until > now())")
}
