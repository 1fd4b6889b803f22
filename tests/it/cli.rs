//! What the commands say and how they exit.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres};
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

#[tokio::test]
async fn maintain_says_what_it_did_and_exits_with_1_when_a_step_failed() {
    let world = World::plain().await;
    let config = world.config(PIPELINE);
    world
        .database
        .batch_execute("SELECT jetcopy.add_partition('measurements', current_date - 100)")
        .await
        .unwrap();
    let output = jetcopy(&["maintain"], &config).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("changed  measurements        1 partitions dropped, older than 30d\n"), "{said}");

    world.database.batch_execute("ALTER TABLE frame_stats_1m RENAME bucket TO other").await.unwrap();
    let output = jetcopy(&["maintain", "--json"], &config).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["outcome"], "failed");
    let failed: Vec<&Value> =
        report["lines"].as_array().unwrap().iter().filter(|line| line["kind"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["name"], "frame_stats_1m");
}

#[tokio::test]
async fn store_shows_sizes_rows_and_jobs_with_timescaledb_and_without() {
    for world in [World::plain().await, World::new().await] {
        world
            .database
            .batch_execute(
                "INSERT INTO frame_metadata (time, camera_id, frame_id)
                 SELECT now(), 'cam-1', n FROM generate_series(1, 1000) n; ANALYZE frame_metadata",
            )
            .await
            .unwrap();
        let config = world.config(PIPELINE);
        // Puts TimescaleDB's policies in place.
        assert_eq!(jetcopy(&["migrate"], &config).await.status.code(), Some(0));
        assert_eq!(jetcopy(&["maintain"], &config).await.status.code(), Some(0));
        let output = jetcopy(&["store", "--json"], &config).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let relations = report["relations"].as_array().unwrap();
        let named = |name: &str| relations.iter().find(|relation| relation["name"] == name).unwrap();
        let (frames, minutes) = (named("frame_metadata"), named("frame_stats_1m"));
        let expected = if report["timescaledb"].is_null() {
            ("partitioned", "table", 4)
        } else {
            ("hypertable", "continuous_aggregate", 1)
        };
        assert_eq!((&frames["kind"], &minutes["kind"]), (&expected.0.into(), &expected.1.into()), "{report}");
        assert_eq!(frames["parts"], expected.2, "{report}");
        assert_eq!(frames["rows_estimate"], 1_000, "{report}");
        assert!(frames["bytes"].as_i64().unwrap() > 50_000, "{report}");
        let jobs = report["jobs"].as_array().unwrap();
        assert!(jobs.iter().any(|job| job["name"] == "frame_stats_1m"), "{report}");
        let table = text(&jetcopy(&["store"], &config).await.stdout);
        assert!(table.contains("frame_metadata") && table.contains("LAST STATUS"), "{table}");
    }
}

#[tokio::test]
async fn without_a_url_the_database_is_the_one_that_the_variables_of_other_programs_name() {
    let postgres = TestPostgres::shared_plain().unwrap();
    let url = postgres.create_database().await.unwrap();
    let (port, database) = (postgres.port().to_string(), url.rsplit('/').next().unwrap().to_owned());
    let directory = tempfile::tempdir().unwrap();
    let services = directory.path().join("services.conf");
    std::fs::write(
        &services,
        format!("[here]\nhost=127.0.0.1\nport={port}\nuser=postgres\ndbname={database}\n"),
    )
    .unwrap();
    let services = services.display().to_string();
    let ways: [&[(&str, &str)]; 3] = [
        &[("DATABASE_URL", &url)],
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "postgres"), ("PGDATABASE", &database)],
        &[("PGSERVICE", "here"), ("PGSERVICEFILE", &services)],
    ];
    for way in ways {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        command
            .args(["migrate", "--status"])
            .current_dir(directory.path())
            .env_clear()
            .envs(way.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = text(&output.stdout);
        assert!(
            output.status.success() && said.contains("pending"),
            "{way:?}: {said}{}",
            text(&output.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_is_answered_beside_hundreds_of_connections_that_send_half_a_head() {
    let world = World::new().await;
    let config = world.config(PIPELINE);
    let daemon = Daemon::start(&config);
    daemon.says("http=").await;
    let address = daemon.http_address();
    let mut silent = Vec::new();
    for _ in 0..400 {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").unwrap();
        silent.push(stream);
    }
    let path = world.directory.path().join("healthcheck.toml");
    std::fs::write(&path, format!("http.listen = \"{address}\"\n")).unwrap();
    let output = jetcopy(&["healthcheck"], &path).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    drop(silent);
}

#[tokio::test]
async fn store_tells_up_to_where_each_roll_up_is_filled_with_timescaledb_too() {
    for world in [World::plain().await, World::new().await] {
        let config = world.config(PIPELINE);
        assert_eq!(jetcopy(&["migrate"], &config).await.status.code(), Some(0));
        let sql = "INSERT INTO frame_metadata (time, camera_id, frame_id)
            SELECT now() - n * interval '1 minute', 'cam-1', n FROM generate_series(1, 5) n";
        world.database.batch_execute(sql).await.unwrap();
        if world.count("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").await > 0 {
            let refresh = "CALL refresh_continuous_aggregate('frame_stats_1m', NULL, NULL)";
            world.database.batch_execute(refresh).await.unwrap();
        } else {
            assert_eq!(jetcopy(&["maintain"], &config).await.status.code(), Some(0));
        }
        let report: Value =
            serde_json::from_slice(&jetcopy(&["store", "--json"], &config).await.stdout).unwrap();
        let jobs = report["jobs"].as_array().unwrap();
        let filled = jobs.iter().find(|job| job["name"] == "frame_stats_1m" && !job["filled_to"].is_null());
        let filled = filled.unwrap_or_else(|| panic!("{report}"))["filled_to"].as_str().unwrap();
        let right = format!(
            "SELECT count(*) FROM generate_series(1, 1)
            WHERE timestamp '{filled}' BETWEEN (now() AT TIME ZONE 'UTC') - interval '5 min' \
                AND (now() AT TIME ZONE 'UTC') + interval '1 min'"
        );
        assert_eq!(world.count(&right).await, 1, "{filled}");
    }
}

#[tokio::test]
async fn a_configuration_in_this_directory_is_found_and_check_says_where_the_servers_were_named() {
    let secured = "authorization { user: me, password: \"hu/sh\" }";
    let nats = TestNats::start(&NatsOptions { config: secured.to_owned() }).unwrap();
    let postgres = TestPostgres::shared_plain().unwrap();
    let url = postgres.create_database().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let contexts = directory.path().join("nats/context");
    std::fs::create_dir_all(&contexts).unwrap();
    let context = serde_json::json!({"url": nats.url(), "user": "me", "password": "hu/sh"});
    std::fs::write(contexts.join("here.json"), context.to_string()).unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        command.args(arguments).current_dir(directory.path()).env_clear();
        command.env("XDG_CONFIG_HOME", directory.path()).env("DATABASE_URL", &url);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let without = run(&["check"]).await;
    assert_eq!(without.status.code(), Some(2));
    let said = text(&without.stderr);
    assert!(said.contains("there is no ./jetcopy.toml and no /etc/jetcopy/jetcopy.toml"), "{said}");
    let config = format!("[nats]\ncontext = \"here\"\n{PIPELINE}");
    std::fs::write(directory.path().join("jetcopy.toml"), config).unwrap();
    let said = text(&run(&["check"]).await.stdout);
    let expected = "ok    config: jetcopy.toml; where NATS is, NATS context here says, and where PostgreSQL \
                    is, DATABASE_URL\n";
    assert!(said.contains(expected), "{said}");
    assert!(said.contains("ok    nats: NATS server") && !said.contains("hu/sh"), "{said}");
}
