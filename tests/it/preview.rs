//! `jetcopy preview` shows what the daemon then writes, and needs no right to write.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use jetcopy::testbed::{NatsOptions, PostgresOptions, TestNats, TestPostgres};
use serde_json::{Value, json};

use crate::support::{Daemon, World};

const TABLES: &str = "CREATE TYPE mood AS ENUM ('fine', 'sad');
    CREATE DOMAIN percent AS numeric(5, 2) CHECK (value BETWEEN 0 AND 100);
    CREATE TABLE readings (seq bigint NOT NULL, at timestamptz(3) NOT NULL, site char(5), label varchar(4),
        state mood, share percent, temp real, ok boolean, box int[], more jsonb, address inet);
    CREATE TABLE parts (seq bigint NOT NULL, at int NOT NULL, name text NOT NULL, size smallint);
    CREATE TABLE alarms (alarm text)";

const PIPELINE: &str = r#"
[[pipeline]]
name = "readings"
stream = "STREAM"

[[pipeline.table]]
name = "readings"
[pipeline.table.columns]
seq = "$sequence"
at = { from = "time", unit = "ms" }
site = "$subject[1]"
label = "tag.label"
temp = "env.temperature"
box = "env.box"
more = "env.more"
address = "env.peer.address"

[[pipeline.table]]
name = "parts"
for_each = "parts"
bad_element = "element"
[pipeline.table.columns]
seq = "$sequence"
at = "$element"

[[pipeline.table]]
name = "alarms"
when = { field = "alarm" }
"#;

/// Messages as publishers send them: nested, in both formats, cut short, of wrong types, with fields missing.
fn messages() -> Vec<Vec<u8>> {
    let good = json!({"time": 1_735_689_600_123_i64, "tag": {"label": "a"}, "state": "fine", "share": 12.345,
        "ok": true, "env": {"temperature": 21.5, "box": [1, null, 3], "more": {"b": 1, "a": [true]},
        "peer": {"address": "10.0.0.1"}}, "parts": [{"name": "x", "size": 1}, {"name": "y\n\"z\""}]});
    let change = |field: &str, value: Value| {
        let mut message = good.clone();
        message[field] = value;
        message.to_string().into_bytes()
    };
    vec![
        good.to_string().into_bytes(),
        rmp_serde::to_vec_named(&good).unwrap(),
        change("state", json!("glad")),
        change("share", json!(101)),
        change("tag", json!({"label": "too long"})),
        change("time", json!("yesterday")),
        change("time", Value::Null),
        change("parts", json!([{"name": "x", "size": 70_000}, {"size": 1}, {"name": "z", "size": -1}])),
        change("env", json!({"temperature": "NaN"})),
        change("env", json!([1])),
        change("alarm", json!("door")),
        b"{\"time\": 17".to_vec(),
        br#"{"time": 0}"#.to_vec(),
    ]
}

async fn world() -> (World, std::path::PathBuf) {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let config = world.config(PIPELINE);
    (world, config)
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The rows of a table in a preview, each value as text.
fn rows_of(preview: &Value, table: &str) -> Vec<Vec<Option<String>>> {
    let found = preview["tables"].as_array().unwrap().iter().find(|found| found["table"] == table).unwrap();
    let columns: Vec<_> = found["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["column"].as_str().unwrap())
        .collect();
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let row = |row: &Value| columns.iter().map(|column| text(&row["values"][column])).collect();
    found["rows"].as_array().unwrap().iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_and_dead_letters_of_a_preview_are_those_that_the_daemon_then_writes() {
    let (world, config) = world().await;
    world.publish("north", messages()).await;
    let preview =
        object(&world.run(&config, &["preview", "readings", "--count", "100", "--json"]).await.well());
    assert_eq!(preview.get("not_judged_by_the_server"), None, "{preview:#}");
    assert_eq!(world.count("SELECT count(*) FROM readings").await, 0);

    let daemon = Daemon::start(&config);
    world.drained("readings", &daemon).await;
    world.database.batch_execute("SET timezone = 'UTC'").await.unwrap();
    // As JSON, where the preview has JSON; else as the output functions print it.
    for (table, columns) in [
        (
            "readings",
            "seq::text, format('%s', at), site::text, label, state::text, share::text, temp::text, ok::text, \
             to_json(box)::text, more::text, host(address)",
        ),
        ("parts", "seq::text, at::text, name, size::text"),
        ("alarms", "alarm"),
    ] {
        let order = if table == "alarms" { "1" } else { "t.seq, t.at" };
        let sql = format!("SELECT {columns} FROM {table} t ORDER BY {order}");
        let written = world.database.query(&sql, &[]).await.unwrap();
        let expected: Vec<Vec<Option<String>>> = written
            .iter()
            .map(|row| (0..row.len()).map(|at| row.get::<_, Option<String>>(at)).collect())
            .collect();
        let plain = |rows: Vec<Vec<Option<String>>>| -> Vec<Vec<Option<String>>> {
            let plain = |text: String| text.replace(": ", ":").replace(", ", ",");
            rows.into_iter().map(|row| row.into_iter().map(|text| text.map(plain)).collect()).collect()
        };
        assert_eq!(plain(rows_of(&preview, table)), plain(expected), "{table}");
    }
    let sql = "SELECT sequence, kind, table_name, coalesce(element, -1), elements FROM jetcopy.dead_letters \
        ORDER BY sequence, element";
    let mut written = Vec::new();
    for row in world.database.query(sql, &[]).await.unwrap() {
        let (sequence, kind): (i64, String) = (row.get(0), row.get(1));
        let (table, element): (Option<String>, i32) = (row.get(2), row.get(3));
        // Elements of one message and table share a letter.
        let elements: Option<Vec<i32>> = row.get(4);
        let each: BTreeSet<i32> = std::iter::once(element).chain(elements.into_iter().flatten()).collect();
        for element in each {
            written.push((sequence, kind.clone(), table.clone(), element));
        }
    }
    let letters = preview["letters"].as_array().unwrap().iter().map(|letter| {
        let element = letter["element"].as_i64().unwrap_or(-1);
        let table = letter["table"].as_str().map(str::to_owned);
        (letter["sequence"].as_i64().unwrap(), letter["kind"].as_str().unwrap().to_owned(), table, element)
    });
    let mut shown: Vec<_> = letters.map(|(a, b, c, d)| (a, b, c, i32::try_from(d).unwrap())).collect();
    // The letter that elements share has the kind of the first.
    let places = |letters: &mut Vec<(i64, String, Option<String>, i32)>| {
        letters.sort();
        letters.iter().map(|(a, _, c, d)| (*a, c.clone(), *d)).collect::<Vec<_>>()
    };
    assert_eq!(places(&mut shown), places(&mut written));
    let kinds: Vec<&str> = shown.iter().map(|(_, kind, ..)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["refused", "refused", "refused", "type", "missing", "missing", "range", "type", "malformed"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_path_jumps_at_the_reader_with_the_field_that_may_be_meant() {
    let (world, _) = world().await;
    let misspelt = PIPELINE
        .replace("env.temperature", "env.temprature")
        .replace("for_each = \"parts\"", "for_each = \"part\"");
    let config = world.config(&misspelt);
    world.publish("north", messages().into_iter().take(3)).await;
    let text = world.run(&config, &["preview", "readings"]).await.well();
    for line in [
        "  !! table parts gets no rows: `for_each` found no array `part` in any of its 3 messages",
        "     -> did you mean `parts`?",
        "  !! table alarms gets no rows: its `when` matched none of 3 messages",
        "  !! column temp of table readings (from `env.temprature`): no value in 2 of 2 messages",
        "     -> did you mean `env.temperature`?",
        "  !! field `env.temperature` goes nowhere: in 3 of 3 messages, such as 21.5",
        "     -> is it `env.temprature`, column temp of table readings?",
        "  !! sequence 3: refused (table readings, column state): invalid input value for enum mood: \
         \"glad\"",
        "     -> column state is mood: change its type, or what publishers send in `state`",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    // A column that must have a value: every message is a dead letter, and says so.
    let config = world.config(&PIPELINE.replace("from = \"time\"", "from = \"tiem\""));
    let text = world.run(&config, &["preview", "readings"]).await.well();
    assert!(text.contains("3 x, sequence 1, 2, 3: missing (table readings, column at)"), "{text}");
    assert!(text.contains("-> did you mean `time`, which the message has? at = \"time\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_of_the_last_messages_or_from_a_sequence_or_of_a_subject_or_of_a_file() {
    let (world, config) = world().await;
    let reading = |n: i64| json!({"time": n}).to_string();
    world.publish("rare", [reading(1), reading(2)]).await;
    world.publish("often", (3..=700).map(reading)).await;
    world.publish("rare", [reading(701)]).await;
    world.publish("often", (702..=1_000).map(reading)).await;
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    stream.delete_message(999).await.unwrap();
    let rare = format!("{}.rare", world.stream);
    for (arguments, expected) in [
        (vec!["--count", "3"], vec![997, 998, 1_000]),
        (vec!["--count", "2", "--from", "998"], vec![998, 1_000]),
        (vec!["--count", "2", "--subject", &rare], vec![2, 701]),
        (vec!["--count", "5", "--subject", &rare], vec![1, 2, 701]),
        (vec!["--from", "3", "--subject", &rare], vec![701]),
        (vec!["--from", "2000"], vec![]),
    ] {
        let arguments = [&["preview", "readings", "--json"][..], &arguments].concat();
        let preview = object(&world.run(&config, &arguments).await.well());
        let rows = preview["tables"][0]["rows"].as_array().unwrap();
        let found: Vec<u64> = rows.iter().map(|row| row["sequence"].as_u64().unwrap()).collect();
        assert_eq!(found, expected, "{arguments:?}");
    }
    let file = world.directory.path().join("messages.ndjson");
    std::fs::write(&file, "{\"time\": 1}\n{\"time\": \"x\"}\n{\n").unwrap();
    let arguments =
        ["preview", "readings", "--file", file.to_str().unwrap(), "--subject", "a.south", "--json"];
    let preview = object(&world.run(&config, &arguments).await.well());
    assert_eq!(
        (&preview["messages"], &preview["rows"], &preview["dead_letters"]),
        (&3.into(), &1.into(), &2.into())
    );
    assert_eq!(preview["tables"][0]["rows"][0]["values"]["site"], "south");
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(["preview", "readings", "--file", "-", "--config"]).arg(&config);
    command.stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("readings: 3 messages of standard input, as preview"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_needs_no_right_to_write_and_leaves_nothing_behind() {
    let users = "accounts { A { jetstream: enabled, users: [
        { user: admin, password: admin }
        { user: looker, password: looker, permissions: {
            publish: { allow: [\"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.MSG.GET.*\"] }
            subscribe: { allow: [\"_INBOX_jetcopy.>\"] } } }
        ] } }\nno_auth_user: admin\n";
    let nats = TestNats::start(&NatsOptions { config: users.to_owned() }).unwrap();
    let postgres = TestPostgres::start(&PostgresOptions::plain()).unwrap();
    let world = World::on(&nats, &postgres).await;
    world.database.batch_execute(TABLES).await.unwrap();
    let roles =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postgres/roles.sql"));
    world.database.batch_execute(&roles.unwrap()).await.unwrap();
    let logins = "CREATE ROLE stranger LOGIN; CREATE ROLE reader LOGIN IN ROLE jetcopy_reader;
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
        DO $$ BEGIN
            EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        END $$";
    world.database.batch_execute(logins).await.unwrap();
    world.publish("north", messages()).await;
    let password = world.directory.path().join("nats");
    std::fs::write(&password, "looker").unwrap();
    let before = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables";
    let written = world.count(before).await;
    for role in ["stranger", "reader"] {
        let config = world.config(PIPELINE);
        let text = std::fs::read_to_string(&config).unwrap();
        let user = format!("[nats]\nuser = \"looker\"\npassword_file = \"{}\"\n", password.display());
        let text = text.replace("postgres@", &format!("{role}@")).replace("[nats]\n", &user);
        std::fs::write(&config, text).unwrap();
        let answer = world.run(&config, &["preview", "readings", "--count", "20", "--json"]).await;
        assert_eq!(answer.err, "", "{role}");
        let preview = object(&answer.well());
        assert_eq!(preview.get("not_judged_by_the_server"), None, "{role}: {preview:#}");
        assert_eq!(rows_of(&preview, "readings").len(), 6, "{role}");
    }
    let info = world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.clone();
    assert_eq!((info.consumer_count, info.messages), (0, messages().len() as u64));
    assert_eq!(world.count(before).await, written);
    assert_eq!(world.count("SELECT count(*) FROM readings").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.checkpoints").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_new_messages_as_they_come_and_leaves_nothing_behind() {
    let (world, config) = world().await;
    world.publish("north", messages()).await;
    let tapped = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jetcopy"));
        command.args(["tap", "readings"]).args(arguments).arg("--config").arg(&config);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let arguments = ["--count", "3", "--json", "--subject", &format!("{}.south", world.stream)];
    let mut child = tapped(&arguments);
    // Until it has begun to look, nothing is new to it.
    while child.try_wait().unwrap().is_none() {
        world.publish("north", [br#"{"time": 1}"#.to_vec()]).await;
        world.publish("south", [br#"{"time": 2, "extra": 1}"#.to_vec()]).await;
    }
    let output = child.wait_with_output().unwrap();
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(object).collect();
    assert!(output.status.success() && lines.len() >= 4, "{lines:#?}");
    let shown = lines.iter().filter(|line| line.get("sequence").is_some());
    assert!(shown.clone().all(|line| line["rows"][0]["values"]["site"] == "south"), "{lines:#?}");
    assert_eq!(shown.count(), 3);
    let summary = &lines[lines.len() - 1]["summary"];
    assert_eq!((&summary["messages"], &summary["untaken"][0]["field"]), (&3.into(), &"extra".into()));

    // From the start, as fast as it may; it ends by itself.
    let child = tapped(&["--from", "1", "--rate", "1000", "--count", "12"]);
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    for line in [
        "  parts[1]  seq=1  at=1  name=y\\n\"z\"  size=NULL",
        "  !! sequence 3: refused (table readings, column state): invalid input value for enum mood: \
         \"glad\"",
        "12 messages: 15 rows, 9 dead letters",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    let output = tapped(&["--for", "300ms"]).wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "\n0 messages: 0 rows, 0 dead letters\n");
    let info = world.jetstream.get_stream(&world.stream).await.unwrap().cached_info().state.clone();
    assert_eq!(info.consumer_count, 0);
    assert_eq!(world.count("SELECT count(*) FROM readings").await, 0);
}
