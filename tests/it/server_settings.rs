//! The shipped settings of PostgreSQL and PgBouncer, taken by real servers.

use std::path::Path;

use jetcopy::testbed::{PostgresOptions, TestPostgres, connect};

/// What a test's machine cannot give, or has not installed.
const LESS: [(&str, &str); 3] = [
    ("shared_buffers", "128MB"),
    ("wal_buffers", "16MB"),
    ("shared_preload_libraries", "pg_stat_statements"),
];

/// The settings of a file, as `postgresql.conf` has them.
fn settings(file: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postgres").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let pairs = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    pairs
        .map(|line| {
            let (name, value) = line.split_once(" = ").unwrap();
            (name.to_owned(), value.trim_matches('\'').to_owned())
        })
        .collect()
}

#[tokio::test]
async fn a_server_takes_every_setting_of_the_tuned_files() {
    for file in ["small.conf", "64gb.conf"] {
        let shipped = settings(file);
        assert!(shipped.iter().any(|(name, value)| name == "synchronous_commit" && value == "on"), "{file}");
        let mut given = shipped.clone();
        // TimescaleDB's own are unknown where it is not loaded, which the server takes as it comes.
        for (name, value) in LESS {
            given.retain(|(known, _)| known != name);
            given.push((name.to_owned(), value.to_owned()));
        }
        let timescaledb = TestPostgres::shared().unwrap().has_timescaledb();
        if timescaledb {
            given.push(("shared_preload_libraries".into(), "timescaledb,pg_stat_statements".into()));
        }
        let options = PostgresOptions { settings: given, ..PostgresOptions::default() };
        let server = TestPostgres::start(&options).unwrap();
        let client = connect(&server.url()).await.unwrap();
        let errors = client.query("SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL", &[]);
        let errors = errors.await.unwrap();
        assert!(
            errors.is_empty(),
            "{file}: {:?}",
            errors.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
        );
        for (name, value) in shipped.iter().filter(|(name, _)| !LESS.iter().any(|(less, _)| less == name)) {
            let sql = format!(
                "SELECT current_setting('{name}'), (SELECT count(*) FROM pg_settings WHERE name = '{name}')"
            );
            let row = client.query_one(&sql, &[]).await.unwrap();
            let (taken, known): (String, i64) = (row.get(0), row.get(1));
            assert!(
                known == 1 || (!timescaledb && name.starts_with("timescaledb.")),
                "{file}: {name} is unknown"
            );
            // The server shows the method that "on" stands for.
            let taken = if name == "wal_compression" { "on" } else { &taken };
            assert_eq!(taken, value, "{file}: {name}");
        }
    }
}
