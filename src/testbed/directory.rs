//! Directories that end with their server, and those that killed processes left behind.
//!
//! Guarantees: only directories of processes that are gone are removed; what cannot be removed stays.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Error, io};

/// What every private directory's name begins with; the process's id follows.
const PREFIX: &str = "jetcopy-private-";

/// A directory of this process's own under the system's temporary one.
///
/// It is there and not under `target/`, since PostgreSQL under root runs as another user, who may not pass
/// root's home.
pub(super) fn create() -> Result<TempDir, Error> {
    static SWEPT: std::sync::Once = std::sync::Once::new();
    SWEPT.call_once(sweep);
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .map_err(io("create a directory in", std::env::temp_dir()))
}

/// Removes the directories of processes that are gone. What cannot be removed is another user's and stays.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if owner(&path).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// The process that made a private directory, by the directory's name.
fn owner(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// The last `lines` lines of a server's log.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let Ok(text) = std::fs::read(log) else { return "(no log)".into() };
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Copies a directory tree with its owners, by reference where the file system can.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let output = std::process::Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([from, to])
        .output()
        .map_err(io("run cp for", from))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Io { action: "copy", path: PathBuf::from(from), source: std::io::Error::other(reason) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_gone_processes_are_swept_and_those_of_living_ones_stay() {
        // No process has this id: the kernel's limit is 2^22.
        let gone = std::env::temp_dir().join(format!("{PREFIX}4999999-test"));
        std::fs::create_dir_all(&gone).unwrap();
        let own = create().unwrap();
        sweep();
        assert!(!gone.exists());
        assert!(own.path().exists());
    }
}
