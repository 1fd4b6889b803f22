//! How reading ends: what was taken is sent, as far as it was checked.
//!
//! Guarantees: nothing after a gap that is in doubt is sent, and every lane moves past what it lacks nothing
//! of, so that the floor is where reading ended.

use tokio::sync::mpsc;

use super::{Ended, Error, Reader};
use crate::batch::{Batch, Gap};
use crate::subscribe;

impl Reader {
    /// Sends the last batch, at whose end reading was `cut` off, or before a gap of `dropped` messages.
    pub(super) async fn end(
        mut self,
        batches: &[mpsc::Sender<Batch>],
        mut batch: Batch,
        cut: Option<subscribe::Error>,
        dropped: Option<Gap>,
    ) -> Result<Ended, Error> {
        // A writer that is gone has said why; what was not written is replayed.
        let lane = self.route.lane(&batch);
        let Ok(permit) = batches[lane].reserve().await else { return Ok(Ended::Stopped) };
        let settled = self.is_settled();
        let ended = if let Some(error) = cut {
            self.settle_doubts(&mut batch).await;
            Ended::Cut(error)
        } else {
            let gap = match dropped {
                Some(gap) => Some(gap),
                None => self.dropped(&mut batch).await?,
            };
            match gap {
                Some(gap) => Ended::Dropped(gap),
                None if settled => Ended::Settled,
                None => Ended::Stopped,
            }
        };
        self.finish(permit, batch);
        if let Ended::Stopped | Ended::Settled = ended {
            // All of it was checked.
            self.route.pass(self.last_sequence, 0);
        }
        for (lane, moved) in self.route.moves().collect::<Vec<_>>() {
            let Ok(permit) = batches[lane].reserve().await else { return Ok(Ended::Stopped) };
            permit.send(Batch::moving(moved));
        }
        Ok(ended)
    }

    /// Asks about the gaps of the last batch, if there is anybody to ask: what follows one that is in doubt
    /// is read again.
    async fn settle_doubts(&mut self, batch: &mut Batch) {
        if !self.questions.is_broken() {
            let broken = self.questions.broken();
            tokio::select! {
                // An error leaves the doubt.
                _ = self.dropped(batch) => {}
                _ = broken => {}
            }
        }
        if let Some(doubt) = batch.first_doubt() {
            batch.truncate_at(doubt);
        }
    }
}
