//! A database with rows, and the programs of `scripts/db-maintenance` on it.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jetcopy::testbed::{TestPostgres, connect};
use serde_json::{Value, json};

use crate::support::{Daemon, World};

pub(super) const PIPELINE: &str = r#"
[[pipeline]]
name = "frames"
stream = "STREAM"
format = "msgpack"
batch = { max_rows = 200, max_age = "5ms" }

[[pipeline.table]]
name = "frame_metadata"
[pipeline.table.columns]
time = { from = "timestamp", unit = "us" }
camera_id = "camera"
sequence = "$sequence"
"#;

/// A frame of one of five cameras, so many hours ago.
pub(super) fn frame(id: u64, hours_ago: i64) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_microsecond();
    rmp_serde::to_vec_named(&json!({
        "timestamp": now - hours_ago * 3_600_000_000,
        "camera": format!("cam-{}", id % 5),
        "frame_id": id,
        "codec": "h264",
    }))
    .unwrap()
}

/// How a program ended and what it said, on both ways.
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) text: String,
}

impl Said {
    pub(super) fn well(self) -> String {
        assert_eq!(self.code, 0, "{}", self.text);
        self.text
    }

    pub(super) fn refused(self, code: i32, why: &str) {
        assert!(self.code == code && self.text.contains(why), "{}: {}", self.code, self.text);
    }
}

/// Runs one of the programs, on that database, with PostgreSQL's programs from `bin` and no settings of the
/// caller's.
pub(super) fn program(name: &str, url: &str, bin: &Path, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/db-maintenance").join(name);
    let mut command = Command::new(path);
    command.arg("--bin").arg(bin).args(arguments);
    if !url.is_empty() {
        command.args(["--url", url]);
    }
    for variable in ["DATABASE_URL", "PGPASSWORD", "PGDATABASE", "PGHOST", "PGPORT", "PGUSER", "PGOPTIONS"] {
        command.env_remove(variable);
    }
    command
}

pub(super) async fn run(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    Said { code: output.status.code().unwrap(), text }
}

/// A server and a world on it, and what its programs are called with.
pub(super) struct Place {
    pub(super) server: Arc<TestPostgres>,
    pub(super) world: World,
}

impl Place {
    pub(super) async fn on(server: Arc<TestPostgres>) -> Self {
        let world = World::with_postgres(&server).await;
        world.database.batch_execute("ALTER TABLE frame_metadata ADD COLUMN sequence bigint").await.unwrap();
        Self { server, world }
    }

    pub(super) async fn plain() -> Self {
        Self::on(TestPostgres::shared_plain().unwrap()).await
    }

    pub(super) async fn run(&self, name: &str, arguments: &[&str]) -> Said {
        run(program(name, &self.world.own_url, self.server.programs(), arguments)).await
    }

    /// A path in the world's directory.
    pub(super) fn path(&self, name: &str) -> String {
        self.world.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// A directory of PostgreSQL's programs where a script stands in the place of some: `BIN` in it is where
    /// the real ones are.
    pub(super) fn programs_with(&self, scripts: &[(&str, String)]) -> PathBuf {
        let (bin, made) = (self.server.programs(), self.world.directory.path().join("bin"));
        std::fs::create_dir(&made).unwrap();
        for name in ["psql", "pg_dump", "pg_restore"] {
            match scripts.iter().find(|(replaced, _)| *replaced == name) {
                None => symlink(bin.join(name), made.join(name)).unwrap(),
                Some((_, script)) => {
                    std::fs::write(made.join(name), script.replace("BIN", bin.to_str().unwrap())).unwrap();
                    std::fs::set_permissions(made.join(name), std::fs::Permissions::from_mode(0o755))
                        .unwrap();
                }
            }
        }
        made
    }

    pub(super) fn manifest(backup: &str) -> Value {
        let text = std::fs::read_to_string(Path::new(backup).join("manifest.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Drops the database, with whoever uses it.
    pub(super) async fn destroy(&self) {
        let name = self.world.own_url.rsplit('/').next().unwrap();
        let admin = connect(&self.server.url()).await.unwrap();
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    }

    /// Databases that the programs made and did not drop again.
    pub(super) async fn left_over(&self) -> i64 {
        let name = self.world.own_url.rsplit('/').next().unwrap();
        let admin = connect(&self.server.url()).await.unwrap();
        let sql = "SELECT count(*) FROM pg_database WHERE starts_with(datname, $1) \
            AND datname ~ '_(restoring|verify)_[0-9]+$'";
        admin.query_one(sql, &[&format!("{name}_")]).await.unwrap().get(0)
    }

    /// Some rows, and their backup in the directory `backup`.
    pub(super) async fn backed_up(&self) -> String {
        self.world.publish("load", (1..=500).map(|id| frame(id, 0))).await;
        let daemon = Daemon::start(&self.world.config(PIPELINE));
        self.world.drained("frames", &daemon).await;
        let backup = self.path("backup");
        self.run("db-backup", &["--output", &backup]).await.well();
        backup
    }
}
