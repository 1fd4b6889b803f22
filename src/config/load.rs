//! Layers the settings: defaults, then the file, then the environment, then flags.
//! Guarantees: every problem names its place (file and line, variable or flag) and, for an unknown key, the
//! nearest key that exists. No problem's text contains a value that may be a secret.
//!
//! What no layer sets may come from variables and files of other programs ([`super::others`]).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::origin::Origin;
use super::others::{DATABASE_URL, Others};
use super::{Config, Pipeline};

/// What settings in the environment begin with.
const PREFIX: &str = "JETCOPY_";

/// What nests one key in another in the environment; a single underscore is part of many keys.
const NEST: &str = "__";

/// How alike a known key must be to be suggested (Jaro-Winkler, 0 to 1); below it, suggestions mislead.
const ALIKE: f64 = 0.75;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Settings are invalid; all problems that could be found at once.
    #[error("the configuration is invalid{}", list(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// All of it in one line, for a log.
    #[must_use]
    pub fn one_line(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("{self}: {source}"),
            Self::Invalid(problems) => {
                problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ").replace('\n', " ")
            }
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  " + &problem.to_string())
}

/// One wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File and line, variable, or flag.
    pub place: Option<String>,
    /// The key as a path: `pipeline[0].batch.max_rows`.
    pub key: String,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(formatter, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.text)
    }
}

/// Settings given as flags.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(&'static str, &'static str, String)>);

impl Overrides {
    /// Adds the value of `flag` (`--nats-url`), where it was given, for `key` (`nats.url`).
    #[must_use]
    pub fn with(mut self, flag: &'static str, key: &'static str, value: Option<String>) -> Self {
        self.0.extend(value.map(|value| (flag, key, value)));
        self
    }
}

impl Config {
    /// Loads and validates the settings: defaults, then the file at `path`, then this process's environment,
    /// then `overrides`.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_with(path, std::env::vars_os(), overrides)
    }

    /// The same with the given environment.
    pub(super) fn load_with(
        path: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let file = path.map(File::read).transpose()?;
        let environment: Vec<_> = environment.collect();
        let mut figment = Figment::new();
        if let Some(file) = &file {
            figment = figment.merge(Toml::string(&file.text));
        }
        for layer in from_environment(&environment)? {
            figment = figment.merge(layer);
        }
        for (flag, key, value) in &overrides.0 {
            figment = figment.merge(Layer::new(*flag, key, Value::from(value.clone())));
        }
        let others = Others(&environment);
        if let Some(layer) = others.database(&figment) {
            figment = figment.merge(layer);
        }
        let (layers, unfit) = others.nats(&figment);
        for layer in layers {
            figment = figment.merge(layer);
        }
        let mut config: Self = figment.extract().map_err(|error| {
            ConfigError::Invalid(error.into_iter().map(|error| describe(&error, file.as_ref())).collect())
        })?;
        let place = |key: &str| match figment.find_metadata(key).and_then(outside) {
            Some(name) => Some(name.to_owned()),
            None => file.as_ref().and_then(|file| file.place(&keys(key))),
        };
        let mut problems = config.problems();
        for problem in &mut problems {
            problem.place = place(&problem.key);
        }
        problems
            .extend(unfit.map(|problem| Problem { place: problem.place.or(place(&problem.key)), ..problem }));
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        let from = |key: &str| place(key).filter(|_| figment.find_metadata(key).is_some());
        config.origin = Origin::new(path, &from, &others, &config);
        Ok(config)
    }
}

impl Pipeline {
    /// The last pipeline of a text.
    pub(crate) fn from_text(text: &str) -> Result<Self, ConfigError> {
        let mut config: Config = Figment::from(Toml::string(text)).extract().map_err(|error| {
            ConfigError::Invalid(error.into_iter().map(|error| describe(&error, None)).collect())
        })?;
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        config.require_pipelines()?;
        Ok(config.pipelines.swap_remove(config.pipelines.len() - 1))
    }
}

/// The configuration file with what is needed to name a line in it.
struct File {
    path: PathBuf,
    text: String,
    document: toml_edit::ImDocument<String>,
}

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        match toml_edit::ImDocument::parse(text.clone()) {
            Ok(document) => Ok(Self { path: path.to_owned(), text, document }),
            Err(error) => {
                let line = error.span().map_or(1, |span| line(&text, span.start));
                Err(ConfigError::Invalid(vec![Problem {
                    place: Some(format!("{}:{line}", path.display())),
                    key: String::new(),
                    text: error.message().trim().replace('\n', ", "),
                }]))
            }
        }
    }

    /// File and line of the deepest of `keys` that the file holds.
    fn place(&self, keys: &[String]) -> Option<String> {
        let mut item = self.document.as_item();
        let mut at = None;
        for key in keys {
            let next = match key.parse::<usize>() {
                Ok(index) => element(item, index),
                Err(_) => item.as_table_like().and_then(|table| {
                    let (name, value) = table.get_key_value(key)?;
                    Some((name.span().or_else(|| value.span()), value))
                }),
            };
            let Some((span, value)) = next else { break };
            at = span.map(|span| span.start).or(at);
            item = value;
        }
        at.map(|at| format!("{}:{}", self.path.display(), line(&self.text, at)))
    }
}

/// File and line of the `entry`th table of a pipeline in the file at `path`, or of a column of it.
#[must_use]
pub fn line_of_table(path: &Path, pipeline: &str, entry: usize, column: Option<&str>) -> Option<String> {
    let file = File::read(path).ok()?;
    let pipelines = file.document.get("pipeline")?.as_array_of_tables()?;
    let name = |table: &toml_edit::Table| table.get("name")?.as_str().map(str::to_owned);
    let index = pipelines.iter().position(|table| name(table).as_deref() == Some(pipeline))?;
    let mut keys = vec!["pipeline".to_owned(), index.to_string(), "table".to_owned(), entry.to_string()];
    keys.extend(column.map(|_| "columns".to_owned()));
    keys.extend(column.map(str::to_owned));
    file.place(&keys)
}

/// An element of `[[…]]` tables.
fn element(
    item: &toml_edit::Item,
    index: usize,
) -> Option<(Option<std::ops::Range<usize>>, &toml_edit::Item)> {
    let element = item.get(index)?;
    Some((element.span(), element))
}

/// The line of a byte offset, from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

/// One setting from outside the file, with the name of where it came from.
pub(super) struct Layer {
    name: String,
    dict: Dict,
}

impl Layer {
    pub(super) fn new(name: impl Into<String>, key: &str, value: Value) -> Self {
        let dict = match figment::util::nest(key, value) {
            Value::Dict(_, dict) => dict,
            _ => Dict::new(),
        };
        Self { name: name.into(), dict }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// The settings in the environment.
///
/// `JETCOPY_CONFIG` and the like, without a double underscore, are not settings; one that would be a setting
/// with a double underscore is an error, since it is most likely meant as one.
fn from_environment(environment: &[(OsString, OsString)]) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in environment {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let Some(key) = name.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else { continue };
        if key.starts_with("pipeline__") {
            problems.push(Problem {
                place: Some(name.to_string()),
                key: String::new(),
                text: "pipelines can be set in a file only, not in the environment".into(),
            });
        } else if key.contains(NEST) {
            let Ok(value) = value.parse::<Value>();
            layers.push(Layer::new(name, &key.replace(NEST, "."), value));
        } else if let Some((section, key)) = key.split_once('_')
            && is_key(&format!("{section}.{key}"))
        {
            let meant = format!("{PREFIX}{section}{NEST}{key}").to_ascii_uppercase();
            problems.push(Problem {
                place: Some(name.to_string()),
                key: String::new(),
                text: format!("keys nest with two underscores; did you mean {meant}?"),
            });
        }
    }
    layers.sort_by(|a, b| a.name.cmp(&b.name));
    if problems.is_empty() { Ok(layers) } else { Err(ConfigError::Invalid(problems)) }
}

/// Whether `key` is a setting: whatever its type, it is not an unknown field.
fn is_key(key: &str) -> bool {
    let figment = Figment::new().merge(Layer::new("", key, Value::from("")));
    match figment.extract::<Config>() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind, Kind::UnknownField(..)),
    }
}

/// The variable or flag that a value came from.
fn outside(metadata: &Metadata) -> Option<&str> {
    let from_outside =
        |name: &&str| ["--", PREFIX, "PG", "NATS", DATABASE_URL].iter().any(|begin| name.starts_with(begin));
    Some(metadata.name.as_ref()).filter(from_outside)
}

/// A problem that figment found, as text without values that may be secret.
fn describe(error: &figment::Error, file: Option<&File>) -> Problem {
    let mut path = error.path.clone();
    let text = match &error.kind {
        Kind::UnknownField(found, known) => {
            if path.last() != Some(found) {
                path.push(found.clone());
            }
            unknown("key", found, known)
        }
        Kind::UnknownVariant(found, known) => unknown("value", found, known),
        Kind::MissingField(name) => format!("`{name}` is missing"),
        Kind::InvalidType(Actual::Map, _)
            if matches!(path.last().map(String::as_str), Some("pipeline" | "table")) =>
        {
            let names: Vec<&str> =
                path.iter().map(String::as_str).filter(|key| key.parse::<usize>().is_err()).collect();
            format!("there may be several: write [[{}]], with two brackets", names.join("."))
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("expected {expected}, found {}", kind_of(found))
        }
        Kind::Message(message) => message.clone(),
        Kind::InvalidLength(..)
        | Kind::DuplicateField(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)
        | Kind::Unsupported(_)
        | Kind::UnsupportedKey(..) => error.kind.to_string(),
    };
    let place = match error.metadata.as_ref().and_then(outside) {
        Some(name) => Some(name.to_owned()),
        None => file.and_then(|file| file.place(&path)),
    };
    Problem { place, key: key_text(&path), text }
}

fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(known, found), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, nearest)) => format!("unknown {what} `{found}`; did you mean `{nearest}`?"),
        None => format!("unknown {what} `{found}`; expected one of {}", known.join(", ")),
    }
}

/// The kind of a value: the value itself may be an address with a password.
fn kind_of(actual: &Actual) -> String {
    match actual {
        Actual::Str(_) | Actual::Char(_) => "a string".into(),
        other => other.to_string(),
    }
}

/// `["pipeline", "0", "batch"]` as `pipeline[0].batch`.
fn key_text(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        if key.parse::<usize>().is_ok() {
            text.push('[');
            text.push_str(key);
            text.push(']');
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(key);
        }
    }
    text
}

/// `pipeline[0].batch` as `["pipeline", "0", "batch"]`.
fn keys(text: &str) -> Vec<String> {
    text.split(['.', '[', ']']).filter(|key| !key.is_empty()).map(str::to_owned).collect()
}
