//! What must be true after a round.

use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::super::load::{Carried, NOTE, POISON_EVERY, message};
use super::Arena;
use super::messages::NEVER_ROWS;
use crate::support::oracle;

/// Memory that a daemon may ever have held: `max_buffered_bytes` and 64 MiB, and as much again for a build
/// for tests.
const MEMORY_KIB: u64 = 256 * 1024;

impl Arena {
    /// Asks the oracle; how many messages came into the stream since it was asked last.
    pub(in super::super) async fn judge(&mut self, carried: &Carried) -> u64 {
        let world = &self.world;
        // What the client kept while the server was away comes into the stream now.
        world.nats.flush().await.unwrap();
        let [Some(first), Some(second)] = &self.daemons else { panic!("a daemon is missing") };
        assert!(first.is_running() && second.is_running(), "a daemon has ended");
        let id = self.next_id.fetch_add(POISON_EVERY, Ordering::Relaxed);
        let fresh = if id % POISON_EVERY == 0 { id + 1 } else { id };
        oracle(world, first, "events", "events", message(fresh)).await;
        self.acked_are_there(carried).await;
        self.good_messages_are_rows().await;
        self.bad_messages_are_none().await;
        self.rows_say_what_messages_said().await;
        for daemon in [first, second] {
            let peak = daemon.peak_memory_kib();
            assert!(peak <= MEMORY_KIB, "a daemon held {peak} KiB");
            assert!(!daemon.log().contains("panicked"), "a daemon panicked");
        }
        let last = world.last_sequence().await;
        let before = std::mem::replace(&mut self.judged, last);
        self.huge.clear();
        last - before
    }

    /// That what users have in place of the oracle comes to the same verdict; the number of sequences it
    /// found.
    pub(in super::super) fn audit(&self) -> u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        let output =
            command.args(["audit", "events", "--json", "--config"]).arg(&self.config).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{report:#}");
        let count = |name: &str| report["counts"][name].as_u64().unwrap();
        count("committed") + count("dead_letters")
    }

    /// That each message with an ack is where its ack says, with the id it had.
    async fn acked_are_there(&self, carried: &Carried) {
        let acked = carried.acked.iter().chain(&self.huge);
        let (sequences, ids): (Vec<i64>, Vec<i64>) = acked.copied().unzip();
        let sql =
            "SELECT acked.sequence, acked.id FROM unnest($1::int8[], $2::int8[]) AS acked (sequence, id)
                   LEFT JOIN events USING (sequence, id)
                   LEFT JOIN jetcopy.dead_letters AS dead ON dead.sequence = acked.sequence \
                       AND acked.id % $3 = 0
                   WHERE events.sequence IS NULL AND dead.sequence IS NULL LIMIT 10";
        let missing = self.world.database.query(sql, &[&sequences, &ids, &POISON_EVERY]).await.unwrap();
        let missing: Vec<(i64, i64)> = missing.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(missing.is_empty(), "acknowledged by the stream and not stored (sequence, id): {missing:?}");
    }

    /// That no dead letter since the last verdict could have been a row, with or without an ack.
    async fn good_messages_are_rows(&self) {
        let sql =
            "SELECT sequence, subject, payload, kind, message FROM jetcopy.dead_letters WHERE sequence > $1";
        let judged = i64::try_from(self.judged).unwrap();
        let letters = self.world.database.query(sql, &[&judged]).await.unwrap();
        for letter in letters {
            let (sequence, subject): (i64, &str) = (letter.get(0), letter.get(1));
            let payload: Option<&[u8]> = letter.get(2);
            let cut = payload.is_none_or(|payload| rmp_serde::from_slice::<Value>(payload).is_err());
            let never = NEVER_ROWS.iter().any(|topic| subject.contains(&format!(".{topic}")));
            let (kind, why): (&str, &str) = (letter.get(3), letter.get(4));
            assert!(never || cut, "{sequence} on {subject} is good and a dead letter: {kind}: {why}");
        }
    }

    /// That what never was a good message is no row.
    async fn bad_messages_are_none(&self) {
        for topic in NEVER_ROWS {
            let sql = format!("SELECT count(*) FROM events WHERE subject LIKE '%.{topic}%'");
            assert_eq!(self.world.count(&sql).await, 0, "rows of {topic}");
        }
        assert_eq!(self.world.count("SELECT count(*) FROM parts").await, 0, "rows of parts");
    }

    /// That a row has the values of its message, and the default of its time: defaults only rise.
    async fn rows_say_what_messages_said(&self) {
        let sql = format!(
            "SELECT count(*) FROM events WHERE subject NOT LIKE '%.huge' AND rtrim(note) <> '{NOTE}'"
        );
        assert_eq!(self.world.count(&sql).await, 0, "rows with another note than their message");
        let sql = "SELECT sequence FROM (SELECT sequence, tag, lag(tag) OVER (ORDER BY sequence) AS before \
            FROM events) AS tags
                   WHERE tag < before ORDER BY 1 LIMIT 1";
        let early = self.world.database.query_opt(sql, &[]).await.unwrap();
        let early: Option<i64> = early.map(|row| row.get(0));
        assert_eq!(early, None, "a row has the default of an earlier time");
    }
}
