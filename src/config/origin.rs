//! Where settings came from: the file, and what says where the servers are.
//! Guarantees: it names places only, never a value.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::others::Others;
use super::{Config, ConnInfo};

/// Where a configuration is looked for if none is named, in this order.
pub(super) const PLACES: [&str; 2] = ["./jetcopy.toml", "/etc/jetcopy/jetcopy.toml"];

/// What stands for the place of a default.
pub(crate) const DEFAULT: &str = "the default";

/// Where settings came from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// What says where the streams are: file and line, variable, flag or context.
    pub nats: String,
    /// The same for the database.
    pub postgres: String,
}

/// The first configuration file that is where one is looked for; also one that cannot be read, so that this
/// is said.
#[must_use]
pub fn find_file() -> Option<PathBuf> {
    first_of(&PLACES.map(Path::new))
}

fn first_of(places: &[&Path]) -> Option<PathBuf> {
    let there = |path: &&&Path| !matches!(path.try_exists(), Ok(false));
    places.iter().find(there).map(|path| path.strip_prefix(".").unwrap_or(path).to_owned())
}

impl Origin {
    /// Of `config`, whose settings are `from` the places of their keys.
    pub(super) fn new(
        file: Option<&Path>,
        from: &dyn Fn(&str) -> Option<String>,
        others: &Others<'_>,
        config: &Config,
    ) -> Self {
        let place = |key| from(key).unwrap_or_else(|| DEFAULT.to_owned());
        let mut nats = place("nats.url");
        if let Some(context) = &config.nats.context
            && !nats.starts_with("NATS context")
        {
            let _ = write!(nats, " and NATS context {context}");
        }
        let mut postgres = place("postgres.url");
        let mut more =
            ConnInfo::completed_by(&config.postgres.url, &|name| others.variable(name).map(str::to_owned));
        more.retain(|name| *name != "PGPASSWORD" || config.postgres.password_file.is_none());
        if !more.is_empty() {
            let _ = write!(postgres, " and {}", more.join(", "));
        }
        Self { file: file.map(Path::to_owned), nats, postgres }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_is_there_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (near, far) = (directory.path().join("near.toml"), directory.path().join("far.toml"));
        let places = [near.as_path(), far.as_path()];
        assert_eq!(first_of(&places), None);
        std::fs::write(&far, "").unwrap();
        assert_eq!(first_of(&places), Some(far.clone()));
        std::fs::write(&near, "").unwrap();
        assert_eq!(first_of(&places), Some(near.clone()));
        // What may not be looked at is not passed over.
        let beyond = far.join("jetcopy.toml");
        assert_eq!(first_of(&[&beyond, &near]), Some(beyond.clone()));
    }
}
