//! Watches the tables from a separate session: what has become visible, and when.
//!
//! Guarantees: a row counts as visible when a `SELECT` has returned it, so a latency is too long by at most
//! the time between two looks, which is measured, and never too short. A look costs the server one index
//! lookup per pipeline, and its session is excluded from PostgreSQL's CPU time. It runs on its own thread, so
//! it looks on time whatever the publishers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::oneshot;

use super::figures::{histogram, record};
use super::place::{CLIENT_NAME, Names};
use super::{Error, Plan, micros};
use crate::checkpoint;
use crate::config;
use crate::postgres::connect::{self, Session};

/// The watching thread. It ends with this value.
#[derive(Debug)]
pub struct Watch {
    /// The backend that serves its session.
    pub backend: u32,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Seen, Error>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// The last visible sequence of each pipeline.
    seen: Vec<AtomicU64>,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// For each pipeline, up to which sequence its rows were visible at which moment, wherever that had
    /// changed.
    pub steps: Vec<Vec<(Instant, u64)>>,
    /// Microseconds from one look to the next.
    pub looks: Histogram<u64>,
}

/// Asks for the last visible sequence of each pipeline: by the table's index, or where there is none by the
/// checkpoint, which becomes visible with the rows.
fn question(names: &Names, plan: &Plan) -> String {
    let of_one = |pipeline| {
        if plan.index {
            // The rows stored beforehand are below 0.
            format!("greatest((SELECT max(seq) FROM {}), 0)", names.table(pipeline))
        } else {
            format!("coalesce(({}), 0)", checkpoint::last_sequence_sql(&names.pipeline(pipeline)))
        }
    };
    let all: Vec<String> = (0..plan.pipelines).map(of_one).collect();
    format!("SELECT ARRAY[{}]::int8[]", all.join(", "))
}

impl Watch {
    /// Looks from now on, with `pause` between two looks.
    pub async fn start(
        postgres: &config::Postgres,
        names: &Names,
        plan: &Plan,
        pause: Duration,
    ) -> Result<Self, Error> {
        let seen = (0..plan.pipelines).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), seen });
        let (ready, started) = oneshot::channel();
        let (postgres, question) = (postgres.clone(), question(names, plan));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(super::io("start", "a runtime"))?;
                runtime.block_on(look(&postgres, &question, &theirs, pause, ready))
            })
            .map_err(super::io("start", "a thread"))?;
        let mut watch = Self { backend: 0, shared, thread: Some(thread) };
        match started.await {
            Ok(backend) => {
                watch.backend = backend;
                Ok(watch)
            }
            Err(_) => Err(watch.finish().await.err().unwrap_or(Error::Ended)),
        }
    }

    /// The last visible sequence of each pipeline.
    pub fn seen(&self) -> impl Iterator<Item = u64> {
        self.shared.seen.iter().map(|seen| seen.load(Ordering::Relaxed))
    }

    /// Whether it has ended by itself, which [`Self::finish`] explains.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it.
    pub async fn finish(mut self) -> Result<Seen, Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Err(Error::Ended) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        joined.map_err(|_| Error::Ended)?.map_err(|_| Error::Ended)?
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

async fn look(
    postgres: &config::Postgres,
    question: &str,
    shared: &Shared,
    pause: Duration,
    ready: oneshot::Sender<u32>,
) -> Result<Seen, Error> {
    let session: Session = connect::connect(postgres, CLIENT_NAME).await?;
    let failed = Error::database("look what is visible");
    let row = session.client.query_typed_one("SELECT pg_backend_pid()", &[]).await.map_err(&failed)?;
    let backend: i32 = row.try_get(0).map_err(&failed)?;
    // Nobody waits any more where the run was given up.
    let _ = ready.send(u32::try_from(backend).unwrap_or(0));
    let mut steps = vec![Vec::new(); shared.seen.len()];
    let mut looks = histogram();
    let mut before = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let row = session.client.query_typed_one(question, &[]).await.map_err(&failed)?;
        let visible: Vec<i64> = row.try_get(0).map_err(&failed)?;
        let now = Instant::now();
        record(&mut looks, micros(now - before));
        before = now;
        for ((steps, seen), visible) in steps.iter_mut().zip(&shared.seen).zip(visible) {
            let visible = u64::try_from(visible).unwrap_or(0);
            if visible > seen.swap(visible, Ordering::Relaxed) {
                steps.push((now, visible));
            }
        }
        // Not the runtime's timer, which is no finer than a millisecond.
        std::thread::sleep(pause);
    }
    session.close().await;
    Ok(Seen { steps, looks })
}
