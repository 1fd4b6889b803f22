//! Dead letters are listed, shown, retried, discarded and exported, and each message stays in one place.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetcopy::testbed::Wire;
use serde_json::json;

use crate::support::{Daemon, World, eventually, oracle};

const PIPELINE: &str = r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
batch = { max_rows = 200, max_age = "5ms" }
[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"
stored = "$timestamp"
source = "$header.Source"
token = "$subject[1]"
"#;

const TABLE: &str =
    "CREATE TABLE events (sequence bigint NOT NULL, id integer NOT NULL, stored timestamptz NOT NULL,
    source text, token text NOT NULL, CONSTRAINT small CHECK (id < 1000))";

/// Ids from 1 on; every tenth is too large for the constraint, every twenty-fifth no message at all.
fn payload(id: u64) -> String {
    if id.is_multiple_of(25) {
        "{".to_owned()
    } else if id.is_multiple_of(10) {
        json!({"id": id + 5_000}).to_string()
    } else {
        json!({"id": id}).to_string()
    }
}

/// 100 messages carried, 8 of them refused and 4 malformed, and the daemon that did it.
async fn carried() -> (World, PathBuf, Daemon) {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    world.publish("a", (1..=100).map(payload)).await;
    let config = world.config(PIPELINE);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    assert_eq!(letters(&world).await, 12);
    (world, config, daemon)
}

async fn letters(world: &World) -> i64 {
    world.count("SELECT count(*) FROM jetcopy.dead_letters").await
}

async fn id_of(world: &World, sequence: i64) -> String {
    let sql = format!("SELECT id FROM jetcopy.dead_letters WHERE sequence = {sequence}");
    world.count(&sql).await.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn list_filters_and_show_tells_all() {
    let (world, config, _daemon) = carried().await;
    let list = world.run(&config, &["dead-letters", "list"]).await.well();
    assert_eq!(list.lines().count(), 13, "{list}");
    let newest = list.lines().nth(1).unwrap();
    assert!(newest.contains(" 90  ") && newest.contains("violates check constraint"), "{list}");
    for (filter, count) in [
        (&["--kind", "refused"][..], 8),
        (&["--kind", "malformed"], 4),
        (&["--table", "events"], 8),
        (&["--pipeline", "events", "--kind", "refused", "--limit", "3"], 3),
        (&["--since", "1h"], 12),
    ] {
        let list = world.run(&config, &[&["dead-letters", "list"], filter].concat()).await.well();
        assert_eq!(list.lines().count(), count + 1, "{filter:?}: {list}");
    }
    for filter in [["--pipeline", "frames"], ["--since", "2100-01-01"]] {
        let list = world.run(&config, &[&["dead-letters", "list"][..], &filter[..]].concat()).await.well();
        assert_eq!(list, "no dead letter is like that; without these filters there are 12\n");
    }

    let refused = world.run(&config, &["dead-letters", "show", &id_of(&world, 10).await]).await.well();
    for said in
        ["sequence 10", "reason ", "violates check constraint", "sqlstate   23514", "{\n  \"id\": 5010\n}"]
    {
        assert!(refused.contains(said), "{said:?} in {refused}");
    }
    let malformed = world.run(&config, &["dead-letters", "show", &id_of(&world, 25).await]).await.well();
    assert!(malformed.contains("payload    1 bytes:\n00000000  7b  "), "{malformed}");
    for what in ["show", "retry", "discard"] {
        let answer = world.run(&config, &["dead-letters", what, "4711000"]).await;
        assert_eq!(answer.code, 1);
        assert!(answer.err.contains("there is no dead letter 4711000"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_gives_each_payload_as_it_was_or_decoded() {
    let (world, config, _daemon) = carried().await;
    let exported = world.run(&config, &["dead-letters", "export"]).await.objects();
    assert_eq!(exported.len(), 12);
    for letter in &exported {
        let sequence = letter["sequence"].as_u64().unwrap();
        let payload_now = STANDARD.decode(letter["payload_base64"].as_str().unwrap()).unwrap();
        assert_eq!(payload_now, payload(sequence).as_bytes());
        assert_eq!(letter["pipeline"], "events");
    }
    let decoded =
        world.run(&config, &["dead-letters", "export", "--decode", "--kind", "refused"]).await.objects();
    assert_eq!(decoded[0]["payload"], json!({"id": 5010}));
    assert!(decoded[0].get("payload_base64").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_stores_what_can_be_stored_now_beside_the_daemon_and_keeps_the_rest_with_its_new_reason() {
    let (world, config, daemon) = carried().await;
    let again = world.run(&config, &["dead-letters", "retry", "--all"]).await;
    assert_eq!(again.code, 1);
    assert!(again.out.contains("0 stored in 0 rows, 12 still dead letters"), "{again:?}");
    assert!(again.out.contains("was refused again: refused: new row for relation"), "{again:?}");
    assert_eq!(letters(&world).await, 12);

    // 5050 is refused by another constraint from now on.
    let mend = "ALTER TABLE events DROP CONSTRAINT small, ADD CONSTRAINT other CHECK (id <> 5070)";
    world.database.batch_execute(mend).await.unwrap();
    let mut publishing = tokio::time::interval(std::time::Duration::from_millis(1));
    let load = async {
        for id in 101..=400 {
            publishing.tick().await;
            world.publish("b", [json!({"id": id}).to_string()]).await;
        }
    };
    let retry = ["dead-letters", "retry", "--pipeline", "events"];
    let ((), first, second) = tokio::join!(load, world.run(&config, &retry), world.run(&config, &retry));
    assert_eq!((first.code, second.code), (1, 1), "{first:?} {second:?}");
    let stored = |out: &str| -> u64 {
        out.lines().find_map(|line| line.split_once(" stored in ")).unwrap().0.parse().unwrap()
    };
    assert_eq!(stored(&first.out) + stored(&second.out), 7, "{first:?} {second:?}");
    assert_eq!(letters(&world).await, 5);
    let reason = "SELECT count(*) FROM jetcopy.dead_letters WHERE sequence = 70 AND message LIKE '%other%'";
    assert_eq!(world.count(reason).await, 1);

    // What columns take from the broker is as it would have been.
    let stream = world.jetstream.get_stream(&world.stream).await.unwrap();
    let time = stream.get_raw_message(10).await.unwrap().time.unix_timestamp_nanos() / 1_000;
    let row = "SELECT (extract(epoch FROM stored) * 1000000)::bigint FROM events WHERE sequence = 10 AND \
               token = 'a'";
    assert_eq!(i128::from(world.count(row).await), time);
    oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into()).await;
    let audit = world.run(&config, &["audit", "events"]).await;
    assert_eq!(audit.code, 0, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_can_be_named_and_their_headers_are_kept() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Source", "north");
    let subject = format!("{}.a", world.stream);
    for _ in 0..2 {
        let publish = world.jetstream.publish_with_headers(
            subject.clone(),
            headers.clone(),
            json!({"id": 5_000}).to_string().into(),
        );
        publish.await.unwrap().await.unwrap();
    }
    let config = world.config(PIPELINE);
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    world.database.batch_execute("ALTER TABLE events DROP CONSTRAINT small").await.unwrap();
    let said = world.run(&config, &["dead-letters", "retry", &id_of(&world, 2).await]).await.well();
    assert_eq!(said, "1 stored in 1 rows, 0 still dead letters\n");
    assert_eq!(world.count("SELECT count(*) FROM events WHERE sequence = 2 AND source = 'north'").await, 1);
    oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_without_saying_of_what_is_a_wrong_argument() {
    let world = World::new().await;
    let config = world.config(PIPELINE);
    for action in ["retry", "discard"] {
        let answer = world.run(&config, &["dead-letters", action]).await;
        assert_eq!(answer.code, 2, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_discarded_without_yes() {
    let (world, config, _daemon) = carried().await;
    let discard = ["dead-letters", "discard", "--kind", "malformed"];
    let answer = world.run(&config, &discard).await;
    assert_eq!(answer.code, 1);
    assert!(answer.out.contains("4 dead letters would be discarded; nothing was changed"), "{answer:?}");
    assert_eq!(letters(&world).await, 12);
    let said = world.run(&config, &[&discard[..], &["--yes"]].concat()).await.well();
    assert_eq!(said, "4 dead letters discarded\n");
    assert_eq!(letters(&world).await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_element_becomes_its_row_only() {
    let world = World::new().await;
    let table = "CREATE TABLE parts (sequence bigint, place integer, id integer NOT NULL, \
                 CONSTRAINT small CHECK (id < 1000))";
    world.database.batch_execute(table).await.unwrap();
    let message =
        json!({"parts": [{"id": 1}, {"id": 2_000}, {"id": "x"}, {"id": 4}, {"id": 5_000}]}).to_string();
    world.publish("a", [message]).await;
    let config = world.config(
        "[[pipeline]]\nname = \"parts\"\nstream = \"STREAM\"\nformat = \"json\"\n[[pipeline.table]]\nname = \
         \"parts\"\nfor_each = \"parts\"\nbad_element = \"element\"\n[pipeline.table.columns]\nsequence = \
         \"$sequence\"\nplace = \"$element\"\n",
    );
    let daemon = Daemon::start(&config);
    world.drained("parts", &daemon).await;
    assert_eq!(letters(&world).await, 3);
    world.database.batch_execute("ALTER TABLE parts DROP CONSTRAINT small").await.unwrap();
    let answer = world.run(&config, &["dead-letters", "retry", "--all"]).await;
    assert_eq!(answer.code, 1);
    assert!(answer.out.contains("2 stored in 2 rows, 1 still dead letters"), "{answer:?}");
    let places = "SELECT string_agg(place || ':' || id, ' ' ORDER BY place) FROM parts";
    let places: String = world.database.query_one(places, &[]).await.unwrap().get(0);
    assert_eq!(places, "0:1 1:2000 3:4 4:5000");
    assert_eq!(world.count("SELECT element::bigint FROM jetcopy.dead_letters").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_elements_may_be_refused_one_by_one_leaves_their_letters() {
    let world = World::new().await;
    let table = "CREATE TABLE parts (sequence bigint, place integer, site text NOT NULL, \
        id integer NOT NULL, \
                 CONSTRAINT small CHECK (id < 1000))";
    world.database.batch_execute(table).await.unwrap();
    world.publish("a", [json!({"parts": [{"id": 1}, {"id": 2_000}, {"id": "x"}]}).to_string()]).await;
    let pipeline = "[[pipeline]]\nname = \"parts\"\nstream = \"STREAM\"\nformat = \
                    \"json\"\n[[pipeline.table]]\nname = \"parts\"\nfor_each = \
                    \"parts\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\nplace = \"$element\"\n";
    let daemon = Daemon::start(&world.config(pipeline));
    world.drained("parts", &daemon).await;
    assert_eq!(letters(&world).await, 1);
    let mended =
        pipeline.replace("for_each", "bad_element = \"element\"\nfor_each") + "site = { constant = \"n\" }\n";
    let config = world.config(&mended);
    let said = world.run(&config, &["dead-letters", "retry", "--all"]).await.well();
    assert!(said.contains("1 stored in 1 rows, 0 still dead letters"), "{said}");
    assert!(said.contains("2 elements of the stored messages are now dead letters of their own"), "{said}");
    assert_eq!(world.count("SELECT sum(element)::bigint FROM jetcopy.dead_letters").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM parts WHERE place = 0 AND id = 1").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_row_never_replaces_a_newer_one() {
    let world = World::new().await;
    let table = "CREATE TABLE latest (camera text PRIMARY KEY, value integer NOT NULL CHECK (value < 100), \
                 last bigint)";
    world.database.batch_execute(table).await.unwrap();
    let message = |camera: &str, value: i32| json!({"camera": camera, "value": value}).to_string();
    world.publish("a", [message("a", 500), message("a", 1), message("b", 2), message("b", 600)]).await;
    let pipeline = "[[pipeline]]\nname = \"latest\"\nstream = \"STREAM\"\nformat = \"json\"\n\
                    batch = { max_rows = 1 }\n[[pipeline.table]]\n\
                    name = \"latest\"\non_conflict = \"update\"\nkey = [\"camera\"]\n";
    let kept = format!("{pipeline}[pipeline.table.columns]\nlast = \"$sequence\"\n");
    let config = world.config(&kept);
    let daemon = Daemon::start(&config);
    world.drained("latest", &daemon).await;
    assert_eq!(letters(&world).await, 2);
    world.database.batch_execute("ALTER TABLE latest DROP CONSTRAINT latest_value_check").await.unwrap();

    let blind = world.run(&world.config(pipeline), &["dead-letters", "retry", "--all"]).await;
    assert_eq!(blind.code, 1);
    assert!(blind.out.contains("neither newer_by nor a column that keeps $sequence"), "{blind:?}");
    world.run(&world.config(&kept), &["dead-letters", "retry", "--all"]).await.well();
    let values = "SELECT string_agg(camera || ':' || value, ' ' ORDER BY camera) FROM latest";
    let values: String = world.database.query_one(values, &[]).await.unwrap().get(0);
    assert_eq!(values, "a:1 b:600");
    eventually("no letter", || async { letters(&world).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_there_already_is_ignored_where_the_table_says_so() {
    let world = World::new().await;
    let table = "CREATE TABLE once (id integer PRIMARY KEY, value integer CHECK (value < 100))";
    world.database.batch_execute(table).await.unwrap();
    let message = |id: i32, value: i32| json!({"id": id, "value": value}).to_string();
    world.publish("a", [message(1, 500), message(2, 600), message(1, 1)]).await;
    let config = world.config(
        "[[pipeline]]\nname = \"once\"\nstream = \"STREAM\"\nformat = \"json\"\n[[pipeline.table]]\nname = \
         \"once\"\non_conflict = \"ignore\"\n",
    );
    let daemon = Daemon::start(&config);
    world.drained("once", &daemon).await;
    world.database.batch_execute("ALTER TABLE once DROP CONSTRAINT once_value_check").await.unwrap();
    world.run(&config, &["dead-letters", "retry", "--all"]).await.well();
    let values = "SELECT string_agg(id || ':' || value, ' ' ORDER BY id) FROM once";
    let values: String = world.database.query_one(values, &[]).await.unwrap().get(0);
    assert_eq!(values, "1:1 2:600");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_constraint_that_refuses_at_commit_keeps_the_letter() {
    let world = World::new().await;
    world.database.batch_execute(TABLE).await.unwrap();
    let config = world.config(PIPELINE);
    world.publish("a", [json!({"id": 5_000}).to_string()]).await;
    let daemon = Daemon::start(&config);
    world.drained("events", &daemon).await;
    let deferred = "ALTER TABLE events DROP CONSTRAINT small; CREATE TABLE known (id integer PRIMARY KEY);
        ALTER TABLE events ADD FOREIGN KEY (id) REFERENCES known DEFERRABLE INITIALLY DEFERRED";
    world.database.batch_execute(deferred).await.unwrap();
    let answer = world.run(&config, &["dead-letters", "retry", "--all"]).await;
    assert!(answer.out.contains("violates foreign key constraint"), "{answer:?}");
    assert_eq!((letters(&world).await, world.count("SELECT count(*) FROM events").await), (1, 0));
    world.database.batch_execute("INSERT INTO known VALUES (5000), (1)").await.unwrap();
    world.run(&config, &["dead-letters", "retry", "--all"]).await.well();
    oracle(&world, &daemon, "events", "events", json!({"id": 1}).to_string().into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_kept_once_per_message_whichever_of_its_letters_go() {
    let world = World::new().await;
    let table = "CREATE TABLE parts (sequence bigint, place integer, id integer, \
                 CONSTRAINT small CHECK (id < 1000 OR id = 5003))";
    world.database.batch_execute(table).await.unwrap();
    let message = |filler: usize, bad: i64| {
        let parts: Vec<_> = (0..bad).map(|part| json!({"id": 5_000 + part * 3})).collect();
        // Hardly to be compressed.
        let filler: Vec<usize> = (0..filler).map(|at| at * 2_654_435_761 % 4_093).collect();
        json!({"parts": parts, "filler": filler}).to_string()
    };
    // A hundred bad elements of one message, of which one letter is about all, and nine that have a letter
    // each.
    let large = message(190_000, 9);
    world.publish("a", [message(190_000, 100), large.clone()]).await;
    let pipeline = "[[pipeline]]\nname = \"parts\"\nstream = \"STREAM\"\nformat = \
                    \"json\"\n[[pipeline.table]]\nname = \"parts\"\nfor_each = \"parts\"\nbad_element = \
                    \"element\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\nplace = \
                    \"$element\"\n";
    let config = world.config(pipeline);
    let daemon = Daemon::start(&config);
    world.drained("parts", &daemon).await;
    assert_eq!(letters(&world).await, 9);
    let size = world.count("SELECT pg_total_relation_size('jetcopy.dead_letters')").await;
    assert!(size < 4 << 20, "{size} bytes");
    assert_eq!(world.count("SELECT count(payload) FROM jetcopy.dead_letters").await, 2);

    let holder = "SELECT min(id) FROM jetcopy.dead_letters WHERE payload IS NOT NULL AND sequence = 2";
    let whole = async || {
        for letter in world.run(&config, &["dead-letters", "export"]).await.objects() {
            if letter["sequence"] == 2 {
                assert_eq!(
                    STANDARD.decode(letter["payload_base64"].as_str().unwrap()).unwrap(),
                    large.as_bytes()
                );
            }
        }
        world.count("SELECT count(payload) FROM jetcopy.dead_letters WHERE sequence = 2").await
    };
    assert_eq!(whole().await, 1);
    // The one that holds it is discarded, deleted by hand beside others, and retried.
    let id = world.count(holder).await.to_string();
    world.run(&config, &["dead-letters", "discard", &id, "--yes"]).await.well();
    assert_eq!(whole().await, 1);
    let id = world.count(holder).await;
    let delete = format!("DELETE FROM jetcopy.dead_letters WHERE id IN ({id}, {id} + 1)");
    world.database.batch_execute(&delete).await.unwrap();
    assert_eq!(whole().await, 1);
    world.database.batch_execute("ALTER TABLE parts DROP CONSTRAINT small").await.unwrap();
    let id = world.count(holder).await.to_string();
    world.run(&config, &["dead-letters", "retry", &id]).await.well();
    assert_eq!(whole().await, 1);
    world.run(&config, &["dead-letters", "retry", "--all"]).await.well();
    assert_eq!(letters(&world).await, 0);
    assert_eq!(world.count("SELECT count(*) FROM parts WHERE sequence = 1").await, 100);
    assert_eq!(world.count("SELECT count(DISTINCT place) FROM parts WHERE sequence = 2").await, 6);
}

/// The rest of a subject, a header block and a payload.
type Sent<'m> = (&'m [u8], Option<&'m [u8]>, &'m str);

/// Publishes raw bytes below the stream's name.
async fn publish_raw(world: &World, messages: &[Sent<'_>]) {
    let port = world.nats_url.rsplit(':').next().unwrap().parse().unwrap();
    let mut wire = Wire::connect(port).unwrap();
    for (rest, headers, payload) in messages {
        let subject = [world.stream.as_bytes(), b".", rest].concat();
        wire.publish(&subject, None, *headers, payload.as_bytes()).unwrap();
    }
    wire.settled().unwrap();
    eventually("the stream to hold them", async || world.last_sequence().await == messages.len() as u64)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_stores_no_subject_and_no_header_that_nobody_sent() {
    let world = World::new().await;
    let table = "CREATE TABLE original (sequence bigint, id integer, subject text, a text)";
    world.database.batch_execute(table).await.unwrap();
    let forged = format!(
        "NATS/1.0\r\nJetcopy-Raw-Headers: {}\r\nA: real\r\n\r\n",
        STANDARD.encode("NATS/1.0\r\nA: forged\r\n\r\n")
    );
    let messages: [Sent<'_>; 11] = [
        (b"fine", None, r#"{"id":1}"#),
        (b"a\0b", None, r#"{"id":2}"#),
        (b"\xff\xfe", None, r#"{"id":3}"#),
        (b"a", Some(b"NATS/1.0\r\nA: x\0y\r\n\r\n"), r#"{"id":4}"#),
        (b"a", Some(b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"), r#"{"id":5}"#),
        (b"a", Some(b"NATS/1.0\r\nA: p\rq\r\n\r\n"), r#"{"id":6}"#),
        (b"a", Some(b"NATS/1.0\r\nA: p\nq\r\n\r\n"), r#"{"id":7}"#),
        (b"a", Some(forged.as_bytes()), r#"{"id":"eight"}"#),
        (b"a", Some(b"NATS/1.0\r\nA: real\r\nB: z\r\nno colon\r\n\r\n"), r#"{"id":9}"#),
        (b"a", Some(b"NATS/1.0\r\na: 3\r\nA: 1\r\nA: 2\r\n\r\n"), r#"{"id":"ten"}"#),
        (b"\xef\xbf\xbd", None, r#"{"id":"eleven"}"#),
    ];
    publish_raw(&world, &messages).await;
    let pipeline = |columns: &str| {
        format!(
            "[[pipeline]]\nname = \"original\"\nstream = \"STREAM\"\npoison = {{ max_per_batch = 100, \
             max_per_minute = 1_000 }}\n[[pipeline.table]]\nname = \
             \"original\"\n[pipeline.table.columns]\nsequence = \"$sequence\"\n{columns}"
        )
    };
    let config = world.config(&pipeline("subject = \"$subject\"\na = \"$header.A\"\n"));
    let daemon = Daemon::start(&config);
    world.drained("original", &daemon).await;
    assert_eq!(letters(&world).await, 10);
    let sql = "SELECT sequence, raw_subject, raw_headers FROM jetcopy.dead_letters ORDER BY sequence";
    for row in world.database.query(sql, &[]).await.unwrap() {
        let sequence: i64 = row.get(0);
        let subject: Option<Vec<u8>> = match sequence {
            2 => Some([world.stream.as_bytes(), b".a\0b"].concat()),
            3 => Some(Vec::new()),
            _ => None,
        };
        let headers =
            messages[usize::try_from(sequence - 1).unwrap()].1.filter(|_| ![8, 10].contains(&sequence));
        let found = (row.get::<_, Option<Vec<u8>>>(1), row.get::<_, Option<Vec<u8>>>(2));
        assert_eq!(found, (subject, headers.map(<[u8]>::to_vec)), "{sequence}");
    }

    world.database.batch_execute("ALTER TABLE original ALTER id TYPE text").await.unwrap();
    let said = world.run(&config, &["dead-letters", "retry", "--all"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let all = said.out.clone() + &said.err;
    for (says, times) in [("needs the subject, which is not UTF-8", 1), ("needs the header A", 3), ("NUL", 2)]
    {
        assert_eq!(all.matches(says).count(), times, "{says}: {said:?}");
    }
    let stored = "SELECT sequence, replace(subject, $1, 'S'), a FROM original ORDER BY sequence";
    let rows = world.database.query(stored, &[&world.stream]).await.unwrap();
    let rows: Vec<(i64, &str, Option<&str>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = [
        (1, "S.fine", None),
        (8, "S.a", Some("real")),
        (9, "S.a", Some("real")),
        (10, "S.a", Some("1")),
        (11, "S.\u{fffd}", None),
    ];
    assert_eq!(rows, expected);

    // What a mapping does not take, holds nothing up.
    let plain = world.config(&pipeline(""));
    let said = world.run(&plain, &["dead-letters", "retry", "--all"]).await.well();
    assert_eq!(said, "6 stored in 6 rows, 0 still dead letters\n");
    assert_eq!(world.count("SELECT count(*) FROM original WHERE subject IS NULL AND a IS NULL").await, 6);
    let audit = world.run(&plain, &["audit", "original"]).await;
    assert_eq!(audit.code, 0, "{audit:?}");
}
