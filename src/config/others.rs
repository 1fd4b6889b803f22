//! What other programs' variables and files say of the servers, for what jetcopy's own settings leave out.
//!
//! - The database, if nothing sets `postgres.url`: `DATABASE_URL`, or else `PGSERVICE`, `PGHOST` and similar
//!   variables.
//! - NATS: a context of the `nats` command line fills what `[nats]` leaves out. It is the one that
//!   `nats.context` names. If neither that nor `nats.url` is set, `NATS_URL` is the address, and the context
//!   that `NATS_CONTEXT` names; without both, the context that is selected.

use std::ffi::OsString;
use std::path::PathBuf;

use figment::Figment;
use figment::value::Value;

use super::Problem;
use super::context::Context;
use super::load::Layer;

/// Where the database is.
const DATABASE: &str = "postgres.url";

/// The variable that many programs take the database's address from.
pub(super) const DATABASE_URL: &str = "DATABASE_URL";

/// Where the streams are, and the context.
const NATS: &str = "nats.url";
const CONTEXT: &str = "nats.context";

/// Ways to identify, of which there is one.
const WAYS: [&str; 5] =
    ["nats.credentials_file", "nats.nkey_file", "nats.token_file", "nats.user", "nats.password_file"];

/// libpq's variables that say which database is meant, with the key of each in a connection string, and what
/// jetcopy has where it is not there.
const PLACE: [(&str, &str, &str); 5] = [
    ("PGHOST", "host", "127.0.0.1"),
    ("PGHOSTADDR", "hostaddr", ""),
    ("PGPORT", "port", "5432"),
    ("PGUSER", "user", "jetcopy"),
    ("PGDATABASE", "dbname", "metadata"),
];

/// The environment of the process.
pub(super) struct Others<'e>(pub(super) &'e [(OsString, OsString)]);

impl Others<'_> {
    /// A variable's value; an empty one says nothing.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        value.to_str().filter(|value| !value.is_empty())
    }

    /// The database, unless `known` has it.
    pub(super) fn database(&self, known: &Figment) -> Option<Layer> {
        if known.find_metadata(DATABASE).is_some() {
            return None;
        }
        let layer = |name, url: String| Some(Layer::new(name, DATABASE, Value::from(url)));
        let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
        if let Some(url) = self.variable(DATABASE_URL) {
            return layer(DATABASE_URL, url.to_owned());
        }
        // What a service leaves open comes from the other variables when it is connected to.
        if let Some(service) = self.variable("PGSERVICE") {
            return layer("PGSERVICE", format!("service={}", quoted(service)));
        }
        let (first, ..) = PLACE.iter().find(|(name, ..)| self.variable(name).is_some())?;
        let pairs = PLACE.iter().filter_map(|(name, key, usual)| {
            let usual = if *name == "PGHOST" && self.variable("PGHOSTADDR").is_some() { "" } else { usual };
            let value = self.variable(name).unwrap_or(usual);
            (!value.is_empty()).then(|| format!("{key}={}", quoted(value)))
        });
        layer(first, pairs.collect::<Vec<_>>().join(" "))
    }

    /// What `known` leaves out of `[nats]`, and what is wrong with the context.
    pub(super) fn nats(&self, known: &Figment) -> (Vec<Layer>, Option<Problem>) {
        let text = |key: &str| known.find_value(key).ok().and_then(|value| value.as_str().map(str::to_owned));
        let mut layers = Vec::new();
        let (mut url, mut name, mut place) = (text(NATS), text(CONTEXT), None);
        if url.is_none() && name.is_none() {
            url = self.variable("NATS_URL").map(str::to_owned);
            layers.extend(url.iter().map(|url| Layer::new("NATS_URL", NATS, Value::from(url.clone()))));
            name = self.variable("NATS_CONTEXT").map(str::to_owned);
            place = name.is_some().then(|| "NATS_CONTEXT".to_owned());
            if url.is_none() && name.is_none() {
                name = self.nats_directory().and_then(|directory| Context::selected(&directory));
                place = name.is_some().then(|| "the selected NATS context".to_owned());
            }
        }
        let Some(name) = name else { return (layers, None) };
        let unfit = |text| Problem { place: place.clone(), key: CONTEXT.to_owned(), text };
        let Some(directory) = self.nats_directory() else {
            return (layers, Some(unfit("neither XDG_CONFIG_HOME nor HOME says where contexts are".into())));
        };
        let context = match Context::read(&directory, &name) {
            Ok(context) => context,
            Err(error) => return (layers, Some(unfit(error.to_string()))),
        };
        let identified = WAYS.iter().any(|way| known.find_metadata(way).is_some());
        let settings = context.settings(url.as_deref(), identified, self.variable("HOME"));
        let label = format!("NATS context {name}");
        if known.find_metadata(CONTEXT).is_none() {
            layers.push(Layer::new(label.clone(), CONTEXT, Value::from(name)));
        }
        let open = settings.into_iter().filter(|(key, _)| *key == NATS || known.find_metadata(key).is_none());
        layers.extend(open.map(|(key, value)| Layer::new(label.clone(), key, value)));
        (layers, None)
    }

    /// Where the `nats` command line keeps its contexts.
    fn nats_directory(&self) -> Option<PathBuf> {
        let home = || Some(PathBuf::from(self.variable("HOME")?).join(".config"));
        self.variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home).map(|path| path.join("nats"))
    }
}
