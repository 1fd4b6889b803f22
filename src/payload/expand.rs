//! Compressed payload → payload.
//!
//! Guarantees: whatever the bytes are, and whatever they claim, what they expand to takes at most the bound
//! and one byte; a zstd frame may ask for a window as large, or of 8 MiB where the bound is less. All bytes
//! belong to what was expanded: a payload that is cut short, has a wrong checksum or goes on after its end is
//! refused. Members of gzip, and frames of zstd and Snappy, that follow one another are one payload, as their
//! programs have it. What was made for one payload is used for the next.

use std::fmt;
use std::io::Read as _;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::compression::Codec;

/// Why a payload is not expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unexpanded {
    /// It is more than the bound.
    TooLarge,
    /// It is not what it is said to be.
    Broken(&'static str),
}

const OTHER: Unexpanded = Unexpanded::Broken("it begins otherwise");
const CUT_SHORT: Unexpanded = Unexpanded::Broken("it is cut short");
const CORRUPT: Unexpanded = Unexpanded::Broken("it is corrupt");
const CHECKSUM: Unexpanded = Unexpanded::Broken("its checksum is wrong");
const TRAILING: Unexpanded = Unexpanded::Broken("bytes follow its end");

/// How many times its size a payload is expected to become, before more room is made.
const GUESS: usize = 4;

/// The least room that is made.
const LEAST: usize = 4 * 1024;

/// More room than this is given back.
const KEPT: usize = 1 << 20;

/// The window that decoders of zstd should support at least (RFC 8878), as a power of two.
const LEAST_WINDOW: u32 = 23;

/// How the framed form of Snappy begins.
const SNAPPY_FRAMES: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Expands one payload after the other.
pub(crate) struct Expander {
    out: Room,
    inflate: Option<Decompress>,
    zstd: Option<DCtx<'static>>,
}

/// What a payload is expanded into.
struct Room {
    /// As long as it ever was: what is filled anew need not be cleared.
    bytes: Vec<u8>,
    filled: usize,
    most: usize,
}

impl fmt::Debug for Expander {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Expander").field("most", &self.out.most).finish_non_exhaustive()
    }
}

impl Expander {
    /// With a bound on what a payload becomes, in bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { out: Room { bytes: Vec::new(), filled: 0, most }, inflate: None, zstd: None }
    }

    /// What `payload` was before it was compressed.
    pub(crate) fn expand(&mut self, codec: Codec, payload: &[u8]) -> Result<&[u8], Unexpanded> {
        self.out.begin(payload.len().saturating_mul(GUESS).max(LEAST));
        match codec {
            Codec::Gzip => self.gzip(payload)?,
            Codec::Zstd => self.zstd(payload)?,
            Codec::Snappy => self.snappy(payload)?,
            Codec::Deflate => self.deflate(payload)?,
        }
        if self.out.filled > self.out.most {
            return Err(Unexpanded::TooLarge);
        }
        Ok(&self.out.bytes[..self.out.filled])
    }

    /// Gives back what only few payloads need.
    pub(crate) fn shrink(&mut self) {
        if self.out.bytes.len() > KEPT {
            self.out.bytes = Vec::new();
        }
    }

    fn gzip(&mut self, mut payload: &[u8]) -> Result<(), Unexpanded> {
        loop {
            let body = after_gzip_header(payload)?;
            let start = self.out.filled;
            let read = self.inflate(body, false)?;
            let Some((trailer, rest)) = body[read..].split_first_chunk::<8>() else { return Err(CUT_SHORT) };
            let mut crc = Crc::new();
            crc.update(&self.out.bytes[start..self.out.filled]);
            if *trailer != *[crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].as_flattened() {
                return Err(CHECKSUM);
            }
            match rest {
                [] => return Ok(()),
                [0x1f, ..] => payload = rest,
                _ => return Err(TRAILING),
            }
        }
    }

    fn deflate(&mut self, payload: &[u8]) -> Result<(), Unexpanded> {
        // Deflate never begins like that: a block that is stored fills up with zeros.
        let has_header = matches!(payload, [first, second, ..]
            if first & 15 == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0);
        let read = self.inflate(payload, has_header)?;
        if read < payload.len() { Err(TRAILING) } else { Ok(()) }
    }

    /// Expands one stream; how many bytes it had.
    fn inflate(&mut self, stream: &[u8], has_header: bool) -> Result<usize, Unexpanded> {
        let state = self.inflate.get_or_insert_with(|| Decompress::new(has_header));
        state.reset(has_header);
        let (mut read, mut written) = (0, 0);
        loop {
            let room = self.out.free()?;
            let status =
                state.decompress(&stream[read..], room, FlushDecompress::None).map_err(|_| CORRUPT)?;
            let (now_read, now_written) = (length(state.total_in()), length(state.total_out()));
            let idle = (now_read, now_written) == (read, written);
            self.out.filled += now_written - written;
            (read, written) = (now_read, now_written);
            match status {
                Status::StreamEnd => return Ok(read),
                Status::Ok | Status::BufError if idle => return Err(CUT_SHORT),
                Status::Ok | Status::BufError => {}
            }
        }
    }

    fn zstd(&mut self, payload: &[u8]) -> Result<(), Unexpanded> {
        // Where there is room for all that a frame claims, zstd takes no memory of its own for its window.
        match zstd_safe::get_frame_content_size(payload) {
            Ok(Some(claimed)) if claimed > self.out.most as u64 => return Err(Unexpanded::TooLarge),
            Ok(Some(claimed)) => self.out.begin(length(claimed)),
            Ok(None) => {}
            Err(_) if Codec::begun(payload) == Some(Codec::Zstd) => return Err(CUT_SHORT),
            Err(_) => return Err(OTHER),
        }
        let state = self.zstd.get_or_insert_with(|| {
            let mut state = DCtx::create();
            let window = self.out.most.next_power_of_two().ilog2().max(LEAST_WINDOW);
            state.set_parameter(DParameter::WindowLogMax(window)).expect("zstd takes windows of up to 2 GiB");
            state
        });
        state.reset(ResetDirective::SessionOnly).map_err(broken)?;
        let mut input = InBuffer::around(payload);
        loop {
            let read = input.pos();
            let mut out = OutBuffer::around(self.out.free()?);
            let left = state.decompress_stream(&mut out, &mut input).map_err(broken)?;
            let written = out.pos();
            self.out.filled += written;
            if left == 0 && input.pos() == payload.len() {
                return Ok(());
            }
            if written == 0 && input.pos() == read {
                return Err(CUT_SHORT);
            }
        }
    }

    fn snappy(&mut self, payload: &[u8]) -> Result<(), Unexpanded> {
        if payload.starts_with(SNAPPY_FRAMES) {
            let mut frames = snap::read::FrameDecoder::new(payload);
            loop {
                match frames.read(self.out.free()?) {
                    Ok(0) => return Ok(()),
                    Ok(read) => self.out.filled += read,
                    Err(_) => return Err(CORRUPT),
                }
            }
        }
        let claimed = snap::raw::decompress_len(payload).map_err(|_| OTHER)?;
        if claimed > self.out.most {
            return Err(Unexpanded::TooLarge);
        }
        self.out.begin(claimed);
        let written = snap::raw::Decoder::new().decompress(payload, &mut self.out.bytes);
        self.out.filled = written.map_err(|_| CORRUPT)?;
        Ok(())
    }
}

impl Room {
    /// Begins anew, with room for `expected` bytes as far as there may be.
    fn begin(&mut self, expected: usize) {
        self.filled = 0;
        if self.bytes.len() < expected {
            self.grow(expected);
        }
    }

    /// What is not filled: at least a byte. One more than may be shows that there would be more.
    fn free(&mut self) -> Result<&mut [u8], Unexpanded> {
        if self.filled == self.bytes.len() {
            if self.filled > self.most {
                return Err(Unexpanded::TooLarge);
            }
            self.grow((2 * self.filled).max(LEAST));
        }
        Ok(&mut self.bytes[self.filled..])
    }

    fn grow(&mut self, to: usize) {
        let to = to.min(self.most.saturating_add(1)).max(self.bytes.len());
        self.bytes.reserve_exact(to - self.bytes.len());
        self.bytes.resize(to, 0);
    }
}

/// How a member of gzip begins: its mark, and that it is deflated.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// Flags of a member of gzip (RFC 1952).
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// What follows the header of a member of gzip.
fn after_gzip_header(member: &[u8]) -> Result<&[u8], Unexpanded> {
    if member.iter().zip(GZIP).any(|(byte, expected)| *byte != expected) {
        return Err(OTHER);
    }
    let Some((header, mut rest)) = member.split_first_chunk::<10>() else { return Err(CUT_SHORT) };
    let flags = header[3];
    if flags & RESERVED != 0 {
        return Err(CORRUPT);
    }
    if flags & EXTRA != 0 {
        let (length, extra) = rest.split_first_chunk().ok_or(CUT_SHORT)?;
        rest = extra.get(usize::from(u16::from_le_bytes(*length))..).ok_or(CUT_SHORT)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = &rest[memchr::memchr(0, rest).ok_or(CUT_SHORT)? + 1..];
        }
    }
    if flags & HEADER_CRC != 0 { rest.get(2..).ok_or(CUT_SHORT) } else { Ok(rest) }
}

fn broken(code: usize) -> Unexpanded {
    Unexpanded::Broken(zstd_safe::get_error_name(code))
}

/// A length in memory, which a `usize` holds.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
