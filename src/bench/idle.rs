//! Daemons that share pipelines in which nothing happens: what that costs them and the servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::daemon::Daemon;
use super::load::Shape;
use super::place::{CLIENT_NAME, Names};
use super::process::{self, Processes};
use super::{Error, PATIENCE, POLL, Plan, Servers, io};
use crate::checkpoint;
use crate::nats::Connection;
use crate::postgres::connect::{self, Session};

/// Daemons that share the pipelines.
const DAEMONS: usize = 2;

/// How long after the pipelines are shared what that took still goes on.
const SETTLE: Duration = Duration::from_secs(5);

/// What a second of idleness takes, in seconds of one core.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// All processes of the database's server.
    pub postgres: f64,
    /// The NATS server.
    pub nats: f64,
    /// Each of the daemons, on average.
    pub daemon: f64,
}

/// Lets two daemons share the pipelines of `plan` and watches them for so long.
pub async fn idle(servers: &Servers, program: &Path, plan: &Plan, watched: Duration) -> Result<Idle, Error> {
    let names = Names::default();
    let measured = measure(servers, program, plan, watched, &names).await;
    let removed = names.remove(servers).await;
    let measured = measured?;
    removed?;
    Ok(measured)
}

async fn measure(
    servers: &Servers,
    program: &Path,
    plan: &Plan,
    watched: Duration,
    names: &Names,
) -> Result<Idle, Error> {
    let connection = Connection::open(&servers.nats, CLIENT_NAME).await?;
    let session = connect::connect(&servers.postgres, CLIENT_NAME).await?;
    names.create(plan, &connection, &session).await?;
    let config = names.config(plan, &Shape::new(plan.payload, plan.rows_per_message)?, servers);
    let mut daemons = Vec::new();
    for _ in 0..DAEMONS {
        daemons.push(Daemon::start(program, &config)?);
    }
    shared(&session, plan, &mut daemons).await?;
    tokio::time::sleep(SETTLE).await;
    let unknown = |what: String| Error::Unmeasured { what };
    let postgres = process::postgres(&session, Vec::new()).await.map_err(unknown)?;
    let nats = process::nats(&servers.nats, &connection.client).map_err(unknown)?;
    let used =
        |processes: &Processes| Ok::<_, Error>(processes.usage().map_err(io("read", "/proc"))?.cpu_seconds);
    let all = |daemons: &[Daemon]| {
        let sum: Result<f64, Error> = daemons.iter().map(Daemon::cpu_seconds).sum();
        Ok::<_, Error>([used(&postgres)?, used(&nats)?, sum?])
    };
    let (before, start) = (all(&daemons)?, Instant::now());
    tokio::time::sleep(watched).await;
    let (after, lasted) = (all(&daemons)?, start.elapsed().as_secs_f64());
    for daemon in daemons {
        daemon.stop().await?;
    }
    session.close().await;
    let share = |of: usize| (after[of] - before[of]) / lasted;
    #[expect(clippy::cast_precision_loss, reason = "a few daemons")]
    let each = share(2) / DAEMONS as f64;
    Ok(Idle { postgres: share(0), nats: share(1), daemon: each })
}

/// Waits until each daemon has its share.
async fn shared(session: &Session, plan: &Plan, daemons: &mut [Daemon]) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let places = checkpoint::places(&session.client).await;
        let places = places.map_err(Error::database("ask who has which shards"))?;
        let mut counts = BTreeMap::new();
        for owner in places.into_iter().filter_map(|place| place.owner) {
            *counts.entry(owner).or_insert(0) += 1;
        }
        let even = plan.pipelines / DAEMONS;
        if counts.len() == DAEMONS && counts.values().all(|&count| count >= even) {
            return Ok(());
        }
        for daemon in daemons.iter_mut() {
            daemon.check()?;
        }
        if Instant::now() > deadline {
            return Err(daemons[0].failed(format!("shards are not shared within {PATIENCE:?}: {counts:?}")));
        }
        tokio::time::sleep(POLL).await;
    }
}
