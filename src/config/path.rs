//! How a mapping names a value: `a.b[0].c`, `^name`, `$subject[1]`.
//! Guarantees: the whole text was understood, or the error says what is wrong and what is expected. It does
//! not know the messages: whether a path ever leads to a value, only they show.

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A field of the message, or of the element under `for_each`.
    Field(Vec<Step>),
    /// `^…`: a field of what is so many levels around the element: of the message, or of the element that the
    /// array lies in.
    Outer(usize, Vec<Step>),
    /// `$subject`
    Subject,
    /// `$subject[n]`: the `n`th token, from 0.
    SubjectToken(usize),
    /// `$element`: the place of the element in its array, from 0.
    Element,
    /// `$sequence`
    Sequence,
    /// `$timestamp`
    Timestamp,
    /// `$header.NAME`
    Header(String),
    /// `$payload`
    Payload,
    /// `$rest`
    Rest,
    /// `$name`: of the field that `unpivot` makes the row of.
    Name,
    /// `$value`: of that field.
    Value,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into the value of a key.
    Key(String),
    /// Into an element of an array, from 0.
    Index(u32),
}

/// What the sources are, for error messages.
const SOURCES: &str =
    "$subject, $subject[n], $element, $sequence, $timestamp, $header.NAME, $payload or $rest";

/// Reads a source.
pub(crate) fn source(text: &str) -> Result<Source, String> {
    if text.starts_with('^') {
        let path = text.trim_start_matches('^');
        return Ok(Source::Outer(text.len() - path.len(), path_of(path)?));
    }
    let Some(name) = text.strip_prefix('$') else {
        return Ok(Source::Field(path_of(text)?));
    };
    match name {
        "subject" => Ok(Source::Subject),
        "element" => Ok(Source::Element),
        "sequence" => Ok(Source::Sequence),
        "timestamp" => Ok(Source::Timestamp),
        "payload" => Ok(Source::Payload),
        "rest" => Ok(Source::Rest),
        "name" => Ok(Source::Name),
        "value" => Ok(Source::Value),
        _ => {
            if let Some(header) = name.strip_prefix("header.").filter(|header| !header.is_empty()) {
                return Ok(Source::Header(header.to_owned()));
            }
            if let Some(token) = name.strip_prefix("subject[").and_then(|rest| rest.strip_suffix(']')) {
                return token.parse().map(Source::SubjectToken).map_err(|_| {
                    format!("`{text}`: tokens of the subject are counted from 0, as in $subject[0]")
                });
            }
            Err(format!(
                "`{text}` is not a value source; use {SOURCES} (write a field whose name starts with $ in \
                 double quotes: \"{text}\")"
            ))
        }
    }
}

/// What `for_each` calls the message itself, where that is an array.
pub(crate) const ROOT: &str = "$";

/// What stands for each element of an array, in the path of an array that lies in them.
const EACH: &str = "[*]";

/// Whether `for_each` goes into the message itself as an array.
pub(crate) fn is_of_root(for_each: &str) -> bool {
    for_each.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with(EACH))
}

/// Reads the path of an array to make rows of: its steps in the message, and those of each array within the
/// elements of the one before. None lead to [`ROOT`].
pub(crate) fn arrays_of(text: &str) -> Result<Vec<Vec<Step>>, String> {
    let all = text.strip_suffix(EACH).unwrap_or(text);
    let (first, mut rest) = match all.strip_prefix(ROOT) {
        Some(rest) if is_of_root(all) => (Vec::new(), rest),
        _ => steps_of(text, all)?,
    };
    let mut arrays = vec![first];
    while let Some(inside) = rest.strip_prefix(EACH) {
        // An element may be the array itself.
        let (steps, after) = if inside.is_empty() || inside.starts_with(EACH) {
            (Vec::new(), inside)
        } else {
            let path = inside.strip_prefix('.').ok_or_else(|| wrong(text, "a dot is missing"))?;
            steps_of(text, path)?
        };
        arrays.push(steps);
        rest = after;
    }
    Ok(arrays)
}

/// Reads a path: keys between dots, indexes in brackets, odd keys in double quotes.
pub(crate) fn path_of(text: &str) -> Result<Vec<Step>, String> {
    match steps_of(text, text)? {
        (steps, "") => Ok(steps),
        _ => Err(wrong(text, "[*] is every element, which only `for_each` goes through")),
    }
}

fn wrong(text: &str, why: &str) -> String {
    format!("`{text}` is not a path: {why} (as in a.b[0].c, or \"odd.key\".c)")
}

/// Reads steps up to the end of `rest`, or to the first [`EACH`]; what then is left. `text` is all of it.
fn steps_of<'t>(text: &str, mut rest: &'t str) -> Result<(Vec<Step>, &'t str), String> {
    if rest.starts_with(['$', '^']) {
        return Err(format!(
            "`{text}` is not a field of the message: name one, such as `detections` (write a field whose \
             name starts like this in double quotes: \"{text}\")"
        ));
    }
    let mut steps = Vec::new();
    loop {
        if let Some(index) = rest.strip_prefix('[') {
            let (digits, after) =
                index.split_once(']').ok_or_else(|| wrong(text, "a bracket is not closed"))?;
            let index = digits.parse().map_err(|_| wrong(text, "an index must be a number from 0"))?;
            steps.push(Step::Index(index));
            rest = after;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (key, after) =
                quoted.split_once('"').ok_or_else(|| wrong(text, "a double quote is not closed"))?;
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        } else {
            let end = rest.find(['.', '[', ']', '"']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            if key.is_empty() {
                return Err(wrong(text, "a name is missing"));
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        }
        if rest.is_empty() || rest.starts_with(EACH) {
            return Ok((steps, rest));
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.starts_with('[') => {}
            None => return Err(wrong(text, "a dot is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn a_path_has_keys_indexes_and_quoted_keys() {
        assert_eq!(path_of("a.b[0].c"), Ok(vec![key("a"), key("b"), Step::Index(0), key("c")]));
        assert_eq!(
            path_of("\"a.b\".c[1][2]"),
            Ok(vec![key("a.b"), key("c"), Step::Index(1), Step::Index(2)])
        );
        assert_eq!(path_of("[3]"), Ok(vec![Step::Index(3)]));
        assert_eq!(path_of("größe"), Ok(vec![key("größe")]));
    }

    #[test]
    fn an_array_may_be_the_message_itself() {
        assert_eq!(arrays_of("$"), Ok(vec![vec![]]));
        assert_eq!(arrays_of("a.b"), Ok(vec![vec![key("a"), key("b")]]));
        assert!(arrays_of("$rest").is_err() && path_of("$").is_err());
    }

    #[test]
    fn an_array_may_lie_in_the_elements_of_another() {
        for (text, arrays) in [
            ("frames[*].detections", vec![vec![key("frames")], vec![key("detections")]]),
            ("frames[*].detections[*]", vec![vec![key("frames")], vec![key("detections")]]),
            (
                "a.b[0][*].\"c.d\"[*].e",
                vec![vec![key("a"), key("b"), Step::Index(0)], vec![key("c.d")], vec![key("e")]],
            ),
            ("$[*].points", vec![vec![], vec![key("points")]]),
            ("$[*]", vec![vec![]]),
            ("rows[*][*]", vec![vec![key("rows")], vec![]]),
            ("rows[*][*].a", vec![vec![key("rows")], vec![], vec![key("a")]]),
        ] {
            assert_eq!(arrays_of(text), Ok(arrays), "{text}");
        }
        for text in ["a[*]b", "a[*].", "[*].a", "a[*].$rest", "a.[*]", "$.a", "a[*]..b", "", "[*]"] {
            assert!(arrays_of(text).is_err(), "{text}");
        }
        assert!(path_of("a[*].b").unwrap_err().contains("only `for_each`"));
    }

    #[test]
    fn a_broken_path_is_refused() {
        for text in
            ["", ".", "a.", "a..b", "a[", "a[x]", "a[-1]", "\"a", "a]b", "a\"b\"", "a[0]b", "$rest", "^a"]
        {
            assert!(path_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_source_of_the_documentation_is_read() {
        assert_eq!(source("$subject"), Ok(Source::Subject));
        assert_eq!(source("$subject[2]"), Ok(Source::SubjectToken(2)));
        assert_eq!(source("$element"), Ok(Source::Element));
        assert_eq!(source("$sequence"), Ok(Source::Sequence));
        assert_eq!(source("$timestamp"), Ok(Source::Timestamp));
        assert_eq!(source("$header.Nats-Msg-Id"), Ok(Source::Header("Nats-Msg-Id".into())));
        assert_eq!(source("$payload"), Ok(Source::Payload));
        assert_eq!(source("$rest"), Ok(Source::Rest));
        assert_eq!(source("$name"), Ok(Source::Name));
        assert_eq!(source("$value"), Ok(Source::Value));
        assert_eq!(source("^time"), Ok(Source::Outer(1, vec![key("time")])));
        assert_eq!(source("^^a.b"), Ok(Source::Outer(2, vec![key("a"), key("b")])));
        assert_eq!(source("\"$rest\""), Ok(Source::Field(vec![key("$rest")])));
    }

    #[test]
    fn an_unknown_source_is_refused_with_the_known_ones() {
        for text in ["$sequense", "$", "$header.", "$subject[x]", "$subject["] {
            assert!(source(text).unwrap_err().contains('$'), "{text}");
        }
    }
}
