//! The global options, and the configuration that they give.
//!
//! Guarantees: a file that is named is the one that is read; without one, the first that is found. A command
//! that answers and exits logs only problems.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, ConfigError, Overrides};

/// `log.level` of a command that answers and exits: the answer goes to standard output, the log is for
/// problems.
pub(super) const QUIET: &str = "warn";

/// Heading of the global options in each command's help: they come last.
const GLOBAL: &str = "Global options";

/// The global options; part of each command that needs a configuration.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Configuration file (TOML); without it, ./jetcopy.toml or /etc/jetcopy/jetcopy.toml, if there is one.
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "FILE", env = "JETCOPY_CONFIG")]
    pub config: Option<PathBuf>,
    /// NATS servers, comma-separated [overrides nats.url].
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Database URL, without the password: all users of a machine can see flags [overrides postgres.url].
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "URL")]
    pub postgres_url: Option<String>,
    /// Log filter, such as `debug` or `info,jetcopy::postgres=trace` [overrides log.level].
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// Log format: `text` or `json` [overrides log.format].
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Settings {
    /// Loads the configuration that these flags and the environment give.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_from(self.file().as_deref())
    }

    /// The flags that give the same once more.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let text = |value: &Option<String>| value.clone().map(OsString::from);
        let flags = [
            ("--config", self.config.clone().map(OsString::from)),
            ("--nats-url", text(&self.nats_url)),
            ("--postgres-url", text(&self.postgres_url)),
            ("--log-level", text(&self.log_level)),
            ("--log-format", text(&self.log_format)),
        ];
        flags.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?])).flatten().collect()
    }

    fn load_from(&self, file: Option<&Path>) -> Result<Config, ConfigError> {
        let flags = Overrides::default()
            .with("--nats-url", "nats.url", self.nats_url.clone())
            .with("--postgres-url", "postgres.url", self.postgres_url.clone())
            .with("--log-level", "log.level", self.log_level.clone())
            .with("--log-format", "log.format", self.log_format.clone());
        Config::load(file, &flags)
    }

    /// The configuration file: the one that is named, or else the one that is found.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(config::find_file)
    }

    /// The same for a command that answers and exits: it logs only problems, unless a flag asks for more.
    pub fn load_quietly(&self) -> Result<Config, ConfigError> {
        self.load().map(|config| self.quietly(config))
    }

    /// The same where no file is looked for: only the one that is named counts.
    pub(super) fn load_named_quietly(&self) -> Result<Config, ConfigError> {
        self.load_from(self.config.as_deref()).map(|config| self.quietly(config))
    }

    fn quietly(&self, mut config: Config) -> Config {
        if self.log_level.is_none() {
            QUIET.clone_into(&mut config.log.level);
        }
        config
    }
}
