//! One ack for everything up to a committed checkpoint.
//!
//! Guarantees: only what is [`Committed`] is acknowledged. It does not promise that an ack arrives: the
//! checkpoint holds without it, and the next ack covers what this one did not.

use std::time::Duration;

use async_nats::Subject;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::checkpoint::Committed;
use crate::kill_point;
use crate::metrics::PipelineMetrics;

/// An ack only enters the client's queue; when that takes longer, the connection is stuck.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A committed batch and where its ack goes.
#[derive(Debug)]
pub(crate) struct Ack {
    /// Proof of the commit.
    pub committed: Committed,
    /// Reply subject of the batch's last message.
    pub reply: Subject,
}

/// Acknowledges until the writer is done. Of several waiting acks only the last is sent, since it covers the
/// others.
pub(crate) async fn run(client: async_nats::Client, mut acks: mpsc::Receiver<Ack>, metrics: PipelineMetrics) {
    while let Some(mut ack) = acks.recv().await {
        while let Ok(newer) = acks.try_recv() {
            ack = newer;
        }
        let last_sequence = ack.committed.last_sequence();
        kill_point::reach(kill_point::BEFORE_ACK);
        let sent = timeout(ACK_TIMEOUT, async {
            client.publish(ack.reply, "+ACK".into()).await?;
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
