//! What becomes of more dead letters than the limits call normal.
//!
//! Guarantees: of what was accepted, a message is used up by the transaction that stores its letters, and by
//! no other; where fewer are accepted than a batch has, the messages before the first that is not are
//! written, in a transaction of their own. When a flood ends the generation, a few of its messages are in
//! `jetcopy.checkpoints.flood`, in a transaction of its own, until the checkpoint moves again; the log and
//! `/status` tell of them without a value of any message.

use std::sync::PoisonError;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::escape::escape_literal;
use serde_json::json;

use super::refused::Poisoned;
use super::window::Flood;
use super::{Error, Writer};
use crate::batch::Batch;
use crate::checkpoint;
use crate::dead_letter::{DeadLetter, storable};
use crate::postgres::simple::within;
use crate::status::reason;

/// Messages of a flood that are shown: enough to see what is wrong with them, few enough to read.
const SAMPLES: usize = 10;

/// Bytes of a payload that are kept of a sample: the message itself is still in the stream.
const PAYLOAD: usize = 8 << 10;

/// A flood that ends the generation.
#[derive(Debug, thiserror::Error)]
#[error("{flood}{}", first(.samples))]
pub(crate) struct Stopped {
    pub flood: Flood,
    pub pipeline: String,
    /// A few of the letters.
    pub samples: Vec<DeadLetter>,
}

/// The first of them, without a value of the message.
fn first(samples: &[DeadLetter]) -> String {
    samples.first().map_or_else(String::new, |letter| {
        let why = reason(letter.kind, letter.sqlstate.as_deref());
        format!("; the first is at sequence {}: {why}", letter.sequence)
    })
}

/// The first of each kind, and then the first of the rest, in their order.
pub(super) fn choose<'l, T, K: PartialEq>(
    letters: &'l [T],
    key: impl Fn(&'l T) -> K,
) -> impl Iterator<Item = &'l T> {
    let mut keys = Vec::new();
    let mut chosen: Vec<usize> = Vec::new();
    for (index, letter) in letters.iter().enumerate() {
        let key = key(letter);
        if keys.len() < SAMPLES && !keys.contains(&key) {
            keys.push(key);
            chosen.push(index);
        }
    }
    for index in 0..letters.len() {
        if chosen.len() >= SAMPLES {
            break;
        }
        if !chosen.contains(&index) {
            chosen.push(index);
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|index| &letters[index])
}

impl Writer {
    /// Whether what is refused by now may be stored: it is normal, or accepted. Where only some of it is
    /// accepted, the part ends before the rest.
    pub(super) fn admit(
        &self,
        batch: &Batch,
        poisoned: &mut Poisoned,
        samples: impl FnOnce(&Poisoned) -> Vec<DeadLetter>,
    ) -> Result<(), Error> {
        let letters = poisoned.counted(batch);
        let mut window = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = window.admit(letters, self.search.letters, Instant::now());
        drop(window);
        let Err(flood) = admitted else { return Ok(()) };
        let accepted = usize::try_from(self.accepted).unwrap_or(usize::MAX);
        if accepted == 0 {
            let samples = samples(poisoned);
            return Err(Error::Flood(Box::new(Stopped { flood, pipeline: self.shard.argument(), samples })));
        }
        poisoned.accepted = true;
        if let Some(&beyond) = poisoned.messages.iter().nth(accepted) {
            poisoned.cut(batch, beyond);
        }
        Ok(())
    }

    /// Lets the log, `/status` and the database tell of a flood. What fails is logged: the flood itself is
    /// what ends the generation.
    pub(super) async fn tell_flood(&self, stopped: &Stopped) {
        for letter in &stopped.samples {
            self.warn(letter, "among the messages that cannot be stored");
        }
        self.status.set_flood(&stopped.samples);
        let samples: Vec<_> = stopped.samples.iter().map(sample).collect();
        let flood = json!({
            "at": jiff::Timestamp::now().to_string(),
            "reason": stopped.to_string(),
            "samples": samples,
        });
        let tables: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let (flood, rules) = (flood.to_string(), rules_sql(&tables));
        let kept = checkpoint::keep_flood(&self.session, &self.shard, self.epoch, &flood, &rules);
        let kept = within(self.step_timeout, "keeping the flood", kept).await;
        if !matches!(kept, Ok(Ok(()))) {
            let error = kept.ok().and_then(Result::err).map(|error| error.to_string());
            tracing::warn!(
                pipeline = self.shard.pipeline,
                error,
                "cannot keep samples of the flood in the database"
            );
        }
    }
}

/// SQL for a text that is another one once columns, constraints or triggers of a table changed, or the
/// domains and functions that they go by. Rows of the catalog are known by the transactions that wrote them,
/// as in `jetcopy.shape()`.
pub(crate) fn rules_sql(tables: &[&str]) -> String {
    let table = |table: &&str| format!("to_regclass({})", escape_literal(table));
    let tables: Vec<String> = tables.iter().map(table).collect();
    format!(
        "(SELECT string_agg(pg_catalog.concat_ws(' ', t.oid::oid, jetcopy.shape(t.oid), \
           (SELECT pg_catalog.concat_ws(' ', 'rules', count(*), sum(r.xmin::text::bigint)) \
           FROM pg_constraint r \
            WHERE r.conrelid = t.oid::oid \
              OR r.contypid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = t.oid::oid)), \
           (SELECT pg_catalog.concat_ws(' ', 'triggers', count(*), sum(g.xmin::text::bigint), \
              sum(p.xmin::text::bigint)) FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid \
            WHERE g.tgrelid = t.oid::oid)), ' ') \
         FROM pg_catalog.unnest(ARRAY[{}]) AS t (oid))",
        tables.join(", ")
    )
}

/// A letter as `jetcopy.flood_samples` shows it.
fn sample(letter: &DeadLetter) -> serde_json::Value {
    let shown = &letter.payload[..letter.payload.len().min(PAYLOAD)];
    json!({
        "sequence": letter.sequence,
        "subject": storable(&letter.subject),
        "kind": letter.kind,
        "sqlstate": letter.sqlstate,
        "message": letter.reason(),
        "table_name": letter.table.as_deref().map(storable),
        "column_name": letter.column.as_deref().map(storable),
        "element": letter.element,
        "payload": STANDARD.encode(shown),
        "payload_bytes": letter.payload.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_among_the_samples_and_the_first_fill_them_up() {
        let letters: Vec<u32> = (0..40).collect();
        let found: Vec<u32> = choose(&letters, |&number| number / 30).copied().collect();
        assert_eq!(found, [0, 1, 2, 3, 4, 5, 6, 7, 8, 30]);
        assert_eq!(choose(&letters[..3], |_| 0).count(), 3);
    }
}
