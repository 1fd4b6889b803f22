//! What jetcopy encodes, PostgreSQL reads back as the same value: every type and arrays of it, from JSON and
//! MessagePack, and whatever arbitrary mappings make of any format.
//!
//! The server is the oracle. Each row carries, beside the encoded value, the same value as text in
//! PostgreSQL's own input syntax, and the server compares the two.

#![expect(clippy::unwrap_used, reason = "helpers of tests say what they expect, too")]

#[path = "encodings/mapping.rs"]
mod mapping;
#[path = "encodings/property.rs"]
mod property;
#[path = "encodings/samples.rs"]
mod samples;
#[path = "encodings/tree.rs"]
mod tree;

use futures_util::SinkExt as _;
use jetcopy::batch::Rows;
use jetcopy::config::Pipeline;
use jetcopy::decode::Decoder;
use jetcopy::encode::{copy_frame, printed};
use jetcopy::message::Message;
use jetcopy::postgres::introspect::introspect;
use jetcopy::testbed::{TestPostgres, connect};
use samples::Sample;
use tokio_postgres::Client;

/// Values of each type and format.
const VALUES: usize = 200;

fn pipeline(toml: &str) -> Pipeline {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};
    Figment::from(Toml::string(&format!("name = 'p'\nstream = 'S'\n{toml}"))).extract().unwrap()
}

async fn copy(
    client: &Client,
    table: &str,
    columns: &[String],
    data: &[u8],
) -> Result<(), tokio_postgres::Error> {
    let columns: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
    let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "));
    let mut sink = Box::pin(client.copy_in(&sql).await?);
    let bytes = [copy_frame::HEADER, data, &copy_frame::TRAILER].concat();
    sink.send(bytes::Bytes::from(bytes)).await?;
    sink.as_mut().finish().await.map(drop)
}

fn message(payload: &[u8]) -> Message {
    let (subject, payload) = ("s".into(), payload.to_vec().into());
    Message { sequence: 1, timestamp_ns: 0, subject, payload, headers: None }
}

/// A message with the value alone, the value's text, and arrays of both: the value, null, the value.
fn messages(sample: &Sample) -> [Vec<u8>; 2] {
    let text = serde_json::to_string(&sample.text).unwrap();
    let json =
        format!("{{\"v\":{value},\"t\":{text},\"a\":[{value},null,{value}],\"e\":[]}}", value = sample.json);
    let mut packed = vec![0x84];
    rmp::encode::write_str(&mut packed, "v").unwrap();
    packed.extend_from_slice(&sample.msgpack);
    rmp::encode::write_str(&mut packed, "t").unwrap();
    rmp::encode::write_str(&mut packed, &sample.text).unwrap();
    rmp::encode::write_str(&mut packed, "a").unwrap();
    packed.push(0x93);
    packed.extend_from_slice(&sample.msgpack);
    packed.push(0xc0);
    packed.extend_from_slice(&sample.msgpack);
    rmp::encode::write_str(&mut packed, "e").unwrap();
    packed.push(0x90);
    [json.into_bytes(), packed]
}

#[tokio::test]
async fn every_type_and_arrays_of_it_read_back_as_the_same_value() {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client
        .batch_execute(
            "SET timezone = 'UTC';
             CREATE TYPE mood AS ENUM ('fine', 'sad');
             CREATE DOMAIN positive AS integer CHECK (value > 0)",
        )
        .await
        .unwrap();
    for (ty, sample) in samples::TYPES {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (v {ty}, t text, a {ty}[], e {ty}[])"
            ))
            .await
            .unwrap();
        let table = introspect(&client, "t").await.unwrap();
        assert_eq!(table.columns.len(), 4, "{ty}");
        let mut decoder = Decoder::new(&pipeline("[[table]]\nname = 't'"), &[table]).unwrap();
        let mut rows = Rows::new(1);
        let mut random = samples::Random::new();
        for _ in 0..VALUES {
            let sample = sample(&mut random);
            for payload in messages(&sample) {
                decoder.decode(&message(&payload), 0, &mut rows).unwrap_or_else(|poison| {
                    panic!("{ty} {:?}: {poison:?}", sample.text);
                });
            }
        }
        copy(&client, "t", decoder.columns(0), &rows.tables[0].data).await.unwrap();
        // `json` has no equality; as jsonb it has.
        let comparable = if *ty == "json" { "jsonb" } else { ty };
        let bad = client
            .query(
                &format!(
                    "SELECT t, v::text, a::text FROM t
                     WHERE (v::{comparable})::text IS DISTINCT FROM (t::{comparable})::text
                     OR array_to_string(a, '|', '*') <> array_to_string(ARRAY[v, NULL, v], '|', '*')
                     OR array_length(a, 1) <> 3 OR a[1] IS NULL OR a[2] IS NOT NULL OR cardinality(e) <> 0
                     LIMIT 3"
                ),
                &[],
            )
            .await
            .unwrap();
        let bad: Vec<(String, Option<String>, Option<String>)> =
            bad.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert!(bad.is_empty(), "{ty}: {bad:#?}");
        let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
        assert_eq!(usize::try_from(count), Ok(2 * VALUES));
    }
}

#[tokio::test]
async fn every_type_and_arrays_of_it_are_printed_as_the_server_prints_them() {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    let types = "SET timezone = 'UTC'; CREATE TYPE mood AS ENUM ('fine', 'sad');
        CREATE DOMAIN positive AS integer CHECK (value > 0)";
    client.batch_execute(types).await.unwrap();
    // The server orders the keys of `jsonb` anew.
    for (ty, sample) in samples::TYPES.iter().filter(|(ty, _)| *ty != "jsonb") {
        let create = format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (v {ty}, t text, a {ty}[], e {ty}[],
                 n int GENERATED ALWAYS AS IDENTITY)"
        );
        client.batch_execute(&create).await.unwrap();
        let table = introspect(&client, "t").await.unwrap();
        let mut decoder =
            Decoder::new(&pipeline("[[table]]\nname = 't'"), std::slice::from_ref(&table)).unwrap();
        let (mut rows, mut random) = (Rows::new(1), samples::Random::new());
        for _ in 0..VALUES {
            for payload in messages(&sample(&mut random)) {
                decoder.decode(&message(&payload), 0, &mut rows).unwrap();
            }
        }
        copy(&client, "t", decoder.columns(0), &rows.tables[0].data).await.unwrap();
        let sql = "SELECT format('%s', v), t, format('%s', a), format('%s', e) FROM t ORDER BY n";
        let found = client.query(sql, &[]).await.unwrap();
        let rows = &rows.tables[0];
        assert_eq!(found.len(), rows.rows.len());
        for (index, found) in (0..).zip(&found) {
            let fields = copy_frame::fields(&rows.data[rows.range(index)]);
            for ((at, column), field) in table.columns.iter().enumerate().zip(fields) {
                let mut expected: String = found.get(at);
                if *ty == "boolean" && at == 0 {
                    expected = if expected == "t" { "true" } else { "false" }.to_owned();
                }
                assert_eq!(printed::text(&column.ty, field.unwrap()), expected, "{ty} {}", column.name);
            }
        }
    }
}

/// Type, further settings of the column, value in JSON, and how the server then writes it.
const FIXED: &[(&str, &str, &str, &str)] = &[
    ("timestamptz", "unit = 's'", "1735689600", "2025-01-01 00:00:00+00"),
    ("timestamptz", "unit = 's'", "1735689600.1234567", "2025-01-01 00:00:00.123457+00"),
    ("timestamptz", "unit = 'ms'", "1735689600123", "2025-01-01 00:00:00.123+00"),
    ("timestamptz", "unit = 'us'", "1735689600123456", "2025-01-01 00:00:00.123456+00"),
    ("timestamptz", "unit = 'ns'", "1735689600123456789", "2025-01-01 00:00:00.123457+00"),
    ("timestamptz", "unit = 'us'", "-62135596800000000", "0001-01-01 00:00:00+00"),
    ("timestamptz", "unit = 's'", "\"2025-01-01T02:00:00+02:00\"", "2025-01-01 00:00:00+00"),
    ("timestamptz", "", "\"infinity\"", "infinity"),
    ("timestamptz", "", "\"-infinity\"", "-infinity"),
    ("timestamp", "", "\"2025-01-01T02:00:00+02:00\"", "2025-01-01 00:00:00"),
    ("timestamp", "", "\"2025-01-01T02:00:00.5\"", "2025-01-01 02:00:00.5"),
    ("date", "", "\"infinity\"", "infinity"),
    ("date", "unit = 's'", "1735689599", "2024-12-31"),
    ("date", "unit = 's'", "-1", "1969-12-31"),
    ("date", "", "\"2025-01-01T01:00:00+02:00\"", "2024-12-31"),
    ("time", "unit = 'ms'", "3723004", "01:02:03.004"),
    ("time", "unit = 's'", "86400", "24:00:00"),
    ("interval", "unit = 's'", "90.5", "00:01:30.5"),
    ("interval", "", "\"P2W\"", "14 days"),
    ("interval", "", "\"-P1DT2H\"", "-1 days -02:00:00"),
    ("boolean", "", "1", "true"),
    ("boolean", "", "\"false\"", "false"),
    ("smallint", "", "3.0", "3"),
    ("bigint", "", "\"9223372036854775807\"", "9223372036854775807"),
    ("bigint", "", "1e3", "1000"),
    ("double precision", "", "\"NaN\"", "NaN"),
    ("double precision", "", "\"-Infinity\"", "-Infinity"),
    ("real", "", "16777217", "1.6777216e+07"),
    ("numeric", "", "\"NaN\"", "NaN"),
    ("numeric", "", "\"Infinity\"", "Infinity"),
    ("numeric", "", "18446744073709551615", "18446744073709551615"),
    ("numeric", "", "0.00000000000000000000000012300", "0.00000000000000000000000012300"),
    ("numeric", "", "0.000", "0.000"),
    ("numeric(6,2)", "", "1234.5", "1234.50"),
    ("text", "", "12.50", "12.50"),
    ("text", "", "true", "true"),
    ("text", "", "{\"a\": [1, 2]}", "{\"a\": [1, 2]}"),
    ("text", "", "\"a\\tb\\u00e9\"", "a\tb\u{e9}"),
    ("inet", "", "\"10.1.2.3\"", "10.1.2.3/32"),
    ("cidr", "", "\"10.0.0.0/8\"", "10.0.0.0/8"),
    ("inet", "", "\"2001:db8::1/64\"", "2001:db8::1/64"),
    ("uuid", "", "\"A0EEBC999C0B4EF8BB6D6BB9BD380A11\"", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bytea", "", "\"AP8\"", "\\x00ff"),
    ("jsonb", "", "{\"b\":1,\"a\":\"\\ud83d\\ude00\"}", "{\"a\": \"😀\", \"b\": 1}"),
    ("jsonb", "", "\"text\"", "\"text\""),
    ("jsonb[]", "", "[[1,2],{\"a\":null}]", "{\"[1, 2]\",\"{\\\"a\\\": null}\"}"),
];

#[tokio::test]
async fn values_that_need_converting_read_back_as_documented() {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    for (ty, settings, json, expected) in FIXED {
        client.batch_execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {ty})")).await.unwrap();
        let table = introspect(&client, "t").await.unwrap();
        let toml = format!("[[table]]\nname = 't'\n[table.columns]\nv = {{ {settings} }}");
        let mut decoder = Decoder::new(&pipeline(&toml), &[table]).unwrap();
        let mut rows = Rows::new(1);
        let payload = format!("{{\"v\":{json}}}");
        decoder.decode(&message(payload.as_bytes()), 0, &mut rows).unwrap();
        copy(&client, "t", decoder.columns(0), &rows.tables[0].data).await.unwrap();
        let found: String = client.query_one("SELECT v::text FROM t", &[]).await.unwrap().get(0);
        assert_eq!(&found, expected, "{ty} from {json}");
        let printed = copy_frame::fields(&rows.tables[0].data).flatten().next();
        let printed =
            printed.map(|field| printed::text(decoder.sources(0).next().unwrap().0, field)).unwrap();
        // These the server prints in its own way: a cast of `inet` adds the length, a type its scale.
        if !matches!(*ty, "inet" | "jsonb" | "jsonb[]" | "numeric(6,2)") {
            assert_eq!(&printed, expected, "{ty} from {json}");
        }
    }
}
