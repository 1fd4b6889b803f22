//! What an audit found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::seal::{End, Move, Share, hex};
use crate::shard::Shard;

/// Differences that are kept; the first ones tell the pattern.
pub(super) const KEPT: usize = 20;

/// What an audit found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub pipeline: String,
    pub stream: String,
    /// First sequence that was looked at.
    pub from: u64,
    /// Last one: the checkpoint.
    pub checkpoint: u64,
    /// How it was proven.
    pub method: Method,
    /// Where the sequences are.
    pub counts: Counts,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them.
    pub first_differences: Vec<Difference>,
    /// What the rows of tables were compared with.
    pub compared: Vec<Compared>,
    /// What the ledger says.
    pub ledger: Option<Sealed>,
    /// What could not be proven, and why.
    pub not_proven: Vec<String>,
}

/// What seals and the open seal say, without what was written again since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sealed {
    /// It knows nothing of what comes before.
    pub begins_after: u64,
    pub seals: u64,
    /// Where the last seal ends; what comes after is in the open one.
    pub ends_at: u64,
    /// The hash of the last seal, which stands for all before; none where there are several chains.
    pub hash: Option<String>,
    /// Where the chain of each of several writers ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writers: Vec<WriterEnd>,
    pub messages: u64,
    /// Dead letters that were stored.
    pub letters: u64,
    /// Messages that the stream had removed before they were read.
    pub superseded: u64,
    /// Rows that were stored, by table.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters that a person has discarded.
    pub discarded: u64,
    /// Dead letters that have become rows, which are not among `rows`.
    pub retried: u64,
    /// The last moves of the checkpoint without commits.
    pub moves: Vec<SealMove>,
    /// Stretches whose rows were counted in a table.
    pub counted: u64,
    /// Stretches whose digest was made again from the stream.
    pub digests: u64,
    /// The messages of these.
    pub digested_messages: u64,
    /// Stretches of which the stream does not hold as many messages any more.
    pub undigested: u64,
}

/// A move of the checkpoint without commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SealMove {
    /// `begun`, `lost`, `recreated`, `rewound`, `rebuilt` or `moved`.
    pub kind: String,
    pub from: u64,
    pub to: u64,
    /// Whose, where it was not all of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl SealMove {
    pub(super) fn of(moved: &Move) -> Self {
        let Move { kind, share, from, to } = moved.clone();
        Self { kind, from, to, part: Part::of(share) }
    }
}

/// Which sequences are meant, of several writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    /// Which one, from 0.
    pub writer: u64,
    /// How many there are.
    pub writers: u64,
    /// How many sequences in a row are of the same.
    pub block: u64,
}

impl Part {
    pub(super) fn of(share: Share) -> Option<Self> {
        share.of.map(|(writers, block)| Self { writer: share.lane, writers, block })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " of writer {} of {}", self.writer, self.writers)
    }
}

/// Where the seals of one of several writers end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WriterEnd {
    /// Which one, from 0.
    pub writer: u64,
    /// The number of its last seal.
    pub seals: u64,
    /// Where that ends.
    pub ends_at: u64,
    /// Its hash, which stands for all before of this writer.
    pub hash: Option<String>,
}

impl WriterEnd {
    pub(super) fn of(end: &End) -> Self {
        let hash = end.hash.as_deref().map(hex);
        Self { writer: end.lane, seals: end.number, ends_at: end.at, hash }
    }
}

/// A table whose rows were compared with what the messages make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Compared {
    pub table: String,
    /// Rows that the messages make, before later ones replace earlier ones.
    pub made: u64,
    /// Whether there is one row of each key, since a message may replace or skip a row.
    pub by_key: bool,
}

/// How an audit proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub(crate) enum Method {
    /// Not at all.
    Nothing,
    /// Sequence by sequence, in these tables and the dead letters.
    Sequences {
        /// The tables with a column for `$sequence`.
        tables: Vec<String>,
    },
    /// By the seals, without the stream.
    Seals,
    /// By the rows that the messages make, in the tables named in `compared`.
    Rows,
}

/// Where the sequences are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// With rows.
    pub committed: u64,
    /// In the dead letters.
    pub dead_letters: u64,
    /// In `jetcopy.losses`.
    pub lost: u64,
    /// Removed by the stream itself before they were read, with a record in `jetcopy.losses`.
    pub superseded: u64,
    /// Within the stream, and no message of the pipeline: deleted, or of other subjects.
    pub not_in_stream: u64,
    /// Without a row, and before what the stream still holds: nobody can tell.
    pub dropped_by_now: u64,
    /// Messages that only say that something was removed or deleted, or will be published.
    pub passed_over: u64,
    /// Without a row, where a message need not have one.
    pub not_judged: u64,
    /// Messages of which no row is made: of no kind that a table takes, or without elements.
    pub without_rows: u64,
}

/// Something that is not as promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub(crate) enum Difference {
    /// The stream holds them; no table and no dead letter does.
    Missing { first_sequence: u64, last_sequence: u64 },
    /// Another table or the dead letters have it; this table does not.
    Incomplete { sequence: u64, table: String },
    /// More than once in one place.
    Twice { sequence: u64, table: String, times: u64 },
    /// In a table and in the dead letters.
    RowAndDeadLetter { sequence: u64 },
    /// Elements of a message that are not each once in a table or in the dead letters: how many there are at
    /// least, how many of them are somewhere, and how many rows and dead letters they have together.
    Elements { sequence: u64, table: String, elements: u64, there: u64, times: u64 },
    /// A row or a dead letter after the checkpoint.
    Unknown { sequence: u64 },
    /// Rows that are there another number of times than the messages make them; `sequence` is the first that
    /// makes one, and `row` how the server writes it, or its key, or nothing where only the number of all
    /// rows is compared.
    Rows { table: String, sequence: Option<u64>, made: u64, there: u64, row: String },
    /// A row of a key that differs from what the messages make; `sequence` makes that one, and `key` is how
    /// the server writes it.
    Differs { table: String, sequence: Option<u64>, key: String },
    /// A seal that is not as it was closed: `altered`, `missing` (the one before it), `apart` from that one,
    /// `last` where the checkpoint knows another last one; of several writers, `shared` where it is of other
    /// ones than the seal before says, `left` where it leaves out what is its writer's, `ends` where the
    /// seals of the others do not end as it says.
    Seal {
        number: u64,
        /// In whose chain, where there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        writer: Option<u64>,
        fault: String,
    },
    /// A stretch of which a table, or the dead letters, hold another number than was committed.
    Count {
        table: String,
        first_sequence: u64,
        last_sequence: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        expected: u64,
        there: u64,
    },
    /// A table that several shards fill, which holds fewer rows than all of them committed.
    Together { table: String, expected: u64, there: u64 },
    /// A stretch whose messages in the stream are not those that were committed.
    Digest {
        first_sequence: u64,
        last_sequence: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
    },
    /// An element that is refused, and in no dead letter.
    Element { sequence: u64, table: String, element: u32 },
}

impl Counts {
    /// Counts how many of these sequences are `superseded`, and subtracts them; returns how many are not.
    pub(super) fn others(&mut self, sequences: u64, superseded: &mut u64) -> u64 {
        let known = sequences.min(*superseded);
        *superseded -= known;
        self.superseded += known;
        sequences - known
    }
}

impl Report {
    pub(super) fn new(shard: &Shard, checkpoint: u64) -> Self {
        Self {
            pipeline: shard.pipeline.clone(),
            stream: shard.stream.clone(),
            from: 1,
            checkpoint,
            method: Method::Nothing,
            counts: Counts::default(),
            differences: 0,
            first_differences: Vec::new(),
            compared: Vec::new(),
            ledger: None,
            not_proven: Vec::new(),
        }
    }

    /// Notes a difference; missing sequences in a row are one entry.
    pub(super) fn add(&mut self, difference: Difference) {
        self.differences += 1;
        if let (
            Some(Difference::Missing { last_sequence, .. }),
            Difference::Missing { first_sequence, last_sequence: last },
        ) = (self.first_differences.last_mut(), &difference)
            && *last_sequence + 1 == *first_sequence
        {
            *last_sequence = *last;
        } else if self.first_differences.len() < KEPT {
            self.first_differences.push(difference);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pipeline, stream, from, checkpoint, counts, .. } = self;
        writeln!(
            f,
            "pipeline {pipeline}, stream {stream}, sequences {from} to {checkpoint} (the checkpoint)"
        )?;
        match &self.method {
            Method::Nothing => {}
            Method::Seals => writeln!(f, "looked at the ledger, and at as much as can be counted")?,
            Method::Sequences { tables } => {
                writeln!(f, "looked up each sequence in {} and the dead letters", tables.join(", "))?;
                for (count, what) in [
                    (counts.committed, "committed"),
                    (counts.dead_letters, "dead letters"),
                    (counts.lost, "lost, recorded in jetcopy.losses"),
                    (counts.superseded, "superseded before they were read, recorded in jetcopy.losses"),
                    (counts.not_in_stream, "not in the stream: deleted, or on other subjects"),
                    (counts.dropped_by_now, "without a row, and no longer in the stream: not proven"),
                    (counts.passed_over, "markers of removals and schedules, which have no row"),
                    (counts.not_judged, "without a row, which the mapping allows: not proven"),
                ] {
                    if count > 0 {
                        writeln!(f, "  {count} {what}")?;
                    }
                }
            }
            Method::Rows => {
                writeln!(
                    f,
                    "decoded the messages that the stream holds, and compared their rows with the tables"
                )?;
                for (count, what) in [
                    (counts.committed, "messages with rows"),
                    (counts.without_rows, "messages without rows"),
                    (counts.dead_letters, "dead letters"),
                    (counts.passed_over, "markers of removals and schedules, which have no row"),
                ] {
                    if count > 0 {
                        writeln!(f, "  {count} {what}")?;
                    }
                }
            }
        }
        for Compared { table, made, by_key } in &self.compared {
            let by_key = if *by_key { ", one per key" } else { "" };
            writeln!(f, "compared {made} rows of {table}{by_key}")?;
        }
        if let Some(ledger) = &self.ledger {
            write!(f, "{ledger}")?;
        }
        for text in &self.not_proven {
            writeln!(f, "not proven: {text}")?;
        }
        for difference in &self.first_differences {
            writeln!(f, "difference: {difference}")?;
        }
        match (self.differences, &self.method) {
            (0, Method::Nothing) => writeln!(f, "verdict: nothing could be proven"),
            (0, _) => writeln!(f, "verdict: no difference"),
            (1, _) => writeln!(f, "verdict: 1 difference"),
            (count, _) => writeln!(f, "verdict: {count} differences"),
        }
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begins_after, seals, ends_at, messages, letters, .. } = self;
        let first = begins_after + 1;
        writeln!(
            f,
            "ledger from sequence {first}: {messages} messages, {letters} dead letters; {seals} seals to \
             sequence {ends_at}"
        )?;
        if let Some(hash) = &self.hash {
            writeln!(f, "  hash of the last seal: {hash}")?;
        }
        for WriterEnd { writer, seals, ends_at, hash } in &self.writers {
            let hash = hash.as_deref().unwrap_or("-");
            writeln!(f, "  writer {writer}: {seals} seals to sequence {ends_at}, hash of the last: {hash}")?;
        }
        for (count, what) in [
            (self.discarded, "dead letters discarded"),
            (self.retried, "dead letters that became rows"),
            (self.superseded, "superseded before they were read"),
            (self.counted, "stretches whose rows were counted"),
            (self.digests, "stretches whose digest is that of the stream's messages"),
            (self.undigested, "stretches of which the stream does not hold all messages"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        for SealMove { kind, from, to, part } in &self.moves {
            let part = part.map(|part| part.to_string()).unwrap_or_default();
            writeln!(f, "  the checkpoint{part} moved from {from} to {to} without commits ({kind})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { first_sequence, last_sequence } if first_sequence == last_sequence => {
                write!(f, "sequence {first_sequence} is in the stream, but in no table and no dead letter")
            }
            Self::Missing { first_sequence, last_sequence } => write!(
                f,
                "sequences {first_sequence} to {last_sequence} are in the stream, but in no table and no \
                 dead letter"
            ),
            Self::Incomplete { sequence, table } => {
                write!(f, "sequence {sequence} has rows, but none in {table}")
            }
            Self::Twice { sequence, table, times } => {
                write!(f, "sequence {sequence} is {times} times in {table}")
            }
            Self::RowAndDeadLetter { sequence } => {
                write!(f, "sequence {sequence} has both a row and a dead letter")
            }
            Self::Elements { sequence, table, elements, there, times } => write!(
                f,
                "sequence {sequence} has at least {elements} elements; {there} of them are in {table} or the \
                 dead letters, {times} times in total"
            ),
            Self::Unknown { sequence } => write!(f, "sequence {sequence} is beyond the checkpoint"),
            Self::Rows { table, made, there, row, .. } if row.is_empty() => {
                write!(f, "{table} has {there} rows, but the messages make {made}")
            }
            Self::Rows { table, sequence: Some(sequence), made, there, row } => write!(
                f,
                "{table} has {there} rows like the one of sequence {sequence}, but should have {made}: {row}"
            ),
            Self::Rows { table, sequence: None, there, row, .. } => {
                write!(f, "{table} has {there} rows that no message makes: {row}")
            }
            Self::Seal { number, writer, fault } => {
                let writer = writer.map(|writer| format!(" of writer {writer}")).unwrap_or_default();
                let what = match fault.as_str() {
                    "altered" => "was altered, or the one before it: its hash differs",
                    "missing" => "does not follow: the one before it is missing",
                    "apart" => "does not begin where the one before it ends",
                    "shared" => "is of other writers than the one before it says",
                    "left" => "leaves out sequences of its writer",
                    "ends" => {
                        "was altered, or seals of other writers before it: it does not have their hashes"
                    }
                    _ => "is not the last one, or jetcopy.checkpoints was altered",
                };
                write!(f, "seal {number}{writer} {what}")
            }
            Self::Count { table, first_sequence, last_sequence, part, expected, there } => write!(
                f,
                "{table} has {there} rows of sequences {first_sequence} to {last_sequence}{}, but {expected} \
                 were committed",
                part.map(|part| part.to_string()).unwrap_or_default()
            ),
            Self::Together { table, expected, there } => {
                write!(f, "{table} has {there} rows, but all its shards together committed {expected}")
            }
            Self::Digest { first_sequence, last_sequence, part } => write!(
                f,
                "the messages {first_sequence} to {last_sequence}{} in the stream are not those that were \
                 committed, or their seal was altered: the digest differs",
                part.map(|part| part.to_string()).unwrap_or_default()
            ),
            Self::Differs { table, sequence, key } => {
                let sequence =
                    sequence.map_or_else(String::new, |sequence| format!(" (sequence {sequence})"));
                write!(f, "the row of {table} with key {key} differs from what the messages make{sequence}")
            }
            Self::Element { sequence, table, element } => {
                write!(
                    f,
                    "element {element} of sequence {sequence} is neither a row of {table} nor in a dead \
                     letter"
                )
            }
        }
    }
}
