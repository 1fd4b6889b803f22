//! The units under `systemd/`, as systemd's own tools judge them; skipped where those are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use jetcopy::testbed::{Need, skip};

/// The highest exposure that a unit may have: 2.0, in tenths. A service without any hardening has 9.6.
const MOST_EXPOSURE: u32 = 20;

/// The units, in a directory of their own and with the programs where they are here.
fn units() -> (tempfile::TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "service" || kind == "timer") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("/usr/bin/jetcopy ", concat!(env!("CARGO_BIN_EXE_jetcopy"), " "));
            let text = text.replace(
                "/usr/lib/jetcopy/",
                concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/db-maintenance/"),
            );
            let copy = directory.path().join(path.file_name().unwrap());
            std::fs::write(&copy, text).unwrap();
            units.push(copy);
        }
    }
    assert!(!units.is_empty());
    (directory, units)
}

/// What `systemd-analyze` says; `None` where it is missing.
fn analyze(arguments: &[&str], units: &[PathBuf]) -> Option<(bool, String)> {
    let Ok(output) = Command::new("systemd-analyze").args(arguments).args(units).output() else {
        skip(Need::Systemd);
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8(said).unwrap()))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let (_directory, units) = units();
    if let Some((well, said)) = analyze(&["verify", "--man=no"], &units) {
        assert!(well && said.is_empty(), "{said}");
    }
}

#[test]
fn the_services_expose_little() {
    let (_directory, mut units) = units();
    units.retain(|unit| unit.extension().is_some_and(|kind| kind == "service"));
    for unit in units {
        let threshold = format!("--threshold={MOST_EXPOSURE}");
        if let Some((well, said)) = analyze(&["security", "--offline=true", &threshold], &[unit]) {
            assert!(well && said.contains("Overall exposure level"), "{said}");
        }
    }
}
