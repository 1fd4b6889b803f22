//! A file with cases: what a message is, and what it should become.
//!
//! Guarantees: an unknown key is refused, with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format as _, Toml};
use figment::value::Value;
use serde::Deserialize;

use crate::config;

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The tables, as `jetcopy check --save-schema` wrote them; relative to this file.
    pub(super) schema: Option<PathBuf>,
    #[serde(rename = "case", default)]
    pub(super) cases: Vec<Case>,
}

/// `[[case]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// Where the configuration has one only, it need not be said.
    pub(super) pipeline: Option<String>,
    #[serde(default = "subject")]
    pub(super) subject: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default = "one")]
    pub(super) sequence: u64,
    /// When the stream stored it, in RFC 3339.
    pub(super) timestamp: Option<String>,
    /// The message as a table; of a bare value, that value.
    pub(super) message: Option<Value>,
    /// The same as JSON, which need not be valid.
    pub(super) json: Option<String>,
    pub(super) base64: Option<String>,
    /// A file with the payload; relative to this one.
    pub(super) file: Option<PathBuf>,
    /// What `message` and `json` are encoded in; as the pipeline where it is not said.
    pub(super) format: Option<config::Format>,
    /// Table → its rows, of which columns that are left out may be anything.
    #[serde(default)]
    pub(super) rows: BTreeMap<String, Vec<BTreeMap<String, Value>>>,
    #[serde(default)]
    pub(super) dead_letter: Vec<DeadLetter>,
}

/// `[[case.dead_letter]]`: what is said must be so.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetter {
    pub(super) kind: Option<String>,
    /// Part of the reason.
    pub(super) reason: Option<String>,
    pub(super) table: Option<String>,
    pub(super) column: Option<String>,
    pub(super) element: Option<u32>,
}

fn subject() -> String {
    "test".to_owned()
}

fn one() -> u64 {
    1
}

/// A file that is none of cases.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}", file = .file.display())]
pub(super) struct Invalid {
    file: PathBuf,
    problem: String,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<File, Invalid> {
    let invalid = |problem: String| Invalid { file: path.to_owned(), problem };
    // Else a file that is not there is an empty one.
    let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
    let file: File = Figment::from(Toml::string(&text)).extract().map_err(|error| {
        let key = error.path.join(".");
        let place = if key.is_empty() { String::new() } else { format!("{key}: ") };
        invalid(format!("{place}{}", error.kind))
    })?;
    if file.cases.is_empty() {
        return Err(invalid("it has no [[case]]".to_owned()));
    }
    Ok(file)
}
