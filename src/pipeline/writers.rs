//! The writers of a generation, one a lane, each with a session of its own.
//!
//! Guarantees: all write under one claim, over sessions on the server of the session that made it, and end
//! with the reader. The last of them gives the shard up on a stop.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Ended, Failure, Pipeline};
use crate::ack::Ack;
use crate::batch::{Batch, Held};
use crate::checkpoint::Claim;
use crate::config::OnSuperseded;
use crate::copy::Target;
use crate::decode::Decoder;
use crate::lag::Progress;
use crate::milestones;
use crate::postgres::connect::Session;
use crate::postgres::introspect;
use crate::resync;
use crate::seal;
use crate::write::{self, Memory, Team, Writer};

/// Batches between the reader and the only writer: with the one being filled and the one being written, three
/// are in memory.
const BATCHES: usize = 1;

/// The same of each of several: as many as a block has where each message becomes a few rows, so that the
/// reader comes to the next lane before this one has written them. Their bytes are bounded for all together.
const BATCHES_OF_SEVERAL: usize = 3;

/// Acks that may wait, of each writer. Each covers those before it, so a full channel only ever means a stuck
/// connection.
const ACKS: usize = 4;

/// Emptied batches that wait to be filled again, of each writer: no more than can be in flight.
const EMPTIED: usize = 2;

/// How many times `batch.max_bytes` an emptied batch keeps of its allocations: rows, their messages, and what
/// goes beyond its limit by one message.
const KEPT: usize = 3;

/// What the writers begin with.
pub(super) struct Writers {
    /// By lane, with what rows are written to.
    sessions: Vec<(Session, Vec<Target>)>,
    claim: Claim,
    shape: String,
    held: Arc<Held>,
    progress: Arc<Progress>,
}

/// The channels around them.
pub(super) struct Ways {
    /// To each writer.
    pub(super) batches: Vec<mpsc::Sender<Batch>>,
    /// From all of them.
    pub(super) emptied: mpsc::Receiver<Batch>,
    pub(super) acks: mpsc::Sender<Ack>,
    pub(super) acks_in: mpsc::Receiver<Ack>,
}

impl Writers {
    pub(super) fn new(
        sessions: Vec<Session>,
        claim: &Claim,
        targets: impl Fn() -> Vec<Target>,
        shape: &str,
        held: Arc<Held>,
        progress: Arc<Progress>,
    ) -> Self {
        let sessions = sessions.into_iter().map(|session| (session, targets())).collect();
        Self { sessions, claim: claim.clone(), shape: shape.to_owned(), held, progress }
    }
}

impl Pipeline {
    /// A session for each lane: that of the claim, and others beside it.
    pub(super) async fn sessions(&self, first: Session, lanes: usize) -> Result<Vec<Session>, Failure> {
        let host = first.host().to_owned();
        let others = (1..lanes).map(|lane| {
            let (name, host) = (self.shard.session_of(&self.daemon, lane), &host);
            async move { self.servers.connect_beside(&self.settings.postgres, &name, host).await }
        });
        let others = try_join_all(others).await.map_err(resync::Error::Postgres)?;
        Ok(std::iter::once(first).chain(others).collect())
    }

    /// Says that another number of writers is to come.
    pub(super) fn tell_settling(&self, claim: &Claim) {
        if let Some(to) = claim.settles_at(self.pipeline.layout()) {
            tracing::info!(
                pipeline = self.shard.pipeline,
                writers = claim.lanes.count(),
                next = self.pipeline.writers,
                from = claim.last_sequence + 1,
                to,
                "the number of writers or their batches changed; completing what the writers before left out"
            );
        }
    }

    /// What rows are written to, in the order of the configuration.
    pub(super) fn targets(&self, tables: &[introspect::Table], decoder: &Decoder) -> Vec<Target> {
        self.pipeline
            .tables
            .iter()
            .zip(tables)
            .enumerate()
            .map(|(index, (settings, table))| Target::new(settings, table, decoder, index))
            .collect()
    }

    /// Starts the writers among `stages`.
    pub(super) fn write(
        &self,
        writers: Writers,
        stop: &watch::Receiver<bool>,
        stages: &mut JoinSet<Result<Ended, Failure>>,
    ) -> Ways {
        let Writers { sessions, claim, shape, held, progress } = writers;
        let count = sessions.len();
        let (acks, acks_in) = mpsc::channel(ACKS * count);
        let (emptied, emptied_in) = mpsc::channel(EMPTIED * count);
        let team = Arc::new(Team::new(claim.lanes.clone()));
        let mut batches = Vec::with_capacity(count);
        for (lane, (session, targets)) in sessions.into_iter().enumerate() {
            let (sender, batches_in) = mpsc::channel(if count > 1 { BATCHES_OF_SEVERAL } else { BATCHES });
            batches.push(sender);
            let silent = self.falls_silent(&session, lane);
            stages.spawn(async move { Err(Failure::Write(silent.await)) });
            let memory = self.memory(lane);
            memory.lock().unwrap_or_else(PoisonError::into_inner).begin(shape.clone(), targets.len());
            let writer = Writer {
                session,
                shard: self.shard.clone(),
                epoch: claim.epoch,
                lane,
                checkpoint: claim.lanes.checkpoints()[lane],
                team: Arc::clone(&team),
                accepted: claim.accepted,
                membership: self.membership.clone(),
                seal: seal::Open::new(self.pipeline.ledger, targets.iter().map(|target| &*target.qualified)),
                targets,
                partitions: self.settings.store.partitions,
                poison: Arc::clone(&self.poison),
                memory,
                search: write::Search::default(),
                step_timeout: self.settings.postgres.step_timeout,
                held: Arc::clone(&held),
                keep: usize::try_from(self.pipeline.batch.max_bytes.as_u64())
                    .unwrap_or(usize::MAX)
                    .saturating_mul(KEPT),
                progress: Arc::clone(&progress),
                records_superseded: self.pipeline.superseded() == OnSuperseded::Record,
                milestone: milestones::Due::default(),
                metrics: self.metrics.of_lane(lane),
                status: Arc::clone(&self.status),
            };
            let (acks, emptied, stopped) = (acks.clone(), emptied.clone(), stop.clone());
            stages.spawn(async move {
                Ok(writer.run(batches_in, acks, emptied, stopped).await.map(|()| Ended::Well)?)
            });
        }
        Ways { batches, emptied: emptied_in, acks, acks_in }
    }

    /// What the writers of a lane have learnt.
    fn memory(&self, lane: usize) -> Arc<Mutex<Memory>> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        if memories.len() <= lane {
            memories.resize_with(lane + 1, Arc::default);
        }
        Arc::clone(&memories[lane])
    }

    /// The end of a session whose server answers nobody any more, whatever the writer waits for there.
    fn falls_silent(
        &self,
        session: &Session,
        lane: usize,
    ) -> impl Future<Output = write::Error> + Send + use<> {
        let (servers, settings) = (Arc::clone(&self.servers), Arc::clone(&self.settings));
        let (host, took) = (session.host().to_owned(), session.took());
        let metrics = self.metrics.of_lane(lane);
        async move {
            let lasts = || metrics.motion.asks_database();
            servers.falls_silent(&settings.postgres, &host, took, lasts).await;
            if metrics.motion.commits() {
                metrics.commits.in_doubt.inc();
            }
            write::Error::Silent { host }
        }
    }
}
