//! One ack for everything up to a committed checkpoint.
//!
//! Guarantees: only what is [`Committed`] is acknowledged; with several writers, only what all of them have
//! committed: the last delivery up to the floor of their lanes. It does not promise that an ack arrives: the
//! checkpoint holds without it, and the next ack covers what this one did not.

use std::time::Duration;

use async_nats::Subject;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::checkpoint::Committed;
use crate::kill_point;
use crate::lanes::{Floor, Lanes};
use crate::metrics::PipelineMetrics;

/// An ack only enters the client's queue; when that takes longer, the connection is stuck.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A committed batch and where its ack goes.
#[derive(Debug)]
pub(crate) struct Ack {
    /// Proof of the commit; of a delivery that was committed before, none is needed.
    pub committed: Option<Committed>,
    /// Sequence and reply subject of the last delivery, if there was any.
    pub delivered: Option<(u64, Subject)>,
}

/// Acknowledges until the writers are done, whose lanes stood there at the beginning. Of several waiting acks
/// only the last is sent, since it covers the others.
pub(crate) async fn run(
    client: async_nats::Client,
    mut acks: mpsc::Receiver<Ack>,
    lanes: Lanes,
    metrics: PipelineMetrics,
) {
    let mut floor = Floor::new(lanes);
    while let Some(ack) = acks.recv().await {
        note(&mut floor, ack);
        while let Ok(newer) = acks.try_recv() {
            note(&mut floor, newer);
        }
        let Some((last_sequence, reply)) = floor.reached() else { continue };
        kill_point::reach(kill_point::BEFORE_ACK);
        let sent = timeout(ACK_TIMEOUT, async {
            client.publish(reply, "+ACK".into()).await?;
            Ok::<_, async_nats::Error>(client.flush().await?)
        });
        match sent.await {
            Ok(Ok(())) => tracing::trace!(last_sequence, "acknowledged"),
            Ok(Err(error)) => {
                metrics.ack_failures.inc();
                tracing::debug!(last_sequence, %error, "cannot send the ack; the checkpoint is not affected");
            }
            Err(_) => {
                metrics.ack_failures.inc();
                tracing::debug!(last_sequence, "timed out sending the ack; the checkpoint is not affected");
            }
        }
    }
}

fn note(floor: &mut Floor<Subject>, ack: Ack) {
    if let Some((sequence, reply)) = ack.delivered {
        floor.ends(sequence, reply);
    }
    if let Some(committed) = ack.committed {
        floor.commit(committed.lane(), committed.last_sequence());
    }
}
