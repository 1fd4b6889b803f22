//! The store's queries over HTTP: what the document says, the limits, and the role that reads only.

use std::path::{Path, PathBuf};

use jetcopy::testbed::{PostgresOptions, TestPostgres};
use serde_json::{Value, json};

use crate::support::{Daemon, World, eventually};

const TOKEN: &str = "a-token-of-some-length";

/// Rows for every query.
const ROWS: &str = "
    SELECT jetcopy.add_partitions(relation, ARRAY[(now() AT TIME ZONE 'UTC')::date, \
        (now() AT TIME ZONE 'UTC')::date - 1])
        FROM jetcopy.partitioned_tables;
    INSERT INTO frame_metadata VALUES (now() - interval '1 s', 'c', 1, 2, 3, 'h264', 25, true, 4, 5, 6, \
        'NaN', '{\"a\": [1]}');
    INSERT INTO detection_events VALUES (now() - interval '1 s', 'c', 1, 2, 'car', 0.5, 1, 2, 3, 4, NULL);
    INSERT INTO frame_stats_1m (bucket, camera_id, frames) VALUES (now() - interval '1 h', 'c', 1);
    INSERT INTO detection_stats_1m (bucket, camera_id, label, detections) \
        VALUES (now() - interval '1 h', 'c', 'car', 1);
    INSERT INTO websdrs (id, name, updated_at) VALUES ('r', 'Receiver', now());
    INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, snr_db, frequency_offset_hz)
        SELECT now() - n * interval '1 s', 't', 'r', 7.1, n, n FROM generate_series(1, 20) n;
    INSERT INTO measurements_daily (bucket, websdr_id, measurements) VALUES (now() - interval '1 d', 'r', 1);
    INSERT INTO time_series_metadata (id, updated_at) VALUES ('s', now());
    INSERT INTO time_series_data_points VALUES (now() - interval '1 s', 's', 'a', 1.5);
    INSERT INTO projects (id, name, settings, updated_at) VALUES ('p', 'One', '[]', now());
    INSERT INTO files (project_id, path, sha256, tags, updated_at) VALUES ('p', 'f', 'd', '[\"t\"]', now()), \
        ('q', 'g', 'e', NULL, now());
    INSERT INTO files (project_id, path, staged, expires_at, updated_at) \
        VALUES ('p', 'old', true, now() - interval '1 h', now());
    INSERT INTO operations_log VALUES (now() - interval '1 s', 'r', 'p', 'query', 'x', '{}', 1.5, 'ok', \
        'none');
    CREATE ROLE jetcopy_owner; CREATE TABLE events (id bigint)";

/// What must be given to the queries that need something.
const GIVEN: [(&str, &str); 6] =
    [("camera", "c"), ("task", "t"), ("series", "s"), ("project", "p"), ("digest", "d"), ("width", "1h")];

/// A plain server with the shipped roles and rows, a role that reads only, and a daemon's configuration with
/// `settings` of the API.
async fn served(settings: &str) -> (World, TestPostgres, PathBuf) {
    let postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let mut world = World::with_postgres(&postgres).await;
    world.database.batch_execute(ROWS).await.unwrap();
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postgres/roles.sql");
    world.database.batch_execute(&std::fs::read_to_string(roles).unwrap()).await.unwrap();
    world.database.batch_execute("CREATE ROLE jetcopy_api LOGIN IN ROLE jetcopy_reader").await.unwrap();
    let url = world.database_url.replace("postgres@", "jetcopy_api@");
    let token = world.directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    // The section [http] stands last in what the world writes before the pipelines.
    let config = world.config(&format!(
        "token_file = '{}'\n[http.api]\nurl = \"{url}\"\n{settings}\n\
         [[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\n[[pipeline.table]]\nname = \"events\"\n",
        token.display()
    ));
    world.reconnect().await;
    (world, postgres, config)
}

fn ask(daemon: &Daemon, path: &str) -> (u16, Value) {
    let (code, body) = daemon.get_as(&format!("/api/v1/{path}"), TOKEN);
    (code, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

/// Whether a value is what a schema of the document says; only what the document uses is known here.
fn check(value: &Value, schema: &Value, document: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.strip_prefix('#').unwrap());
        return check(value, found.unwrap_or_else(|| panic!("{place}: {reference}")), document, place);
    }
    if value.is_null() {
        assert_eq!(schema["nullable"], true, "{place}");
        return;
    }
    let holds = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_f64(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("{place}: {other}"),
    };
    assert!(holds, "{place}: {value} is not {schema}");
    if schema["format"] == "date-time" {
        assert!(value.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{place}: {value}");
    }
    if let Some(known) = schema["enum"].as_array() {
        assert!(known.contains(value), "{place}: {value}");
    }
    for item in value.as_array().into_iter().flatten() {
        check(item, &schema["items"], document, place);
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object()) {
        for name in schema["required"].as_array().unwrap() {
            assert!(object.contains_key(name.as_str().unwrap()), "{place} lacks {name}");
        }
        for (name, value) in object {
            let schema =
                properties.get(name).unwrap_or_else(|| panic!("{place}: {name} is not in the document"));
            check(value, schema, document, &format!("{place}.{name}"));
        }
    }
}

/// A value that a parameter takes, and another that it does not, if any text is not one.
fn values(parameter: &Value) -> (&'static str, Option<&'static str>) {
    let schema = &parameter["schema"];
    match (schema["type"].as_str().unwrap(), parameter["name"].as_str().unwrap()) {
        ("integer", _) => ("7", Some("-1")),
        ("number", _) => ("0.25", Some("much")),
        ("boolean", _) => ("true", Some("perhaps")),
        ("string", "since") => ("2h", Some("soon")),
        ("string", "until") => ("1h", Some("soon")),
        ("string", "at") => ("2026-07-01T12:00:00%2B02:00", Some("soon")),
        ("string", "width") => ("1h", Some("1month")),
        ("string" | "array", _) => ("x,y", None),
        (other, name) => panic!("{name}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_of_the_document_answers_as_it_says_to_a_role_that_reads_only() {
    let (_world, _postgres, config) = served("").await;
    let daemon = Daemon::start(&config);
    daemon.says("starting jetcopy").await;
    let (code, document) = ask(&daemon, "openapi.json");
    assert_eq!((code, &document["openapi"]), (200, &json!("3.0.3")));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25, "{}", paths.len());
    for (path, item) in paths {
        let operation = &item["get"];
        let parameters = operation["parameters"].as_array().unwrap();
        let names = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
        let needed: Vec<String> = parameters
            .iter()
            .filter(|parameter| parameter["required"] == true)
            .map(|parameter| {
                let name = names(parameter);
                let (_, value) = GIVEN.iter().find(|(given, _)| *given == name).unwrap();
                format!("{name}={value}")
            })
            .collect();
        let place = path.trim_start_matches('/');
        let asked = format!("{place}?{}", needed.join("&"));
        let (code, body) = ask(&daemon, &asked);
        assert_eq!(code, 200, "{asked}: {body}");
        assert_eq!(
            (&body["query"], &body["truncated"]),
            (&operation["operationId"], &json!(false)),
            "{asked}"
        );
        check(
            &body,
            &operation["responses"]["200"]["content"]["application/json"]["schema"],
            &document,
            &asked,
        );
        assert!(!body["rows"].as_array().unwrap().is_empty(), "{asked} finds nothing");

        for parameter in parameters {
            let (name, (right, wrong)) = (names(parameter), values(parameter));
            let others: Vec<_> =
                needed.iter().filter(|given| !given.starts_with(&format!("{name}="))).cloned().collect();
            let with = |value: &str| {
                format!("{place}?{}", [others.clone(), vec![format!("{name}={value}")]].concat().join("&"))
            };
            let since = if name == "until" { "&since=3h" } else { "" };
            let (code, body) = ask(&daemon, &(with(right) + since));
            assert_eq!(code, 200, "{}: {body}", with(right));
            if let Some(wrong) = wrong {
                let (code, body) = ask(&daemon, &with(wrong));
                assert_eq!(code, 400, "{}", with(wrong));
                assert!(body["error"].as_str().unwrap().contains(&name), "{body}");
            }
        }
        if !needed.is_empty() {
            let (code, body) = ask(&daemon, place);
            assert!(
                code == 400 && body["error"].as_str().unwrap().contains("needs"),
                "{place}: {code} {body}"
            );
        }
        let (code, body) = ask(&daemon, &(asked.clone() + "&no_such=1"));
        assert!(code == 400 && body["error"].as_str().unwrap().contains("no_such"), "{place}: {code} {body}");
        check(&body, &json!({"$ref": "#/components/schemas/error"}), &document, place);
    }
    let (code, body) = ask(&daemon, "measurements");
    assert!(code == 404 && body["error"].as_str().unwrap().contains("openapi.json"), "{code} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_bounded_in_rows_bytes_and_time_and_so_is_the_number_of_queries() {
    let settings = "max_rows = 15\nmax_bytes = \"2500B\"\ntimeout = \"3s\"\nconcurrency = 1";
    let (world, _postgres, config) = served(settings).await;
    let daemon = Daemon::start(&config);
    daemon.says("starting jetcopy").await;
    let rows = |body: &Value| body["rows"].as_array().unwrap().len();
    let (code, body) = ask(&daemon, "measurements/recent?max_rows=10");
    assert_eq!((code, rows(&body), &body["truncated"]), (200, 10, &json!(false)));
    let large = "UPDATE projects SET settings = to_jsonb(repeat('x', 3000))";
    world.database.batch_execute(large).await.unwrap();
    let (code, body) = ask(&daemon, "projects");
    assert!(code == 400 && body["error"].as_str().unwrap().contains("ask for fewer rows"), "{code} {body}");
    world
        .database
        .batch_execute("INSERT INTO websdrs (id, updated_at) SELECT n, now() FROM generate_series(1, 30) n")
        .await
        .unwrap();
    let (code, body) = ask(&daemon, "receivers");
    assert_eq!((code, rows(&body), &body["truncated"]), (200, 15, &json!(true)));

    // A query that waits for a table: the one beside it gets no turn, and in time it ends, at the server too.
    world.database.batch_execute("BEGIN; LOCK TABLE websdrs IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'jetcopy_api' AND wait_event_type = 'Lock'";
    let (late, busy) = std::thread::scope(|scope| {
        let late = scope.spawn(|| ask(&daemon, "receivers"));
        let busy = tokio::task::block_in_place(|| {
            let handle = tokio::runtime::Handle::current();
            handle.block_on(eventually("a query to wait", || async { world.count(waiting).await == 1 }));
            ask(&daemon, "files?project=p")
        });
        (late.join().unwrap(), busy)
    });
    assert!(busy.0 == 503 && busy.1["error"].as_str().unwrap().contains("in use"), "{busy:?}");
    assert!(late.0 == 504 && late.1["error"].as_str().unwrap().contains("timed out after 3s"), "{late:?}");
    eventually("the query to end", || async { world.count(waiting).await == 0 }).await;
    world.database.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ask(&daemon, "receivers").0, 200);
}

/// Requests by outcome as `/metrics` has them, and how many seconds those took together.
fn told(daemon: &Daemon) -> ([u64; 5], f64) {
    let metrics = daemon.get_as("/metrics", TOKEN).1;
    let value = |series: &str| -> String {
        let line = metrics.lines().find(|line| line.starts_with(series));
        line.unwrap_or_else(|| panic!("{series}: {metrics}")).rsplit_once(' ').unwrap().1.to_owned()
    };
    let outcomes = ["answered", "refused", "unavailable", "timeout", "failed"];
    let counts = outcomes.map(|outcome| {
        value(&format!("jetcopy_api_requests_total{{outcome=\"{outcome}\"}}")).parse::<u64>().unwrap()
    });
    let timed: u64 = value("jetcopy_api_request_seconds_count").parse().unwrap();
    assert_eq!(timed, counts.iter().sum::<u64>());
    (counts, value("jetcopy_api_request_seconds_sum").parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_requests_is_what_their_clients_saw() {
    let (world, _postgres, config) = served("timeout = \"1s\"\nconcurrency = 1").await;
    let daemon = Daemon::start(&config);
    daemon.says("starting jetcopy").await;
    assert_eq!(told(&daemon), ([0; 5], 0.0));
    let mut seen = [0; 5];
    let mut count = |code: u16| {
        let outcome = [200, 400, 503, 504, 500].iter().position(|&known| known == code);
        seen[outcome.unwrap_or(1)] += 1;
        code
    };
    for (path, code) in
        [("projects", 200), ("receivers", 200), ("files", 400), ("absent", 404), ("projects", 200)]
    {
        assert_eq!(count(ask(&daemon, path).0), code, "{path}");
    }
    // Neither what has no token nor the document is a query.
    assert_eq!(daemon.get("/api/v1/projects").0, 401);
    assert_eq!(ask(&daemon, "openapi.json").0, 200);
    world.database.batch_execute("REVOKE SELECT ON websdrs FROM jetcopy_reader").await.unwrap();
    assert_eq!(count(ask(&daemon, "receivers").0), 500);
    world.database.batch_execute("BEGIN; LOCK TABLE projects IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(count(ask(&daemon, "projects").0), 504);
    world.database.batch_execute("ROLLBACK; ALTER ROLE jetcopy_api NOLOGIN").await.unwrap();
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'jetcopy_api'";
    world.count(ended).await;
    let away = count(ask(&daemon, "projects").0);
    assert!(away >= 500, "{away}");
    let (counts, seconds) = told(&daemon);
    assert_eq!(counts, seen);
    assert!(seconds >= 1.0, "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_whether_the_role_of_the_api_reads_the_store_and_can_change_nothing() {
    let (world, _postgres, config) = served("").await;
    let text = std::fs::read_to_string(&config).unwrap();
    let checked = async |change: &str, url: &dyn Fn(&str) -> String| {
        world.database.batch_execute(change).await.unwrap();
        let changed: String = text
            .lines()
            .map(|line| if line.contains("jetcopy_api@") { url(line) + "\n" } else { line.to_owned() + "\n" })
            .collect();
        std::fs::write(&config, changed).unwrap();
        let said = world.run(&config, &["check"]).await;
        let about: Vec<_> = said.out.lines().filter(|line| line.contains("http.api")).collect();
        about.join("\n")
    };
    let same = |line: &str| line.to_owned();
    let said = checked("SELECT 1", &same).await;
    assert!(
        said.starts_with("ok") && said.contains("can read 17 tables of the store and change nothing"),
        "{said}"
    );
    let said = checked("GRANT INSERT ON projects TO jetcopy_api", &same).await;
    assert!(
        said.starts_with("warn") && said.contains("should be read-only, but may change public.projects"),
        "{said}"
    );
    let said = checked(
        "REVOKE INSERT ON projects FROM jetcopy_api; GRANT CREATE ON SCHEMA public TO jetcopy_api",
        &same,
    )
    .await;
    assert!(said.starts_with("warn") && said.contains("schema public"), "{said}");
    let revoke =
        "REVOKE CREATE ON SCHEMA public FROM jetcopy_api; REVOKE SELECT ON files FROM jetcopy_reader";
    let said = checked(revoke, &same).await;
    assert!(said.starts_with("error") && said.contains("role jetcopy_api may not read files"), "{said}");
    let said = checked("REVOKE jetcopy_reader FROM jetcopy_api", &same).await;
    assert!(said.starts_with("error") && said.contains("no USAGE on schema jetcopy"), "{said}");
    let said = checked("SELECT 1", &|line| line.replace("jetcopy_api@", "postgres@")).await;
    assert!(said.starts_with("warn") && said.contains("more"), "{said}");
    let away = |_: &str| "url = \"postgres://jetcopy_api@127.0.0.1:1/metadata\"".to_owned();
    let said = checked("SELECT 1", &away).await;
    assert!(said.starts_with("error") && said.contains("cannot be reached"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_api_unless_it_is_configured_and_then_only_for_the_token() {
    let (world, _postgres, config) = served("").await;
    let daemon = Daemon::start(&config);
    daemon.says("starting jetcopy").await;
    for path in ["/api/v1/projects", "/api/v1/openapi.json", "/api/v1/absent"] {
        assert_eq!(daemon.get(path).0, 401, "{path}");
        assert_eq!(daemon.get_as(path, "another-token-of-such").0, 401, "{path}");
    }
    daemon.kill();
    let pipeline =
        "[[pipeline]]\nname = \"events\"\nstream = \"STREAM\"\n[[pipeline.table]]\nname = \"events\"\n";
    let daemon = Daemon::start(&world.config(pipeline));
    daemon.says("starting jetcopy").await;
    for path in ["/api/v1/projects", "/api/v1/openapi.json"] {
        assert_eq!(daemon.get(path).0, 404, "{path}");
    }
    drop(daemon);
    let without_token = format!("[http.api]\n{pipeline}");
    let said = world.run(&world.config(&without_token), &["check"]).await;
    assert!(said.code == 2 && said.err.contains("is served only with a token"), "{said:?}");
}
