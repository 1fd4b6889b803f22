//! What tests need that a machine may lack, and the record of a test run: what each test ran on, and what was
//! skipped.
//!
//! Guarantees: if `JETCOPY_TEST_REPORT` names a file, each use of a testbed's PostgreSQL and each skip is one
//! line of it, tab-separated and appended in one write, so that concurrent tests and processes do not mix
//! theirs. A skip of what `JETCOPY_REQUIRE` names (`timescaledb,pgbouncer`) fails its test.
//!
//! Not guaranteed: that a line names its test. It does if the server is requested on the test's own thread.
//! `scripts/test.sh` turns the file into the summary of `make test`.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;

/// The file that the account is appended to.
const REPORT: &str = "JETCOPY_TEST_REPORT";
/// Names of [`Need`]s, separated by commas.
const REQUIRE: &str = "JETCOPY_REQUIRE";

/// What is left out where a test ends early.
pub(super) const TEST: &str = "the test";

/// What some tests need and a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A PostgreSQL that offers TimescaleDB, in a run that loads it (`JETCOPY_TIMESCALEDB=yes`).
    TimescaleDb,
    /// The program `pgbouncer`.
    PgBouncer,
    /// The program `systemd-analyze`.
    Systemd,
    /// The right to mount a file system, which root has.
    Mount,
    /// The real data that lies beside the package on the developers' machines.
    Data,
    /// A network beside the loopback one.
    Network,
    /// Debian's `libfaketime`, which shows a program another time.
    Faketime,
    /// PostgreSQL 15, whose `pg_dump` writes `docs/schema.sql`.
    Postgres15,
    /// A PostgreSQL that offers Citus.
    Citus,
}

impl Need {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::TimescaleDb,
        Self::PgBouncer,
        Self::Systemd,
        Self::Mount,
        Self::Data,
        Self::Network,
        Self::Faketime,
        Self::Postgres15,
        Self::Citus,
    ];

    /// As `JETCOPY_REQUIRE` and the summary have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TimescaleDb => "timescaledb",
            Self::PgBouncer => "pgbouncer",
            Self::Systemd => "systemd",
            Self::Mount => "mount",
            Self::Data => "data",
            Self::Network => "network",
            Self::Faketime => "faketime",
            Self::Postgres15 => "postgresql-15",
            Self::Citus => "citus",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Notes that the test that calls this ends early, for want of `need`.
///
/// # Panics
///
/// When `JETCOPY_REQUIRE` names it.
pub fn skip(need: Need) {
    leave_out(need, TEST);
}

/// Notes that the test that calls this leaves `what` out, for want of `need`.
///
/// # Panics
///
/// When `JETCOPY_REQUIRE` names it.
pub fn leave_out(need: Need, what: &str) {
    note(&["skip", need.name(), what]);
    eprintln!("SKIPPED for want of {need}: {what}");
    let required = std::env::var(REQUIRE).unwrap_or_default();
    assert!(!requires(&required, need), "{REQUIRE} names {need}, and it is not here: {what} cannot run");
}

/// Notes that the test that calls this uses a server; `switched`: whether `JETCOPY_TIMESCALEDB` decides what
/// it is.
pub(super) fn note_store(has_timescaledb: bool, switched: bool) {
    let what = if has_timescaledb { "timescaledb" } else { "plain" };
    note(&["store", what, if switched { "switched" } else { "always" }]);
}

/// Whether a value of `JETCOPY_REQUIRE` names `need`.
fn requires(required: &str, need: Need) -> bool {
    let names: Vec<&str> = required.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in &names {
        let known = Need::ALL.map(Need::name);
        assert!(known.contains(name), "{REQUIRE} names {name:?}, which is none of {}", known.join(", "));
    }
    names.contains(&need.name())
}

fn note(fields: &[&str; 3]) {
    let Some(path) = std::env::var_os(REPORT) else { return };
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // `it-0123456789abcdef`, as cargo names a test's program.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let thread = std::thread::current();
    let test = thread.name().filter(|name| name.contains("::")).unwrap_or("?");
    let line = format!("{}\t{program}\t{test}\t{}\t{}\n", fields[0], fields[1], fields[2]);
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("cannot write {REPORT} {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_told_by_its_name() {
        for need in Need::ALL {
            assert!(!requires("", need));
            assert!(requires(need.name(), need));
            assert!(requires(
                "data, timescaledb,pgbouncer ,systemd,mount,network,faketime,postgresql-15,citus",
                need
            ));
        }
        assert!(!requires("timescaledb,pgbouncer", Need::Systemd));
    }

    #[test]
    #[should_panic(expected = "none of timescaledb, pgbouncer")]
    fn a_requirement_that_nobody_knows_is_an_error() {
        requires("timescale", Need::TimescaleDb);
    }
}
