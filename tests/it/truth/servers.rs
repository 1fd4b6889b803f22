//! What is true of a pipeline, asked of NATS and of the database.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;

use crate::support::World;

/// How old what is shown may be: a probe every two seconds, a look every four, and the answers' own time.
const OLD: Duration = Duration::from_secs(6);

/// How often the servers are asked.
const EVERY: Duration = Duration::from_millis(250);

/// A pipeline whose figures are compared, named like its durable without `jetcopy-`.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) pipeline: &'static str,
    /// The last part of the subjects that it reads; empty for the whole stream.
    pub(super) subject: &'static str,
    /// Its table, which has the columns `sequence` and `pipeline`.
    pub(super) table: &'static str,
    /// Its checkpoint when the daemon began.
    pub(super) from: u64,
}

/// What was true at one moment, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample(BTreeMap<&'static str, f64>);

/// What was true within the last seconds.
#[derive(Debug)]
pub(super) struct Truth {
    samples: Vec<(Instant, Sample)>,
}

/// A message of the stream.
struct Message {
    sequence: u64,
    stored_ns: i128,
    payload: usize,
    marker: bool,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test")]
fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or_default() as f64
}

impl Truth {
    /// Asks until what is shown can be no older, and `shown` has been asked for; what it gave is the second.
    pub(super) async fn around<T>(world: &World, asked: &Asked, shown: impl Fn() -> T) -> (Self, T) {
        let (start, mut samples) = (Instant::now(), Vec::new());
        while start.elapsed() < OLD {
            samples.push((Instant::now(), sample(world, asked).await));
            tokio::time::sleep(EVERY).await;
        }
        let shown = shown();
        samples.push((Instant::now(), sample(world, asked).await));
        (Self { samples }, shown)
    }

    /// The least and the most that it was within the last `seconds`.
    pub(super) fn range(&self, name: &'static str, seconds: f64) -> (f64, f64) {
        let values: Vec<f64> = self.latest(seconds).map(|sample| sample.0[name]).collect();
        let by = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap();
        (by(f64::min), by(f64::max))
    }

    /// The same of something that changes at once.
    pub(super) fn now(&self, name: &'static str) -> (f64, f64) {
        self.range(name, 0.3)
    }

    fn latest(&self, seconds: f64) -> impl Iterator<Item = &Sample> {
        let end = self.samples.last().unwrap().0;
        let within = move |at: &Instant| end.duration_since(*at).as_secs_f64() <= seconds;
        let (last, before) = self.samples.split_last().unwrap();
        let before = before.iter().rev();
        // One beyond: what was shown may be from right before the first.
        let first = before.clone().take_while(|(at, _)| within(at)).count() + 1;
        before.take(first).chain([last]).map(|(_, sample)| sample)
    }
}

async fn sample(world: &World, asked: &Asked) -> Sample {
    let checkpoint = world.checkpoint(asked.pipeline).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let now_ns = jiff::Timestamp::now().as_nanosecond();
    let state = &stream.cached_info().state;
    let durable = stream.get_consumer::<pull::Config>(&format!("jetcopy-{}", asked.pipeline)).await;
    let (pending, ack_pending) = match durable {
        Ok(durable) => {
            let info = durable.cached_info();
            (float(info.num_pending), float(info.num_ack_pending))
        }
        Err(_) => (f64::NAN, f64::NAN),
    };
    let messages = messages(world, asked, state.first_sequence, state.last_sequence).await;
    let oldest = messages.iter().find(|message| message.sequence > checkpoint);
    let counted = |from: u64, to: u64| {
        messages.iter().filter(move |message| from < message.sequence && message.sequence <= to)
    };
    let bytes = |from, to| float(counted(from, to).map(|message| message.payload).sum::<usize>());
    let (from, last) = (asked.from, state.last_sequence);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an age")]
    let age = oldest.map_or(0.0, |oldest| (now_ns - oldest.stored_ns).max(0) as f64 / 1e9);
    let headroom = oldest.map_or(last + 1, |oldest| oldest.sequence).saturating_sub(state.first_sequence);
    let mut sample = Sample(BTreeMap::from([
        ("checkpoint", float(checkpoint)),
        ("first", float(state.first_sequence)),
        ("last", float(last)),
        ("headroom", float(headroom)),
        ("pending", pending),
        ("ack_pending", ack_pending),
        ("waiting", float(counted(checkpoint, last).count())),
        ("age", age),
        ("committed", float(counted(from, checkpoint).count())),
        ("committed_bytes", bytes(from, checkpoint)),
        ("stored", float(counted(from, last).count())),
        ("stored_bytes", bytes(from, last)),
        ("waiting_bytes", bytes(checkpoint, last)),
        ("markers", float(counted(from, last).filter(|message| message.marker).count())),
        ("committed_markers", float(counted(from, checkpoint).filter(|message| message.marker).count())),
    ]));
    let of_database = of_database(world, asked).await;
    sample.0.extend(of_database);
    sample
}

/// What of the stream is the pipeline's.
async fn messages(world: &World, asked: &Asked, first: u64, last: u64) -> Vec<Message> {
    let stream = world.jetstream.get_stream_no_info(&world.stream).await.unwrap();
    let mut messages = Vec::new();
    for sequence in first..=last {
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        if asked.subject.is_empty() || message.subject.ends_with(&format!(".{}", asked.subject)) {
            messages.push(Message {
                sequence,
                stored_ns: message.time.unix_timestamp_nanos(),
                payload: message.payload.len(),
                marker: message.headers.get("KV-Operation").is_some(),
            });
        }
    }
    messages
}

async fn of_database(world: &World, asked: &Asked) -> [(&'static str, f64); 7] {
    let Asked { pipeline, table, from, .. } = asked;
    let sql = format!(
        "SELECT (SELECT count(*) FROM {table} WHERE pipeline = '{pipeline}' AND sequence > {from}),
            (SELECT count(DISTINCT xmin::text) FROM {table} WHERE pipeline = '{pipeline}' \
                AND sequence > {from}),
            (SELECT count(*) FROM jetcopy.dead_letters WHERE pipeline = '{pipeline}'),
            (SELECT count(*) FROM jetcopy.dead_letters WHERE pipeline = '{pipeline}' AND sequence > {from}),
            (SELECT coalesce(extract(epoch FROM clock_timestamp() - max(failed_at)), 'Infinity')::float8
                FROM jetcopy.dead_letters WHERE pipeline = '{pipeline}'),
            (SELECT count(*) FROM jetcopy.losses WHERE pipeline = '{pipeline}'),
            (SELECT coalesce(sum(last_sequence + 1 - first_sequence), 0)::int8
                FROM jetcopy.losses WHERE pipeline = '{pipeline}')"
    );
    let row = world.database.query_one(&sql, &[]).await.unwrap();
    let count = |column: usize| float(row.get::<_, i64>(column));
    [
        ("rows", count(0)),
        ("transactions", count(1)),
        ("letters", count(2)),
        ("letters_here", count(3)),
        ("letter_age", row.get(4)),
        ("losses", count(5)),
        ("lost", count(6)),
    ]
}
