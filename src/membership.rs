//! This daemon among the others that share its database: which shards are its own, and which of the others
//! are gone.
//!
//! Guarantees:
//!
//! - It costs one session, whatever the number of shards. Over that it renews the daemon's row and reads all
//!   rows and all shards' owners, every [`LOOK`].
//! - Another daemon's row is removed only if its lease has run out while this daemon's own was renewed
//!   [`RENEWALS`] times, so that a database that stalls for all expires nobody; or at once if the server has
//!   no session of it any more, which is known only of one that no pooler stands before.
//! - A pipeline is told to hand its shard over, never made to: it drains as on a stop.
//!
//! Not guaranteed: that nobody else writes. While the database cannot be asked, every pipeline is let try,
//! and the claim itself refuses what another daemon has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::chain::chain;
use crate::checkpoint::{self, Place};
use crate::config;
use crate::daemons::{self, Beat, Daemon};
use crate::postgres::connect::{ConnectError, Session};
use crate::postgres::servers::Servers;
use crate::postgres::simple::ask;
use crate::status::Registry;
pub(crate) use fellow::fellows;
pub(crate) use turns::Turn;
use turns::{Moving, turns};

mod fellow;
mod turns;

/// How often the others are looked at: a takeover takes so much longer than is needed at most.
const LOOK: Duration = Duration::from_millis(375);

/// How soon it is looked again at a daemon of which the server has no session any more.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How soon after the moment at which a lease may have run out it is looked.
const RIGHT_AFTER: Duration = Duration::from_millis(10);

/// How often the lease is renewed: [`RENEWALS`] of them pass within the lease of one that is gone.
const BEAT: Duration = Duration::from_millis(750);

/// How often this daemon's lease is renewed before another's counts as run out: the model shows that one less
/// would rob a daemon that lives (`tests/model/membership.rs`).
const RENEWALS: u32 = 5;

/// How many looks in a row find no session of another daemon before it is gone: one that lives and has lost
/// them all is back within the first.
const ENDED: u32 = 2;

/// How long NATS may be away before another daemon is to try: longer than that one takes to notice where it
/// is away for all, so that no shard moves in vain.
const NATS: Duration = Duration::from_secs(10);

/// How long an answer may take before the session is given up: shorter than the lease, so that a daemon whose
/// connection died in silence is back in time.
const ANSWER: Duration = Duration::from_secs(3);

/// How old what was seen of a shard may be for a writer that wants to know whether it is still its own: some
/// looks.
const FRESH: Duration = Duration::from_secs(1);

/// How long the row may take to be removed at the end: the others would find out by themselves.
const LEAVE: Duration = Duration::from_secs(1);

/// What a daemon shares with others.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// The database.
    pub(crate) postgres: config::Postgres,
    /// What is known of its servers.
    pub(crate) servers: Arc<Servers>,
    /// The names of the shards.
    pub(crate) shards: Vec<String>,
}

/// What is known of shards and daemons.
#[derive(Debug, Default)]
struct View {
    /// Whether it was tried to find out; what to do about each shard, where that succeeded.
    turns: Option<BTreeMap<String, Turn>>,
    /// Where each shard stands, and when the database was asked for it.
    places: Vec<Place>,
    asked: Option<Instant>,
}

/// A daemon's part in the membership; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    view: watch::Receiver<View>,
    /// Shards to give up that do not run.
    idle: Arc<Mutex<Vec<String>>>,
}

/// The task behind a membership.
#[derive(Debug)]
pub(crate) struct Member {
    stop: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Member {
    /// Joins under the name `daemon`; what it shares may change.
    #[must_use]
    pub(crate) fn join(
        daemon: &str,
        shared: watch::Receiver<Shared>,
        registry: Registry,
    ) -> (Self, Membership) {
        let (stop, stopped) = mpsc::channel(1);
        let (view, seen) = watch::channel(View::default());
        let idle = Arc::new(Mutex::new(Vec::new()));
        let beats = Beats {
            beat: Beat { daemon: daemon.to_owned(), host: host(), ..Beat::default() },
            shared,
            registry,
            view,
            idle: Arc::clone(&idle),
            line: None,
            sessions: 0,
            others: BTreeMap::new(),
            moving: Moving::default(),
            counted: None,
            pause: LOOK,
            failing: None,
        };
        (Self { stop, task: tokio::spawn(beats.run(stopped)) }, Membership { view: seen, idle })
    }

    /// Leaves: the others take over at once whatever shard is still this daemon's.
    pub(crate) async fn leave(self) {
        let Self { stop, task } = self;
        drop(stop);
        // It says itself what failed.
        let _ = task.await;
    }
}

impl Membership {
    /// Waits until it was tried to find out about the others.
    pub(crate) async fn known(&self) {
        let mut view = self.view.clone();
        // The sender is gone only with the runtime.
        drop(view.wait_for(|view| view.turns.is_some()).await);
    }

    /// What to do about a shard. Where that is not known, its pipeline is to try.
    #[must_use]
    pub(crate) fn turn(&self, shard: &str) -> Turn {
        let view = self.view.borrow();
        view.turns.as_ref().and_then(|turns| turns.get(shard).cloned()).unwrap_or(Turn::Run)
    }

    /// The checkpoint of a shard, as the database had it a moment ago.
    #[must_use]
    pub(crate) fn checkpoint(&self, shard: &str) -> Option<u64> {
        self.view.borrow().places.iter().find(|place| place.shard == shard).map(|place| place.checkpoint)
    }

    /// A shard as the database had it less than [`FRESH`] ago, where it was asked.
    #[must_use]
    pub(crate) fn place(&self, shard: &str) -> Option<Place> {
        let view = self.view.borrow();
        view.asked.filter(|asked| asked.elapsed() < FRESH)?;
        view.places.iter().find(|place| place.shard == shard).cloned()
    }

    /// Where all shards stand, also those that this daemon is not configured for, as the database had it a
    /// moment ago.
    #[must_use]
    pub(crate) fn places(&self) -> Vec<Place> {
        self.view.borrow().places.clone()
    }

    /// Resolves when there is something else to do about a shard than `turn`.
    pub(crate) async fn turns_from(&self, shard: &str, turn: &Turn) {
        let mut view = self.view.clone();
        let differs = |view: &View| {
            let now = view.turns.as_ref().and_then(|turns| turns.get(shard)).unwrap_or(&Turn::Run);
            now != turn
        };
        if view.wait_for(differs).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when a shard that runs here is to be handed over.
    pub(crate) async fn lets_go(&self, shard: &str) {
        let mut view = self.view.clone();
        let goes =
            |view: &View| view.turns.as_ref().is_some_and(|turns| turns.get(shard) == Some(&Turn::LetGo));
        if view.wait_for(goes).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives a shard up that is this daemon's and does not run.
    pub(crate) fn release(&self, shard: &str) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle.iter().any(|known| known == shard) {
            idle.push(shard.to_owned());
        }
    }
}

/// What is known of another daemon beside its row.
#[derive(Debug, Default)]
struct Seen {
    beat: i64,
    /// How often this daemon's lease was renewed since that.
    renewals: u32,
    /// How many looks in a row have found none of its sessions.
    ended: u32,
}

/// The session that the lease is renewed over.
struct Line {
    session: Session,
    postgres: config::Postgres,
    /// When the lease was renewed last.
    beat: Option<Instant>,
    /// How often it was, over this session.
    beats: u32,
}

struct Beats {
    beat: Beat,
    shared: watch::Receiver<Shared>,
    registry: Registry,
    view: watch::Sender<View>,
    idle: Arc<Mutex<Vec<String>>>,
    line: Option<Line>,
    /// How many sessions there were.
    sessions: u32,
    others: BTreeMap<String, Seen>,
    moving: Moving,
    /// Messages that were committed, and when that was counted.
    counted: Option<(u64, Instant)>,
    /// How long until the next look.
    pause: Duration,
    /// Since when the database cannot be asked, and whether it was said.
    failing: Option<(Instant, bool)>,
}

impl Beats {
    async fn run(mut self, mut stop: mpsc::Receiver<()>) {
        loop {
            let stopped = {
                let mut look = std::pin::pin!(self.look());
                tokio::select! {
                    () = &mut look => false,
                    _ = stop.recv() => {
                        // One that is under way has the session.
                        let _ = timeout(LEAVE, look).await;
                        true
                    }
                }
            };
            if stopped {
                break;
            }
            tokio::select! {
                _ = stop.recv() => break,
                () = tokio::time::sleep(self.pause) => {}
            }
        }
        if let Some(Line { session, .. }) = self.line {
            let left = timeout(LEAVE, daemons::leave(&session.client, &self.beat.daemon)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::debug!("this daemon's row could not be removed; the others wait for its lease");
            }
            session.close().await;
        }
    }

    /// Renews the lease if that is due, and looks at the others.
    async fn look(&mut self) {
        let shared = self.shared.borrow().clone();
        // A primary that a failover has replaced goes on answering.
        let serves = |line: &Line| {
            let newest = shared.servers.newest();
            line.postgres == shared.postgres
                && line.session.history().is_none_or(|history| newest.admits(history))
        };
        if let Some(line) = self.line.take_if(|line| line.session.is_closed() || !serves(line))
            && !line.session.is_closed()
        {
            let _ = timeout(LEAVE, daemons::leave(&line.session.client, &self.beat.daemon)).await;
        }
        let mut line = match self.line.take() {
            Some(line) => line,
            None => match self.connect(&shared).await {
                Ok(line) => line,
                Err(error) => return self.cannot(&chain(&*error)),
            },
        };
        let asked = timeout(ANSWER, self.ask(&mut line, &shared)).await;
        match asked {
            Ok(Ok(())) => {
                self.failing = None;
                self.line = Some(line);
            }
            Ok(Err(error)) => self.cannot(&chain(&error)),
            Err(_) => self.cannot("the database does not answer"),
        }
    }

    /// Lets every pipeline try by itself, and meet what is wrong.
    fn cannot(&mut self, why: &str) {
        let (since, said) = self.failing.get_or_insert_with(|| (Instant::now(), false));
        // Before, nobody takes this daemon for dead, and its pipelines have said what is wrong.
        if since.elapsed() >= daemons::LEASE && !std::mem::replace(said, true) {
            tracing::warn!(why, "this daemon's lease has run out, since it cannot be renewed");
        } else {
            tracing::debug!(why, "cannot renew this daemon's lease");
        }
        self.publish(BTreeMap::new(), None);
    }

    /// Shows what to do about each shard, and the places that the database was asked for at that time.
    fn publish(&self, turns: BTreeMap<String, Turn>, seen: Option<(Vec<Place>, Instant)>) {
        self.view.send_if_modified(|view| {
            if let Some((places, asked)) = seen {
                (view.places, view.asked) = (places, Some(asked));
            }
            let differs = view.turns.as_ref() != Some(&turns);
            view.turns = Some(turns);
            differs
        });
    }

    async fn connect(&mut self, shared: &Shared) -> Result<Line, Arc<ConnectError>> {
        // No pipeline is named like this.
        let name = format!("jetcopy daemon/{}", self.beat.daemon);
        let mut connecting = std::pin::pin!(shared.servers.connect(&shared.postgres, &name));
        let connected = tokio::select! {
            connected = &mut connecting => connected,
            () = tokio::time::sleep(ANSWER) => {
                // Pipelines need not wait any longer: they may meet another server, and say what is wrong.
                self.publish(BTreeMap::new(), None);
                connecting.await
            }
        };
        let session = connected?;
        self.beat.direct = timeout(ANSWER, session.is_direct()).await.unwrap_or(false);
        if self.beat.direct {
            // Without it, the others look at the list of sessions.
            drop(timeout(ANSWER, session.client.batch_execute(&daemons::hold_sql(&self.beat.daemon))).await);
        }
        self.sessions += 1;
        Ok(Line { session, postgres: shared.postgres.clone(), beat: None, beats: 0 })
    }

    async fn ask(&mut self, line: &mut Line, shared: &Shared) -> Result<(), tokio_postgres::Error> {
        loop {
            let beats = line.beat.is_none_or(|last| last.elapsed() + LOOK / 2 >= BEAT);
            let mut sql = String::new();
            if beats {
                self.beat.shards.clone_from(&shared.shards);
                self.count();
                sql += &checkpoint::begin_sql(&line.session);
                // What a crash of the server takes back of it does no harm, and no standby is waited for.
                sql += "SET LOCAL synchronous_commit = off; ";
                sql += &self.beat.sql();
                sql += "COMMIT; ";
            }
            let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
            for shard in &idle {
                sql += &checkpoint::release_sql(shard, &self.beat.daemon);
            }
            sql += &daemons::look_sql(&self.beat.daemon);
            sql += &checkpoint::places_sql();
            let asked = Instant::now();
            let answers = ask(&line.session.client, &sql).await?;
            if beats {
                let again = self.beat.drained.is_some() || line.beats > 0 || self.sessions > 1;
                if again && answers.named("jetcopy_beat") == Some("1") {
                    tracing::warn!("this daemon was taken for dead, and joins the others again");
                }
                line.beat = Some(asked);
                line.beats = (line.beats + 1).min(RENEWALS);
            }
            let daemons: Vec<Daemon> = answers.rows().filter_map(daemons::read).collect();
            let places: Vec<Place> = answers.rows().filter_map(checkpoint::read_place).collect();
            if self.expel(line, &daemons, beats).await? {
                continue;
            }
            self.give_up(&shared.shards, &places);
            let own = daemons.iter().find(|daemon| daemon.name == self.beat.daemon);
            if let Some(own) = own {
                self.beat.drained.clone_from(&own.drained);
            }
            self.registry.set_daemons(fellow::of(&daemons, &places).0);
            let turns = turns(&self.beat.daemon, &shared.shards, &daemons, &places, &mut self.moving);
            self.publish(turns, Some((places, asked)));
            return Ok(());
        }
    }

    /// Gives up at the next look what is this daemon's, and neither configured any more nor still draining.
    fn give_up(&self, shards: &[String], places: &[Place]) {
        let left = |place: &&Place| {
            place.owner.as_ref() == Some(&self.beat.daemon)
                && !shards.contains(&place.shard)
                && self.registry.get(&place.shard).is_none()
        };
        let left = places.iter().filter(left).map(|place| place.shard.clone());
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
    }

    /// Removes the rows of daemons that are gone; whether there was one.
    async fn expel(
        &mut self,
        line: &Line,
        daemons: &[Daemon],
        renewed: bool,
    ) -> Result<bool, tokio_postgres::Error> {
        self.others.retain(|name, _| daemons.iter().any(|daemon| daemon.name == *name));
        self.pause = LOOK;
        let mut expelled = false;
        for daemon in daemons.iter().filter(|daemon| daemon.name != self.beat.daemon) {
            let seen = self.others.entry(daemon.name.clone()).or_default();
            if !daemon.overdue {
                // The moment at which its lease may have run out is not slept through.
                let left = Duration::from_secs_f64((daemons::LEASE.as_secs_f64() - daemon.silent).max(0.0));
                self.pause = self.pause.min(left + RIGHT_AFTER);
            }
            if seen.beat == daemon.beat {
                seen.renewals += u32::from(renewed);
            } else {
                *seen = Seen { beat: daemon.beat, ..Seen::default() };
            }
            seen.ended = if daemon.ended { seen.ended + 1 } else { 0 };
            if daemon.ended {
                self.pause = self.pause.min(LOOK_AGAIN);
            }
            // After a restart of the server, each of the living comes back at its own time.
            let settled =
                line.beats >= RENEWALS || self.sessions == 1 && daemon.silent > 2.0 * BEAT.as_secs_f64();
            let ended = self.beat.direct && seen.ended >= ENDED && settled;
            let run_out = daemon.overdue && seen.renewals >= RENEWALS;
            if !ended && !run_out {
                continue;
            }
            let why = if ended { "its sessions have ended" } else { "its lease has run out" };
            if daemons::expel(&line.session.client, daemon).await? {
                tracing::warn!(daemon = daemon.name, host = daemon.host, why, "another daemon is gone");
                expelled = true;
            }
        }
        Ok(expelled)
    }

    /// Takes stock of how busy this daemon is, and of what it cannot run.
    fn count(&mut self) {
        let pipelines = self.registry.pipelines();
        let lacks = pipelines.iter().filter(|status| status.lacks_nats(NATS));
        self.beat.unable = lacks.map(|status| status.shard().name.clone()).collect();
        let messages = pipelines.iter().map(|status| status.messages()).sum();
        let now = Instant::now();
        if let Some((before, at)) = self.counted.replace((messages, now)) {
            #[expect(clippy::cast_precision_loss, reason = "messages of a second")]
            let more = messages.saturating_sub(before) as f64;
            self.beat.messages_per_second = more / (now - at).as_secs_f64().max(0.001);
        }
    }
}

/// This machine's name, where it can be read.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |name| name.trim().into())
}
