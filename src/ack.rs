//! One ack for everything up to a committed checkpoint.
//!
//! Guarantees: only what is [`Committed`] is acknowledged; with several writers, only what all of them have
//! committed: the last delivery up to the floor of their lanes. It does not promise that each ack arrives:
//! the checkpoint holds without it, and the next ack covers what this one did not. Where no next one follows
//! soon, the server is asked to confirm the last.

use std::time::Duration;

use async_nats::Subject;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::checkpoint::Committed;
use crate::kill_point;
use crate::lanes::{Floor, Lanes};
use crate::metrics::PipelineMetrics;

/// What an ack says.
const ACK: &str = "+ACK";

/// An ack only enters the client's queue; when that takes longer, the connection is stuck.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after an ack no other may follow before it is sent again, to be confirmed; each time it is not,
/// it is sent again after twice as long, up to the second.
const QUIET: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// How long a confirmation may take.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

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
    let mut unconfirmed = None;
    loop {
        let ack = match &mut unconfirmed {
            None => acks.recv().await,
            // The writers wait for room in the channel: the next ack ends the wait for a confirmation.
            Some(sent) => tokio::select! {
                biased;
                ack = acks.recv() => ack,
                confirmed = confirm(&client, sent) => {
                    if confirmed {
                        unconfirmed = None;
                    }
                    continue;
                }
            },
        };
        let Some(ack) = ack else { return };
        note(&mut floor, ack);
        while let Ok(newer) = acks.try_recv() {
            note(&mut floor, newer);
        }
        let Some((last_sequence, reply)) = floor.reached() else { continue };
        kill_point::reach(kill_point::BEFORE_ACK);
        let sent = timeout(ACK_TIMEOUT, async {
            client.publish(reply.clone(), ACK.into()).await?;
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
        unconfirmed = Some(Sent { last_sequence, reply, after: QUIET[0] });
    }
}

/// An ack of which it is not known whether it arrived.
struct Sent {
    last_sequence: u64,
    reply: Subject,
    /// When it is sent again.
    after: Duration,
}

/// Sends an ack again; whether the server has it now. A durable without a leader confirms nothing, and of one
/// that is gone the subscription knows.
async fn confirm(client: &async_nats::Client, sent: &mut Sent) -> bool {
    sleep(sent.after).await;
    sent.after = (2 * sent.after).min(QUIET[1]);
    let confirmed = timeout(CONFIRMED_WITHIN, client.request(sent.reply.clone(), ACK.into())).await;
    let confirmed = matches!(confirmed, Ok(Ok(_)));
    tracing::trace!(last_sequence = sent.last_sequence, confirmed, "asked for the ack to be confirmed");
    confirmed
}

fn note(floor: &mut Floor<Subject>, ack: Ack) {
    if let Some((sequence, reply)) = ack.delivered {
        floor.ends(sequence, reply);
    }
    if let Some(committed) = ack.committed {
        floor.commit(committed.lane(), committed.last_sequence());
    }
}
