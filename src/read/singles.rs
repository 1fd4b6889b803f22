//! Messages that were read one by one, before the first delivery.
//!
//! Guarantees: they are taken in order, each once, like deliveries; no ack is theirs.

use std::ops::ControlFlow;

use tokio::sync::mpsc;

use super::{Ended, Error, Reader};
use crate::batch::{Batch, Closed, footprint};
use crate::unreadable::Single;

impl Reader {
    /// Takes what was read one by one; whether there was any.
    pub(super) async fn take_singles(
        &mut self,
        batches: &[mpsc::Sender<Batch>],
        batch: &mut Batch,
        emptied: &mut mpsc::Receiver<Batch>,
    ) -> Result<ControlFlow<Ended, bool>, Error> {
        for single in std::mem::take(&mut self.singles) {
            if single.message.sequence > self.until {
                break;
            }
            if self.route.holds(single.message.sequence) {
                self.skip(batch, single.message.sequence);
                continue;
            }
            let crosses = self.route.crosses(batch, single.message.sequence);
            if !crosses && self.push_single(batch, &single) {
                continue;
            }
            // What is there goes first; then there is room for any.
            let lane = self.route.lane(batch);
            let Ok(permit) = batches[lane].reserve().await else {
                return Ok(ControlFlow::Break(Ended::Stopped));
            };
            if let Some(gap) = self.dropped(batch).await? {
                self.finish(permit, std::mem::replace(batch, Batch::new(self.tables)));
                return Ok(ControlFlow::Break(Ended::Dropped(gap)));
            }
            self.send(permit, batch, emptied, Closed::Bytes);
            self.held.none().await;
            self.push_single(batch, &single);
        }
        Ok(ControlFlow::Continue(!batch.is_empty()))
    }

    /// Adds a message that was read by itself; whether there was room for it.
    fn push_single(&mut self, batch: &mut Batch, single: &Single) -> bool {
        let Single { message, unreadable } = single;
        self.progress.fetched(message.timestamp_ns);
        let room = self.held.room(batch.bytes(), footprint(message));
        let added = room > 0 && self.add(batch, message, room, *unreadable);
        if added {
            batch.reply = None;
        }
        added
    }
}
