//! Packs InfluxDB's line protocol as MessagePack, which is then read like any other.
//!
//! Guarantees: a payload becomes an array with a map for each line, in the shape that Telegraf's JSON has:
//! `name`, `tags`, `fields`, and `timestamp` where the line has one. Each value keeps its type: `1i` and `1u`
//! are whole numbers, `1` is a float, `t` is true, `"1"` is text. It takes the lines that InfluxDB takes
//! (<https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>): escapes, line breaks within a
//! quoted text, comments, blank lines. Packing ends where it would take more than a bound.

use super::{EMPTY, Malformed, Wording};

/// Why there is nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpacked {
    /// It is not line protocol.
    Malformed(Malformed),
    /// It takes more than the bound.
    TooLarge,
}

impl From<Malformed> for Unpacked {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// What ends a name, and is escaped in one.
const NAME: &[u8] = b", ";
/// What ends a key or a tag's value, and is escaped in one.
const KEY: &[u8] = b",= ";
/// What is escaped in a quoted text.
const QUOTED: &[u8] = b"\"\\";

/// Wording of a payload of comments and blank lines.
const NO_LINES: Wording = &"there is no line but comments";

/// Markers of MessagePack whose length is told afterwards, in four bytes.
const ARRAY: u8 = 0xdd;
const MAP: u8 = 0xdf;
/// A map of so few entries has them in its marker.
const FEW: u8 = 0x80;

/// Appends `payload` to `out`, which then has at most `most` bytes more, or one line more than that.
pub(crate) fn pack(payload: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), Unpacked> {
    let text = str::from_utf8(payload).map_err(|error| Malformed::new(&"not UTF-8", error.valid_up_to()))?;
    let mark = text.len() - text.strip_prefix(super::json::MARK).unwrap_or(text).len();
    let (start, mut lines) = (out.len(), Lines { text, at: mark });
    let all = Counted::begin(out, ARRAY);
    let mut count = 0;
    while lines.next() {
        lines.line(out)?;
        count += 1;
        if out.len() - start > most {
            return Err(Unpacked::TooLarge);
        }
    }
    if count == 0 {
        return Err(Malformed::new(if payload.is_empty() { EMPTY } else { NO_LINES }, 0).into());
    }
    all.end(out, count);
    Ok(())
}

/// An array or a map whose length is not known yet.
struct Counted(usize);

impl Counted {
    fn begin(out: &mut Vec<u8>, marker: u8) -> Self {
        out.extend([marker, 0, 0, 0, 0]);
        Self(out.len() - 4)
    }

    fn end(self, out: &mut [u8], count: u32) {
        out[self.0..self.0 + 4].copy_from_slice(&count.to_be_bytes());
    }
}

/// A place in a payload.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault(&self, what: Wording) -> Malformed {
        Malformed::new(what, self.at)
    }

    /// Goes to the next line that is neither blank nor a comment; whether there is one.
    fn next(&mut self) -> bool {
        loop {
            match self.peek() {
                None => return false,
                Some(b' ' | b'\t' | b'\r' | b'\n' | 0) => self.at += 1,
                Some(b'#') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                Some(_) => return true,
            }
        }
    }

    fn line(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let entries = out.len();
        out.push(FEW + 3);
        string(out, "name");
        self.text_up_to(NAME, out, &"a line that begins with a comma has no measurement")?;
        string(out, "tags");
        let (tags, mut count) = (Counted::begin(out, MAP), 0);
        while self.peek() == Some(b',') {
            self.key(out)?;
            self.text_up_to(KEY, out, &"a tag without a value")?;
            count += 1;
        }
        tags.end(out, count);
        self.space(&"a line without fields")?;
        string(out, "fields");
        let (fields, mut count) = (Counted::begin(out, MAP), 0);
        loop {
            self.at -= usize::from(count == 0);
            self.key(out)?;
            self.value(out)?;
            count += 1;
            if self.peek() != Some(b',') {
                break;
            }
        }
        fields.end(out, count);
        if self.peek() == Some(b' ') {
            self.spaces();
        }
        if let Some(b'0'..=b'9' | b'-') = self.peek() {
            let (start, word) = (self.at, self.word());
            let time = word.parse::<i64>().map_err(|_| Malformed::new(&"a timestamp that is none", start))?;
            string(out, "timestamp");
            // Writing to a vector cannot fail.
            let _ = rmp::encode::write_sint(out, time);
            out[entries] = FEW + 4;
            self.spaces();
        }
        match self.peek() {
            None | Some(b'\n' | 0) => Ok(()),
            Some(b'\r') if self.text[self.at..].starts_with("\r\n") || self.at + 1 == self.text.len() => {
                Ok(())
            }
            Some(_) => Err(self.fault(&"something after the fields that is no timestamp")),
        }
    }

    /// Passes over the separator, and appends the key that ends with `=`.
    fn key(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.at += 1;
        self.text_up_to(KEY, out, &"a key that is missing")?;
        if self.peek() != Some(b'=') {
            return Err(self.fault(&"a key without a value"));
        }
        self.at += 1;
        Ok(())
    }

    /// Appends the text up to one of `ends`, of which there must be something.
    fn text_up_to(&mut self, ends: &[u8], out: &mut Vec<u8>, empty: Wording) -> Result<(), Malformed> {
        let (start, escaped) = (self.at, self.pass(|byte| ends.contains(&byte) || byte == b'\n', ends));
        if self.at == start {
            return Err(self.fault(empty));
        }
        unescaped(out, &self.text[start..self.at], ends, escaped);
        Ok(())
    }

    /// Passes over what comes before a byte that `ends` it and is not escaped; whether there are escapes.
    fn pass(&mut self, ends: impl Fn(u8) -> bool, escapes: &[u8]) -> bool {
        let (bytes, mut found) = (self.text.as_bytes(), false);
        while let Some(byte) = self.peek().filter(|byte| *byte == b'\\' || !ends(*byte)) {
            let pair = byte == b'\\' && bytes.get(self.at + 1).is_some_and(|next| escapes.contains(next));
            found |= pair;
            self.at += 1 + usize::from(pair);
        }
        found
    }

    fn value(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.peek() == Some(b'"') {
            self.at += 1;
            let (start, escaped) = (self.at, self.pass(|byte| byte == b'"', QUOTED));
            if self.peek().is_none() {
                return Err(Malformed::new(&"a quote that is not closed", start - 1));
            }
            unescaped(out, &self.text[start..self.at], QUOTED, escaped);
            self.at += 1;
            return Ok(());
        }
        let (start, word) = (self.at, self.word());
        let digits = word.trim_start_matches('-').trim_end_matches(['i', 'u']);
        let is_whole = digits.len() < word.len()
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        let what: Wording = if is_whole {
            &"a whole number out of range"
        } else {
            &"a value that is no number, boolean or quoted text"
        };
        scalar(out, word).ok_or(Malformed::new(what, start))
    }

    /// The characters up to the next separator.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let word = &rest[..rest.find([',', ' ', '\n', '\r', '\0']).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn space(&mut self, missing: Wording) -> Result<(), Malformed> {
        if self.peek() != Some(b' ') {
            return Err(self.fault(missing));
        }
        self.spaces();
        match self.peek() {
            None | Some(b'\n' | b'\r') => Err(self.fault(missing)),
            Some(_) => Ok(()),
        }
    }

    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }
}

/// Appends a number or a boolean.
fn scalar(out: &mut Vec<u8>, word: &str) -> Option<()> {
    // Writing to a vector cannot fail.
    match word {
        "t" | "T" | "true" | "True" | "TRUE" => drop(rmp::encode::write_bool(out, true)),
        "f" | "F" | "false" | "False" | "FALSE" => drop(rmp::encode::write_bool(out, false)),
        _ => {
            if let Some(digits) = word.strip_suffix('i') {
                drop(rmp::encode::write_sint(out, digits.parse().ok()?));
            } else if let Some(digits) = word.strip_suffix('u') {
                drop(rmp::encode::write_uint(out, digits.parse().ok()?));
            } else {
                let is_number = |byte: u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let number = word.bytes().all(is_number).then(|| word.parse::<f64>().ok()).flatten();
                drop(rmp::encode::write_f64(out, number.filter(|number| number.is_finite())?));
            }
        }
    }
    Some(())
}

/// Appends `text` without the backslashes before what is escaped by one.
fn unescaped(out: &mut Vec<u8>, text: &str, escapes: &[u8], has_some: bool) {
    if !has_some {
        return string(out, text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().and_then(|next| u8::try_from(*next).ok());
        if character == '\\' && next.is_some_and(|next| escapes.contains(&next)) {
            plain.extend(characters.next());
        } else {
            plain.push(character);
        }
    }
    string(out, &plain);
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to a vector cannot fail.
    let _ = rmp::encode::write_str(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn packed(text: &str) -> Result<Value, Unpacked> {
        let mut out = Vec::new();
        pack(text.as_bytes(), 1 << 20, &mut out)?;
        Ok(rmp_serde::from_slice(&out).unwrap())
    }

    #[test]
    fn a_line_becomes_a_map_as_in_telegrafs_json() {
        let line = "cpu,host=web-1,cpu=cpu0 usage_idle=98.5,busy=3i,up=t,note=\"a \\\"b\\\", c=d\" \
                    1730000000000000000\n";
        assert_eq!(
            packed(line).unwrap(),
            json!([{
                "name": "cpu",
                "tags": {"host": "web-1", "cpu": "cpu0"},
                "fields": {"usage_idle": 98.5, "busy": 3, "up": true, "note": "a \"b\", c=d"},
                "timestamp": 1_730_000_000_000_000_000_i64,
            }])
        );
    }

    #[test]
    fn every_form_of_a_value_keeps_its_type() {
        for (text, value) in [
            ("1", json!(1.0)),
            ("-1.5e3", json!(-1500.0)),
            (".5", json!(0.5)),
            ("-7i", json!(-7)),
            ("18446744073709551615u", json!(u64::MAX)),
            ("TRUE", json!(true)),
            ("f", json!(false)),
            ("\"\"", json!("")),
            ("\"1\"", json!("1")),
            ("\"two\nlines\"", json!("two\nlines")),
            ("\"back\\slash\\\\\"", json!("back\\slash\\")),
            ("\"é\"", json!("é")),
        ] {
            assert_eq!(packed(&format!("m v={text}")).unwrap()[0]["fields"]["v"], value, "{text}");
        }
    }

    #[test]
    fn escapes_comments_blank_lines_and_line_ends_are_as_in_influxdb() {
        let text = "# a comment\n\nmy\\ disk\\,1=x,path=C:\\ a\\=b\\,c free\\ space=1i\r\n  m v=1i 5 \n";
        assert_eq!(
            packed(text).unwrap(),
            json!([
                {"name": "my disk,1=x", "tags": {"path": "C: a=b,c"}, "fields": {"free space": 1}},
                {"name": "m", "tags": {}, "fields": {"v": 1}, "timestamp": 5},
            ])
        );
        assert_eq!(packed("m v=1i\0").unwrap(), json!([{"name": "m", "tags": {}, "fields": {"v": 1}}]));
    }

    #[test]
    fn what_is_no_line_says_why_and_where() {
        for (text, what, at) in [
            ("", "the payload is empty", 0),
            ("# only a comment", "there is no line but comments", 0),
            (",a=b v=1", "a line that begins with a comma has no measurement", 0),
            ("m", "a line without fields", 1),
            ("m ", "a line without fields", 2),
            ("m,a=b", "a line without fields", 5),
            ("m,a v=1", "a key without a value", 3),
            ("m,a= v=1", "a tag without a value", 4),
            ("m,=b v=1", "a key that is missing", 2),
            ("m v", "a key without a value", 3),
            ("m v=", "a value that is no number, boolean or quoted text", 4),
            ("m v=nan", "a value that is no number, boolean or quoted text", 4),
            ("m v=1e999", "a value that is no number, boolean or quoted text", 4),
            ("m v=99999999999999999999i", "a whole number out of range", 4),
            ("m v=-1u", "a whole number out of range", 4),
            ("m v=i", "a value that is no number, boolean or quoted text", 4),
            ("m v=\"open", "a quote that is not closed", 4),
            ("m v=1 x", "something after the fields that is no timestamp", 6),
            ("m v=1 99999999999999999999", "a timestamp that is none", 6),
            ("m v=1,", "a key that is missing", 6),
            ("{\"a\": 1}", "a key without a value", 8),
        ] {
            let Unpacked::Malformed(found) = packed(text).unwrap_err() else { panic!("{text}") };
            assert_eq!((*found.what, found.at), (what, at), "{text}");
        }
        let mut out = Vec::new();
        assert_eq!(
            pack(b"m v=\"\xff\"", 100, &mut out),
            Err(Unpacked::Malformed(Malformed { what: &"not UTF-8", at: 5 }))
        );
    }

    #[test]
    fn it_ends_at_its_bound() {
        let (text, mut out) = ("m v=1i\n".repeat(1_000), Vec::new());
        assert_eq!(pack(text.as_bytes(), 1_000, &mut out), Err(Unpacked::TooLarge));
        assert!(out.len() < 1_100, "{}", out.len());
    }
}
