//! With `bad_element = "element"`, an element that cannot be stored becomes a dead letter, and the others
//! become rows.

use serde_json::{Value, json};

use crate::support::{Daemon, PATIENCE, World, oracle};

/// Runs `jetcopy dead-letters retry --all`, which must store all; what it says.
fn retried(config: &std::path::Path) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    let output = command.args(["dead-letters", "retry", "--all", "--config"]).arg(config).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// `rest` are further settings of the pipeline.
fn pipeline(rest: &str) -> String {
    format!(
        r#"
[[pipeline]]
name = "events"
stream = "STREAM"
format = "json"
{rest}

[[pipeline.table]]
name = "events"
[pipeline.table.columns]
sequence = "$sequence"

[[pipeline.table]]
name = "parts"
for_each = "parts"
bad_element = "element"
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
"#
    )
}

/// All messages in one batch.
const ONE_BATCH: &str = "batch = { max_rows = 100000, max_age = \"1s\" }";

/// Message `id` with parts of these sizes.
fn message(id: i64, sizes: &[Value]) -> String {
    let parts: Vec<Value> = sizes.iter().map(|size| json!({"size": size})).collect();
    json!({"id": id, "parts": parts}).to_string()
}

/// Rows of `parts`: sequence and element.
async fn parts(world: &World) -> Vec<(i64, i32)> {
    let rows = world.database.query("SELECT sequence, element FROM parts ORDER BY 1, 2", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Dead letters: sequence, element, kind.
async fn dead_letters(world: &World) -> Vec<(i64, Option<i32>, String)> {
    let sql = "SELECT sequence, element, kind FROM jetcopy.dead_letters ORDER BY 1, 2";
    let rows = world.database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// What `jetcopy audit` finds different.
fn audited(world: &World, config: &str) -> Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_jetcopy"));
    command.args(["audit", "events", "--json", "--config"]).arg(world.config(config));
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(report["method"]["by"], "sequences", "{report:#}");
    report["first_differences"].clone()
}

/// Publishes 40 messages of 10 parts, of which `tables` refuses a few, to one batch, and expects all others
/// as rows.
async fn all_but_the_bad_are_rows(tables: &str, bad: &[(i64, i32)], kind: &str) {
    let world = World::new().await;
    world.database.batch_execute(tables).await.unwrap();
    let is_bad = |id: i64, element: i32| bad.contains(&(id, element));
    let bad_size = if kind == "type" { json!("wide") } else { json!(99) };
    let messages = (1..=40).map(|id| {
        let sizes: Vec<Value> = (0..10)
            .map(|element| if is_bad(id, element) { bad_size.clone() } else { json!(element) })
            .collect();
        message(id, &sizes)
    });
    world.publish("a", messages).await;
    let daemon = Daemon::start(&world.config(&pipeline(ONE_BATCH)));
    oracle(&world, &daemon, "events", "events", message(41, &[]).into()).await;

    let all = (1..=40).flat_map(|id| (0..10).map(move |element| (id, element)));
    let expected: Vec<(i64, i32)> = all.filter(|&(id, element)| !is_bad(id, element)).collect();
    assert_eq!(parts(&world).await, expected);
    let expected: Vec<_> = bad.iter().map(|&(id, element)| (id, Some(element), kind.to_owned())).collect();
    assert_eq!(dead_letters(&world).await, expected);
    let whole = "SELECT count(*)
        FROM jetcopy.dead_letters letter, convert_from(jetcopy.payload_of(letter), 'UTF8') AS whole
        WHERE table_name = 'parts' AND whole::jsonb->'id' = to_jsonb(sequence)
            AND jsonb_array_length(whole::jsonb->'parts') = 10";
    assert_eq!(world.count(whole).await, i64::try_from(bad.len()).unwrap(), "the payload is the message");
    assert_eq!(audited(&world, &pipeline("")), json!([]));

    let spoil = "DELETE FROM parts WHERE sequence = 2 AND element = 4;
        INSERT INTO parts SELECT * FROM parts WHERE sequence = 3 AND element = 0;
        INSERT INTO parts (sequence, element) SELECT sequence, element FROM jetcopy.dead_letters
        ORDER BY sequence, element LIMIT 1";
    world.database.batch_execute(spoil).await.unwrap();
    let wrong = |sequence: i64, there: i64, times: i64| {
        json!({"found": "elements", "sequence": sequence, "table": "parts", "elements": 10, "there": there,
            "times": times})
    };
    // The same by the rows: one is missing, one is there twice, one is of no message.
    let found = audited(&world, &pipeline(""));
    let by = |kind: &str| {
        found.as_array().unwrap().iter().filter(|it| it["found"] == kind).cloned().collect::<Vec<_>>()
    };
    assert_eq!(by("elements"), [wrong(2, 9, 9), wrong(3, 10, 11), wrong(bad[0].0, 10, 11)]);
    assert_eq!((by("rows").len(), found.as_array().unwrap().len()), (3, 6), "{found:#}");
}

const EVENTS: &str = "CREATE TABLE events (sequence bigint, id integer);";

#[tokio::test]
async fn elements_that_no_column_takes_are_dead_letters_alone() {
    let tables = format!("{EVENTS} CREATE TABLE parts (sequence bigint, element integer, size integer)");
    all_but_the_bad_are_rows(&tables, &[(5, 0), (5, 9), (17, 3), (40, 9)], "type").await;
}

#[tokio::test]
async fn elements_that_a_check_refuses_are_pinned_by_the_line_that_the_server_names() {
    let check = "CREATE TABLE parts (sequence bigint, element integer, size integer CHECK (size < 50))";
    all_but_the_bad_are_rows(&format!("{EVENTS} {check}"), &[(5, 0), (5, 9), (17, 3), (40, 9)], "refused")
        .await;
}

/// A foreign key is looked at after the `COPY`, and its error names no line.
#[tokio::test]
async fn elements_without_their_foreign_key_are_found_by_bisection() {
    for deferred in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let tables = format!(
            "{EVENTS} CREATE TABLE sizes (size integer PRIMARY KEY);
             INSERT INTO sizes SELECT generate_series(0, 50);
             CREATE TABLE parts (sequence bigint, element integer, size integer REFERENCES sizes {deferred})"
        );
        all_but_the_bad_are_rows(&tables, &[(5, 0), (5, 9), (40, 3)], "refused").await;
    }
}

#[tokio::test]
async fn a_message_that_is_refused_as_a_whole_keeps_no_dead_letters_of_its_elements() {
    let world = World::new().await;
    let tables = "CREATE TABLE events (sequence bigint, id integer CHECK (id <> 2));
        CREATE TABLE parts (sequence bigint, element integer, size integer CHECK (size < 50))";
    world.database.batch_execute(tables).await.unwrap();
    // The server sees the second message's id last: the tables are written in their order only when the first
    // passes.
    let messages = (1..=3).map(|id| message(id, &[json!(1), json!("wide"), json!(99), json!(4)]));
    world.publish("a", messages).await;
    let daemon = Daemon::start(&world.config(&pipeline(ONE_BATCH)));
    oracle(&world, &daemon, "events", "events", message(4, &[]).into()).await;
    assert_eq!(parts(&world).await, [(1, 0), (1, 3), (3, 0), (3, 3)]);
    let expected = [
        (1, Some(1), "type"),
        (1, Some(2), "refused"),
        (2, None, "refused"),
        (3, Some(1), "type"),
        (3, Some(2), "refused"),
    ];
    let found = dead_letters(&world).await;
    let found: Vec<_> =
        found.iter().map(|(sequence, element, kind)| (*sequence, *element, kind.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(audited(&world, &pipeline("")), json!([]));
}

#[tokio::test]
async fn a_deferred_constraint_of_the_message_itself_refuses_it_with_all_its_elements() {
    let world = World::new().await;
    let tables = "CREATE TABLE known (id integer PRIMARY KEY); INSERT INTO known VALUES (1), (3), (4);
        CREATE TABLE events (sequence bigint, id integer REFERENCES known DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE parts (sequence bigint, element integer, size integer)";
    world.database.batch_execute(tables).await.unwrap();
    world.publish("a", (1..=3).map(|id| message(id, &[json!(1), json!(2)]))).await;
    let daemon = Daemon::start(&world.config(&pipeline(ONE_BATCH)));
    oracle(&world, &daemon, "events", "events", message(4, &[]).into()).await;
    assert_eq!(parts(&world).await, [(1, 0), (1, 1), (3, 0), (3, 1)]);
    assert_eq!(dead_letters(&world).await, [(2, None, "refused".to_owned())]);
}

#[tokio::test]
async fn bad_elements_count_against_the_limits_of_poison() {
    let world = World::new().await;
    let tables = format!("{EVENTS} CREATE TABLE parts (sequence bigint, element integer, size integer)");
    world.database.batch_execute(&tables).await.unwrap();
    // Three messages of four bad elements: each counts once.
    world
        .publish("a", (1..=3).map(|id| message(id, &[json!("a"), json!("b"), json!("c"), json!("d")])))
        .await;
    let limits = format!("poison = {{ max_per_batch = 2 }}\n{ONE_BATCH}");
    let daemon = Daemon::start(&world.config(&pipeline(&limits)));
    daemon.says("more than 2 messages of one batch cannot be stored").await;
    assert_eq!(world.checkpoint("events").await, 0);
    assert_eq!(dead_letters(&world).await, []);
    daemon.kill();
    let limits = format!("poison = {{ max_per_batch = 3, max_per_minute = 3 }}\n{ONE_BATCH}");
    let daemon = Daemon::start(&world.config(&pipeline(&limits)));
    oracle(&world, &daemon, "events", "events", message(4, &[]).into()).await;
    assert_eq!(dead_letters(&world).await.len(), 12);
}

/// Sizes of 300 parts, of which every second is bad.
fn half_bad(bad: &Value) -> Vec<Value> {
    (0..300).map(|size| if size % 2 == 1 { bad.clone() } else { json!(size % 50) }).collect()
}

/// A message with 150 bad parts beside a good one of two: one letter is about all of the bad, the good are
/// rows, and once `mend` was run a retry stores the others. `reason` is the letter's.
async fn many_bad_elements_are_one_letter(tables: &str, bad: Value, mend: &str, reason: &str) {
    let world = World::new().await;
    world.database.batch_execute(&format!("{EVENTS} {tables}")).await.unwrap();
    world.publish("a", [message(1, &[json!(1), json!(2)]), message(2, &half_bad(&bad))]).await;
    let config = world.config(&pipeline(ONE_BATCH));
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "events", message(3, &[]).into()).await;
    let even = (0..300).step_by(2).map(|element| (2, element));
    let expected: Vec<(i64, i32)> = [(1, 0), (1, 1)].into_iter().chain(even).collect();
    assert_eq!(parts(&world).await, expected);
    assert_eq!(dead_letters(&world).await.len(), 1);
    let sql = "SELECT message FROM jetcopy.dead_letters WHERE element = 1
        AND elements = ARRAY(SELECT generate_series(1, 299, 2)) AND table_name = 'parts'";
    let found: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    assert!(found.starts_with("150 of its elements cannot be stored; element 1: "), "{found}");
    assert!(found.contains(reason), "{found}");
    assert_eq!(audited(&world, &pipeline("")), json!([]));

    assert!(retried(&config).contains("0 stored in 0 rows, 1 still dead letters"));
    assert_eq!(world.count("SELECT cardinality(elements)::bigint FROM jetcopy.dead_letters").await, 150);
    world.database.batch_execute(mend).await.unwrap();
    assert!(retried(&config).contains("1 stored in 150 rows, 0 still dead letters"));
    assert_eq!(parts(&world).await.len(), 302);
    assert_eq!(audited(&world, &pipeline("")), json!([]));
}

#[tokio::test]
async fn many_elements_of_one_message_that_a_check_refuses_are_one_dead_letter_and_no_flood() {
    let tables = "CREATE TABLE parts (sequence bigint, element integer, size integer CONSTRAINT small \
        CHECK (size < 50))";
    let mend = "ALTER TABLE parts DROP CONSTRAINT small";
    many_bad_elements_are_one_letter(tables, json!(99), mend, "violates check constraint").await;
}

#[tokio::test]
async fn many_elements_of_one_message_that_no_column_takes_are_one_dead_letter_and_no_flood() {
    let tables = "CREATE TABLE parts (sequence bigint, element integer, size smallint)";
    let mend = "ALTER TABLE parts ALTER size TYPE integer";
    many_bad_elements_are_one_letter(tables, json!(40_000), mend, "smallint holds").await;
}

#[tokio::test]
async fn many_elements_of_one_message_without_a_partition_are_one_dead_letter_and_no_flood() {
    let world = World::plain().await;
    let tables = format!(
        "{EVENTS} CREATE TABLE parts (sequence bigint, element integer, time timestamptz NOT NULL);
         SELECT jetcopy.time_table('parts', 'time', '1 day')"
    );
    world.database.batch_execute(&tables).await.unwrap();
    let now = jiff::Timestamp::now().to_string();
    let times =
        (0..201).map(|part| if part % 2 == 0 { "2000-01-01T00:00:00Z".to_owned() } else { now.clone() });
    let parts: Vec<Value> = times.map(|time| json!({"time": time})).collect();
    world.publish("a", [json!({"id": 1, "parts": parts}).to_string()]).await;
    let daemon = Daemon::start(&world.config(&pipeline(ONE_BATCH)));
    oracle(&world, &daemon, "events", "events", message(2, &[]).into()).await;
    assert_eq!(world.count("SELECT count(*) FROM parts").await, 100);
    assert_eq!(world.count("SELECT sum(cardinality(elements))::bigint FROM jetcopy.dead_letters").await, 101);
    assert_eq!(dead_letters(&world).await.len(), 1);
}

#[tokio::test]
async fn a_message_with_more_bad_elements_than_are_looked_for_is_refused_as_a_whole() {
    let world = World::new().await;
    let tables = format!(
        "{EVENTS} CREATE TABLE parts (sequence bigint, element integer, size integer CHECK (size < 50))"
    );
    world.database.batch_execute(&tables).await.unwrap();
    let sizes = [vec![json!(1)], vec![json!(99); 1_001]].concat();
    world.publish("a", [message(1, &[json!(1)]), message(2, &sizes), message(3, &sizes[..500])]).await;
    let daemon = Daemon::start(&world.config(&pipeline(ONE_BATCH)));
    // 1,500 trials of several round trips each.
    world.drained_within(10 * PATIENCE, "events", &daemon).await;
    oracle(&world, &daemon, "events", "events", message(4, &[]).into()).await;
    assert_eq!(parts(&world).await, [(1, 0), (3, 0)]);
    let found = dead_letters(&world).await;
    assert_eq!(found, [(2, None, "refused".to_owned()), (3, Some(1), "refused".to_owned())]);
}

/// A message with as many bad parts as are looked for in small messages, among `parts` of its own, is one
/// dead letter that says so; its neighbours keep a letter for each of their bad parts.
async fn a_large_message_is_refused_as_a_whole(parts_table: &str, size: usize, reason: &str) {
    let world = World::new().await;
    world.database.batch_execute(&format!("{EVENTS} {parts_table}")).await.unwrap();
    let sizes: Vec<Value> =
        (0..size).map(|part| json!(if part % (size / 400) == 1 { 99 } else { 1 })).collect();
    let few = [json!(1), json!(99), json!(2), json!(99)];
    world
        .publish("a", [message(1, &few), message(2, &sizes), message(3, &few), message(4, &[json!(1)])])
        .await;
    let daemon = Daemon::start(&world.config(&pipeline(ONE_BATCH)));
    oracle(&world, &daemon, "events", "events", message(5, &[]).into()).await;
    assert_eq!(parts(&world).await, [(1, 0), (1, 2), (3, 0), (3, 2), (4, 0)]);
    let refused = |sequence, element| (sequence, element, "refused".to_owned());
    let expected = [(1, Some(1)), (1, Some(3)), (2, None), (3, Some(1)), (3, Some(3))];
    assert_eq!(dead_letters(&world).await, expected.map(|(sequence, element)| refused(sequence, element)));
    let sql = "SELECT message FROM jetcopy.dead_letters WHERE sequence = 2";
    let said: String = world.database.query_one(sql, &[]).await.unwrap().get(0);
    let (found, rest) = said.strip_prefix("more than ").unwrap().split_once(' ').unwrap();
    assert!((2..400).contains(&found.parse::<u32>().unwrap()), "{said}");
    let whole = "of its elements cannot be stored, too many to test one by one; element 1: ";
    assert!(rest.starts_with(whole) && rest.contains(reason), "{said}");
}

#[tokio::test]
async fn a_large_message_with_many_elements_that_a_check_refuses_is_refused_as_a_whole() {
    let check = "CREATE TABLE parts (sequence bigint, element integer, size integer CHECK (size < 50))";
    a_large_message_is_refused_as_a_whole(check, 20_000, "violates check constraint").await;
}

#[tokio::test]
async fn a_large_message_with_many_elements_without_their_foreign_key_is_refused_as_a_whole() {
    let key = "CREATE TABLE sizes (size integer PRIMARY KEY);
        INSERT INTO sizes SELECT generate_series(0, 50);
        CREATE TABLE parts (sequence bigint, element integer, size integer REFERENCES sizes)";
    a_large_message_is_refused_as_a_whole(key, 8_000, "violates foreign key constraint").await;
}

#[tokio::test]
async fn a_message_that_is_an_array_is_rows_and_its_bad_elements_are_dead_letters_alone() {
    let world = World::new().await;
    let tables = "CREATE TABLE parts (sequence bigint, element integer, size integer CHECK (size < 50));
        CREATE VIEW messages AS SELECT DISTINCT sequence FROM parts";
    world.database.batch_execute(tables).await.unwrap();
    let pipeline = r#"
[[pipeline]]
name = "events"
stream = "STREAM"

[[pipeline.table]]
name = "parts"
for_each = "$"
bad_element = "element"
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
"#;
    let array = |sizes: Value| {
        let sizes = sizes.as_array().unwrap().iter();
        Value::from(sizes.map(|size| json!({"size": size})).collect::<Vec<_>>())
    };
    let packed = rmp_serde::to_vec_named(&array(json!([4, 5]))).unwrap();
    world.publish("a", [array(json!([1, 99, "wide", 2])).to_string().into_bytes(), packed]).await;
    world.publish("a", [json!({"size": 1}).to_string(), "[".to_owned()]).await;
    let config = world.config(pipeline);
    let daemon = Daemon::start(&config);
    oracle(&world, &daemon, "events", "messages", array(json!([7])).to_string().into()).await;
    assert_eq!(parts(&world).await, [(1, 0), (1, 3), (2, 0), (2, 1), (5, 0)]);
    let expected = [(1, Some(1), "refused"), (1, Some(2), "type"), (3, None, "type"), (4, None, "malformed")];
    let found = dead_letters(&world).await;
    let found: Vec<_> =
        found.iter().map(|(sequence, element, kind)| (*sequence, *element, kind.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(audited(&world, pipeline), json!([]));

    world.database.batch_execute("ALTER TABLE parts DROP CONSTRAINT parts_size_check").await.unwrap();
    let said = retried(&config);
    assert!(said.contains("1 stored in 1 rows, 3 still dead letters"), "{said}");
    assert_eq!(audited(&world, pipeline), json!([]));
}

#[tokio::test]
async fn arrays_within_arrays_are_rows_and_their_bad_elements_are_dead_letters_alone() {
    let world = World::new().await;
    let tables =
        "CREATE TABLE parts (sequence bigint, element integer, batch text, size integer CHECK (size < 50));
        CREATE VIEW messages AS SELECT DISTINCT sequence FROM parts";
    world.database.batch_execute(tables).await.unwrap();
    let pipeline = r#"
[[pipeline]]
name = "events"
stream = "STREAM"

[[pipeline.table]]
name = "parts"
for_each = "batches[*].parts"
bad_element = "element"
[pipeline.table.columns]
sequence = "$sequence"
element = "$element"
batch = "^name"
"#;
    let batch = |name: &str, sizes: Value| {
        let sizes = sizes.as_array().unwrap().iter();
        json!({"name": name, "parts": sizes.map(|size| json!({"size": size})).collect::<Vec<_>>()})
    };
    let message =
        json!({"batches": [batch("a", json!([1, 99])), {"name": "none"}, batch("b", json!(["wide", 2]))]});
    let packed = rmp_serde::to_vec_named(&json!({"batches": [batch("c", json!([4]))]})).unwrap();
    world.publish("a", [message.to_string().into_bytes(), packed]).await;
    world.publish("a", [json!({"batches": [3]}).to_string()]).await;
    let config = world.config(pipeline);
    let daemon = Daemon::start(&config);
    let fresh = json!({"batches": [batch("d", json!([7]))]}).to_string();
    oracle(&world, &daemon, "events", "messages", fresh.into()).await;
    assert_eq!(parts(&world).await, [(1, 0), (1, 3), (2, 0), (4, 0)]);
    assert_eq!(
        world.count("SELECT count(*) FROM parts WHERE sequence = 1 AND batch = 'b' AND size = 2").await,
        1
    );
    let expected = [(1, Some(1), "refused"), (1, Some(2), "type"), (3, None, "type")];
    let found = dead_letters(&world).await;
    let found: Vec<_> =
        found.iter().map(|(sequence, element, kind)| (*sequence, *element, kind.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(audited(&world, pipeline), json!([]));

    world.database.batch_execute("ALTER TABLE parts DROP CONSTRAINT parts_size_check").await.unwrap();
    let said = retried(&config);
    assert!(said.contains("1 stored in 1 rows, 2 still dead letters"), "{said}");
    assert_eq!(
        world.count("SELECT count(*) FROM parts WHERE element = 1 AND batch = 'a' AND size = 99").await,
        1
    );
    assert_eq!(audited(&world, pipeline), json!([]));
}
