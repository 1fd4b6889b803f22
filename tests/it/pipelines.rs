//! The pipelines of `config/store.toml`, as they are, on the tables that `jetcopy migrate` creates.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Daemon, World};

mod audit;
mod frames;
mod measurements;
mod registry;
mod series;

/// The pipeline `name` of `config/store.toml`; stream and subjects are those of a [`World`].
fn pipeline(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/store.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let start = format!("\nname = \"{name}\"\n");
    let found = text.split("[[pipeline]]").find(|pipeline| pipeline.starts_with(&start)).unwrap();
    let stream = found.lines().find_map(|line| line.strip_prefix("stream = ")).unwrap();
    let subject = format!("\"{name}.");
    let found =
        found.replace(&format!("stream = {stream}"), "stream = \"STREAM\"").replace(&subject, "\"STREAM.");
    format!("[[pipeline]]{found}")
}

/// Runs a command to its end, which must be good; what it printed.
async fn jetcopy(arguments: &[&str], config: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(arguments).arg("--config").arg(config);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// Publishes `lines` of JSON as somebody would who has them in a file; `subject` is below the stream's name.
async fn publish(world: &World, subject: &str, lines: impl IntoIterator<Item = serde_json::Value>) {
    let mut file = tempfile::Builder::new().suffix(".ndjson").tempfile().unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    publish_file(world, subject, file.path()).await;
}

async fn publish_file(world: &World, subject: &str, file: &Path) {
    let subject = format!("{}.{subject}", world.stream);
    jetcopy(&["publish", &subject, file.to_str().unwrap()], &world.config_file("publish.toml", "")).await;
}

/// Starts the pipeline, and waits until it has carried everything.
async fn carry(world: &World, name: &str) -> Daemon {
    let config = world.config(&pipeline(name));
    jetcopy(&["check"], &config).await;
    let daemon = Daemon::start(&config);
    world.drained(name, &daemon).await;
    daemon
}

/// A digest of all rows of a table, in whatever order they lie.
async fn digest(world: &World, table: &str) -> (i64, String) {
    let sql = format!(
        "SELECT count(*), coalesce(md5(string_agg(t::text, ';' ORDER BY t::text)), '') FROM {table} t"
    );
    let row = world.database.query_one(&sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}
