//! Names: of fields as paths, of columns and tables as SQL and TOML have them.
//!
//! Guarantees: a column's name needs no quotes in a configuration, fits PostgreSQL, and is given
//! once a table.

use std::collections::BTreeSet;

/// Bytes that PostgreSQL keeps of a name, less room for a number.
const LONGEST: usize = 58;

/// A name as columns are called: `cameraId` and `camera-id` as `camera_id`.
pub(super) fn snake(name: &str) -> String {
    let mut text = String::new();
    let mut before = '_';
    for character in name.chars() {
        if character.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
            text.push('_');
        }
        let lower = character.to_ascii_lowercase();
        let kept = if lower.is_ascii_alphanumeric() { lower } else { '_' };
        if !(kept == '_' && text.ends_with('_')) {
            text.push(kept);
        }
        before = character;
    }
    let text = text.trim_matches('_');
    match text.chars().next() {
        None => "field".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("n{text}"),
        Some(_) => text.to_owned(),
    }
}

/// The path of a field below another, as a mapping writes it; `None` where it cannot be written.
pub(super) fn below(path: &str, key: &str) -> Option<String> {
    if key.contains('"') {
        return None;
    }
    let plain = !key.is_empty()
        && !key.starts_with(['$', '^'])
        && !key.contains(|character: char| matches!(character, '.' | '[' | ']') || character.is_whitespace());
    let step = if plain { key.to_owned() } else { format!("\"{key}\"") };
    Some(if path.is_empty() { step } else { format!("{path}.{step}") })
}

/// Names that a table's columns cannot have: the server's own are called so.
const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// The names that were given in one table.
#[derive(Debug)]
pub(super) struct Given(BTreeSet<String>);

impl Default for Given {
    fn default() -> Self {
        Self(SYSTEM.map(str::to_owned).into())
    }
}

impl Given {
    /// A name like `wanted` that was not given yet.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let mut name = snake(wanted);
        name.truncate(LONGEST);
        let mut free = name.clone();
        let mut number = 2;
        while !self.0.insert(free.clone()) {
            free = format!("{name}_{number}");
            number += 1;
        }
        free
    }
}

/// A key as TOML has it.
pub(super) fn toml_key(key: &str) -> String {
    toml_edit::Key::new(key).to_string()
}

/// A text as TOML has it.
pub(super) fn toml_text(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ones_that_need_no_quotes_and_each_is_given_once() {
        for (name, expected) in [
            ("cameraId", "camera_id"),
            ("Camera-ID", "camera_id"),
            ("box[0]", "box_0"),
            ("größe", "gr_e"),
            ("2fast", "n2fast"),
            ("€", "field"),
            ("env.temp", "env_temp"),
        ] {
            assert_eq!(snake(name), expected);
        }
        let mut given = Given::default();
        assert_eq!(given.take("aB"), "a_b");
        assert_eq!(given.take("a_b"), "a_b_2");
        assert_eq!(given.take("ctid"), "ctid_2");
        assert_eq!(given.take(&"x".repeat(99)).len(), LONGEST);
    }

    #[test]
    fn paths_are_ones_that_the_mapping_reads() {
        for key in ["a", "a.b", "$x", "^x", "a b", "a[0]", "größe", ""] {
            let path = below("outer", key).unwrap();
            let steps = crate::config::path::path_of(&path).unwrap();
            assert_eq!(steps.last(), Some(&crate::config::path::Step::Key(key.to_owned())), "{path}");
            crate::config::path::path_of(&below("", key).unwrap()).unwrap();
        }
        assert_eq!(below("", "a\"b"), None);
    }
}
