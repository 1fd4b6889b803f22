//! What the fields of messages were, in those that were looked at.
//!
//! Guarantees: memory is bounded: of texts, so many different ones are kept; of objects, so many fields.

use std::collections::BTreeSet;

use serde_json::Value;

/// Different texts that are kept of a field.
const MOST_TEXTS: usize = 100;

/// Fields of an object that is taken for a structure; one with more is a map, whose keys are data.
pub(super) const MOST_FIELDS: usize = 64;

/// Up to here, `double precision` holds every whole number (IEEE 754: 53 bits).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Units of times in numbers, and how many of each are a second.
const UNITS: [(&str, f64); 4] = [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)];

/// Seconds from now within which a number is taken for a time: ten years.
const NEAR: f64 = 10.0 * 366.0 * 86_400.0;

/// What names of times end with.
const POINTS: [&str; 20] = [
    "time",
    "timestamp",
    "ts",
    "datetime",
    "date",
    "at",
    "when",
    "epoch",
    "created",
    "updated",
    "modified",
    "changed",
    "seen",
    "update",
    "expires",
    "expiry",
    "since",
    "until",
    "start",
    "end",
];

/// Words in names of times that something took.
const SPANS: [&str; 19] = [
    "cpu",
    "io",
    "up",
    "run",
    "uptime",
    "runtime",
    "downtime",
    "lifetime",
    "response",
    "wait",
    "elapsed",
    "processing",
    "load",
    "idle",
    "busy",
    "duration",
    "latency",
    "total",
    "spent",
];

/// How deep objects are looked into.
const DEEPEST: usize = 4;

/// A field, or a message as a whole, over all messages.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often it was there and not null.
    pub(super) present: u64,
    nulls: u64,
    pub(super) booleans: u64,
    pub(super) integers: u64,
    pub(super) floats: u64,
    /// Whole numbers that `double precision` does not tell apart, and of these, those that are no `bigint`.
    pub(super) long: u64,
    pub(super) beyond: u64,
    pub(super) texts: u64,
    /// Texts that are times in RFC 3339.
    pub(super) times: u64,
    pub(super) objects: u64,
    pub(super) arrays: u64,
    /// Least and greatest number.
    pub(super) range: Option<(f64, f64)>,
    /// Different texts, up to a bound.
    pub(super) different: BTreeSet<String>,
    /// The fields of objects, in the order in which they were seen first.
    pub(super) fields: Vec<(String, Seen)>,
    /// Whether there were more fields than are kept.
    pub(super) is_map: bool,
    /// All elements of arrays.
    pub(super) elements: Option<Box<Seen>>,
}

impl Seen {
    /// Adds a value that a message had.
    pub(crate) fn add(&mut self, value: &Value) {
        self.add_at(value, 0);
    }

    fn add_at(&mut self, value: &Value, depth: usize) {
        self.present += u64::from(!value.is_null());
        match value {
            Value::Null => self.nulls += 1,
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) => {
                let whole = number.is_i64();
                self.integers += u64::from(whole);
                self.floats += u64::from(!whole);
                let value = number.as_f64().unwrap_or(0.0);
                // So large a float has no fraction.
                let long = value.abs() >= EXACT;
                self.long += u64::from(long);
                self.beyond += u64::from(long && !whole);
                let (least, most) = self.range.unwrap_or((value, value));
                self.range = Some((least.min(value), most.max(value)));
            }
            Value::String(text) => {
                self.texts += 1;
                self.times += u64::from(is_time(text));
                if self.different.len() <= MOST_TEXTS {
                    self.different.insert(text.clone());
                }
            }
            Value::Array(elements) => {
                self.arrays += 1;
                let of_elements = self.elements.get_or_insert_default();
                if depth < DEEPEST {
                    for element in elements {
                        of_elements.add_at(element, depth + 1);
                    }
                } else {
                    self.is_map = true;
                }
            }
            Value::Object(fields) => {
                self.objects += 1;
                self.is_map |= depth >= DEEPEST || fields.is_empty();
                for (name, value) in fields.iter().filter(|_| depth < DEEPEST) {
                    match self.field(name) {
                        Some(seen) => seen.add_at(value, depth + 1),
                        None => self.is_map = true,
                    }
                }
            }
        }
    }

    /// A field, also one that was not there before, unless there are too many.
    fn field(&mut self, name: &str) -> Option<&mut Self> {
        let known = self.fields.iter().position(|(known, _)| known == name);
        if known.is_none() && self.fields.len() < MOST_FIELDS {
            self.fields.push((name.to_owned(), Self::default()));
        }
        let place = known.unwrap_or(self.fields.len() - 1);
        self.fields.get_mut(place).filter(|(known, _)| known == name).map(|(_, seen)| seen)
    }

    /// Whether every value that was there was counted in `kind`.
    pub(super) fn is_all(&self, kind: u64) -> bool {
        kind > 0 && kind == self.present
    }

    /// Whether it is an object with fields of its own, each time.
    pub(super) fn is_structure(&self) -> bool {
        self.is_all(self.objects) && !self.is_map
    }

    /// Whether it is an array of such objects, each time.
    pub(super) fn is_list_of_structures(&self) -> bool {
        self.is_all(self.arrays)
            && self.elements.as_ref().is_some_and(|elements| {
                elements.is_all(elements.objects) && elements.nulls == 0 && !elements.is_map
            })
    }

    /// Whether whole numbers would become others as `double precision`, and `bigint` does not take all.
    pub(super) fn needs_numeric(&self) -> bool {
        self.beyond > 0 || (self.floats > 0 && self.long > 0)
    }

    /// The unit of numbers that are times of an event, by the field's name and their size.
    pub(super) fn unit_of(&self, name: &str) -> Option<&'static str> {
        let (said, is_time) = said_of_time(name);
        let (unit, scale) = self.unit_by_size().filter(|(unit, _)| said.is_none_or(|said| said == *unit))?;
        let (least, most) = self.range?;
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        let near = |value: f64| (value / scale - now).abs() < NEAR;
        (is_time && near(least) && near(most)).then_some(unit)
    }

    /// The unit of whole numbers that are times, by their size: between the years 2000 and 2100.
    pub(super) fn unit(&self) -> Option<&'static str> {
        self.unit_by_size().map(|(unit, _)| unit)
    }

    fn unit_by_size(&self) -> Option<(&'static str, f64)> {
        let (least, most) = self.range?;
        let fits = |scale: f64| least >= 946_684_800.0 * scale && most < 4_102_444_800.0 * scale;
        let whole = self.is_all(self.integers) || self.is_all(self.integers + self.floats);
        UNITS.into_iter().find(|(_, scale)| whole && fits(*scale))
    }
}

/// Whether a text is a time with its offset.
fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.as_bytes()[4] == b'-' && text.parse::<jiff::Timestamp>().is_ok()
}

/// The unit that a field's name ends with, and whether the name says that it is a time: a point of it, not
/// how long something took.
fn said_of_time(name: &str) -> (Option<&'static str>, bool) {
    let name = super::names::snake(name);
    let words: Vec<&str> = name.split('_').collect();
    let unit = match words.last() {
        Some(&("s" | "sec" | "secs" | "seconds")) => Some("s"),
        Some(&("ms" | "millis" | "milliseconds")) => Some("ms"),
        Some(&("us" | "micros" | "microseconds")) => Some("us"),
        Some(&("ns" | "nanos" | "nanoseconds")) => Some("ns"),
        _ => None,
    };
    let words = if unit.is_some() { &words[..words.len() - 1] } else { &words[..] };
    let Some(last) = words.last() else { return (unit, unit.is_some()) };
    let is_span = words.iter().any(|word| SPANS.contains(word));
    let is_time = POINTS.contains(last) || last.ends_with("timestamp") || last.ends_with("time");
    (unit, is_time && !is_span)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(values: &[Value]) -> Seen {
        let mut seen = Seen::default();
        for value in values {
            seen.add(value);
        }
        seen
    }

    #[test]
    fn units_of_times_show_by_their_size_and_other_numbers_have_none() {
        for (values, unit) in [
            ([json!(1_700_000_000), json!(1_800_000_000)], Some("s")),
            ([json!(1_700_000_000_123_u64), json!(1_700_000_000_000_u64)], Some("ms")),
            ([json!(1_700_000_000_123_456_u64), json!(1_700_000_000_000_000_u64)], Some("us")),
            ([json!(1_700_000_000_123_456_789_u64), json!(1_700_000_000_000_000_000_u64)], Some("ns")),
            ([json!(1_700_000_000.5), json!(1_700_000_000)], Some("s")),
            ([json!(1_700_000_000), json!(1_700_000_000_123_u64)], None),
            ([json!(7), json!(8)], None),
            ([json!(1_700_000_000), json!("1700000000")], None),
        ] {
            assert_eq!(seen(&values).unit(), unit, "{values:?}");
        }
    }

    #[test]
    fn numbers_are_times_where_the_name_and_the_size_say_so() {
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
        for (name, value, unit) in [
            ("ts", now, Some("s")),
            ("ts_s", now, Some("s")),
            ("measuredAt", now * 1_000, Some("ms")),
            ("lastUpdated", now * 1_000, Some("ms")),
            ("expiry", now + 86_400, Some("s")),
            ("time_ns", now * 1_000_000_000, Some("ns")),
            ("ns", now * 1_000_000_000, Some("ns")),
            ("io_time", now, None),
            ("uptime_ms", now * 1_000, None),
            ("response_time_ns", 1_500_000_000, None),
            ("time_ms", now, None),
            ("time", 1_234_567_890 - 365 * 86_400, None),
            ("count", now, None),
        ] {
            assert_eq!(seen(&[json!(value)]).unit_of(name), unit, "{name} {value}");
        }
    }

    #[test]
    fn whole_numbers_that_would_not_be_told_apart_need_numeric() {
        for (values, numeric) in [
            (vec![json!(i64::MAX), json!(1)], false),
            (vec![json!(u64::MAX)], true),
            (vec![json!(9_007_199_254_740_993_u64), json!(0.5)], true),
            (vec![json!(1e20)], true),
            (vec![json!(1), json!(0.5)], false),
        ] {
            assert_eq!(seen(&values).needs_numeric(), numeric, "{values:?}");
        }
    }

    #[test]
    fn objects_are_structures_unless_they_have_too_many_or_no_fields() {
        assert!(seen(&[json!({"a": 1}), json!(null), json!({"b": 2})]).is_structure());
        assert!(!seen(&[json!({"a": 1}), json!(7)]).is_structure());
        assert!(!seen(&[json!({})]).is_structure());
        let many: Vec<Value> = (0..=MOST_FIELDS).map(|key| json!({key.to_string(): 1})).collect();
        assert!(!seen(&many).is_structure());
        assert!(seen(&[json!([{"a": 1}]), json!([])]).is_list_of_structures());
        assert!(!seen(&[json!([{"a": 1}, 7])]).is_list_of_structures());
        assert!(!seen(&[json!([])]).is_list_of_structures());
        assert!(!seen(&[json!([{"a": 1}, null])]).is_list_of_structures());
    }

    #[test]
    fn texts_that_are_times_are_told_from_others() {
        let times = seen(&[json!("2026-07-01T12:00:00Z"), json!("2026-07-01T12:00:00.5+02:00")]);
        assert!(times.is_all(times.times));
        for text in ["2026-07-01", "2026-07-01T12:00:00", "äääääääääää", "aaaa-aaaaaaaaaaaaaaaaa"]
        {
            assert_eq!(seen(&[json!(text)]).times, 0, "{text}");
        }
    }
}
