//! What the daemon sees of its database from beside its pipelines: why one is stuck, and how many dead
//! letters lie there.
//!
//! Guarantees: whatever it meets, no pipeline notices. It asks over a session of its own, which it has only
//! while a batch takes longer than usual, and for a moment to count dead letters; it waits for nothing longer
//! than [`ANSWER`]. What holds a pipeline up is logged once, and so is the end of that.
//!
//! What it cannot see, it leaves out: behind a pooler that does not pass the application's name on, it says
//! nothing.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};

use crate::config::Config;
use crate::postgres::connect::{self, Session};
use crate::postgres::simple::{self, ask};
use crate::status::{PipelineStatus, Registry};

/// How often it is looked: `COPY` must be seen twice before a pipeline counts as held up.
const LOOK: Duration = Duration::from_secs(1);

/// A batch that takes longer is asked about.
const SLOW: Duration = Duration::from_secs(1);

/// How long a connection or an answer may take: later ones would be about another moment.
const ANSWER: Duration = Duration::from_secs(1);

/// How often dead letters are counted: others settle them, too. It is one look along an index.
const COUNT: Duration = Duration::from_secs(15);

/// How often at most while new ones come.
const COUNT_NEW: Duration = Duration::from_secs(2);

/// How the server knows the session.
const NAME: &str = "jetcopy onlook";

/// Looks on for as long as the daemon runs; `instance` is its name.
pub(crate) async fn run(
    settings: watch::Receiver<Arc<Config>>,
    registry: Registry,
    instance: String,
) -> Infallible {
    let mut timer = tokio::time::interval(LOOK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = None;
    let mut held = BTreeSet::new();
    let mut counted: Option<(Instant, u64)> = None;
    loop {
        timer.tick().await;
        let pipelines = registry.pipelines();
        let letters = pipelines.iter().map(|status| status.dead_letters_since_start()).sum();
        let due = counted
            .is_none_or(|(at, before)| at.elapsed() >= if letters == before { COUNT } else { COUNT_NEW });
        if due && pipelines.iter().any(|status| status.meets_database()) {
            let settings = Arc::clone(&settings.borrow());
            // One that fails is tried again like one that did well.
            let _ = timeout(ANSWER, count(&settings, &pipelines)).await;
            counted = Some((Instant::now(), letters));
        }
        let slow: Vec<Slow> = pipelines.iter().filter_map(|status| Slow::new(status, &instance)).collect();
        if slow.is_empty() {
            session = None;
        } else {
            let settings = Arc::clone(&settings.borrow());
            session = timeout(ANSWER, look(session, &settings, &slow)).await.ok().flatten();
        }
        for status in &pipelines {
            tell(status, &mut held);
        }
        held.retain(|shard: &String| pipelines.iter().any(|status| status.shard().name == *shard));
    }
}

/// Counts the dead letters of all pipelines.
async fn count(settings: &Config, pipelines: &[Arc<PipelineStatus>]) -> Option<()> {
    let session = connect::connect(&settings.postgres, NAME).await.ok()?;
    let sql = "SELECT shard, letters FROM jetcopy.dead_letter_counts()";
    let answers = ask(&session.client, sql).await.ok()?;
    for status in pipelines {
        let own = answers.rows().find(|row| row.get(0) == Some(status.shard().name.as_str()));
        let letters = own.and_then(|row| simple::number(row, 1));
        status.set_dead_letters_in_table(letters.unwrap_or(0));
    }
    session.close().await;
    Some(())
}

/// Logs that a pipeline is stuck, or no longer is.
fn tell(status: &PipelineStatus, held: &mut BTreeSet<String>) {
    let (pipeline, shard) = (status.name(), &status.shard().name);
    match status.held_up() {
        Some(by) if held.insert(shard.clone()) => {
            tracing::warn!(pipeline, shard, what = by.what, "nothing has been committed for several seconds");
        }
        None if held.remove(shard) => tracing::info!(pipeline, shard, "no longer held up"),
        Some(_) | None => {}
    }
}

/// A pipeline whose batch takes long.
struct Slow<'s> {
    status: &'s PipelineStatus,
    /// The name of its session.
    owner: String,
    lane: usize,
    batch: u64,
}

impl<'s> Slow<'s> {
    fn new(status: &'s PipelineStatus, instance: &str) -> Option<Self> {
        let (lane, batch) = status.motion().writing_for(SLOW)?;
        Some(Self { status, owner: status.shard().session_of(instance, lane), lane, batch })
    }
}

/// Asks about the sessions of `slow`, and hands the session back for the next time.
async fn look(session: Option<Session>, settings: &Config, slow: &[Slow<'_>]) -> Option<Session> {
    let session = match session.filter(|session| !session.is_closed()) {
        Some(session) => session,
        None => connect::connect(&settings.postgres, NAME).await.ok()?,
    };
    let owners: Vec<String> = slow.iter().map(|slow| escape_literal(&slow.owner)).collect();
    let sql = format!(
        "SELECT seen.application_name, seen.wait_event_type, seen.wait_event, copying.tuples_processed, \
           (SELECT string_agg(pg_catalog.format('%s (pid %s, role %s)', \
         coalesce(nullif(other.application_name, ''), 'a session'), other.pid, other.usename), ', ') \
            FROM pg_stat_activity AS other WHERE other.pid = ANY (pg_blocking_pids(seen.pid))) \
         FROM pg_stat_activity AS seen LEFT JOIN pg_stat_progress_copy AS copying USING (pid) \
         WHERE seen.application_name IN ({}) AND seen.state = 'active'",
        owners.join(", ")
    );
    let answers = ask(&session.client, &sql).await.ok()?;
    for Slow { status, owner, lane, batch } in slow {
        let motion = status.motion().of(*lane);
        let Some(row) = answers.rows().find(|row| row.get(0) == Some(owner.as_str())) else {
            motion.said(*batch, Some("none of its sessions is active in the server".into()), None);
            continue;
        };
        let what = match (row.get(4), row.get(1), row.get(2)) {
            (Some(holders), _, _) => format!("it waits for a lock that {holders} holds"),
            (None, Some("Lock"), _) => "it waits for a lock".to_owned(),
            (None, Some(kind), Some(event)) => format!("the server waits there for {kind} {event}"),
            (None, _, _) => "the server is working on it".to_owned(),
        };
        let copied = simple::number(row, 3);
        motion.said(*batch, Some(what), copied);
    }
    Some(session)
}
