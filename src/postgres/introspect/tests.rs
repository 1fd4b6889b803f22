//! Tables are read as the server has them: types, defaults, columns that take no value.

use super::*;
use crate::testbed::{TestPostgres, connect};

async fn with(sql: &str) -> (std::sync::Arc<TestPostgres>, Client) {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client.batch_execute(sql).await.unwrap();
    (server, client)
}

fn names(table: &Table) -> Vec<&str> {
    table.columns.iter().map(|column| column.name.as_str()).collect()
}

#[tokio::test]
async fn every_supported_type_is_known_by_name() {
    let types: [(&str, Type); 28] = [
        ("boolean", Type::Bool),
        ("smallint", Type::Int2),
        ("integer", Type::Int4),
        ("bigint", Type::Int8),
        ("real", Type::Float4),
        ("double precision", Type::Float8),
        ("numeric(10,2)", Type::Numeric),
        ("text", Type::Text),
        ("varchar(9)", Type::Text),
        ("char(3)", Type::Text),
        ("name", Type::Text),
        ("mood", Type::Text),
        ("bytea", Type::Bytea),
        ("uuid", Type::Uuid),
        ("timestamptz(3)", Type::Timestamptz),
        ("timestamp", Type::Timestamp),
        ("date", Type::Date),
        ("time", Type::Time),
        ("interval", Type::Interval),
        ("json", Type::Json),
        ("jsonb", Type::Jsonb),
        ("inet", Type::Inet { cidr: false }),
        ("cidr", Type::Inet { cidr: true }),
        ("positive", Type::Int4),
        ("very_positive", Type::Int4),
        ("real[]", Type::Array { element: Box::new(Type::Float4), element_oid: WireType::FLOAT4.oid() }),
        ("text[][]", Type::Array { element: Box::new(Type::Text), element_oid: WireType::TEXT.oid() }),
        ("pair", Type::Array { element: Box::new(Type::Int8), element_oid: WireType::INT8.oid() }),
    ];
    let columns: Vec<String> = types.iter().enumerate().map(|(n, (ty, _))| format!("c{n} {ty}")).collect();
    let (_server, client) = with(&format!(
        "CREATE TYPE mood AS ENUM ('fine');
         CREATE DOMAIN positive AS integer CHECK (value > 0);
         CREATE DOMAIN very_positive AS positive CHECK (value > 9);
         CREATE DOMAIN pair AS bigint[] CHECK (array_length(value, 1) = 2);
         CREATE TABLE t ({})",
        columns.join(", ")
    ))
    .await;
    let table = introspect(&client, "t").await.unwrap();
    assert_eq!(table.unsupported, []);
    for ((sql, expected), column) in types.iter().zip(&table.columns) {
        assert_eq!(&column.ty, expected, "{sql}");
    }
    assert_eq!(table.columns.len(), types.len());
}

#[tokio::test]
async fn an_array_of_a_domain_or_enum_carries_the_oid_that_the_server_compares() {
    let (_server, client) = with(
        "CREATE TYPE mood AS ENUM ('fine'); CREATE DOMAIN positive AS integer;
         CREATE TABLE t (moods mood[], numbers positive[])",
    )
    .await;
    let table = introspect(&client, "t").await.unwrap();
    let row = client.query_one("SELECT 'mood'::regtype::oid, 'positive'::regtype::oid", &[]).await.unwrap();
    let array = |element, oid| Type::Array { element: Box::new(element), element_oid: row.get(oid) };
    assert_eq!(table.columns[0].ty, array(Type::Text, 0));
    assert_eq!(table.columns[1].ty, array(Type::Int4, 1));
}

#[tokio::test]
async fn dropped_and_generated_columns_are_left_out_and_defaults_are_seen() {
    let (_server, client) = with(
        "CREATE DOMAIN stamped AS timestamptz NOT NULL DEFAULT now();
         CREATE TABLE t (gone int, id bigint GENERATED ALWAYS AS IDENTITY, a int NOT NULL, b int DEFAULT 1,
                         north text NOT NULL DEFAULT 'north', big bigint DEFAULT 7, doc jsonb DEFAULT '{}',
                         tags text[] DEFAULT ARRAY['a'], none int DEFAULT NULL,
                             seen timestamptz DEFAULT now(),
                         key uuid DEFAULT gen_random_uuid(),
                         twice int GENERATED ALWAYS AS (a * 2) STORED, at stamped, free text);
         ALTER TABLE t DROP COLUMN gone",
    )
    .await;
    let table = introspect(&client, "t").await.unwrap();
    let constant = |value: &[u8]| {
        let length = i32::try_from(value.len()).unwrap().to_be_bytes();
        ServerDefault::Constant([&length, value].concat().into())
    };
    let seen: Vec<(&str, bool, &ServerDefault)> =
        table.columns.iter().map(|column| (column.name.as_str(), column.not_null, &column.default)).collect();
    let tags = b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x01\0\0\0\x01\0\0\0\x01a";
    assert_eq!(
        seen,
        [
            ("id", true, &ServerDefault::Computed),
            ("a", true, &ServerDefault::None),
            ("b", false, &constant(&1_i32.to_be_bytes())),
            ("north", true, &constant(b"north")),
            ("big", false, &constant(&7_i64.to_be_bytes())),
            ("doc", false, &constant(b"\x01{}")),
            ("tags", false, &constant(tags)),
            ("none", false, &ServerDefault::None),
            ("seen", false, &ServerDefault::Computed),
            ("key", false, &ServerDefault::Computed),
            ("at", true, &ServerDefault::Computed),
            ("free", false, &ServerDefault::None)
        ]
    );
    assert_eq!(table.time_column.as_deref(), Some("seen"));
}

#[tokio::test]
async fn names_resolve_as_the_server_would_resolve_them() {
    let (_server, client) = with(
        r#"CREATE SCHEMA "Odd.Schema"; CREATE TABLE "Odd.Schema"."select" ("a""b" int);
           CREATE TABLE plain (a int)"#,
    )
    .await;
    let odd = introspect(&client, r#""Odd.Schema"."select""#).await.unwrap();
    assert_eq!(odd.qualified, r#""Odd.Schema"."select""#);
    assert_eq!(names(&odd), [r#"a"b"#]);
    for name in ["plain", "PLAIN", "public.plain", r#""plain""#] {
        assert_eq!(introspect(&client, name).await.unwrap().qualified, "public.plain", "{name}");
    }
    for name in [r#""PLAIN""#, "other.plain", "absent"] {
        let error = introspect(&client, name).await.unwrap_err();
        assert!(matches!(error, IntrospectError::Missing { .. }), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn columns_of_types_that_jetcopy_does_not_write_are_named_with_whether_they_must_be_filled() {
    let (_server, client) = with(
        "CREATE TYPE pair AS (a int, b int); CREATE EXTENSION hstore; CREATE EXTENSION ltree;
         CREATE TABLE t (a int, area polygon, doc xml NOT NULL DEFAULT '<a/>', at point NOT NULL,
             mac macaddr, span int4range,
                         two pair, tags hstore, path ltree)",
    )
    .await;
    let table = introspect(&client, "t").await.unwrap();
    assert_eq!(names(&table), ["a"]);
    let unsupported: Vec<(&str, &str, bool)> = table
        .unsupported
        .iter()
        .map(|column| (column.name.as_str(), column.type_name.as_str(), column.required))
        .collect();
    assert_eq!(
        unsupported,
        [
            ("area", "polygon", false),
            ("doc", "xml", false),
            ("at", "point", true),
            ("mac", "macaddr", false),
            ("span", "int4range", false),
            ("two", "pair", false),
            ("tags", "hstore", false),
            ("path", "ltree", false)
        ]
    );
}

#[tokio::test]
async fn what_is_no_table_is_named_with_what_to_do() {
    let (_server, client) = with(
        "CREATE TABLE \"FrameMetadata\" (a int); CREATE SCHEMA telemetry; CREATE TABLE telemetry.readings (a
         int);
         CREATE VIEW seen AS SELECT 1 AS a; CREATE MATERIALIZED VIEW stored AS
             SELECT 1 AS a; CREATE SEQUENCE counter;
         CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE VIEW written AS SELECT a FROM \"FrameMetadata\";
         CREATE TRIGGER instead INSTEAD OF INSERT ON written FOR EACH ROW EXECUTE FUNCTION pass()",
    )
    .await;
    for (name, says) in [
        ("seen", "it is a view"),
        ("written", "it is a view"),
        ("stored", "it is a materialized view"),
        ("counter", "it is a sequence"),
        ("FrameMetadata", "did you mean \"FrameMetadata\"?"),
        ("FrameMetadata", "name = '\"FrameMetadata\"'"),
        ("readings", "did you mean telemetry.readings?"),
        ("telemetry.reading", "did you mean telemetry.readings?"),
        ("nothing_like_it", "create the table"),
    ] {
        let error = introspect(&client, name).await.unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_table_that_the_configuration_uses_already_is_not_the_one_that_was_meant() {
    let (_server, client) =
        with("CREATE SCHEMA telemetry; CREATE TABLE telemetry.readings (a int); CREATE TABLE t4 (a int)")
            .await;
    for (name, used, says) in [
        ("t4b", &["t4b"][..], "did you mean t4?"),
        ("t4b", &["t4b", "t4"], "create the table"),
        ("t4b", &["t4b", "public.T4"], "create the table"),
        ("reading", &["readings"], "did you mean telemetry.readings?"),
        ("reading", &["telemetry.readings"], "create the table"),
    ] {
        let error = introspect_beside(&client, name, used).await.unwrap_err().to_string();
        assert!(error.contains(says), "{name} beside {used:?}: {error}");
    }
}

#[tokio::test]
async fn only_keys_that_on_conflict_can_name_are_listed_the_primary_key_first() {
    let (_server, client) = with(
        "CREATE TABLE t (a int, b int, c int, d int, e int UNIQUE DEFERRABLE, PRIMARY KEY (b, a));
         CREATE UNIQUE INDEX ON t (c) INCLUDE (d); CREATE UNIQUE INDEX ON t (d) WHERE d > 0;
         CREATE UNIQUE INDEX ON t ((a + b)); CREATE INDEX ON t (d)",
    )
    .await;
    let table = introspect(&client, "t").await.unwrap();
    assert_eq!(table.unique_keys, [vec!["b", "a"], vec!["c"]]);
}

#[tokio::test]
async fn a_hypertable_is_sorted_by_its_dimension_and_a_plain_table_by_its_first_time() {
    let (server, client) = with("CREATE TABLE t (made date, at timestamptz NOT NULL, a int)").await;
    assert_eq!(introspect(&client, "t").await.unwrap().time_column.as_deref(), Some("made"));
    if server.lacks_timescaledb() {
        return;
    }
    client.batch_execute("CREATE EXTENSION timescaledb; SELECT create_hypertable('t', 'at')").await.unwrap();
    assert_eq!(introspect(&client, "t").await.unwrap().time_column.as_deref(), Some("at"));
}
