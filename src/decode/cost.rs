//! What one message costs: the bytes that its rows take, and those that are gone through to make them.
//!
//! Guarantees: once a message has cost more than it may, the row at hand is its last; the cost passes its
//! bound by that row at most. What a row repeats of the message, and what refused elements had written,
//! counts as work, so that the time that a message takes is bounded by its size and its bound, whatever the
//! mapping.

use bytesize::ByteSize;

use crate::batch::Row;
use crate::poison::{Poison, PoisonKind};

/// Rows that fit always, however little may be buffered: what a mapping adds to a message of a few bytes.
const LEAST: usize = 64 * 1024;

/// How many times its own size a message may become always, so that little to buffer does not refuse what a
/// copy of each message needs; and up to how many bytes. A message of the largest size that servers take, 64
/// MiB, leaves that beside it.
const LEAST_TIMES: usize = 2;
const MOST_TIMES: usize = 16 << 20;

/// How many bytes may be gone through for each that rows may take. Most of what is read is written too; what
/// is not is read at about a gigabyte a second.
const WORK: usize = 4;

/// A message of at most this many bytes cannot cost much by repeating itself: what its rows repeat is not
/// counted.
pub(super) const SMALL: usize = 4 * 1024;

/// What a row takes beside its tuple.
const ROW: usize = size_of::<Row>();

/// What one message has cost so far, and what it may.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Bytes that its rows take.
    rows: usize,
    /// Bytes that were written, kept or not, and that were read again for each row.
    work: usize,
    /// Bytes that a row of the table at hand reads again.
    repeated: usize,
    /// Bytes that its rows may take now.
    room: usize,
    /// Bytes that its rows may take at all.
    most: usize,
    /// Bytes that its rows would take, as far as can be told, once they take too many.
    estimate: Option<usize>,
}

/// Which bound a message passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// That of the moment: other messages take the memory.
    Room,
    /// That of any message.
    Most,
}

impl Cost {
    /// Of a message of `bytes` bytes, whose rows may take `most` bytes, or more where it is large, and `room`
    /// now.
    pub(super) fn begin(bytes: usize, most: usize, room: usize) -> Self {
        let always = LEAST_TIMES.saturating_mul(bytes).saturating_add(LEAST);
        let most = most.max(always.min(MOST_TIMES));
        Self { room: room.min(most), most, ..Self::default() }
    }

    /// Bytes that its rows may still take.
    pub(super) fn left(&self) -> usize {
        self.room.saturating_sub(self.rows)
    }

    /// Says what each row from now on reads again.
    pub(super) fn repeats(&mut self, bytes: usize) {
        self.repeated = bytes;
    }

    /// Counts a row whose tuple takes `bytes`; whether it may be.
    #[inline]
    pub(super) fn row(&mut self, bytes: usize) -> bool {
        self.rows += bytes + ROW;
        self.work += bytes + self.repeated;
        self.rows <= self.room && self.work <= self.most.saturating_mul(WORK)
    }

    /// Counts what was refused: `rows` is what rows took before it, `written` what it had written; whether it
    /// may be.
    pub(super) fn refused(&mut self, rows: usize, written: usize) -> bool {
        self.rows = rows;
        self.work += written + self.repeated;
        self.work <= self.most.saturating_mul(WORK)
    }

    /// Bytes that its rows take.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Notes that `read` bytes of `all` made the rows since they took `before`. The last to say so is the
    /// outermost loop, whose word counts.
    #[cold]
    pub(super) fn estimate(&mut self, before: usize, read: usize, all: usize) {
        let made = self.estimate.unwrap_or(0).max(self.rows).saturating_sub(before) as u128;
        let all = made * all as u128 / read.max(1) as u128;
        self.estimate = Some(before.saturating_add(usize::try_from(all).unwrap_or(usize::MAX)));
    }

    /// Which bound was passed, after one was.
    pub(super) fn over(&self) -> Over {
        if self.room < self.most && self.rows <= self.most && self.work <= self.most.saturating_mul(WORK) {
            Over::Room
        } else {
            Over::Most
        }
    }

    /// Why the message is a dead letter.
    #[cold]
    pub(super) fn poison(&self, table: Option<String>) -> Poison {
        let shown = |bytes: usize| ByteSize::b(bytes as u64).display().iec().to_string();
        let most = shown(self.most);
        let message = if self.rows <= self.most && self.work > self.most.saturating_mul(WORK) {
            format!(
                "creating its rows would read more than {WORK} times the {most} that the rows of one message \
                 may take: raise max_buffered_bytes, or map less of the message into each row"
            )
        } else {
            let rows = match self.estimate {
                Some(bytes) if bytes > self.rows => format!("about {}", shown(bytes)),
                Some(_) | None => format!("more than {most}"),
            };
            format!(
                "its rows would take {rows}, but the rows of one message may take {most}, a quarter of \
                 max_buffered_bytes: raise that, or map less of the message into each row"
            )
        };
        Poison { kind: PoisonKind::TooLarge, message, table, column: None }
    }
}
