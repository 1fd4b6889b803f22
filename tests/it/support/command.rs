//! A command that answers and ends.

use std::path::Path;
use std::process::Command;

use super::World;

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// The standard output of a command that did well.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Each line of the standard output as JSON.
    pub(crate) fn objects(self) -> Vec<serde_json::Value> {
        self.well().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl World {
    /// Runs `jetcopy` to its end, with no settings in its environment.
    pub(crate) async fn run(&self, config: &Path, arguments: &[&str]) -> Answer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        command.args(arguments).arg("--config").arg(config);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("JETCOPY_") {
                command.env_remove(name);
            }
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}
