//! `docs/schema.sql`: what the migrations make, for those who read schemas.

use std::path::Path;
use std::process::Command;

use jetcopy::testbed::{Need, TestPostgres, skip};

/// Set by `make docs`: write what is compared here instead.
const WRITE: &str = "JETCOPY_WRITE_DOCS";

/// The version of `pg_dump` that writes it: others put the same in other words.
const WRITTEN_BY: i32 = 15;

/// What stands at the top.
const OPENING: &str = "\
-- What `jetcopy migrate` makes in a database without TimescaleDB, with all groups of the store's \
tables, to be read.
-- With TimescaleDB the tables by time are hypertables, and the roll-ups continuous aggregates. \
Written by `make docs`
-- from the migrations (pg_dump); a test compares. To make a database, run `jetcopy migrate`, which \
keeps a history.
";

/// A dump without what is of one run, one version, or one server: comments of `pg_dump`, settings of its
/// session, the key that newer ones put into it.
fn normalized(dump: &str) -> String {
    let of_the_run = |line: &&str| {
        let line = line.trim_end();
        let setting = line.starts_with("SET ") || line.starts_with("SELECT pg_catalog.set_config(");
        !(setting || line == "--" || line.starts_with("-- ") || line.starts_with('\\'))
    };
    let mut out = OPENING.to_owned();
    let mut blank = false;
    // Text of functions is as it was written; what stands there at the beginning of a line is no comment of
    // `pg_dump`.
    let mut body: Option<&str> = None;
    for line in dump.lines() {
        let kept = body.is_some() || of_the_run(&line);
        for quote in ["$$", "$_$"].into_iter().filter(|quote| line.contains(quote)) {
            let odd = line.matches(quote).count() % 2 == 1;
            body = match body {
                None if odd => Some(quote),
                Some(open) if open == quote && odd => None,
                other => other,
            };
        }
        if !kept {
            continue;
        }
        if line.trim().is_empty() && body.is_none() {
            blank = true;
            continue;
        }
        if std::mem::take(&mut blank) {
            out.push('\n');
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[tokio::test]
async fn the_schema_to_be_read_is_what_the_migrations_make() {
    let postgres = TestPostgres::shared_plain().unwrap();
    let url = postgres.create_database().await.unwrap();
    let client = jetcopy::testbed::connect(&url).await.unwrap();
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int / 10000", &[])
        .await
        .unwrap()
        .get(0);
    if version != WRITTEN_BY {
        skip(Need::Postgres15);
        return;
    }
    let settings = jetcopy::config::Postgres { url: url.clone(), ..Default::default() };
    jetcopy::migrate::migrate(&settings).await.unwrap();
    let mut dump = Command::new(postgres.programs().join("pg_dump"));
    dump.args(["--schema-only", "--no-owner", "--no-privileges", "--exclude-table=*_p20??????"]).arg(&url);
    let output = dump.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = normalized(&String::from_utf8(output.stdout).unwrap());
    assert!(
        made.contains("CREATE TABLE public.frame_metadata") && made.contains("CREATE FUNCTION jetcopy.shape")
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema.sql");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    let stands = std::fs::read_to_string(path).unwrap();
    let first = made.lines().zip(stands.lines()).find(|(made, stands)| made != stands);
    assert!(
        made == stands,
        "docs/schema.sql is not what the migrations make: run `make docs`; first {first:?}"
    );
}
