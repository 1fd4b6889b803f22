//! Whether each stream still holds what its pipeline is to read next.
//!
//! Guarantees: the verdict, its words and its remedy are those with which `jetcopy run` would halt, and
//! nothing is claimed, recorded or made for it. It goes by one look: a daemon that runs meanwhile, and its
//! checkpoint, move on.

use async_nats::jetstream;

use super::report::Findings;
use crate::chain::chain;
use crate::checkpoint::{self, Claim};
use crate::clock;
use crate::config::{Config, OnLoss, Pipeline};
use crate::control;
use crate::left_behind;
use crate::loss::{self, Cause, Loss, StreamFacts, Verdict};
use crate::milestones;
use crate::nats::Connection;
use crate::pipeline::Failure;
use crate::postgres::connect::Session;
use crate::recovery::{Action, recovery};
use crate::resync::{self, judge};
use crate::shard::Shard;

/// How often to look again if the checkpoint moved meanwhile: then a daemon reads, and meets by itself
/// what comes.
const LOOKS: usize = 3;

/// Why it could not be found out.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The checkpoint, or a loss.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The milestones.
    #[error("cannot read jetcopy.milestones")]
    Milestones(#[source] tokio_postgres::Error),
    /// The stream.
    #[error("cannot open the stream")]
    Stream(#[from] jetstream::context::GetStreamError),
    /// The comparison.
    #[error(transparent)]
    Judge(#[from] resync::Error),
}

/// Compares the checkpoint of each shard of a pipeline with its stream.
pub(super) async fn look(session: &Session, nats: &Connection, pipeline: &Pipeline, report: &mut Findings) {
    for shard in &pipeline.shards() {
        let place = format!("pipeline {shard}, checkpoint");
        match settled(session, nats, pipeline, shard, &place, report).await {
            Ok(()) => {}
            Err(Error::Judge(error)) => unknown(&place, error, report),
            Err(error) => report.failure(&place, &error),
        }
    }
}

/// Reports what is left in streams that the configuration no longer names.
pub(super) async fn left_behind(
    config: &Config,
    session: &Session,
    nats: &Connection,
    report: &mut Findings,
) {
    const PLACE: &str = "shards that are not configured";
    let places = match checkpoint::places(&session.client).await {
        Ok(places) => places,
        Err(error) => return report.failure(PLACE, &error),
    };
    match left_behind::find(config, &nats.client, &places).await {
        Ok(found) => {
            for left in found {
                let place = format!("shard {}, stream {}", left.shard, left.stream);
                report.error(place, left.text(), left.remedy);
            }
        }
        Err(error) => report.failure(PLACE, &error),
    }
}

/// Stream and checkpoint cannot be compared, as a start could not.
fn unknown(place: &str, error: resync::Error, report: &mut Findings) {
    let failure = Failure::Resync(error);
    match recovery(&failure).action {
        Action::Pause { remedy } | Action::Hold { remedy } | Action::Halt { remedy } => {
            report.error(place, chain(&failure), remedy);
        }
        _ => report.failure(place, &failure),
    }
}

async fn settled(
    session: &Session,
    nats: &Connection,
    pipeline: &Pipeline,
    shard: &Shard,
    place: &str,
    report: &mut Findings,
) -> Result<(), Error> {
    let mut before = None;
    for _ in 0..LOOKS {
        let Some(claim) = control::claim(session, shard).await? else {
            report.ok(place, "none yet: it starts at the first message that the stream holds");
            return Ok(());
        };
        let at = claim.last_sequence;
        let Some((facts, loss)) = compared(session, nats, pipeline, (shard, &claim), place, report).await?
        else {
            return Ok(());
        };
        // What was dropped after it was read is no loss.
        if before == Some(at) {
            return lost(session, pipeline, shard, (&facts, loss), place, report).await;
        }
        before = Some(at);
    }
    report.ok(place, "a daemon is moving it");
    Ok(())
}

/// The loss that a start would meet; where there is none, that is reported.
async fn compared(
    session: &Session,
    nats: &Connection,
    pipeline: &Pipeline,
    (shard, claim): (&Shard, &Claim),
    place: &str,
    report: &mut Findings,
) -> Result<Option<(StreamFacts, Loss)>, Error> {
    let milestones = milestones::read(&session.client, &shard.name).await.map_err(Error::Milestones)?;
    let stream = jetstream::new(nats.client.clone()).get_stream(&shard.stream).await?;
    let clock = clock::of_server(&nats.client, &shard.stream).await;
    let (facts, verdict) = judge(nats, pipeline, &stream, claim, &milestones, &clock).await?;
    let at = claim.last_sequence;
    match verdict {
        Verdict::Lost(loss) => return Ok(Some((facts, loss))),
        Verdict::Fresh => report.ok(place, format!("none yet: it starts at {}", pipeline.start)),
        Verdict::Intact => report.ok(place, format!("{at}, and the stream holds everything after it")),
        Verdict::Moved(agreement) => report.ok(
            place,
            format!(
                "{at}; the stream was restored or moved, and message {} proves that it is the same stream",
                agreement.proven
            ),
        ),
    }
    Ok(None)
}

/// Says what `jetcopy run` would do about a loss.
async fn lost(
    session: &Session,
    pipeline: &Pipeline,
    shard: &Shard,
    (facts, loss): (&StreamFacts, Loss),
    place: &str,
    report: &mut Findings,
) -> Result<(), Error> {
    let accepted = loss::is_accepted(&session.client, shard, &loss, facts.created_ns).await;
    let accepted = accepted.map_err(control::failed("read jetcopy.losses"))?;
    let continues = pipeline.on_loss == OnLoss::Continue && loss.cause != Cause::Superseded;
    if accepted == Some(true) || continues {
        let why = if continues { "on_loss = \"continue\"" } else { "the loss was accepted" };
        let remedy = format!("nothing to do: `jetcopy run` records it and continues, because {why}");
        report.warn(place, loss.to_string(), remedy);
        return Ok(());
    }
    let failure = Failure::Resync(resync::Error::Loss(loss));
    let Action::Halt { mut remedy } = recovery(&failure).action else { return Ok(()) };
    if accepted.is_none() {
        remedy.push_str("; `jetcopy run` has not reached it yet, and will record it there and halt");
    }
    report.error(place, chain(&failure), remedy);
    Ok(())
}
