//! `jetcopy init`: from a stream to rows, with a configuration that `check` accepts and `run` carries.

use std::process::{Command, Output};

use async_nats::jetstream::{self, stream};
use jetcopy::testbed::{NatsOptions, TestNats, TestPostgres, connect};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::support::{Daemon, eventually};

/// A stream, an empty database, and a directory where commands run.
struct Start {
    nats: TestNats,
    jetstream: jetstream::Context,
    database: Client,
    url: String,
    directory: TempDir,
    _postgres: std::sync::Arc<TestPostgres>,
}

impl Start {
    async fn new() -> Self {
        let nats = TestNats::start(&NatsOptions::default()).unwrap();
        let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let postgres = TestPostgres::shared().unwrap();
        let url = postgres.create_database().await.unwrap();
        let database = connect(&url).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = stream::Config {
            name: "SENSORS".into(),
            subjects: vec!["sensors.>".into()],
            ..stream::Config::default()
        };
        jetstream.create_stream(config).await.unwrap();
        Self { nats, jetstream, database, url, directory, _postgres: postgres }
    }

    async fn publish(&self, subject: &str, payload: impl Into<Vec<u8>>) {
        let payload: Vec<u8> = payload.into();
        self.jetstream.publish(subject.to_owned(), payload.into()).await.unwrap().await.unwrap();
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("NATS_URL", self.nats.url()).env("DATABASE_URL", &self.url);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What a command says that ends well.
    async fn well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let said = text(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.database.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// Lets a daemon carry the stream, and sees that nothing is a dead letter and everything is proven.
    async fn carried(&self) {
        let said = self.well(&["check"]).await;
        assert!(said.ends_with("no errors, no warnings\n"), "{said}");
        assert!(self.well(&["test"]).await.contains("1 passed, 0 failed"));
        let config = self.directory.path().join("jetcopy.toml");
        let listen = [("JETCOPY_HTTP__LISTEN", "127.0.0.1:0")];
        let daemon = Daemon::start_with(&config, &listen);
        let last = self.jetstream.get_stream("SENSORS").await.unwrap().cached_info().state.last_sequence;
        let done = format!("SELECT count(*) FROM jetcopy.checkpoints WHERE last_sequence = {last}");
        eventually("the stream to be carried", || async { self.one::<i64>(&done).await == 1 }).await;
        let letters: i64 = self.one("SELECT count(*) FROM jetcopy.dead_letters").await;
        assert_eq!(letters, 0, "{}", daemon.log());
        daemon.kill();
    }

    fn is_there(&self, name: &str) -> bool {
        self.directory.path().join(name).exists()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

/// A message with all that a proposal tells apart.
fn reading(number: u64) -> Value {
    json!({
        "ts": 1_780_000_000_000_000 + number,
        "seq": number,
        "state": if number.is_multiple_of(2) { "open" } else { "closed" },
        "measuredAt": "2026-07-01T12:00:00.5+02:00",
        "value": if number.is_multiple_of(3) { json!(7) } else { json!(7.5) },
        "env": {"temperature": 21.5, "tags": ["a", "b"]},
        "note": if number == 5 { json!("once") } else { Value::Null },
        "odd": if number.is_multiple_of(2) { json!(1) } else { json!("one") },
        "a.b": true,
        "parts": [{"id": 1, "size": 2.5}, {"id": 2}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_becomes_tables_and_a_configuration_that_carries_all_of_it() {
    let start = Start::new().await;
    for number in 1..=120 {
        let place = if number % 2 == 0 { "north" } else { "south" };
        start.publish(&format!("sensors.{place}"), reading(number).to_string()).await;
    }
    let shown = start.run(&["init"]).await;
    let said = text(&shown);
    assert_eq!(shown.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was written; use --yes to do it"), "{said}");
    assert!(!start.is_there("jetcopy.toml"));
    let tables: i64 =
        start.one("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'jetcopy')").await;
    assert_eq!(tables, 0, "nothing stays of the trial");

    let said = start.well(&["init", "--yes"]).await;
    assert!(said.contains("looked at 120 messages, all that it holds; JSON"), "{said}");
    assert!(said.contains("120 messages become 360 rows, 0 dead letters\n"), "{said}");
    let mut stream = start.jetstream.get_stream("SENSORS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.consumer_count, 0, "no consumer is left behind");
    let columns = |table: &str| {
        format!(
            "SELECT string_agg(column_name || ' ' || data_type || ' ' || is_nullable, ', ' ORDER BY \
             ordinal_position) FROM information_schema.columns WHERE table_name = '{table}'"
        )
    };
    let found: String = start.one(&columns("sensors")).await;
    let expected = "ts timestamp with time zone NO, subject_1 text YES, a_b boolean NO, \
                    env_tags ARRAY NO, env_temperature double precision NO, \
                    measured_at timestamp with time zone NO, note text YES, odd jsonb NO, seq bigint NO, \
                    state text NO, value double precision NO, sequence bigint NO, rest jsonb YES";
    assert_eq!(found, expected);
    let found: String = start.one(&columns("sensors_parts")).await;
    let expected = "ts timestamp with time zone NO, subject_1 text YES, id bigint NO, size double precision \
                    YES, sequence bigint NO, element integer NO, rest jsonb YES";
    assert_eq!(found, expected);

    start.carried().await;
    let rows: i64 = start.one("SELECT count(*) FROM sensors WHERE rest = '{}'").await;
    assert_eq!(rows, 120, "every field has a column");
    let rows: i64 = start.one("SELECT count(DISTINCT (sequence, element)) FROM sensors_parts").await;
    assert_eq!(rows, 240);
    let row = "SELECT concat_ws(' ', ts AT TIME ZONE 'UTC', subject_1, env_temperature, env_tags, odd, \
               measured_at AT TIME ZONE 'UTC') FROM sensors WHERE seq = 1";
    let expected = "2026-05-28 20:26:40.000001 south 21.5 {a,b} \"one\" 2026-07-01 10:00:00.5";
    assert_eq!(start.one::<String>(row).await, expected);
    let hypertables = "SELECT count(*) FROM pg_trigger WHERE tgname = 'ts_insert_blocker'";
    let extension: i64 = start.one("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").await;
    let found: i64 = start.one(hypertables).await;
    let compressed =
        said.contains("compress_segmentby = 'subject_1', timescaledb.compress_orderby = 'ts DESC'");
    assert!(
        extension == 0 || (compressed && said.contains("create_hypertable('sensors', 'ts')")),
        "{found} {said}"
    );

    let before = std::fs::read_to_string(start.directory.path().join("jetcopy.toml")).unwrap();
    let again = start.run(&["init", "--yes"]).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(
        text(&again).contains("jetcopy.toml: is there already; --force overwrites it"),
        "{}",
        text(&again)
    );
    assert_eq!(std::fs::read_to_string(start.directory.path().join("jetcopy.toml")).unwrap(), before);
    let again = start.run(&["init", "--yes", "--force"]).await;
    assert!(
        again.status.code() == Some(1) && text(&again).contains("--table TABLE maps onto it"),
        "{}",
        text(&again)
    );
    start.well(&["init", "--yes", "--config", "other.toml", "--name", "other", "--no-hypertable"]).await;
    for file in ["other.toml", "other.sql", "other.test.toml", "other.schema.json"] {
        assert!(start.is_there(file), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_something_is_not_proposed() {
    let start = Start::new().await;
    let id = |number: u64| {
        let (id, took, parts) =
            (format!("1000000000000000000{number}"), 1_234_567_890, r#"[{"k": 1}, null]"#);
        format!(r#"{{"id": {id}, "ctid": 1, "io_time": {took}, "d": {parts}, "t": "2026-07-01T12:00:00Z"}}"#)
    };
    for number in 1..=3 {
        start.publish("sensors.north", id(number)).await;
    }
    start.well(&["init", "--yes"]).await;
    start.publish("sensors.north", "{}").await;
    start.carried().await;
    let rows = "SELECT string_agg(concat_ws(' ', id, ctid_2, io_time, d), ', ' ORDER BY sequence) \
                FROM sensors WHERE sequence < 4";
    let expected =
        (1..=3).map(|number| format!("1000000000000000000{number} 1 1234567890 [{{\"k\": 1}}, null]"));
    assert_eq!(start.one::<String>(rows).await, expected.collect::<Vec<_>>().join(", "));
    assert_eq!(
        start.one::<i64>("SELECT count(*) FROM sensors WHERE t IS NULL").await,
        1,
        "of a short stream"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_whose_compression_nothing_tells_get_the_setting_that_reads_them() {
    let start = Start::new().await;
    for number in 1..=3 {
        let packed = zstd::bulk::compress(reading(number).to_string().as_bytes(), 3).unwrap();
        start.publish("sensors.north", packed).await;
    }
    start.well(&["init", "--yes"]).await;
    assert!(
        std::fs::read_to_string(start.directory.path().join("jetcopy.toml")).unwrap().contains("\"zstd\"")
    );
    start.carried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_where_no_message_would_become_a_row_or_a_column_finds_no_field() {
    let start = Start::new().await;
    start
        .database
        .batch_execute("CREATE TABLE orders (id bigint NOT NULL, customer text NOT NULL)")
        .await
        .unwrap();
    start.publish("sensors.north", "{\"id\": 1}").await;
    let refused = start.run(&["init", "--yes", "--table", "orders"]).await;
    assert!(text(&refused).contains("no field is called like customer"), "{}", text(&refused));

    start.database.batch_execute("CREATE TABLE small (id smallint CHECK (id > 9))").await.unwrap();
    start.jetstream.get_stream("SENSORS").await.unwrap().purge().await.unwrap();
    start.publish("sensors.north", "{\"id\": 70000}").await;
    let refused = start.run(&["init", "--yes", "--table", "small"]).await;
    let said = text(&refused);
    assert!(
        refused.status.code() == Some(1) && said.contains("none of the messages would become a row"),
        "{said}"
    );
    assert!(!start.is_there("jetcopy.toml"));

    start.publish("sensors.south", "[1, 2]").await;
    let refused = text(&start.run(&["init", "--yes"]).await);
    assert!(refused.contains("such as sequence 3 on sensors.south"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_that_is_called_like_the_schema_gets_its_tables_elsewhere() {
    let start = Start::new().await;
    start.publish("sensors.north", "{\"lost\": 1}").await;
    let database: String = start.one("SELECT current_database()").await;
    let role = "DO $$ BEGIN IF to_regrole('jetcopy') IS NULL THEN CREATE ROLE jetcopy LOGIN; END IF; END $$";
    start.database.batch_execute(role).await.unwrap();
    let owner = format!("ALTER DATABASE {database} OWNER TO jetcopy; GRANT ALL ON SCHEMA public TO jetcopy");
    start.database.batch_execute(&owner).await.unwrap();
    let as_role = start.url.replacen("postgres@", "jetcopy@", 1);
    start.well(&["init", "--yes", "--name", "losses", "--postgres-url", &as_role]).await;
    let tables: String = start
        .one("SELECT schemaname FROM pg_tables WHERE tablename = 'losses' AND schemaname <> 'jetcopy'")
        .await;
    assert_eq!(tables, "public");
    let config = std::fs::read_to_string(start.directory.path().join("jetcopy.toml")).unwrap();
    assert!(config.contains("name = \"public.losses\""), "{config}");
    start.well(&["check"]).await;
    assert!(start.well(&["test"]).await.contains("1 passed"));

    // Where somebody has made one there, it is told.
    let moved = "ALTER TABLE public.losses RENAME TO mine; ALTER TABLE public.mine SET SCHEMA jetcopy";
    start.database.batch_execute(moved).await.unwrap();
    let config = config.replace("public.losses", "mine");
    std::fs::write(start.directory.path().join("jetcopy.toml"), config).unwrap();
    let said = text(&start.run(&["check"]).await);
    assert!(said.contains("run `ALTER TABLE jetcopy.mine SET SCHEMA public`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_makes_what_is_missing_and_becomes_the_daemon() {
    let start = Start::new().await;
    for number in 1..=3 {
        start.publish("sensors.north", reading(number).to_string()).await;
    }
    let directory = start.directory.path();
    let nats = start.nats.url();
    let listen = ("JETCOPY_HTTP__LISTEN", "127.0.0.1:0");
    let variables = [("NATS_URL", nats.as_str()), ("DATABASE_URL", start.url.as_str()), listen];
    let stored = |rows: i64| format!("SELECT count(*) = {rows} FROM sensors");
    let daemon = Daemon::of(&["up", "--yes"], directory, &variables);
    daemon.says("pipeline is running").await;
    eventually("the rows", async || start.one::<bool>(&stored(3)).await).await;
    let log = daemon.log();
    for said in ["wrote jetcopy.sql", "nothing to migrate", "no errors, no warnings", "running until Ctrl-C"]
    {
        assert!(log.contains(said), "{said} is not in:\n{log}");
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.0.success());

    // What is there is used; what is wrong with it stops the command before anything runs.
    start.publish("sensors.north", reading(4).to_string()).await;
    let daemon = Daemon::of(&["up", "--yes"], directory, &variables);
    eventually("the next row", async || start.one::<bool>(&stored(4)).await).await;
    assert_eq!(daemon.log().matches("wrote jetcopy.sql").count(), 1, "{}", daemon.log());
    daemon.kill();
    start.database.batch_execute("ALTER TABLE sensors RENAME TO away").await.unwrap();
    let refused = start.run(&["up", "--yes"]).await;
    let said = text(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("sensors"), "{said}");
    assert!(!said.contains("running until"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_there_is_mapped_onto_by_the_names_of_its_columns() {
    let start = Start::new().await;
    for number in 1..=3 {
        start.publish("sensors.north", reading(number).to_string()).await;
    }
    let table = "CREATE TYPE state AS ENUM ('open', 'closed');
        CREATE TABLE \"Readings\" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            ts timestamptz NOT NULL, site text, measured_at timestamptz, temperature real,
            state state NOT NULL, stream_seq bigint, made timestamptz DEFAULT now(), extra jsonb,
            wanted text NOT NULL, area box)";
    start.database.batch_execute(table).await.unwrap();
    let init = ["init", "--yes", "--table", "\"Readings\""];
    let left = start.run(&init).await;
    let said = text(&left);
    assert!(left.status.code() == Some(1) && said.contains("no field is called like wanted"), "{said}");
    assert!(!start.is_there("jetcopy.toml"));
    start.database.batch_execute("ALTER TABLE \"Readings\" DROP COLUMN wanted").await.unwrap();
    let said = start.well(&init).await;
    assert!(
        said.contains("3 messages become 3 rows, 0 dead letters\n") && !said.contains("CREATE TABLE"),
        "{said}"
    );
    start.carried().await;
    let row = "SELECT concat_ws(' ', id, ts AT TIME ZONE 'UTC', temperature, state, stream_seq, \
               made IS NOT NULL, extra->>'value') FROM \"Readings\" WHERE stream_seq = 2";
    assert_eq!(start.one::<String>(row).await, "2 2026-05-28 20:26:40.000002 21.5 open 2 t 7.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn messagepack_lists_and_compression_that_nothing_tells_are_found() {
    let start = Start::new().await;
    // {"data": bytes, "n": 1} in MessagePack, in a list.
    let packed = b"\x91\x82\xa4data\xc4\x02\xff\x00\xa1n\x01".to_vec();
    start.publish("sensors.north", packed).await;
    start.well(&["init", "--yes"]).await;
    let config = std::fs::read_to_string(start.directory.path().join("jetcopy.toml")).unwrap();
    assert!(config.contains("for_each = \"$\"") && config.contains("stored_at = \"$timestamp\""), "{config}");
    start.carried().await;
    let row = "SELECT concat_ws(' ', data, n, element) FROM sensors";
    assert_eq!(start.one::<String>(row).await, "/wA= 1 0");

    // As a publisher sends it that says nothing of its compression.
    let start = Start::new().await;
    std::fs::write(start.directory.path().join("one.json"), "{\"n\": 1}\n").unwrap();
    start.well(&["publish", "sensors.north", "one.json", "--compress", "snappy"]).await;
    let stream = start.jetstream.get_stream("SENSORS").await.unwrap();
    let compressed = stream.get_raw_message(1).await.unwrap().payload;
    stream.purge().await.unwrap();
    start.publish("sensors.north", compressed).await;
    start.well(&["init", "--yes"]).await;
    let config = std::fs::read_to_string(start.directory.path().join("jetcopy.toml")).unwrap();
    assert!(config.contains("compression = \"snappy\""), "{config}");
    start.carried().await;
    assert_eq!(start.one::<i64>("SELECT n FROM sensors").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_stream_the_last_messages_and_others_over_its_length_are_looked_at() {
    let start = Start::new().await;
    for number in 1..=60 {
        let field = if number < 20 { "early" } else { "late" };
        start.publish("sensors.north", json!({"n": number, field: 1}).to_string()).await;
    }
    let said = start.well(&["init", "--yes", "--sample", "20"]).await;
    assert!(said.contains("looked at 20 messages; JSON") && said.contains("early bigint,"), "{said}");
    start.carried().await;
    let rows: i64 = start.one("SELECT count(*) FROM sensors WHERE early = 1 OR late = 1").await;
    assert_eq!(rows, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proposed_is_told_with_what_to_do() {
    let start = Start::new().await;
    let said = |output: Output| (output.status.code(), text(&output));
    let (code, text) = said(start.run(&["init", "--yes"]).await);
    assert!(code == Some(1) && text.contains("stream SENSORS holds no message to look at"), "{text}");
    start.publish("sensors.north", "plain text").await;
    let (code, text) = said(start.run(&["init", "--yes"]).await);
    assert!(
        code == Some(1) && text.contains("of 1 messages none is an object in JSON, MessagePack or CBOR"),
        "{text}"
    );
    start.publish("sensors.north", "{\"a\": 1}").await;
    start.publish("sensors.north", "[{\"a\": 1}]").await;
    let (code, text) = said(start.run(&["init", "--yes"]).await);
    assert!(code == Some(1) && text.contains("some messages are objects and others are lists"), "{text}");
    let queue = stream::Config {
        name: "QUEUE".into(),
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    start.jetstream.create_stream(queue).await.unwrap();
    let (code, text) = said(start.run(&["init", "--yes"]).await);
    assert!(
        code == Some(1) && text.contains("QUEUE (0 messages, QUEUE); SENSORS (3 messages, sensors.>)"),
        "{text}"
    );
    let (code, text) = said(start.run(&["init", "--yes", "--stream", "QUEUE"]).await);
    assert!(code == Some(1) && text.contains("has not limits retention"), "{text}");
    assert!(!start.is_there("jetcopy.toml"));
}
