//! What a pipeline did in the last seconds: rates and means between two readings of its counters.
//!
//! Guarantees: a rate covers 10 to 15 seconds, or the time since the pipeline is known if that is shorter. A
//! pipeline that does not run has no rates and nothing that limits it.

use std::time::Instant;

use serde::Serialize;

use crate::metrics::{Stage, StageSeconds, WriteSeconds};
use crate::status::{Snapshot, State};

/// Readings that are kept to take rates from: with one every five seconds, rates are those of the last 10 to
/// 15.
pub(super) const READINGS: usize = 3;

/// A pipeline that is less than this behind keeps up, and nothing limits it.
const KEEPING_UP: f64 = 1.0;

/// With as much waiting, a second writer gains about as much.
const MUCH_WAITING: f64 = 0.3;

/// The counters of a pipeline at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    at: Instant,
    messages: u64,
    rows: u64,
    bytes: u64,
    commits: u64,
    commit_seconds: f64,
    batch_rows: f64,
    stages: StageSeconds,
    writes: WriteSeconds,
}

impl Reading {
    pub(super) fn new(snapshot: &Snapshot, at: Instant) -> Self {
        let numbers = &snapshot.numbers;
        Self {
            at,
            messages: numbers.messages,
            rows: numbers.rows,
            bytes: numbers.bytes,
            commits: numbers.commits,
            commit_seconds: numbers.commit_seconds,
            batch_rows: numbers.batch_rows,
            stages: numbers.stage_seconds,
            writes: numbers.write_seconds,
        }
    }
}

/// What a pipeline did in the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Recent {
    /// How many seconds that were.
    pub seconds: f64,
    /// Messages taken from the stream.
    pub messages_per_second: f64,
    /// Rows committed.
    pub rows_per_second: f64,
    /// Payload bytes taken from the stream.
    pub bytes_per_second: f64,
    /// Transactions.
    pub commits_per_second: f64,
    /// Mean time of a commit; `None` where there was none.
    pub commit_seconds: Option<f64>,
    /// Mean rows of a batch; `None` where there was none.
    pub batch_rows: Option<f64>,
    /// Parts of the reading stage's time, as `jetcopy_stage_seconds_total` counts it; all 0 where nothing
    /// ran.
    pub stages: StageSeconds,
    /// The stage that is waited for at this moment, or that most of that time went into; `None` where the
    /// pipeline keeps up or does not run.
    pub limited_by: Option<Stage>,
    /// The part of the writers' time that went into ways to the database and commits rather than rows; `None`
    /// where nothing was written.
    pub waits: Option<f64>,
    /// Whether the database limits it, and much of that is waiting: several writers wait at once.
    pub more_writers_help: bool,
}

impl Recent {
    pub(super) fn between(before: &Reading, now: &Reading, snapshot: &Snapshot) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let rate = |now: u64, before: u64| {
            if seconds > 0.0 { float(now.saturating_sub(before)) / seconds } else { 0.0 }
        };
        let commits = now.commits.saturating_sub(before.commits);
        let mean = |now: f64, before: f64| (commits > 0).then(|| (now - before).max(0.0) / float(commits));
        let stages = shares(&before.stages, &now.stages);
        let waits = now.writes.since(&before.writes).waits();
        let behind = snapshot.numbers.behind_seconds.is_some_and(|behind| behind >= KEEPING_UP);
        let running = || behind && snapshot.state == State::Running;
        let limited_by = snapshot.limit.or_else(|| largest(&stages).filter(|_| running()));
        Self {
            seconds,
            messages_per_second: rate(now.messages, before.messages),
            rows_per_second: rate(now.rows, before.rows),
            bytes_per_second: rate(now.bytes, before.bytes),
            commits_per_second: rate(now.commits, before.commits),
            commit_seconds: mean(now.commit_seconds, before.commit_seconds),
            batch_rows: mean(now.batch_rows, before.batch_rows),
            stages,
            limited_by,
            waits,
            more_writers_help: limited_by == Some(Stage::Database)
                && waits.is_some_and(|waits| waits >= MUCH_WAITING),
        }
    }
}

/// How the time between two readings was spent, in parts of 1.
fn shares(before: &StageSeconds, now: &StageSeconds) -> StageSeconds {
    let nats = (now.nats - before.nats).max(0.0);
    let decode = (now.decode - before.decode).max(0.0);
    let database = (now.database - before.database).max(0.0);
    let all = nats + decode + database;
    if all > 0.0 {
        StageSeconds { nats: nats / all, decode: decode / all, database: database / all }
    } else {
        StageSeconds::default()
    }
}

fn largest(shares: &StageSeconds) -> Option<Stage> {
    let stages =
        [(Stage::Database, shares.database), (Stage::Nats, shares.nats), (Stage::Decode, shares.decode)];
    stages
        .into_iter()
        .filter(|&(_, share)| share > 0.0)
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .map(|(stage, _)| stage)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
fn float(count: u64) -> f64 {
    count as f64
}
