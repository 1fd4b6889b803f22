//! What a message that cannot be read may be, beyond what anybody said of it.

use super::{Decoder, NO_MAP, Undecoded};
use crate::config::Format;
use crate::message::Message;
use crate::payload::TRAILING;
use crate::poison::PoisonKind;

impl Decoder {
    /// Adds to why a message cannot be read what it may be.
    #[cold]
    pub(super) fn explain(&self, message: &Message, undecoded: &mut Undecoded) {
        let Undecoded::Poison(poison) = undecoded else { return };
        if poison.kind != PoisonKind::Malformed || poison.column.is_some() {
            return;
        }
        if let Some(hint) = self.compressed.hint(message) {
            poison.message += &hint;
        } else if let Some(hint) = self.meant(message, &poison.message) {
            poison.message += hint;
        }
    }

    /// The format that a payload may be meant in.
    fn meant(&self, message: &Message, reason: &str) -> Option<&'static str> {
        let text = str::from_utf8(&message.payload).ok()?.trim();
        let has_parts = text.starts_with(['{', '[']);
        match self.format {
            Format::Auto | Format::Json if has_parts && reason.contains(TRAILING) => Some(
                "; if a message is several JSON texts, set format = \"ndjson\", and for_each = \"$\" for the \
                 table",
            ),
            Format::Ndjson | Format::Influx | Format::Raw => None,
            _ if text.starts_with('[') && reason.contains(NO_MAP) => {
                Some("; if messages are arrays of maps, set for_each = \"$\" for the table")
            }
            Format::Auto if !has_parts && !text.is_empty() && !text.contains(char::is_control) => {
                Some("; if messages are single values, such as 21.5 or ON, set format = \"raw\"")
            }
            _ => None,
        }
    }
}
