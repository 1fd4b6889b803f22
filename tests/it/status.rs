//! What `jetcopy status` shows, with a daemon and without.

use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// A world whose configuration names a port, so that a command finds the daemon.
async fn world() -> (World, PathBuf) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = world.config(EVENTS);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))).unwrap();
    (world, config)
}

async fn object(world: &World, config: &std::path::Path) -> Value {
    world.run(config, &["status", "--json"]).await.objects().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_is_asked_and_a_dead_one_is_replaced_by_its_servers() {
    let (world, config) = world().await;
    world.publish("a", (1..=100).map(event)).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    daemon.says("pipeline is running").await;
    let text = world.run(&config, &["status"]).await.well();
    assert!(text.starts_with(&format!("daemon {} at 127.0.0.1:", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.contains("\nevents    running  "), "{text}");
    let seen = object(&world, &config).await;
    assert_eq!(
        (&seen["source"], &seen["pipelines"][0]["checkpoint_sequence"]),
        (&"daemon".into(), &100.into())
    );

    daemon.kill();
    world.publish("a", (101..=130).map(event)).await;
    let seen = object(&world, &config).await;
    assert_eq!(seen["source"], "servers");
    assert!(seen["why"].as_str().unwrap().starts_with("no daemon answers at 127.0.0.1:"), "{seen}");
    let events = &seen["pipelines"][0];
    assert_eq!(
        (&events["checkpoint_sequence"], &events["stream_last_sequence"]),
        (&100.into(), &130.into()),
        "{seen}"
    );
    assert_eq!(
        (&events["undelivered_messages"], &events["headroom_sequences"]),
        (&30.into(), &100.into()),
        "{seen}"
    );
    assert!(events["behind_seconds"].as_f64().unwrap() > 0.0, "{seen}");
    // The lease of the daemon that was killed ends by itself.
    eventually("the lease to end", || async {
        object(&world, &config).await["pipelines"][0]["state"] == "down"
    })
    .await;

    world.run(&config, &["pause", "events"]).await.well();
    let text = world.run(&config, &["status"]).await.well();
    assert!(text.contains("; this is what NATS and the database say\n"), "{text}");
    assert!(text.contains("\nevents    paused  "), "{text}");
    assert!(text.contains("\nevents: remedy: run `jetcopy resume events`\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_is_away_would_know_is_named() {
    let (world, config) = world().await;
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&world.nats_url, "nats://127.0.0.1:1")).unwrap();
    let text = world.run(&config, &["status"]).await.well();
    assert!(
        text.contains("\nevents: could not ask NATS: cannot connect to NATS at nats://127.0.0.1:1"),
        "{text}"
    );
    assert!(text.contains("\nevents    down  "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_shows_it_again_and_again() {
    use std::io::BufRead as _;
    let (world, config) = world().await;
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_jetcopy"));
    let mut child =
        jetcopy::testbed::spawn_tied(program, None, nix::sys::signal::Signal::SIGKILL, |command| {
            command.args(["status", "--json", "--watch=50ms", "--config"]).arg(&config);
            command.stdout(std::process::Stdio::piped());
        })
        .unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    for line in out.lines().take(3) {
        let seen: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(seen["pipelines"][0]["pipeline"], "events");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_manual_know_every_command() {
    let run = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        for command in ["dead-letters", "rewind", "export"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert!(run(&["man"]).contains("jetcopy \\- Moves messages"), "{}", run(&["man"]));
    let directory = tempfile::tempdir().unwrap();
    run(&["man", directory.path().to_str().unwrap()]);
    for page in ["jetcopy.1", "jetcopy-replay.1", "jetcopy-dead-letters-retry.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
}
