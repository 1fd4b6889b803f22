//! Every error here comes from a real server.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, CopyInSink};

use super::*;
use crate::testbed::{PostgresOptions, TestPostgres, connect};

const COPY: Step = Step::CopyData { mergeable: false };
const MERGEABLE: Step = Step::CopyData { mergeable: true };

async fn with(sql: &str) -> (std::sync::Arc<TestPostgres>, Client) {
    let server = TestPostgres::shared().unwrap();
    let client = connect(&server.create_database().await.unwrap()).await.unwrap();
    client.batch_execute(sql).await.unwrap();
    (server, client)
}

/// Copies rows of binary fields into `table` and returns the error that must come of it.
async fn copy(client: &Client, table: &str, rows: &[&[Option<&[u8]>]]) -> Error {
    let mut data = BytesMut::new();
    data.put_slice(b"PGCOPY\n\xff\r\n\0");
    data.put_slice(&[0; 8]);
    for row in rows {
        data.put_i16(i16::try_from(row.len()).unwrap());
        for field in *row {
            match field {
                Some(bytes) => {
                    data.put_i32(i32::try_from(bytes.len()).unwrap());
                    data.put_slice(bytes);
                }
                None => data.put_i32(-1),
            }
        }
    }
    data.put_i16(-1);
    let sink: CopyInSink<Bytes> =
        client.copy_in(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(data.freeze()).await.unwrap();
    sink.as_mut().finish().await.unwrap_err()
}

fn code(error: &Error) -> &str {
    error.code().unwrap().code()
}

#[tokio::test]
async fn a_value_that_only_the_server_refuses_is_poison_on_its_line() {
    let (_server, client) = with(
        "CREATE TYPE mood AS ENUM ('fine');
         CREATE TABLE texts (v text); CREATE TABLE jsonbs (v jsonb); CREATE TABLE jsons (v json);
         CREATE TABLE moods (v mood); CREATE TABLE numbers (v int); CREATE TABLE lists (v int[]);
         CREATE TABLE times (v timestamptz); CREATE TABLE shorts (v varchar(3)); CREATE TABLE prices (v
             numeric(3,1));
         CREATE TABLE checks (v int CHECK (v > 0));
         CREATE TABLE required (v int NOT NULL)",
    )
    .await;
    let one = 1_i32.to_be_bytes();
    let list_of_text =
        [&1_i32.to_be_bytes()[..], &[0; 4], &25_i32.to_be_bytes(), &one, &one, &one, b"a"].concat();
    let thousand = [0, 1, 0, 0, 0, 0, 0, 0, 0x03, 0xE8];
    let deep = [b"\x01", "[".repeat(100_000).as_bytes()].concat();
    let cases: [(&str, &str, &[u8], &[u8]); 14] = [
        ("texts", "22021", b"a", b"\xff"),
        ("texts", "22021", b"a", b"a\0"),
        ("jsonbs", "22P05", b"\x01[]", b"\x01\"\\u0000\""),
        ("jsonbs", "22P02", b"\x01[]", b"\x01\"\\ud800\""),
        ("jsons", "22P02", b"[]", b"{\n\n\"a\": }"),
        ("jsonbs", "54001", b"\x01[]", &deep),
        ("moods", "22P02", b"fine", b"COPY moods, line 9"),
        ("numbers", "08P01", &one, b"\0"),
        ("lists", "42804", &[0; 12], &list_of_text),
        ("times", "22008", &[0; 8], &(i64::MAX - 1).to_be_bytes()),
        ("shorts", "22001", b"abc", b"abcd"),
        ("prices", "22003", &[0; 8], &thousand),
        ("checks", "23514", &one, &[0; 4]),
        ("numbers", "22P03", &one, &[0; 5]),
    ];
    // The element's OID is part of an empty array too.
    let empty_list = [&[0; 8][..], &23_i32.to_be_bytes()].concat();
    for (table, expected, good, bad) in cases {
        let good = if table == "lists" { &empty_list } else { good };
        let error = copy(&client, table, &[&[Some(good)], &[Some(good)], &[Some(bad)], &[Some(good)]]).await;
        assert_eq!(code(&error), expected, "{table}: {error:?}");
        assert_eq!(decide(&error, COPY), Decision::SuspectRow, "{table}: {error:?}");
        assert_eq!(copy_line(&error), Some(3), "{table}: {error:?}");
    }
    let error = copy(&client, "required", &[&[Some(&one)], &[None]]).await;
    assert_eq!(
        (code(&error), copy_line(&error), decide(&error, COPY)),
        ("23502", Some(2), Decision::SuspectRow)
    );
}

#[tokio::test]
async fn a_row_without_a_partition_is_told_from_one_that_a_check_or_a_trigger_refuses() {
    let (_server, client) = with(
        "CREATE TABLE parts (v int) PARTITION BY RANGE (v);
         CREATE TABLE part PARTITION OF parts FOR VALUES FROM (2) TO (3);
         CREATE TABLE raising (v int);
         CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'no' USING ERRCODE = '23514';
         END $$;
         CREATE TRIGGER raising BEFORE INSERT ON raising FOR EACH ROW EXECUTE FUNCTION raising()",
    )
    .await;
    let one = 1_i32.to_be_bytes();
    for (table, decision) in
        [("parts", Decision::AddPartition), ("part", Decision::SuspectRow), ("raising", Decision::SuspectRow)]
    {
        let error = copy(&client, table, &[&[Some(&one)]]).await;
        assert_eq!((code(&error), copy_line(&error), decide(&error, COPY)), ("23514", Some(1), decision));
    }
    let error = client.batch_execute("INSERT INTO parts VALUES (1)").await.unwrap_err();
    assert_eq!(decide(&error, Step::Merge), Decision::AddPartition);
}

#[tokio::test]
async fn a_broken_frame_is_no_rows_fault() {
    let (_server, client) = with("CREATE TABLE t (v int)").await;
    let one = 1_i32.to_be_bytes();
    let error = copy(&client, "t", &[&[Some(&one)], &[Some(&one), Some(&one)]]).await;
    assert_eq!((code(&error), decide(&error, COPY)), ("22P04", Decision::Pause));
}

#[tokio::test]
async fn a_row_that_is_there_is_merged_only_where_the_table_has_on_conflict() {
    let (_server, client) = with("CREATE TABLE t (v int PRIMARY KEY)").await;
    let one = 1_i32.to_be_bytes();
    let error = copy(&client, "t", &[&[Some(&one)], &[Some(&one)]]).await;
    assert_eq!((code(&error), copy_line(&error)), ("23505", Some(2)));
    assert_eq!(decide(&error, COPY), Decision::SuspectRow);
    assert_eq!(decide(&error, MERGEABLE), Decision::Merge);
    // Another key than the one that ON CONFLICT names.
    assert_eq!(decide(&error, Step::Merge), Decision::SuspectRow);
    // jetcopy's own tables have been tampered with.
    assert_eq!(decide(&error, Step::Own), Decision::Pause);
}

#[tokio::test]
async fn on_a_hypertable_the_line_is_as_exact_as_on_a_plain_table() {
    let (server, client) = with("CREATE TABLE t (at bigint NOT NULL, v text, UNIQUE (at, v))").await;
    if server.lacks_timescaledb() {
        return;
    }
    client
        .batch_execute(
            "CREATE EXTENSION timescaledb; SELECT create_hypertable('t', 'at', chunk_time_interval => 10)",
        )
        .await
        .unwrap();
    // A chunk of its own for each row.
    let at = |n: i64| (n * 10).to_be_bytes();
    let rows =
        |last: i64, v: &'static [u8]| [(at(1), &b"a"[..]), (at(2), b"a"), (at(3), b"a"), (at(last), v)];
    for (rows, expected, line, decision) in
        [(rows(4, b"\0"), "22021", 4, Decision::SuspectRow), (rows(2, b"a"), "23505", 4, Decision::Merge)]
    {
        let rows = rows.each_ref().map(|(at, v)| [Some(at.as_slice()), Some(*v)]);
        let rows = rows.each_ref().map(<[_; 2]>::as_slice);
        let error = copy(&client, "t", &rows).await;
        assert_eq!((code(&error), copy_line(&error)), (expected, Some(line)), "{error:?}");
        assert_eq!(decide(&error, MERGEABLE), decision);
    }
}

#[tokio::test]
async fn a_foreign_key_names_no_line_and_a_deferred_one_speaks_at_commit() {
    let (_server, client) = with(
        "CREATE TABLE cameras (id int PRIMARY KEY);
         CREATE TABLE now (v int REFERENCES cameras);
         CREATE TABLE later (v int REFERENCES cameras DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let error = copy(&client, "now", &[&[Some(&[0; 4])]]).await;
    assert_eq!(
        (code(&error), copy_line(&error), decide(&error, COPY)),
        ("23503", None, Decision::SuspectRow)
    );
    client.batch_execute("BEGIN; INSERT INTO later VALUES (1)").await.unwrap();
    let error = client.batch_execute("COMMIT").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::Commit)), ("23503", Decision::SuspectRow));
}

#[tokio::test]
async fn a_trigger_that_refuses_a_row_makes_it_poison() {
    let (_server, client) = with(
        "CREATE TABLE t (v int);
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.v = 0 THEN
                 RAISE 'no' USING ERRCODE = 'JC001';
             END IF;
             IF NEW.v = 1 THEN
                 RAISE E'COPY t, line 77\\nCOPY t, line 78';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    for (value, expected) in [(0_i32, "JC001"), (1, "P0001")] {
        let error = copy(&client, "t", &[&[Some(&9_i32.to_be_bytes())], &[Some(&value.to_be_bytes())]]).await;
        assert_eq!((code(&error), copy_line(&error)), (expected, Some(2)), "{error:?}");
        assert_eq!(decide(&error, COPY), Decision::SuspectRow);
        assert_eq!(decide(&error, Step::Own), Decision::Pause);
    }
}

#[tokio::test]
async fn what_a_trigger_raises_is_a_rows_fault_only_where_its_class_can_be() {
    let (_server, client) = with(
        "CREATE TABLE early (code text); CREATE TABLE late (code text);
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'no' USING ERRCODE = NEW.code;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON early FOR EACH ROW EXECUTE FUNCTION fail();
         CREATE TRIGGER fail AFTER INSERT ON late FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    .await;
    let cases = [
        ("22012", Decision::SuspectRow),
        ("23514", Decision::SuspectRow),
        ("54001", Decision::SuspectRow),
        ("P0001", Decision::SuspectRow),
        ("JC001", Decision::SuspectRow),
        ("2200H", Decision::Pause),
        ("42P01", Decision::PauseUnlessRow),
        ("0A000", Decision::Pause),
        ("21000", Decision::PauseUnlessRow),
        ("42501", Decision::Pause),
        ("53400", Decision::Divide),
        ("XX001", Decision::Pause),
        ("40001", Decision::Retry),
        ("25006", Decision::Reconnect),
        ("08006", Decision::BackOff),
        ("08P01", Decision::BackOff),
        ("53100", Decision::BackOff),
        ("57P01", Decision::BackOff),
        ("58030", Decision::BackOff),
        ("HV00N", Decision::BackOff),
        ("XX000", Decision::BackOff),
    ];
    for (expected, decision) in cases {
        for table in ["early", "late"] {
            let error = copy(&client, table, &[&[Some(expected.as_bytes())]]).await;
            assert_eq!((code(&error), decide(&error, COPY)), (expected, decision), "{table}");
            assert_eq!(decide(&error, Step::Commit), decision, "{expected}");
        }
    }
    let error = copy(&client, "early", &[&[Some(b"XX000")]]).await;
    assert!(is_behind(&error, COPY) && !is_behind(&error, Step::Own));
    let error = copy(&client, "early", &[&[Some(b"53100")]]).await;
    assert!(!is_behind(&error, COPY));
}

#[tokio::test]
async fn an_error_names_the_relation_that_it_is_about() {
    let (_server, client) = with(
        "CREATE TABLE t (v int CHECK (v < 9)); CREATE SCHEMA other; CREATE TABLE other.trail (v int CHECK (v
         < 5));
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO other.trail VALUES (NEW.v);
             RETURN NEW;
         END $$;
         CREATE TRIGGER audit BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit();
         CREATE TABLE parts (v int) PARTITION BY HASH (v); CREATE TYPE mood AS ENUM ('fine')",
    )
    .await;
    client
        .batch_execute("CREATE TABLE part PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
        .await
        .unwrap();
    let error = copy(&client, "t", &[&[Some(&7_i32.to_be_bytes())]]).await;
    assert_eq!((code(&error), relation(&error)), ("23514", Some(("other", "trail"))));
    assert!(!is_direct(&error), "a statement of the trigger's");
    client.batch_execute("ALTER TABLE t DISABLE TRIGGER audit").await.unwrap();
    let error = copy(&client, "t", &[&[Some(&10_i32.to_be_bytes())]]).await;
    assert_eq!(relation(&error), Some(("public", "t")));
    assert!(is_direct(&error));
    let rows: Vec<[u8; 4]> = (0..20_i32).map(i32::to_be_bytes).collect();
    let rows: Vec<[Option<&[u8]>; 1]> = rows.iter().map(|row| [Some(&row[..])]).collect();
    let rows: Vec<&[Option<&[u8]>]> = rows.iter().map(|row| &row[..]).collect();
    let error = copy(&client, "parts", &rows).await;
    assert_eq!((relation(&error), decide(&error, COPY)), (Some(("public", "parts")), Decision::AddPartition));
    let error = client.batch_execute("SELECT 'odd'::mood").await.unwrap_err();
    assert_eq!(relation(&error), None);
}

#[tokio::test]
async fn a_row_that_a_constraint_excludes_is_merged_like_one_that_is_there() {
    let (_server, client) =
        with("CREATE TABLE t (v int, EXCLUDE USING gist (int4range(v, v + 1) WITH &&))").await;
    let one = 1_i32.to_be_bytes();
    let error = copy(&client, "t", &[&[Some(&one)], &[Some(&one)]]).await;
    assert_eq!(code(&error), "23P01");
    assert_eq!((decide(&error, MERGEABLE), decide(&error, COPY)), (Decision::Merge, Decision::SuspectRow));
    assert_eq!(decide(&error, Step::Merge), Decision::SuspectRow);
}

#[tokio::test]
async fn a_name_that_looks_like_a_line_is_left_to_bisection() {
    let (_server, client) = with(
        r#"CREATE TABLE "t, line 7" (v text); CREATE TABLE "COPY t" (", line 5" text);
        CREATE TABLE "a, b" (v text)"#,
    )
    .await;
    let bad: &[&[Option<&[u8]>]] = &[&[Some(b"\0")]];
    assert_eq!(copy_line(&copy(&client, r#""t, line 7""#, bad).await), None);
    assert_eq!(copy_line(&copy(&client, r#""COPY t""#, bad).await), None);
    assert_eq!(copy_line(&copy(&client, r#""a, b""#, bad).await), Some(1));
}

#[test]
fn the_line_is_found_in_other_languages_where_their_order_is_the_same() {
    assert_eq!(line_in("COPY t, Zeile 12, Spalte v"), Some(12));
    assert_eq!(line_in("COPY t, ligne 12, colonne v"), Some(12));
    assert_eq!(line_in("COPY t, строка 12"), Some(12));
    assert_eq!(line_in("tのCOPY、行番号 12"), None);
    assert_eq!(line_in("COPY t"), None);
}

#[tokio::test]
async fn what_a_person_must_mend_pauses_and_says_what_to_do() {
    let (server, client) =
        with("CREATE TABLE t (v int); CREATE ROLE nobody_may LOGIN; CREATE VIEW w AS SELECT 1 AS v").await;
    let cases = [
        ("COPY absent FROM STDIN (FORMAT binary)", "42P01", "jetcopy migrate"),
        ("COPY t (absent) FROM STDIN (FORMAT binary)", "42703", "mapping"),
        ("SET ROLE nobody_may; COPY t FROM STDIN (FORMAT binary)", "42501", "and its GRANT"),
        ("COPY nowhere.t FROM STDIN (FORMAT binary)", "3F000", "schema"),
    ];
    for (sql, expected, remedy_has) in cases {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&error), expected, "{sql}");
        assert_eq!(decide(&error, Step::CopyStart), Decision::Pause, "{sql}");
        assert!(remedy(&error).contains(remedy_has), "{sql}: {}", remedy(&error));
    }
    client.batch_execute("RESET ROLE").await.unwrap();
    let error = copy(&client, "w", &[]).await;
    assert_eq!((code(&error), decide(&error, COPY)), ("42809", Decision::Pause));
    let error = connect(&server.database_url("absent")).await.err().unwrap();
    assert_eq!((code(&error), decide(&error, Step::Connect)), ("3D000", Decision::Pause));
    let error = connect(&server.url().replace("postgres@", "stranger@")).await.err().unwrap();
    assert_eq!((code(&error), decide(&error, Step::Connect)), ("28000", Decision::Pause));
}

#[tokio::test]
async fn what_passes_by_itself_is_retried() {
    let (server, client) = with("CREATE TABLE t (v int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await;
    let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    let other = connect(&server.database_url(&name)).await.unwrap();

    other.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let error = client.batch_execute("SET lock_timeout = '10ms'; SELECT FROM t").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::CopyStart)), ("55P03", Decision::Retry));
    let error =
        client.batch_execute("SET statement_timeout = '10ms'; SELECT pg_sleep(60)").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, COPY)), ("57014", Decision::Retry));
    client.batch_execute("RESET ALL").await.unwrap();

    other.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT FROM t").await.unwrap();
    client.batch_execute("UPDATE t SET v = 3 WHERE v = 1").await.unwrap();
    let error = other.batch_execute("UPDATE t SET v = 4 WHERE v = 1").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::Own)), ("40001", Decision::Retry));

    other
        .batch_execute("ROLLBACK; BEGIN; SET deadlock_timeout = '10ms'; UPDATE t SET v = 20 WHERE v = 2")
        .await
        .unwrap();
    client
        .batch_execute("BEGIN; SET deadlock_timeout = '1min'; UPDATE t SET v = 30 WHERE v = 3")
        .await
        .unwrap();
    let waiting = client.batch_execute("UPDATE t SET v = 21 WHERE v = 2");
    let (_, error) = tokio::join!(waiting, other.batch_execute("UPDATE t SET v = 31 WHERE v = 3"));
    let error = error.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::Own)), ("40P01", Decision::Retry));
}

#[tokio::test]
async fn a_session_that_is_not_what_it_was_is_replaced() {
    let (server, client) = with("CREATE TABLE t (v int)").await;
    let error = client.batch_execute("PREPARE s AS SELECT 1; PREPARE s AS SELECT 1").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::CopyStart)), ("42P05", Decision::Reconnect));
    let error = client.batch_execute("EXECUTE absent").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::CopyStart)), ("26000", Decision::Reconnect));
    let error = client.batch_execute("BEGIN READ ONLY; INSERT INTO t VALUES (1)").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::Own)), ("25006", Decision::Reconnect));
    let error = client.batch_execute("SELECT 1").await.unwrap_err();
    assert_eq!((code(&error), decide(&error, Step::Own)), ("25P02", Decision::Reconnect));
    client.batch_execute("ROLLBACK").await.unwrap();

    let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    let other = connect(&server.database_url(&name)).await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let sleeping = client.batch_execute("SELECT pg_sleep(60)");
    let ending = async {
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        while other.query_one(asleep, &[&pid]).await.unwrap().get::<_, i64>(0) == 0 {}
        other.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap()
    };
    let both = async { tokio::join!(sleeping, ending).0 };
    let error = tokio::time::timeout(Duration::from_secs(30), both).await.unwrap().unwrap_err();
    assert_eq!((code(&error), decide(&error, COPY)), ("57P01", Decision::Reconnect));
    let error = client.batch_execute("SELECT 1").await.unwrap_err();
    assert!(error.is_closed());
    assert_eq!(decide(&error, COPY), Decision::Reconnect);
}

#[tokio::test]
async fn a_full_server_is_waited_for() {
    let options = PostgresOptions {
        max_connections: 4,
        settings: vec![("superuser_reserved_connections".into(), "0".into())],
        ..PostgresOptions::plain()
    };
    let server = TestPostgres::start(&options).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match connect(&server.url()).await {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!((code(&error), decide(&error, Step::Connect)), ("53300", Decision::BackOff));
}

#[test]
fn every_class_of_the_appendix_has_a_group_of_its_own() {
    let classes = [
        "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23",
        "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44",
        "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
    ];
    for code in classes {
        assert_ne!(class(&format!("{code}000")), Class::Custom, "{code}");
    }
    assert_eq!(class("TS001"), Class::Custom);
    assert_eq!(class(""), Class::Custom);
}
