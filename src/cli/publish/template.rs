//! Subjects with fields in them: `frames.{camera_id}`.
//!
//! Guarantees: the result is a valid subject, or an error; a field's value fills exactly one token.

use super::record::Record;

/// A subject, cut into its pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    pub(super) fn parse(subject: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut rest = subject;
        while let Some((text, after)) = rest.split_once('{') {
            let (field, after) = after.split_once('}').ok_or("has a { without a }")?;
            if field.is_empty() || field.contains('{') {
                return Err("has a {} without a field name");
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            pieces.push(Piece::Field(field.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err("has a } without a {");
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let sample: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Field(_) => "x",
            })
            .collect();
        if sample.is_empty() || sample.split('.').any(|token| !is_token(token)) {
            return Err("is not a valid subject: it needs tokens separated by dots, without spaces, * and >");
        }
        Ok(Self(pieces))
    }

    /// The subject of one record. A field fills one token: with a dot it would change what every later token
    /// means.
    pub(super) fn render(&self, record: &Record) -> Result<String, String> {
        let mut subject = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => subject += text,
                Piece::Field(field) => {
                    let value = record.text(field)?;
                    if value.contains('.') || !is_token(&value) {
                        return Err(format!("field {field:?} is {value:?}, which is not valid in a subject"));
                    }
                    subject += &value;
                }
            }
        }
        Ok(subject)
    }
}

fn is_token(token: &str) -> bool {
    !token.is_empty()
        && !token.contains(|character: char| {
            character.is_whitespace() || character.is_control() || matches!(character, '*' | '>')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_fill_the_tokens_of_a_subject() {
        let record = Record::from_json(1, r#"{"camera_id":"gate","n":7,"at":{"site":"north"}}"#).unwrap();
        let subject = |template: &str| Template::parse(template).unwrap().render(&record);
        assert_eq!(subject("frames.{camera_id}").unwrap(), "frames.gate");
        assert_eq!(subject("{at.site}.cam-{n}.x").unwrap(), "north.cam-7.x");
        assert_eq!(subject("plain").unwrap(), "plain");
    }

    #[test]
    fn a_value_that_cannot_stand_in_a_subject_is_refused() {
        for value in [r#""a.b""#, r#""a b""#, r#""""#, r#"">""#, "null", "[1]"] {
            let record = Record::from_json(1, &format!(r#"{{"camera_id":{value}}}"#)).unwrap();
            let subject = Template::parse("frames.{camera_id}").unwrap().render(&record);
            assert!(subject.is_err(), "{value}");
        }
        let record = Record::from_json(1, "{}").unwrap();
        let error = Template::parse("frames.{camera_id}").unwrap().render(&record).unwrap_err();
        assert!(error.contains("camera_id"), "{error}");
    }

    #[test]
    fn a_subject_that_cannot_be_published_to_is_refused_before_anything_is_sent() {
        for subject in ["", "a..b", "a.>", "a.*", "a b", "a.{b", "a.}b", "a.{}", ".a"] {
            assert!(Template::parse(subject).is_err(), "{subject:?}");
        }
    }
}
