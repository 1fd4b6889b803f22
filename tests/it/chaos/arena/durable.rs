//! What people and programs do to the durable.
//!
//! Nothing of it needs to succeed: the daemon may make the durable anew at any moment, and NATS may be away.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, FromConsumer as _, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt as _;

use super::super::fault::DurableFault;
use super::Arena;

const DURABLE: &str = "jetcopy-events";

/// How long one of these things may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Messages that a second client takes at most, and how long it waits for them.
const TAKEN: usize = 500;
const TAKES: Duration = Duration::from_millis(300);

/// Messages that wait for their acks in a durable that has no number of its own from this test.
const MAX_ACK_PENDING: i64 = 10_000;

/// How long the server waits for an ack until it delivers again, as jetcopy sets it.
const ACK_WAIT: Duration = Duration::from_hours(7 * 24);

impl Arena {
    pub(super) async fn begin_durable(&mut self, fault: DurableFault) {
        match fault {
            DurableFault::Delete => {
                self.with_stream(
                    |stream| async move { stream.delete_consumer(DURABLE).await.ok().map(drop) },
                )
                .await;
            }
            DurableFault::Filter => {
                let filter = format!("{}.load.even", self.world.stream);
                self.edit(|config| config.filter_subject = filter).await;
            }
            DurableFault::HeadersOnly => self.edit(|config| config.headers_only = true).await,
            DurableFault::MaxAckPending(count) => {
                self.edit(|config| config.max_ack_pending = count.into()).await;
            }
            DurableFault::AckWait => self.edit(|config| config.ack_wait = Duration::from_millis(1)).await,
            DurableFault::Reset(ahead) => {
                let to = self.world.checkpoint("events").await + u64::from(ahead);
                self.with_stream(|stream| async move {
                    let last = stream.cached_info().state.last_sequence;
                    stream.reset_consumer(DURABLE, Some(to.min(last))).await.ok().map(drop)
                })
                .await;
            }
            DurableFault::SecondPuller => self.take().await,
        }
    }

    pub(super) async fn end_durable(&mut self, fault: DurableFault) {
        match fault {
            DurableFault::Filter => self.edit(|config| config.filter_subject = String::new()).await,
            DurableFault::HeadersOnly => self.edit(|config| config.headers_only = false).await,
            DurableFault::MaxAckPending(_) => {
                self.edit(|config| config.max_ack_pending = MAX_ACK_PENDING).await;
            }
            DurableFault::AckWait => self.edit(|config| config.ack_wait = ACK_WAIT).await,
            DurableFault::SecondPuller => {
                // By now they are of an earlier generation.
                for message in self.taken.drain(..) {
                    let _ = message.ack().await;
                }
            }
            DurableFault::Delete | DurableFault::Reset(_) => {}
        }
    }

    async fn edit(&self, edit: impl FnOnce(&mut pull::Config)) {
        self.with_stream(|stream| async move {
            let durable: Consumer<pull::Config> = stream.get_consumer(DURABLE).await.ok()?;
            let config = durable.cached_info().config.clone();
            let mut config = pull::Config::try_from_consumer_config(config).ok()?;
            edit(&mut config);
            stream.update_consumer(config).await.ok().map(drop)
        })
        .await;
    }

    /// Takes what another client of the durable gets.
    async fn take(&mut self) {
        let mut taken = Vec::new();
        self.with_stream(|stream| {
            let taken = &mut taken;
            async move {
                let durable: Consumer<pull::Config> = stream.get_consumer(DURABLE).await.ok()?;
                let batch = durable.batch().max_messages(TAKEN).expires(TAKES);
                let mut messages = batch.messages().await.ok()?;
                while let Some(Ok(message)) = messages.next().await {
                    taken.push(message);
                }
                Some(())
            }
        })
        .await;
        println!("             a second client took {} messages", taken.len());
        self.taken.extend(taken);
    }

    async fn with_stream<F: Future<Output = Option<()>>>(&self, act: impl FnOnce(Stream) -> F) {
        let acting = async { act(self.world.jetstream.get_stream(&self.world.stream).await.ok()?).await };
        if !matches!(tokio::time::timeout(PATIENCE, acting).await, Ok(Some(()))) {
            println!("             it did not come off");
        }
    }
}
