//! Where the servers' programs are.
//!
//! Guarantees: an environment variable wins over what `make setup` installed, and that over `PATH`. A program
//! that is not found is an error that names the variable.

use std::path::{Path, PathBuf};

use super::Error;

/// Where `make setup` puts what it installs by `pip`, relative to the package.
const TOOLS: &str = ".tools/venv/bin";
/// Where it unpacks Debian's packages that would start a service if they were installed.
const UNPACKED: &str = ".tools/debian/usr/bin";
/// The same for libraries.
const UNPACKED_LIBRARIES: &str = ".tools/debian/usr/lib";
/// The same for programs that Debian keeps for administrators.
const UNPACKED_SYSTEM: &str = ".tools/debian/usr/sbin";
/// Where Debian's packages put each major version of PostgreSQL.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The `nats-server` program: `$JETCOPY_NATS_SERVER`, else what `make setup` installed, else from `PATH`.
pub(super) fn nats_server() -> Result<PathBuf, Error> {
    const VARIABLE: &str = "JETCOPY_NATS_SERVER";
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Some(PathBuf::from(path))
            .filter(|path| path.is_file())
            .ok_or(Error::Missing { program: "nats-server", variable: VARIABLE });
    }
    tools(TOOLS, "nats-server")
        .or_else(|| on_path("nats-server"))
        .ok_or(Error::Missing { program: "nats-server", variable: VARIABLE })
}

/// The directory with `initdb` and `postgres`: `$JETCOPY_POSTGRES_BIN`, else from `PATH`, else Debian's
/// newest.
pub(super) fn postgres_bin() -> Result<PathBuf, Error> {
    const VARIABLE: &str = "JETCOPY_POSTGRES_BIN";
    let has_both = |dir: &Path| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let found = match std::env::var_os(VARIABLE) {
        Some(path) => Some(PathBuf::from(path)).filter(|dir| has_both(dir)),
        // A link may stand alone in its directory; the other programs are where it leads.
        None => on_path("initdb")
            .and_then(|initdb| initdb.canonicalize().ok()?.parent().map(Path::to_path_buf))
            .filter(|dir| has_both(dir))
            .or_else(|| newest_debian(has_both)),
    };
    found.ok_or(Error::Missing { program: "PostgreSQL", variable: VARIABLE })
}

/// The `pgbouncer` program: `$JETCOPY_PGBOUNCER`, else what `make setup` unpacked, else from `PATH`, else
/// where Debian puts it.
pub(super) fn pgbouncer() -> Result<PathBuf, Error> {
    const VARIABLE: &str = "JETCOPY_PGBOUNCER";
    std::env::var_os(VARIABLE)
        .map(PathBuf::from)
        .or_else(|| tools(UNPACKED_SYSTEM, "pgbouncer"))
        .or_else(|| on_path("pgbouncer"))
        .or_else(|| Some(PathBuf::from("/usr/sbin/pgbouncer")))
        .filter(|path| path.is_file())
        .ok_or(Error::Missing { program: "pgbouncer", variable: VARIABLE })
}

/// Prometheus's `promtool`; found like the programs below.
pub fn promtool() -> Result<PathBuf, Error> {
    monitor("promtool", "JETCOPY_PROMTOOL")
}

/// The `prometheus` program: the variable's, else what `make setup` unpacked, else from `PATH`.
pub(super) fn prometheus() -> Result<PathBuf, Error> {
    monitor("prometheus", "JETCOPY_PROMETHEUS")
}

/// Debian's `postgres_exporter`.
pub(super) fn postgres_exporter() -> Result<PathBuf, Error> {
    monitor("prometheus-postgres-exporter", "JETCOPY_POSTGRES_EXPORTER")
}

/// Debian's `node_exporter`.
pub(super) fn node_exporter() -> Result<PathBuf, Error> {
    monitor("prometheus-node-exporter", "JETCOPY_NODE_EXPORTER")
}

/// Debian's `libfaketime`, for programs with threads: `$JETCOPY_FAKETIME`, else what `make setup` unpacked,
/// else where Debian puts it; `None` where there is none.
#[must_use]
pub fn faketime() -> Option<PathBuf> {
    let library = format!("{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    std::env::var_os("JETCOPY_FAKETIME")
        .map(PathBuf::from)
        .or_else(|| tools(UNPACKED_LIBRARIES, &library))
        .or_else(|| Some(Path::new("/usr/lib").join(library)))
        .filter(|path| path.is_file())
}

fn monitor(program: &'static str, variable: &'static str) -> Result<PathBuf, Error> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| tools(UNPACKED, program))
        .or_else(|| on_path(program))
        .filter(|path| path.is_file())
        .ok_or(Error::Missing { program, variable })
}

fn newest_debian(has_both: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    std::fs::read_dir(DEBIAN)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let major: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .filter(|(_, dir)| has_both(dir))
        .max()
        .map(|(_, dir)| dir)
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_absolute() && path.is_file())
}

/// A program in a tools directory in or above the working directory or this program's own.
fn tools(directory: &str, program: &str) -> Option<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|dir| dir.join(directory).join(program))
        .find(|path| path.is_file())
}
