//! What the commands say and how they exit.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Daemon, World};

const PIPELINE: &str = r#"
[[pipeline]]
name = "frames"
stream = "STREAM"
[[pipeline.table]]
name = "frame_metadata"
"#;

/// Runs a command to its end, with no settings in its environment.
async fn jetcopy(arguments: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(arguments).arg("--config").arg(config);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("JETCOPY_") {
            command.env_remove(name);
        }
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_wrong_configuration_exits_with_2_and_names_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jetcopy.toml");
    std::fs::write(&path, "[nats]\nurll = \"nats://me:hush@a\"\n").unwrap();
    for command in ["run", "check", "migrate"] {
        let output = jetcopy(&[command], &path).await;
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = text(&output.stderr);
        assert!(
            said.contains("jetcopy.toml:2: nats.urll: unknown key `urll`; did you mean `url`?"),
            "{said}"
        );
        assert!(!said.contains("hush"), "{said}");
    }
}

#[tokio::test]
async fn arguments_that_are_not_there_exit_with_2() {
    let output = jetcopy(&["rum"], Path::new("jetcopy.toml")).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn check_exits_with_0_where_all_is_well_and_with_1_where_it_is_not() {
    let world = World::new().await;
    let output = jetcopy(&["check"], &world.config(PIPELINE)).await;
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("no errors, no warnings\n"), "{said}");
    assert!(!said.contains('\x1b'), "colours are for terminals only: {said}");

    let absent = PIPELINE.replace("frame_metadata", "absent").replace("STREAM", "ABSENT");
    let output = jetcopy(&["check", "--json"], &world.config(&absent)).await;
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<_> = findings
        .iter()
        .filter(|finding| finding["level"] == "error")
        .map(|finding| finding["place"].as_str().unwrap())
        .collect();
    assert_eq!(errors, ["pipeline frames, stream ABSENT", "pipeline frames, table absent"]);
}

#[tokio::test]
async fn an_http_address_that_is_taken_ends_the_daemon_with_1_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let world = World::new().await;
    let path = world.config(PIPELINE);
    let text = std::fs::read_to_string(&path).unwrap().replace("127.0.0.1:0", &address.to_string());
    std::fs::write(&path, text).unwrap();
    let daemon = Daemon::start(&path);
    let (status, _) = daemon.ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(daemon.log().contains(&format!("cannot listen on {address}")), "{}", daemon.log());
}

#[tokio::test]
async fn logs_are_json_objects_where_that_is_asked_for() {
    let world = World::new().await;
    let daemon = Daemon::start(&world.config(&format!("[log]\nformat = \"json\"\n{PIPELINE}")));
    daemon.says("pipeline is running").await;
    for line in daemon.log().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
    }
}
