//! The daemon with no more rights than `config/nats/jetcopy.conf` and `config/postgres/roles.sql` give, and
//! no secret of it anywhere but in its files.

use std::path::{Path, PathBuf};

use futures_util::{FutureExt as _, StreamExt as _};
use jetcopy::catalog::groups::Group;
use jetcopy::config;
use jetcopy::testbed::{NatsOptions, PostgresOptions, TestNats, TestPostgres, connect};
use serde_json::json;

use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

/// Secrets that look like nothing else.
const NATS_PASSWORD: &str = "nats-pass-7Hq2";
const PUBLISHER_PASSWORD: &str = "publisher-pass-9Kx4";
const POSTGRES_PASSWORD: &str = "postgres-pass-3Wz8";
const HTTP_TOKEN: &str = "http-token-5Vb1-long-enough";

fn shipped(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn nats() -> TestNats {
    let variables = format!(
        "JETCOPY_NATS_PASSWORD: \"{NATS_PASSWORD}\"\n\
         JETCOPY_NATS_PUBLISHER_PASSWORD: \"{PUBLISHER_PASSWORD}\"\n"
    );
    TestNats::start(&NatsOptions { config: variables + &shipped("config/nats/jetcopy.conf") }).unwrap()
}

async fn as_user(nats: &TestNats, user: &str, password: &str) -> async_nats::Client {
    let options = async_nats::ConnectOptions::new().user_and_password(user.into(), password.into());
    options.connect(nats.url()).await.unwrap()
}

/// A database that the shipped roles were made in, and the daemon's own address of it.
async fn database(postgres: &TestPostgres) -> (tokio_postgres::Client, String) {
    database_with(postgres, config::Store::default()).await
}

/// The same, with all groups of the store where that says.
async fn database_with(postgres: &TestPostgres, store: config::Store) -> (tokio_postgres::Client, String) {
    let url = postgres.create_database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let admin = connect(&url).await.unwrap();
    let owner = format!(
        "CREATE ROLE jetcopy_owner NOLOGIN; GRANT CREATE ON DATABASE {name} TO jetcopy_owner; \
         GRANT CREATE, USAGE ON SCHEMA public TO jetcopy_owner; \
         CREATE ROLE migrator LOGIN IN ROLE jetcopy_owner"
    );
    admin.batch_execute(&owner).await.unwrap();
    let settings = config::Postgres { url: url.replace("postgres@", "migrator@"), ..Default::default() };
    let store = config::Store { groups: Some(Group::ALL.into()), ..store };
    jetcopy::migrate::migrate_with(&settings, &store).await.unwrap();
    let roles = shipped("config/postgres/roles.sql");
    // Twice: it says that it may be run again.
    admin.batch_execute(&roles).await.unwrap();
    admin.batch_execute(&roles).await.unwrap();
    admin.batch_execute("CREATE ROLE jetcopy LOGIN IN ROLE jetcopy_writer").await.unwrap();
    (admin, url.replace("postgres@", "jetcopy@"))
}

/// A configuration in `directory` whose secrets are in files beside it.
fn with_secrets(directory: &Path, nats_url: &str, postgres_url: &str) -> PathBuf {
    let secret = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let config = directory.join("jetcopy.toml");
    let text = format!(
        "[nats]\nurl = \"{nats_url}\"\nuser = \"jetcopy\"\npassword_file = \"{}\"\n\
         [postgres]\nurl = \"{postgres_url}\"\npassword_file = \"{}\"\n\
         [http]\nlisten = \"0.0.0.0:0\"\ntoken_file = \"{}\"\n[log]\nlevel = \"trace,async_nats=trace\"\n\
         [[pipeline]]\nname = \"frames\"\nstream = \"FRAMES\"\nformat = \"json\"\n\
         [[pipeline.table]]\nname = \"frame_metadata\"\n[pipeline.table.columns]\n\
         time = \"$timestamp\"\ncamera_id = \"$subject[1]\"\n",
        secret("nats", NATS_PASSWORD),
        secret("postgres", POSTGRES_PASSWORD),
        secret("http", HTTP_TOKEN),
    );
    std::fs::write(&config, text).unwrap();
    config
}

/// Whether `jetcopy healthcheck` says that the daemon is well, and `jetcopy status` that it is there.
fn healthy(config: &Path, daemon: &Daemon) -> bool {
    let listen = daemon.http_address();
    ["healthcheck", "status"].iter().all(|command| {
        let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        asked.arg(command).arg("--config").arg(config).env("JETCOPY_HTTP__LISTEN", &listen);
        let output = asked.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        output.status.success() && !said.contains("no daemon answers")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_needs_no_more_rights_than_the_shipped_ones_and_shows_no_secret() {
    let nats = nats();
    let options = PostgresOptions::plain();
    let postgres = TestPostgres::start(&options).unwrap();
    let (admin, url) = database(&postgres).await;
    let publisher = as_user(&nats, "publisher", PUBLISHER_PASSWORD).await;
    let jetstream = async_nats::jetstream::new(publisher.clone());
    let stream = async_nats::jetstream::stream::Config {
        name: "FRAMES".into(),
        subjects: vec!["frames.>".into()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let publish = async |payload: &'static str| {
        jetstream.publish("frames.cam-1", payload.into()).await.unwrap().await.unwrap();
    };

    let directory = tempfile::tempdir().unwrap();
    let config = with_secrets(directory.path(), &nats.url(), &url);

    let count = async |sql: &str| -> i64 { admin.query_one(sql, &[]).await.unwrap().get(0) };
    let committed = async |sequence: i64| {
        eventually(&format!("checkpoint {sequence}"), || async {
            count("SELECT coalesce(max(last_sequence), 0) FROM jetcopy.checkpoints").await == sequence
        })
        .await;
    };
    // Rows, a dead letter, and a second start, which resets the durable.
    for (turn, last) in [(1, 2), (2, 4)] {
        publish(r#"{"frame_id": 1}"#).await;
        publish("{").await;
        let daemon = Daemon::start(&config);
        committed(last).await;
        assert_eq!(count("SELECT count(*) FROM frame_metadata").await, turn);
        assert_eq!(count("SELECT count(*) FROM jetcopy.dead_letters").await, turn);
        let shown = ["/", "/status", "/metrics", "/readyz"].map(|path| daemon.get_as(path, HTTP_TOKEN).1);
        assert!(shown[1].contains("\"running\""), "{}", shown[1]);
        assert!(healthy(&config, &daemon), "jetcopy healthcheck");
        let open = ["/status", "/readyz"].map(|path| daemon.get(path));
        assert_eq!(open[0].0, 401);
        let places = [&shown[..], &open.map(|(_, body)| body), &[daemon.log(), daemon.arguments()]].concat();
        for secret in [NATS_PASSWORD, POSTGRES_PASSWORD, HTTP_TOKEN] {
            assert!(places.iter().all(|place| !place.contains(secret)), "{secret} shows");
        }
    }

    // What it has no right to.
    let writer = connect(&url).await.unwrap();
    for sql in [
        "SELECT count(*) FROM frame_metadata",
        "DELETE FROM frame_metadata",
        "DELETE FROM jetcopy.checkpoints",
        "SELECT payload FROM jetcopy.dead_letters",
        "CREATE TABLE public.own (n int)",
    ] {
        let error = writer.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    }
    let reader = as_user(&nats, "jetcopy", NATS_PASSWORD).await;
    let before = jetstream.get_stream("FRAMES").await.unwrap().cached_info().state.last_sequence;
    reader.publish("frames.cam-1", "forged".into()).await.unwrap();
    reader.publish("$JS.API.STREAM.DELETE.FRAMES", "".into()).await.unwrap();
    reader.flush().await.unwrap();
    let after = jetstream.get_stream("FRAMES").await.unwrap().cached_info().state.last_sequence;
    assert_eq!(after, before);
    // Replies to others of the account are not its to read; what comes after them, to itself, is. The daemons
    // that have ended may get some still: hence an inbox of the test's own.
    let mut others = reader.subscribe("_INBOX.>").await.unwrap();
    let mut own = reader.subscribe("_INBOX_jetcopy.test.>").await.unwrap();
    reader.flush().await.unwrap();
    jetstream.get_stream("FRAMES").await.unwrap();
    reader.publish_with_reply("$JS.API.INFO", "_INBOX_jetcopy.test.1", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&own.next().await.unwrap().payload).contains("account_info_response"));
    assert!(others.next().now_or_never().flatten().is_none(), "a reply to somebody else was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_makes_its_stream_and_publishes_to_it_and_reaches_nothing_else_of_the_account() {
    let nats = nats();
    let publisher = as_user(&nats, "publisher", PUBLISHER_PASSWORD).await;
    let jetstream = async_nats::jetstream::new(publisher.clone());
    let stream = |name: &str, subject: &str| async_nats::jetstream::stream::Config {
        name: name.into(),
        subjects: vec![subject.into()],
        ..Default::default()
    };
    jetstream.create_stream(stream("FRAMES", "frames.>")).await.unwrap();
    jetstream.publish("frames.cam-1", "kept".into()).await.unwrap().await.unwrap();
    let mut overheard = publisher.subscribe("_INBOX_jetcopy.>").await.unwrap();
    for subject in [
        "$JS.API.STREAM.DELETE.FRAMES",
        "$JS.API.STREAM.PURGE.FRAMES",
        "$JS.API.STREAM.CREATE.OTHERS",
        "$JS.API.CONSUMER.DURABLE.CREATE.FRAMES.jetcopy-frames",
        "$JS.ACK.FRAMES.jetcopy-frames.1.1.1.1.0",
        "_INBOX_jetcopy.forged",
    ] {
        let payload = r#"{"name": "OTHERS", "subjects": ["others"]}"#;
        publisher.publish(subject, payload.into()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let info = jetstream.get_stream("FRAMES").await.unwrap();
    assert_eq!((info.cached_info().state.messages, info.cached_info().state.consumer_count), (1, 0));
    assert!(overheard.next().now_or_never().flatten().is_none(), "a reply to jetcopy was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_no_payload_and_wakes_no_roll_up_and_the_writer_has_the_store_s_tables_alone() {
    let postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let (admin, url) = database(&postgres).await;
    let more = "CREATE TABLE public.own (n int); CREATE ROLE looker LOGIN IN ROLE jetcopy_reader;
        INSERT INTO jetcopy.dead_letters (pipeline, shard, stream, sequence, subject, payload, kind, message)
        VALUES ('frames', 'frames', 'FRAMES', 1, 'frames.a', 'secret', 'malformed', 'no message')";
    admin.batch_execute(more).await.unwrap();
    admin.batch_execute(&shipped("config/postgres/roles.sql")).await.unwrap();
    let refused = async |client: &tokio_postgres::Client, sql: &str| {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    };
    let reader = connect(&url.replace("jetcopy@", "looker@")).await.unwrap();
    for sql in [
        "SELECT payload FROM jetcopy.dead_letters",
        "SELECT headers FROM jetcopy.dead_letters",
        "SELECT raw_headers FROM jetcopy.dead_letters",
        "SELECT d FROM jetcopy.dead_letters d",
        "SELECT jetcopy.payload_of(d) FROM jetcopy.dead_letters d",
        "SELECT flood FROM jetcopy.checkpoints",
        "SELECT payload FROM jetcopy.flood_samples",
        "SELECT jetcopy.touch('frame_stats_1m', ARRAY[now()])",
        "INSERT INTO frame_metadata (time, camera_id) VALUES (now(), 'forged')",
    ] {
        refused(&reader, sql).await;
    }
    for sql in [
        "SELECT id, pipeline, sequence, subject, kind, message, failed_at FROM jetcopy.dead_letters",
        "SELECT pipeline, last_sequence FROM jetcopy.checkpoints",
        "SELECT * FROM jetcopy.losses",
        "SELECT count(*) FROM jetcopy.dead_letters",
        "SELECT * FROM jetcopy.latest_frames()",
    ] {
        reader.batch_execute(sql).await.expect(sql);
    }
    let writer = connect(&url).await.unwrap();
    refused(&writer, "INSERT INTO own VALUES (1)").await;
    writer.batch_execute("SELECT jetcopy.touch('frame_stats_1m', ARRAY[now()])").await.unwrap();
    let touched = "SELECT count(*) FROM jetcopy.touched_buckets";
    assert_eq!(admin.query_one(touched, &[]).await.unwrap().get::<_, i64>(0), 1);
    admin.batch_execute("GRANT INSERT ON own TO jetcopy_writer").await.unwrap();
    writer.batch_execute("INSERT INTO own VALUES (1)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_an_address_shows_nowhere_whether_it_is_right_or_the_server_is_away() {
    let nats = nats();
    let jetstream = async_nats::jetstream::new(as_user(&nats, "publisher", PUBLISHER_PASSWORD).await);
    let stream = async_nats::jetstream::stream::Config { name: "FRAMES".into(), ..Default::default() };
    jetstream.create_stream(stream).await.unwrap();
    let postgres = TestPostgres::shared().unwrap();
    let world = World::with_postgres(&postgres).await;
    let with = |address: &str, user: &str, password: &str| {
        address.replace("postgres@", "").replace("://", &format!("://{user}:{password}@"))
    };
    let right = with(&nats.url(), "jetcopy", NATS_PASSWORD);
    let away = with("nats://127.0.0.1:1", "jetcopy", NATS_PASSWORD);
    let database = with(&world.database_url, "postgres", POSTGRES_PASSWORD);
    let no_database = with("postgres://127.0.0.1:1/none", "postgres", POSTGRES_PASSWORD);
    for (nats_url, database_url) in [(&right, &database), (&away, &database), (&right, &no_database)] {
        let config = world.directory.path().join("jetcopy.toml");
        let text = format!(
            "nats.url = \"{nats_url}\"\npostgres.url = \"{database_url}\"\nhttp.listen = \"127.0.0.1:0\"\n\
             log.level = \"trace,async_nats=trace\"\n\
             [[pipeline]]\nname = \"frames\"\nstream = \"FRAMES\"\n[[pipeline.table]]\n\
             name = \"frame_metadata\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Daemon::start(&config);
        let state = if *nats_url == right && *database_url == database { "running" } else { "backing_off" };
        daemon.says("http=").await;
        eventually(&format!("the pipeline to be {state}"), async || daemon.get("/status").1.contains(state))
            .await;
        let mut places = ["/", "/status", "/metrics", "/readyz"].map(|path| daemon.get(path).1).to_vec();
        places.extend([daemon.log(), daemon.arguments()]);
        for command in [
            &["check"][..],
            &["status"],
            &["migrate", "--status"],
            &["audit", "frames"],
            &["pause", "frames"],
        ] {
            let answer = world.run(&config, command).await;
            places.extend([answer.out, answer.err]);
        }
        assert!(
            places.iter().any(|place| place.contains("***")),
            "the addresses are shown, with what hides the password"
        );
        for secret in [NATS_PASSWORD, POSTGRES_PASSWORD] {
            let shown = places.iter().find(|place| place.contains(secret));
            assert!(shown.is_none(), "{secret} shows: {shown:?}");
        }
        world.run(&config, &["resume", "frames"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_roles_reach_the_store_where_it_lies_and_no_more_of_it_than_in_public() {
    let options = PostgresOptions::plain();
    let postgres = TestPostgres::start(&options).unwrap();
    let schema = "My \"telemetry\"";
    let store = config::Store { schema: Some(schema.to_owned()), ..Default::default() };
    let (admin, url) = database_with(&postgres, store).await;
    let rights = "SELECT count(*), count(*) FILTER (WHERE has_table_privilege('jetcopy_writer', c.oid, \
        'INSERT')),
            count(*) FILTER (WHERE has_table_privilege('jetcopy_writer', c.oid, 'SELECT, UPDATE, \
                DELETE, TRUNCATE')),
            count(*) FILTER (WHERE has_table_privilege('jetcopy_operator', c.oid, 'SELECT')),
            count(*) FILTER (WHERE has_table_privilege('jetcopy_reader', c.oid, 'SELECT')),
            count(*) FILTER (WHERE has_table_privilege('jetcopy_reader', c.oid, 'INSERT, UPDATE, \
                DELETE, TRUNCATE')),
            count(*) FILTER (WHERE has_table_privilege('jetcopy_writer', c.oid, \
                'DELETE, TRUNCATE, REFERENCES, TRIGGER'))
        FROM pg_class c WHERE relnamespace = to_regnamespace(quote_ident($1))::oid AND relkind IN ('r', 'p') \
            AND NOT relispartition
            AND relname !~ '_(daily|hourly|per_minute|1m|1h|1d)$'";
    let row = admin.query_one(rights, &[&schema]).await.unwrap();
    let found: Vec<i64> = (0..7).map(|column| row.get(column)).collect();
    // Four keep the last state of something, which is compared and changed.
    assert_eq!(found, [9, 9, 4, 9, 9, 0, 0]);
    // What lies beside it in public is nobody's more than before.
    admin.batch_execute("CREATE TABLE own (a int)").await.unwrap();
    let own = "SELECT has_table_privilege('jetcopy_writer', 'own', 'INSERT')";
    assert!(!admin.query_one(own, &[]).await.unwrap().get::<_, bool>(0));
    let room = "SELECT jetcopy.add_partition(relation, (now() AT TIME ZONE 'UTC')::date) \
        FROM jetcopy.partitioned_tables;
        CREATE ROLE reader LOGIN IN ROLE jetcopy_reader";
    admin.batch_execute(room).await.unwrap();
    let writer = connect(&url).await.unwrap();
    let row = "INSERT INTO \"My \"\"telemetry\"\"\".frame_metadata (time, camera_id, frame_id) \
        VALUES (now(), 'a', 1)";
    writer.batch_execute(row).await.unwrap();
    let reader = connect(&url.replace("jetcopy@", "reader@")).await.unwrap();
    assert_eq!(reader.query("SELECT * FROM jetcopy.latest_frames('a')", &[]).await.unwrap().len(), 1);
}

/// The shipped configuration of the store for these servers, its tables in `schema` where that is named.
fn shipped_store(nats: &TestNats, url: &str, schema: Option<&str>) -> String {
    let mut text = shipped("config/store.toml")
        .replace("nats://127.0.0.1:4222", &nats.url())
        .replace("postgres://jetcopy@127.0.0.1:5432/metadata", url);
    if let Some(schema) = schema {
        let table = "[[pipeline.table]]\nname = \"";
        text = text.replace(table, &format!("{table}{schema}."));
        text = text.replace("[store]\n", &format!("[store]\nschema = \"{schema}\"\n"));
    }
    text + "\n[http]\nlisten = \"127.0.0.1:0\"\n"
}

/// Messages that fill each table of the shipped configuration, and change what those keep that have a key.
fn one_for_each_table() -> Vec<(&'static str, serde_json::Value)> {
    let now = jiff::Timestamp::now().as_microsecond();
    let mut messages = vec![
        (
            "frames.cam-1",
            json!({"timestamp": now, "frame_id": 1, "detections": [{"label": "person", "confidence": 0.5,
            "box": [1.0, 2.0, 3.0, 4.0]}]}),
        ),
        (
            "measurements.task-1.one",
            json!({"timestamp_utc": now, "websdr_id": "rx-1", "frequency_mhz": 7.1,
            "sample_rate_khz": 12.0, "samples_count": 144_000, "snr_db": 1.0, "frequency_offset_hz": -0.5,
            "power_dbm": -73.25, "s3_path": "s3://iq/1.wav"}),
        ),
        ("series.room.row", json!({"timestamp": now, "temperature": 21.5})),
        ("registry.operations", json!({"timestamp": now, "operation": "create_project"})),
    ];
    for later in 0..2 {
        let at = now + later;
        messages.push((
            "measurements.receivers",
            json!({"id": "rx-1", "name": later.to_string(), "updated_at": at}),
        ));
        messages.push(("series.room.metadata", json!({"name": later.to_string()})));
        messages.push(("registry.projects", json!({"id": "p", "name": later.to_string(), "updated_at": at})));
        messages.push((
            "registry.files",
            json!({"project_id": "p", "path": "f", "name": later.to_string(),
            "updated_at": at}),
        ));
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_pipelines_are_checked_and_fill_every_table_with_the_shipped_roles_as_they_are() {
    for schema in [None, Some("telemetry")] {
        let nats = TestNats::start(&NatsOptions::default()).unwrap();
        let postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
        let store = config::Store { schema: schema.map(str::to_owned), ..Default::default() };
        let (admin, url) = database_with(&postgres, store).await;
        let room = "SELECT jetcopy.add_partition(relation, (now() AT TIME ZONE 'UTC')::date + day)
            FROM jetcopy.partitioned_tables, generate_series(0, 7) day";
        admin.batch_execute(room).await.unwrap();
        let text = shipped_store(&nats, &url, schema);
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("store.toml");
        std::fs::write(&config, &text).unwrap();
        let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        for name in ["frames", "measurements", "series", "registry"] {
            let subjects = vec![format!("{name}.>")];
            let stream = async_nats::jetstream::stream::Config {
                name: name.to_uppercase(),
                subjects,
                ..Default::default()
            };
            jetstream.create_stream(stream).await.unwrap();
        }
        let check = || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
            let output = command.arg("check").arg("--config").arg(&config).output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        };
        let (well, said) = check();
        assert!(well && said.contains("\nno errors, "), "{schema:?}: {said}");
        let daemon = Daemon::start(&config);
        for (subject, body) in one_for_each_table() {
            let body = rmp_serde::to_vec_named(&body).unwrap();
            jetstream.publish(subject, body.into()).await.unwrap().await.unwrap();
        }
        let tables: Vec<&str> = text
            .split("[[pipeline.table]]\nname = \"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(tables.len() >= 9, "{tables:?}");
        for table in tables {
            let filled = format!("SELECT count(*) > 0 FROM {table}");
            eventually(&format!("a row of {table}"), async || {
                assert!(daemon.is_running());
                admin.query_one(&filled, &[]).await.unwrap().get(0)
            })
            .await;
        }
        let place = schema.unwrap_or("public");
        for table in ["websdrs", "time_series_metadata", "projects", "files"] {
            let changed = format!("SELECT count(*) = 1 AND min(name) = '1' FROM {place}.{table}");
            eventually(&format!("the newest row of {table}"), async || {
                admin.query_one(&changed, &[]).await.unwrap().get(0)
            })
            .await;
        }
        let letters = admin.query_one("SELECT count(*) FROM jetcopy.dead_letters", &[]).await.unwrap();
        assert_eq!(letters.get::<_, i64>(0), 0);

        // Without the right, check says what to grant, and nothing of changes.
        admin.batch_execute("REVOKE SELECT ON jetcopy.schema_history FROM jetcopy_writer").await.unwrap();
        let (well, said) = check();
        assert!(!well && said.contains("SELECT ON jetcopy.schema_history TO"), "{said}");
        assert!(!said.contains("nothing was changed"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_pauses_before_a_row_is_due_and_the_grant_that_is_named_ends_it() {
    let mut world = World::new().await;
    let name = world.own_url.rsplit('/').next().unwrap().to_owned();
    let role = format!("right_{name}");
    let setup = format!(
        "{TABLE}; CREATE TABLE others (id bigint PRIMARY KEY, note text); CREATE ROLE {role} LOGIN;
         GRANT USAGE ON SCHEMA jetcopy TO {role}; GRANT INSERT ON events, others TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jetcopy TO {role}"
    );
    world.database.batch_execute(&setup).await.unwrap();
    world.database_url = world.own_url.replace("postgres@", &format!("{role}@"));
    let others = "[[pipeline.table]]\nname = \"others\"\nwhen = { subject = \"STREAM.others\" }\n\
        on_conflict = \"update\"\nkey = [\"id\"]\n";
    let config = world.config(&format!("{EVENTS}{others}"));
    let daemon = Daemon::start(&config);
    world.publish("a", [event(1)]).await;
    daemon.says("pipeline is paused").await;
    let status = daemon.status();
    assert_eq!(status["state"], "paused", "{status}");
    let grants = [
        "GRANT SELECT ON public.others TO the role in postgres.url",
        "GRANT UPDATE ON public.others TO the role in postgres.url",
    ];
    assert_eq!(status["remedy"], grants.join("; "));
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("table others: no SELECT privilege") && !reason.contains("GRANT"), "{reason}");
    let said = world.run(&config, &["check"]).await.out;
    for grant in grants {
        assert!(said.contains(grant), "{said}");
        world.database.batch_execute(&grant.replace("the role in postgres.url", &role)).await.unwrap();
    }
    world.publish("others", [event(2)]).await;
    world.drained("events", &daemon).await;
    daemon.says_times("pipeline is running", 1).await;
    assert_eq!(
        world.count("SELECT count(*) FROM events").await + world.count("SELECT count(*) FROM others").await,
        3
    );
}
