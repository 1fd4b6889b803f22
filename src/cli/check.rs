//! `jetcopy check`: finds problems before they occur.
//!
//! Guarantees: it looks at everything that it can reach, even after an error, and changes nothing on any
//! server. A finding names its place and, unless all is well, a remedy. It cannot see what changes later, nor
//! what depends on actual messages and rows.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::Failure;
use crate::config::{Config, Origin};
use crate::terminal;
use mapping::Mappings;
use report::Findings;

mod api;
mod database;
mod horizon;
mod jetstream;
mod mapping;
mod partitions;
mod position;
mod report;
mod save;

/// How the servers know the sessions of a check.
const CLIENT_NAME: &str = "jetcopy check";

/// The bit of a file's mode that lets everybody read it.
const READABLE_FOR_ALL: u32 = 0o004;

/// Arguments of `jetcopy check`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Print the findings as a JSON array of {level, place, text, remedy}.
    #[arg(long)]
    pub json: bool,
    /// Also write the tables of all pipelines to a file, for `jetcopy test`.
    #[arg(long, value_name = "FILE")]
    pub save_schema: Option<PathBuf>,
    /// List the columns of each table with their types and sources, and the way that rows take.
    #[arg(long)]
    pub columns: bool,
    /// Ask no server: check the mapping by tables that --save-schema wrote to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "save_schema")]
    pub offline: Option<PathBuf>,
}

/// Runs the command; findings go to standard output. Errors among them make it fail.
pub async fn run(config: &Config, args: &Args) -> Result<(), Failure> {
    config.require_pipelines()?;
    let mut report = Findings::default();
    report.ok("config", format!("valid; pipelines: {}", names(config)));
    secrets(config, &mut report);
    let mappings = Mappings { file: config.origin.file.clone(), columns: args.columns };
    if let Some(schema) = &args.offline {
        mapping::offline(config, schema, &mappings, &mut report);
        return tell(&report, args.json);
    }
    report.ok("config", origin(config));
    let jetstream::Found { connection, horizons } = jetstream::look(config, &mut report).await;
    let session = database::look(config, &horizons, &mappings, &mut report).await;
    if let (Some(session), Some(connection)) = (&session, &connection) {
        let found = config.pipelines.iter().filter(|pipeline| horizons.contains_key(&pipeline.name));
        for pipeline in found {
            position::look(session, connection, pipeline, &mut report).await;
        }
        position::left_behind(config, session, connection, &mut report).await;
    }
    if let Some(session) = session {
        session.close().await;
    }
    api::look(config, &mut report).await;
    if let Some(path) = &args.save_schema {
        save::save(config, path, &mut report).await;
    }
    tell(&report, args.json)
}

/// Prints what was found; errors among it are a failure.
fn tell(report: &Findings, as_json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let text =
        if as_json { terminal::json(&report.json()).into_owned() } else { report.text(out.is_terminal()) };
    out.write_all(text.as_bytes()).map_err(Failure::failed)?;
    if report.errors() == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn names(config: &Config) -> String {
    config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where the file, and the addresses of the servers, came from.
fn origin(config: &Config) -> String {
    let Origin { file, nats, postgres } = &config.origin;
    let file = file.as_ref().map_or("no file".to_owned(), |path| path.display().to_string());
    format!("{file}; where NATS is, {nats} says, and where PostgreSQL is, {postgres}")
}

/// Files with secrets that everybody on the machine may read. That they can be read at all, connecting shows.
fn secrets(config: &Config, report: &mut Findings) {
    let (nats, postgres, http) = (&config.nats, &config.postgres, &config.http);
    for (key, path) in [
        ("nats.credentials_file", &nats.credentials_file),
        ("nats.nkey_file", &nats.nkey_file),
        ("nats.token_file", &nats.token_file),
        ("nats.password_file", &nats.password_file),
        ("nats.tls.key_file", &nats.tls.as_ref().and_then(|tls| tls.key_file.clone())),
        ("postgres.password_file", &postgres.password_file),
        ("postgres.tls.key_file", &postgres.tls.as_ref().and_then(|tls| tls.key_file.clone())),
        ("http.token_file", &http.token_file),
        ("http.api.password_file", &http.api.as_ref().and_then(|api| api.password_file.clone())),
    ] {
        let Some(path) = path else { continue };
        if std::fs::metadata(path).is_ok_and(|file| file.mode() & READABLE_FOR_ALL != 0) {
            report.warn(
                key,
                format!("{} is readable by every user of this machine", path.display()),
                format!("chmod o-rwx {}", path.display()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_that_everybody_may_read_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hush").unwrap();
        let mut config = Config::default();
        config.postgres.password_file = Some(path.clone());
        for (mode, warnings) in [(0o640, 0), (0o644, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut report = Findings::default();
            secrets(&config, &mut report);
            assert_eq!(report.troubles(), warnings, "{mode:o}");
        }
    }
}
