//! Reads JSON in place.
//!
//! Guarantees: it accepts exactly the texts of RFC 8259 that nest no deeper than [`MAX_DEPTH`], and beyond
//! them only what writers of JSON are known to add: `NaN`, `Infinity` and `-Infinity` as numbers, and
//! characters NUL at the end. No input makes it panic, recurse or allocate. It does not look into escapes
//! beyond their form: whether `\ud800` is text is asked when a column takes it ([`unescape`]), since the
//! `json` type takes it.

use super::{EMPTY, Entered, Format, Key, MAX_DEPTH, Malformed, Next, Spelled, Value, Wording, begins_with};
pub(crate) use escapes::{LoneSurrogate, unescape, unescape_one, unescape_within};

mod escapes;

/// What a `Content-Type` of JSON has in it.
pub(super) const MEDIA_TYPE: Option<&str> = Some("json");

/// What some writers put before a text in UTF-8: a byte order mark.
pub(super) const MARK: &str = "\u{feff}";

/// JSON text: a payload, or from bracket to bracket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw<'a> {
    pub(crate) text: &'a str,
    /// Whether a number may be in it that `numeric`, and with it `jsonb`, does not hold, or that prints much
    /// longer
    pub(crate) wide: bool,
    /// Whether NaN or an infinity may be in it, which no other reader of JSON takes
    pub(crate) non_finite: bool,
}

impl<'a> Raw<'a> {
    /// Text that nobody has read.
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, wide: false, non_finite: false }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.text.as_bytes()
    }
}

/// Whether a payload begins as JSON does. In MessagePack these are small integers, and a message is a map.
#[inline]
pub(super) fn begins(payload: &[u8]) -> bool {
    match payload.first() {
        Some(b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n') => true,
        Some(0xef..) => payload.starts_with(MARK.as_bytes()) || is_utf16(payload),
        _ => false,
    }
}

/// Whether a text begins with the byte order mark of UTF-16.
fn is_utf16(payload: &[u8]) -> bool {
    payload.starts_with(b"\xff\xfe") || payload.starts_with(b"\xfe\xff")
}

/// The text of a payload.
#[inline]
pub(super) fn raw(payload: &[u8]) -> Result<Raw<'_>, Malformed> {
    match str::from_utf8(payload) {
        Ok("") => Err(Malformed::new(EMPTY, 0)),
        Ok(text) => Ok(Raw::new(text.strip_prefix(MARK).unwrap_or(text))),
        Err(_) if is_utf16(payload) => Err(Malformed::new(&"it is in UTF-16, and JSON is in UTF-8", 0)),
        Err(error) => Err(Malformed::new(&"not UTF-8", error.valid_up_to())),
    }
}

/// `key` between a comma and a colon, without white space; empty where JSON would escape some of it.
pub(super) fn spelled(key: &str) -> Box<[u8]> {
    if plain_prefix(key.as_bytes()) == key.len() {
        format!(",\"{key}\":").into_bytes().into()
    } else {
        [].into()
    }
}

/// A place in a JSON message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Whether a number was met that `numeric` may not hold, or prints much longer than it is written.
    wide: bool,
    /// Whether NaN or an infinity was met.
    non_finite: bool,
}

/// What `i64` holds at most.
const MAX_INT: u64 = i64::MAX.cast_unsigned();
/// Numbers that are written with fewer characters are none that `numeric` does not hold, if their exponents
/// are small.
const LARGE: u64 = 8_000;
/// Numbers with lesser exponents print four times as long as they are written at most.
const LARGE_EXPONENT: u64 = 16;
/// Every byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The top bit of every byte of a word.
const TOPS: u64 = 0x8080_8080_8080_8080;

impl<'a> Reader<'a> {
    /// Starts at the front of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, wide: false, non_finite: false }
    }

    /// Starts at the front of `raw`.
    #[inline]
    pub(crate) fn of(raw: Raw<'a>) -> Self {
        Self::new(raw.text)
    }

    #[cold]
    fn malformed(&self, what: Wording) -> Malformed {
        let what = if self.at >= self.text.len() { &"cut short" } else { what };
        Malformed::new(what, self.at)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over white space.
    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The text from `start` to here; both lie beside an ASCII character.
    #[inline]
    fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// Reads a string, its opening quote already passed: what stands between the quotes, and whether it has
    /// escapes.
    #[inline]
    fn string(&mut self) -> Result<(&'a str, bool), Malformed> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&bytes[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    let inside = self.since(start);
                    self.at += 1;
                    return Ok((inside, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.malformed(&"a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let length = match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => {
                let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.malformed(&"a \\u without four hexadecimal digits"));
                }
                5
            }
            _ => return Err(self.malformed(&"an invalid escape sequence")),
        };
        self.at += length;
        Ok(())
    }

    fn word(&mut self, word: &'static str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.malformed(&"not a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a number by its name, as Python writes those that JSON has none for.
    #[cold]
    fn named(&mut self, name: &'static str, number: f64, value: &mut Value<'a>) -> Result<(), Malformed> {
        self.word(name)?;
        self.non_finite = true;
        *value = Value::Float(number);
        Ok(())
    }

    /// Passes over digits and adds them to `value`; `None` once it does not fit.
    #[inline]
    fn digits(&mut self) -> Result<Option<u64>, Malformed> {
        let start = self.at;
        let mut value = Some(0_u64);
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            value = value.and_then(|value| value.checked_mul(10)?.checked_add(u64::from(byte - b'0')));
            self.at += 1;
        }
        if self.at == start {
            return Err(self.malformed(&"a number without digits"));
        }
        Ok(value)
    }

    #[inline]
    fn number(&mut self, value: &mut Value<'a>) -> Result<(), Malformed> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.at;
        let integer = match self.digits() {
            Ok(integer) => integer,
            Err(_) if negative && self.peek() == Some(b'I') => {
                return self.named("Infinity", f64::NEG_INFINITY, value);
            }
            Err(malformed) => return Err(malformed),
        };
        if self.at - first > 1 && self.text.as_bytes()[first] == b'0' {
            self.at = first;
            return Err(self.malformed(&"a number with a leading zero"));
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            while let Some(b'0'..=b'9') = self.peek() {
                self.at += 1;
            }
            if self.text.as_bytes()[self.at - 1] == b'.' {
                return Err(self.malformed(&"a number without digits"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            let exponent = self.digits()?;
            self.wide |= exponent.is_none_or(|exponent| exponent > LARGE_EXPONENT);
        }
        self.wide |= (self.at - start) as u64 > LARGE;
        match integer {
            // The sign of -0 lives on as text only.
            Some(number) if whole && number <= MAX_INT && (number > 0 || !negative) => {
                let number = number.cast_signed();
                *value = Value::Int(if negative { -number } else { number });
            }
            Some(number) if whole && number > MAX_INT && !negative => *value = Value::Uint(number),
            // -2⁶³ is one of these; who takes integers reads it from its digits.
            _ => *value = Value::Decimal(self.since(start)),
        }
        Ok(())
    }

    /// Reads a value without parts; brackets are the caller's.
    #[inline]
    fn scalar(&mut self, byte: u8, value: &mut Value<'a>) -> Result<(), Malformed> {
        match byte {
            b'"' => {
                self.at += 1;
                let (inside, escaped) = self.string()?;
                if escaped {
                    *value = Value::Escaped(inside);
                } else {
                    *value = Value::Str(inside);
                }
            }
            b'-' | b'0'..=b'9' => self.number(value)?,
            b't' => {
                self.word("true")?;
                *value = Value::Bool(true);
            }
            b'f' => {
                self.word("false")?;
                *value = Value::Bool(false);
            }
            b'n' => {
                self.word("null")?;
                *value = Value::Null;
            }
            b'N' => self.named("NaN", f64::NAN, value)?,
            b'I' => self.named("Infinity", f64::INFINITY, value)?,
            _ => return Err(self.malformed(&"not a JSON value")),
        }
        Ok(())
    }

    /// Passes over the rest of the array or map that was just entered at `depth`.
    fn skip(&mut self, map: bool, depth: usize) -> Result<(), Malformed> {
        // One bit a level, the innermost lowest: whether it is a map.
        let mut levels = u128::from(map);
        let mut level = depth;
        let mut open = Entered { remaining: 0, first: true };
        if depth >= MAX_DEPTH {
            return Err(self.malformed(super::TOO_DEEP));
        }
        loop {
            let more = if levels & 1 == 1 {
                super::Reader::key(self, &mut open)?.is_some()
            } else {
                super::Reader::element(self, &mut open)?
            };
            if !more {
                if level == depth {
                    return Ok(());
                }
                level -= 1;
                levels >>= 1;
                // What was left is an entry of the level now reached.
                open.first = false;
                continue;
            }
            self.space();
            match self.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    self.at += 1;
                    level += 1;
                    if level >= MAX_DEPTH {
                        return Err(self.malformed(super::TOO_DEEP));
                    }
                    levels = levels << 1 | u128::from(bracket == b'{');
                    open.first = true;
                }
                Some(byte) => self.scalar(byte, &mut Value::Null)?,
                None => return Err(self.malformed(&"cut short")),
            }
        }
    }

    /// Whether a bracket closes here, or else the separator that must stand before the next entry is passed.
    #[inline]
    fn ends(&mut self, open: &mut Entered, bracket: u8) -> Result<bool, Malformed> {
        self.space();
        let byte = self.peek();
        if byte == Some(bracket) {
            self.at += 1;
            return Ok(true);
        }
        if open.first {
            open.first = false;
        } else if byte == Some(b',') {
            self.at += 1;
            self.space();
        } else {
            return Err(self.malformed(&"no comma between two entries"));
        }
        Ok(false)
    }
}

impl<'a> super::Reader<'a> for Reader<'a> {
    const NAME: &'static str = "JSON";
    const FORMAT: Format = Format::Json;

    #[inline]
    fn open(&mut self, value: &mut Value<'a>) -> Result<Next, Malformed> {
        self.space();
        let open = Entered { remaining: 0, first: true };
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                Ok(Next::Map(open))
            }
            Some(b'[') => {
                self.at += 1;
                Ok(Next::Array(open))
            }
            Some(byte) => {
                self.scalar(byte, value)?;
                Ok(Next::Scalar)
            }
            None => Err(self.malformed(&"cut short")),
        }
    }

    #[inline]
    fn key(&mut self, map: &mut Entered) -> Result<Option<Key<'a>>, Malformed> {
        if self.ends(map, b'}')? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.malformed(&"a key that is not a string"));
        }
        self.at += 1;
        let (inside, escaped) = self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.malformed(&"no colon after a key"));
        }
        self.at += 1;
        Ok(Some(if escaped { Key::Escaped(inside) } else { Key::Plain(inside.as_bytes()) }))
    }

    #[inline]
    fn pass_key(&mut self, map: &mut Entered, key: &Spelled) -> bool {
        let start = usize::from(map.first);
        let (Some(rest), Some(key)) = (self.text.as_bytes().get(self.at..), key.json.get(start..)) else {
            return false;
        };
        let passes = !key.is_empty() && begins_with(rest, key);
        if passes {
            map.first = false;
            self.at += key.len();
        }
        passes
    }

    #[inline]
    fn element(&mut self, array: &mut Entered) -> Result<bool, Malformed> {
        Ok(!self.ends(array, b']')?)
    }

    #[inline]
    fn read(&mut self, depth: usize, value: &mut Value<'a>) -> Result<(), Malformed> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some(bracket @ (b'{' | b'[')) => {
                self.at += 1;
                let map = bracket == b'{';
                self.skip(map, depth)?;
                *value = if map { Value::Map(self.raw(start)) } else { Value::Array(self.raw(start)) };
            }
            Some(byte) => self.scalar(byte, value)?,
            None => return Err(self.malformed(&"cut short")),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.space();
        // A string in C ends with one, and is at times sent with it.
        while self.peek() == Some(0) {
            self.at += 1;
            self.space();
        }
        if self.at < self.text.len() {
            return Err(self.malformed(super::TRAILING));
        }
        Ok(())
    }

    #[inline]
    fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn raw(&self, start: usize) -> super::Raw<'a> {
        let Self { wide, non_finite, .. } = *self;
        super::Raw::Json(Raw { text: self.since(start).trim_ascii_start(), wide, non_finite })
    }
}

/// The value that `text` is as a whole.
pub(crate) fn whole(text: &str) -> Option<Value<'_>> {
    let mut reader = Reader::new(text);
    let value = super::Reader::value(&mut reader, 0).ok()?;
    super::Reader::end(&mut reader).ok().map(|()| value)
}

/// The length of what stands in front of the first quote, backslash or control character.
#[inline]
pub(crate) fn plain_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Eight bytes at a time; the top bit of each byte of `hit` says whether it is one of those.
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let hit = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hit = hit & TOPS;
        if hit != 0 {
            // A borrow can mark bytes above a hit wrongly, but the lowest mark is always true.
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    bytes[at..].iter().position(special).map_or(bytes.len(), |place| at + place)
}
