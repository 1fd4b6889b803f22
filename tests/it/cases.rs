//! `jetcopy test` judges a mapping without a server, by tables that `jetcopy check --save-schema` wrote.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::World;

const TABLES: &str = "CREATE TYPE mood AS ENUM ('fine', 'sad');
    CREATE TABLE readings (seq bigint NOT NULL, at timestamptz NOT NULL, site text NOT NULL, temp real,
        share numeric(6, 3), state mood, box int[], more jsonb, kept text DEFAULT 'as ever');
    CREATE TABLE parts (id bigint NOT NULL, name text NOT NULL, size smallint)";

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
temp = "env.temperature"
box = "env.box"
more = "env.more"

[[pipeline.table]]
name = "parts"
for_each = "parts"
bad_element = "element"
[pipeline.table.columns]
id = "^id"
"#;

const GOOD: &str = r#"
[[case]]
name = "nested JSON, with an array of parts"
subject = "sensors.north"
[case.message]
id = 7
time = 1735689600123
share = 12.5
state = "fine"
parts = [{ name = "x" }, { name = "y" }]
env = { temperature = 21.5, box = [1, 2], more = { b = 1, a = 2 } }
[[case.rows.readings]]
seq = 1
at = "2025-01-01T01:00:00.123+01:00"
site = "north"
temp = 21.5
share = "12.500"
box = [1, 2]
more = { a = 2, b = 1 }
kept = "as ever"
[[case.rows.parts]]
id = 7
name = "x"
size = { null = true }
[[case.rows.parts]]
name = "y"

[[case]]
name = "MessagePack without most fields"
subject = "sensors.south"
format = "msgpack"
message = { time = 0 }
sequence = 42
[[case.rows.readings]]
seq = 42
site = "south"
temp = { null = true }

[[case]]
name = "cut short"
json = '{"time": 17'
[[case.dead_letter]]
kind = "malformed"

[[case]]
name = "an element of a wrong type"
subject = "sensors.north"
json = '{"time": 0, "id": 1, "parts": [{"name": "x", "size": "large"}]}'
[[case.rows.readings]]
[[case.dead_letter]]
kind = "type"
table = "parts"
column = "size"
element = 0
reason = "large"
"#;

/// A directory with the configuration and the tables, and servers that are gone.
async fn place() -> (World, PathBuf) {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let config = world.config(PIPELINE);
    let schema = world.directory.path().join("jetcopy.schema.json");
    let saved = world.run(&config, &["check", "--save-schema", schema.to_str().unwrap()]).await;
    assert!(saved.out.contains("ok    schema: 2 tables saved to"), "{saved:?}");
    // Nobody listens there: nothing is asked.
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(&world.nats_url, "nats://127.0.0.1:1");
    let text = text.replace(&world.database_url, "postgres://a@127.0.0.1:1/b");
    std::fs::write(&config, text).unwrap();
    (world, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_beside_the_configuration_pass_without_a_server() {
    let (world, config) = place().await;
    std::fs::write(world.directory.path().join("a.test.toml"), GOOD).unwrap();
    let answer = world.run(&config, &["test"]).await;
    assert!(answer.out.ends_with("4 passed, 0 failed\n"), "{answer:?}");
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_shown_with_both_sides_and_the_source_and_fails_the_command() {
    let (world, config) = place().await;
    let bad = GOOD
        .replace("temp = 21.5", "temp = 22")
        .replace("name = \"y\"\n\n", "nam = \"y\"\n\n")
        .replace("kind = \"malformed\"", "kind = \"missing\"")
        .replace("sequence = 42\n[[case.rows.readings]]", "[[case.rows.reading]]");
    let file = world.directory.path().join("b.toml");
    std::fs::write(&file, bad).unwrap();
    let junit = world.directory.path().join("junit.xml");
    let (file, report) = (file.to_str().unwrap(), junit.to_str().unwrap());
    let answer = world.run(&config, &["test", file, "--junit", report]).await;
    assert_eq!(answer.code, 1, "{answer:?}");
    for lines in [
        "        table readings, row 1, column temp\n          expected  22\n          found     21.5   <- \
         env.temperature\n",
        "        table parts, row 2: no row fills column nam; did you mean name?\n",
        "        pipeline readings has no table reading; did you mean readings?\n",
        "          expected  no row\n          found     seq = 1, at = 1970-01-01 00:00:00+00, site = ",
        "        dead letter\n          expected  kind missing\n          found     kind malformed: not a \
         message in JSON",
        "1 passed, 3 failed\n",
    ] {
        assert!(answer.out.contains(lines), "{lines}\n{}", answer.out);
    }
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains("<testsuites tests=\"4\" failures=\"3\">"), "{xml}");
    let answer = world.run(&config, &["test", file, "--json"]).await;
    let json: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&json["passed"], &json["failed"]), (&1.into(), &3.into()));
    assert_eq!(json["files"][0]["cases"][0]["differences"][0]["found"], "21.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_or_a_schema_that_cannot_be_used_says_what_would_help() {
    let (world, config) = place().await;
    let none = world.run(&config, &["test"]).await;
    assert_eq!(none.code, 2);
    assert!(none.err.contains("no file ends in .test.toml in"), "{none:?}");
    let file = world.directory.path().join("a.test.toml");
    std::fs::write(&file, GOOD.replace("subject =", "subjekt =")).unwrap();
    let unknown = world.run(&config, &["test"]).await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("subjekt") && unknown.err.contains("`subject`"), "{unknown:?}");
    std::fs::write(&file, GOOD).unwrap();
    std::fs::remove_file(world.directory.path().join("jetcopy.schema.json")).unwrap();
    let missing = world.run(&config, &["test"]).await;
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("`jetcopy check --save-schema"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_without_servers_names_every_slip_at_once_with_its_line() {
    let (world, config) = place().await;
    let schema = world.directory.path().join("jetcopy.schema.json");
    let offline = ["check", "--offline", schema.to_str().unwrap()];
    let good = world.run(&config, &[&offline[..], &["--columns"]].concat()).await.well();
    for line in [
        "      temp   real                      <- env.temperature",
        "      kept   text                      <- kept, or its default",
        "ok    pipeline readings, table parts: the mapping fits; it fills 3 of 3 columns",
        "ok    pipeline readings, table parts: rows go straight into it by COPY",
        "no errors, no warnings",
    ] {
        assert!(good.lines().any(|shown| shown == line), "{line}\n{good}");
    }
    let text = std::fs::read_to_string(&config).unwrap();
    let slips = text
        .replace("box = \"env.box\"", "boxx = \"env.box\"")
        .replace("temp = \"env.temperature\"", "temp = { from = \"env.temperature\", unit = \"s\" }")
        .replace("more = \"env.more\"", "more = { from = \"env.more\", round = 2 }")
        .replace("id = \"^id\"", "id = { from = \"^id\", offset = \"Z\" }");
    std::fs::write(&config, &slips).unwrap();
    let line_of = |part: &str| 1 + slips.lines().position(|line| line.contains(part)).unwrap();
    let answer = world.run(&config, &offline).await;
    assert_eq!(answer.code, 1);
    for (part, said) in [
        ("boxx", "table readings, column boxx: the table has no such column; did you mean `box`?"),
        ("temp = {", "table readings, column temp: `unit` is for columns of times"),
        ("more = {", "table readings, column more: `round` is for columns of real"),
        ("id = {", "table parts, column id: an `offset` in text is for columns of type timestamptz"),
    ] {
        let line = format!("{}:{}: {said}", config.display(), line_of(part));
        assert!(answer.out.contains(&line), "{line}\n{}", answer.out);
    }
    assert!(answer.out.contains("\n4 errors, no warnings\n"), "{}", answer.out);
    std::fs::write(&config, text.replace("name = \"parts\"", "name = \"part\"")).unwrap();
    let answer = world.run(&config, &offline).await;
    assert!(answer.out.contains("      -> did you mean parts?"), "{}", answer.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_the_stream_that_is_called_alike() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let config = world.config(&PIPELINE.replace("STREAM", "STREAMS"));
    let answer = world.run(&config, &["check"]).await;
    assert!(answer.out.contains("the stream does not exist\n      -> did you mean STREAM"), "{}", answer.out);
}
