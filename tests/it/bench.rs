//! `jetcopy bench` as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use futures_util::TryStreamExt;
use jetcopy::testbed::spawn_tied;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{World, eventually};

fn bench(arguments: &[&str]) -> Child {
    spawn_tied(Path::new(env!("CARGO_BIN_EXE_jetcopy")), None, Signal::SIGKILL, |command| {
        command
            .arg("bench")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    })
    .unwrap()
}

/// What a run leaves on the servers, in the order of streams, schemas and rows of jetcopy's own tables.
async fn left(world: &World) -> (Vec<String>, i64, i64) {
    let streams: Vec<String> = world.jetstream.stream_names().try_collect().await.unwrap();
    let streams = streams.into_iter().filter(|name| name.starts_with("JETCOPY_BENCH")).collect();
    let schemas =
        world.count("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'jetcopy\\_bench%'").await;
    let rows =
        "SELECT (SELECT count(*) FROM jetcopy.checkpoints) + (SELECT count(*) FROM jetcopy.dead_letters)";
    (streams, schemas, world.count(rows).await)
}

/// The figure at a path such as `daemon.cpu_seconds`.
fn figure(outcome: &Value, path: &str) -> f64 {
    let value = path.split('.').fold(outcome, |value, key| &value[key]);
    value.as_f64().unwrap_or_else(|| panic!("{path} is {value}"))
}

/// What every outcome has, whatever was asked for.
fn is_whole(outcome: &Value, messages: f64, rows: f64) {
    let is = |path: &str, expected: f64| {
        assert!((figure(outcome, path) - expected).abs() < 0.5, "{path}: {outcome}");
    };
    is("published", messages);
    is("rows", rows);
    for path in ["published_per_second", "rows_per_second", "wal_bytes_per_row"] {
        assert!(figure(outcome, path) > 0.0, "{path}: {outcome}");
    }
    for process in ["daemon", "nats", "postgres", "bench"] {
        assert!(figure(outcome, &format!("{process}.peak_memory_mib")) > 1.0, "{process}: {outcome}");
        assert!(figure(outcome, &format!("{process}.cpu_share")) >= 0.0, "{process}: {outcome}");
    }
    assert!(figure(outcome, "daemon.cpu_seconds") > 0.0, "{outcome}");
}

// One test for all: the streams of the shared server would be another run's.
#[tokio::test(flavor = "multi_thread")]
async fn a_bench_measures_what_it_says_and_leaves_nothing_behind_also_when_it_is_interrupted_or_fails() {
    let world = World::new().await;
    let config = world.config("");

    // Without commit timestamps, as most servers are.
    let arguments =
        ["bench", "--json", "--rate=400", "--duration=2s", "--pipelines=2", "--rows-per-message=3"];
    let answer = world.run(&config, &arguments).await.well();
    let outcome: Value = serde_json::from_str(&answer).unwrap();
    // With the two seconds that warm up.
    is_whole(&outcome, 1_600.0, 4_800.0);
    assert_eq!(outcome["timed_by"], "looks");
    assert!(outcome["publish_to_commit_ms"].is_null(), "{outcome}");
    let latency = &outcome["publish_to_visible_ms"];
    assert!((figure(latency, "messages") - 800.0).abs() < 0.5, "{latency}");
    let shares = ["p50", "p90", "p99", "p99_9", "max"].map(|share| figure(latency, share));
    assert!(shares[0] > 0.0 && shares.is_sorted(), "{latency}");
    assert!(outcome["left_out"][0].as_str().unwrap().contains("track_commit_timestamp"), "{outcome}");
    assert!(outcome["samples"].as_array().unwrap().len() >= 2, "{outcome}");
    assert_eq!(left(&world).await, (Vec::new(), 0, 0));

    let arguments = ["bench", "--json", "--messages=30000", "--no-index", "--stored=1000", "--payload=400"];
    let answer = world.run(&config, &arguments).await.well();
    let outcome: Value = serde_json::from_str(&answer).unwrap();
    is_whole(&outcome, 30_000.0, 30_000.0);
    assert!(outcome["publish_to_visible_ms"].is_null() && outcome["rate"].is_null(), "{outcome}");
    assert_eq!(left(&world).await, (Vec::new(), 0, 0));

    let config = config.to_str().unwrap();
    let mut run = bench(&["--config", config, "--rate=300", "--duration=10m"]);
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("visible")), "it ended before it began");
    let (streams, schemas, rows) = left(&world).await;
    assert_eq!((streams.len(), schemas, rows), (1, 1, 1));
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    let rest: Vec<String> = said.collect();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    assert_eq!(left(&world).await, (Vec::new(), 0, 0));

    // What a killed run leaves, the command itself takes away.
    let mut run = bench(&["--config", config, "--rate=300", "--duration=10m"]);
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("visible")), "it ended before it began");
    run.kill().unwrap();
    run.wait().unwrap();
    let answer = world.run(Path::new(config), &["bench", "--clean"]).await.well();
    assert_eq!(answer.lines().count(), 2, "{answer}");
    assert_eq!(left(&world).await, (Vec::new(), 0, 0));

    let mut run = bench(&["--config", config, "--rate=300", "--duration=10m"]);
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("visible")), "it ended before it began");
    world.jetstream.delete_stream(&left(&world).await.0[0]).await.unwrap();
    let rest: Vec<String> = said.collect();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    assert!(rest.iter().any(|line| line.contains("no stream stores it")), "{rest:?}");
    assert_eq!(left(&world).await, (Vec::new(), 0, 0));
}

#[tokio::test]
async fn a_daemon_that_ends_by_itself_is_an_error_that_holds_the_end_of_its_log() {
    let mut daemon = jetcopy::bench::daemon::Daemon::start(
        Path::new(env!("CARGO_BIN_EXE_jetcopy")),
        "[nats]\nno_such_key = 1\n",
    )
    .unwrap();
    let mut said = String::new();
    eventually("the daemon to end", || {
        said = daemon.check().err().map(|error| error.to_string()).unwrap_or_default();
        let ended = !said.is_empty();
        async move { ended }
    })
    .await;
    assert!(said.contains("has ended") && said.contains("no_such_key"), "{said}");
}

#[test]
fn a_bench_on_private_servers_times_commits_and_writes_a_report_that_needs_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.html");
    let report = file.to_str().unwrap();
    let run = bench(&["--private", "--json", "--rate=500", "--duration=2s", "--html", report]);
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    is_whole(&outcome, 2_000.0, 2_000.0);
    assert_eq!(outcome["timed_by"], "commit timestamps");
    assert!(figure(&outcome, "publish_to_commit_ms.p50") > 0.0, "{outcome}");
    assert_eq!(outcome["left_out"], serde_json::json!([]));
    let page = std::fs::read_to_string(file).unwrap();
    assert_eq!(page.matches("<svg").count(), 5, "{page}");
    for elsewhere in ["http://", "https://", "<script", "<link", "@import", "url(", "src="] {
        assert!(!page.contains(elsewhere), "the report needs {elsewhere}");
    }
    for name in ["publish → visible", "PostgreSQL", "write-ahead log, bytes/row"] {
        assert!(page.contains(name), "the report lacks {name}");
    }
}

#[test]
fn a_bench_that_cannot_be_is_refused_before_anything_is_made() {
    for (arguments, why) in [
        (["--private", "--rate=10", "--messages=5"].as_slice(), "cannot be used with"),
        (&["--private", "--duration=5s"], "--rate"),
        (&["--private", "--payload=100", "--rows-per-message=50"], "ask for"),
        (&["--private", "--payload=5000000"], "max_payload"),
        (&["--private", "--html=/nowhere/report.html"], "cannot write /nowhere/report.html"),
    ] {
        let output = bench(arguments).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
    }
}
