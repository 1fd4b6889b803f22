//! Payloads that came compressed: expanded once, ahead of everything that reads them.
//!
//! Guarantees: rows are those of the payload as it was before it was compressed, `$payload` included; the
//! message itself, and with it a dead letter, stays as it came. What cannot be expanded within its bound
//! never comes to be read.

use bytesize::ByteSize;

use super::{Decoder, Undecoded, as_json, header};
use crate::batch::Rows;
use crate::config::{self, Compression};
use crate::message::Message;
use crate::payload::compression::Codec;
use crate::payload::expand::{Expander, Unexpanded};
use crate::poison::{Poison, PoisonKind};

/// How the payloads of a pipeline are expanded.
#[derive(Debug)]
pub(super) struct Compressed {
    setting: Compression,
    most: ByteSize,
    /// Made for the first one.
    expander: Option<Box<Expander>>,
}

impl Compressed {
    pub(super) fn new(pipeline: &config::Pipeline) -> Self {
        Self { setting: pipeline.compression, most: pipeline.max_decompressed_bytes, expander: None }
    }

    /// How the payload of `message` is compressed; nothing is not compressed at all.
    #[inline]
    pub(super) fn codec(&self, message: &Message) -> Option<Codec> {
        if message.payload.is_empty() {
            return None;
        }
        self.setting.codec(|| encoding(message))
    }

    /// The expander, until it is put back.
    fn take(&mut self) -> Box<Expander> {
        self.expander.take().unwrap_or_else(|| {
            Box::new(Expander::new(usize::try_from(self.most.as_u64()).unwrap_or(usize::MAX)))
        })
    }

    fn put_back(&mut self, mut expander: Box<Expander>) {
        expander.shrink();
        self.expander = Some(expander);
    }

    /// That a payload which cannot be read may be compressed in a way that nobody said.
    #[cold]
    pub(super) fn hint(&self, message: &Message) -> Option<String> {
        if self.setting != Compression::Auto || self.codec(message).is_some() {
            return None;
        }
        let name = Compression::HEADER;
        if let Some(said) = encoding(message) {
            let known = Codec::ALL.map(Codec::name).join(", ");
            return Some(format!("; its {name} is {said:?}, which is none of {known}"));
        }
        let begun = Codec::begun(&message.payload).map(Codec::name)?;
        Some(format!(
            "; it begins like {begun}: let publishers say so in {name}, or set compression = \"{begun}\""
        ))
    }

    /// Why there is nothing to read.
    fn poison(&self, codec: Codec, unexpanded: Unexpanded) -> Poison {
        let name = codec.name();
        let (kind, message) = match unexpanded {
            Unexpanded::TooLarge => (
                PoisonKind::TooLarge,
                format!(
                    "it expands by {name} to more than {}, which max_decompressed_bytes allows: raise that \
                     if such payloads are meant to come",
                    self.most.display().iec()
                ),
            ),
            Unexpanded::Broken(what) => (
                PoisonKind::Malformed,
                match self.setting {
                    Compression::Auto => {
                        let header = Compression::HEADER;
                        format!("not a payload in {name}, which its {header} says it is: {what}")
                    }
                    _ => format!("not a payload in {name}, as compression = \"{name}\" has it: {what}"),
                },
            ),
        };
        Poison { kind, message, table: None, column: None }
    }
}

/// What the header of `message` says of its compression.
#[inline]
fn encoding(message: &Message) -> Option<&str> {
    message.headers.as_ref().and_then(|headers| header(headers, Compression::HEADER))
}

impl Decoder {
    /// Appends the rows of a message whose payload is compressed.
    #[inline(never)]
    pub(super) fn decode_compressed(
        &mut self,
        codec: Codec,
        message: &Message,
        index: u32,
        rows: &mut Rows,
        room: usize,
    ) -> Result<(), Undecoded> {
        let mut expander = self.compressed.take();
        let decoded = match expander.expand(codec, &message.payload) {
            Ok(payload) => self.decode_payload(message, payload, index, rows, room).map_err(|undecoded| {
                let Undecoded::Poison(mut poison) = undecoded else { return undecoded };
                if poison.kind == PoisonKind::Malformed {
                    poison.message += "; the position is in what ";
                    poison.message += codec.name();
                    poison.message += " expanded it to";
                }
                poison.into()
            }),
            Err(unexpanded) => Err(self.compressed.poison(codec, unexpanded).into()),
        };
        self.compressed.put_back(expander);
        decoded
    }

    /// The payload as JSON text ([`as_json`]), after it was expanded.
    pub fn show(&mut self, message: &Message) -> Option<String> {
        let Some(codec) = self.compressed.codec(message) else { return self.shown(&message.payload) };
        let mut expander = self.compressed.take();
        let shown = expander.expand(codec, &message.payload).ok().and_then(|payload| self.shown(payload));
        self.compressed.put_back(expander);
        shown
    }

    fn shown(&mut self, payload: &[u8]) -> Option<String> {
        if self.format == config::Format::Influx { self.show_lines(payload) } else { as_json(payload) }
    }
}
