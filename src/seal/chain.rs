//! The seals of a shard as they lie in the table, followed from the first to the open one.
//!
//! Guarantees: each hash is made again from the fields that were read, without a function of the database; a
//! seal that was altered, added or taken away is a [`Fault`], unless all after it were made anew. What was
//! written again since, after a move back, is left out of [`Chain::stretches`].

use std::fmt::Write as _;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

/// What a hash is over but for the hash before, a line each, as `jetcopy.seal_text()` has it.
const TEXT: &str = "pg_catalog.concat_ws(E'\\n', shard, lane, number, kind, stream, \
    coalesce((extract(epoch FROM stream_created) * 1000000::numeric)::bigint::text, '-'), \
    from_sequence, to_sequence, \
    coalesce((extract(epoch FROM first_stored_at) * 1000000::numeric)::bigint::text, '-'), \
    coalesce((extract(epoch FROM last_stored_at) * 1000000::numeric)::bigint::text, '-'), \
    messages, letters, superseded, tables::text, rows::text, unstored::text, \
    coalesce(pg_catalog.encode(digest, 'hex'), '-'), epoch, \
    (extract(epoch FROM sealed_at) * 1000000::numeric)::bigint, lanes, block)";

/// A stretch of the stream that was committed, and what the ledger says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The number of its seal.
    pub(crate) number: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When the stream stored its first message, in microseconds since the Unix epoch.
    pub(crate) first_at_us: Option<i64>,
    pub(crate) messages: u64,
    pub(crate) letters: u64,
    pub(crate) superseded: u64,
    /// The tables, and how many rows each has stored; several entries may fill one.
    pub(crate) rows: Vec<(String, u64)>,
    pub(crate) digest: Option<Vec<u8>>,
}

/// A move of the checkpoint without commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) kind: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A seal as it lies in the table.
#[derive(Debug)]
struct Seal {
    kind: String,
    stretch: Stretch,
    text: String,
    hash: Vec<u8>,
}

/// What the checkpoint's row says of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// Whether there are several writers.
    pub(crate) several: bool,
    pub(crate) last_sequence: u64,
    /// The last seal, and its hash.
    pub(crate) number: u64,
    pub(crate) hash: Option<Vec<u8>>,
    /// Where it ends.
    pub(crate) after: u64,
    /// The open seal.
    pub(crate) open: Stretch,
}

/// What is wrong about a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its hash is not that of its fields and of the seal before.
    Altered,
    /// The one before it is not there.
    Missing,
    /// It does not begin where the one before ended.
    Apart,
    /// The checkpoint goes on from another last seal.
    Last,
}

/// The seals that were followed so far.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// How many.
    pub(crate) seals: u64,
    /// After which sequence the ledger begins, or begins anew.
    pub(crate) begins_after: u64,
    pub(crate) hash: Option<Vec<u8>>,
    pub(crate) faults: Vec<(u64, Fault)>,
    /// Stretches that were not written again since, in the order of the stream.
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) moves: Vec<Move>,
    number: u64,
    at: u64,
}

impl Chain {
    /// Reads and follows the seals of a shard.
    pub(crate) async fn read(client: &Client, shard: &str) -> Result<Self, Error> {
        let sql = format!(
            "SELECT number, kind, from_sequence, to_sequence, \
               (extract(epoch FROM first_stored_at) * 1000000::numeric)::bigint, messages, letters, \
               superseded, tables, rows, unstored, digest, {TEXT}, hash \
             FROM jetcopy.seals WHERE shard = $1 AND lane = 0 ORDER BY number"
        );
        let mut rows = pin!(client.query_typed_raw(&sql, [(shard, Type::TEXT)]).await?);
        let mut chain = Self::default();
        while let Some(row) = rows.try_next().await? {
            chain.follow(seal(&row)?);
        }
        Ok(chain)
    }

    fn follow(&mut self, seal: Seal) {
        let Seal { kind, stretch, text, hash } = seal;
        let is_move = kind != "committed";
        let (number, begins) = (stretch.number, self.at + u64::from(!is_move));
        if number != self.number + 1 {
            self.faults.push((number, Fault::Missing));
        } else if stretch.from != begins {
            self.faults.push((number, Fault::Apart));
        } else if hash != hash_of(&text, self.hash.as_deref()) {
            self.faults.push((number, Fault::Altered));
        }
        (self.number, self.at, self.hash) = (number, stretch.to, Some(hash));
        self.seals += 1;
        if is_move {
            match kind.as_str() {
                "begun" | "rebuilt" => {
                    self.begins_after = stretch.to;
                    self.stretches.clear();
                }
                _ => {}
            }
            while self.stretches.last().is_some_and(|last| last.to > stretch.to) {
                self.stretches.pop();
            }
            self.moves.push(Move { kind, from: stretch.from, to: stretch.to });
        } else {
            self.stretches.push(stretch);
        }
    }

    /// Follows the chain to the checkpoint.
    pub(crate) fn end(&mut self, point: &Point) {
        if (self.number, &self.hash, self.at) != (point.number, &point.hash, point.after) {
            self.faults.push((point.number, Fault::Last));
        }
        let open = &point.open;
        if point.last_sequence != open.to {
            self.moves.push(Move { kind: "moved".to_owned(), from: open.to, to: point.last_sequence });
        }
        if open.messages > 0 {
            self.stretches.push(open.clone());
        }
        while self.stretches.last().is_some_and(|last| last.to > point.last_sequence) {
            self.stretches.pop();
        }
    }
}

/// SQL that says whether what was settled at the time `at` about a message was before its sequence was left
/// behind: the message came again, or what was known of it was replaced.
#[must_use]
pub(crate) fn is_past_sql(shard: &str, sequence: &str, at: &str) -> String {
    format!(
        "EXISTS (SELECT FROM jetcopy.seals moved WHERE moved.shard = {shard} AND moved.sealed_at > {at} \
           AND (moved.kind = 'rebuilt' OR moved.kind <> 'committed' \
             AND moved.to_sequence < moved.from_sequence AND moved.to_sequence < {sequence}))"
    )
}

fn hash_of(text: &str, before: Option<&[u8]>) -> Vec<u8> {
    let before = before.map_or_else(|| "-".to_owned(), hex);
    Sha256::digest(format!("{text}\n{before}")).to_vec()
}

/// Bytes in hexadecimal digits.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the tables have stored.
#[must_use]
pub(crate) fn stored(tables: Vec<String>, rows: &[i64], unstored: &[i64]) -> Vec<(String, u64)> {
    let unstored = unstored.iter().copied().chain(std::iter::repeat(0));
    let rows = rows.iter().zip(unstored).map(|(rows, unstored)| u64::try_from(rows - unstored).unwrap_or(0));
    tables.into_iter().zip(rows).collect()
}

fn seal(row: &Row) -> Result<Seal, Error> {
    let number = |column| row.try_get(column).map(|value: i64| u64::try_from(value).unwrap_or(0));
    let (rows, unstored): (Vec<i64>, Vec<i64>) = (row.try_get(9)?, row.try_get(10)?);
    Ok(Seal {
        kind: row.try_get(1)?,
        stretch: Stretch {
            number: number(0)?,
            from: number(2)?,
            to: number(3)?,
            first_at_us: row.try_get(4)?,
            messages: number(5)?,
            letters: number(6)?,
            superseded: number(7)?,
            rows: stored(row.try_get(8)?, &rows, &unstored),
            digest: row.try_get(11)?,
        },
        text: row.try_get(12)?,
        hash: row.try_get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(number: u64, from: u64, to: u64) -> Stretch {
        let (first_at_us, messages, letters, superseded) = (None, to - from + 1, 0, 0);
        Stretch { number, from, to, first_at_us, messages, letters, superseded, rows: vec![], digest: None }
    }

    /// Seals of these kinds, which follow one another.
    fn chain(seals: &[(&str, u64, u64)]) -> Chain {
        let mut chain = Chain::default();
        for (number, &(kind, from, to)) in (1..).zip(seals) {
            let text = format!("{number} {kind} {from} {to}");
            let hash = hash_of(&text, chain.hash.as_deref());
            let stretch =
                if kind == "committed" { stretch(number, from, to) } else { moved(number, from, to) };
            chain.follow(Seal { kind: kind.to_owned(), stretch, text, hash });
        }
        chain
    }

    fn moved(number: u64, from: u64, to: u64) -> Stretch {
        Stretch { from, to, messages: 0, ..stretch(number, 1, 1) }
    }

    fn point(chain: &Chain, last_sequence: u64, open: Stretch) -> Point {
        Point {
            several: false,
            last_sequence,
            number: chain.number,
            hash: chain.hash.clone(),
            after: chain.at,
            open,
        }
    }

    #[test]
    fn what_was_written_again_after_a_rewind_counts_once() {
        let mut chain = chain(&[
            ("begun", 0, 10),
            ("committed", 11, 20),
            ("committed", 21, 40),
            ("rewound", 40, 25),
            ("committed", 26, 50),
        ]);
        let point = point(&chain, 60, stretch(6, 51, 60));
        chain.end(&point);
        assert_eq!(chain.faults, []);
        let left: Vec<_> = chain.stretches.iter().map(|stretch| (stretch.from, stretch.to)).collect();
        assert_eq!((chain.begins_after, left), (10, vec![(11, 20), (26, 50), (51, 60)]));
    }

    #[test]
    fn a_rebuilt_table_begins_the_ledger_anew() {
        let chain = chain(&[("committed", 1, 20), ("rebuilt", 20, 20), ("committed", 21, 30)]);
        assert_eq!((chain.begins_after, chain.stretches.len(), chain.faults.len()), (20, 1, 0));
    }

    #[test]
    fn a_checkpoint_that_goes_on_from_another_seal_is_a_fault() {
        let mut chain = chain(&[("committed", 1, 20)]);
        let mut point = point(&chain, 20, moved(2, 21, 20));
        point.number = 2;
        chain.end(&point);
        assert_eq!(chain.faults, [(2, Fault::Last)]);
    }

    #[test]
    fn a_seal_that_is_missing_or_begins_elsewhere_is_a_fault() {
        assert_eq!(chain(&[("committed", 1, 20), ("committed", 22, 30)]).faults, [(2, Fault::Apart)]);
        let mut chain = Chain::default();
        let text = "2";
        let hash = hash_of(text, None);
        let (kind, text) = ("committed".to_owned(), text.to_owned());
        chain.follow(Seal { kind, stretch: stretch(2, 1, 3), text, hash });
        assert_eq!(chain.faults, [(2, Fault::Missing)]);
    }
}
