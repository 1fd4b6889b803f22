//! Why commands fail, and how that is said.
//!
//! Guarantees: an error is printed once, on standard error, with its causes.

use std::error::Error;
use std::io::{self, Write as _};

use crate::config::{Config, ConfigError, Pipeline};

/// The configuration has no such pipeline.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has no pipeline {name}; it has: {known}")]
pub struct UnknownPipeline {
    name: String,
    known: String,
}

impl UnknownPipeline {
    /// The pipeline of that name.
    pub fn find<'c>(config: &'c Config, name: &str) -> Result<&'c Pipeline, Self> {
        config.pipelines.iter().find(|pipeline| pipeline.name == name).ok_or_else(|| {
            let known: Vec<&str> = config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
            Self { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

/// Why a command failed: one variant per exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The arguments are invalid in a way that only the command can tell.
    #[error(transparent)]
    Arguments(Box<dyn Error + Send + Sync>),
    /// Something failed.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
    /// The daemon stopped before everything that it had read was committed, and has logged why.
    #[error("stopped before everything that was read was committed")]
    Undrained,
    /// Something failed, and the command has printed what.
    #[error("failed")]
    Told,
}

impl Failure {
    /// Wrong arguments.
    pub fn arguments(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Arguments(error.into())
    }

    /// A failure with its cause.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

/// Prints what went wrong, each cause on its own line unless the line before contains it.
pub(super) fn tell(error: &(dyn Error + 'static)) {
    // Where standard error is gone, the exit code still tells.
    let mut out = io::stderr();
    let mut said = error.to_string();
    let _ = writeln!(out, "error: {said}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.ends_with(&text) {
            let _ = writeln!(out, "  because: {text}");
        }
        said = text;
        cause = error.source();
    }
}
