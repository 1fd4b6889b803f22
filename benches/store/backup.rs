//! Backup and restore by the scripts that ship.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::report::Report;
use super::world::World;

/// Tables at a time, on a machine of two cores.
const JOBS: &str = "2";

pub(crate) fn measure(world: &World, report: &mut Report) {
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backup");
    let backup = backup.to_str().unwrap();
    let restored = world.postgres.database_url("restored");
    report.set("backup", run("db-backup", &["--url", &world.url, "--output", backup, "--jobs", JOBS]), "s");
    report.set("backup: size", bytes(Path::new(backup)) / 1e6, "MB");
    report.set("restore", run("db-restore", &["--url", &restored, "--input", backup, "--jobs", JOBS]), "s");
}

/// Seconds that it takes.
fn run(script: &str, arguments: &[&str]) -> f64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/db-maintenance").join(script);
    let started = Instant::now();
    let output = Command::new(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    started.elapsed().as_secs_f64()
}

fn bytes(path: &Path) -> f64 {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().map(|entry| bytes(&entry.unwrap().path())).sum()
    } else {
        path.metadata().unwrap().len() as f64
    }
}
