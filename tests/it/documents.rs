//! The commands of README.md and docs/*.md, run as they are printed.
//!
//! Each document has servers of its own, whose addresses stand in the environment, as the documents say that
//! they may. A command that is not run is listed with the reason; one that is neither run nor listed fails
//! the test until somebody decides.

mod blocks;
mod world;

use std::path::{Path, PathBuf};

use jetcopy::testbed::{NatsOptions, PostgresOptions, TestNats, TestPostgres, connect};

use blocks::{Kind, steps};
use world::World;

/// Commands that are not run here, by how they begin, and why.
const NOT_RUN: [(&str, &str); 21] = [
    ("make ", "builds, or runs all tests; the targets are what CI runs"),
    ("cargo install", "builds a release"),
    ("apt install ./target/debian", "scripts/check_package.sh installs the package in a fresh Debian"),
    ("systemctl ", "needs a system that systemd runs; tests/it/notify.rs stands for it"),
    ("docker ", "needs a container engine"),
    ("nats --user publisher", "needs the secrets of the containers"),
    ("export DATABASE_URL=", "the address of the test's own server stands in its place"),
    ("export JETCOPY_API=", "the same"),
    ("DATA_SOURCE_NAME=", "a file of the exporter; tests/it/monitoring starts it so"),
    ("ARGS=", "the same"),
    ("jetcopy check --config /etc/jetcopy/", "the package's directory"),
    ("install -m 600 /dev/stdin /etc/jetcopy/", "the package's directory"),
    ("openssl rand -hex 32 > /etc/jetcopy/", "the package's directory"),
    ("scripts/db-maintenance/db-monitor ", "watches for days; tests/it/monitoring/db_monitor.rs runs it"),
    (
        "psql -c \"SELECT jetcopy.take_registry(",
        "needs events that were written and replayed; tests/it/pipelines/registry.rs has them",
    ),
    ("jetcopy replay registry ", "the same"),
    ("jetcopy drain ", "needs a second daemon; tests/it/membership.rs has one"),
    ("pgbackrest ", "is not installed here"),
    ("pg_dump --data-only -t jetcopy.checkpoints", "needs a database of a version that was not released"),
    ("psql -c \"DROP SCHEMA jetcopy CASCADE\"", "the same"),
    ("psql -v ON_ERROR_STOP=1 --single-transaction -f jetcopy.sql", "the same"),
];

/// How commands begin that are run.
const RUN: [&str; 11] = [
    "curl ",
    "jetcopy ",
    "psql ",
    "echo ",
    "printf ",
    "mkdir ",
    "nats stream add ",
    "nats stream edit ",
    "sed ",
    "scripts/compose-secrets.sh",
    "scripts/db-maintenance/db-",
];

/// Commands that end otherwise than with 0: how they begin, their exit code, and what they say.
const ENDS: [(&str, i32, &str); 1] = [("jetcopy rewind frames --to 900", 1, "--yes")];

/// Commands that run until they are stopped, beside `jetcopy run`: they must say something first.
const WATCH: &str = "--watch";

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn document(path: &str) -> String {
    std::fs::read_to_string(own(path)).unwrap()
}

/// README.md and all of docs/.
fn documents() -> Vec<String> {
    let docs = std::fs::read_dir(own("docs")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: PathBuf| format!("docs/{}", path.file_name().unwrap().to_str().unwrap());
    let mut all: Vec<String> =
        docs.filter(|path| path.extension().is_some_and(|end| end == "md")).map(name).collect();
    all.push("README.md".to_owned());
    all.sort();
    all
}

fn is_listed(command: &str) -> bool {
    NOT_RUN.iter().any(|(begins, _)| command.starts_with(begins))
}

#[test]
fn every_command_of_the_documents_is_run_or_listed_with_a_reason() {
    let mut undecided = Vec::new();
    let mut unused: Vec<&str> = NOT_RUN.iter().map(|(begins, _)| *begins).collect();
    for path in documents().into_iter().filter(|path| path != RUNBOOKS) {
        for step in steps(&document(&path)) {
            let Kind::Command(command) = step.kind else { continue };
            unused.retain(|begins| !command.starts_with(begins));
            let decided = is_listed(&command)
                || (RUN.iter().any(|begins| command.starts_with(begins)) && is_walked(&path));
            if !decided {
                undecided.push(format!("{path}:{}: {command}", step.line));
            }
        }
    }
    assert!(
        undecided.is_empty(),
        "neither run nor listed in tests/it/documents.rs:\n{}",
        undecided.join("\n")
    );
    assert!(unused.is_empty(), "listed and nowhere to be found: {unused:?}");
}

/// Documents whose commands are run, each by a test below.
const WALKED: [&str; 11] = [
    "README.md",
    "docs/backup.md",
    "docs/commands.md",
    "docs/deployment.md",
    "docs/getting-started.md",
    "docs/migrating.md",
    "docs/operations.md",
    "docs/payloads.md",
    "docs/preview.md",
    "docs/store-operations.md",
    "docs/store.md",
];

/// Its commands have placeholders for the alert's labels.
const RUNBOOKS: &str = "docs/runbooks.md";

fn is_walked(path: &str) -> bool {
    WALKED.contains(&path)
}

/// Runs the commands of a document, from top to bottom.
async fn walk(path: &str, world: &mut World) {
    assert!(is_walked(path));
    let mut said = String::new();
    for step in steps(&document(path)) {
        let place = format!("{path}:{}", step.line);
        match step.kind {
            Kind::File(name, text) => world.write(&name, &text),
            Kind::Output(expected) => {
                let lines =
                    |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
                assert_eq!(lines(said.trim_end()), lines(expected.trim_end()), "{place}");
            }
            Kind::Command(command) if is_listed(&command) => {}
            Kind::Command(command) if command.starts_with("nats ") => world.nats(&command).await,
            Kind::Command(command) if command == "jetcopy run" || command.starts_with("jetcopy run ") => {
                world.start(&command).await;
            }
            Kind::Command(command) => {
                let watches = command.contains(WATCH);
                let ended = if watches {
                    world.run(&format!("timeout --preserve-status 3 {command}")).await
                } else {
                    world.run(&command).await
                };
                let (out, err) =
                    (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
                let (code, says) =
                    ENDS.iter().find(|(begins, ..)| command == *begins).map_or((0, ""), |end| (end.1, end.2));
                let said_so = format!("{out}{err}").contains(says);
                let ended_so = ended.status.code() == Some(code) || (watches && !out.is_empty());
                assert!(
                    ended_so && said_so,
                    "{place}: {command}\n{}\n{out}{err}\n{}",
                    ended.status,
                    world.log()
                );
                said = out;
                world.settled(&command).await;
            }
        }
    }
}

async fn world() -> (World, TestNats, TestPostgres) {
    // Without TimescaleDB, which some of docs/store-operations.md is about; src/store has its tests.
    let options = PostgresOptions::plain();
    let (nats, postgres) =
        (TestNats::start(&NatsOptions::default()).unwrap(), TestPostgres::start(&options).unwrap());
    (World::new(&nats, &postgres).await, nats, postgres)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_getting_started_lead_from_an_empty_server_to_a_select() {
    let (_, nats, postgres) = world().await;
    let mut world = World::empty(&nats, &postgres).await;
    walk("docs/getting-started.md", &mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_and_of_the_commands_page_do_what_they_say() {
    let (_, nats, postgres) = world().await;
    let mut world = World::empty(&nats, &postgres).await;
    walk("README.md", &mut world).await;
    let rows = "SELECT count(*) FROM frame_metadata WHERE camera_id = 'cam-1'";
    assert_eq!(world.database.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 1);
    // What the commands page takes for granted: a pipeline that has carried something, not all of it good.
    world.set("JETCOPY_CONFIG", "jetcopy.toml");
    let publish = "echo '{\"frame_id\": \"none\"}' | jetcopy publish frames.cam-1;
        for n in $(seq 1000); do echo \"{\\\"timestamp\\\": $(date +%s%6N), \\\"frame_id\\\": 2}\"; \
            done | jetcopy publish frames.cam-1";
    assert!(world.run(publish).await.status.success());
    world.settled(publish).await;
    walk("docs/commands.md", &mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_store_pages_do_what_they_say() {
    let (mut world, _nats, _postgres) = world().await;
    let settings = "[store]\ntables = [\"frames\", \"measurements\", \"series\", \"registry\"]\n";
    world.write("jetcopy.toml", &format!("{settings}[store.frame_metadata]\nretention = \"14d\"\n"));
    for name in ["FRAMES", "MEASUREMENTS", "SERIES", "REGISTRY"] {
        world
            .nats(&format!("nats stream add {name} --subjects '{}.>' --defaults", name.to_lowercase()))
            .await;
    }
    assert!(world.run("jetcopy migrate --config jetcopy.toml").await.status.success());
    world.database.batch_execute("CREATE TABLE my_table (time timestamptz NOT NULL)").await.unwrap();
    // What [http.api] of the page sets, for this daemon.
    world.write("http.token", "a-token-of-some-length");
    let url = world.variable("JETCOPY_POSTGRES__URL").to_owned();
    let api = format!("http://{}/api/v1", world.variable("JETCOPY_HTTP__LISTEN"));
    world.set("JETCOPY_HTTP__TOKEN_FILE", "http.token");
    world.set("JETCOPY_HTTP__API__URL", &url);
    world.set("JETCOPY_API", &api);
    walk("docs/store.md", &mut world).await;
    let ask = "curl -sSf -H \"Authorization: Bearer \
        $(cat http.token)\" \"$JETCOPY_API/measurements/recent?task=task-1\"";
    let answer: serde_json::Value = serde_json::from_slice(&world.run(ask).await.stdout).unwrap();
    assert_eq!((&answer["rows"][0]["websdr_id"], &answer["truncated"]), (&"rx-1".into(), &false.into()));
    walk("docs/store-operations.md", &mut world).await;
    let dead = "SELECT count(*) FROM jetcopy.dead_letters";
    assert_eq!(world.database.query_one(dead, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_preview_page_print_what_it_shows() {
    let (mut world, _nats, _postgres) = world().await;
    walk("docs/preview.md", &mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_payloads_page_print_what_it_shows() {
    let (mut world, _nats, _postgres) = world().await;
    walk("docs/payloads.md", &mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_backup_page_back_up_verify_and_restore() {
    let (mut world, _nats, postgres) = world().await;
    assert!(world.run("jetcopy migrate").await.status.success());
    walk("docs/backup.md", &mut world).await;
    let restored = connect(&postgres.database_url("restored")).await.unwrap();
    assert!(restored.query("SELECT FROM jetcopy.checkpoints", &[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_migration_page_change_over_without_losing_or_doubling_a_row() {
    let (mut world, _nats, _postgres) = world().await;
    walk("docs/migrating.md", &mut world).await;
    let row = world.database.query_one("SELECT count(*), min(site) FROM readings", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (1, "north"));
    // The second way: what is published after the cut is in the new stream, and there alone.
    let published = world.jetstream.publish("sensors.a2", "{}".into()).await.unwrap().await.unwrap();
    assert_eq!((published.stream.as_str(), published.sequence), ("SENSORS_2", 1));
    assert_eq!(world.jetstream.get_stream("SENSORS").await.unwrap().cached_info().state.last_sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mapping_of_the_operations_page_splits_a_stream_over_two_pipelines() {
    let text = document("docs/operations.md");
    let mapping = text
        .split("```text\n")
        .find(|block| block.starts_with("mappings"))
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let nats = TestNats::start(&NatsOptions { config: mapping.to_owned() }).unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let mut world = World::new(&nats, &postgres).await;
    world.set("JETCOPY_CONFIG", "jetcopy.toml");
    // The page begins with an upgrade of what runs already.
    world.write("jetcopy.toml", "[store]\ntables = [\"frames\"]\n");
    walk("docs/operations.md", &mut world).await;
    world.start("jetcopy run").await;
    let publish = "for n in $(seq 40); \
        do echo \"{\\\"camera\\\": $n, \\\"timestamp\\\": $(date +%s)000000, \\\"frame_id\\\": $n}\"; done |
        jetcopy publish 'frames.cam-{camera}'";
    let published = world.run(publish).await;
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    world.settled(publish).await;
    let sql = "SELECT count(*), count(DISTINCT camera_id), count(*) FILTER (WHERE camera_id LIKE 'cam-%') \
        FROM frame_metadata";
    let row = world.database.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (40, 40, 40));
    let shards = "SELECT count(*) FROM jetcopy.checkpoints WHERE last_sequence BETWEEN 1 AND 39";
    assert_eq!(world.database.query_one(shards, &[]).await.unwrap().get::<_, i64>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_deployment_page_make_the_secrets_of_the_containers() {
    let (mut world, _nats, _postgres) = world().await;
    walk("docs/deployment.md", &mut world).await;
    let token = std::fs::read_to_string(world.directory.path().join("secrets/http_token")).unwrap();
    assert_eq!(token.len(), 49, "a letter and 24 bytes in hexadecimal");
}

#[test]
fn every_file_that_a_document_links_to_is_there() {
    let more = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "GLOSSARY.md"].map(str::to_owned);
    for path in documents().into_iter().chain(more) {
        let text = document(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            if file.starts_with("http") {
                continue;
            }
            let target = if file.is_empty() { own(&path) } else { own(&path).parent().unwrap().join(file) };
            assert!(target.exists(), "{path} links to {link}");
            if !section.is_empty() && target.extension().is_some_and(|end| end == "md") {
                let sections = std::fs::read_to_string(&target).unwrap();
                let mut names = sections.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(names.any(|name| name == section), "{path} links to {link}");
            }
        }
    }
}

/// What a link calls the section of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|character| character.is_alphanumeric() || matches!(character, '-' | '_')).collect()
}
