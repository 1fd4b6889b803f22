//! Which messages a table takes.
//!
//! Guarantees: it is decided by the subject, the headers and the message's fields alone, before anything is
//! made of the message, and allocates nothing once its scratch buffer has grown. What subject and headers
//! rule out is ruled out before the payload is looked at, so that it may be anything.

use async_nats::HeaderMap;

use crate::config::path;
use crate::config::{self, HeaderIs};

use super::header_values;
use super::walk::Wanted;
use crate::message::Message;
use crate::payload::Value;
use crate::payload::json;

/// `when`
#[derive(Debug)]
pub(super) struct When {
    subject: Option<String>,
    headers: Vec<(String, HeaderIs)>,
    field: Option<Field>,
    /// Whether the field is one of each element, rather than of the message.
    of_element: bool,
}

#[derive(Debug)]
struct Field {
    slot: usize,
    /// What it may be; `None` for anything but null.
    values: Option<Vec<Literal>>,
}

/// A value that a field is compared with.
#[derive(Debug)]
enum Literal {
    Text(String),
    Whole(i128),
    Bool(bool),
}

impl When {
    /// Its field lies in what `wanted` is of: each element, or the message.
    pub(super) fn new(when: &config::When, wanted: &mut Wanted, of_element: bool) -> Result<Self, String> {
        let field = match &when.field {
            None => None,
            Some(path) => Some(Field {
                slot: wanted.read(&path::path_of(path)?),
                values: when.equals.as_ref().map(literals).transpose()?,
            }),
        };
        let headers = when.headers.iter().map(|(name, is)| (name.clone(), is.clone())).collect();
        Ok(Self { subject: when.subject.clone(), headers, field, of_element })
    }

    /// Whether it may hold, by all but the payload.
    pub(super) fn may_hold(&self, message: &Message) -> bool {
        self.subject.as_deref().is_none_or(|pattern| matches(pattern, &message.subject))
            && self.headers.iter().all(|(name, is)| is_so(message.headers.as_ref(), name, is))
    }

    /// Whether it goes by headers.
    pub(super) fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Whether it holds for a message for which it may hold.
    pub(super) fn holds(&self, slots: &[Option<Value<'_>>], scratch: &mut String) -> bool {
        self.of_element || self.field_holds(slots, scratch)
    }

    /// Whether it holds for an element of a message for which it holds.
    pub(super) fn takes_element(&self, slots: &[Option<Value<'_>>], scratch: &mut String) -> bool {
        !self.of_element || self.field_holds(slots, scratch)
    }

    /// Whether it goes by a field of each element.
    pub(super) fn is_of_element(&self) -> bool {
        self.of_element && self.field.is_some()
    }

    fn field_holds(&self, slots: &[Option<Value<'_>>], scratch: &mut String) -> bool {
        self.field.as_ref().is_none_or(|field| field.holds(slots[field.slot], scratch))
    }
}

/// Whether a header is what it must be; of several of one name, one must.
fn is_so(headers: Option<&HeaderMap>, name: &str, is: &HeaderIs) -> bool {
    let mut values = headers.into_iter().flat_map(|headers| header_values(headers, name));
    match is {
        HeaderIs::There(there) => values.next().is_some() == *there,
        HeaderIs::OneOf(texts) => values.any(|value| texts.iter().any(|text| text == value)),
    }
}

impl Field {
    fn holds(&self, value: Option<Value<'_>>, scratch: &mut String) -> bool {
        let value = match value {
            None | Some(Value::Null) => return false,
            Some(Value::Escaped(text)) if self.values.is_some() => {
                scratch.clear();
                if json::unescape(text, scratch).is_err() {
                    return false;
                }
                Value::Str(scratch)
            }
            Some(value) => value,
        };
        let Some(values) = &self.values else { return true };
        values.iter().any(|literal| match (literal, value) {
            (Literal::Text(text), Value::Str(found)) => text == found,
            (Literal::Whole(number), Value::Int(found)) => *number == i128::from(found),
            (Literal::Whole(number), Value::Uint(found)) => *number == i128::from(found),
            (Literal::Bool(value), Value::Bool(found)) => *value == found,
            (Literal::Text(_) | Literal::Whole(_) | Literal::Bool(_), _) => false,
        })
    }
}

/// One value, or those of an array.
fn literals(value: &figment::value::Value) -> Result<Vec<Literal>, String> {
    use figment::value::Value as Setting;
    let literal = |value: &Setting| match value {
        Setting::String(_, text) => Ok(Literal::Text(text.clone())),
        Setting::Bool(_, value) => Ok(Literal::Bool(*value)),
        Setting::Num(_, number) => {
            let whole = number.to_i128().or_else(|| number.to_u128().and_then(|whole| whole.try_into().ok()));
            whole.map(Literal::Whole).ok_or_else(|| "equals: fractions cannot be compared".to_owned())
        }
        Setting::Char(..) | Setting::Dict(..) | Setting::Array(..) | Setting::Empty(..) => {
            Err("equals: must be text, a whole number, true or false, or an array of them".to_owned())
        }
    };
    match value {
        Setting::Array(_, values) if !values.is_empty() => values.iter().map(literal).collect(),
        other => Ok(vec![literal(other)?]),
    }
}

/// Whether `subject` matches `pattern`, in which `*` stands for a token and `>` for one or more at the end.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            (_, Some(_) | None) => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_matches_as_it_would_in_nats() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a.*.c", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("*", "a", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("a.b*", "a.b*", true),
            ("a.b*", "a.bc", false),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
