//! Bare values become rows, and what a column does not take a dead letter, whichever command looks.

use async_nats::{HeaderMap, Subject};
use jetcopy::publish::{Outgoing, publish};
use serde_json::Value;

use crate::support::{Daemon, World, oracle};

const TABLES: &str = "
    CREATE TABLE everything (sequence bigint NOT NULL, payload bytea NOT NULL);
    CREATE TABLE numbers (sequence bigint NOT NULL, sensor text NOT NULL, value double precision NOT NULL);
    CREATE TABLE switches (sequence bigint NOT NULL, is_on boolean, as_text text NOT NULL);
    CREATE TABLE documents (sequence bigint NOT NULL, kind text, document jsonb NOT NULL)";

const CONFIG: &str = r#"
[[pipeline]]
name = "values"
stream = "STREAM"
format = "raw"

[[pipeline.table]]
name = "everything"
[pipeline.table.columns]
sequence = "$sequence"
payload = "$payload"

[[pipeline.table]]
name = "numbers"
when = { subject = "*.number.*" }
[pipeline.table.columns]
sequence = "$sequence"
sensor = "$subject[2]"
value = "$value"

[[pipeline.table]]
name = "switches"
when = { subject = "*.switch" }
[pipeline.table.columns]
sequence = "$sequence"
is_on = "$value"
as_text = "$payload"

[[pipeline.table]]
name = "documents"
when = { headers = { Kind = true } }
[pipeline.table.columns]
sequence = "$sequence"
kind = "$header.Kind"
document = "$payload"
"#;

/// Subject, headers and payload.
type Sent = (&'static str, &'static [(&'static str, &'static str)], Vec<u8>);

async fn send(world: &World, messages: Vec<Sent>) {
    let messages = messages.into_iter().map(|(subject, headers, payload)| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let subject = Subject::from(format!("{}.{subject}", world.stream));
        Outgoing { subject, headers: (!headers.is_empty()).then_some(map), payload: payload.into() }
    });
    publish(&world.nats, futures_util::stream::iter(messages), 100, |_| {}).await.unwrap();
}

fn good() -> Vec<Sent> {
    let packed = zstd::bulk::compress(b"-3", 3).unwrap();
    vec![
        ("number.a", &[], b"21.5".to_vec()),
        ("number.b", &[], b" 7\n".to_vec()),
        ("number.a", &[("Content-Encoding", "zstd")], packed),
        ("switch", &[], b"true".to_vec()),
        ("switch", &[], b"0".to_vec()),
        ("other", &[("Kind", "state")], b"{\"a\": [1]}".to_vec()),
        ("other", &[("Kind", "number")], b"1.50".to_vec()),
        ("other", &[], b"\x00\xff".to_vec()),
        ("other", &[], Vec::new()),
    ]
}

/// Messages that are dead letters, with the place and a part of the reason.
fn bad() -> Vec<(Sent, &'static str, &'static str)> {
    vec![
        (("number.a", &[], b"ON".to_vec()), "numbers.value", "`$value` is the text \"ON\""),
        (("number.a", &[], Vec::new()), "numbers.value", "`$value` is the text \"\""),
        (("number.a", &[], b"\xff".to_vec()), "numbers.value", "text that is not UTF-8"),
        (("switch", &[], b"maybe".to_vec()), "switches.is_on", "true, false, 1, 0, on or off"),
        (("other", &[("Kind", "state")], b"ON".to_vec()), "documents.document", "JSON as a whole"),
        (("other", &[("Kind", "state")], b"\"\\u0000\"".to_vec()), "documents.document", "NUL"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_value_is_a_row_as_its_column_wants_it_or_a_dead_letter_that_says_why() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let (good, bad) = (good(), bad());
    let first_bad = i64::try_from(good.len() + 1).unwrap();
    send(&world, good).await;
    send(&world, bad.iter().map(|(sent, ..)| sent.clone()).collect()).await;
    let config = world.config(CONFIG);
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "values", "everything", b"fresh".to_vec()).await;

    let sql = "SELECT sequence, coalesce(table_name || '.' || column_name, ''), message
        FROM jetcopy.dead_letters ORDER BY sequence";
    let found = world.database.query(sql, &[]).await.unwrap();
    assert_eq!(found.len(), bad.len(), "{found:#?}");
    for ((at, found), (_, place, reason)) in (first_bad..).zip(&found).zip(&bad) {
        assert_eq!((found.get::<_, i64>(0), found.get::<_, &str>(1)), (at, *place));
        assert!(found.get::<_, &str>(2).contains(reason), "{reason}: {found:?}");
    }
    for (sql, expected) in [
        (
            "SELECT count(*) FROM numbers WHERE (sequence, sensor, value) IN
                ((1,'a',21.5), (2,'b',7), (3,'a',-3))",
            3,
        ),
        (
            "SELECT count(*) FROM switches WHERE (sequence, is_on, as_text) IN
                ((4,true,'true'), (5,false,'0'))",
            2,
        ),
        (
            "SELECT count(*) FROM documents WHERE (sequence, kind, document) IN
            ((6,'state','{\"a\":[1]}'), (7,'number','1.50'))",
            2,
        ),
        ("SELECT count(*) FROM everything WHERE (sequence, payload) IN ((3,'-3'), (8,'\\x00ff'), (9,''))", 3),
        ("SELECT count(*) FROM (TABLE numbers) AS numbers", 3),
    ] {
        assert_eq!(world.count(sql).await, expected, "{sql}");
    }
    let report = world.run(&config, &["audit", "values", "--json"]).await.well();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["differences"], 0, "{report:#}");
    let shown = world.run(&config, &["preview", "values", "--count", "100", "--json"]).await.well();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["letters"].as_array().map(Vec::len), Some(bad.len()), "{shown:#}");
    let tables = shown["tables"].as_array().unwrap();
    let rows: usize = tables.iter().map(|table| table["rows"].as_array().unwrap().len()).sum();
    assert_eq!(rows, 10 + 3 + 2 + 2, "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_line_of_a_field_that_a_bare_value_has_not() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    for (from, to, said) in [
        ("value = \"$value\"", "value = \"reading\"", "column value: with format = \"raw\""),
        ("payload = \"$payload\"", "payload = \"$value\"", "use $payload for bytes as they are"),
        ("document = \"$payload\"", "document = \"$rest\"", "column document: with format = \"raw\""),
    ] {
        let config = world.config_file("wrong.toml", &CONFIG.replace(from, to));
        let text = std::fs::read_to_string(&config).unwrap();
        let line = 1 + text.lines().position(|line| line == to).unwrap();
        let ended = world.run(&config, &["check"]).await;
        let text = ended.out + &ended.err;
        assert!(text.contains(said) && text.contains(&format!("wrong.toml:{line}")), "line {line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_values_can_be_published_previewed_from_a_file_and_tested_by_cases() {
    let world = World::new().await;
    world.database.batch_execute(TABLES).await.unwrap();
    let config = world.config(CONFIG);
    let path = |name: &str, text: &str| {
        let path = world.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let records = "{\"at\": \"a\", \"value\": 21.5}\n{\"at\": \"b\", \"value\": \"7\"}\n";
    let records = path("records.ndjson", records);
    let subject = format!("{}.number.{{at}}", world.stream);
    world.run(&config, &["publish", &subject, &records, "--format", "raw"]).await.well();
    let arguments = ["publish", &subject, &records, "--format", "raw", "--value-field", "none"];
    let ended = world.run(&config, &arguments).await;
    assert!(ended.code != 0 && ended.err.contains("field \"none\" is missing"), "{ended:?}");
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "values", "everything", b"fresh".to_vec()).await;
    let stored = "SELECT count(*) FROM numbers WHERE (sensor, value) IN (('a', 21.5), ('b', 7))";
    assert_eq!(world.count(stored).await, 2);

    let lines = path("lines.txt", "1\n\n2\nx\n");
    let arguments = ["preview", "values", "--file", &lines, "--subject", "s.number.a", "--json"];
    let shown: Value = serde_json::from_str(&world.run(&config, &arguments).await.well()).unwrap();
    let (rows, letters) = (&shown["tables"][1]["rows"], &shown["letters"]);
    let counts = [rows, letters].map(|list| list.as_array().map(Vec::len));
    assert_eq!(counts, [Some(2), Some(1)], "{shown:#}");

    let schema = path("jetcopy.schema.json", "");
    world.run(&config, &["check", "--save-schema", &schema]).await;
    let case = |name: &str, message: &str, outcome: &str| {
        format!("[[case]]\nname = \"{name}\"\nsubject = \"s.switch\"\n{message}\n{outcome}\n")
    };
    let rows =
        |value: &str| format!("[[case.rows.everything]]\n[[case.rows.switches]]\nas_text = \"{value}\"");
    let cases = [
        case("a value", "message = true", &rows("true")),
        case("text", "message = \"1\"", &rows("1")),
        case("text as it is", "json = \"0\"", &rows("0")),
        case("bytes", "base64 = \"MQ==\"", &rows("1")),
        case("poison", "message = 1.5", "[[case.dead_letter]]\ncolumn = \"is_on\""),
    ];
    let file = path("values.test.toml", &cases.concat());
    let said = world.run(&config, &["test", &file]).await.well();
    assert!(said.ends_with("5 passed, 0 failed\n"), "{said}");
}
