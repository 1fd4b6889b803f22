//! What the stream still holds of what the checkpoint needs.
//!
//! Guarantees: nothing is changed by asking.

use async_nats::jetstream::stream::Stream;

use super::Error;
use crate::checkpoint::Claim;
use crate::clock::Clock;
use crate::config::{self, OnSuperseded};
use crate::identity;
use crate::loss::{StreamFacts, Thins, Verdict, compare};
use crate::milestones::Milestone;
use crate::nats::{self, Denial};
use crate::stored::{self, Seen};
use crate::superseded;

/// Compares stream and checkpoint, which changes neither.
pub(crate) async fn judge(
    nats: &nats::Connection,
    pipeline: &config::Pipeline,
    stream: &Stream,
    claim: &Claim,
    milestones: &[Milestone],
    clock: &Clock,
) -> Result<(StreamFacts, Verdict), Error> {
    let facts = identity::facts(nats, stream, claim, milestones).await.map_err(Error::Compare)?;
    let mut facts = StreamFacts { narrow: !pipeline.subjects.is_empty(), ..facts };
    let config = &stream.cached_info().config;
    if superseded::thins(config) || superseded::skips(config, claim.since_us.is_some()) {
        facts.thins = Some(thinned(nats, pipeline, stream, claim, clock).await?);
    }
    let verdict = compare(claim, &facts);
    Ok((facts, verdict))
}

/// What a stream that thins itself, or lacks sequences that it never held, has dropped after the checkpoint.
async fn thinned(
    nats: &nats::Connection,
    pipeline: &config::Pipeline,
    stream: &Stream,
    claim: &Claim,
    clock: &Clock,
) -> Result<Thins, Error> {
    let info = stream.cached_info();
    let (checkpoint, state) = (claim.last_sequence, &info.state);
    let by_limits = superseded::dropped_by_limits(info, claim.since_us, &clock.read());
    let halts = superseded::thins(&info.config) && pipeline.superseded() == OnSuperseded::Halt;
    if !halts || state.last_sequence <= checkpoint {
        return Ok(Thins { by_limits, halts_before: None });
    }
    // Others' messages leave jumps too.
    let mut last = state.first_sequence.saturating_sub(1);
    if superseded::reads_all(&pipeline.subjects, &info.config) {
        let next = tokio::select! {
            next = stored::first::<Seen>(&nats.client, &info.config.name, checkpoint + 1, &[]) => next?,
            denial = nats.denied(Denial::about_single) => return Err(Error::Denied(denial)),
        };
        last = next.map_or(state.last_sequence, |next| next.sequence - 1);
    }
    Ok(Thins { by_limits, halts_before: (last > checkpoint).then_some(last) })
}
