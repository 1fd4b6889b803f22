//! Where a pipeline without a checkpoint begins.
//!
//! Guarantees: it begins where it began before, should a failover have taken its checkpoint away; of
//! `start = "new"`, the durable's metadata tell where that was.

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::Stream;

use super::{Error, Source};
use crate::approach::Approach;
use crate::config::Start;
use crate::identity;
use crate::leftover::Mark;
use crate::loss::StreamFacts;
use crate::moment::Point;
use crate::nats;
use crate::stored::Opened;

impl Source<'_> {
    /// Notes where the pipeline began, as its durable tells.
    pub(super) fn note_begun(&self, durable: &consumer::Info, approach: &Approach) {
        if self.pipeline.start == Start::New
            && let Some(begun) = Mark::begun(durable)
        {
            approach.begun().get_or_insert(begun);
        }
    }

    /// After which sequence a pipeline begins that has no checkpoint.
    pub(super) async fn start(
        &self,
        nats: &nats::Connection,
        stream: &Stream,
        facts: &StreamFacts,
        approach: &Approach,
    ) -> Result<u64, Error> {
        let (first, last) = (facts.start(), facts.last_sequence);
        let start = match self.pipeline.start {
            Start::All => first,
            Start::New => *approach.begun().get_or_insert(last),
            Start::At(Point::Sequence(sequence)) => sequence - 1,
            Start::At(Point::Time(time)) => {
                let opened = Opened { client: nats.client.clone(), stream: stream.clone() };
                let before_us = time.as_microsecond().saturating_sub(1);
                identity::kept_sequence(&opened, before_us).await.map_err(Error::Compare)?
            }
        };
        let (pipeline, shard, from) = (&self.shard.pipeline, &self.shard.name, self.pipeline.start);
        if start > last {
            tracing::warn!(pipeline, shard, "the stream ends before {from}; beginning with its next message");
        }
        let start = start.clamp(first, last.max(first));
        if start > first && start < last {
            tracing::info!(
                pipeline,
                shard,
                after = start,
                "the pipeline has no checkpoint; beginning at {from}"
            );
        }
        Ok(start)
    }
}
