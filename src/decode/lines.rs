//! Payloads in InfluxDB's line protocol: packed as MessagePack, ahead of everything that reads them.
//!
//! Guarantees: rows are those of the lines, and `$payload` and a dead letter have the payload as it came.
//! What packing takes is bounded as what decompression does.

use bytesize::ByteSize;

use super::{Decoder, Undecoded, malformed};
use crate::batch::Rows;
use crate::config;
use crate::message::Message;
use crate::payload::influx::{Unpacked, pack};
use crate::payload::msgpack;
use crate::poison::{Poison, PoisonKind};

/// Memory that is kept from one payload to the next.
const KEPT: usize = 256 * 1024;

/// What lines are packed into.
#[derive(Debug)]
pub(super) struct Lines {
    most: ByteSize,
    packed: Vec<u8>,
}

impl Lines {
    pub(super) fn new(pipeline: &config::Pipeline) -> Self {
        Self { most: pipeline.max_decompressed_bytes, packed: Vec::new() }
    }

    /// `payload` as MessagePack; the memory is to be put back.
    fn pack(&mut self, payload: &[u8]) -> Result<Vec<u8>, Unpacked> {
        let mut packed = std::mem::take(&mut self.packed);
        packed.clear();
        let most = usize::try_from(self.most.as_u64()).unwrap_or(usize::MAX);
        match pack(payload, most, &mut packed) {
            Ok(()) => Ok(packed),
            Err(unpacked) => {
                self.put_back(packed);
                Err(unpacked)
            }
        }
    }

    fn put_back(&mut self, mut packed: Vec<u8>) {
        packed.clear();
        packed.shrink_to(KEPT);
        self.packed = packed;
    }

    fn poison(&self, unpacked: Unpacked) -> Poison {
        match unpacked {
            Unpacked::Malformed(fault) => malformed("line protocol", fault),
            Unpacked::TooLarge => Poison {
                kind: PoisonKind::TooLarge,
                message: format!(
                    "its lines take more than {}, which max_decompressed_bytes allows: raise that if such \
                     payloads are meant to come",
                    self.most.display().iec()
                ),
                table: None,
                column: None,
            },
        }
    }
}

impl Decoder {
    /// Appends the rows of a message whose payload is line protocol.
    #[inline(never)]
    pub(super) fn decode_lines(
        &mut self,
        message: &Message,
        payload: &[u8],
        index: u32,
        rows: &mut Rows,
        room: usize,
    ) -> Result<(), Undecoded> {
        let packed = self.lines.pack(payload).map_err(|unpacked| self.lines.poison(unpacked))?;
        let reader = msgpack::Reader::of(msgpack::Raw(&packed));
        let decoded = self.decode_as((message, payload), reader, index, rows, room);
        self.lines.put_back(packed);
        decoded
    }

    /// A payload in line protocol as something to show.
    pub(super) fn show_lines(&mut self, payload: &[u8]) -> Option<String> {
        let packed = self.lines.pack(payload).ok()?;
        let shown = super::as_json(&packed);
        self.lines.put_back(packed);
        shown
    }
}
