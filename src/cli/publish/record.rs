//! Reads records from NDJSON and CSV, and turns them into messages.
//!
//! Guarantees: a bad record is reported with its line, and the records after it are read. CSV has no types:
//! what a field means is inferred from its text.

use std::io::{self, BufRead, BufReader, Read};

use serde_json::{Map, Number, Value};

use super::Input;

/// A record of the input.
#[derive(Debug)]
pub(super) struct Record {
    line: u64,
    fields: Map<String, Value>,
    /// The line as it was written, where that is JSON.
    source: Option<String>,
}

/// A record that cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Its line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl Record {
    pub(super) fn from_json(line: u64, text: &str) -> Result<Self, BadRecord> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self { line, fields, source: Some(text.to_owned()) }),
            Ok(_) => Err(BadRecord { line, reason: "not a JSON object".into() }),
            Err(error) => Err(BadRecord { line, reason: format!("not JSON: {error}") }),
        }
    }

    pub(super) fn bad(&self, reason: String) -> BadRecord {
        BadRecord { line: self.line, reason }
    }

    /// A field as text; dots reach into nested objects where no field has the whole name.
    pub(super) fn text(&self, name: &str) -> Result<String, String> {
        let nested = || {
            let mut tokens = name.split('.');
            let first = self.fields.get(tokens.next()?)?;
            tokens.try_fold(first, |value, token| value.get(token))
        };
        match self.fields.get(name).or_else(nested) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Bool(value)) => Ok(value.to_string()),
            Some(Value::Null) | None => Err(format!("field {name:?} is missing or null")),
            Some(Value::Array(_) | Value::Object(_)) => Err(format!("field {name:?} is not a single value")),
        }
    }

    /// As JSON; a record that came as JSON goes as it was written.
    pub(super) fn json(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            Some(source) => Ok(source.clone().into_bytes()),
            None => serde_json::to_vec(&self.fields).map_err(|error| error.to_string()),
        }
    }

    /// As MessagePack.
    pub(super) fn msgpack(&self) -> Result<Vec<u8>, String> {
        rmp_serde::to_vec_named(&self.fields).map_err(|error| error.to_string())
    }

    /// As CBOR.
    pub(super) fn cbor(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        ciborium::into_writer(&self.fields, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// The records of an input: outside, whether it could be read; inside, whether the record is good.
pub(super) enum Records<R: Read> {
    Ndjson { reader: BufReader<R>, line: u64 },
    Csv { reader: Box<csv::Reader<R>>, names: Option<csv::StringRecord> },
}

impl<R: Read> Records<R> {
    pub(super) fn new(input: Input, reader: R) -> Self {
        match input {
            Input::Ndjson => Self::Ndjson { reader: BufReader::new(reader), line: 0 },
            Input::Csv => Self::Csv { reader: Box::new(csv::Reader::from_reader(reader)), names: None },
        }
    }
}

impl<R: Read> Iterator for Records<R> {
    type Item = io::Result<Result<Record, BadRecord>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Ndjson { reader, line } => next_json(reader, line).transpose(),
            Self::Csv { reader, names } => next_csv(reader, names).transpose(),
        }
    }
}

/// The next line that is not blank.
fn next_json(
    reader: &mut BufReader<impl Read>,
    line: &mut u64,
) -> io::Result<Option<Result<Record, BadRecord>>> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        *line += 1;
        return Ok(Some(match std::str::from_utf8(&bytes) {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => Record::from_json(*line, text.trim()),
            Err(_) => Err(BadRecord { line: *line, reason: "not UTF-8".into() }),
        }));
    }
}

fn next_csv(
    reader: &mut csv::Reader<impl Read>,
    names: &mut Option<csv::StringRecord>,
) -> io::Result<Option<Result<Record, BadRecord>>> {
    if names.is_none() {
        match reader.headers() {
            Ok(headers) => *names = Some(headers.clone()),
            Err(error) => return bad_csv(error, 1),
        }
    }
    let mut row = csv::StringRecord::new();
    let fallback = reader.position().line();
    match reader.read_record(&mut row) {
        Ok(false) => Ok(None),
        Ok(true) => {
            let line = row.position().map_or(fallback, csv::Position::line);
            let fields = names.iter().flatten().zip(&row).map(|(name, text)| (name.to_owned(), infer(text)));
            Ok(Some(Ok(Record { line, fields: fields.collect(), source: None })))
        }
        Err(error) => bad_csv(error, fallback),
    }
}

fn bad_csv(error: csv::Error, line: u64) -> io::Result<Option<Result<Record, BadRecord>>> {
    let line = error.position().map_or(line, csv::Position::line);
    let text = error.to_string();
    let reason = match error.into_kind() {
        csv::ErrorKind::Io(error) => return Err(error),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".into(),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header row has {expected_len}")
        }
        _ => text,
    };
    Ok(Some(Err(BadRecord { line, reason })))
}

/// What a CSV field means. A number that would lose digits stays text, and so does one that JSON would not
/// take (`007`, `+1`): such are names more often than amounts.
fn infer(text: &str) -> Value {
    match text {
        "" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    let is_whole = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    match serde_json::from_str::<Number>(text) {
        Ok(number) if !is_whole || number.is_i64() || number.is_u64() => Value::Number(number),
        Ok(_) | Err(_) => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fraction_in_csv_keeps_its_last_digit() {
        assert_eq!(
            infer("92.27798059999999").as_f64().map(f64::to_bits),
            Some(92.277_980_599_999_99_f64.to_bits())
        );
    }

    fn read(input: Input, text: &[u8]) -> Vec<Result<Value, BadRecord>> {
        Records::new(input, text)
            .map(|record| record.unwrap().map(|record| Value::Object(record.fields)))
            .collect()
    }

    #[test]
    fn csv_fields_are_numbers_booleans_null_or_text() {
        let text = b"a,b,c,d,e\n1,-2.5,true,,x\n007,1e3,\"q,\"\"z\",99999999999999999999,NaN\n";
        assert_eq!(
            read(Input::Csv, text),
            [
                Ok(json!({"a": 1, "b": -2.5, "c": true, "d": null, "e": "x"})),
                Ok(json!({"a": "007", "b": 1000.0, "c": "q,\"z", "d": "99999999999999999999", "e": "NaN"})),
            ]
        );
    }

    #[test]
    fn a_bad_record_is_named_by_its_line_and_the_ones_after_it_are_read() {
        let lines = read(Input::Ndjson, b"{\"a\":1}\n\n[1]\n{\"a\":\n\xff\n{\"a\":2}");
        let bad: Vec<u64> = lines.iter().filter_map(|line| line.as_ref().err()).map(|bad| bad.line).collect();
        assert_eq!(bad, [3, 4, 5]);
        assert_eq!(lines.last(), Some(&Ok(json!({"a": 2}))));

        let rows = read(Input::Csv, b"a,b\n1,2\n3\n4,5\n");
        let bad = rows[1].as_ref().unwrap_err();
        assert_eq!((bad.line, bad.reason.as_str()), (3, "1 fields where the header row has 2"));
        assert_eq!(rows[2], Ok(json!({"a": 4, "b": 5})));
    }

    #[test]
    fn json_goes_out_as_it_was_written() {
        let text = r#"{"z": 1.50, "a": 12345678901234567890123}"#;
        assert_eq!(Record::from_json(1, text).unwrap().json().unwrap(), text.as_bytes());
    }

    #[test]
    fn messagepack_says_the_same_as_the_json() {
        let record =
            Record::from_json(1, r#"{"n":18446744073709551615,"f":0.1,"l":[null,true,{"s":"ü"}]}"#).unwrap();
        let back: Value = rmp_serde::from_slice(&record.msgpack().unwrap()).unwrap();
        assert_eq!(back, Value::Object(record.fields));
    }
}
