//! `jetcopy demo` as a process.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use jetcopy::testbed::spawn_tied;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn demo(arguments: &[&str]) -> Child {
    let program = Path::new(env!("CARGO_BIN_EXE_jetcopy"));
    spawn_tied(program, None, Signal::SIGKILL, |command| {
        // Of itself it takes TimescaleDB where the server offers it; tests do so only where they are told to.
        if std::env::var_os("JETCOPY_TIMESCALEDB").is_none() {
            command.env("JETCOPY_TIMESCALEDB", "no");
        }
        command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    })
    .unwrap()
}

/// The port at the end of a line such as `stream    FRAMES at nats://127.0.0.1:27700`.
fn port(line: &str) -> u16 {
    line.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap()
}

#[test]
fn the_demo_commits_all_that_it_publishes_and_leaves_no_server_behind() {
    let output = demo(&["--duration", "3s", "--rate", "500", "--json"]).wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let number = |key: &str| summary[key].as_f64().unwrap();
    assert!(number("published") > 0.0);
    assert_eq!(number("committed").to_bits(), number("published").to_bits());
    assert!(number("rows") >= number("published"), "each frame is a row, each detection another");
    assert!(number("dead_letters").abs() < f64::EPSILON);
    assert!(number("latency_p99_ms") > 0.0);
    for what in ["database", "stream"] {
        let line = text.lines().find(|line| line.starts_with(what)).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port(line))).is_err(), "still there: {line}");
    }
}

#[test]
fn ctrl_c_ends_the_demo_with_a_summary_of_committed_frames() {
    let mut demo = demo(&["--rate", "500"]);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("1 s  published")));
    kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), Signal::SIGINT).unwrap();
    let summary = lines.last().unwrap();
    assert!(demo.wait().unwrap().success());
    let count = |key: &str| -> u64 {
        let field = summary.split(", ").find_map(|field| field.strip_prefix(key)).unwrap();
        field.trim().parse().unwrap()
    };
    assert!(count("published") > 0);
    assert_eq!(count("published"), count("committed"), "{summary}");
}
