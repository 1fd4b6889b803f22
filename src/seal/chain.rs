//! The seals of a shard as they lie in the table, followed from the first to the open one of each chain.
//!
//! Guarantees: each hash is made again from the fields that were read, without a function of the database; a
//! seal that was altered, added or taken away is a [`Fault`], unless all after it were made anew, in each
//! chain that a change of the number of writers ties to its own. What of it stands, [`super::story`] says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::story::{Event, Story};
use crate::lanes::Layout;

/// What a hash is over but for the hash before, a line each, as `jetcopy.seal_text()` has it.
const TEXT: &str = "pg_catalog.concat_ws(E'\\n', shard, lane, number, kind, stream, \
    coalesce((extract(epoch FROM stream_created) * 1000000::numeric)::bigint::text, '-'), \
    from_sequence, to_sequence, \
    coalesce((extract(epoch FROM first_stored_at) * 1000000::numeric)::bigint::text, '-'), \
    coalesce((extract(epoch FROM last_stored_at) * 1000000::numeric)::bigint::text, '-'), \
    messages, letters, superseded, tables::text, rows::text, unstored::text, \
    coalesce(pg_catalog.encode(digest, 'hex'), '-'), epoch, \
    (extract(epoch FROM sealed_at) * 1000000::numeric)::bigint, lanes, block)";

/// Which sequences of a stretch are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Share {
    /// Whose chain it is.
    pub(crate) lane: u64,
    /// How many lanes there are, and how many sequences in a row are of the same; `None` where there is one
    /// writer, who has all.
    pub(crate) of: Option<(u64, u64)>,
}

/// A stretch of the stream that was committed, and what the ledger says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The number of its seal.
    pub(crate) number: u64,
    pub(crate) share: Share,
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

/// A seal as it lies in the table.
#[derive(Debug)]
struct Seal {
    kind: String,
    stretch: Stretch,
    epoch: i64,
    text: String,
    hash: Vec<u8>,
}

/// What the row of a lane, or of the checkpoint, says of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Point {
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
    /// It is of other writers than the one before said.
    Shared,
    /// It leaves out what is its lane's.
    Left,
    /// At a change of the number of writers, other chains do not end as it says.
    Ends,
    /// The checkpoint goes on from another last seal.
    Last,
}

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) lane: u64,
    pub(crate) number: u64,
    pub(crate) at: u64,
    pub(crate) hash: Option<Vec<u8>>,
    /// Whose lane it is from there on: `None` where that is nobody's.
    share: Option<Share>,
    /// When: the claim, and how many times the writers have changed under it.
    when: (i64, u64),
}

/// The seal of a change of the number of writers.
#[derive(Debug)]
struct Change {
    lane: u64,
    number: u64,
    of: Option<(u64, u64)>,
    to: u64,
    hash: Vec<u8>,
    digest: Option<Vec<u8>>,
}

/// The seals that were followed so far.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// How many.
    pub(crate) seals: u64,
    /// Of each chain, in the order of lanes.
    pub(crate) ends: Vec<End>,
    /// Lane and number of a seal, and what is wrong about it.
    pub(crate) faults: Vec<(u64, u64, Fault)>,
    events: Vec<Event>,
    changes: BTreeMap<(i64, u64), Vec<Change>>,
}

impl Share {
    fn layout(self) -> Layout {
        self.of.map_or(Layout::SINGLE, |(lanes, block)| {
            Layout::new(usize::try_from(lanes).unwrap_or(usize::MAX), block)
        })
    }

    fn lane(self) -> usize {
        usize::try_from(self.lane).unwrap_or(usize::MAX)
    }

    /// Whether a sequence is among them.
    #[must_use]
    pub(crate) fn holds(self, sequence: u64) -> bool {
        self.of.is_none() || self.layout().lane_of(sequence) == self.lane()
    }

    /// Whether one after `from`, up to `to`, is.
    fn has_between(self, from: u64, to: u64) -> bool {
        let layout = self.layout();
        layout.complete_to(self.lane() % layout.lanes, from) < to
    }

    /// The writer who goes on with the chain, where there is one.
    fn after(lane: u64, of: Option<(u64, u64)>) -> Option<Self> {
        let is_used = of.map_or(lane == 0, |(lanes, _)| lane < lanes);
        is_used.then_some(Self { lane, of })
    }
}

impl Stretch {
    /// Whether a sequence is of it.
    #[must_use]
    pub(crate) fn holds(&self, sequence: u64) -> bool {
        (self.from..=self.to).contains(&sequence) && self.share.holds(sequence)
    }
}

impl End {
    fn new(lane: u64) -> Self {
        // The first chain is that of one writer, until it says otherwise.
        let share = (lane == 0).then_some(Share::default());
        Self { lane, number: 0, at: 0, hash: None, share, when: (0, 0) }
    }
}

impl Chains {
    /// Reads and follows the seals of a shard.
    pub(crate) async fn read(client: &Client, shard: &str) -> Result<Self, Error> {
        let sql = format!(
            "SELECT number, kind, from_sequence, to_sequence, \
               (extract(epoch FROM first_stored_at) * 1000000::numeric)::bigint, messages, letters, \
               superseded, tables, rows, unstored, digest, {TEXT}, hash, lane, lanes, block, epoch \
             FROM jetcopy.seals WHERE shard = $1 ORDER BY lane, number"
        );
        let mut rows = pin!(client.query_typed_raw(&sql, [(shard, Type::TEXT)]).await?);
        let mut chains = Self::default();
        while let Some(row) = rows.try_next().await? {
            chains.follow(seal(&row)?);
        }
        Ok(chains)
    }

    fn follow(&mut self, seal: Seal) {
        let Seal { kind, stretch, epoch, text, hash } = seal;
        let Stretch { number, share, from, to, .. } = stretch;
        if self.ends.last().is_none_or(|end| end.lane != share.lane) {
            self.ends.push(End::new(share.lane));
        }
        let Some(end) = self.ends.last_mut() else { return };
        let (is_move, changes) = (kind != "committed", kind == "lanes");
        let left = || end.share.is_some_and(|share| share.has_between(end.at, to));
        let fault = if number != end.number + 1 {
            Some(Fault::Missing)
        } else if from != end.at + u64::from(!is_move) {
            Some(Fault::Apart)
        } else if hash != hash_of(&text, end.hash.as_deref()) {
            Some(Fault::Altered)
        } else if !is_move && end.share != Some(share) {
            Some(Fault::Shared)
        } else if changes && left() {
            Some(Fault::Left)
        } else {
            None
        };
        self.faults.extend(fault.map(|fault| (share.lane, number, fault)));
        let before = end.when;
        end.when = if epoch > before.0 { (epoch, 0) } else { before };
        end.when.1 += u64::from(changes);
        if is_move {
            end.share = Share::after(share.lane, share.of);
        }
        if changes {
            let (lane, of, digest) = (share.lane, share.of, stretch.digest.clone());
            let change = Change { lane, number, of, to, hash: hash.clone(), digest };
            self.changes.entry(end.when).or_default().push(change);
        }
        (end.number, end.at, end.hash) = (number, to, Some(hash));
        self.seals += 1;
        self.events.push(Event { when: end.when, moved: is_move.then_some(kind), stretch });
    }

    /// Follows the chains to the rows that go on from them, and tells what came of it.
    pub(crate) fn end(&mut self, points: &[Point]) -> Story {
        for changes in std::mem::take(&mut self.changes).into_values() {
            self.tie(&changes);
        }
        for end in &self.ends {
            let goes_on = points.iter().any(|point| Some(point.open.share) == end.share);
            if !goes_on && end.share.is_some() {
                self.faults.push((end.lane, end.number, Fault::Last));
            }
        }
        for point in points {
            let lane = point.open.share.lane;
            let end = self.ends.iter().find(|end| end.lane == lane);
            let known = end.map_or((0, None, 0), |end| (end.number, end.hash.clone(), end.at));
            let is_known = known == (point.number, point.hash.clone(), point.after);
            if !is_known && !self.faults.contains(&(lane, known.0, Fault::Last)) {
                self.faults.push((lane, point.number, Fault::Last));
            }
        }
        Story::tell(std::mem::take(&mut self.events), points)
    }

    /// Looks whether the seal of a change in the first chain stands for those in the others.
    fn tie(&mut self, changes: &[Change]) {
        let Some((first, others)) = changes.split_first() else { return };
        let ends: Vec<u8> = others.iter().flat_map(|other| &other.hash).copied().collect();
        let in_a_row = (0..).zip(changes).all(|(lane, change)| change.lane == lane);
        let alike = others.iter().all(|other| (other.of, other.to) == (first.of, first.to));
        if !in_a_row || !alike || first.digest != Some(Sha256::digest(ends).to_vec()) {
            self.faults.push((first.lane, first.number, Fault::Ends));
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
             AND moved.to_sequence < moved.from_sequence AND moved.to_sequence < {sequence} \
             AND (moved.lanes IS NULL OR moved.kind = 'lanes' \
               OR ({sequence} - 1) / moved.block % moved.lanes::bigint = moved.lane::bigint)))"
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
            share: share(row, 14)?,
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
        epoch: row.try_get(17)?,
    })
}

/// Lane, lanes and block of a row, from `column` on.
pub(crate) fn share(row: &Row, column: usize) -> Result<Share, Error> {
    let lane: i32 = row.try_get(column)?;
    let of: (Option<i32>, Option<i64>) = (row.try_get(column + 1)?, row.try_get(column + 2)?);
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let of = of.0.zip(of.1).map(|(lanes, block)| (number(lanes.into()), number(block)));
    Ok(Share { lane: number(lane.into()), of })
}

#[cfg(test)]
mod tests;
