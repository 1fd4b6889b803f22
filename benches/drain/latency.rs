//! From publish to visible in a `SELECT`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use jetcopy::private::connect;
use jetcopy::publish::{Outgoing, paced, publish};
use serde_json::json;

use super::daemon::Daemon;
use super::world::World;

const MAX_IN_FLIGHT: usize = 10_000;
/// Between two looks. With the query's own time, this is what a latency may be too long by.
const PAUSE: Duration = Duration::from_micros(500);
/// Messages before those that count: connections, plans and caches get warm.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a row may take to be seen before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// In milliseconds.
pub(crate) struct Measured {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// 99 of 100 looks came within this time after the one before.
    pub(crate) look: f64,
}

pub(crate) async fn measure(world: &World, rate: u32, duration: Duration) -> Measured {
    let (stream, table) = (format!("LATENCY{rate}"), format!("latency_{rate}"));
    world.create_stream(&stream).await;
    world
        .execute(&format!(
            "CREATE TABLE {table} (time timestamptz NOT NULL, id bigint PRIMARY KEY, camera_id text, fps real)"
        ))
        .await;
    let daemon = Daemon::start(&world.config(&stream, &table));

    let warm_up = count(rate, WARM_UP);
    let total = warm_up + count(rate, duration);
    let (start, missed) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (url, table, missed) = (world.database_url.clone(), table.clone(), Arc::clone(&missed));
        // A thread of its own: it looks on time, whatever the publisher does.
        std::thread::spawn(move || watch(&url, &table, start, total, &missed))
    };
    let mut sent = Vec::new();
    let subject = async_nats::Subject::from(format!("{stream}.a"));
    let messages = paced(stream::iter(1..=total), f64::from(rate)).map(|id| {
        let message =
            json!({"timestamp": 1_735_689_600_000_000 + id, "id": id, "camera_id": "cam-01", "fps": 25.0});
        let payload = rmp_serde::to_vec_named(&message).unwrap();
        sent.push(start.elapsed());
        Outgoing { subject: subject.clone(), headers: None, payload: payload.into() }
    });
    publish(&world.client, messages, MAX_IN_FLIGHT, |_| {}).await.unwrap();
    let seen = tokio::task::spawn_blocking(move || watcher.join().unwrap()).await.unwrap();
    assert!(!missed.load(Ordering::Relaxed), "a row was not visible in {PATIENCE:?}");
    daemon.stop();
    summarize(&seen, &sent, usize::try_from(warm_up).unwrap())
}

fn count(rate: u32, duration: Duration) -> u64 {
    u64::from(rate) * duration.as_secs()
}

/// Looks until all are seen: when, and up to which row by then.
#[tokio::main(flavor = "current_thread")]
async fn watch(
    url: &str,
    table: &str,
    start: Instant,
    total: u64,
    missed: &AtomicBool,
) -> Vec<(Duration, u64)> {
    let database = connect(url).await.unwrap();
    let sql = format!("SELECT id FROM {table} ORDER BY id DESC LIMIT 1");
    let newest = database.prepare(&sql).await.unwrap();
    let mut seen = vec![(start.elapsed(), 0)];
    let (mut last, mut progress) = (0, Instant::now());
    while last < total {
        let row = database.query_opt(&newest, &[]).await.unwrap();
        let now = row.map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap());
        seen.push((start.elapsed(), now));
        if now > last {
            (last, progress) = (now, Instant::now());
        } else if progress.elapsed() > PATIENCE {
            missed.store(true, Ordering::Relaxed);
            break;
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

/// `sent` holds when each row was published, from the first on.
fn summarize(seen: &[(Duration, u64)], sent: &[Duration], warm_up: usize) -> Measured {
    let [mut latencies, mut looks] = [(); 2].map(|()| Histogram::<u64>::new(3).unwrap());
    for pair in seen.windows(2) {
        let ((before, from), (now, to)) = (pair[0], pair[1]);
        looks.record(micros(now.saturating_sub(before))).unwrap();
        let rows = usize::try_from(from).unwrap().max(warm_up)..usize::try_from(to).unwrap();
        for &sent in sent.get(rows).unwrap_or_default() {
            latencies.record(micros(now.saturating_sub(sent))).unwrap();
        }
    }
    let at = |histogram: &Histogram<u64>, share| histogram.value_at_quantile(share) as f64 / 1e3;
    Measured {
        p50: at(&latencies, 0.5),
        p99: at(&latencies, 0.99),
        max: latencies.max() as f64 / 1e3,
        look: at(&looks, 0.99),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
